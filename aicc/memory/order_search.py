"""The exact search for the order of least peak memory.

What is alive follows from the set of nodes done, so an order is a path over such sets (Ahn et al.,
"Ordering Chaos", arXiv 2003.02369), and its peak the largest need of a step on the way. The search
goes depth first over all sets that can be reached without a step above a level, each looked at
once. Where none is left and the end is not reached, no order has a peak at that level: it rises to
the least need of a step that was left out, and the search goes on from there. So when the end is
reached, the level is the least peak of all orders, and a bound of it at any time before.

Two rules make the search short; neither loses the optimum:

- A node that may run, fits the level and leaves no more bytes alive than there were runs at once.
  In any order that goes on from here it can come first: the more is done, the less a node allocates
  and the more it frees, so that no later set has more bytes alive with this node than without.
- Where a set is reached after which no more bytes are alive than after the set where the search
  began, and no set between the two leaves fewer, the search begins anew there and forgets the rest.
  For let S be where it began, V the set reached, and T any set on a path from S to the end: live
  bytes are submodular, so live(T | V) <= live(T) + live(V) - live(T & V) <= live(T), and the path
  that first goes to V is as good. Where a set between leaves fewer, the one that leaves the fewest
  (`order_cut`) takes the place of V; the path to V, held to that set, leads there within the level.

Going backward, from the set of all nodes to the empty one, a step allocates what the node reads and
is not alive yet, and frees what it writes. Both rules hold there as well, and one of the directions
is often far shorter than the other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise

from aicc.memory.order_cut import Cut, least_between
from aicc.memory.order_problem import Problem

Masked = list[tuple[int, int]]
"""(set of nodes, bytes)."""

Step = tuple[int, int, int]
"""(bytes alive after it, bytes alive while it runs, node)."""


@dataclass
class Walk:
    """The problem as steps over sets, in one direction. For each node: needs, the set of nodes that
    come before it; opens, those that wait for it; makes, bytes that it allocates in any case;
    allocates, bytes where none of a set is done; frees, bytes where all of a set are done."""

    problem: Problem
    backward: bool
    needs: list[int] = field(default_factory=list)
    opens: tuple[tuple[int, ...], ...] = ()
    makes: list[int] = field(default_factory=list)
    allocates: list[Masked] = field(default_factory=list)
    frees: list[Masked] = field(default_factory=list)

    def __post_init__(self) -> None:
        p, n = self.problem, self.problem.count
        before, self.opens = (p.succs, p.preds) if self.backward else (p.preds, p.succs)
        self.needs = [_mask(b) for b in before]
        self.makes = [0] * n
        self.allocates = [[] for _ in range(n)]
        self.frees = [[] for _ in range(n)]
        for v, size in enumerate(p.sizes):
            if size:
                (self._last_first if self.backward else self._first_last)(v, size)
        self.readers = [_mask(r) for r in p.readers]
        # The steps' effects depend on these nodes alone, and are remembered by them.
        self.touches = [0] * n
        for i in range(n):
            for mask, _ in (*self.allocates[i], *self.frees[i]):
                self.touches[i] |= mask
            if p.lends:
                for v, _ in p.lends[i]:
                    self.touches[i] |= self.readers[v]
            self.touches[i] &= ~(1 << i)
        self.known: list[dict[int, tuple[int, int]]] = [{} for _ in range(n)]

    def _first_last(self, v: int, size: int) -> None:
        p = self.problem
        writer, readers = p.producer[v], p.readers[v]
        if writer >= 0:
            self.makes[writer] += size
        if v in p.late:
            self._allocate(readers, size)
        if v not in p.kept:
            ends = readers or ((writer,) if writer >= 0 else ())
            self._free(ends, size)

    def _last_first(self, v: int, size: int) -> None:
        p = self.problem
        writer, readers = p.producer[v], p.readers[v]
        if writer >= 0:
            self._free((writer,), size)
        if v in p.late:
            self._free(readers, size)
        if v not in p.kept:
            starts = readers or ((writer,) if writer >= 0 else ())
            self._allocate(starts, size)

    def _allocate(self, nodes: tuple[int, ...], size: int) -> None:
        """At the first of the nodes."""
        if len(nodes) == 1:
            self.makes[nodes[0]] += size
        else:
            for n in nodes:
                self.allocates[n].append((_mask(nodes), size))

    def _free(self, nodes: tuple[int, ...], size: int) -> None:
        """At the last of the nodes."""
        for n in nodes:
            self.frees[n].append((_mask(nodes), size))

    @property
    def start(self) -> int:
        """Bytes alive before the first step."""
        return self.problem.ends[self.backward]

    def effect(self, node: int, done: int) -> tuple[int, int]:
        """By how many bytes more are alive while the node runs after the set `done`, and after."""
        key = done & self.touches[node]
        found = self.known[node].get(key)
        if found is None:
            made = self.makes[node] + sum(z for m, z in self.allocates[node] if not m & done)
            now = done | 1 << node
            gone = sum(z for m, z in self.frees[node] if m & now == m)
            found = self.known[node][key] = (made - self._lent(node, done), made - gone)
        return found

    def _lent(self, node: int, done: int) -> int:
        p = self.problem
        if not p.lends:
            return 0
        later = done if self.backward else ~(done | 1 << node)
        lent = p.loans(node, lambda v: v not in p.kept and not self.readers[v] & later)
        return sum(p.sizes[w] for w in lent)

    def least(self, base: int, done: int) -> Cut:
        """The set with the fewest bytes alive among those from `base` to `done`."""
        if not self.backward:
            return least_between(self.problem, base, done)
        full = (1 << self.problem.count) - 1
        cut = least_between(self.problem, full ^ done, full ^ base)
        return Cut(full ^ cut.done, cut.looked)


@dataclass(frozen=True, slots=True)
class State:
    """A set of nodes done, the bytes alive after it, and the nodes that may run next."""

    done: int
    live: int
    ready: int


@dataclass(frozen=True, slots=True)
class Task:
    """A state to look at. before: the settled set it comes from; nodes: what runs between."""

    state: State
    before: int
    nodes: tuple[int, ...]


class Search:
    """A search that can be continued. level: orders with a peak up to it are looked for; where
    there is none, it rises. bound: no order's peak is below it. states, looked: how
    many states and steps were looked at; time goes with the steps."""

    def __init__(self, walk: Walk, level: int, bound: int = 0) -> None:
        self.walk = walk
        self.level = level
        self.bound = bound
        self.full = (1 << walk.problem.count) - 1
        self.states = self.looked = 0
        self.prefix: list[int] = []
        self._begin(State(0, walk.start, _mask(n for n, m in enumerate(walk.needs) if not m)))

    def _begin(self, base: State) -> None:
        """Forgets all that does not go on from `base`, to which `prefix` leads."""
        self.base = base
        self.todo = [Task(base, -1, ())]
        # States with steps above the level, and the least need of such a step.
        self.above: list[tuple[int, State]] = []
        # Set that was looked at -> the settled one before it, and the nodes between.
        self.came: dict[int, tuple[int, tuple[int, ...]]] = {}

    def run(self, states: int) -> tuple[int, ...] | None:
        """Looks at up to `states` sets. Where the end is reached, an order of a peak of `level`,
        which is the least of all where the search began at a level that is a bound."""
        for _ in range(states):
            self.states += 1
            if not self.todo:
                self._rise()
            task = self.todo.pop()
            if task.nodes and task.state.done in self.came:
                continue
            if task.before >= 0 and not self.todo and not self.above:
                # All goes on from here.
                self.prefix += [*self._path(task.before), *task.nodes]
                self._begin(task.state)
                continue
            settled, moves, steps = self._settle(task.state)
            self.looked += len(steps) + len(moves) + 4
            if task.nodes and moves:
                self.came[task.state.done] = (task.before, task.nodes)
            if moves or task.nodes or task.before < 0:
                if settled.done in self.came:
                    continue
                self.came[settled.done] = (task.before, (*task.nodes, *moves))
            if settled.done == self.full:
                path = [*self.prefix, *self._path(self.full)]
                return tuple(reversed(path)) if self.walk.backward else tuple(path)
            if settled.live <= self.base.live and settled.done != self.base.done:
                self._replace(settled)
            else:
                self._branch(settled, steps)
        return None

    def lift(self, level: int) -> None:
        """Goes on at a higher level."""
        self.level = max(self.level, level)

    def _rise(self) -> None:
        """No order has a peak below the least need of a step that was left out."""
        self.bound = max(self.bound, min(need for need, _ in self.above))
        self.level = max(self.level, self.bound)
        self.todo = [Task(s, s.done, ()) for need, s in self.above if need <= self.level]
        self.above = [entry for entry in self.above if entry[0] > self.level]

    def _settle(self, state: State) -> tuple[State, list[int], list[Step]]:
        """Runs what may run at once: the state after that, the nodes, and the steps from there."""
        walk, level = self.walk, self.level
        touches, known = walk.touches, walk.known
        done, live, ready = state.done, state.live, state.ready
        moves: list[int] = []
        steps: list[Step] = []
        rest = ready
        moved = False
        while True:
            while rest:
                bit = rest & -rest
                rest ^= bit
                node = bit.bit_length() - 1
                effect = known[node].get(done & touches[node]) or walk.effect(node, done)
                if effect[1] <= 0 and live + effect[0] <= level:
                    done |= bit
                    live += effect[1]
                    ready ^= bit
                    moves.append(node)
                    for other in walk.opens[node]:
                        if walk.needs[other] & ~done == 0:
                            ready |= 1 << other
                            rest |= 1 << other
                    moved = True
                else:
                    steps.append((live + effect[1], live + effect[0], node))
            if not moved:
                return State(done, live, ready), moves, steps
            steps.clear()
            rest = ready
            moved = False

    def _branch(self, state: State, steps: list[Step]) -> None:
        """The steps from a state, to be looked at; the one that leaves the least alive first."""
        walk, above = self.walk, 0
        for live, during, node in sorted(steps, reverse=True):
            done = state.done | 1 << node
            if done in self.came:
                continue
            if during > self.level:
                above = min(above, during) if above else during
                continue
            ready = state.ready ^ 1 << node
            for other in walk.opens[node]:
                if walk.needs[other] & ~done == 0:
                    ready |= 1 << other
            self.todo.append(Task(State(done, live, ready), state.done, (node,)))
        if above:
            self.above.append((above, state))

    def _path(self, done: int) -> list[int]:
        """The nodes from the base to a settled set."""
        parts: list[tuple[int, ...]] = []
        while done >= 0:
            done, nodes = self.came[done]
            parts.append(nodes)
        return [n for nodes in reversed(parts) for n in nodes]

    def _replace(self, state: State) -> None:
        """Begins anew at `state`, or at the set below it that leaves fewer bytes alive."""
        path = self._path(state.done)
        if not self._chained(path):
            cut = self.walk.least(self.base.done, state.done)
            self.looked += cut.looked
            inside = [n for n in path if cut.done >> n & 1]
            lower = self._after(self.base, inside)
            if lower.live < state.live:
                path, state = inside, lower
        self.prefix += path
        self._begin(state)

    def _chained(self, path: list[int]) -> bool:
        """Whether each node needs the one before: then no sets lie beside the path."""
        needs = self.walk.needs
        return all(needs[b] >> a & 1 for a, b in pairwise(path))

    def _after(self, state: State, nodes: list[int]) -> State:
        """The state after `nodes` are run."""
        walk = self.walk
        done, live, ready = state.done, state.live, state.ready
        for node in nodes:
            live += walk.effect(node, done)[1]
            done |= 1 << node
            ready ^= 1 << node
            for other in walk.opens[node]:
                if walk.needs[other] & ~done == 0:
                    ready |= 1 << other
        return State(done, live, ready)


def _mask(nodes: Iterable[int]) -> int:
    return sum(1 << n for n in nodes)
