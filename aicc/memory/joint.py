"""Order and placement, judged together.

What counts is the arena: of two orders with the same peak of live bytes one may leave holes that no
later buffer fits. The order of least peak comes first; where its arena is larger than that peak,
others with a peak below the arena are placed as well, and the smallest arena wins.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from aicc.memory.order_greedy import greedy_orders
from aicc.memory.order_parts import split
from aicc.memory.order_problem import Order, Problem, live_peak
from aicc.memory.order_search import Search, Walk
from aicc.memory.ordering import order
from aicc.memory.placement import ALIGNMENT, Buffer, Placement, place, round_up

CANDIDATES = 16
"""Orders beside the least that are placed at most."""
STATES = 4000
"""States that the search for another order may look at."""


@dataclass(frozen=True)
class MemoryPlan:
    """order: of the nodes, its peak and the bound for any order, in bytes, each size rounded up to
    the alignment. buffers: the memory of each value, as an index into `placement`; values that are
    lent memory share it. placement: where the buffers lie."""

    order: Order
    buffers: tuple[int, ...]
    placement: Placement

    @property
    def offsets(self) -> tuple[int, ...]:
        """Bytes from the start of the arena, for each value."""
        return tuple(self.placement.offsets[b] for b in self.buffers)

    @property
    def size(self) -> int:
        """Of the arena, in bytes."""
        return self.placement.size

    @property
    def proven(self) -> bool:
        """Whether no order has a smaller arena."""
        return self.size == self.order.bound


def plan_memory(
    problem: Problem, time_budget: float = 2.0, alignment: int = ALIGNMENT
) -> MemoryPlan:
    """The order and the placement with the smallest arena that is found. Each value of some bytes
    starts at a multiple of `alignment`.

    The search for the least order may take `time_budget` seconds, those for its best placement and
    for the placements of other orders a quarter of that each, counted as `order` and `place` count
    them; 0 leaves searches out. The arena is never larger than what greedy placement makes of
    the given order.
    """
    problem = _rounded(problem, alignment)
    least = order(problem, time_budget)
    best = _placed(problem, least, alignment, time_budget / 4)
    if best.proven:
        return best
    candidates = CANDIDATES if time_budget > 0 else 1
    for sequence in islice(_other_orders(problem, least), candidates):
        peak = live_peak(problem, sequence)
        if peak < best.size:
            other = replace(least, sequence=sequence, peak=peak)
            found = _placed(problem, other, alignment, time_budget / 4 / CANDIDATES)
            best = min(best, found, key=lambda plan: plan.size)
        if best.proven:
            break
    return best


def arena_bound(problem: Problem, time_budget: float = 2.0, alignment: int = ALIGNMENT) -> int:
    """Bytes that no order's arena can be below."""
    return order(_rounded(problem, alignment), time_budget).bound


def lifetimes(problem: Problem, sequence: Sequence[int]) -> tuple[list[Buffer], list[int]]:
    """The buffers of the values when nodes run in `sequence`, from position to position, and the
    index of each value's buffer."""
    at = {node: position for position, node in enumerate(sequence)}
    end = max(problem.count - 1, 0)
    firsts = [
        min(at[r] for r in problem.readers[v]) if v in problem.late else at.get(n, 0)
        for v, n in enumerate(problem.producer)
    ]
    lasts = [
        end
        if v in problem.kept or (problem.producer[v] < 0 and not readers)
        else max((at[r] for r in readers), default=firsts[v])
        for v, readers in enumerate(problem.readers)
    ]
    buffer = list(range(len(problem.sizes)))
    for node in sequence:
        now = at[node]
        lent = problem.loans(node, lambda v: lasts[v] == now and v not in problem.kept)  # noqa: B023
        for result, operand in lent.items():
            buffer[result] = buffer[operand]
    owners = sorted(set(buffer))
    index = {owner: i for i, owner in enumerate(owners)}
    last = dict.fromkeys(owners, 0)
    for v, owner in enumerate(buffer):
        last[owner] = max(last[owner], lasts[v])
    made = [Buffer(problem.sizes[o], firsts[o], last[o]) for o in owners]
    return made, [index[owner] for owner in buffer]


def _rounded(problem: Problem, alignment: int) -> Problem:
    return replace(problem, sizes=tuple(round_up(s, alignment) for s in problem.sizes))


def _placed(problem: Problem, found: Order, alignment: int, time_budget: float) -> MemoryPlan:
    buffers, of_value = lifetimes(problem, found.sequence)
    placed = place(buffers, alignment, capacity=found.bound, time_budget=time_budget)
    return MemoryPlan(found, tuple(of_value), placed)


def _other_orders(problem: Problem, least: Order) -> Iterator[tuple[int, ...]]:
    """Orders that are as good as the best, or quickly found."""
    yield tuple(range(problem.count))
    for sequence in greedy_orders(problem):
        yield tuple(sequence)
    parts = split(problem)
    for seed in range(CANDIDATES):
        rng = random.Random(seed)
        sequence = []
        for part in parts:
            numbering = _numbering(part.problem, rng)
            walk = Walk(_renumbered(part.problem, numbering), backward=seed % 2 == 1)
            inner = Search(walk, least.peak - part.base).run(STATES)
            if inner is None:
                break
            sequence += [part.nodes[numbering[n]] for n in inner]
        else:
            yield tuple(sequence)


def _numbering(problem: Problem, rng: random.Random) -> list[int]:
    """The nodes in a random order that may run, in which what follows a node comes soon."""
    waiting = [len(p) for p in problem.preds]
    ready = [n for n, w in enumerate(waiting) if not w]
    rng.shuffle(ready)
    found: list[int] = []
    while ready:
        n = ready.pop()
        found.append(n)
        opened = []
        for s in problem.succs[n]:
            waiting[s] -= 1
            if not waiting[s]:
                opened.append(s)
        rng.shuffle(opened)
        ready += opened
    return found


def _renumbered(problem: Problem, nodes: list[int]) -> Problem:
    """The problem with node nodes[i] as node i. Searches break ties by the numbers."""
    return replace(
        problem,
        writes=tuple(problem.writes[n] for n in nodes),
        reads=tuple(problem.reads[n] for n in nodes),
        lends=tuple(problem.lends[n] for n in nodes) if problem.lends else (),
    )
