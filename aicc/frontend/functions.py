"""Functions: those that a model brings along, and those by which ONNX defines its own operators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx
from onnx import AttributeProto, TensorProto, TypeProto

from aicc.errors import ModelError, OperatorError
from aicc.frontend.tensors import DTYPES
from aicc.graph_ir.types import TensorType

ONNX_DOMAINS = ("", "ai.onnx")
_NUMBERS = {name: number for number, name in DTYPES.items()}
FunctionKey = tuple[str, str, str]
"""Domain, name, overload."""


def domain_of(domain: str) -> str:
    """ONNX's own domain has two names; here it has the empty one."""
    return "" if domain in ONNX_DOMAINS else domain


def model_functions(model: onnx.ModelProto) -> dict[FunctionKey, onnx.FunctionProto]:
    """The functions of a model. Raises ModelError for a duplicate definition."""
    found: dict[FunctionKey, onnx.FunctionProto] = {}
    for f in model.functions:
        key = (domain_of(f.domain), f.name, f.overload)
        if key in found:
            raise ModelError(f"function {key_name(key)} is defined twice")
        found[key] = f
    return found


def key_name(key: FunctionKey) -> str:
    """`domain::name:overload`, for messages."""
    domain, name, overload = key
    return f"{domain + '::' if domain else ''}{name}{':' + overload if overload else ''}"


def opsets_of(imports: Sequence[onnx.OperatorSetIdProto]) -> dict[str, int]:
    """Domain -> version. Raises ModelError where a domain is imported in two versions."""
    found: dict[str, int] = {}
    for entry in imports:
        domain = domain_of(entry.domain)
        if found.get(domain, entry.version) != entry.version:
            versions = f"{found[domain]} and {entry.version}"
            raise ModelError(f"domain {domain or 'ai.onnx'!r} is imported in versions {versions}")
        found[domain] = entry.version
    return found


def schema_body(
    schema: onnx.defs.OpSchema,
    node: onnx.NodeProto,
    opset: int,
    types: Sequence[TensorType | None],
) -> onnx.FunctionProto | None:
    """The function by which ONNX defines an operator as of `opset`, or None.

    node: the call, whose attributes may shape a context-dependent body. types: its operands'.
    """
    bodies: Any = schema  # whose methods for functions onnx's type stubs leave out
    plain = [v for v in bodies.function_opset_versions if v <= opset]
    dependent = [v for v in bodies.context_dependent_function_opset_versions if v <= opset]
    if plain:
        body = bodies.get_function_with_opset_version(max(plain))
    elif dependent:
        operands = [_type_proto(t).SerializeToString() for t in types]
        body = bodies.get_context_dependent_function_with_opset_version(
            max(dependent), node.SerializeToString(), operands
        )
    else:
        body = b""
    return onnx.FunctionProto.FromString(body) if body else None


def _type_proto(t: TensorType | None) -> onnx.TypeProto:
    proto = TypeProto()
    if t is not None:
        proto.tensor_type.elem_type = _NUMBERS.get(t.dtype, TensorProto.UNDEFINED)
        proto.tensor_type.shape.SetInParent()
        for size in t.shape:
            dim = proto.tensor_type.shape.dim.add()
            if isinstance(size, int):
                dim.dim_value = size
            else:
                dim.dim_param = str(size)
    return proto


def schema_defaults(schema: onnx.defs.OpSchema) -> list[onnx.AttributeProto]:
    """The defaults of an operator's attributes, for the body that refers to them."""
    defaults = [a.default_value for a in schema.attributes.values()]
    return [d for d in defaults if d.type != AttributeProto.UNDEFINED]


def bind_attributes(
    function: onnx.FunctionProto, given: Sequence[onnx.AttributeProto], strict: bool
) -> dict[str, onnx.AttributeProto]:
    """The attributes that a function's body may refer to. An optional one may be absent.

    strict: an attribute that the function does not declare is an error.
    """
    bound = {a.name: a for a in function.attribute_proto}
    declared = set(function.attribute) | set(bound)
    for a in given:
        if strict and a.name not in declared:
            known = ", ".join(sorted(declared)) or "none"
            raise OperatorError(f"unknown attribute {a.name!r}; the function has: {known}")
        bound[a.name] = a
    return bound


def resolve_attributes(
    attributes: Sequence[onnx.AttributeProto],
    bound: Mapping[str, onnx.AttributeProto] | None,
) -> list[onnx.AttributeProto]:
    """Attributes with references to the function's own replaced; absent optional ones left out.

    bound: those of the function around the node, None outside of functions.
    """
    result = []
    for a in attributes:
        if a.ref_attr_name:
            if bound is None:
                raise OperatorError(
                    f"attribute {a.name!r} refers to {a.ref_attr_name!r} outside of a function"
                )
            if a.ref_attr_name not in bound:
                continue
            copied = AttributeProto()
            copied.CopyFrom(bound[a.ref_attr_name])
            copied.name = a.name
            a = copied
        result.append(a)
    return result
