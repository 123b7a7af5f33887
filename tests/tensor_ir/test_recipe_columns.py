"""The recipe for reductions down columns, one after the other: lanes are columns."""

from __future__ import annotations

import pytest
from recipe_check import TARGET, check

from aicc.symbolic import sym
from aicc.tensor_ir.builder import KernelBuilder
from aicc.tensor_ir.ir import as_expr, call, const, select
from aicc.tensor_ir.recipes import scheduled


def places(shape, rows):
    """The place of the largest element of each column of f32[*shape[:-1], rows, shape[-1]]."""
    b = KernelBuilder("k")
    x = b.input("x", "f32", (*shape[:-1], rows, shape[-1]))

    def own(ik):
        return x[(*ik[:-2], ik[-1], ik[-2])]

    best = b.reduce(shape, (rows,), lambda *ik: own(ik), "max")

    def place(*ik):
        return select(
            call("eq", own(ik), best[ik[:-1]]), as_expr(ik[-1], "f32"), const(99.0, "f32")
        )

    b.mark_output(b.reduce(shape, (rows,), place, "min"))
    return b.build()


@pytest.mark.parametrize("shape", [(5,), (16,), (3, 37), (2, 3, 32)])
def test_lanes_are_columns(shape):
    steps, made = check(places(shape, 9))
    assert "rfactor" not in steps, steps
    assert [b.scope for b in made.buffers if b.scope not in ("in", "out")] == ["register"] * 2


def test_symbolic_sizes():
    made, _ = scheduled(places((sym("m", 1), sym("n", 1)), sym("r", 1)), TARGET)
    assert sum(b.scope == "register" for b in made.buffers) == 2, made
