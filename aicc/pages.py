"""Pages of mapped files that are no longer needed."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np


def forget(data: np.ndarray[Any, Any]) -> None:
    """Lets the system take back the pages of a read-only mapped file that lie wholly in `data`.

    `data` keeps its contents: who reads it again reads the file. Nothing happens for other arrays.
    """
    owner: Any = data
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(owner, memoryview):
        owner = owner.obj
    if not isinstance(owner, mmap.mmap) or not hasattr(mmap, "MADV_DONTNEED"):
        return
    if not memoryview(owner).readonly or not data.flags.c_contiguous:
        return  # what was written to a private mapping is in no file
    start = data.ctypes.data - np.frombuffer(owner, np.uint8).ctypes.data
    first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
    end = (start + data.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
    if first < end:
        owner.madvise(mmap.MADV_DONTNEED, first, end - first)
