"""What a run's memory consists of: which tensors lie where in the arena, when, and how far that is
from the least that could do.

Three bytes counts tell of that, each at least the next one:

- `arena`: what the tensors' places span.
- `live_peak`: the most bytes alive in one step. No places for this order of steps span less.
- `bound`: what steps in any order, with the same kernels, need at least.

Only the arena is told of: constants are one block of their own, inputs and outputs lie in the
caller's arrays, and what Python computes lies in Python's. Tensors whose sizes only a run brings
have an arena of their own, which is not known before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from aicc.memory.placement import round_up
from aicc.runtime.context import Slots
from aicc.runtime.layout import Layout
from aicc.runtime.program import Buffer, Call, Copy, Host, Program, Step
from aicc.symbolic import evaluate


@dataclass(frozen=True)
class Tensor:
    """A tensor in the arena.

    bytes: its size, padded to where the next one may begin. offset: bytes from the arena's start.
    first, last: the steps from and to which it is alive, both included. nodes: names of the ONNX
    nodes that it is computed by. holds: the values that lie in its memory one after the other,
    first its own, then those that kernels write over it.
    """

    name: str
    bytes: int
    offset: int
    first: int
    last: int
    nodes: tuple[str, ...] = ()
    holds: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The fields as plain data."""
        return {
            **{n: getattr(self, n) for n in ("name", "bytes", "offset", "first", "last")},
            "nodes": list(self.nodes),
            "holds": list(self.holds),
        }


@dataclass(frozen=True)
class MemoryMap:
    """tensors: in the arena, in the order they come to life. arena, bound: bytes, as above; the
    bound is None where it is not known: where sizes are symbols, and for programs that were made
    without one. steps: what each step runs, with its ONNX nodes. sizes: values of symbols.
    unknown: tensors whose sizes only a run brings."""

    name: str
    tensors: tuple[Tensor, ...]
    arena: int
    bound: int | None
    steps: tuple[tuple[str, tuple[str, ...]], ...]
    sizes: Mapping[str, int] = field(default_factory=dict)
    unknown: int = 0

    @property
    def placement_proven(self) -> bool:
        """Whether no other places make the arena smaller, for this order."""
        return self.arena == self.live_peak

    @property
    def order_proven(self) -> bool:
        """Whether no other order has a lower live peak."""
        return self.live_peak == self.bound

    @property
    def proven(self) -> bool:
        """Whether the arena is the smallest of all orders and places."""
        return self.arena == self.bound

    @cached_property
    def live(self) -> tuple[int, ...]:
        """Bytes alive in each step."""
        changes = [0] * (len(self.steps) + 1)
        for t in self.tensors:
            changes[t.first] += t.bytes
            changes[t.last + 1] -= t.bytes
        total, found = 0, []
        for change in changes[:-1]:
            total += change
            found.append(total)
        return tuple(found)

    @property
    def live_peak(self) -> int:
        """The most bytes alive in one step, which bounds the arena of this order."""
        return max(self.live, default=0)

    @cached_property
    def peak_step(self) -> int:
        """The first step with the most bytes alive; -1 where there are no steps."""
        return max(range(len(self.live)), key=lambda n: (self.live[n], -n), default=-1)

    def alive(self, step: int) -> tuple[Tensor, ...]:
        """The tensors alive in a step, largest first."""
        found = [t for t in self.tensors if t.first <= step <= t.last and t.bytes]
        return tuple(sorted(found, key=lambda t: (-t.bytes, t.offset)))

    @property
    def at_peak(self) -> tuple[Tensor, ...]:
        """The tensors alive at the peak, largest first."""
        return self.alive(self.peak_step)

    def verdict(self) -> str:
        """What is proven of the arena, in one line."""
        if self.bound is None:
            what = "that no other order of the steps needs less is not known"
            if self.placement_proven:
                return f"the smallest arena for this order is reached; {what}"
            return f"the places span {_share(self.arena, self.live_peak)} the live peak; {what}"
        if self.proven:
            return "proven the smallest: no order of the steps and no places need less"
        parts = []
        if self.placement_proven:
            parts.append("no places need less for this order")
        else:
            parts.append(f"the places span {_share(self.arena, self.live_peak)} the live peak")
        if self.order_proven:
            parts.append("no order has a lower live peak")
        else:
            parts.append(
                f"the order's live peak is {_share(self.live_peak, self.bound)} the bound for any "
                f"order"
            )
        return "; ".join(parts)

    def text(self, most: int | None = None) -> str:
        """The figures, and the tensors at the peak: at most so many lines of them."""
        bound = "not known" if self.bound is None else exactly(self.bound)
        given = ", ".join(f"{k}={v}" for k, v in self.sizes.items())
        lines = [
            f"arena                {exactly(self.arena)}" + (f"  ({given})" if given else ""),
            f"live peak            {exactly(self.live_peak)}  (no places need less for this order)",
            f"bound for any order  {bound}",
            f"proven               {self.verdict()}",
        ]
        if self.unknown:
            lines.append(
                f"beside it            {self.unknown} tensors whose sizes only a run brings"
            )
        if self.at_peak:
            what, nodes = self.steps[self.peak_step]
            at = f" at {_names(nodes)}" if nodes else ""
            total = len(self.steps)
            lines.append(f"alive at the peak, step {self.peak_step} of {total}, {what}{at}:")
            shown = self.at_peak[: len(self.at_peak) if most is None else most]
            width = max(len(exactly(t.bytes)) for t in shown)
            for t in shown:
                nodes_of = f"  from {_names(t.nodes)}" if t.nodes else ""
                lines.append(f"  {exactly(t.bytes):>{width}}  {' = '.join(t.holds)}{nodes_of}")
            rest = self.at_peak[len(shown) :]
            if rest:
                lines.append(f"  and {len(rest)} more, {exactly(sum(t.bytes for t in rest))}")
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.text()

    def as_dict(self, whole: bool = True) -> dict[str, Any]:
        """The map as plain data. whole: with all tensors and steps, not just those at the peak."""
        told: dict[str, Any] = {
            **{n: getattr(self, n) for n in ("name", "arena", "live_peak", "bound", "unknown")},
            **{n: getattr(self, n) for n in ("placement_proven", "order_proven", "proven")},
            "sizes": dict(self.sizes),
            "peak_step": self.peak_step,
            "at_peak": [t.as_dict() for t in self.at_peak],
        }
        if whole:
            told["live"] = list(self.live)
            told["tensors"] = [t.as_dict() for t in self.tensors]
            told["steps"] = [{"runs": what, "nodes": list(nodes)} for what, nodes in self.steps]
        return told


def memory_map(program: Program, layout: Layout | None, slots: Slots) -> MemoryMap | None:
    """The map of a program's first arena; None where its sizes are symbols and no layout tells
    their values."""
    if program.arena is None and layout is None:
        return None
    values = {} if layout is None else layout.values
    placed = {} if layout is None else dict(layout.offsets)
    held: dict[str, list[str]] = {}
    for b in program.buffers:
        if b.space == "view":
            held.setdefault(b.root, []).append(b.name)
    makers: dict[str, tuple[str, ...]] = {}
    for step in program.steps:
        for name in step.results:
            makers.setdefault(name, step.nodes)
    tensors: list[Tensor] = []
    unknown = 0
    for b in program.buffers:
        if b.space != "arena":
            continue
        if b.at is None and program.phase_of(b) > 0:
            unknown += 1
            continue
        at = b.at if b.at is not None else placed[slots.addresses[b.name]]
        # Views that no step writes are other shapes of what is there; only those written are told.
        over = [n for n in held.get(b.name, ()) if n in makers]
        size = round_up(_bytes(b, values))
        nodes = makers.get(b.name, ())
        tensors.append(Tensor(b.name, size, at, b.first, b.last, nodes, (b.name, *over)))
    tensors.sort(key=lambda t: (t.first, t.offset))
    arena = program.arena if program.arena is not None or layout is None else layout.arena
    return MemoryMap(
        program.name,
        tuple(tensors),
        arena or 0,
        program.bound,
        tuple((_title(s), s.nodes) for s in program.steps),
        dict(values),
        unknown,
    )


def _title(step: Step) -> str:
    if isinstance(step, Call):
        return f"@{step.kernel}"
    if isinstance(step, Host):
        return step.op
    return "copy" if isinstance(step, Copy) else "read"


def _bytes(b: Buffer, values: Mapping[str, int]) -> int:
    return b.nbytes if isinstance(b.nbytes, int) else evaluate(b.nbytes, values)


def _share(a: int, b: int) -> str:
    return f"{100 * a / b:.2f} % of" if b else "more than"


def _names(nodes: tuple[str, ...], most: int = 3) -> str:
    """A few names of nodes, the last among them, which is the one whose result is kept; fused
    kernels may have dozens."""
    if len(nodes) <= most:
        return ", ".join(map(repr, nodes))
    first = ", ".join(map(repr, nodes[: most - 1]))
    return f"{first}, ... {nodes[-1]!r} ({len(nodes)} nodes)"


def exactly(n: int) -> str:
    """Bytes for people, and to the byte."""
    return f"{readable(n)} ({n:,} B)" if n >= 1 << 10 else f"{n} B"


def readable(n: int) -> str:
    """Bytes for people."""
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if n >= size:
            return f"{n / size:.1f} {unit}" if unit == "KiB" else f"{n / size:.3f} {unit}"
    return f"{n} B"
