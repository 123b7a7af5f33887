"""AttributeProto -> plain values, checked against ONNX's schema or the operator's own table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto

from aicc.errors import OperatorError
from aicc.frontend.tensors import TensorReader, text
from aicc.ops.registry import REQUIRED, Operator

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


def chosen(
    op: Operator, values: Mapping[str, Any], regions: Mapping[str, onnx.GraphProto]
) -> dict[str, Any]:
    """The attributes of a node: those that the file gives, and the operator's defaults."""
    table = op.attributes
    unknown = [a for a in (*values, *regions) if a not in table]
    if unknown:
        raise OperatorError(f"unknown attribute {unknown[0]!r}")
    missing = [a for a, d in table.items() if d is REQUIRED and a not in {**values, **regions}]
    if missing:
        raise OperatorError(f"the attribute {missing[0]!r} is missing")
    defaults = {a: d for a, d in table.items() if d is not None and d is not REQUIRED}
    return {a: _frozen(a, v) for a, v in {**defaults, **values}.items() if v is not None}


def check_count(op: Operator, count: int) -> None:
    """Raises where an operator does not take so many operands."""
    most = op.max_inputs
    if count < op.min_inputs or (most is not None and count > most):
        span = f"{op.min_inputs}" if most == op.min_inputs else f"{op.min_inputs}..{most or ''}"
        raise OperatorError(f"{count} operands, not {span}")


def _frozen(name: str, value: Any) -> Any:
    """An attribute's value as a node holds it."""
    if isinstance(value, list | tuple):
        return tuple(_frozen(name, v) for v in value)
    if isinstance(value, bytes):
        return text(value)
    if isinstance(value, np.ndarray):
        raise OperatorError(f"attribute {name!r}: a tensor of {value.dtype} is not supported here")
    if isinstance(value, np.generic):
        return value.item()
    return value
