"""The order in which nodes run, for a low peak of live bytes.

Plain functions over a small data structure; nothing here knows of graphs. A value is alive from the
node that writes it (or from the start, where no node does) to the last node that reads it, or to
the end where it is kept. The peak of an order is the largest sum of live bytes while a node runs,
its operands and results included.

The least peak over all topological orders is NP-hard to find. Here:

1. The problem is cut at every node that all others come before or after: what lies between two such
   nodes is ordered on its own, for any order of the whole is an order of the parts.
2. Each part takes the best of the given order and several greedy ones.
3. With time left, a beam search over the sets of nodes done so far (dynamic programming as in Ahn
   et al., "Ordering Chaos", arXiv 2003.02369) improves the part that makes the peak. Where it has
   not dropped a set, its answer is proven optimal and raises the bound.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Problem:
    """sizes: bytes of each value. writes, reads: for each node, in a valid order, the indices of
    the values it defines and uses. kept: values alive to the end."""

    sizes: tuple[int, ...]
    writes: tuple[tuple[int, ...], ...]
    reads: tuple[tuple[int, ...], ...]
    kept: frozenset[int] = frozenset()

    @staticmethod
    def of_nodes(sizes: Sequence[int], preds: Sequence[Sequence[int]]) -> Problem:
        """Each node writes one value of `sizes[node]` bytes, kept where nothing reads it."""
        n = len(sizes)
        read = {p for ps in preds for p in ps}
        return Problem(
            tuple(sizes),
            tuple((i,) for i in range(n)),
            tuple(tuple(dict.fromkeys(p)) for p in preds),
            frozenset(set(range(n)) - read),
        )

    @property
    def count(self) -> int:
        return len(self.writes)

    @cached_property
    def producer(self) -> tuple[int, ...]:
        """The node that writes each value; -1 where none does."""
        found = [-1] * len(self.sizes)
        for n, values in enumerate(self.writes):
            for v in values:
                found[v] = n
        return tuple(found)

    @cached_property
    def readers(self) -> tuple[tuple[int, ...], ...]:
        found: list[list[int]] = [[] for _ in self.sizes]
        for n, values in enumerate(self.reads):
            for v in dict.fromkeys(values):
                found[v].append(n)
        return tuple(tuple(r) for r in found)

    @cached_property
    def preds(self) -> tuple[tuple[int, ...], ...]:
        """The nodes that must run before each node."""
        return tuple(
            tuple(dict.fromkeys(self.producer[v] for v in values if self.producer[v] >= 0))
            for values in self.reads
        )

    @cached_property
    def succs(self) -> tuple[tuple[int, ...], ...]:
        found: list[list[int]] = [[] for _ in self.writes]
        for n, ps in enumerate(self.preds):
            for p in ps:
                found[p].append(n)
        return tuple(tuple(s) for s in found)


@dataclass(frozen=True)
class Order:
    """sequence: nodes in the order they run. peak: bytes. bound: no order's peak is below it."""

    sequence: tuple[int, ...]
    peak: int
    bound: int

    @property
    def proven(self) -> bool:
        return self.peak == self.bound


def order(problem: Problem, time_budget: float = 0.0) -> Order:
    """The best order found. `time_budget`: seconds that the beam search may take beyond the greedy
    orders; 0 leaves it out."""
    if problem.count == 0:
        return Order((), 0, 0)
    deadline = time.monotonic() + time_budget
    parts = _parts(problem)
    best: list[tuple[int, list[int]]] = []
    for part in parts:
        found = [(live_peak(part.problem, s) + part.base, s) for s in _greedy_orders(part.problem)]
        best.append(min(found, key=lambda f: f[0]))
    floors = [max(_floor(part.problem)) + part.base for part in parts]
    if time_budget > 0:
        _improve(parts, best, floors, deadline)
    sequence = tuple(
        part.nodes[i] for part, (_, inner) in zip(parts, best, strict=True) for i in inner
    )
    return Order(sequence, live_peak(problem, sequence), max(floors))


def live_peak(problem: Problem, sequence: Sequence[int]) -> int:
    """Peak of live bytes when nodes run in `sequence`. Raises ValueError where a node runs before
    one that it needs, twice, or not at all."""
    if sorted(sequence) != list(range(problem.count)):
        raise ValueError("the sequence is no permutation of the nodes")
    sizes = problem.sizes
    left = [len(r) for r in problem.readers]
    live = peak = sum(s for v, s in enumerate(sizes) if problem.producer[v] < 0)
    done = [False] * problem.count
    for n in sequence:
        for p in problem.preds[n]:
            if not done[p]:
                raise ValueError(f"node {n} runs before node {p}, whose result it reads")
        done[n] = True
        live += sum(sizes[v] for v in problem.writes[n])
        peak = max(peak, live)
        for v in dict.fromkeys(problem.reads[n]):
            left[v] -= 1
            if left[v] == 0 and v not in problem.kept:
                live -= sizes[v]
        live -= sum(
            sizes[v] for v in problem.writes[n] if not problem.readers[v] and v not in problem.kept
        )
    return peak


def _floor(problem: Problem) -> list[int]:
    """For each node, its operands and results: alive while it runs in any order."""
    return [
        sum(problem.sizes[v] for v in {*r, *w})
        for r, w in zip(problem.reads, problem.writes, strict=True)
    ]


# --- cutting ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """A run of nodes between two cuts, ordered on its own. base: bytes alive all through it that
    it does not touch."""

    nodes: list[int]
    problem: Problem
    base: int


def _segments(problem: Problem) -> list[list[int]]:
    """Runs of nodes, each ending with a node that every other node comes before or after."""
    n = problem.count
    before = [0] * n
    for i in range(n):
        for p in problem.preds[i]:
            before[i] |= before[p] | (1 << p)
    after = [0] * n
    for i in reversed(range(n)):
        for s in problem.succs[i]:
            after[i] |= after[s] | (1 << s)
    cuts = [i for i in range(n) if (before[i] | after[i]).bit_count() == n - 1]
    segments: list[list[int]] = []
    done = 0
    for c in cuts:
        inside = (before[c] | (1 << c)) & ~done
        segments.append(_bits(inside))
        done |= inside
    rest = ((1 << n) - 1) & ~done
    if rest:
        segments.append(_bits(rest))
    return segments


def _bits(mask: int) -> list[int]:
    return [i for i, b in enumerate(reversed(bin(mask)[2:])) if b == "1"]


def _parts(problem: Problem) -> list[Part]:
    """The segments as problems of their own. Values that live past one are kept in it; values from
    before it have no producer in it."""
    sizes = problem.sizes
    end = [
        problem.count if v in problem.kept else max(r, default=problem.producer[v])
        for v, r in enumerate(problem.readers)
    ]
    carried = {v for v, p in enumerate(problem.producer) if p < 0}
    for v in carried:
        if not problem.readers[v]:
            end[v] = problem.count
    total = sum(sizes[v] for v in carried)
    parts: list[Part] = []
    for nodes in _segments(problem):
        last = nodes[-1]
        touched = dict.fromkeys(v for n in nodes for v in (*problem.reads[n], *problem.writes[n]))
        index = {v: i for i, v in enumerate(touched)}
        sub = Problem(
            tuple(sizes[v] for v in touched),
            tuple(tuple(index[v] for v in problem.writes[n]) for n in nodes),
            tuple(tuple(index[v] for v in problem.reads[n]) for n in nodes),
            frozenset(index[v] for v in touched if end[v] > last),
        )
        inside = sum(sizes[v] for v in touched if v in carried)
        parts.append(Part(nodes, sub, total - inside))
        for v in touched:
            lives = end[v] > last
            total += sizes[v] * (lives - (v in carried))
            (carried.add if lives else carried.discard)(v)
    return parts


# --- greedy orders ------------------------------------------------------------------------------


def _greedy_orders(problem: Problem) -> Iterator[list[int]]:
    yield list(range(problem.count))
    if problem.count < 3:
        return
    yield _forward(problem, lambda during, delta, n, age: (delta, during, -age))
    yield _forward(problem, lambda during, delta, n, age: (max(during, 0), delta, -age))
    yield _forward(problem, lambda during, delta, n, age: (delta, -age, during))
    yield _backward(problem, lambda during, delta, n, age: (delta, during, -age))
    yield _backward(problem, lambda during, delta, n, age: (delta, -age, during))
    yield _depth_first(problem)


Score = Callable[[int, int, int, int], tuple[int, ...]]
"""(bytes added while it runs, bytes added after it, node, step at which it became ready)."""


def _forward(problem: Problem, score: Score) -> list[int]:
    """From the start: of the nodes that may run, the one with the lowest score."""
    waiting = [len(p) for p in problem.preds]
    left = [len(r) for r in problem.readers]
    ready = {n: 0 for n, w in enumerate(waiting) if w == 0}
    own = [
        (
            sum(problem.sizes[v] for v in w),
            sum(problem.sizes[v] for v in w if problem.readers[v] or v in problem.kept),
        )
        for w in problem.writes
    ]
    sequence: list[int] = []
    while ready:

        def key(n: int) -> tuple[int, ...]:
            freed = sum(
                problem.sizes[v] for v in problem.reads[n] if left[v] == 1 and v not in problem.kept
            )
            return (*score(own[n][0], own[n][1] - freed, n, ready[n]), n)

        n = min(ready, key=key)
        del ready[n]
        sequence.append(n)
        for v in dict.fromkeys(problem.reads[n]):
            left[v] -= 1
        for s in problem.succs[n]:
            waiting[s] -= 1
            if waiting[s] == 0:
                ready[s] = len(sequence)
    return sequence


def _backward(problem: Problem, score: Score) -> list[int]:
    """From the end: of the nodes all of whose readers are placed, the one with the lowest score."""
    waiting = [len(s) for s in problem.succs]
    live = set(problem.kept)
    ready = {n: 0 for n, w in enumerate(waiting) if w == 0}
    sequence: list[int] = []
    while ready:

        def key(n: int) -> tuple[int, ...]:
            grown = sum(problem.sizes[v] for v in problem.reads[n] if v not in live)
            ended = sum(problem.sizes[v] for v in problem.writes[n] if v in live)
            return (*score(grown, grown - ended, n, ready[n]), -n)

        n = min(ready, key=key)
        del ready[n]
        sequence.append(n)
        live.difference_update(problem.writes[n])
        live.update(problem.reads[n])
        for p in problem.preds[n]:
            waiting[p] -= 1
            if waiting[p] == 0:
                ready[p] = len(sequence)
    sequence.reverse()
    return sequence


def _depth_first(problem: Problem) -> list[int]:
    """Operands first, the one that needs most memory before the others (Sethi & Ullman)."""
    need = _floor(problem)
    for n in range(problem.count):
        ps = sorted(problem.preds[n], key=lambda p: -need[p])
        held = 0
        for p in ps:
            need[n] = max(need[n], need[p] + held)
            held += sum(problem.sizes[v] for v in problem.writes[p])
    sequence: list[int] = []
    seen = [False] * problem.count
    roots = sorted(
        (n for n in range(problem.count) if not problem.succs[n]), key=lambda n: -need[n]
    )
    stack = [(n, False) for n in reversed(roots)]
    while stack:
        n, expanded = stack.pop()
        if expanded:
            sequence.append(n)
        elif not seen[n]:
            seen[n] = True
            stack.append((n, True))
            # The last pushed comes first; one that is on the stack already is visited once.
            stack.extend((p, False) for p in sorted(problem.preds[n], key=lambda p: need[p]))
    return sequence


# --- beam search --------------------------------------------------------------------------------


def _improve(
    parts: list[Part],
    best: list[tuple[int, list[int]]],
    floors: list[int],
    deadline: float,
) -> None:
    """Searches the part that makes the peak, with a beam that doubles, until nothing is gained."""
    width = [0] * len(parts)
    while time.monotonic() < deadline:
        worst = max(range(len(parts)), key=lambda i: best[i][0])
        peak = best[worst][0]
        if peak <= max(floors):
            return
        width[worst] = max(64, 4 * width[worst])
        part, base = parts[worst].problem, parts[worst].base
        found, complete = _beam(part, peak - base, width[worst], deadline)
        if found is not None:
            best[worst] = (live_peak(part, found) + base, found)
        if complete:
            floors[worst] = best[worst][0]


def _beam(
    problem: Problem, limit: int, width: int, deadline: float
) -> tuple[list[int] | None, bool]:
    """An order whose peak is below `limit`, or None, and whether every set below it was looked at.

    A state is the set of nodes done; what is alive follows from the set, so that for each set only
    the least peak so far counts.
    """
    n = problem.count
    sizes, kept, readers = problem.sizes, problem.kept, problem.readers
    need = [sum(1 << p for p in ps) for ps in problem.preds]
    reader_mask = [sum(1 << r for r in rs) for rs in readers]
    made = [sum(sizes[v] for v in w) for w in problem.writes]
    dies = [sum(sizes[v] for v in w if not readers[v] and v not in kept) for w in problem.writes]
    frees = [[(reader_mask[v], sizes[v]) for v in set(r) if v not in kept] for r in problem.reads]
    start = sum(s for v, s in enumerate(sizes) if problem.producer[v] < 0)
    ready = sum(1 << i for i in range(n) if need[i] == 0)
    # set done -> (peak, live, ready)
    states: dict[int, tuple[int, int, int]] = {0: (start, start, ready)}
    came: list[dict[int, int]] = []
    complete = True
    for _ in range(n):
        if time.monotonic() > deadline:
            return None, False
        following: dict[int, tuple[int, int, int]] = {}
        via: dict[int, int] = {}
        for done, (peak, live, ready) in states.items():
            rest = ready
            while rest:
                bit = rest & -rest
                rest ^= bit
                i = bit.bit_length() - 1
                top = max(peak, live + made[i])
                if top >= limit:
                    continue
                now = done | bit
                known = following.get(now)
                if known is not None and known[0] <= top:
                    continue
                after = live + made[i] - dies[i]
                for mask, size in frees[i]:
                    if mask & ~now == 0:
                        after -= size
                opened = ready ^ bit
                for s in problem.succs[i]:
                    if need[s] & ~now == 0:
                        opened |= 1 << s
                following[now] = (top, after, opened)
                via[now] = i
        if len(following) > width:
            complete = False
            chosen = sorted(following.items(), key=lambda s: (s[1][0], s[1][1]))[:width]
            following = dict(chosen)
        came.append(via)
        states = following
        if not states:
            return None, complete
    (mask,) = states
    sequence = []
    for via in reversed(came):
        i = via[mask]
        sequence.append(i)
        mask ^= 1 << i
    sequence.reverse()
    return sequence, complete
