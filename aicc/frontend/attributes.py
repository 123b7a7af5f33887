"""AttributeProto -> plain values, checked against ONNX's schema or the operator's own table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnx
from onnx import AttributeProto

from aicc.errors import OperatorError
from aicc.frontend.tensors import TensorReader, text
from aicc.ops.registry import REQUIRED

GRAPH_KINDS = (AttributeProto.GRAPH, AttributeProto.GRAPHS)
_FIELD_KINDS = {
    "f": AttributeProto.FLOAT,
    "i": AttributeProto.INT,
    "s": AttributeProto.STRING,
    "t": AttributeProto.TENSOR,
    "g": AttributeProto.GRAPH,
    "floats": AttributeProto.FLOATS,
    "ints": AttributeProto.INTS,
    "strings": AttributeProto.STRINGS,
}
_PYTHON_KINDS = {
    int: AttributeProto.INT,
    float: AttributeProto.FLOAT,
    str: AttributeProto.STRING,
}
_LIST_KINDS = {
    int: AttributeProto.INTS,
    float: AttributeProto.FLOATS,
    str: AttributeProto.STRINGS,
}


def kind_name(kind: int) -> str:
    """ONNX's name of an attribute type, for messages."""
    try:
        return str(AttributeProto.AttributeType.Name(kind))
    except ValueError:
        return f"type {kind}"


def kind_of(a: onnx.AttributeProto) -> int:
    """An attribute's type; IR version 1 does not write it, then the field that is set tells."""
    if a.type != AttributeProto.UNDEFINED:
        return int(a.type)
    set_fields = {f.name for f, _ in a.ListFields()}
    return next((k for f, k in _FIELD_KINDS.items() if f in set_fields), AttributeProto.UNDEFINED)


def value_of(a: onnx.AttributeProto, tensors: TensorReader) -> Any:
    """The value: int, float, str, numpy array, or a tuple of the first three.

    Raises OperatorError for kinds that have no such value.
    """
    kind = kind_of(a)
    if kind == AttributeProto.FLOAT:
        return float(a.f)
    if kind == AttributeProto.INT:
        return int(a.i)
    if kind == AttributeProto.STRING:
        return text(a.s)
    if kind == AttributeProto.TENSOR:
        return tensors.decode(a.t)
    if kind == AttributeProto.FLOATS:
        return tuple(float(x) for x in a.floats)
    if kind == AttributeProto.INTS:
        return tuple(int(x) for x in a.ints)
    if kind == AttributeProto.STRINGS:
        return tuple(text(x) for x in a.strings)
    raise OperatorError(f"attribute {a.name!r} of {kind_name(kind)} is not supported")


def schema_of(op_type: str, opset: int, domain: str) -> onnx.defs.OpSchema | None:
    """ONNX's schema of an operator as of an opset, or None."""
    try:
        return onnx.defs.get_schema(op_type, opset, domain)
    except onnx.defs.SchemaError:
        return None


def check_kinds(
    attributes: list[onnx.AttributeProto],
    schema: onnx.defs.OpSchema | None,
    table: Mapping[str, Any],
) -> None:
    """Raises OperatorError for an attribute that is unknown, twice there, or of a wrong type.

    schema: what ONNX says of the operator, where it knows it; it has the last word. table: the
    operator's own attributes with their defaults.
    """
    seen: set[str] = set()
    for a in attributes:
        if a.name in seen:
            raise OperatorError(f"attribute {a.name!r} is there twice")
        seen.add(a.name)
        if schema is not None:
            if a.name not in schema.attributes:
                known = ", ".join(sorted(schema.attributes)) or "none"
                since = f"opset {schema.since_version}"
                raise OperatorError(f"unknown attribute {a.name!r}; {since} has: {known}")
            declared: Any = schema.attributes[a.name].type  # an enum, unknown to type stubs
            wanted = int(declared.value)
        else:
            if a.name not in table:
                known = ", ".join(sorted(table)) or "none"
                raise OperatorError(f"unknown attribute {a.name!r}; known are: {known}")
            wanted = _kind_of_default(table[a.name])
        if wanted not in (AttributeProto.UNDEFINED, kind_of(a)):
            found = kind_name(kind_of(a))
            raise OperatorError(f"attribute {a.name!r} is {found}, not {kind_name(wanted)}")


def _kind_of_default(default: Any) -> int:
    """The attribute type that a default value implies; UNDEFINED where it implies none."""
    if default is None or default is REQUIRED:
        return AttributeProto.UNDEFINED
    if isinstance(default, tuple | list):
        kind = _LIST_KINDS.get(type(default[0])) if default else None
    else:
        kind = _PYTHON_KINDS.get(type(default))
    return AttributeProto.UNDEFINED if kind is None else int(kind)
