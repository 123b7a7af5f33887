"""The order in which nodes run, for the least peak of live bytes.

Plain functions over a small data structure (`order_problem`); nothing here knows of graphs. The
least peak over all topological orders is NP-hard to find, but networks are far from the worst case:

0. Nodes that read nothing run right before the node that reads what they write (`order_sources`).
1. The problem is cut at every node that all others come before or after: what lies between two such
   nodes is ordered on its own, for any order of the whole is an order of the parts.
2. Each part takes the best of the given order and several greedy ones. Where its peak is what some
   node needs in any order, that is proven already.
3. Else an exact search (`order_search`) walks over the sets of nodes done, from the start and from
   the end in turns, and raises the bound until it meets the peak of an order that it found.
4. Where it does not end soon, minimum cuts (`order_cut`) raise the bound, and searches for any
   order below the best one lower the peak, until the effort is spent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aicc.memory.order_cut import least_during
from aicc.memory.order_greedy import greedy_orders
from aicc.memory.order_parts import Part, split
from aicc.memory.order_problem import Order, Problem, live_bytes, live_peak
from aicc.memory.order_search import Search, Walk
from aicc.memory.order_sources import bound_sources

SLICE = 250
"""States that a search looks at before it is seen how much effort is left."""
SPEED = 1_500_000
"""Steps that a search looks at in a second, on a core of 2023."""


@dataclass
class Effort:
    """What may still be spent: steps to look at, of searches over narrow sets."""

    left: float

    @property
    def spent(self) -> bool:
        return self.left <= 0


def order(problem: Problem, time_budget: float = 2.0) -> Order:
    """The order of least peak, proven where the search ends in `time_budget`; else the best that
    was found, which is no worse than the given and the greedy ones, and the best bound. The budget
    is in seconds of a core of 2023, but they are counted from the steps of the search and not
    measured: the result is the same on every machine. 0 leaves the search out."""
    effort = Effort(time_budget * SPEED)
    fewer, runs = bound_sources(problem)
    solvers = [_Solver(part) for part in split(fewer)]
    bound = max((*fewer.ends, *(s.bound for s in solvers)))
    while solvers:
        worst = max(solvers, key=lambda s: s.peak)
        bound = max(bound, worst.bound)
        if worst.peak <= bound or effort.spent:
            break
        worst.improve(bound, effort)
    sequence = tuple(node for s in solvers for run in s.nodes for node in runs[run])
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

    def improve(self, goal: int, effort: Effort) -> None:
        """Looks at twice as many states as the last time; a peak of `goal` is good enough."""
        goal -= self.part.base
        first = not self.walks
        if first:
            self.walks = [Walk(self.part.problem, backward) for backward in (False, True)]
            self.searches = [Search(w, self.least, self.least) for w in self.walks]
        for search in self.searches:
            search.lift(max(goal, self.least))
            self._run(search, self.states, goal, effort, self.best)
        for walk in self.walks:
            self._dive(walk, goal, effort)
        if first:
            self._cut(goal, effort)
        self.states *= 2

    def _done(self, goal: int, effort: Effort) -> bool:
        return self.best <= max(goal, self.least) or effort.spent

    def _run(self, search: Search, states: int, goal: int, effort: Effort, top: int) -> bool:
        """Continues a search while its level is not above `top`; keeps the order that it finds, and
        its bound. Whether it found one."""
        weight = 1 + self.part.problem.count / 1500  # wide sets take longer
        for _ in range(0, states, SLICE):
            if self._done(goal, effort) or search.level > top:
                break
            before = search.looked
            found = search.run(SLICE)
            effort.left -= (search.looked - before) * weight
            self.least = max(self.least, search.bound)
            if found is not None:
                self._keep(found)
                return True
        return False

    def _cut(self, goal: int, effort: Effort) -> None:
        """Minimum cuts at the nodes that may need more than the bound."""
        problem = self.part.problem
        during = live_bytes(problem, self.sequence)
        for most, node in sorted(zip(during, self.sequence), reverse=True):
            if most <= self.least or self._done(goal, effort):
                break
            lowest, looked = least_during(problem, node)
            self.least = max(self.least, lowest)
            effort.left -= looked

    def _dive(self, walk: Walk, goal: int, effort: Effort) -> None:
        """Searches below the best peak: by a share of what is between it and the bound, a smaller
        one where that finds nothing soon."""
        left = 2 * self.states
        for share in (2, 8, 32, self.best):
            while left > 0 and not self._done(goal, effort):
                level = self.best - max(1, (self.best - self.least) // share)
                dive = Search(walk, level, self.least)
                found = self._run(dive, min(left, self.states), goal, effort, level)
                left -= dive.states
                if not found:
                    break
