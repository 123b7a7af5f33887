"""What is proven of sizes that are quotients of quotients: tiles of rows that only a run counts."""

from __future__ import annotations

import pytest

from aicc.symbolic import Size, evaluate, loop_var, maximum, minimum, sym, symbols
from aicc.tensor_ir.analysis import _remainders, surely_le

X = sym("x", 1)
HALF = (X + 1) // 2
SIZES = [X, HALF, (HALF + 1) // 2, (HALF + 1) // 2 * 2, (X + 3) // 4 * 6, X * 4 + 2, HALF * 3]


@pytest.mark.parametrize("n", SIZES, ids=str)
def test_rewriting_quotients_changes_no_value(n: Size) -> None:
    for rows in (2, 6, 8):
        for s in (n - n // rows * rows, n - n // rows * rows - n % rows, n % rows * 5 - n // 3):
            for x in range(1, 130):
                assert evaluate(s, {"x": x}) == evaluate(_remainders(s), {"x": x}), s


@pytest.mark.parametrize("n", SIZES[:4], ids=str)
@pytest.mark.parametrize("rows", [2, 8])
def test_tiles_of_rows_and_the_rest_stay_inside(n: Size, rows: int) -> None:
    count = n // rows
    tile = loop_var("o", 0, count)
    (o,) = symbols(tile) - symbols(n)
    assert surely_le(tile * rows + rows, n, {o: (0, count)})
    rest = loop_var("t", 0, n % rows)
    found = symbols(rest) - symbols(n)
    if found:
        (t,) = found
        assert surely_le(count * rows + rest + 1, n, {t: (0, n % rows)})
    few = minimum(count, maximum(0, n - (rows - 1) * ((n + rows - 1) // rows)))
    tile = loop_var("e", 0, few)
    (e,) = symbols(tile) - symbols(n)
    assert surely_le(tile * rows + rows, n, {e: (0, few)})


@pytest.mark.parametrize("n", SIZES[:4], ids=str)
def test_rows_of_a_band_stay_inside(n: Size) -> None:
    band = loop_var("o", 0, (n + 7) // 8)
    (o,) = symbols(band) - symbols(n)
    end = minimum(8, n - band * 8)
    row = loop_var("i", 0, end)
    (i,) = symbols(row) - symbols(n)
    loops = {o: (0, (n + 7) // 8), i: (0, end)}
    assert surely_le(band * 8 + row + 1, n, loops)
    assert not surely_le(band * 8 + row + 2, n, loops)


@pytest.mark.parametrize("n", SIZES[:4], ids=str)
def test_loops_that_run_tell_which_operand_a_maximum_is(n: Size) -> None:
    most = maximum(0, n - 6)
    begin, count = most // 8 * 8, most // 4 - most // 8 * 2
    tile = loop_var("o", 0, count)
    (o,) = symbols(tile) - symbols(n)
    end = begin + tile * 4 + 7
    assert surely_le(end, n, {o: (0, count)})
    assert surely_le(0, end - 7, {o: (0, count)})
    assert not surely_le(end + 4, n, {o: (0, count)})
    assert not surely_le(most + 3, n, {})  # nothing says that anything runs


@pytest.mark.parametrize("away", [-2, 0, 3])
def test_finer_tiles_of_one_extent_reach_no_less_far(away: int) -> None:
    extent = sym("w", 3) + away
    assert surely_le(extent // 8 * 8, extent // 4 * 4, {})
    assert surely_le(extent // 6 * 6, extent // 3 * 3, {})
    assert not surely_le(extent // 4 * 4, extent // 8 * 8, {})
    assert not surely_le(extent // 8 * 8, extent // 3 * 3, {})
    assert not surely_le(extent // 8 * 8, (extent - 1) // 4 * 4, {})


def test_what_does_not_hold_is_not_proven() -> None:
    tile = loop_var("o", 0, HALF // 8 + 1)
    (o,) = symbols(tile) - symbols(X)
    assert not surely_le(tile * 8 + 8, HALF, {o: (0, HALF // 8 + 1)})
    assert not surely_le(HALF // 8 * 8 + 8, HALF, {})


def test_the_last_group_of_a_loop_ends_where_the_loop_does() -> None:
    n, o, i = sym("n", 0), sym("o", 0), sym("i", 0)
    (group,), (within,) = symbols(o), symbols(i)
    loops = {group: (0, (n + 7) // 8), within: (0, minimum(8, n - o * 8))}
    assert surely_le(o * 8 + i + 1, n, loops)
    assert not surely_le(o * 8 + i + 2, n, loops)
