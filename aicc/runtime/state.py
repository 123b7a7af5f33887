"""What a run needs for itself, and what all runs of a model share: context, arenas, threads."""

from __future__ import annotations

import ctypes
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from aicc.errors import ExecutionError
from aicc.memory.placement import ALIGNMENT
from aicc.runtime.context import ARENA, CONSTANTS, Slots
from aicc.runtime.layout import Layout
from aicc.runtime.program import Program

Array = np.ndarray[Any, Any]


class Library(Protocol):
    """Loaded native code."""

    def address(self, symbol: str) -> int:
        """The address of a function."""

    def close(self) -> None:
        """Unloads the code."""


class State:
    """What one run needs for itself: a context and the arenas of all phases."""

    def __init__(self, words: int, phases: int) -> None:
        self.context = (ctypes.c_int64 * words)()
        self.address = ctypes.addressof(self.context)
        self.layouts: list[Layout | None] = [None] * phases
        self.arenas: list[Array] = [np.empty(0, np.uint8)] * phases
        self.hosts: dict[str, Array] = {}

    def arena(self, phase: int, size: int) -> int:
        """The address of the phase's arena, at least `size` bytes."""
        held = self.arenas[phase].size
        if held < size + ALIGNMENT:
            # One that grows will grow again, as a cache does from token to token.
            self.arenas[phase] = np.empty(max(size + ALIGNMENT, held + held // 4), np.uint8)
        address = self.arenas[phase].ctypes.data
        return int(address + -address % ALIGNMENT)


class States:
    """The states of a model. Each run holds one, so that no run is under way where all are free.

    free: those that no run holds. Taking one from it and giving it back are single operations.
    """

    def __init__(self) -> None:
        self.free: deque[State] = deque()
        self._lock = threading.Lock()
        self._made = 0
        self._closed = False

    def add(self, make: Callable[[], State]) -> State:
        """One more, which its run gives back to `free`. Raises ExecutionError once closed."""
        with self._lock:
            if self._closed:
                raise ExecutionError("the model is closed")
            state = make()
            self._made += 1
        return state

    def close(self, patience: float) -> bool:
        """Lets no run begin any more and waits for those under way, `patience` seconds at most.
        Whether all have ended."""
        with self._lock:
            self._closed = True
        end = time.monotonic() + patience
        while self._made:
            try:
                self.free.pop()
            except IndexError:
                if time.monotonic() > end:
                    return False
                time.sleep(0.001)
            else:
                with self._lock:
                    self._made -= 1
        return True


class Pool:
    """The threads of a model, started by the first run that may use them."""

    def __init__(self, library: Library, threads: int) -> None:
        self._library = library
        self._threads = threads
        self._lock = threading.Lock()
        self._address = 0

    def address(self) -> int:
        """Of the pool, which is made when it is first asked for; 0 where one thread does all."""
        if self._threads < 2:
            return 0
        with self._lock:
            if not self._address:
                create = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_int32)(
                    self._library.address("aicc_pool_create")
                )
                self._address = int(create(self._threads) or 0)
        return self._address

    def close(self) -> None:
        """Ends the threads, then unloads the code that they run."""
        with self._lock:
            address, self._address = self._address, 0
        if address:
            ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self._library.address("aicc_pool_destroy"))(
                address
            )
        self._library.close()


def address_of(program: Program, slots: Slots, state: State, name: str) -> int:
    """Where a buffer lies in a run."""
    b, root = program.table[name], program.root(name)
    offset = (b.at or 0) if b.space == "view" else 0
    if root.space in ("const", "arena") and root.at is not None:
        base = state.context[CONSTANTS if root.space == "const" else ARENA]
        return int(base + root.at + offset)
    return int(state.context[slots.addresses[root.name]] + offset)
