"""Nodes that read nothing, bound to the one node that reads what they write.

Such a node (one that makes something of constants alone) could run at any time, so that nothing
cuts a problem of order around it, and searches try it everywhere. It may as well run right before
its reader: its results are alive for no longer, and while it runs no more is than while that does.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import replace

from aicc.memory.order_problem import Problem


def bound_sources(problem: Problem) -> tuple[Problem, list[list[int]]]:
    """The problem with such nodes, and those that read them alone (views of what they write), as
    parts of their readers; for each of its nodes those that it stands for, in order.

    The least peak is the same: what a part writes becomes a result of the whole, and what the whole
    does not read of it dies in there, which must be no more than the reader writes. Nodes that lend
    memory, or are lent, are left alone.
    """
    reads, writes = [set(r) for r in problem.reads], [list(w) for w in problem.writes]
    runs: dict[int, list[int]] = {n: [n] for n in range(problem.count)}
    sizes = list(problem.sizes)
    for n in range(problem.count):
        if n not in runs or reads[n]:
            continue
        found = _group(problem, reads, writes, runs, n)
        if found is None:
            continue
        group, user = found
        made = {v for m in group for v in writes[m]}
        dying = made - reads[user]
        if sum(sizes[v] for v in dying) > sum(sizes[v] for v in writes[user]):
            continue
        for v in dying:
            sizes[v] = 0
        reads[user] -= made
        writes[user] += sorted(made)
        runs[user] = [k for m in group for k in runs.pop(m)] + runs[user]
    if len(runs) == problem.count:
        return problem, list(runs.values())
    fewer = replace(
        problem,
        sizes=tuple(sizes),
        writes=tuple(tuple(writes[n]) for n in runs),
        reads=tuple(tuple(v for v in problem.reads[n] if v in reads[n]) for n in runs),
        lends=tuple(problem.lends[n] for n in runs) if problem.lends else (),
    )
    return fewer, list(runs.values())


def _group(
    problem: Problem,
    reads: list[set[int]],
    writes: list[list[int]],
    left: Container[int],
    source: int,
) -> tuple[list[int], int] | None:
    """A node that reads nothing with those that read it alone, in order, and the one node that
    reads all that others do of them; None where there is none. left: nodes that are no part yet."""
    group, made = [source], set(writes[source])
    while True:
        users = {u for v in made for u in problem.readers[v] if u in left}.difference(group)
        inner = sorted(u for u in users if reads[u] <= made)
        touched = [*group, *users]
        lent = problem.lends and any(problem.lends[m] for m in touched)
        if lent or not problem.kept.isdisjoint(made) or not users:
            return None
        if len(users) == 1:
            return group, next(iter(users))
        if not inner:
            return None
        group.append(inner[0])
        made.update(writes[inner[0]])
