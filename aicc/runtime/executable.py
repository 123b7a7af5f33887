"""Runs a Program: binds arrays and sizes, enters native code once, hands results out.

Python's part of a run is small and known beforehand: one dictionary look-up by the inputs' shapes
finds everything that sizes decide (`Layout`), a free arena is taken from a list, addresses go into
its context, and one foreign call, which releases the interpreter lock, does the rest. Every run has
an arena of its own, so several Python threads may run one model at once.
"""

from __future__ import annotations

import ctypes
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from aicc.dtypes import to_numpy
from aicc.errors import ExecutionError
from aicc.runtime.context import (
    ARENA,
    CONSTANTS,
    DATA,
    FAILED,
    FIRST,
    INPUTS,
    ITEMS,
    OUTPUTS,
    POOL,
    address,
    object_places,
    slots,
)
from aicc.runtime.failures import failure
from aicc.runtime.feed import (
    READABLE,
    Array,
    Binder,
    Closed,
    accept,
    check_outputs,
    collect,
    given_outputs,
    input_ports,
    output_ports,
    plain_outputs,
)
from aicc.runtime.host_results import own_result, read_count
from aicc.runtime.layout import Layout, Layouts
from aicc.runtime.memory_map import MemoryMap, memory_map
from aicc.runtime.profile import Stepper, Times
from aicc.runtime.program import Call, Host, Program, Read
from aicc.runtime.results import Results
from aicc.runtime.saved import Parts
from aicc.runtime.state import Library, Pool, State, States, address_of
from aicc.symbolic import evaluate

REMEMBERED = 32
"""Sets of sizes whose layouts are kept."""
PATIENCE = 10.0
"""Seconds that closing waits for runs."""

HostCall = Callable[[int, Sequence[Any], Mapping[str, int]], Sequence[Any]]
"""Computes a host step: (key, operand arrays, None for omitted ones, known sizes) -> results."""

Given = Mapping[str, Array] | Sequence[Array | None]
"""Arrays that outputs are written to: by name, or one for each output in order, None for a new one.
"""

_ndarray, _empty = np.ndarray, np.empty


class Executable:
    """A program with its code, constants and threads.

    constants: the block, aligned to 64 bytes. objects: constants of strings. checks: the messages
    of each kernel's checks, position n for failure n + 1. scopes: of each kernel's parameters, in
    order: "in", "out" or "const"; profiles need them. host: computes host steps. The code is
    unloaded when the object is closed or dies.
    """

    def __init__(
        self,
        program: Program,
        library: Library,
        constants: Array,
        *,
        threads: int = 1,
        checks: Mapping[str, Sequence[str]] | None = None,
        scopes: Mapping[str, Sequence[str]] | None = None,
        host: HostCall | None = None,
        objects: Mapping[str, Array] | None = None,
    ) -> None:
        self.program = program
        self.inputs = input_ports(program)
        self.outputs = output_ports(program)
        self.threads = threads
        self._constants = constants
        self._objects = dict(objects or {})
        self._checks = checks or {}
        self._scopes = scopes or {}
        self._library = library
        self._host = host
        self._slots = slots(program)
        self._layouts = Layouts(program, self._slots)
        self._binder = Binder(program, self.inputs)
        self._known: dict[Any, Layout] = {}
        self._lock = threading.Lock()
        self._states = States()
        self._free = self._states.free
        self._results = Results(len(self.outputs))
        self._pool = Pool(library, threads)
        self._segments = self._link(library)
        self._sources = [
            [
                (s, program.steps[begin - 1])
                for s in program.sizes
                if program.phase_of_size[s.sym.name] == phase
            ]
            for phase, begin in enumerate(program.phases)
        ]
        self._ports = tuple((p.name, p.dtype) for p in self.inputs)
        self._out_words = {
            n: self._slots.addresses[program.root(b).name]
            for n, (_, b) in enumerate(program.outputs)
            if program.root(b).space == "output"
        }
        self._dtypes = tuple(p.dtype for p in self.outputs)
        first_out = FIRST + len(self.inputs)
        in_order = {n: first_out + n for n in range(len(self.outputs))}
        # The simplest programs, native code alone and one phase, take the short way.
        self._places = object_places()
        self._simple = (
            program.native
            and self._places is not None
            and len(self._segments) == 1
            and self._out_words == in_order
            and all(p.dtype.kind != "O" for p in self.inputs)
        )
        enter = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p)
        self._enter = enter(library.address("aicc_enter")) if self._simple else None
        self._finalize = weakref.finalize(self, self._pool.close)
        self._finalize.atexit = False  # at exit other threads may still be in native code

    @classmethod
    def of(
        cls, parts: Parts, library: Library, threads: int, host: HostCall | None = None
    ) -> Executable:
        """The executable of a compiled model whose code is in `library`."""
        return cls(
            parts.program,
            library,
            parts.constants,
            threads=threads,
            checks=parts.checks,
            scopes=parts.scopes,
            host=host,
            objects=parts.strings,
        )

    def _link(self, library: Library) -> list[tuple[int, int, int, Any]]:
        """(first step, end, phase that begins there or 0, native function or None for a step that
        Python does) of each segment of the program."""
        found: list[tuple[int, int, int, Any]] = []
        native, phases = 0, self.program.phases
        for begin, end in self.program.segments():
            opened = phases.index(end) if end in phases[1:] else 0
            if isinstance(self.program.steps[begin], Host | Read):
                found.append((begin, end, opened, None))
                continue
            address = library.address(f"aicc_run_{native}")
            enter = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p)(address)
            found.append((begin, end, opened, enter))
            native += 1
        return found

    def close(self) -> None:
        """Ends the threads and unloads the code, once runs that are under way have ended. Where one
        takes longer than PATIENCE, or is this thread's own, below a signal's handler, that is left
        to the death of the object. Closing twice is allowed."""
        with self._lock:
            self._known.clear()
            self._binder = Closed(self.program, self.inputs)
        if self._states.close(PATIENCE):
            self._finalize()

    # sizes

    def layout(self, shapes: Sequence[tuple[int, ...]]) -> Layout:
        """What inputs of these shapes decide. Raises InputError where they do not fit."""
        return self._layout_for(tuple(shapes))

    def memory(self, layout: Layout | None = None) -> MemoryMap | None:
        """What lies where in the arena; where its sizes are symbols, for the sizes of `layout`, and
        None without."""
        return memory_map(self.program, layout, self._slots)

    def _layout_for(self, shapes: tuple[tuple[int, ...], ...]) -> Layout:
        return self._remember(shapes, 0, lambda: self._binder.bind(shapes))

    def _remember(self, key: Any, phase: int, values: Callable[[], Mapping[str, int]]) -> Layout:
        with self._lock:
            found = self._known.pop(key, None)
            if found is not None:
                self._known[key] = found  # the one used last
                return found
        made = self._layouts.layout(phase, values())
        with self._lock:
            self._known[key] = made
            while len(self._known) > REMEMBERED:
                del self._known[next(iter(self._known))]
        return made

    # running

    def run(self, feed: Mapping[str, Array], out: Given | None = None) -> list[Array]:
        """All outputs, in order, as arrays that the caller owns.

        feed: one array for each input, by name. out: arrays to write outputs to; these are returned
        in place of new ones. Raises InputError where the feed does not fit the model, and
        ExecutionError where data end the run.
        """
        arrays, sides, ready = [], [], False
        try:
            for name, dtype in self._ports:
                a = feed[name]
                # Not `isinstance`: a subclass may mean something else by its methods.
                if type(a) is not _ndarray or a.dtype is not dtype or ~a.flags.num & READABLE:
                    break
                arrays.append(a)
                sides.append(a.shape)
            else:
                ready = len(feed) == len(arrays)
        except (KeyError, TypeError, IndexError):
            pass
        if not ready:
            given = zip(self.inputs, collect(self.inputs, feed), strict=True)
            arrays = [accept(port, a) for port, a in given]
            sides = [a.shape for a in arrays]
        shapes = tuple(sides)
        layout = self._known.get(shapes) or self._layout_for(shapes)
        if not self._simple:
            places = {} if out is None else self._given(out, arrays, layout)
            return self._general(arrays, layout, places)
        results = [] if out is None else self._given_or_new(out, arrays, layout)
        try:
            state = self._free.pop()
        except IndexError:
            state = self._state()
        try:
            if state.layouts[0] is not layout:
                self._open(state, 0, layout)
            if out is None:
                new = self._results.empty if layout.large else _empty
                for shape, dtype in layout.results:
                    results.append(new(shape, dtype))
            context = state.context
            context[INPUTS] = id(arrays)
            context[OUTPUTS] = id(results)
            code = self._enter(state.address)  # type: ignore[misc]
            if code:
                raise self._failure(state, code, layout)
        except MemoryError as error:
            raise ExecutionError(f"no memory for a run of these sizes: {error}") from error
        finally:
            self._free.append(state)
        return results

    def profile(self, feed: Mapping[str, Array], runs: int = 10) -> Times:
        """The least seconds of each step over several runs (1 or more), one by one, in order.

        Every step is entered from Python, which costs about a microsecond each; whole runs in
        between do not. Raises as `run`.
        """
        arrays = [
            accept(port, a) for port, a in zip(self.inputs, collect(self.inputs, feed), strict=True)
        ]
        least = [float("inf")] * len(self.program.steps)
        whole = float("inf")
        layout = self._layout_for(tuple(a.shape for a in arrays))
        sizes: Mapping[str, int] = {}
        for _ in range(runs):
            stepper = Stepper(self.program, self._slots, self._library, self._scopes)
            self._general(arrays, layout, {}, stepper)
            least = list(map(min, least, stepper.seconds))
            sizes = stepper.sizes
            start = time.perf_counter()
            self.run(feed)
            whole = min(whole, time.perf_counter() - start)
        return Times(tuple(least), whole, sizes)

    def _state(self) -> State:
        return self._states.add(self._new_state)

    def _new_state(self) -> State:
        state = State(self._slots.length, len(self.program.phases))
        state.context[POOL] = self._pool.address()
        state.context[CONSTANTS] = self._constants.ctypes.data
        if self._places is not None:
            state.context[ITEMS], state.context[DATA] = self._places
        return state

    def _open(self, state: State, phase: int, layout: Layout) -> None:
        """Writes what a phase's sizes decide into the context."""
        state.layouts[phase] = None
        base = state.arena(phase, layout.arena)
        if phase == 0:
            state.context[ARENA] = base
        for word, offset in layout.offsets:
            state.context[word] = base + offset
        for word, value in layout.words:
            state.context[word] = value
        state.layouts[phase] = layout

    def _failure(self, state: State, code: int, layout: Layout) -> ExecutionError:
        step = self.program.steps[state.context[FAILED]]
        assert isinstance(step, Call)
        return failure(step, code, self._checks.get(step.kernel, ()), layout.values)

    # programs with host steps

    def _general(
        self,
        arrays: list[Array],
        layout: Layout,
        given: Mapping[int, Array],
        stepper: Stepper | None = None,
    ) -> list[Array]:
        """Segment by segment; a stepper takes the place of native code for ranges of steps."""
        try:
            state = self._free.pop()
        except IndexError:
            state = self._state()
        results: dict[int, Array] = {}
        try:
            for n, a in enumerate(arrays):
                state.context[FIRST + n] = address(a) if a.dtype.kind != "O" else 0
            self._enter_phase(state, 0, layout, results, given)
            for begin, end, opened, native in self._segments:
                if native is not None:
                    code = native(state.address) if stepper is None else stepper(state, begin, end)
                    if code:
                        raise self._failure(state, code, layout)
                    continue
                start = time.perf_counter()
                step = self.program.steps[begin]
                if isinstance(step, Host):
                    self._host_step(state, step, arrays, results, layout.values)
                if opened:
                    layout = self._next_phase(state, opened, layout, results, given)
                if stepper is not None:
                    stepper.seconds[begin] = time.perf_counter() - start
            if stepper is not None:
                stepper.sizes = layout.values
            return [
                self._result(n, state, arrays, results, layout.values, given)
                for n in range(len(self.outputs))
            ]
        except MemoryError as error:
            raise ExecutionError(f"no memory for a run of these sizes: {error}") from error
        finally:
            state.hosts = {}
            self._free.append(state)

    def _given_or_new(self, out: Given, arrays: Sequence[Array], layout: Layout) -> list[Array]:
        """An array for each output of a program that has one phase."""
        found = plain_outputs(self.outputs, layout.results, out, arrays)
        if found is None:
            given, new = self._given(out, arrays, layout), self._results.empty
            kinds = enumerate(layout.results)
            found = [given[n] if n in given else new(shape, dtype) for n, (shape, dtype) in kinds]
        return found

    def _given(self, out: Given, arrays: Sequence[Array], layout: Layout) -> dict[int, Array]:
        """The arrays for outputs by position, as far as they can be checked before a run."""
        found = given_outputs(self.outputs, out)
        check_outputs(self.outputs, dict(layout.outputs), found, arrays)
        return found

    def _enter_phase(
        self,
        state: State,
        phase: int,
        layout: Layout,
        results: dict[int, Array],
        given: Mapping[int, Array],
    ) -> None:
        if state.layouts[phase] is not layout:
            self._open(state, phase, layout)
        for n, shape in layout.outputs:
            array = given.get(n)
            if array is None:
                array = self._results.empty(shape, self._dtypes[n])
            elif array.shape != shape:
                check_outputs(self.outputs, {n: shape}, {n: array}, ())
            results[n] = array
            state.context[self._out_words[n]] = address(array)

    def _next_phase(
        self,
        state: State,
        phase: int,
        before: Layout,
        results: dict[int, Array],
        given: Mapping[int, Array],
    ) -> Layout:
        """Reads the sizes that a step brings, and opens the phase that they begin."""
        values = dict(before.values)
        for s, step in self._sources[phase]:
            if isinstance(step, Read):
                place = address_of(self.program, self._slots, state, s.buffer)
                count = ctypes.c_int64.from_address(place).value
                values[s.sym.name] = read_count(step, count, before.most)
            else:
                values[s.sym.name] = state.hosts[s.buffer].shape[s.axis or 0]
        key = (phase, tuple(values.items()))
        layout = self._remember(key, phase, lambda: values)
        self._enter_phase(state, phase, layout, results, given)
        return layout

    def _host_step(
        self,
        state: State,
        step: Host,
        arrays: Sequence[Array],
        results: Mapping[int, Array],
        values: Mapping[str, int],
    ) -> None:
        assert self._host is not None
        operands = [
            self._array(n, state, arrays, results, values) if n else None for n in step.operands
        ]
        made = self._host(step.key, operands, values)
        for name, value in zip(step.results, made):
            if name:
                array = own_result(self.program, step, name, value, operands, values)
                state.hosts[name] = array
                if array.dtype.kind != "O":
                    state.context[self._slots.addresses[name]] = address(array)

    def _array(
        self,
        name: str,
        state: State,
        arrays: Sequence[Array],
        results: Mapping[int, Array],
        values: Mapping[str, int],
    ) -> Array:
        """A buffer as Python sees it."""
        b, root = self.program.table[name], self.program.root(name)
        if b.space == "input":
            return arrays[b.at or 0]
        if b.space == "host":
            return state.hosts[name]
        shape = tuple([evaluate(d, values) for d in b.shape])
        if root.space == "host":
            return state.hosts[root.name].reshape(shape)
        if root.space == "input":
            return arrays[root.at or 0].reshape(shape)
        if root.space == "const" and root.at is None:
            return self._objects[root.name].reshape(shape)
        offset = (b.at or 0) if b.space == "view" else 0
        dtype = to_numpy(b.dtype)
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if root.space == "const":
            start = (root.at or 0) + offset
            array = self._constants[start : start + size].view(dtype).reshape(shape)
            array.flags.writeable = False
            return array
        if root.space == "output":
            n = next(k for k, w in self._out_words.items() if w == self._slots.addresses[root.name])
            memory = results[n].reshape(-1).view(np.uint8)
            return memory[offset : offset + size].view(dtype).reshape(shape)
        phase = self.program.phase_of(root) if root.at is None else 0
        start = address_of(self.program, self._slots, state, name)
        arena = state.arenas[phase]
        start -= arena.ctypes.data
        return arena[start : start + size].view(dtype).reshape(shape)

    def _result(
        self,
        n: int,
        state: State,
        arrays: Sequence[Array],
        results: Mapping[int, Array],
        values: Mapping[str, int],
        given: Mapping[int, Array],
    ) -> Array:
        if n in results:
            return results[n]
        array = self._array(self.program.outputs[n][1], state, arrays, results, values)
        target = given.get(n)
        if target is not None:
            check_outputs(self.outputs, {n: array.shape}, {n: target}, ())
            np.copyto(target, array)
            return target
        return array.copy()  # what a host step returns may be its own for the next run
