"""The order in which nodes run, for the least peak of live bytes.

Plain functions over a small data structure (`order_problem`); nothing here knows of graphs. The
least peak over all topological orders is NP-hard to find, but networks are far from the worst case:

1. The problem is cut at every node that all others come before or after: what lies between two such
   nodes is ordered on its own, for any order of the whole is an order of the parts.
2. Each part takes the best of the given order and several greedy ones. Where its peak is what some
   node needs in any order, that is proven already.
3. Else an exact search (`order_search`) walks over the sets of nodes done, from the start and from
   the end in turns, and raises the bound until it meets the peak of an order that it found.
4. Where it does not end soon, minimum cuts (`order_cut`) raise the bound, and searches for any
   order below the best one lower the peak, until the time is over.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from aicc.memory.order_cut import least_during
from aicc.memory.order_greedy import greedy_orders
from aicc.memory.order_parts import Part, split
from aicc.memory.order_problem import Order, Problem, live_bytes, live_peak
from aicc.memory.order_search import Search, Walk

SLICE = 250
"""States that a search looks at between two looks at the clock: some milliseconds."""


def order(problem: Problem, time_budget: float = 2.0) -> Order:
    """The order of least peak, proven where the search ends in `time_budget` seconds of this
    thread's time; else the best that was found, which is no worse than the given and the greedy
    ones, and the best bound. 0 leaves the search out."""
    deadline = time.thread_time() + time_budget
    solvers = [_Solver(part) for part in split(problem)]
    bound = max((*problem.ends, *(s.bound for s in solvers)))
    while solvers:
        worst = max(solvers, key=lambda s: s.peak)
        bound = max(bound, worst.bound)
        if worst.peak <= bound or time.thread_time() >= deadline:
            break
        worst.improve(bound, deadline)
    sequence = tuple(part for s in solvers for part in s.nodes)
    return Order(sequence, live_peak(problem, sequence), bound)


class _Solver:
    """The best order of a part so far, and what is known of better ones."""

    def __init__(self, part: Part) -> None:
        self.part = part
        problem = part.problem
        self.least = max((*problem.ends, *problem.floors))
        self.sequence = list(range(problem.count))
        self.best = live_peak(problem, self.sequence)
        for sequence in greedy_orders(problem):
            if self.best == self.least:
                break
            self._keep(sequence)
        self.walks: list[Walk] = []
        self.searches: list[Search] = []
        self.states = 2 * SLICE

    @property
    def peak(self) -> int:
        """Of the whole problem's live bytes, while this part runs in the best order."""
        return self.part.base + self.best

    @property
    def bound(self) -> int:
        """No order of the part has a lower peak."""
        return self.part.base + self.least

    @property
    def nodes(self) -> list[int]:
        """The best order, of the whole problem's nodes."""
        return [self.part.nodes[i] for i in self.sequence]

    def _keep(self, sequence: Sequence[int]) -> None:
        peak = live_peak(self.part.problem, sequence)
        if peak < self.best:
            self.best, self.sequence = peak, list(sequence)

    def improve(self, goal: int, deadline: float) -> None:
        """Looks at twice as many states as the last time; a peak of `goal` is good enough."""
        goal -= self.part.base
        first = not self.walks
        if first:
            self.walks = [Walk(self.part.problem, backward) for backward in (False, True)]
            self.searches = [Search(w, self.least, self.least) for w in self.walks]
        for search in self.searches:
            search.lift(max(goal, self.least))
            self._run(search, self.states, goal, deadline, self.best)
        for walk in self.walks:
            self._dive(walk, goal, deadline)
        if first:
            self._cut(goal, deadline)
        self.states *= 2

    def _done(self, goal: int, deadline: float) -> bool:
        return self.best <= max(goal, self.least) or time.thread_time() >= deadline

    def _run(self, search: Search, states: int, goal: int, deadline: float, top: int) -> bool:
        """Continues a search while its level is not above `top`; keeps the order that it finds, and
        its bound. Whether it found one."""
        for _ in range(0, states, SLICE):
            if self._done(goal, deadline) or search.level > top:
                break
            found = search.run(SLICE)
            self.least = max(self.least, search.bound)
            if found is not None:
                self._keep(found)
                return True
        return False

    def _cut(self, goal: int, deadline: float) -> None:
        """Minimum cuts at the nodes that may need more than the bound."""
        problem = self.part.problem
        during = live_bytes(problem, self.sequence)
        for most, node in sorted(zip(during, self.sequence), reverse=True):
            if most <= self.least or self._done(goal, deadline):
                break
            self.least = max(self.least, least_during(problem, node))

    def _dive(self, walk: Walk, goal: int, deadline: float) -> None:
        """Searches below the best peak: by a share of what is between it and the bound, a smaller
        one where that finds nothing soon."""
        left = 2 * self.states
        for share in (2, 8, 32, self.best):
            while left > 0 and not self._done(goal, deadline):
                level = self.best - max(1, (self.best - self.least) // share)
                dive = Search(walk, level, self.least)
                found = self._run(dive, min(left, self.states), goal, deadline, level)
                left -= dive.looked
                if not found:
                    break
