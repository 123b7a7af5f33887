"""Recipes for reductions along rows."""

from __future__ import annotations

import numpy as np
import pytest
from recipe_check import TARGET, check

from aicc.symbolic import sym
from aicc.tensor_ir.builder import KernelBuilder
from aicc.tensor_ir.ir import For, call
from aicc.tensor_ir.recipes.common import stride_in
from aicc.tensor_ir.recipes.cost import estimate
from aicc.tensor_ir.walk import loads_of, walk_stmts


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


@pytest.mark.parametrize("sizes", [{}, {"m": 1}, {"m": 37}])
@pytest.mark.parametrize("depth", [16, 64, 72])
def test_one_row_times_columns_that_are_side_by_side(sizes, depth):
    """One query and all keys: each key is read once, in vectors, and nothing is copied."""
    keys = sym("m", 1) if sizes else 33
    b = KernelBuilder("k")
    q, k = b.input("q", "f32", (2, 4, 1, depth)), b.input("k", "f32", (2, 2, keys, depth))
    s = b.reduce(
        (2, 4, 1, keys), (depth,), lambda n, h, i, j, d: q[n, h, i, d] * k[n, h // 2, j, d]
    )
    b.mark_output(b.compute((2, 4, 1, keys), lambda *i: s[i] * 0.25))
    _, made = check(b.build(), sizes)
    assert not [x for x in made.buffers if x.scope == "stack" and x.name.startswith("k")]
    vectors = [s for s in walk_stmts(made.body) if isinstance(s, For) and s.kind == "vector"]
    reads = [(s.var, x) for s in vectors for x in loads_of(s) if x.buffer == "k"]
    assert reads and all(stride_in(made, x, v) == 1 for v, x in reads)


def test_constants_are_packed_for_one_row():
    b = KernelBuilder("k")
    q, w = b.input("q", "f32", (1, 64)), b.constant("w", "f32", (80, 64))
    b.mark_output(b.reduce((1, 80), (64,), lambda i, j, d: q[i, d] * w[j, d]))
    text, _ = check(b.build())
    assert "pack(w" in text


@pytest.mark.parametrize("sizes", [{}, {"n": 5}])
def test_what_a_row_shares_is_computed_once_for_it(sizes):
    n = sym("n", 1) if sizes else 5
    b = KernelBuilder("k")
    x = b.input("x", "f32", (n, 100))
    total = b.reduce((n, 1), (100,), lambda i, _, k: call("exp", x[i, k]))
    logs = b.compute((n, 1), lambda i, j: call("log", total[i, j]))
    b.mark_output(b.compute((n, 100), lambda i, j: x[i, j] - logs[i, 0]))
    _, made = check(b.build(), sizes)
    inside = [s for s in walk_stmts(made.body) if isinstance(s, For) and s.kind == "vector"]
    assert inside and not any("log(" in str(s) for s in inside)
    assert "log(" in str(made)


def test_sums_over_divided_places_cost_more_than_moving_the_elements_first():
    """The mean of a turned and joined matrix: each lane would find its place by a division."""
    rows, columns = 999, 128

    def mean(b, read):
        total = b.reduce((1,), (rows * columns,), lambda _, k: read(k), name="total")
        return b.mark_output(total)

    b = KernelBuilder("fused")
    x = b.input("x", "f32", (rows, columns))
    mean(b, lambda k: x[k % rows, k // rows])
    fused = b.build()

    b = KernelBuilder("turned")
    x = b.input("x", "f32", (rows, columns))
    b.mark_output(b.compute((columns, rows), lambda c, r: x[r, c], name="t"))
    turned = b.build()
    b = KernelBuilder("joined")
    y = b.input("y", "f32", (rows * columns,))
    mean(b, lambda k: y[k])
    assert estimate(fused, TARGET) > estimate(turned, TARGET) + estimate(b.build(), TARGET)


@pytest.mark.parametrize("shape", [(1, 20_000), (1, 100, 1), (1, 300, 70)])
def test_what_is_made_of_the_sum_of_everything_is_shared_out(shape: tuple[int, ...]) -> None:
    b = KernelBuilder("k")
    x = b.input("x", "f32", shape)
    whole = b.reduce((1,) * len(shape), shape, lambda *ik: x[ik[len(shape) :]])
    b.mark_output(b.compute(shape, lambda *i: x[i] - whole[(0,) * len(shape)] * 0.5))
    _, made = check(b.build())
    parallel = [s for s in walk_stmts(made.body) if isinstance(s, For) and s.kind == "parallel"]
    assert len(parallel) == (np.prod(shape) > 1000)
