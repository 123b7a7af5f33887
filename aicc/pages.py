"""Pages of memory that are no longer needed."""

from __future__ import annotations

import ctypes
import functools
import math
import mmap
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.lib.array_utils import byte_bounds

ALIGNMENT = 64
LARGE = 1 << 22
"""Bytes of arrays that are worth memory of their own."""


def aligned_bytes(size: int) -> np.ndarray[Any, Any]:
    """An uninitialised array of bytes whose address is a multiple of 64.

    numpy asks for large pages where there is much: streaming through them is up to a fifth faster
    than through the small ones of a mapped file.
    """
    raw = np.empty(size + ALIGNMENT, np.uint8)
    skip = -raw.ctypes.data % ALIGNMENT
    return raw[skip : skip + size]


class _Own(mmap.mmap):
    """Memory of `loose_array`."""


def loose_array(shape: Sequence[int], dtype: Any) -> np.ndarray[Any, Any]:
    """An uninitialised array; if it is large, `discard` can give back its pages a few at a time."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size < LARGE or not hasattr(mmap, "MAP_PRIVATE"):
        return np.empty(shape, dtype)
    memory = _Own(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # shared, pages would stay
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)  # as numpy does: touching small ones takes longer
    return np.frombuffer(memory, dtype).reshape(shape)


def forget(data: np.ndarray[Any, Any]) -> None:
    """Lets the system take back the pages of a read-only mapped file that lie wholly within the
    bounds of `data`.

    `data` keeps its contents: who reads it again reads the file. Nothing happens for other arrays.
    """
    owner = _owner(data)
    if owner is not None and memoryview(owner).readonly:
        _let_go(owner, data)  # what was written to a private mapping is in no file


def discard(data: np.ndarray[Any, Any]) -> None:
    """Gives back the pages that lie wholly within `data`, which nobody reads again.

    They are those of a mapped file, or of a part of a `loose_array` without gaps, whose contents
    are lost. Nothing happens for other arrays.
    """
    forget(data)
    owner = _owner(data)
    low, high = byte_bounds(data)
    if isinstance(owner, _Own) and high - low == data.nbytes:
        _let_go(owner, data)


def _owner(data: np.ndarray[Any, Any]) -> mmap.mmap | None:
    """The mapping that an array lies in, if it does."""
    owner: Any = data
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(owner, memoryview):
        owner = owner.obj
    return owner if isinstance(owner, mmap.mmap) else None


def _let_go(owner: mmap.mmap, data: np.ndarray[Any, Any]) -> None:
    if not data.size or not hasattr(mmap, "MADV_DONTNEED"):
        return
    low, high = byte_bounds(data)
    start = np.frombuffer(owner, np.uint8).ctypes.data
    first = -(-(low - start) // mmap.PAGESIZE) * mmap.PAGESIZE
    end = (high - start) // mmap.PAGESIZE * mmap.PAGESIZE
    if first < end:
        owner.madvise(mmap.MADV_DONTNEED, first, end - first)


def trim_heap() -> None:
    """Gives memory that was freed back to the system, where the C library keeps it."""
    trim = _trim()
    if trim is not None:
        trim(0)


@functools.cache
def _trim() -> Callable[[int], int] | None:
    if not sys.platform.startswith("linux"):
        return None
    found = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if found is not None:
        found.argtypes = [ctypes.c_size_t]
    return found
