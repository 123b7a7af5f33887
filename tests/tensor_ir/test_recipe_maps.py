"""The recipe for maps: chains over joined axes read their operands in order."""

from __future__ import annotations

import pytest
from recipe_check import check

from aicc.tensor_ir.builder import KernelBuilder
from aicc.tensor_ir.ir import call


@pytest.mark.parametrize("shape", [(6, 26), (1, 7, 5, 13), (3, 4, 5, 6), (2, 1, 5, 2, 3)])
def test_all_axes_of_a_chain_join(shape):
    b = KernelBuilder("k")
    x, w = b.input("x", "f32", shape), b.input("w", "f32", shape)
    t = b.compute(shape, lambda *i: x[i] * 0.5 + w[i])
    b.mark_output(b.compute(shape, lambda *i: call("max", t[i], 0.0)))
    _, made = check(b.build())
    assert "//" not in str(made) and "%" not in str(made)


@pytest.mark.parametrize(("rows", "inner"), [(64, 4), (16, 16), (10, 4), (32, 2)])
@pytest.mark.parametrize("reads", [True, False], ids=["reads", "writes"])
def test_rows_of_blocks_that_are_less_than_a_line_come_together(rows, inner, reads):
    """Rows of a transpose that lie side by side are computed one after the other."""
    b = KernelBuilder("k")
    if reads:
        x = b.input("x", "f32", (32, rows, inner))
        b.mark_output(b.compute((inner, rows, 32), lambda i, j, k: x[k, j, i]))
    else:
        x = b.input("x", "f32", (inner, rows, 32))
        b.mark_output(b.compute((32, rows, inner), lambda i, j, k: x[k, j, i]))
    steps, _ = check(b.build())
    whole = 256 // (4 * inner)
    assert (f"split(i1, {whole}" in steps) == (rows % whole == 0 and inner >= 4), steps
