import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from packings import GAP, fits, perfect_packing

from aicc.memory import improvement
from aicc.memory.placement import KEYS, Buffer, _greedy, check_placement, live_peak, place
from aicc.memory.placement_search import Effort, Found, GaveUp, Refuted, Searcher
from aicc.memory.sections import RANKINGS, Sections, component, rankings


def arrays(buffers):
    return [np.array(x) for x in zip(*[(b.size, b.first, b.last) for b in buffers])]


def problems(most_steps, most_bytes, most):
    def buffer(first, length, size):
        return Buffer(size, first, min(first + length, most_steps))

    ints = st.integers
    one = st.builds(buffer, ints(0, most_steps), ints(0, 4), ints(1, most_bytes))
    return st.lists(one, min_size=1, max_size=most)


# sections


@given(problems(12, 9, 20))
def test_sections_hold_who_meets_and_the_live_peak(buffers):
    sections = Sections.of(*arrays(buffers))
    live = [{i for i, b in enumerate(buffers) if b.first <= t <= b.last} for t in range(13)]
    members = [set(m.tolist()) for m in sections.members()]
    # Every step's set is within a section's, and no section is within another.
    assert all(any(s <= m for m in members) for s in live)
    assert all(m in live for m in members)
    assert not any(m < o for m in members for o in members)
    for i, b in enumerate(buffers):
        for j, c in enumerate(buffers):
            meet = i != j and b.first <= c.last and c.first <= b.last
            assert sections.meets[i, j] == meet
    assert sections.meetings == sections.meets.sum()
    assert sections.totals.max() == live_peak(buffers)
    for i, m in enumerate(sections.fullest.tolist()):
        assert m == max(sum(buffers[j].size for j in s) for s in live if i in s)


@given(problems(20, 9, 12))
def test_components_do_not_meet(buffers):
    sections = Sections.of(*arrays(buffers))
    parts = sections.components()
    assert sorted(i for part in parts for i in part.tolist()) == list(range(len(buffers)))
    for n, part in enumerate(parts):
        for other in parts[n + 1 :]:
            assert not sections.meets[np.ix_(part, other)].any()
        own = component(sections, part)
        assert np.array_equal(own.meets, sections.meets[np.ix_(part, part)])
        assert own.lows.min() == 0 and len(own.components()) == 1


def test_twins_have_the_same_size_and_sections():
    lives = [(4, 1, 3), (4, 1, 5), (4, 1, 2), (5, 1, 3), (4, 0, 3), (4, 5, 6)]
    sections = Sections.of(*arrays([Buffer(*x) for x in lives]))
    assert sections.twins() == [[2, 4], [], [0, 4], [], [0, 2], []]


@given(problems(12, 9, 20))
def test_rankings_are_permutations(buffers):
    orders = rankings(Sections.of(*arrays(buffers)))
    assert len(orders) == len(RANKINGS)
    assert all(sorted(o.tolist()) == list(range(len(buffers))) for o in orders)


# the search


@settings(max_examples=150, deadline=None)
@given(problems(6, 4, 7), st.integers(-1, 2))
@example(GAP, 0)
@example(GAP, 1)
def test_the_search_agrees_with_trying_all(buffers, spare):
    capacity = live_peak(buffers) + spare
    outcome = Searcher(Sections.of(*arrays(buffers))).search(capacity, Effort(2e6))
    if isinstance(outcome, Found):
        check_placement(buffers, outcome.offsets.tolist(), capacity, 1)
    assert isinstance(outcome, Found if fits(buffers, capacity) else Refuted)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(8, 40), st.sampled_from([8, 64, 1000]), st.booleans())
def test_what_fits_is_never_refuted(seed, count, capacity, all_of_it):
    buffers = perfect_packing(seed, count, 20, capacity)
    if not all_of_it:
        buffers = random.Random(seed).sample(buffers, len(buffers) * 9 // 10)
    outcome = Searcher(Sections.of(*arrays(buffers))).search(capacity, Effort(0.2e6))
    assert not isinstance(outcome, Refuted)
    if isinstance(outcome, Found):
        check_placement(buffers, outcome.offsets.tolist(), capacity, 1)


def test_a_capacity_below_the_live_peak_is_refuted_at_once():
    effort = Effort(1.0)
    searcher = Searcher(Sections.of(*arrays(GAP)))
    assert isinstance(searcher.search(5, effort), Refuted)
    assert effort.left == 1.0


def test_the_search_gives_up_when_its_effort_is_spent():
    buffers = perfect_packing(1, 300, 100, 1024)
    effort = Effort(20_000.0)
    outcome = Searcher(Sections.of(*arrays(buffers))).search(1024, effort)
    assert isinstance(outcome, GaveUp)
    assert -20_000 < effort.left <= 0


# place


@pytest.mark.parametrize("seed", range(6))
def test_packings_without_a_free_byte_are_found(seed):
    buffers = perfect_packing(seed, 80, 200, 1024)
    greedy = place(buffers, 1, time_budget=0)
    placed = place(buffers, 1)
    assert live_peak(buffers) == placed.size == placed.least == 1024
    check_placement(buffers, placed.offsets, 1024, 1)
    assert placed.proven and placed.method == "search"
    assert greedy.size > 1150


def test_a_gap_is_proven():
    placed = place(GAP, 1)
    assert (placed.bound, placed.least, placed.size) == (6, 7, 7)
    assert placed.proven
    # Sizes that share a factor: the least is a multiple of it.
    wide = [replace(b, size=b.size * 100) for b in GAP]
    placed = place(wide, 64)
    assert placed.proven and placed.size == placed.least
    assert placed.size % 64 == 0 and placed.bound < placed.size
    # Beside another part of time that needs no search.
    apart = [replace(b, first=b.first + 20, last=b.last + 20) for b in GAP]
    assert place([*apart, Buffer(6, 15, 15), *GAP], 1).size == 7
    assert place([*GAP, Buffer(9, 30, 30)], 1).size == 9


@settings(max_examples=60, deadline=None)
@given(problems(8, 300, 25), st.sampled_from([1, 16, 64]))
@example(GAP, 1)
def test_the_search_is_never_worse_than_a_greedy_order(buffers, alignment):
    placed = place(buffers, alignment, time_budget=0.1)
    check_placement(buffers, placed.offsets, placed.size, alignment)
    assert live_peak(buffers, alignment) == placed.bound <= placed.least <= placed.size
    sizes, firsts, lasts = arrays(buffers)
    sizes = -(-sizes // alignment) * alignment
    for key in KEYS.values():
        order = sorted(range(len(buffers)), key=lambda i: key(buffers[i]))
        assert placed.size <= (_greedy(order, sizes, firsts, lasts) + sizes).max()


def hard():
    """A problem that no greedy order solves, nor the search in a few steps."""
    return perfect_packing(1, 120, 100, 1024)


def test_the_result_does_not_depend_on_the_time():
    first = place(hard(), 1, time_budget=0.1)
    assert first == place(hard(), 1, time_budget=0.1)


def test_a_larger_budget_is_no_worse_here():
    sizes = [place(hard(), 1, time_budget=t).size for t in (0, 0.05, 1)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < sizes[0]


def test_within_the_capacity_is_enough():
    greedy = place(hard(), 1, time_budget=0)
    assert greedy.size > 1100
    placed = place(hard(), 1, capacity=1100)
    assert placed.size <= 1100
    assert place(hard(), 1, capacity=greedy.size) == greedy


def test_buffers_without_bytes_need_no_place():
    buffers = [replace(b, size=0) for b in GAP] + GAP + [Buffer(0, 50, 60)]
    placed = place(buffers, 1)
    assert placed.size == 7
    check_placement(buffers, placed.offsets, 7, 1)


def test_problems_too_large_for_its_tables_are_left_to_greedy_orders(monkeypatch):
    monkeypatch.setattr(improvement, "MOST_MEETINGS", 10)
    placed = place(GAP, 1)
    assert (placed.size, placed.least, placed.proven) == (7, 6, False)
    assert placed.method != "search"
