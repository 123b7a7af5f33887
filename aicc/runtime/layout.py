"""What depends on the sizes of a run: offsets in the arenas, shapes of outputs, counts of bytes.

Sizes come in phases: those of the inputs, then those that host steps bring. A `Layout` is all that
one phase's sizes decide; the executor computes it for each distinct set of sizes and keeps the last
ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from aicc.memory import placement
from aicc.runtime.context import Slots
from aicc.runtime.program import Copy, Program
from aicc.symbolic import evaluate


@dataclass(frozen=True)
class Layout:
    """values: of all sizes known in the phase, by symbol. arena: bytes. offsets: (word of the
    context, offset in the arena). words: (word of the context, value). outputs: (position, shape)
    of the outputs that the phase opens. least: the most bytes alive in one step."""

    values: Mapping[str, int]
    arena: int
    least: int
    offsets: tuple[tuple[int, int], ...]
    words: tuple[tuple[int, int], ...]
    outputs: tuple[tuple[int, tuple[int, ...]], ...]


class Layouts:
    """Computes the layouts of a program."""

    def __init__(self, program: Program, slots: Slots) -> None:
        self._slots = slots
        self._program = program
        count = len(program.phases)
        self._arena = [
            [b for b in program.buffers if b.space == "arena" and b.at is None]
            if count == 1
            else [
                b
                for b in program.buffers
                if b.space == "arena" and b.at is None and program.phase_of(b) == p
            ]
            for p in range(count)
        ]
        ports = [(n, program.table[b]) for n, (_, b) in enumerate(program.outputs)]
        self._outputs = [
            [
                (n, b)
                for n, b in ports
                if program.root(b.name).space == "output"
                and program.phase_of(program.root(b.name)) == p
            ]
            for p in range(count)
        ]
        self._copies = [
            [
                (slots.copies[n], program.table[s.source].nbytes)
                for n, s in enumerate(program.steps)
                if isinstance(s, Copy)
                and n in slots.copies
                and program.phase_of(program.table[s.source]) == p
            ]
            for p in range(count)
        ]

    def layout(self, phase: int, values: Mapping[str, int]) -> Layout:
        """The layout of a phase whose sizes have these values."""
        buffers = self._arena[phase]
        placed = placement.place(
            [placement.Buffer(evaluate(b.nbytes, values), b.first, b.last) for b in buffers]
        )
        total, least = placed.size, placed.bound
        if phase == 0 and self._program.arena is not None:
            total, least = self._program.arena, self._program.least or 0
        words = [
            (self._slots.sizes[name], values[name])
            for name, p in self._program.phase_of_size.items()
            if p == phase
        ]
        words += [(slot, evaluate(n, values)) for slot, n in self._copies[phase]]
        return Layout(
            dict(values),
            total,
            least,
            tuple((self._slots.addresses[b.name], at) for b, at in zip(buffers, placed.offsets)),
            tuple(words),
            tuple(
                (n, tuple(evaluate(d, values) for d in b.shape)) for n, b in self._outputs[phase]
            ),
        )
