"""Pages of memory that are no longer needed."""

from __future__ import annotations

import ctypes
import functools
import mmap
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib.array_utils import byte_bounds

ALIGNMENT = 64


def aligned_bytes(size: int) -> np.ndarray[Any, Any]:
    """An uninitialised array of bytes whose address is a multiple of 64.

    numpy asks for large pages where there is much: streaming through them is up to a fifth faster
    than through the small ones of a mapped file.
    """
    raw = np.empty(size + ALIGNMENT, np.uint8)
    skip = -raw.ctypes.data % ALIGNMENT
    return raw[skip : skip + size]


def forget(data: np.ndarray[Any, Any]) -> None:
    """Lets the system take back the pages of a read-only mapped file that lie wholly within the
    bounds of `data`.

    `data` keeps its contents: who reads it again reads the file. Nothing happens for other arrays.
    """
    owner: Any = data
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(owner, memoryview):
        owner = owner.obj
    if not isinstance(owner, mmap.mmap) or not hasattr(mmap, "MADV_DONTNEED"):
        return
    if not memoryview(owner).readonly or not data.size:
        return  # what was written to a private mapping is in no file
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
