"""Element types: one table shared by every level.

Names follow the text forms: f64 f32 f16 bf16, i8..i64, u8..u64, bool, str (host only). A bool is
one byte, 0 or 1. numpy has no bf16 of its own; `ml_dtypes`, which onnx depends on, provides it, and
is imported where there are such data.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

_NUMPY: dict[str, Any] = {
    "f64": np.float64,
    "f32": np.float32,
    "f16": np.float16,
    "i64": np.int64,
    "i32": np.int32,
    "i16": np.int16,
    "i8": np.int8,
    "u64": np.uint64,
    "u32": np.uint32,
    "u16": np.uint16,
    "u8": np.uint8,
    "bool": np.bool_,
    "str": np.object_,
}
_BYTES = {
    "f64": 8,
    "f32": 4,
    "f16": 2,
    "bf16": 2,
    "i64": 8,
    "i32": 4,
    "i16": 2,
    "i8": 1,
    "u64": 8,
    "u32": 4,
    "u16": 2,
    "u8": 1,
    "bool": 1,
    "str": 8,
}
_NAMES = {np.dtype(t): name for name, t in _NUMPY.items()}

FLOATS = ("f64", "f32", "f16", "bf16")
SIGNED = ("i64", "i32", "i16", "i8")
UNSIGNED = ("u64", "u32", "u16", "u8")
INTEGERS = SIGNED + UNSIGNED
NUMERIC = FLOATS + INTEGERS
ALL = (*NUMERIC, "bool", "str")


def to_numpy(dtype: str) -> np.dtype[Any]:
    """The numpy dtype of a name."""
    made: np.dtype[Any] = _bf16() if dtype == "bf16" else np.dtype(_NUMPY[dtype])
    return made


@functools.cache
def _bf16() -> np.dtype[Any]:
    import ml_dtypes

    made: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return made


def from_numpy(dtype: Any) -> str:
    """The name of a numpy dtype; KeyError where there is none."""
    d = np.dtype(dtype)
    found = _NAMES.get(d)
    if found is not None:
        return found
    if d.kind in "UST":
        return "str"
    return "bf16" if d.name == "bfloat16" else _NAMES[d]


def nbytes(dtype: str) -> int:
    """Bytes of one element in memory."""
    return _BYTES[dtype]


def is_float(dtype: str) -> bool:
    """True for the floating-point types."""
    return dtype in FLOATS


def is_signed(dtype: str) -> bool:
    """True for the types that have negative values."""
    return dtype in FLOATS or dtype in SIGNED
