"""Where buffers lie in one arena, so that those that live at the same time do not overlap.

Plain functions over (size, first, last); nothing here knows of graphs. Sizes are numbers: symbolic
ones are evaluated before. Placing is the NP-hard dynamic storage allocation problem. The live peak,
the most bytes alive in one step, is a lower bound, and mostly one of several greedy orders reaches
it (Pisarchyk & Lee, arXiv 2001.03288: greedy by size), each of which puts a buffer into the
smallest hole between the buffers placed before that live at the same time. Where none does,
`improvement` searches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

ALIGNMENT = 64
"""Bytes; the width of a cache line and of the widest vector."""

Ints = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Buffer:
    """`size` bytes needed from step `first` to step `last`, both included."""

    size: int
    first: int
    last: int


@dataclass(frozen=True)
class Placement:
    """offsets: bytes, one per buffer, in order. size: of the arena. bound: the live peak. least: no
    placement is smaller, the bound or, where a search has shown that it cannot be reached, more.
    method: the greedy order that won, or "search"."""

    offsets: tuple[int, ...]
    size: int
    bound: int
    least: int
    method: str

    @property
    def proven(self) -> bool:
        """Whether no placement is smaller than this one."""
        return self.size == self.least


KEYS: dict[str, Callable[[Buffer], tuple[int, ...]]] = {
    "size": lambda b: (-b.size, b.first),
    "area": lambda b: (-b.size * (b.last - b.first + 1), -b.size),
    "lifetime": lambda b: (b.first - b.last, -b.size),
    "start": lambda b: (b.first, -b.size),
    "end": lambda b: (-b.last, -b.size),
}
"""Greedy orders: buffers are placed by ascending key."""


def place(
    buffers: Sequence[Buffer],
    alignment: int = ALIGNMENT,
    *,
    capacity: int = 0,
    time_budget: float = 2.0,
) -> Placement:
    """Offsets for `buffers`, multiples of `alignment`, and the size of the arena they need.

    Where no greedy order reaches the live peak, a search goes on: it ends with a placement that is
    proven the smallest, or is no larger than `capacity` bytes, or with the smallest that it has
    found when `time_budget` is spent, and is never worse than the best greedy order. The budget is
    in seconds of a core of 2023, but they are counted from the search's steps and not measured:
    the result is the same on every machine and at every load. 0 asks for the greedy orders alone.
    """
    for b in buffers:
        if b.size < 0 or b.last < b.first:
            raise ValueError(f"{b} is no buffer: its size or its lifetime is negative")
    sizes = np.array([round_up(b.size, alignment) for b in buffers], dtype=np.int64)
    firsts = np.array([b.first for b in buffers], dtype=np.int64)
    lasts = np.array([b.last for b in buffers], dtype=np.int64)
    bound = live_peak(buffers, alignment)
    best: Placement | None = None
    for method, order in _orders(buffers, alignment):
        offsets = _greedy(order, sizes, firsts, lasts)
        total = int((offsets + sizes).max(initial=0))
        if best is None or total < best.size:
            best = Placement(tuple(offsets.tolist()), total, bound, bound, method)
        if total == bound:
            break
    assert best is not None
    if best.size <= max(bound, capacity) or time_budget <= 0:
        return best
    from aicc.memory.improvement import improve  # the most models need none

    lives = (sizes, firsts, lasts)
    offsets, least = improve(*lives, np.array(best.offsets), capacity, time_budget)
    size = int((offsets + sizes).max())
    method = "search" if size < best.size else best.method
    return Placement(tuple(offsets.tolist()), size, bound, least, method)


def greedy(buffers: Sequence[Buffer], key: str = "size", alignment: int = ALIGNMENT) -> Placement:
    """The placement of one greedy order of KEYS, as others report it for comparison."""
    sizes = np.array([round_up(b.size, alignment) for b in buffers], dtype=np.int64)
    firsts = np.array([b.first for b in buffers], dtype=np.int64)
    lasts = np.array([b.last for b in buffers], dtype=np.int64)
    sequence = sorted(range(len(buffers)), key=lambda i: KEYS[key](buffers[i]))
    offsets = _greedy(sequence, sizes, firsts, lasts)
    bound = live_peak(buffers, alignment)
    total = int((offsets + sizes).max(initial=0))
    return Placement(tuple(int(o) for o in offsets), total, bound, bound, key)


def live_peak(buffers: Sequence[Buffer], alignment: int = 1) -> int:
    """The most bytes that are alive in one step, each size rounded up to `alignment`."""
    changes: dict[int, int] = {}
    for b in buffers:
        size = round_up(b.size, alignment)
        changes[b.first] = changes.get(b.first, 0) + size
        changes[b.last + 1] = changes.get(b.last + 1, 0) - size
    peak = live = 0
    for step in sorted(changes):
        live += changes[step]
        peak = max(peak, live)
    return peak


def check_placement(
    buffers: Sequence[Buffer], offsets: Sequence[int], size: int, alignment: int = ALIGNMENT
) -> None:
    """Raises ValueError where buffers alive in the same step overlap, or one is out of place."""
    if len(buffers) != len(offsets):
        raise ValueError(f"{len(offsets)} offsets for {len(buffers)} buffers")
    for i, (b, o) in enumerate(zip(buffers, offsets)):
        if o < 0 or o % alignment or o + b.size > size:
            raise ValueError(f"buffer {i} {b} at {o} is outside the arena of {size} or not aligned")
    active: list[int] = []
    for i in sorted(range(len(buffers)), key=lambda i: buffers[i].first):
        b, o = buffers[i], offsets[i]
        active = [j for j in active if buffers[j].last >= b.first]
        for j in active:
            if b.size and buffers[j].size:
                if o < offsets[j] + buffers[j].size and offsets[j] < o + b.size:
                    raise ValueError(
                        f"buffers {j} {buffers[j]} at {offsets[j]} and {i} {b} at {o} overlap"
                    )
        active.append(i)


def round_up(size: int, alignment: int = ALIGNMENT) -> int:
    """The least multiple of `alignment` that is not below `size`."""
    return -(-size // alignment) * alignment


def _orders(buffers: Sequence[Buffer], alignment: int) -> list[tuple[str, list[int]]]:
    indices = range(len(buffers))
    orders = [(name, sorted(indices, key=lambda i: key(buffers[i]))) for name, key in KEYS.items()]
    # Buffers of the fullest steps first: they leave no freedom, whatever else is placed.
    pressure = _pressure(buffers, alignment)
    by_pressure = sorted(indices, key=lambda i: (-pressure[i], -buffers[i].size))
    orders.append(("pressure", by_pressure))
    return orders


def _pressure(buffers: Sequence[Buffer], alignment: int) -> list[int]:
    """For each buffer, the most bytes alive in a step of its life."""
    steps = sorted({b.first for b in buffers})
    at = {s: i for i, s in enumerate(steps)}
    live = np.zeros(len(steps) + 1, dtype=np.int64)
    ends = np.searchsorted(steps, [b.last for b in buffers], side="right")
    for b, e in zip(buffers, ends):
        size = round_up(b.size, alignment)
        live[at[b.first]] += size
        live[e] -= size
    live = np.cumsum(live)
    return [int(live[at[b.first] : e].max()) for b, e in zip(buffers, ends)]


def _greedy(order: Sequence[int], sizes: Ints, firsts: Ints, lasts: Ints) -> Ints:
    """Each buffer in turn into the smallest hole that holds it, else on top."""
    n = len(order)
    offsets = np.zeros(n, dtype=np.int64)
    placed = np.zeros(n, dtype=np.int64)  # indices of buffers by ascending offset
    count = 0
    for i in order:
        size = int(sizes[i])
        if size == 0:
            continue
        known = placed[:count]
        near = known[(firsts[known] <= lasts[i]) & (lasts[known] >= firsts[i])]
        offset = 0
        if near.size:
            starts = offsets[near]
            tops = np.maximum.accumulate(starts + sizes[near])
            lows = np.concatenate(([0], tops[:-1]))
            holes = starts - lows
            fits = np.flatnonzero(holes >= size)
            offset = int(lows[fits[np.argmin(holes[fits])]]) if fits.size else int(tops[-1])
        offsets[i] = offset
        at = int(np.searchsorted(offsets[known], offset, side="right"))
        placed[at + 1 : count + 1] = placed[at:count].copy()
        placed[at] = i
        count += 1
    return offsets
