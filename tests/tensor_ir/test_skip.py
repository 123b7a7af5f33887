"""Products with zeros that are left out: the step, what it refuses, and where recipes take it."""

from __future__ import annotations

import numpy as np
import pytest
from recipe_check import check

from aicc.errors import ScheduleError
from aicc.symbolic import sym
from aicc.tensor_ir.builder import KernelBuilder
from aicc.tensor_ir.interp import run
from aicc.tensor_ir.ir import If, as_expr, call, select
from aicc.tensor_ir.parse import parse_kernel
from aicc.tensor_ir.schedule import below, schedule
from aicc.tensor_ir.schedule_text import parse_steps
from aicc.tensor_ir.text import print_kernel
from aicc.tensor_ir.verify import verify
from aicc.tensor_ir.walk import walk_stmts

WINDOW = """
kernel @k()
  in x: f32[2, 9]
  in w: f32[5, 2]
  out y: f32[9]
  temp p: f32[2, 17]
  for c in 0..2:
    for j in 0..17:
      p[c, j] = select(index(j - 4) >= 0:i64 and index(j - 4) < 9:i64, x[c, j - 4], 0.0)
  for o in 0..3:
    for i in 0..3: y[o*3 + i] = 0.0
    for k in 0..5:
      for d in 0..2:
        for e in 0..3: y[o*3 + e] += p[d, o*3 + k*2 + e]*w[k, d]
"""


def dilated(size, dilation, channels=16, filters=20):
    """A window of 3 along one axis of [length, channels], as many results as data."""
    b = KernelBuilder("k")
    x = b.input("x", "f32", (size, channels))
    w = b.constant("w", "f32", (3, channels, filters))

    def padded(i, c):
        before, behind = call("ge", as_expr(i), dilation), below(i, size + dilation)
        return select(call("and", before, behind), x[i - dilation, c], 0.0)

    p = b.compute((size + 2 * dilation, channels), padded)
    y = b.reduce(
        (size, filters), (3, channels), lambda i, f, k, c: p[i + k * dilation, c] * w[k, c, f]
    )
    b.mark_output(y)
    return b.build()


def conditions(kernel):
    return [s.cond for s in walk_stmts(kernel.body) if isinstance(s, If)]


def test_what_meets_only_zeros_is_left_out():
    kernel = parse_kernel(WINDOW)
    made = schedule(kernel, parse_steps("skip_zeros(k, p)"))
    verify(made)
    assert parse_kernel(print_kernel(made)) == made
    rng = np.random.default_rng(0)
    x, w = (rng.integers(-4, 5, s).astype(np.float32) for s in ((2, 9), (5, 2)))
    results = []
    for k in (kernel, made):
        y = np.zeros(9, np.float32)
        run(k, {"x": x, "w": w, "y": y}, {})
        results.append(y)
    np.testing.assert_array_equal(*results)
    w[0] = np.inf  # of the first three results, the first tap meets nothing
    y = np.zeros(9, np.float32)
    run(made, {"x": x, "w": w, "y": y}, {})
    np.testing.assert_array_equal(y[:3], results[0][:3])
    assert not np.isfinite(y[3:]).any()


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("p[d, o*3", "x[d, 0*o", "not all in the loop are products with p"),
        ("*w[k, d]", " + w[k, d]", "not all in the loop are products with p"),
        ("+= p", "max= p", "not all in the loop are products with p"),
        ("x[c, j - 4], 0.0)", "x[c, j - 4], 1.0)", "p is not zero where a condition fails"),
        ("k*2 + e]", "e]", "no condition of p is the loop's own"),
        ("o*3 + k*2 + e]", "k + e + 4]", "no condition of p is the loop's own"),
    ],
)
def test_preconditions(old, new, reason):
    assert old in WINDOW
    with pytest.raises(ScheduleError, match=reason):
        schedule(parse_kernel(WINDOW.replace(old, new)), parse_steps("skip_zeros(k, p)"))


@pytest.mark.parametrize("size", [14, 24, 33])
@pytest.mark.parametrize("dilation", [12, 18])
def test_taps_in_the_padding_are_left_out(size, dilation):
    steps, made = check(dilated(size, dilation))
    assert "skip_zeros(" in steps
    assert conditions(made)


def test_taps_that_every_tile_needs_are_not_asked_about():
    """Tiles of several rows reach beyond a border of one element."""
    steps, _ = check(dilated(24, 1))
    assert "skip_zeros(" not in steps


def test_rows_that_a_run_counts():
    kernel = dilated(sym("n", lo=1), 6)
    for size in (1, 5, 24):
        check(kernel, {"n": size})
