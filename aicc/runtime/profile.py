"""Runs native steps one by one from Python and takes their times."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from aicc.runtime.context import FAILED, POOL, Slots
from aicc.runtime.program import Call, Copy, Program
from aicc.runtime.state import Library, State, address_of


@dataclass(frozen=True)
class Times:
    """Least seconds over several runs: of each step, one by one, and of a whole run. sizes: the
    values of all symbols."""

    steps: tuple[float, ...]
    run: float
    sizes: Mapping[str, int]


class Stepper:
    """Stands in the place of the native functions that run ranges of steps.

    scopes: of each kernel's parameters, in order. seconds: where each step's time goes. sizes: the
    values of all symbols, after a run.
    """

    def __init__(
        self,
        program: Program,
        slots: Slots,
        library: Library,
        scopes: Mapping[str, Sequence[str]],
    ) -> None:
        self._program = program
        self._slots = slots
        self._library = library
        self._scopes = scopes
        self.seconds = [0.0] * len(program.steps)
        self.sizes: Mapping[str, int] = {}

    def __call__(self, state: State, begin: int, end: int) -> int:
        """Runs the steps of a range; the result is that of the native function."""
        for number in range(begin, end):
            enter = self._entry(state, number)
            start = time.perf_counter()
            code = enter()
            self.seconds[number] = time.perf_counter() - start
            if code:
                state.context[FAILED] = number
                return code
        return 0

    def _entry(self, state: State, number: int) -> Callable[[], int]:
        step, context = self._program.steps[number], state.context
        if isinstance(step, Call):
            operands, results = iter(step.operands), iter(step.results)
            values = [context[POOL]]
            for scope in self._scopes[step.kernel]:
                values.append(self._address(state, next(results if scope == "out" else operands)))
            values += [context[self._slots.sizes[s]] for s in step.sizes]
            entry = ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_int64] * len(values))(
                self._library.address(step.kernel)
            )
            return lambda: int(entry(*values))
        assert isinstance(step, Copy)
        slot = self._slots.copies.get(number)
        size = self._program.table[step.source].nbytes if slot is None else context[slot]
        assert isinstance(size, int)
        count = size
        target, source = (self._address(state, n) for n in (step.target, step.source))

        def copy() -> int:
            ctypes.memmove(target, source, count)
            return 0

        return copy

    def _address(self, state: State, name: str) -> int:
        return address_of(self._program, self._slots, state, name)
