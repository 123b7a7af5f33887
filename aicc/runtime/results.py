"""Memory of large results, used again once nobody has them any more."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

LARGE = 1 << 25
"""Bytes beyond which glibc asks the system for memory for each array, and gives it back with it
(the largest M_MMAP_THRESHOLD). The system clears what it hands out: an array of 33 MiB takes twenty
times as long to touch as one of 31."""


class Results:
    """Makes arrays for results. Large ones come from memory that goes back to `Results` when the
    last view of them is gone; as much is kept as one run needs."""

    def __init__(self, outputs: int) -> None:
        self._free: deque[Array] = deque(maxlen=max(1, outputs))

    def empty(self, shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
        """An uninitialised array, contiguous and writable, which nobody else sees."""
        size = math.prod(shape) * dtype.itemsize
        if size <= LARGE or dtype.kind == "O":
            return np.empty(shape, dtype)
        memory = self._taken(size)
        bytes_ = np.asarray(_Loan(memory, self._free))
        return bytes_[:size].view(dtype).reshape(shape)

    def _taken(self, size: int) -> Array:
        """Memory of at least `size` bytes, and of not many more."""
        for _ in range(len(self._free)):
            try:
                memory = self._free.popleft()
            except IndexError:  # another thread was quicker
                break
            if size <= memory.size <= size + size // 4:
                return memory
            self._free.append(memory)
        return np.empty(size, np.uint8)


class _Loan:
    """What the arrays over some memory have as their base: gives it back when it goes."""

    def __init__(self, memory: Array, free: deque[Array]) -> None:
        self.__array_interface__ = memory.__array_interface__
        self._memory = memory
        self._free = free

    def __del__(self) -> None:
        self._free.append(self._memory)
