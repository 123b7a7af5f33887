"""Problems of order: random ones, networks like published ones, and what is true of them."""

from __future__ import annotations

import random
from collections.abc import Iterator

import networkx as nx

from aicc.memory.order_problem import Problem


def optimum(p: Problem) -> int:
    """The least peak, by looking at every set of nodes done."""
    reached = {0: p.ends[0]}
    for _ in range(p.count):
        following: dict[int, int] = {}
        for done, peak in reached.items():
            for n, during in steps(p, done):
                now = done | 1 << n
                following[now] = min(following.get(now, 1 << 62), max(peak, during))
        reached = following
    (peak,) = reached.values()
    return peak


def steps(p: Problem, done: int) -> Iterator[tuple[int, int]]:
    """The nodes that may run after a set, and the bytes alive while each does."""
    live = live_after(p, done)
    for n in range(p.count):
        if not done >> n & 1 and all(done >> q & 1 for q in p.preds[n]):
            later = ~(done | 1 << n)

            def dies(v: int, later: int = later) -> bool:
                return v not in p.kept and not any(later >> r & 1 for r in p.readers[v])

            lent = sum(p.sizes[w] for w in p.loans(n, dies))
            begun = [
                v for v in p.late & set(p.reads[n]) if not any(done >> r & 1 for r in p.readers[v])
            ]
            made = sum(p.sizes[v] for v in (*p.writes[n], *begun))
            yield n, live + made - lent


def live_after(p: Problem, done: int) -> int:
    """Bytes alive after a set of nodes, from the definition."""
    live = 0
    for v, size in enumerate(p.sizes):
        if v in p.late:
            written = any(done >> r & 1 for r in p.readers[v])
        else:
            written = p.producer[v] < 0 or done >> p.producer[v] & 1
        unread = any(not done >> r & 1 for r in p.readers[v])
        outside = p.producer[v] < 0 and not p.readers[v]
        live += size * bool(written and (unread or outside or v in p.kept))
    return live


def closed_sets(p: Problem) -> list[int]:
    """All sets of nodes that contain what their nodes need."""
    return [
        done
        for done in range(1 << p.count)
        if all(done >> q & 1 for n in range(p.count) if done >> n & 1 for q in p.preds[n])
    ]


def random_problem(rng: random.Random, most: int = 9) -> Problem:
    """Up to `most` nodes with several results, values of no bytes, values from outside, kept and
    unread ones, memory that nodes share, and in half of the problems operands that are lent."""
    lending, single = rng.random() < 0.5, rng.random() < 0.5
    outside = rng.randint(0, 3)
    sizes = [rng.choice([0, 1, 2, 5, 9]) for _ in range(outside)]
    writes, reads, lends = [], [], []
    for _ in range(rng.randint(1, most)):
        near = range(max(0, len(sizes) - rng.randint(1, 8)), len(sizes))
        used = rng.sample(near, min(len(near), rng.choice([0, 1, 1, 2, 2, 3])))
        made = []
        for _ in range(1 if single else rng.choice([1, 1, 1, 2, 3])):
            same = lending and used and rng.random() < 0.6
            sizes.append(sizes[rng.choice(used)] if same else rng.choice([0, 1, 2, 5, 9, 14, 20]))
            made.append(len(sizes) - 1)
        pairs = [(v, w) for w in made for v in used if sizes[v] == sizes[w] and rng.random() < 0.7]
        writes.append(tuple(made))
        reads.append(tuple(used))
        lends.append(tuple(pairs))
    kept = frozenset(v for v in range(len(sizes)) if rng.random() < 0.12)
    read = {v for used in reads for v in used}
    late = frozenset(v for v in range(outside) if v in read and rng.random() < 0.6)
    if not lending:
        lends = []
    return Problem(tuple(sizes), tuple(writes), tuple(reads), kept, tuple(lends), late)


def tangled(n: int, reach: int, seed: int) -> Problem:
    """`n` nodes that read one to three of the `reach` before."""
    rng = random.Random(seed)
    preds: list[set[int]] = [set()]
    for i in range(1, n):
        preds.append({rng.randrange(max(0, i - reach), i) for _ in range(rng.choice([1, 2, 2, 3]))})
    return Problem.of_nodes([rng.randint(1, 100) for _ in range(n)], preds)


class Network:
    """Nodes that write one value each."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.preds: list[list[int]] = []

    def add(self, size: int, *preds: int) -> int:
        self.sizes.append(size)
        self.preds.append(list(preds))
        return len(self.sizes) - 1

    def total(self, size: int, parts: list[int]) -> int:
        """The sum of several values, two at a time."""
        while len(parts) > 1:
            parts = [self.add(size, *parts[:2]), *parts[2:]]
        return parts[0]

    def problem(self) -> Problem:
        return Problem.of_nodes(self.sizes, self.preds)


def randwire(nodes: int, degree: int, seed: int, stages: tuple[int, ...] = (8, 4, 2)) -> Problem:
    """Watts-Strogatz graphs in sequence (Xie et al., arXiv 1904.01569), values of the given sizes;
    a node sums what it reads, and is an activation and a separable convolution of that."""
    net = Network()
    last = net.add(stages[0])
    for stage, size in enumerate(stages):
        graph = nx.connected_watts_strogatz_graph(nodes, degree, 0.75, seed=seed + stage)
        made: dict[int, int] = {}
        for v in range(nodes):
            read = [made[u] for u in sorted(graph[v]) if u < v] or [last]
            made[v] = net.total(size, read)
            for _ in range(3):
                made[v] = net.add(size, made[v])
        ends = [made[v] for v in range(nodes) if all(u < v for u in graph[v])]
        last = net.total(size, ends)
    net.add(1, last)
    return net.problem()


def cells(count: int, seed: int, branches: int = 4, size: int = 6) -> Problem:
    """Cells that read the two before them (as in Liu et al., arXiv 1806.09055): each branch sums
    two operations on what came before in the cell; the branches are joined at the end."""
    rng = random.Random(seed)
    net = Network()
    before = last = net.add(branches * size)
    for _ in range(count):
        states = [net.add(size, net.add(branches * size, x)) for x in (before, last)]
        for _ in range(branches):
            read = [rng.choice(states) for _ in range(2)]
            kept = [net.add(size, net.add(size, x)) if rng.random() < 0.6 else x for x in read]
            states.append(net.add(size, *dict.fromkeys(kept)))
        before, last = last, net.add(branches * size, *states[2:])
    return net.problem()
