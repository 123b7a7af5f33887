"""An exact search for a placement within a given number of bytes.

A placement can be pushed down until each buffer lies on the bottom of the arena or on top of a
buffer alive at the same time; such placements are canonical, and if any placement fits, a canonical
one does. The search keeps for every buffer not placed yet the lowest offset that it can have.

- It takes the buffer of least offset (by rank where several have it) of those below which no other
  fits any more, and branches: the buffer lies there, and all that meet it and are not placed lie
  above; or it does not.
- Where it does not, it lies on one of the buffers not placed yet, so its offset is at least the
  lowest top that one of those can have, and so on to a fixed point.
- A section fails where the lowest offset in it plus the bytes not placed yet exceed the capacity.
- Each bound knows the decisions it follows from, as bits of an integer. A failure goes back to the
  last decision that it follows from and skips all others in between, such as those at another time.

Sections, canonical order and the bound of a section are those of Moffitt, "MiniMalloc: A
Lightweight Memory Allocator for Hardware-Accelerated Machine Learning" (ASPLOS 2023); going back by
reasons is conflict-directed backjumping (Prosser, 1993).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aicc.memory.sections import Bools, Ints, Sections, rankings

NEVER = 1 << 60
"""The offset of a buffer that is placed, for comparisons that only regard the others."""


@dataclass
class Effort:
    """What a search may spend, in microseconds as they are on a core of 2023: counted from the
    sizes of the steps, not measured, so that the result is the same everywhere."""

    left: float

    def spend(self, microseconds: float) -> bool:
        """Takes from what is left; False where nothing is left."""
        self.left -= microseconds
        return self.left > 0


@dataclass(frozen=True)
class Found:
    """Offsets by buffer."""

    offsets: Ints


@dataclass(frozen=True)
class Refuted:
    """No placement fits."""


@dataclass(frozen=True)
class GaveUp:
    """The search has ended before it knew."""


Outcome = Found | Refuted | GaveUp


class Searcher:
    """Searches one problem, at one capacity after the other."""

    def __init__(self, sections: Sections) -> None:
        self.sections = sections
        self._orders = rankings(sections)
        self._searches: list[_Ranked | None] = [None] * len(self._orders)

    def search(self, capacity: int, effort: Effort) -> Outcome:
        """A placement in `capacity` bytes: each ranking in turn, with limits that double, for a
        search that a lucky first choice ends at once may never end after an unlucky one."""
        if int(self.sections.totals.max()) > capacity:
            return Refuted()
        limit = 2 * self.sections.count
        while effort.left > 0:
            for i, order in enumerate(self._orders):
                ranked = self._searches[i]
                if ranked is None:
                    effort.spend(_setup(self.sections.count))
                    ranked = self._searches[i] = _Ranked(self.sections.take(order))
                outcome = ranked.search(capacity, limit, effort)
                if isinstance(outcome, Found):
                    offsets = np.empty_like(outcome.offsets)
                    offsets[order] = outcome.offsets
                    return Found(offsets)
                if isinstance(outcome, Refuted):
                    return outcome
            limit *= 2
        return GaveUp()


@dataclass
class _State:
    """lows: the least offset of each buffer, NEVER where it is placed. refused: it lies on a buffer
    that is not placed yet. left: bytes not placed yet, by section. reasons: the decisions that the
    least offset follows from, or, once it is placed, the one that placed it; bit d is the decision
    at depth d."""

    lows: Ints
    refused: Bools
    left: Ints
    reasons: list[int]

    def copy(self) -> _State:
        return _State(self.lows.copy(), self.refused.copy(), self.left.copy(), self.reasons[:])


class _Ranked:
    """The search of buffers that are numbered by rank: argmin's first index is the best rank."""

    def __init__(self, s: Sections) -> None:
        self.sections = s
        self.members = s.members()
        # Found last, and mostly still true: a buffer that each refused one may lie on, which keeps
        # its least offset from rising, and the buffer of least offset in each section.
        self._under = np.arange(s.count)
        self._lowest = np.array([m[0] for m in self.members])
        self.near = [np.flatnonzero(row) for row in s.meets]
        self.twins = s.twins()
        self.sizes: list[int] = s.sizes.tolist()
        self.spans = [slice(a, b) for a, b in zip(s.lows.tolist(), s.highs.tolist())]

    def search(self, capacity: int, limit: int, effort: Effort) -> Outcome:
        """Depth first, at most `limit` buffers placed."""
        n = self.sections.count
        now = _State(
            np.zeros(n, np.int64), np.zeros(n, np.bool_), self.sections.totals.copy(), [0] * n
        )
        trail: list[tuple[_State, int, int]] = []  # the state before, the buffer, its offset
        while len(trail) < n:
            limit -= 1
            if limit < 0 or not effort.spend(25 + n / 50):
                return GaveUp()
            buffer, offset = self._choose(now)
            trail.append((now, buffer, offset))
            now = now.copy()
            self._place(now, buffer, offset, 1 << (len(trail) - 1))
            conflict = self._tighten(now, capacity, effort)
            while conflict is not None:
                if conflict == 0:
                    return Refuted()
                depth = conflict.bit_length() - 1
                now, buffer, offset = trail[depth]
                del trail[depth:]
                self._refuse(now, buffer, offset, conflict ^ (1 << depth))
                conflict = self._tighten(now, capacity, effort)
        offsets = np.zeros(n, dtype=np.int64)
        for _, buffer, offset in trail:
            offsets[buffer] = offset
        return Found(offsets)

    def _choose(self, now: _State) -> tuple[int, int]:
        """The buffer to decide on next, and its offset. There is one: of the buffer with the
        lowest top nothing fits below, and it is not refused, as its least offset would then be
        some other's top."""
        tops = now.lows + self.sections.sizes
        open_lows = np.where(now.refused, NEVER, now.lows)
        while True:
            buffer = int(open_lows.argmin())
            offset = int(open_lows[buffer])
            if int(tops[self.near[buffer]].min(initial=NEVER)) > offset:
                return buffer, offset
            open_lows[buffer] = NEVER

    def _place(self, now: _State, buffer: int, offset: int, decision: int) -> None:
        size = self.sizes[buffer]
        now.lows[buffer] = NEVER
        now.left[self.spans[buffer]] -= size
        now.reasons[buffer] = decision
        near = self.near[buffer]
        above = near[now.lows[near] <= offset + size]
        now.lows[above] = offset + size
        now.refused[above] = False
        for v in above.tolist():
            # One that fits below the buffer lies above it because its least offset says so.
            fits_below = self.sizes[v] <= offset
            now.reasons[v] = now.reasons[v] | decision if fits_below else decision

    def _refuse(self, now: _State, buffer: int, offset: int, reasons: int) -> None:
        """`buffer` does not lie at `offset`, its least; nor do those that it could be swapped
        with."""
        now.refused[buffer] = True
        now.reasons[buffer] |= reasons
        for v in self.twins[buffer]:
            if now.lows[v] == offset:
                now.refused[v] = True
                now.reasons[v] |= now.reasons[buffer]

    def _tighten(self, now: _State, capacity: int, effort: Effort) -> int | None:
        """Raises least offsets until none changes; the reasons of a failure, or None."""
        lows, reasons, sizes = now.lows, now.reasons, self.sizes
        while True:
            tops = lows + self.sections.sizes
            refused = now.refused.nonzero()[0]
            lost = refused[tops[self._under[refused]] > lows[refused]]
            if not lost.size:
                break
            effort.spend(len(lost) * len(lows) / 150)
            rests = np.where(self.sections.meets[lost], tops, 2 * NEVER)
            self._under[lost] = under = rests.argmin(1)
            rests = rests[np.arange(len(lost)), under]
            for buffer, low in zip(lost.tolist(), rests.tolist()):
                if low <= lows[buffer]:
                    continue
                why: int = reasons[buffer]
                effort.spend(len(self.near[buffer]) / 10)
                for v in self.near[buffer].tolist():
                    if sizes[v] < low:  # the top of others is as high wherever they lie
                        why |= reasons[v]
                if low + sizes[buffer] > capacity:
                    return why
                reasons[buffer] = why
                lows[buffer] = low
        room = capacity - now.left
        for section in ((lows[self._lowest] > room) & (now.left > 0)).nonzero()[0].tolist():
            members = self.members[section]
            effort.spend(1)
            lowest = members[lows[members].argmin()]
            self._lowest[section] = lowest
            if lows[lowest] > room[section]:
                why = 0
                for v in members.tolist():
                    if lows[v] < NEVER:
                        why |= reasons[v]
                return why
        return None


def _setup(count: int) -> float:
    """Microseconds that building the tables of a ranking of `count` buffers takes."""
    return 300 + 10 * count + count * count / 100
