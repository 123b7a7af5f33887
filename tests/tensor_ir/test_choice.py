"""Kernels of which the sizes choose between two bodies: taken apart, put together, scheduled."""

from __future__ import annotations

import numpy as np
import pytest
from recipe_check import TARGET, check

from aicc.errors import ScheduleError
from aicc.symbolic import from_atom
from aicc.tensor_ir.choice import choice_of, choose_between, renamed
from aicc.tensor_ir.inplace import inplace_pairs
from aicc.tensor_ir.interp import run
from aicc.tensor_ir.ir import If
from aicc.tensor_ir.parse import parse_kernel
from aicc.tensor_ir.recipes import scheduled
from aicc.tensor_ir.recipes.cost import estimate
from aicc.tensor_ir.schedule import below, schedule
from aicc.tensor_ir.schedule_text import parse_steps
from aicc.tensor_ir.text import print_kernel
from aicc.tensor_ir.verify import verify

FEW = """
kernel @k(n: 1..)
  in x: f32[n, 8]
  const w: f32[8, 20]
  out y: f32[n, 20]
  temp s: f32[n, 20]
  for i in 0..n:
    for j in 0..20:
      s[i, j] = 0.0
      for k in 0..8: s[i, j] += x[i, k]*w[k, j]
  for p in 0..n:
    for q in 0..20: y[p, q] = max(s[p, q], 0.0)
"""
MANY = """
kernel @other(n: 1..)
  in x: f32[n, 8]
  const w: f32[20, 8]
  out y: f32[n, 20]
  temp s: f32[20, n]
  for j in 0..20:
    for i in 0..n:
      s[j, i] = 0.0
      for k in 0..8: s[j, i] += x[i, k]*w[j, k]
  for p in 0..n:
    for q in 0..20: y[p, q] = max(s[q, p], 0.0)
"""
MAP = """
kernel @k(n: 1..)
  in x: f32[n]
  out y: f32[n]
  for i in 0..n: y[i] = x[i]*2.0
"""


def both(few=FEW, many=MANY):
    """The first of two kernels for sizes of less than 4, the second for others."""
    first, second = parse_kernel(few), parse_kernel(many)
    (n,) = first.sizes
    return choose_between(below(from_atom(n), 4), first, second)


def test_names_that_are_not_operands_or_results_stay_apart():
    kernel = both()
    verify(kernel)
    assert [b.name for b in kernel.params] == ["x", "w", "w_2", "y"]
    assert [b.shape for b in kernel.params[1:3]] == [(8, 20), (20, 8)]
    assert {b.name for b in kernel.buffers} - {b.name for b in kernel.params} == {"s", "s_2"}
    choice = choice_of(kernel)
    assert choice is not None
    assert print_kernel(choice.then) == print_kernel(parse_kernel(FEW))
    second = renamed(choice.orelse, {"w_2": "w", "s_2": "s"})
    assert second.body == parse_kernel(MANY).body
    assert choose_between(choice.cond, choice.then, choice.orelse) == kernel
    assert parse_kernel(print_kernel(kernel)) == kernel


@pytest.mark.parametrize("n", [3, 4])
def test_the_sizes_choose(n):
    kernel = both()
    rng = np.random.default_rng(0)
    x = rng.integers(-4, 5, (n, 8)).astype(np.float32)
    first, second = (rng.integers(-4, 5, s).astype(np.float32) for s in ((8, 20), (20, 8)))
    y = np.full((n, 20), np.nan, np.float32)
    run(kernel, {"x": x, "w": first, "w_2": second, "y": y}, {"n": n})
    want = x @ first if n < 4 else x @ second.T
    np.testing.assert_array_equal(y, np.maximum(want, 0))


@pytest.mark.parametrize("n", [1, 3, 4, 37])
def test_each_body_gets_its_schedule(n):
    kernel = both()
    steps, made = check(kernel, {"n": n})
    verify(made)
    assert schedule(kernel, parse_steps(steps)) == made
    (s,) = made.body
    assert isinstance(s, If)
    for side, text in ((s.then, FEW), (s.orelse, MANY)):
        alone = scheduled(parse_kernel(text), TARGET)[0]
        assert len(side) == len(alone.body) and side != parse_kernel(text).body
    assert made.buffer("w").pack != made.buffer("w_2").pack


def test_time_is_that_of_large_sizes():
    assert estimate(both(), TARGET) == estimate(parse_kernel(MANY), TARGET)


def test_memory_is_shared_where_both_bodies_allow_it():
    turned = MAP.replace("x[i]*2.0", "x[n - 1 - i]")
    assert inplace_pairs(both(MAP, MAP)) == {("x", "y")}
    assert inplace_pairs(both(MAP, turned)) == set()
    assert inplace_pairs(both(turned, MAP)) == set()


@pytest.mark.parametrize(
    "text",
    [
        FEW,
        MAP.replace("for i in 0..n: y", "if index(n) < 4:i64:\n    for i in 0..n: y"),
        """
kernel @k(n: 1..)
  in x: f32[n]
  out y: f32[n]
  if x[0] < 1.0:
    for i in 0..n: y[i] = x[i]
  else:
    for j in 0..n: y[j] = 0.0
""",
        """
kernel @k(n: 1..)
  in x: f32[n]
  out y: f32[n]
  const w: f32[1]
  if index(n) < 4:i64:
    for i in 0..n: y[i] = w[0]
  else:
    for j in 0..n: y[j] = w[0]*2.0
""",
    ],
    ids=["one body", "no other body", "data choose", "a constant of both"],
)
def test_what_is_no_choice_by_sizes(text):
    kernel = parse_kernel(text)
    assert choice_of(kernel) is None
    with pytest.raises(ScheduleError, match="no choice between two by sizes"):
        schedule(kernel, parse_steps('sides("", "")'))
