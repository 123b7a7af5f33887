"""The recipe for sums down the columns of a matrix that comes from memory."""

from __future__ import annotations

from dataclasses import replace

import pytest
from recipe_check import TARGET, check

from aicc.tensor_ir.builder import KernelBuilder
from aicc.tensor_ir.ir import For, call
from aicc.tensor_ir.recipes import scheduled
from aicc.tensor_ir.walk import walk_stmts

SMALL = replace(TARGET, l2=1 << 15, l3=1 << 16)
"""A machine with whose caches a small matrix is a large one."""


def product(m, n, k, batch=1, transposed=False):
    b = KernelBuilder("k")
    x = b.input("x", "f32", (k, m) if transposed else (m, k))
    w = b.input("w", "f32", (batch, k, n))
    y = b.reduce(
        (batch, m, n),
        (k,),
        lambda h, i, j, p: (x[p, i] if transposed else x[i, p]) * w[h, p, j],
    )
    b.mark_output(b.compute((batch, m, n), lambda *at: call("max", y[at], 0.0)))
    return b.build()


def column_sums(rows, columns, op="add"):
    b = KernelBuilder("k")
    x = b.input("x", "f32", (rows, columns))
    b.mark_output(b.reduce((columns,), (rows,), lambda j, p: x[p, j], op))
    return b.build()


def of_panels(made):
    return [b.shape for b in made.buffers if b.scope == "stack"]


@pytest.mark.parametrize(
    "kernel",
    [
        product(1, 512, 64),
        product(1, 530, 37),
        product(3, 600, 33),
        product(5, 777, 40, transposed=True),
        product(2, 520, 18, batch=3),
        column_sums(70, 640),
        column_sums(37, 1001),
    ],
)
def test_sums_stay_while_blocks_of_rows_are_read(kernel):
    steps, made = check(kernel, None, 1e-4, SMALL)
    assert "subtotals(" in steps and 1 <= len(of_panels(made)) <= 2


@pytest.mark.parametrize("columns", [4096, 4000, 11008, 4099])
def test_two_threads_have_panels_alike(columns):
    made, _ = scheduled(product(1, columns, 4096), TARGET)
    (shared,) = (s for s in walk_stmts(made.body) if isinstance(s, For) and s.kind == "parallel")
    assert shared.extent % 2 == 0
    (_, _, panel), *rest = of_panels(made)
    assert shared.extent * panel + sum(n for _, _, n in rest) == columns
    assert all(n < (shared.extent + 1) * TARGET.lanes("f32") for _, _, n in rest)


@pytest.mark.parametrize(
    "kernel",
    [
        product(1, 512, 15),  # in the caches
        product(1, 128, 400),  # rows side by side
        product(17, 512, 64),  # enough rows for tiles of them
        column_sums(70, 640, "max"),
    ],
)
def test_others_go_by_other_recipes(kernel):
    made, _ = scheduled(kernel, SMALL)
    assert not of_panels(made)
