"""Kernels whose operands and results are parts of larger arrays, and the memory of such arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import strategies as st

from aicc.symbolic import Size, evaluate
from aicc.tensor_ir.ir import Buffer, Kernel
from aicc.tensor_ir.strides import row_major

Array = np.ndarray[Any, Any]
GAP = 0x5D
"""What the bytes between the elements of a part hold."""


def parted(draw: Any, kernel: Kernel) -> Kernel:
    """The kernel with some operands and results as parts of arrays with larger axes."""
    buffers = []
    for b in kernel.buffers:
        if b.scope in ("in", "out") and b.shape and 0 not in b.shape and draw(st.booleans()):
            around: list[Size] = [d + draw(st.sampled_from((0, 0, 1, 3, 16))) for d in b.shape]
            b = b.with_pitch(row_major(around))
        buffers.append(b)
    return replace(kernel, buffers=tuple(buffers))


def memory_of(b: Buffer, dense: Array, sizes: Mapping[str, int]) -> Array:
    """The bytes from the first to the last element of a buffer that holds `dense`."""
    strides = [evaluate(s, sizes) for s in b.strides()]
    reach = 1 + sum((d - 1) * s for d, s in zip(dense.shape, strides, strict=True))
    held = np.full((reach if dense.size else 0) * dense.itemsize, GAP, np.uint8)
    seen(b, held, dense.dtype, sizes)[...] = dense
    return held


def seen(b: Buffer, held: Array, dtype: Any, sizes: Mapping[str, int]) -> Array:
    """The elements of a buffer in its memory."""
    shape = tuple(evaluate(d, sizes) for d in b.shape)
    step = np.dtype(dtype).itemsize
    strides = tuple(evaluate(s, sizes) * step for s in b.strides())
    return np.ndarray(shape, dtype, held.data, strides=strides)


def gaps(b: Buffer, held: Array, dtype: Any, sizes: Mapping[str, int]) -> Array:
    """The bytes of a buffer's memory that are no part of it."""
    inside = np.zeros(held.size, bool)
    marks = np.arange(held.size // np.dtype(dtype).itemsize, dtype=np.int64)
    wide = Buffer(b.name, "i64", b.shape, b.scope, pitch=b.pitch)
    for n in seen(wide, marks.view(np.uint8), np.int64, sizes).ravel():
        step = np.dtype(dtype).itemsize
        inside[n * step : (n + 1) * step] = True
    found: Array = held[~inside]
    return found
