"""Sums in parts: the step, what it refuses, and the error of long sums."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recipe_check import check
from schedule_strategies import operators
from test_schedule_random import assert_same, result, sample

from aicc.errors import ScheduleError
from aicc.symbolic import sym
from aicc.tensor_ir.builder import KernelBuilder
from aicc.tensor_ir.interp import run
from aicc.tensor_ir.ir import For
from aicc.tensor_ir.parse import parse_kernel
from aicc.tensor_ir.schedule import schedule
from aicc.tensor_ir.schedule_subtotals import Subtotals
from aicc.tensor_ir.schedule_text import parse_steps
from aicc.tensor_ir.text import print_kernel
from aicc.tensor_ir.verify import verify
from aicc.tensor_ir.walk import walk_stmts

SUM = """
kernel @k()
  in x: f32[100, 100, 4]
  out y: f32[4]
  register t: f32[4]
  for i in 0..4: t[i] = 3.0
  for k in 0..100:
    for l in 0..100:
      for j in 0..4: t[j] += x[k, l, j]
  for o in 0..4: y[o] = t[o]
"""
REFUSED = """
kernel @k()
  in x: f32[8, 20]
  out z: f32[8]
  register t: f32[8]
  register u: f32[8]
  for a in 0..8: t[a] = x[a, 0]
  for b in 0..8: z[b] += t[b]
  parallel c in 0..8: u[0] += x[c, 0]
  for d in 0..8: u[d] += u[0]
  for e in 0..4:
    t[e] += x[e, 0]
    t[e] max= x[e, 1]
"""


def test_subtotals_are_more_exact():
    kernel = parse_kernel(SUM)
    made = schedule(kernel, parse_steps("subtotals(l)"))
    x = np.random.default_rng(0).random((100, 100, 4)).astype(np.float32)
    errors = []
    for k in (kernel, made):
        y = np.zeros(4, np.float32)
        run(k, {"x": x, "y": y}, {})
        errors.append(np.abs(y - (x.astype(np.float64).sum((0, 1)) + 3)).max())
    assert errors[1] < errors[0] / 3


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        ("subtotals(a)", "the loop is not one reduction"),
        ("subtotals(b)", "z is not in registers, nor on the stack"),
        ("subtotals(c)", "the loop is not one reduction"),
        ("subtotals(d)", "a value reads u"),
        ("subtotals(e)", "the loop is not one reduction"),
        ("subtotals(q)", "q"),
    ],
)
def test_preconditions(step, reason):
    with pytest.raises(ScheduleError, match=reason):
        schedule(parse_kernel(REFUSED), parse_steps(step))


def sums(shape, depth):
    """f32[*depth, *shape] added up."""
    b = KernelBuilder("k")
    x = b.input("x", "f32", (*shape[:-1], *depth, shape[-1]))
    rows = len(shape) - 1
    y = b.reduce(shape, depth, lambda *at: x[(*at[:rows], *at[rows + 1 :], at[rows])])
    b.mark_output(y)
    return b.build()


def product(m, n, k):
    b = KernelBuilder("k")
    x, w = b.input("x", "f32", (m, k)), b.constant("w", "f32", (k, n))
    y = b.reduce((m, n), (k,), lambda i, j, p: x[i, p] * w[p, j])
    b.mark_output(y)
    return b.build()


@pytest.mark.parametrize(
    ("kernel", "sizes"),
    [
        (sums((1, 24), (12, 160)), {}),  # few columns
        (sums((2, 200), (300,)), {}),
        (sums((3, 64), (15, 20)), {}),
        (sums((sym("n", 1), 80), (sym("h", 1), sym("w", 1))), {"n": 2, "h": 11, "w": 30}),
        (product(14, 64, 512), {}),
        (product(1, 40, 600), {}),
    ],
)
def test_long_sums_are_in_parts(kernel, sizes):
    steps, made = check(kernel, sizes, 1e-4)
    assert "subtotals(" in steps
    verify(made)


@pytest.mark.parametrize(
    "kernel", [sums((3, 64), (7, 7)), product(14, 64, 256), sums((64,), (67,))]
)
def test_short_ones_and_those_of_no_divisors_are_not(kernel):
    steps, _ = check(kernel)
    assert "subtotals(" not in steps


PANEL = """
kernel @k()
  in x: f32[40, 64]
  out y: f32[64]
  stack t: f32[64]
  for i in 0..64: t[i] = 3.0
  for k in 0..4:
    for j in 0..4:
      for l in 0..10:
        for a in 0..16: t[j*16 + a] += x[k*10 + l, j*16 + a]
  for b in 0..2:
    for c in 0..8: t[b*c] += 1.0
  for o in 0..64: y[o] = t[o]
"""


def test_a_part_of_a_total_in_memory():
    kernel = parse_kernel(PANEL)
    made = schedule(kernel, parse_steps("subtotals(l)"))
    assert made.buffer("t.p").shape == (16,)
    x = np.random.default_rng(0).random((40, 64)).astype(np.float32)
    results = []
    for k in (kernel, made):
        results.append(np.zeros(64, np.float32))
        run(k, {"x": x, "y": results[-1]}, {})
    np.testing.assert_allclose(*results, rtol=1e-5)


@pytest.mark.parametrize(("loop", "shape"), [("j", (64,)), ("k", (64,)), ("b", (8,))])
def test_parts_begin_where_all_iterations_do(loop, shape):
    made = schedule(parse_kernel(PANEL), parse_steps(f"subtotals({loop})"))
    assert made.buffer("t.p").shape == shape
    verify(made)


def test_parts_that_an_outer_loop_stretches_are_refused():
    with pytest.raises(ScheduleError, match="no known shape"):
        schedule(parse_kernel(PANEL), parse_steps("subtotals(c)"))


@settings(max_examples=60)
@given(operators(("pooling", "convolution", "rows")), st.integers(0, 99))
def test_wherever_it_is_allowed_it_keeps_the_meaning(drawn, seed):
    arrays = sample(drawn, seed)
    want = result(drawn.kernel, arrays, drawn.sizes)
    for f in (s for s in walk_stmts(drawn.kernel.body) if isinstance(s, For)):
        try:
            made = Subtotals(f.var.name).apply(drawn.kernel)
        except ScheduleError:
            continue
        verify(made)
        assert parse_kernel(print_kernel(made)) == made
        assert_same(want, result(made, arrays, drawn.sizes), made)
