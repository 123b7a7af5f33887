"""What depends on the sizes of a run: offsets in the arenas, shapes of outputs, counts of bytes.

Sizes come in phases: those of the inputs, then those that host steps bring. A `Layout` is all that
one phase's sizes decide; the executor computes it for each distinct set of sizes and keeps the last
ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aicc.dtypes import nbytes, to_numpy
from aicc.errors import InputError
from aicc.memory import placement
from aicc.runtime.context import Slots
from aicc.runtime.program import Program, Read
from aicc.runtime.results import LARGE
from aicc.symbolic import Size, Sym, proves_le, substitute, sym

EXACT = 8
"""So many sets of sizes get a placement of their own."""
SEARCH = 0.02
"""Seconds that a search for such a placement may take, as a run waits for it."""


@dataclass(frozen=True)
class Layout:
    """values: of all sizes known in the phase, by symbol. arena: bytes. offsets: (word of the
    context, offset in the arena). words: (word of the context, value). outputs: (position, shape)
    of the outputs that the phase opens; results: their shapes and types. large: whether one of
    these is. least: the most bytes alive in one step. most: the largest number that a step which
    ends the phase may read."""

    values: Mapping[str, int]
    arena: int
    least: int
    offsets: tuple[tuple[int, int], ...]
    words: tuple[tuple[int, int], ...]
    outputs: tuple[tuple[int, tuple[int, ...]], ...]
    results: tuple[tuple[tuple[int, ...], np.dtype[Any]], ...]
    large: bool
    most: int


class Layouts:
    """Computes the layouts of a program."""

    def __init__(self, program: Program, slots: Slots) -> None:
        self.slots = slots
        self._program = program
        self._phases = [_Phase(program, slots, p) for p in range(len(program.phases))]
        self._placements: dict[tuple[int, ...], placement.Placement] = {}
        self._exact = 0

    def layout(self, phase: int, values: Mapping[str, int]) -> Layout:
        """The layout of a phase whose sizes have these values."""
        p = self._phases[phase]
        sizes, counts, shapes, most = p.numbers(values)
        placed = self._place(p, phase, sizes)
        total, least = placed.size, placed.bound
        if phase == 0 and self._program.arena is not None:
            total, least = self._program.arena, self._program.least or 0
        words = [(self.slots.sizes[name], values[name]) for name in p.sizes]
        words += zip(p.copies, counts)
        return Layout(
            dict(values),
            total,
            least,
            tuple(zip(p.addresses, placed.offsets)),
            tuple(words),
            tuple(zip(p.outputs, shapes)),
            tuple(zip(shapes, p.dtypes)),
            any(math.prod(s) * b > LARGE for s, b in zip(shapes, p.widths, strict=True)),
            most,
        )

    def _place(self, p: _Phase, phase: int, sizes: tuple[int, ...]) -> placement.Placement:
        """Offsets for buffers of these sizes. Where sizes keep changing, as the length of a text
        does from token to token, placements of sizes rounded up serve many of them."""
        if self._exact < EXACT:
            self._exact += 1
            slots = list(map(placement.Buffer, sizes, p.firsts, p.lasts))
            return placement.place(slots, time_budget=SEARCH)
        rounded = tuple(map(_rounded, sizes))
        key = (phase, *rounded)
        found = self._placements.get(key)
        if found is None:
            slots = list(map(placement.Buffer, rounded, p.firsts, p.lasts))
            found = placement.place(slots, time_budget=0)
            while len(self._placements) >= EXACT:
                self._placements.pop(next(iter(self._placements)), None)
            self._placements[key] = found
        return found


class _Phase:
    """What a phase computes from the values of sizes, compiled to one Python function."""

    def __init__(self, program: Program, slots: Slots, phase: int) -> None:
        arena = [b for b in program.buffers if b.space == "arena" and b.at is None]
        arena = [b for b in arena if program.phase_of(b) == phase]
        self.addresses = [slots.addresses[b.name] for b in arena]
        self.firsts = [b.first for b in arena]
        self.lasts = [b.last for b in arena]
        self.sizes = [name for name, p in program.phase_of_size.items() if p == phase]
        copied = {
            slots.copies[n]: program.table[program.steps[n].operands[0]] for n in slots.copies
        }
        copied = {slot: b for slot, b in copied.items() if program.phase_of(b) == phase}
        self.copies = list(copied)
        ports = {n: program.table[b] for n, (_, b) in enumerate(program.outputs)}
        ports = {n: b for n, b in ports.items() if program.root(b.name).space == "output"}
        ports = {n: b for n, b in ports.items() if program.phase_of(program.root(b.name)) == phase}
        self.outputs = list(ports)
        self.dtypes = [to_numpy(b.dtype) for b in ports.values()]
        self.widths = [nbytes(b.dtype) for b in ports.values()]
        known = [s.sym for s in program.sizes if program.phase_of_size[s.sym.name] <= phase]
        self._names = [s.name for s in known]
        extents = dict.fromkeys(d for b in (*arena, *ports.values()) for d in b.shape)
        self._risky = [d for d in extents if not proves_le(0, d)]
        begins = program.phases
        last = program.steps[begins[phase + 1] - 1] if phase + 1 < len(begins) else None
        self._function = _compiled(
            known,
            [
                [b.nbytes for b in arena],
                [b.nbytes for b in copied.values()],
                self._risky,
                [last.most if isinstance(last, Read) else 0],
                *(b.shape for b in ports.values()),
            ],
        )

    def numbers(
        self, values: Mapping[str, int]
    ) -> tuple[tuple[int, ...], tuple[int, ...], tuple[tuple[int, ...], ...], int]:
        """Bytes of the arena's buffers, bytes of the copies, shapes of the outputs, the largest
        number that the step behind the phase may read.

        Raises InputError where an extent would be negative: kernels rely on that none is.
        """
        sizes, counts, extents, (most,), *shapes = self._function(*(values[n] for n in self._names))
        for extent, value in zip(self._risky, extents, strict=True):
            if value < 0:
                given = ", ".join(f"{n} = {values[n]}" for n in self._names)
                raise InputError(f"an axis inside would have {extent} = {value} elements: {given}")
        return sizes, counts, tuple(shapes), most


def _compiled(
    known: Sequence[Sym], groups: Sequence[Sequence[Size]]
) -> Callable[..., tuple[tuple[int, ...], ...]]:
    """A function from the values of symbols to those of sizes.

    The text of a size is a Python expression once its symbols are named by position.
    """
    names = {s: sym(f"v{n}", s.lo, s.hi) for n, s in enumerate(known)}
    lists = ("".join(f"{substitute(size, names)}, " for size in group) for group in groups)
    text = f"lambda {', '.join(map(str, names.values()))}: ({''.join(f'({t}), ' for t in lists)})"
    made: Callable[..., tuple[tuple[int, ...], ...]] = eval(text, {"min": min, "max": max})
    return made


def _rounded(size: int) -> int:
    """`size` up to the next of eight numbers between powers of two: at most an eighth more."""
    step = 1 << max(0, size.bit_length() - 4)
    return -(-size // step) * step
