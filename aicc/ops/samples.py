"""Seeded data for the operators' cases."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from aicc.dtypes import to_numpy

Array = np.ndarray[Any, Any]


def _generator(*key: object) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(repr(key).encode()))


def floats(
    *shape: int, dtype: str = "f32", lo: float = -2.0, hi: float = 2.0, seed: int = 0
) -> Array:
    """Evenly distributed over lo..hi."""
    data = _generator("floats", shape, dtype, seed).uniform(lo, hi, shape)
    return np.asarray(data).astype(to_numpy(dtype))


def integers(*shape: int, dtype: str = "i64", lo: int = -9, hi: int = 10, seed: int = 0) -> Array:
    """lo <= element < hi."""
    data = _generator("integers", shape, dtype, seed).integers(lo, hi, shape)
    return np.asarray(data).astype(to_numpy(dtype))


def bools(*shape: int, seed: int = 0) -> Array:
    """Both truth values."""
    return np.asarray(_generator("bools", shape, seed).integers(0, 2, shape)).astype(np.bool_)


def sample(*shape: int, dtype: str = "f32", seed: int = 0) -> Array:
    """Small values that every operation on the type takes without overflow."""
    if dtype == "bool":
        return bools(*shape, seed=seed)
    if dtype in ("f64", "f32", "f16", "bf16"):
        return floats(*shape, dtype=dtype, seed=seed)
    return integers(*shape, dtype=dtype, lo=0 if dtype.startswith("u") else -9, seed=seed)


def ints(values: Sequence[int]) -> Array:
    """A shape-like operand: i64 of rank 1."""
    return np.asarray(values, np.int64)
