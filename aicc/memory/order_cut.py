"""Which set of nodes done leaves the fewest bytes alive: a minimum cut.

The bytes alive after a set of nodes that contains what its nodes need are a submodular function of
the set: a value counts where its producer is in and one of its readers is not. So the least of it
between two such sets is the minimum cut of a network

    producer --bytes--> value --unbounded--> each reader --unbounded--> what the reader needs

whose source is the smaller set, whose sink is all that the larger one leaves out; the last kind of
edge keeps the source's side closed. The flow is Dinic's.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import pairwise

from aicc.memory.order_problem import Problem, bits

SOURCE, SINK = 0, 1
UNBOUNDED = 1 << 62

Network = list[dict[int, int]]
"""For each vertex, what may still flow to each other one."""


@dataclass(frozen=True)
class Cut:
    """done: a set of nodes, as a bit mask. looked: a measure of the time that
    it took, in steps of a search."""

    done: int
    looked: int


def least_between(problem: Problem, low: int, high: int) -> Cut:
    """The set of nodes after which the fewest bytes are alive, among those that contain `low`, lie
    in `high` and contain what their nodes need, as these two do."""
    inside = bits(high & ~low)
    at = {n: 2 + i for i, n in enumerate(inside)}
    net: Network = [{} for _ in range(2 + len(inside))]
    values = dict.fromkeys(v for n in inside for v in (*problem.writes[n], *problem.reads[n]))
    for v in values:
        _add_value(problem, net, at, v, high)
    for n in inside:
        for p in problem.preds[n]:
            if p in at:
                _edge(net, at[n], at[p], UNBOUNDED)
    reached, sweeps = _source_side(net)
    done = low | sum(1 << n for n in inside if reached[at[n]] >= 0)
    return Cut(done, len(inside) + sweeps * sum(len(edges) for edges in net) // 2)


def least_during(problem: Problem, node: int) -> tuple[int, int]:
    """The fewest bytes that are alive while `node` runs, in any order: no order's peak is lower.
    And a measure of the time that it took."""
    full = (1 << problem.count) - 1
    cut = least_between(problem, problem.before[node], full & ~problem.after[node] & ~(1 << node))
    made = sum(problem.sizes[v] for v in problem.writes[node])
    lent = problem.loans(node, lambda v: v not in problem.kept)
    lowest = problem.live_after(cut.done) + made - sum(problem.sizes[w] for w in lent)
    return lowest, cut.looked


def _add_value(problem: Problem, net: Network, at: dict[int, int], v: int, high: int) -> None:
    """The edges whose cut means that `v` is alive."""
    size, readers = problem.sizes[v], problem.readers[v]
    tail = at.get(problem.producer[v], SOURCE)
    if v in problem.late and all(r in at or not high >> r & 1 for r in readers):
        # None has run before.
        net.append({})
        tail = len(net) - 1
        for r in readers:
            if r in at:
                _edge(net, at[r], tail, UNBOUNDED)
    if v in problem.kept or any(not high >> r & 1 for r in readers):
        if tail != SOURCE:
            _edge(net, tail, SINK, size)
        return
    heads = [at[r] for r in readers if r in at]
    if len(heads) == 1:
        _edge(net, tail, heads[0], size)
    elif heads:
        net.append({})
        _edge(net, tail, len(net) - 1, size)
        for r in heads:
            _edge(net, len(net) - 1, r, UNBOUNDED)


def _edge(net: Network, u: int, v: int, capacity: int) -> None:
    net[u][v] = net[u].get(v, 0) + capacity
    net[v].setdefault(u, 0)


def _source_side(net: Network) -> tuple[list[int], int]:
    """Sends what can flow; the distance of each vertex from the source in what is left, -1 where it
    is not reached: the side of the sink of a minimum cut. And the number of sweeps."""
    sweeps = 0
    while True:
        sweeps += 1
        distance = [-1] * len(net)
        distance[SOURCE] = 0
        todo = deque([SOURCE])
        while todo:
            u = todo.popleft()
            for v, left in net[u].items():
                if left > 0 and distance[v] < 0:
                    distance[v] = distance[u] + 1
                    todo.append(v)
        if distance[SINK] < 0:
            return distance, sweeps
        _block(net, distance)


def _block(net: Network, distance: list[int]) -> None:
    """Sends flow along shortest paths until each has a full edge."""
    edges = [iter(list(e)) for e in net]
    path = [SOURCE]
    while path:
        u = path[-1]
        if u == SINK:
            flow = min(net[a][b] for a, b in pairwise(path))
            for a, b in pairwise(path):
                net[a][b] -= flow
                net[b][a] += flow
            full = next(i for i, (a, b) in enumerate(pairwise(path)) if not net[a][b])
            del path[full + 1 :]
            continue
        for v in edges[u]:
            if net[u][v] > 0 and distance[v] == distance[u] + 1:
                path.append(v)
                break
        else:
            distance[u] = -1
            path.pop()
