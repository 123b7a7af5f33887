"""Makes a placement smaller, as far as it can be made and the effort lasts.

Parts of time that no buffer crosses are problems of their own; each needs to be searched only where
it is the larger. The live peak is tried first, as it can mostly be reached; then sizes between what
is known to be too small and what is known to do.
"""

from __future__ import annotations

from math import gcd

import numpy as np

from aicc.memory.placement_search import Effort, Found, Outcome, Refuted, Searcher
from aicc.memory.sections import Ints, Sections, component

MOST_MEETINGS = 1_500_000
"""Larger problems are left as they are: the tables of a search take 50 bytes for each pair of
buffers alive at the same time."""


def improve(
    sizes: Ints, firsts: Ints, lasts: Ints, offsets: Ints, capacity: int, time_budget: float
) -> tuple[Ints, int]:
    """Offsets at most as high as `offsets`, and a size that no placement is smaller than. Ends at
    once where the arena is no larger than `capacity`; see `placement.place` for `time_budget`."""
    used = np.flatnonzero(sizes)
    whole = Sections.of(sizes[used], firsts[used], lasts[used])
    if whole.meetings > MOST_MEETINGS:
        return offsets, int(whole.totals.max())
    offsets = offsets.copy()
    problem = _Problem(whole, offsets[used])
    problem.improve(capacity, Effort(time_budget * 1e6))
    offsets[used] = problem.offsets
    return offsets, problem.least


class _Problem:
    """offsets: of the best placement so far. size: its arena. least: no placement is smaller."""

    def __init__(self, whole: Sections, offsets: Ints) -> None:
        self._sizes = whole.sizes
        self._parts = whole.components()
        self._searchers = [Searcher(component(whole, part)) for part in self._parts]
        self.unit = gcd(*whole.sizes.tolist())
        """Canonical offsets and the size of the least arena are sums of sizes: multiples of it."""
        self.offsets = offsets
        self.size = int((offsets + whole.sizes).max())
        self.least = int(whole.totals.max())

    def improve(self, capacity: int, effort: Effort) -> None:
        """Searches for the least arena, or one within `capacity`, until no effort is left.

        The least that it may be gets half of the effort. Then sizes between it and the present are
        bisected: those that are hard to decide lie between those that are easy, so each gets a
        small part of the effort first, and more in later rounds."""
        half = effort.left / 2
        while max(self.least, capacity) < self.size and effort.left > half:
            self._decide(max(self.least, capacity), effort, effort.left - half)
        part = effort.left / 8
        while max(self.least, capacity) < self.size and effort.left > 0:
            lowest = max(self.least, capacity)
            target = (lowest + self.size) // 2
            while lowest < self.size and effort.left > 0:
                if not self._decide(target, effort, part):
                    lowest = self._above(target)
                middle = (lowest + self.size - self.unit) // 2
                target = max(middle // self.unit * self.unit, lowest)
            part *= 4

    def _above(self, target: int) -> int:
        """The next size that a least arena can have."""
        return target // self.unit * self.unit + self.unit

    def _decide(self, target: int, effort: Effort, part: float) -> bool:
        """Whether a placement within `target` is found with a part of the effort."""
        own = Effort(min(part, effort.left))
        effort.left -= own.left
        outcome = self._attempt(target, own)
        effort.left += own.left
        if isinstance(outcome, Refuted):
            self.least = self._above(target)
        return isinstance(outcome, Found)

    def _attempt(self, target: int, effort: Effort) -> Outcome:
        """Places each part that is larger than `target` within it."""
        outcome: Outcome = Found(self.offsets)
        for part, searcher in zip(self._parts, self._searchers):
            if int((self.offsets[part] + self._sizes[part]).max()) <= target:
                continue
            outcome = searcher.search(target, effort)
            if not isinstance(outcome, Found):
                break
            self.offsets[part] = outcome.offsets
        self.size = int((self.offsets + self._sizes).max())
        return outcome
