"""Constants whose elements are all the same, as arrays that hold one: their strides are zero."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

FIRST = 1 << 10
"""Elements that are looked at before the rest: there most arrays differ."""
SLAB = 1 << 20
"""Elements that are looked at at a time."""


def filled(value: Array, shape: Sequence[int]) -> Array:
    """An array of `shape`, read-only, whose elements are all the one of `value`."""
    return np.broadcast_to(value.reshape(()).copy(), tuple(shape))


def is_uniform(array: Array) -> bool:
    """Whether an array holds one element for all, as `filled` makes them."""
    return array.size > 1 and all(s == 0 for s, n in zip(array.strides, array.shape) if n > 1)


def element(array: Array) -> Array:
    """The first element of an array, in an array of its own."""
    return array[(slice(1),) * array.ndim].reshape(1)


def held_bytes(array: Array) -> int:
    """The bytes of memory that the elements of an array take."""
    return array.itemsize if is_uniform(array) else array.nbytes


def as_uniform(array: Array) -> Array | None:
    """The same elements as `filled` holds them; None where they differ in any bit, or do not lie
    side by side in any order of the axes."""
    if array.size < 2 or array.dtype == object:
        return None
    if is_uniform(array):
        return array
    order = sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis]))
    turned = array.transpose(order)
    if not turned.flags.c_contiguous:
        return None
    flat = turned.reshape(-1).view(f"u{array.itemsize}")
    if not (flat[:FIRST] == flat[0]).all():
        return None
    for at in range(0, flat.size, SLAB):
        if not (flat[at : at + SLAB] == flat[0]).all():
            return None
    return filled(element(turned), array.shape)
