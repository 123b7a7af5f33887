"""TensorProto -> numpy: every encoding that onnx.proto allows, sizes checked before use."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from aicc.dtypes import to_numpy
from aicc.errors import ModelError, UnsupportedError
from aicc.frontend.external import ExternalData

Array = np.ndarray[Any, Any]

DTYPES: dict[int, str] = {
    TensorProto.FLOAT: "f32",
    TensorProto.DOUBLE: "f64",
    TensorProto.FLOAT16: "f16",
    TensorProto.BFLOAT16: "bf16",
    TensorProto.INT8: "i8",
    TensorProto.INT16: "i16",
    TensorProto.INT32: "i32",
    TensorProto.INT64: "i64",
    TensorProto.UINT8: "u8",
    TensorProto.UINT16: "u16",
    TensorProto.UINT32: "u32",
    TensorProto.UINT64: "u64",
    TensorProto.BOOL: "bool",
    TensorProto.STRING: "str",
}
"""ONNX's element types that aicc has, by their number."""

_TYPED_FIELD = {
    "f32": "float_data",
    "f64": "double_data",
    "i64": "int64_data",
    "u64": "uint64_data",
    "u32": "uint64_data",
    "str": "string_data",
}  # all others are in int32_data, 16-bit floats as their bits


def element_type_name(number: int) -> str:
    """ONNX's name of an element type, for messages."""
    try:
        return str(TensorProto.DataType.Name(number))
    except ValueError:
        return f"element type {number}"


def dtype_of(number: int, what: str) -> str:
    """aicc's name of an element type. Raises UnsupportedError naming `what`."""
    if number == TensorProto.UNDEFINED:
        raise ModelError(f"{what} has no element type")
    if number not in DTYPES:
        raise UnsupportedError(f"{what}: elements of type {element_type_name(number)}")
    return DTYPES[number]


class TensorReader:
    """Decodes the tensors of one model, whose external data are in `external`."""

    def __init__(self, external: ExternalData) -> None:
        self.external = external

    def decode(self, t: onnx.TensorProto, raw: memoryview | None = None) -> Array:
        """The array of a tensor; it may be a read-only view of a mapped file.

        raw: its raw data where the tensor itself has none. Raises ModelError, UnsupportedError.
        """
        what = f"tensor {t.name!r}"
        dtype = dtype_of(t.data_type, what)
        shape = tuple(t.dims)
        if any(d < 0 for d in shape):
            raise ModelError(f"{what}: a negative size in {list(shape)}")
        if t.HasField("segment"):
            raise UnsupportedError(f"{what}: stored in segments")
        count = math.prod(shape)
        nbytes = count * to_numpy(dtype).itemsize
        if nbytes >= 2**63:
            raise ModelError(f"{what}: the sizes {list(shape)} overflow")
        if t.data_location == TensorProto.EXTERNAL:
            if dtype == "str":
                raise ModelError(f"{what}: strings cannot be external data")
            flat = self._from_bytes(self.external.read(t, nbytes), dtype)
        elif raw is not None or t.HasField("raw_data"):
            if dtype == "str":
                raise ModelError(f"{what}: strings cannot be raw data")
            data = raw if raw is not None else memoryview(t.raw_data)
            if len(data) != nbytes:
                sizes = f"{dtype}{list(shape)} has {nbytes} bytes"
                raise ModelError(f"{what}: {sizes}, but its data have {len(data)}")
            flat = self._from_bytes(data, dtype)
        else:
            flat = _from_fields(t, dtype, count, what)
        return flat.reshape(shape)

    @staticmethod
    def _from_bytes(data: memoryview, dtype: str) -> Array:
        if dtype == "bool":
            truths: Array = np.frombuffer(data, np.uint8) != 0
            return truths
        flat: Array = np.frombuffer(data, to_numpy(dtype))
        return flat if sys.byteorder == "little" else np.asarray(flat.byteswap())


def _from_fields(t: onnx.TensorProto, dtype: str, count: int, what: str) -> Array:
    name = _TYPED_FIELD.get(dtype, "int32_data")
    values = getattr(t, name)
    if len(values) != count:
        sizes = f"{dtype}{list(t.dims)} has {count} elements"
        raise ModelError(f"{what}: {sizes}, but {name} has {len(values)}")
    if dtype == "str":
        out = np.empty(count, np.object_)
        out[:] = [text(v) for v in values]
        return out
    if dtype in ("f16", "bf16"):
        return _narrow(values, np.uint16, what).view(to_numpy(dtype))
    if dtype in ("f32", "f64", "i64", "u64", "i32"):
        return np.array(values, to_numpy(dtype))
    return _narrow(values, to_numpy(dtype), what)


def _narrow(values: Any, dtype: Any, what: str) -> Array:
    wide = np.array(values, np.uint64 if np.dtype(dtype) == np.uint32 else np.int64)
    narrow = wide.astype(dtype)
    if not np.array_equal(narrow.astype(wide.dtype), wide):
        raise ModelError(f"{what}: a number does not fit in {np.dtype(dtype)}")
    return narrow


def text(data: bytes) -> str:
    """A string of a model: UTF-8, other bytes kept as lone surrogates."""
    return data.decode("utf-8", "surrogateescape")
