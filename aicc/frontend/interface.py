"""Declared types: inputs with their symbolic sizes, and declared results that are only compared."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Iterable, Mapping

import onnx

from aicc.errors import AiccWarning, InputError, ModelError, UnsupportedError
from aicc.frontend.tensors import DTYPES, dtype_of, element_type_name
from aicc.graph_ir.types import TensorType
from aicc.symbolic import Size, lo_of, sym

_LISTED = 5
_SIZE_LIMIT = 2**31
"""Above this, products of a few sizes overflow 64 bits."""


def check_tensor(value: onnx.ValueInfoProto, what: str) -> None:
    """Raises UnsupportedError for a sequence, optional, map or sparse value."""
    kind = value.type.WhichOneof("value")
    if kind is None:
        raise ModelError(f"{what} {value.name!r} has no type")
    if kind != "tensor_type":
        said = str(kind).removesuffix("_type").replace("_", " ")
        raise UnsupportedError(f"{what} {value.name!r} is of kind {said}, not a tensor")


class InputSizes:
    """The symbols in the inputs' shapes: one for each name in the model, pinned where asked for.

    An axis without a name, or of a size that is not positive, has the symbol `INPUT_axis`. A symbol
    is at least 1. inputs: the declared inputs, without those that are initialized.
    """

    def __init__(
        self, inputs: Iterable[onnx.ValueInfoProto], dims: Mapping[str, int] | None
    ) -> None:
        self._named: dict[str, Size] = {}
        self._unnamed: dict[tuple[str, int], str] = {}
        inputs = list(inputs)
        for value in inputs:
            for d in value.type.tensor_type.shape.dim:
                if d.dim_param:
                    self._named.setdefault(d.dim_param, sym(d.dim_param, 1))
        for value in inputs:
            for axis, d in enumerate(value.type.tensor_type.shape.dim):
                if not d.dim_param and d.dim_value <= 0:
                    name, n = f"{value.name}_{axis}", 1
                    while name in self._named:
                        name, n = f"{value.name}_{axis}.{n}", n + 1
                    self._named[name] = sym(name, 1)
                    self._unnamed[value.name, axis] = name
        if not isinstance(dims or {}, Mapping):
            raise InputError(
                f"dims maps names of sizes to numbers; this is a {type(dims).__name__}"
            )
        for name, size in (dims or {}).items():
            self._pin(name, size)

    def _pin(self, name: str, size: int) -> None:
        if name not in self._named:
            known = ", ".join(map(repr, self._named)) or "none"
            raise InputError(f"dims: no size is called {name!r}; the model's symbols are: {known}")
        try:
            number = operator.index(size)
        except TypeError:
            raise InputError(f"dims: the size of {name!r} is {size!r}, not an integer") from None
        if isinstance(size, bool) or not 1 <= number < _SIZE_LIMIT:
            raise InputError(f"dims: the size of {name!r} is {size!r}, not in 1..{_SIZE_LIMIT - 1}")
        self._named[name] = number

    def type_of(self, value: onnx.ValueInfoProto) -> TensorType:
        """The type of an input. Raises ModelError (no shape, overflow) or UnsupportedError."""
        what = f"input {value.name!r}"
        check_tensor(value, "input")
        tensor = value.type.tensor_type
        dtype = dtype_of(tensor.elem_type, what)
        if not tensor.HasField("shape"):
            raise ModelError(f"{what} has no shape; its number of axes must be known")
        shape: list[Size] = []
        for axis, d in enumerate(tensor.shape.dim):
            if d.dim_param:
                shape.append(self._named[d.dim_param])
            elif d.dim_value > 0:
                shape.append(int(d.dim_value))
            else:
                shape.append(self._named[self._unnamed[value.name, axis]])
        made = TensorType(dtype, tuple(shape))
        if (lo_of(made.nbytes) or 0) >= 2**63:
            raise ModelError(f"{what}: the sizes of {made} overflow")
        return made


def warn_of_differences(
    declared: Iterable[onnx.ValueInfoProto], types: Mapping[str, TensorType]
) -> None:
    """One AiccWarning for all values whose declared type is not what was inferred."""
    found = []
    for value in declared:
        t = types.get(value.name)
        if t is not None and value.type.WhichOneof("value") == "tensor_type":
            said = _difference(value.type.tensor_type, t)
            if said:
                found.append(f"{value.name!r} is {t.without_value()}, declared {said}")
    if found:
        more = f"; and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
        text = f"declared types that are wrong: {'; '.join(found[:_LISTED])}{more}"
        warnings.warn(text, AiccWarning, stacklevel=4)


def _difference(tensor: onnx.TypeProto.Tensor, t: TensorType) -> str:
    """The declared type as text where it contradicts `t`, else ""."""
    dims = list(tensor.shape.dim)
    wrong = tensor.elem_type and DTYPES.get(tensor.elem_type) != t.dtype
    if tensor.HasField("shape"):
        wrong = wrong or len(dims) != t.rank
        for d, size in zip(dims, t.shape):
            wrong = wrong or (d.dim_value > 0 and isinstance(size, int) and d.dim_value != size)
    if not wrong:
        return ""
    dtype = DTYPES.get(tensor.elem_type, element_type_name(tensor.elem_type))
    sizes = ", ".join(d.dim_param or (str(d.dim_value) if d.dim_value else "?") for d in dims)
    return f"{dtype}[{sizes}]" if tensor.HasField("shape") else dtype
