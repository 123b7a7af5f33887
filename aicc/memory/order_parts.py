"""A problem of order, cut where nothing can run beside a node: each part is ordered on its own."""

from __future__ import annotations

from dataclasses import dataclass

from aicc.memory.order_problem import Problem, bits


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
    before, after = problem.before, problem.after
    cuts = [i for i in range(n) if (before[i] | after[i]).bit_count() == n - 1]
    segments: list[list[int]] = []
    done = 0
    for c in cuts:
        inside = (before[c] | (1 << c)) & ~done
        segments.append(bits(inside))
        done |= inside
    rest = ((1 << n) - 1) & ~done
    if rest:
        segments.append(bits(rest))
    return segments


def split(problem: Problem) -> list[Part]:
    """The segments as problems of their own. Values that live past one are kept in it; values from
    before it have no producer in it."""
    sizes = problem.sizes
    end = [
        problem.count if v in problem.kept else max(r, default=problem.producer[v])
        for v, r in enumerate(problem.readers)
    ]
    carried = {v for v, p in enumerate(problem.producer) if p < 0 and v not in problem.late}
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
            tuple(tuple((index[v], index[w]) for v, w in problem.lends[n]) for n in nodes)
            if problem.lends
            else (),
            frozenset(index[v] for v in touched if v in problem.late and v not in carried),
        )
        inside = sum(sizes[v] for v in touched if v in carried)
        parts.append(Part(nodes, sub, total - inside))
        for v in touched:
            lives = end[v] > last
            total += sizes[v] * (lives - (v in carried))
            (carried.add if lives else carried.discard)(v)
    return parts
