"""Operations and bytes counted from loops."""

from __future__ import annotations

from aicc.symbolic import evaluate
from aicc.tensor_ir.parse import parse_kernel
from aicc.tensor_ir.work import Work, inlined_terms, work

PRODUCT = """
kernel @k(n: 1..)
  in x: f32[n, 64]
  const w: f32[64, 32]
  const b: f32[32]
  out y: f32[n, 32]
  temp t: f32[n, 32]
  for i in 0..n:
    for j in 0..32:
      t[i, j] = 0.0
      for k in 0..64: t[i, j] += x[i, k]*w[k, j]
  for i1 in 0..n:
    for j1 in 0..32: y[i1, j1] = exp(t[i1, j1] + b[j1])
"""
GATHER = """
kernel @k()
  const table: f64[1000, 8]
  in at: i64[5]
  out y: f64[5, 8]
  for i in 0..5:
    for j in 0..8: y[i, j] = table[int(at[i], 0..999), j]
"""
STEPS = """
kernel @k(n: 1..)
  in x: f32[n, 8]
  const w: f32[8, 8]
  out y: f32[8]
  temp t: f32[8]
  for s in 0..n:
    for j in 0..8:
      t[j] = 0.0
      for k in 0..8: t[j] += y[k]*w[k, j]
    for j1 in 0..8: y[j1] = t[j1] + x[s, j1]
"""


def test_a_product_and_what_follows() -> None:
    w = work(parse_kernel(PRODUCT.strip()))
    for n in (1, 7):
        multiply_adds = n * 32 * 64
        assert evaluate(w.operations, {"n": n}) == 2 * multiply_adds + 2 * n * 32
        assert evaluate(w.instructions, {"n": n}) == multiply_adds + n * 32 * (1 + 14)
        assert evaluate(w.moved, {"n": n}) == 4 * (n * 64 + n * 32)
    assert w.constants == 4 * (64 * 32 + 32)
    assert w.again == 0
    assert w.dtype == "f32"


def test_only_what_is_read_of_a_table_counts() -> None:
    w = work(parse_kernel(GATHER.strip()))
    assert w == Work(0, 0, 8 * 40, 8 * 40 + 8 * 5, 0, "f64")


def test_each_step_of_a_serial_loop_reads_its_weights_anew() -> None:
    w = work(parse_kernel(STEPS.strip()))
    n = 6
    assert evaluate(w.operations, {"n": n}) == n * (2 * 64 + 8)
    assert w.constants == 4 * 64
    again = evaluate(w.again, {"n": n})
    assert again == 4 * ((n - 1) * 64 + (n - 1) * 8)  # the weights, and the state


def test_loops_that_depend_on_loops_count_at_their_longest() -> None:
    text = """
kernel @k()
  in x: f32[9]
  out y: f32[9]
  for i in 0..9:
    for j in 0..i + 1: y[j] += x[j]
"""
    assert work(parse_kernel(text.strip())).operations == 9 * 9


def test_terms_of_what_is_inlined():
    """A map that is read twice is there twice; the result of a reduction is an element."""
    kernel = """
kernel @k()
  in x: f32[8]
  temp a: f32[8]
  temp b: f32[8]
  temp s: f32[]
  out y: f32[8]
  for i in 0..8: a[i] = x[i] + 1.0
  for i1 in 0..8: b[i1] = a[i1]*a[i1]
  s[] = 0.0
  for i2 in 0..8: s[] += b[i2]
  for i3 in 0..8: y[i3] = b[i3] - s[]
"""
    assert inlined_terms(parse_kernel(kernel)) == 1 + 7 + 1
