import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aicc.graph_ir.passes.order import Problem, live_peak, order


@st.composite
def problems(draw):
    n = draw(st.integers(1, 7))
    preds = [
        draw(st.lists(st.integers(0, i - 1), max_size=3, unique=True)) if i else []
        for i in range(n)
    ]
    sizes = draw(st.lists(st.integers(0, 9), min_size=n, max_size=n))
    return Problem.of_nodes(sizes, preds)


def exhaustive(p):
    best = None
    for s in itertools.permutations(range(p.count)):
        at = {n: i for i, n in enumerate(s)}
        if all(at[q] < at[n] for n in s for q in p.preds[n]):
            peak = live_peak(p, s)
            best = peak if best is None else min(best, peak)
    return best


@settings(max_examples=80, deadline=None)
@given(problems())
def test_the_search_finds_the_optimum_of_small_problems(p):
    optimum = exhaustive(p)
    quick = order(p)
    assert quick.bound <= optimum <= quick.peak <= live_peak(p, range(p.count))
    long = order(p, time_budget=1.0)
    assert long.peak == optimum
    assert long.proven
    assert live_peak(p, long.sequence) == long.peak


def test_values_without_producer_and_kept_ones_count():
    # Value 0 comes from outside and dies at node 0; value 1 is kept to the end.
    p = Problem((5, 3, 2), writes=((1,), (2,)), reads=((0,), (1,)), kept=frozenset({1}))
    assert live_peak(p, (0, 1)) == 8
    assert order(p).sequence == (0, 1)


def branches(count, seed):
    """Parallel branches that each open a large value and end in a small one, then a sum."""
    rng = random.Random(seed)
    sizes, preds = [8], [[]]
    ends = []
    for _ in range(count):
        for size in (rng.randint(50, 90), rng.randint(1, 5)):
            preds.append([0] if len(ends) * 2 + 1 == len(sizes) else [len(sizes) - 1])
            sizes.append(size)
        ends.append(len(sizes) - 1)
    sizes.append(4)
    preds.append(ends)
    return sizes, preds


def test_branches_run_one_after_the_other():
    sizes, preds = branches(6, seed=1)
    # Given: all first halves, then all second halves.
    n = len(sizes)
    breadth = [0, *range(1, n - 1, 2), *range(2, n - 1, 2), n - 1]
    p = Problem.of_nodes(sizes, preds)
    assert order(p).peak < live_peak(p, breadth) / 3


def test_cuts_keep_what_lives_across_them():
    # 0 -> 1 -> 2 -> 3, and 3 reads 0 again: value 0 is alive while 1 and 2 run.
    p = Problem.of_nodes([10, 1, 1, 1], [[], [0], [1], [0, 2]])
    assert order(p).peak == live_peak(p, (0, 1, 2, 3)) == 12
    assert order(p).bound == 12


def test_long_chains_are_quick():
    n = 3000
    p = Problem.of_nodes([i % 7 + 1 for i in range(n)], [[]] + [[i] for i in range(n - 1)])
    o = order(p, time_budget=5.0)
    assert o.proven
    assert o.sequence == tuple(range(n))


def test_orders_that_break_dependences_are_refused():
    p = Problem.of_nodes([1, 1], [[], [0]])
    with pytest.raises(ValueError, match="runs before"):
        live_peak(p, (1, 0))
    with pytest.raises(ValueError, match="no permutation"):
        live_peak(p, (0, 0))
    assert order(Problem((), (), ())).sequence == ()
