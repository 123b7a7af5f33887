import random

import pytest
from orders import cells, closed_sets, live_after, optimum, random_problem, randwire, tangled

from aicc.memory.order_cut import least_between, least_during
from aicc.memory.order_problem import Problem, live_bytes, live_peak
from aicc.memory.order_search import Search, Walk
from aicc.memory.ordering import order

SEED = 20261123


@pytest.mark.parametrize("block", range(4))
def test_orders_of_small_problems_are_optimal_and_proven(block):
    for seed in range(SEED + 500 * block, SEED + 500 * (block + 1)):
        p = random_problem(random.Random(seed))
        least = optimum(p)
        found = order(p, time_budget=60.0)
        assert found.peak == least, f"seed {seed}"
        assert found.proven, f"seed {seed}"
        assert live_peak(p, found.sequence) == found.peak, f"seed {seed}"
        quick = order(p, time_budget=0)
        assert quick.bound <= least <= quick.peak <= live_peak(p, range(p.count)), f"seed {seed}"


@pytest.mark.parametrize("backward", [False, True])
def test_searches_alone_are_exact_from_any_level(backward):
    for seed in range(SEED, SEED + 1500):
        rng = random.Random(seed)
        p = random_problem(rng)
        least = optimum(p)
        search = Search(Walk(p, backward), rng.randint(0, least))
        found = search.run(10**6)
        assert found is not None
        assert search.level == least == live_peak(p, found), f"seed {seed}"
        assert search.bound in (0, least), f"seed {seed}"
        above = Search(Walk(p, backward), least + rng.randint(1, 9))
        found = above.run(10**6)
        assert found is not None
        assert live_peak(p, found) <= above.level, f"seed {seed}"
        assert above.bound == 0, f"seed {seed}"


def test_bounds_of_a_search_hold_while_it_runs():
    for seed in range(SEED, SEED + 100):
        p = random_problem(random.Random(seed), most=14)
        least = optimum(p)
        for backward in (False, True):
            search, found = Search(Walk(p, backward), 0), None
            while found is None:
                found = search.run(1)
                assert search.bound <= least, f"seed {seed}"


def test_minimum_cuts_are_least_sets():
    for seed in range(SEED, SEED + 300):
        rng = random.Random(seed)
        p = random_problem(rng, most=7)
        sets = closed_sets(p)
        high = rng.choice(sets)
        low = rng.choice([s for s in sets if s & ~high == 0])
        between = [s for s in sets if s & ~high == 0 and low & ~s == 0]
        found = least_between(p, low, high).done
        assert found in between, f"seed {seed}"
        least = min(live_after(p, s) for s in between)
        assert live_after(p, found) == least == p.live_after(found), f"seed {seed}"


def test_minimum_cuts_bound_what_a_node_needs():
    for seed in range(SEED, SEED + 300):
        p = random_problem(random.Random(seed))
        cuts = [least_during(p, n)[0] for n in range(p.count)]
        assert max(cuts) <= optimum(p), f"seed {seed}"
        # Memory that several nodes share may begin with the node: cuts do not see it.
        assert p.late or all(cut >= f for cut, f in zip(cuts, p.floors)), f"seed {seed}"


@pytest.mark.parametrize("seed", range(4))
def test_networks_of_cells_are_proven(seed):
    small = cells(2, seed, branches=3)
    assert order(small, time_budget=60.0).peak == optimum(small)
    p = cells(30, seed)
    found = order(p, time_budget=60.0)
    assert found.proven
    assert found.peak < live_peak(p, range(p.count))


@pytest.mark.parametrize("seed", range(3))
def test_random_wirings_are_proven(seed):
    small = randwire(6, 2, seed, stages=(4,))
    assert order(small, time_budget=60.0).peak == optimum(small)
    p = randwire(24, 4, seed)
    found = order(p, time_budget=60.0)
    assert found.proven
    assert found.peak < live_peak(p, range(p.count))


def test_time_is_kept_and_what_is_known_then_is_true():
    p = randwire(80, 8, 1, stages=(1,))
    quick, slow = order(p, 0), order(p, time_budget=1.0)
    assert not slow.proven
    assert quick.bound < slow.bound < slow.peak < quick.peak <= live_peak(p, range(p.count))
    assert live_peak(p, slow.sequence) == slow.peak


def test_tangled_problems_are_proven():
    p = tangled(60, 30, seed=2)
    found = order(p, time_budget=60.0)
    assert found.proven
    assert found.peak < live_peak(p, range(p.count))


def test_values_without_producer_and_kept_ones_count():
    # Value 0 comes from outside and dies at node 0; value 1 is kept to the end.
    p = Problem((5, 3, 2), writes=((1,), (2,)), reads=((0,), (1,)), kept=frozenset({1}))
    assert live_peak(p, (0, 1)) == 8
    assert order(p).sequence == (0, 1)


def test_results_that_nothing_reads_die_at_once():
    p = Problem((5, 3, 2), writes=((0, 1), (2,)), reads=((), (0,)))
    assert live_bytes(p, (0, 1)) == [8, 7]


def test_shared_memory_begins_with_the_first_node_that_touches_it():
    # Nodes 0 and 1 write parts of value 0, which node 2 reads.
    p = Problem(
        (8, 1, 1),
        writes=((1,), (2,), ()),
        reads=((0,), (0,), (0, 1, 2)),
        late=frozenset({0}),
    )
    assert live_bytes(p, (0, 1, 2)) == [9, 10, 10]
    assert p.live_after(0) == 0
    assert p.live_after(1) == 9
    assert p.ends == (0, 0)


def test_lent_memory_counts_once():
    # Node 1 writes value 1 over value 0, where no other node reads that later.
    p = Problem(
        (8, 8, 8), writes=((0,), (1,), (2,)), reads=((), (0,), (0,)), lends=((), ((0, 1),), ())
    )
    assert live_bytes(p, (0, 1, 2)) == [8, 16, 16]
    assert live_bytes(p, (0, 2, 1)) == [8, 16, 8]
    both = Problem((8, 8, 8), ((0,), (1, 2)), ((), (0,)), lends=((), ((0, 1), (0, 2))))
    assert live_bytes(both, (0, 1)) == [8, 16]
    assert both.floors == (8, 16)
    kept = Problem((8, 8), ((0,), (1,)), ((), (0,)), frozenset({0}), ((), ((0, 1),)))
    assert live_bytes(kept, (0, 1)) == [8, 16]


def test_orders_follow_what_is_lent():
    # Both read value 0 and keep theirs; the one that can take its memory comes last.
    p = Problem(
        (8, 8, 4),
        writes=((0,), (1,), (2,)),
        reads=((), (0,), (0,)),
        kept=frozenset({1, 2}),
        lends=((), ((0, 1),), ()),
    )
    assert order(p).sequence == (0, 2, 1)
    assert order(p).peak == 12


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
    assert order(p).proven
    assert order(p).peak < live_peak(p, breadth) / 3


def test_cuts_keep_what_lives_across_them():
    # 0 -> 1 -> 2 -> 3, and 3 reads 0 again: value 0 is alive while 1 and 2 run.
    p = Problem.of_nodes([10, 1, 1, 1], [[], [0], [1], [0, 2]])
    assert order(p).peak == live_peak(p, (0, 1, 2, 3)) == 12
    assert order(p).bound == 12


def test_good_orders_stay():
    p = Problem.of_nodes([4, 4, 4, 4], [[], [0], [0], [1, 2]])
    assert order(p).sequence == (0, 1, 2, 3)


def test_long_chains_are_quick():
    n = 3000
    p = Problem.of_nodes([i % 7 + 1 for i in range(n)], [[]] + [[i] for i in range(n - 1)])
    o = order(p)
    assert o.proven
    assert o.sequence == tuple(range(n))


def test_orders_that_break_dependences_are_refused():
    p = Problem.of_nodes([1, 1], [[], [0]])
    with pytest.raises(ValueError, match="runs before"):
        live_peak(p, (1, 0))
    with pytest.raises(ValueError, match="no permutation"):
        live_peak(p, (0, 0))
    assert order(Problem((), (), ())).sequence == ()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((1,), ((0,),), ()), "different numbers"),
        (((-1,), ((0,),), ((),)), "less than no bytes"),
        (((1, 1), ((0,), (1,)), ((1,), ())), "before it is written"),
        (((1,), ((0,), (0,)), ((), ())), "another one writes"),
        (((1,), ((0,),), ((),), frozenset(), (), frozenset({0})), "is late"),
        (((1, 1), ((0,), (1,)), ((), ()), frozenset(), ((), ((0, 1),))), "does not read"),
        (((1, 2), ((0,), (1,)), ((), (0,)), frozenset(), ((), ((0, 1),))), "differ in size"),
    ],
)
def test_problems_that_do_not_fit_together_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Problem(*arguments)
