"""Values that memory is known to hold are not loaded again, and only where that is sure."""

from __future__ import annotations

import re

import pytest
from native_kernel import all_targets, check

from aicc.codegen.kernel import lower_kernel
from aicc.target import Target
from aicc.tensor_ir.ir import Kernel
from aicc.tensor_ir.parse import parse_kernel


def loads(kernel: Kernel, target: Target) -> int:
    """Loads of vectors and scalars of f32 in the text."""
    return len(re.findall(r"= load (?:<\d+ x float>|float)", lower_kernel(kernel, target)))


@all_targets
def test_accumulators_and_operands_are_loaded_once(target: Target) -> None:
    kernel = parse_kernel(
        """
kernel @k()
  in a: f32[2, 32]
  const b: f32[32, 8]
  out y: f32[2, 8]
  register acc: f32[2, 8]
  for i in 0..2:
    for j in 0..8: acc[i, j] = 0.0
  for k in 0..16:
    unroll u in 0..2:
      unroll r in 0..2:
        vector c in 0..8: acc[r, c] += a[r, k*2 + u]*b[k*2 + u, c]
  for v in 0..2:
    for w in 0..8: y[v, w] = acc[v, w]
"""
    )
    check(kernel, target)
    # Two accumulators, four elements of a, two vectors of b; then the result, by elements.
    assert loads(kernel, target) == 2 + 4 + 2 + 16


@all_targets
def test_a_store_ends_what_it_may_change(target: Target) -> None:
    """Results may share memory with operands; loops run again after their own stores."""
    kernel = parse_kernel(
        """
kernel @k()
  in x: f32[12]
  out y: f32[12]
  stack t: f32[13]
  for i in 0..13: t[i] = 1.0
  for j in 0..12:
    t[j + 1] = t[j] + x[j]
    y[j] = t[j + 1] + x[j] + t[0]
    t[0] = t[0]*0.5
"""
    )
    check(kernel, target)
    # t[j] and x[j]; t[j + 1] from its store; x[j] again only after y[j], which nobody asks for;
    # t[0], which t[j + 1] might be, and again after y[j], which it is not.
    assert loads(kernel, target) == 3


CHANGES = {
    "overlapping_vectors": """
kernel @k()
  in x: f32[8]
  out y: f32[8]
  out z: f32[8]
  stack t: f32[16]
  for h in 0..16: t[h] = 3.0
  vector i in 0..8: t[i + 2] = x[i]
  vector j in 0..8: y[j] = t[j]
  vector k in 0..8: t[k + 4] = x[k]*2.0
  vector l in 0..8: z[l] = t[l + 2]
""",
    "branches_know_nothing_of_each_other": """
kernel @k()
  in x: f32[12]
  out y: f32[12]
  stack t: f32[1]
  t[0] = 5.0
  for i in 0..12:
    if x[i] > 0.0:
      t[0] = t[0] + 1.0
    else:
      t[0] = t[0]*2.0
    y[i] = t[0]
""",
    "a_condition_that_the_body_changes": """
kernel @k()
  in x: f32[12]
  out y: f32[12]
  stack t: f32[1]
  for i in 0..12:
    t[0] = x[i]*x[i]
    while t[0] < 100.0:
      t[0] = t[0]*2.0 + 1.0
    y[i] = t[0]
""",
    "parallel_loops_may_change_anything": """
kernel @k()
  in x: f32[12]
  out y: f32[12]
  temp t: f32[12]
  t[0] = 7.0
  parallel i in 0..12: t[i] = x[i]
  y[0] = t[0]
  for j in 1..12: y[j] = t[j]
""",
}
"""What changes memory behind a value that was known: overlaps, branches, conditions, threads."""


@all_targets
@pytest.mark.parametrize("text", CHANGES.values(), ids=CHANGES)
def test_what_changes_is_loaded_anew(text: str, target: Target) -> None:
    check(parse_kernel(text), target)
