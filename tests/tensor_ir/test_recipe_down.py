"""The recipe for one reduction down columns: a tile has many vectors side by side."""

from __future__ import annotations

import pytest
from recipe_check import TARGET, check

from aicc.symbolic import sym
from aicc.tensor_ir.builder import KernelBuilder
from aicc.tensor_ir.ir import For, call
from aicc.tensor_ir.recipes import scheduled
from aicc.tensor_ir.walk import walk_stmts

LANES = TARGET.lanes("f32")


def down(shape, depth, mean=False, costly=False):
    """The largest elements, or the means, of f32[*shape[:-1], *depth, shape[-1]] down its
    columns."""
    b = KernelBuilder("k")
    x = b.input("x", "f32", (*shape[:-1], *depth, shape[-1]))
    before = len(shape) - 1

    def element(*at):
        value = x[(*at[:before], *at[before + 1 :], at[before])]
        return call("exp", value) if costly else value

    y = b.reduce(shape, depth, element, "add" if mean else "max")
    if mean:
        y = b.compute(shape, lambda *at: y[at] * 0.125)
    b.mark_output(y)
    return b.build()


def widths(made):
    """The columns of the tiles."""
    return [b.shape[-1] for b in made.buffers if b.scope == "register"]


def shared_out(made):
    return [s for s in walk_stmts(made.body) if isinstance(s, For) and s.kind == "parallel"]


@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize("depth", [(2,), (3,), (70,), (5, 7)])
@pytest.mark.parametrize("shape", [(32,), (3, 37), (2, 3, 300), (5, 1000)])
def test_tiles_of_many_vectors(shape, depth, mean):
    _, made = check(down(shape, depth, mean))
    assert min(shape[-1], LANES) < widths(made)[0] <= LANES * TARGET.vector_registers // 2


@pytest.mark.parametrize("depth", [1, 6, 19])
@pytest.mark.parametrize("columns", [48, 256, 272, 333])
def test_rows_and_depth_that_only_a_run_knows(columns, depth):
    kernel = down((sym("n", 1), columns), (sym("t", 1),), mean=True)
    _, made = check(kernel, {"n": 3, "t": depth})
    assert len(shared_out(made)) == len(widths(made))


@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize("columns", [256, 272, 512, 1000])
def test_there_are_tiles_for_two_threads(rows, columns):
    made, _ = scheduled(down((rows, columns), (4096,)), TARGET)
    assert shared_out(made)[0].extent % 2 == 0
    assert max(widths(made)) >= 6 * LANES


def test_little_work_is_one_tile():
    made, _ = scheduled(down((1, 256), (64,)), TARGET)
    assert widths(made) == [256] and not shared_out(made)


def test_short_tiles_take_several_steps_at_once():
    _, made = check(down((4, 2 * LANES), (70,)))
    unrolled = [
        s.extent for s in walk_stmts(made.body) if isinstance(s, For) and "k0" in s.var.name
    ]
    assert unrolled == [8, 8, 6]


def test_costly_elements_have_narrow_tiles():
    _, made = check(down((1, 256), (4,), costly=True))
    assert widths(made) == [4 * LANES]


def test_few_columns_have_results_of_several_rows_in_a_tile():
    _, made = check(down((8, 16), (9,)))
    (acc,) = (b for b in made.buffers if b.scope == "register")
    assert acc.shape == (8, 16)
