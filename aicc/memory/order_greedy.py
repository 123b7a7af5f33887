"""Orders that are quickly found: each takes, again and again, the node that looks best."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from aicc.memory.order_problem import Problem


def greedy_orders(problem: Problem) -> Iterator[list[int]]:
    """Orders beside the given one."""
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
            begun = sum(
                problem.sizes[v]
                for v in problem.late.intersection(problem.reads[n])
                if left[v] == len(problem.readers[v])
            )
            return (*score(own[n][0] + begun, own[n][1] + begun - freed, n, ready[n]), n)

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
    need = list(problem.floors)
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
