"""Terms that are left out where an operand is zero: the step, the choice, and the recipe."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from recipe_check import check

from aicc.errors import IRError, ScheduleError
from aicc.symbolic import sym
from aicc.tensor_ir.builder import KernelBuilder
from aicc.tensor_ir.interp import run
from aicc.tensor_ir.parse import parse_kernel
from aicc.tensor_ir.schedule import schedule
from aicc.tensor_ir.schedule_text import parse_steps, print_steps
from aicc.tensor_ir.text import print_kernel
from aicc.tensor_ir.transfer import from_bytes, to_bytes
from aicc.tensor_ir.verify import verify

PRODUCT = """
kernel @k()
  in x: f32[5, 64] sparse
  in u: f32[5, 64]
  const w: f32[64, 8]
  out y: f32[5, 8]
  for i.s in 0..5:
    for j.s in 0..8: y[i.s, j.s] = 0.0
  for i in 0..5:
    for k in 0..64:
      for j in 0..8: y[i, j] += x[i, k]*w[k, j]
  for a in 0..5:
    for b in 0..64:
      for c in 0..8: y[a, c] += u[a, b]*w[b, c]
  for d in 0..5:
    for e in 0..8:
      for f in 0..8: y[d, f] += x[d, f]*w[e, f]
  for g in 0..5:
    for h in 0..8: y[g, h] += x[g, h]*w[h, h]
  for l in 0..5:
    for m in 0..8:
      for n in 0..8: y[l, n] max= x[l, m]*w[m, n]
"""
ROWS = """
kernel @k(n: 1..)
  in x: f32[n, 32] sparse
  const w: f32[32, 4]
  out y: f32[n, 4]
  for i in 0..n:
    for j in 0..4:
      y[i, j] = 0.0
      for k in 0..32: y[i, j] += x[i, k]*w[k, j]
"""


def zeros(shape, density, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape).astype(np.float32)
    return np.where(rng.random(shape) < density, x, np.float32(0))


def values(kernel, arrays, sizes=None):
    y = np.full(arrays["y"], np.nan, np.float32)
    run(kernel, {**{n: a for n, a in arrays.items() if n != "y"}, "y": y}, sizes or {})
    return y


@pytest.mark.parametrize("density", [0, 0.3, 1])
def test_terms_with_zeros_are_left_out(density):
    kernel = parse_kernel(PRODUCT)
    made = schedule(kernel, parse_steps("skip_terms(i, k)"))
    verify(made)
    assert parse_kernel(print_kernel(made)) == made
    assert from_bytes(to_bytes(made)) == made
    arrays = {"x": zeros((5, 64), density), "u": zeros((5, 64), 1), "w": zeros((64, 8), 1)}
    want, got = (values(k, {**arrays, "y": (5, 8)}) for k in (kernel, made))
    np.testing.assert_allclose(got, want, 1e-5, 1e-5)


def test_what_is_no_number_is_no_zero():
    kernel = parse_kernel(ROWS.replace("1..", "1..8"))
    made = schedule(kernel, parse_steps("decompose_reduction(i); reorder(k, j); skip_terms(i, k)"))
    x, w = zeros((4, 32), 0.4), zeros((32, 4), 1)
    x[0, 3], x[1, 5], x[2] = np.nan, np.inf, -0.0
    got = values(made, {"x": x, "w": w, "y": (4, 4)}, {"n": 4})
    assert np.isnan(got[0]).all()
    assert np.isinf(got[1]).all()
    assert (got[2] == 0).all()
    np.testing.assert_allclose(got[3], x[3] @ w, 1e-5, 1e-5)


@pytest.mark.parametrize(
    ("steps", "why"),
    [
        ("skip_terms(i, q)", "there is no loop over q"),
        ("skip_terms(k, j)", "not one element for each j"),
        ("skip_terms(i, j)", "i is no serial loop around j alone"),
        ("parallel(i); skip_terms(i, k)", "i is no serial loop around k alone"),
        ("unroll(k); skip_terms(i, k)", "k is no serial loop of 1 to 64"),
        ("skip_terms(a, b)", "not all in b are products with a sparse operand"),
        ("skip_terms(d, e)", "is not one element for each e"),
        ("skip_terms(g, h)", "adds up to several elements"),
        ("skip_terms(l, m)", "not all in m are products with a sparse operand"),
        ("skip_terms(i, k); split(k, 8)", "the kind of the loop is bits already"),
    ],
)
def test_preconditions_of_skip_terms(steps, why):
    with pytest.raises(ScheduleError, match=re.escape(why)):
        schedule(parse_kernel(PRODUCT), parse_steps(steps))


def test_rows_without_a_bound_are_refused():
    with pytest.raises(ScheduleError, match="has no bound"):
        steps = "decompose_reduction(i); reorder(k, j); skip_terms(i, k)"
        schedule(parse_kernel(ROWS), parse_steps(steps))


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("bits k in 0..16", "bits k in 0..40", "is not over the bits of a word"),
        ("cast.u32(index(k))), 1:u32) !=", "cast.u32(index(i))), 1:u32) !=", "not over the bits"),
        ("y.p[0, j] += x[i, k]*w[k, j]", "x.z[i] = 1:u32", "changes the word"),
        ("in x: f32[4, 16] sparse", "in x: f32[4, 16]", ""),
        ("out y: f32[4, 8]", "out y: f32[4, 8] sparse", "only an operand is sparse"),
    ],
)
def test_bits_have_their_form(old, new, why):
    kernel = parse_kernel(
        PRODUCT[: PRODUCT.index("  for a in")]
        .replace("f32[5, 64]", "f32[4, 16]")
        .replace("0..64", "0..16")
        .replace("f32[5,", "f32[4,")
        .replace("0..5", "0..4")
    )
    text = print_kernel(schedule(kernel, parse_steps("skip_terms(i, k)")))
    assert old in text
    broken = parse_kernel(text.replace(old, new))
    if not why:  # that an operand is sparse is only advice
        verify(broken)
        return
    with pytest.raises(IRError, match=why):
        verify(broken)


@pytest.mark.parametrize(("rows", "density"), [(1, 0.2), (7, 0.9), (200, 0.59), (200, 0.61)])
def test_a_run_chooses(rows, density):
    """One form has wrong results on purpose: which was taken shows."""
    kernel = parse_kernel(ROWS)
    made = schedule(kernel, parse_steps('choose(x, 60, "decompose_reduction(j)", "parallel(i)")'))
    verify(made)
    wrong = print_kernel(made).replace(
        "for i in 0..n:\n      for j.s", "for i in 0..0:\n      for j.s"
    )
    x = np.zeros((rows, 32), np.float32)
    flat = x.reshape(-1)
    flat[np.random.default_rng(0).permutation(flat.size)[: int(density * flat.size)]] = 1
    w = zeros((32, 4), 1)
    looked = x[[n * rows // min(64, rows) for n in range(min(64, rows))]]
    few = (looked != 0).mean() <= 0.6
    got = values(made, {"x": x, "w": w, "y": (rows, 4)}, {"n": rows})
    np.testing.assert_allclose(got, x @ w, 1e-5, 1e-5)
    text = parse_kernel(wrong)
    y = np.zeros((rows, 4), np.float32)
    run(text, {"x": x, "w": w, "y": y}, {"n": rows})
    assert np.allclose(y, x @ w, 1e-4, 1e-4) != few


@pytest.mark.parametrize(
    ("kernel", "steps", "why"),
    [
        (ROWS, 'choose(w, 60, "", "")', "w is no operand of rows of numbers"),
        (
            ROWS.replace(" 32", " 24").replace("[32", "[24").replace("..32", "..24"),
            'choose(x, 60, "", "")',
            "rows of x are no multiple of 16",
        ),
        (ROWS, 'choose(x, 60, "pack(w, \\"1 0\\")", "")', "parameters in different layouts"),
        (ROWS, 'choose(x, 60, "split(q, 2)", "")', "there is no loop over q"),
    ],
)
def test_preconditions_of_choose(kernel, steps, why):
    with pytest.raises(ScheduleError, match=why):
        schedule(parse_kernel(kernel), parse_steps(steps))


def test_schedules_inside_a_schedule_are_text():
    text = 'choose(x, 60, "pack(w, \\"1 0\\"); split(i, 2, peel)", "pack(w, \\"1 0\\")")'
    assert print_steps(parse_steps(text)) == text


def product(m, k, n, sparse=True):
    """max(x @ w + b, 0)"""
    b = KernelBuilder("k")
    x, w, c = b.input("x", "f32", (m, k)), b.constant("w", "f32", (k, n)), b.input("c", "f32", (n,))
    t = b.reduce((m, n), (k,), lambda i, j, p: x[i, p] * w[p, j])
    b.mark_output(b.compute((m, n), lambda i, j: t[i, j] + c[j]))
    kernel = b.build()
    return kernel.with_buffer(replace(kernel.buffer("x"), sparse=sparse))


@pytest.mark.parametrize(
    ("m", "k", "n", "size"),
    [(9, 32, 256, 0), (35, 64, 128, 0), (sym("m", 1), 64, 256, 1), (sym("m", 1), 64, 256, 34)],
)
def test_recipe(m, k, n, size):
    steps, made = check(product(m, k, n), {"m": size} if size else {}, 1e-4)
    assert steps.startswith("choose(x, ")
    assert "skip_terms(" in steps
    verify(made)


@pytest.mark.parametrize(
    "kernel",
    [product(9, 32, 256, False), product(9, 30, 256), product(9, 32, 100), product(7, 32, 256)],
)
def test_other_products_have_one_form(kernel):
    steps, _ = check(kernel, {}, 1e-4)
    assert "choose(" not in steps
