"""Reductions over windows, axis by axis: the step, what it refuses, and where recipes take it."""

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
from aicc.tensor_ir.analysis import stages
from aicc.tensor_ir.builder import KernelBuilder
from aicc.tensor_ir.interp import run
from aicc.tensor_ir.parse import parse_kernel
from aicc.tensor_ir.schedule import schedule
from aicc.tensor_ir.schedule_separate import Separate
from aicc.tensor_ir.schedule_text import parse_steps
from aicc.tensor_ir.text import print_kernel
from aicc.tensor_ir.verify import verify

REFUSED = """
kernel @k(n: 1..)
  in x: f32[8, 20]
  const w: f32[3, 3]
  out z: f32[8]
  out v: f32[8]
  out u: f32[8]
  for a in 0..8:
    z[a] = 1.0
    for b in 0..2:
      for c in 0..2: z[a] += x[b, a + c]
  for d in 0..8:
    v[d] = 0.0
    for e in 0..3:
      for f in 0..3: v[d] += x[e, d + f]*w[e, f]
  for g in 0..8:
    u[g] = 0.0
    for h in 0..2:
      for i in 0..n: u[g] += x[h, g]
"""


def pooling(shape, window, stride, op="max"):
    """[N, H, W, C], without a border."""
    b = KernelBuilder("k")
    x = b.input("x", "f32", shape)
    batch, height, width, channels = shape
    out = (batch, (height - window) // stride + 1, (width - window) // stride + 1, channels)
    y = b.reduce(
        out, (window, window), lambda n, h, v, c, p, q: x[n, h * stride + p, v * stride + q, c],
        op=op,
    )  # fmt: skip
    b.mark_output(y)
    return b.build()


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_what_windows_share_is_reduced_once(stride):
    kernel = pooling((1, 7, 13, 2), 3, stride)
    out = kernel.params[-1].name
    made = schedule(kernel, parse_steps(f"separate({out}, 2, k1)"))
    assert made.buffers[-1].shape == (1, (7 - 3) // stride + 1, (13 - 3) // stride * stride + 3, 2)
    x = np.random.default_rng(0).standard_normal((1, 7, 13, 2)).astype(np.float32)
    results = []
    for k in (kernel, made):
        y = np.zeros(kernel.params[-1].shape, np.float32)
        run(k, {"x": x, out: y}, {})
        results.append(y)
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("op", ["max", "add"])
@pytest.mark.parametrize("shape", [(1, 9, 18, 16), (2, 5, 11, 21)])
def test_overlapping_windows_are_reduced_axis_by_axis(shape, op):
    steps, made = check(pooling(shape, 3, 1, op))
    assert "separate(" in steps
    assert {b.scope for b in made.buffers if b not in made.params} == {"register"}


@pytest.mark.parametrize(("window", "stride"), [(3, 2), (2, 2), (3, 3)])
def test_windows_that_share_little_are_not(window, stride):
    steps, _ = check(pooling((1, 12, 18, 16), window, stride))
    assert "separate(" not in steps


def test_rows_that_a_run_counts():
    n, h, w = sym("n", lo=1), sym("h", lo=3), sym("w", lo=3)
    steps, _ = check(pooling((n, h, w, 16), 3, 1), {"n": 2, "h": 5, "w": 11})
    assert "separate(" in steps


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        ("separate(x, 0, q)", "x is not computed by one reduction"),
        ("separate(z, 3, c)", "z has no axis 3"),
        ("separate(z, 0, c)", "z does not start from what changes nothing"),
        ("separate(v, 0, g)", "g is no window along axis 0"),
        ("separate(u, 0, i)", "extents depend on a size"),
        ("separate(v, 0, f)", "the value depends on d and f apart"),
    ],
)
def test_preconditions(step, reason):
    with pytest.raises(ScheduleError, match=reason):
        schedule(parse_kernel(REFUSED), parse_steps(step))


@settings(max_examples=60)
@given(operators(("pooling", "pooling", "convolution", "rows")), st.integers(0, 99))
def test_wherever_it_is_allowed_it_keeps_the_meaning(drawn, seed):
    arrays = sample(drawn, seed)
    want = result(drawn.kernel, arrays, drawn.sizes)
    for stage in stages(drawn.kernel):
        for axis in range(len(stage.axes)):
            for k, _ in stage.reduce:
                try:
                    made = Separate(stage.buffer, axis, k.name).apply(drawn.kernel)
                except ScheduleError:
                    continue
                verify(made)
                assert parse_kernel(print_kernel(made)) == made
                assert_same(want, result(made, arrays, drawn.sizes), made)
