"""Reductions in parts that threads share: the step, what it refuses, and where recipes take it."""

from __future__ import annotations

from importlib import import_module

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recipe_check import TARGET, check
from schedule_strategies import operators
from test_schedule_random import assert_same, result, sample

from aicc.errors import ScheduleError
from aicc.symbolic import sym
from aicc.tensor_ir.analysis import stages
from aicc.tensor_ir.builder import KernelBuilder
from aicc.tensor_ir.interp import run
from aicc.tensor_ir.ir import For, call
from aicc.tensor_ir.parse import parse_kernel
from aicc.tensor_ir.recipes import scheduled
from aicc.tensor_ir.schedule import schedule
from aicc.tensor_ir.schedule_parts import Parts
from aicc.tensor_ir.schedule_text import parse_steps
from aicc.tensor_ir.text import print_kernel
from aicc.tensor_ir.verify import verify
from aicc.tensor_ir.walk import walk_stmts

SUM = """
kernel @k()
  in x: f32[10, 7]
  out y: f32[1]
  for i in 0..1:
    y[0] = 3.0
    for k in 0..10:
      for l in 0..7: y[0] += x[k, l]
"""
REFUSED = """
kernel @k()
  in x: f32[8, 20]
  out y: f32[8]
  out z: f32[8]
  out v: f32[8]
  for a in 0..8: y[a] = x[a, 0]
  for b in 0..8:
    z[b] = 0.0
    for c in 0..4:
      for d in 0..c + 1: z[b] += x[b, d]
  for e in 0..8:
    v[e] = 0.0
    for f in 0..e + 1: v[e] += x[e, f]
"""


@pytest.mark.parametrize(("size", "parts"), [(1, 10), (2, 5), (3, 4), (10, 1), (11, 1)])
def test_parts(size, parts):
    kernel = parse_kernel(SUM)
    made = schedule(kernel, parse_steps(f"parts(y, {size})"))
    verify(made)
    assert made.buffer("y.p").shape == (1, parts)
    x = np.random.default_rng(0).standard_normal((10, 7)).astype(np.float32)
    y = np.zeros(1, np.float32)
    run(made, {"x": x, "y": y}, {})
    np.testing.assert_allclose(y, 3 + x.sum(), rtol=1e-5)


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        ("parts(y, 2)", "y is not computed by one reduction"),
        ("parts(x, 2)", "x is not computed by one reduction"),
        ("parts(z, 0)", "a part has no 0 elements"),
        ("parts(z, 2)", "extents depend on c"),
        ("parts(v, 2)", "the extent of f is not the same for all results"),
    ],
)
def test_preconditions(step, reason):
    with pytest.raises(ScheduleError, match=reason):
        schedule(parse_kernel(REFUSED), parse_steps(step))


@settings(max_examples=60)
@given(operators(("pooling", "convolution", "rows")), st.integers(1, 9), st.integers(0, 99))
def test_wherever_it_is_allowed_it_keeps_the_meaning(drawn, size, seed):
    arrays = sample(drawn, seed)
    want = result(drawn.kernel, arrays, drawn.sizes)
    for stage in stages(drawn.kernel):
        try:
            made = Parts(stage.buffer, size).apply(drawn.kernel)
        except ScheduleError:
            continue
        verify(made)
        assert parse_kernel(print_kernel(made)) == made
        assert_same(want, result(made, arrays, drawn.sizes), made)


def softmax(*shape):
    """Along the last axis."""
    b = KernelBuilder("k")
    x = b.input("x", "f32", shape)
    (*outer, n) = shape
    top = b.reduce((*outer, 1), (n,), lambda *at: x[(*at[:-2], at[-1])], "max")
    e = b.compute(shape, lambda *at: call("exp", x[at] - top[(*at[:-1], 0)]))
    total = b.reduce((*outer, 1), (n,), lambda *at: e[(*at[:-2], at[-1])])
    b.mark_output(b.compute(shape, lambda *at: e[at] / total[(*at[:-1], 0)]))
    return b.build()


def centred(*shape):
    """Without its mean, over its spread along the last axis."""
    b = KernelBuilder("k")
    x = b.input("x", "f32", shape)
    (*outer, n) = shape
    total = b.reduce((*outer, 1), (n,), lambda *at: x[(*at[:-2], at[-1])])
    low = b.reduce((*outer, 1), (n,), lambda *at: x[(*at[:-2], at[-1])], "min")
    b.mark_output(
        b.compute(shape, lambda *at: (x[at] - total[(*at[:-1], 0)] * 0.01) / low[(*at[:-1], 0)])
    )
    return b.build()


@pytest.fixture
def short(monkeypatch):
    """Rows of a few hundred elements count as long."""
    rows = import_module("aicc.tensor_ir.recipes.rows")
    monkeypatch.setattr(rows, "PART", 64)
    monkeypatch.setattr(rows, "LONG", 256)


@pytest.mark.parametrize(
    ("kernel", "sizes"),
    [
        (softmax(1, 640), {}),
        (softmax(1, 607), {}),
        (centred(3, 1, 300), {}),
        (softmax(1, sym("n", 1) * 8), {"n": 1}),
        (softmax(1, sym("n", 1) * 8), {"n": 45}),
        (centred(sym("n", 1), 300), {"n": 2}),
        (centred(7, 307), {}),
    ],
)
def test_long_rows_are_reduced_in_parts(kernel, sizes, short):
    steps, _ = check(kernel, sizes)
    assert steps.count("parts(") == 2


@pytest.mark.parametrize(
    "kernel", [centred(2, 640), centred(9, 640), softmax(1, 128), softmax(3, 640)]
)
def test_short_rows_and_those_to_share_are_not(kernel, short):
    steps, _ = check(kernel)
    assert "parts(" not in steps


@pytest.mark.parametrize("rows", [1, 3, sym("n", 1)])
def test_threads_share_the_parts_and_the_rest(rows):
    made, _ = scheduled(centred(rows, 1 << 20), TARGET)
    shared = [s for s in walk_stmts(made.body) if isinstance(s, For) and s.kind == "parallel"]
    assert len(shared) == (3 if rows == 1 else 4)


def test_short_maps_are_in_vectors():
    _, made = check(softmax(1, 200))
    assert all(
        s.kind in ("vector", "unroll") or any(isinstance(c, For) for c in s.body)
        for s in walk_stmts(made.body)
        if isinstance(s, For) and s.extent != 1
    )
