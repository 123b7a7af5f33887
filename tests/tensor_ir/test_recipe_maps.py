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
