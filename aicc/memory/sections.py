"""The structure of a placement problem: which buffers meet, and where in time all of them meet.

Of all steps only those count at which a set of buffers is alive that no other step's set contains:
the sections, the maximal cliques of the interval graph of lifetimes. Two buffers are alive at once
exactly where they share a section, so a lifetime becomes a range of sections.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

Ints = np.ndarray[Any, np.dtype[np.int64]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True, eq=False)
class Sections:
    """Buffers by index: sizes in bytes, above 0, needed in sections lows[i] up to, not including,
    highs[i]. Every buffer is in a section and every section has a buffer."""

    sizes: Ints
    lows: Ints
    highs: Ints
    steps: Ints
    """How many steps each buffer lives, for orders that go by it."""

    @classmethod
    def of(cls, sizes: Ints, firsts: Ints, lasts: Ints) -> Sections:
        """The sections of buffers that live from step `firsts` to `lasts`, both included."""
        starts = np.unique(firsts)
        ends = np.unique(lasts)
        # The sets only grow from start to start until a buffer ends: the starts that an end
        # follows before the next start.
        ended = ends[np.searchsorted(ends, starts)]
        kept = starts[np.append(ended[:-1] < starts[1:], True)]
        lows = np.searchsorted(kept, firsts)
        highs = np.searchsorted(kept, lasts, side="right")
        return cls(sizes, lows, highs, lasts - firsts + 1)

    def take(self, order: Ints) -> Sections:
        """The same buffers in another order."""
        return Sections(self.sizes[order], self.lows[order], self.highs[order], self.steps[order])

    @property
    def count(self) -> int:
        """The number of buffers."""
        return len(self.sizes)

    @cached_property
    def totals(self) -> Ints:
        """Bytes alive in each section."""
        changes = np.zeros(int(self.highs.max()) + 1, dtype=np.int64)
        np.add.at(changes, self.lows, self.sizes)
        np.subtract.at(changes, self.highs, self.sizes)
        return np.cumsum(changes)[:-1]

    @cached_property
    def meets(self) -> Bools:
        """[i, j]: buffers i and j, different ones, are alive at once."""
        meets = (self.lows[:, None] < self.highs) & (self.lows < self.highs[:, None])
        np.fill_diagonal(meets, False)
        return meets

    @property
    def meetings(self) -> int:
        """The number of ordered pairs of different buffers that are alive at once."""
        starts, ends = np.sort(self.lows), np.sort(self.highs)
        # Those that start before a buffer ends, less those that end before it starts.
        before = np.searchsorted(starts, self.highs) - np.searchsorted(ends, self.lows, "right")
        return int(before.sum()) - self.count

    @cached_property
    def fullest(self) -> Ints:
        """For each buffer, the bytes alive in the fullest of its sections."""
        spans = zip(self.lows.tolist(), self.highs.tolist())
        return np.array([self.totals[a:b].max() for a, b in spans], dtype=np.int64)

    def components(self) -> list[Ints]:
        """Indices of the buffers of each part of time that no buffer crosses into the next."""
        order = np.argsort(self.lows, kind="stable")
        tops = np.maximum.accumulate(self.highs[order])
        cuts = np.flatnonzero(self.lows[order][1:] >= tops[:-1]) + 1
        return list(np.split(order, cuts))

    def members(self) -> list[Ints]:
        """The indices of the buffers in each section."""
        count = len(self.totals)
        return [np.flatnonzero((self.lows <= k) & (self.highs > k)) for k in range(count)]

    def twins(self) -> list[list[int]]:
        """For each buffer, the others of the same size in the same sections."""
        groups: dict[tuple[int, int, int], list[int]] = {}
        keys = list(zip(self.sizes.tolist(), self.lows.tolist(), self.highs.tolist()))
        for i, key in enumerate(keys):
            groups.setdefault(key, []).append(i)
        return [[j for j in groups[key] if j != i] for i, key in enumerate(keys)]


def component(sections: Sections, indices: Ints) -> Sections:
    """The buffers at `indices` alone, their sections counted from the first of them."""
    part = sections.take(indices)
    base = int(part.lows.min())
    return Sections(part.sizes, part.lows - base, part.highs - base, part.steps)


RANKINGS: tuple[Sequence[str], ...] = (
    ("fullest", "sections", "area"),
    ("fullest", "area", "steps"),
    ("fullest", "steps", "area"),
    ("overlaps", "area", "fullest"),
)


def rankings(s: Sections) -> list[Ints]:
    """Orders in which a search prefers buffers, the most constrained first, by several measures:
    the bytes of the fullest section, sections and steps lived, size times steps, neighbours."""
    measures = {
        "fullest": s.fullest,
        "sections": s.highs - s.lows,
        "area": s.sizes * s.steps,
        "steps": s.steps,
        "overlaps": s.meets.sum(1),
    }
    return [np.lexsort([-measures[m] for m in reversed(names)]) for names in RANKINGS]
