"""Nodes that read nothing run right before their readers: no order needs less."""

from __future__ import annotations

import random
from itertools import permutations

import pytest

from aicc.memory.order_problem import Problem, live_peak
from aicc.memory.order_sources import bound_sources
from aicc.memory.ordering import order


def drawn(seed: int) -> Problem:
    """Seven nodes, about half of which read nothing; some read what views and their data are."""
    r = random.Random(seed)
    sizes = [r.choice([0, 1, 2, 3, 5, 8]) for _ in range(7)]
    preds = [r.sample(range(n), min(n, r.choice([0, 0, 1, 2, 3]))) for n in range(7)]
    return Problem.of_nodes(sizes, preds)


def valid(problem: Problem, sequence: tuple[int, ...]) -> bool:
    place = {n: i for i, n in enumerate(sequence)}
    return all(place[p] < place[n] for n, ps in enumerate(problem.preds) for p in ps)


@pytest.mark.parametrize("seed", range(60))
def test_the_least_peak_is_the_same(seed: int) -> None:
    problem = drawn(seed)
    every = (s for s in permutations(range(problem.count)) if valid(problem, s))
    least = min(live_peak(problem, s) for s in every)
    found = order(problem)
    assert valid(problem, found.sequence) and sorted(found.sequence) == list(range(7))
    assert found.bound <= least
    assert found.peak == live_peak(problem, found.sequence) == least


def test_parts_and_views_of_them_go_with_their_reader() -> None:
    # 0 -> 1 (a view of it) -> 3, and 2 -> 3 -> 4: what 0 makes is read by 1 and 3
    problem = Problem.of_nodes([6, 0, 4, 5, 1], [[], [0], [], [0, 1, 2], [3]])
    fewer, runs = bound_sources(problem)
    assert runs == [[2, 0, 1, 3], [4]]
    assert fewer.count == 2 and order(problem).peak == 15


def test_what_dies_inside_stays_apart_where_it_is_more_than_the_reader_makes() -> None:
    # 0 makes 9 bytes for 1, which makes 1 byte for 2: at 2 those 9 are gone
    problem = Problem.of_nodes([9, 1, 2, 30], [[], [0], [1], [2]])
    assert bound_sources(problem)[1] == [[0, 1], [2], [3]]
    assert order(problem).peak == 32


def test_what_nodes_of_their_own_read_goes_with_what_reads_these() -> None:
    # 0 is read by 1 and 2 alone, and what these write by 3
    problem = Problem.of_nodes([3, 1, 1, 4], [[], [0], [0], [1, 2]])
    assert bound_sources(problem)[1] == [[0, 1, 2, 3]]


def test_what_two_nodes_read_or_what_is_kept_stays_apart() -> None:
    two = Problem.of_nodes([3, 2, 1, 1, 2], [[], [], [0, 1], [0, 1], [2, 3]])
    assert bound_sources(two)[0] is two
    kept = Problem((1, 1), ((0,), (1,)), ((), (0,)), frozenset({0, 1}))
    assert bound_sources(kept)[0] is kept
