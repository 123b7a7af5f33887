"""Contents of small integer tensors, tracked as numbers and symbolic sizes through shape algebra.

A rule for one element takes sizes and returns a size, or None where the result is not provable.
Truth values are 0 and 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from aicc.dtypes import nbytes
from aicc.graph_ir.types import TensorType, trackable
from aicc.symbolic import Dim, Size, lo_of, proves_le, proves_lt, value_range

Value = tuple[Size, ...] | None


def array_of(t: TensorType) -> np.ndarray[Any, Any] | None:
    """The value as a numpy array of objects with the tensor's shape; None where not known."""
    if t.value is None or not all(isinstance(d, int) for d in t.shape):
        return None
    flat = np.empty(len(t.value), dtype=object)
    flat[:] = t.value
    return flat.reshape([int(d) for d in t.shape])


def typed(dtype: str, shape: Sequence[Size], array: np.ndarray[Any, Any] | None) -> TensorType:
    """A type whose value is the array's elements, if there are any and they may be tracked."""
    value: Value = None
    if array is not None and trackable(dtype, shape):
        # A single element taken out of an array of objects is no array any more.
        value = tuple(np.asarray(array, dtype=object).reshape(-1).tolist())
        if any(v is None for v in value):
            value = None
    return TensorType(dtype, tuple(shape), value)


def fits(v: Size, dtype: str) -> bool:
    """True where `v` is representable: numbers outside the type's range wrap, so they are not
    tracked. A symbolic size is taken to be representable where it is known not to be negative."""
    if isinstance(v, Dim):
        lo = lo_of(v)
        return dtype in ("i64", "i32") or (lo is not None and lo >= 0 and dtype in ("u64", "u32"))
    if dtype == "bool":
        return v in (0, 1)
    bits = 8 * nbytes(dtype)
    if dtype.startswith("u"):
        return 0 <= v < 1 << bits
    return -(1 << (bits - 1)) <= v < 1 << (bits - 1)


def elementwise(
    dtype: str,
    shape: Sequence[Size],
    operands: Sequence[TensorType],
    rule: Callable[..., Size | None],
) -> TensorType:
    """The result type of an elementwise operator, with its value where the operands have one."""
    plain = TensorType(dtype, tuple(shape))
    if not trackable(dtype, shape):
        return plain
    arrays = [array_of(t) for t in operands]
    if any(a is None for a in arrays):
        return plain
    full = np.broadcast_arrays(*(a for a in arrays if a is not None)) if arrays else []
    result: list[Size] = []
    for elements in zip(*(a.reshape(-1) for a in full), strict=True):
        v = rule(*elements)
        if v is None or not fits(v, dtype):
            return plain
        result.append(v)
    return TensorType(dtype, tuple(shape), tuple(result))


# --- rules for one element ----------------------------------------------------------------------


def less(a: Size, b: Size) -> int | None:
    """a < b."""
    return 1 if proves_lt(a, b) else 0 if proves_le(b, a) else None


def less_equal(a: Size, b: Size) -> int | None:
    """a <= b."""
    return 1 if proves_le(a, b) else 0 if proves_lt(b, a) else None


def equal(a: Size, b: Size) -> int | None:
    """a == b."""
    if a == b:
        return 1
    return 0 if proves_lt(a, b) or proves_lt(b, a) else None


def nonzero(a: Size) -> int | None:
    """a != 0."""
    same = equal(a, 0)
    return None if same is None else 1 - same


def truncated_div(a: Size, b: Size) -> Size | None:
    """Integer division toward zero."""
    if isinstance(a, int) and isinstance(b, int):
        if b == 0:
            return None
        q = abs(a) // abs(b)
        return q if (a < 0) == (b < 0) else -q
    return a // b if proves_le(0, a) and proves_lt(0, b) else None


def floor_mod(a: Size, b: Size) -> Size | None:
    """The remainder with the divisor's sign."""
    if isinstance(a, int) and isinstance(b, int):
        return a % b if b else None
    return a % b if proves_lt(0, b) else None


def c_mod(a: Size, b: Size) -> Size | None:
    """The remainder with the dividend's sign."""
    if proves_le(0, a) and proves_lt(0, b):
        return a % b
    q = truncated_div(a, b)
    return None if q is None else a - q * b


def power(a: Size, b: Size) -> Size | None:
    """a ** b for small b."""
    if not isinstance(b, int) or not 0 <= b <= 64:
        return None
    if isinstance(a, Dim) and b > 4:
        return None
    result: Size = 1
    for _ in range(b):
        result = result * a
    return result


def absolute(a: Size) -> Size | None:
    """|a|, where the sign is known."""
    lo, hi = value_range(a)
    if lo is not None and lo >= 0:
        return a
    return -a if hi is not None and hi <= 0 else None


def choose(cond: Size, a: Size | None, b: Size | None) -> Size | None:
    """a where `cond`, else b; only the one that is chosen needs to be known."""
    if a is not None and a == b:
        return a
    return (a if cond else b) if isinstance(cond, int) else None
