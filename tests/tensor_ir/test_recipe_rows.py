"""Recipes for reductions along rows."""

from __future__ import annotations

import numpy as np
import pytest
from recipe_check import check

from aicc.tensor_ir.builder import KernelBuilder
from aicc.tensor_ir.ir import For, call
from aicc.tensor_ir.walk import walk_stmts


@pytest.mark.parametrize("shape", [(1000,), (3, 40, 7), (1, 64, 5, 1), (5,), (2, 3)])
@pytest.mark.parametrize("op", ["add", "max"])
def test_one_result_of_everything(shape: tuple[int, ...], op: str) -> None:
    """No axis is left to share: axes that lie side by side are reduced as one, in vectors."""
    b = KernelBuilder("k")
    x = b.input("x", "f32", shape)
    whole = b.reduce((1,) * len(shape), shape, lambda *ik: x[ik[len(shape) :]], op=op)
    b.mark_output(b.compute(whole.shape, lambda *i: call("mul", whole[i], 0.5)))
    _, kernel = check(b.build())
    if np.prod(shape) > 32:
        assert any(isinstance(s, For) and s.kind == "vector" for s in walk_stmts(kernel.body))
