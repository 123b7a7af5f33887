"""Loops cut where conditions change, short ones copied, and what is computed once."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from native_kernel import all_targets, check

from aicc.codegen.kernel import lower_kernel
from aicc.codegen.stretches import stretches
from aicc.symbolic import Size, evaluate, sym, symbols
from aicc.target import Target
from aicc.tensor_ir.parse import parse_kernel

V, N = sym("v", 0), sym("n", 1)
HOLDS = {
    "lt": lambda gap: gap < 0,
    "le": lambda gap: gap <= 0,
    "gt": lambda gap: gap > 0,
    "ge": lambda gap: gap >= 0,
}
gaps = st.builds(
    lambda coef, size, const: coef * V + size + const,
    st.sampled_from([1, -1, 2, -3, 4]),
    st.sampled_from([0, N, -N]),
    st.integers(-6, 6),
)


@given(
    st.integers(0, 4),
    st.one_of(st.just(N), st.just(N + 1), st.integers(0, 12)),
    st.lists(st.tuples(st.sampled_from(sorted(HOLDS)), gaps), min_size=1, max_size=3),
    st.integers(1, 13),
)
def test_parts_are_the_loop_and_decide_conditions(lo, hi: Size, conditions, n: int) -> None:
    (variable,) = symbols(V)
    seen = []
    for part in stretches(variable, lo, hi, conditions):
        for v in range(evaluate(part.lo, {"n": n}), evaluate(part.hi, {"n": n})):
            seen.append(v)
            for (name, gap), holds in part.facts.items():
                assert HOLDS[name](evaluate(gap, {"n": n, "v": v})) == holds
    assert seen == list(range(lo, evaluate(hi, {"n": n})))


def test_two_conditions_make_three_parts() -> None:
    (variable,) = symbols(V)
    found = stretches(variable, 0, N + 2, [("ge", V - 1), ("lt", V - 1 - N)])
    assert [list(part.facts.values()) for part in found] == [
        [False, True],
        [True, True],
        [True, False],
    ]


PADDED = """
kernel @k(n: 1..40)
  in x: f32[n, 16]
  out y: f32[n + 2, 16]
  for i in 0..n + 2:
    vector c in 0..16:
      y[i, c] = select(index(i - 1) >= 0:i64 and index(i - 1) < index(n), x[i - 1, c], 0.5)
"""
ROWS = """
kernel @k()
  in x: f32[9, 100]
  out y: f32[11, 128]
  for r in 0..11:
    for i in 0..8:
      vector c in 0..16:
        y[r, i*16 + c] = select(index(r) >= 1:i64 and index(r - 1) < 9:i64 and index(i*16 + c - 2) >= 0:i64 and index(i*16 + c - 2) < 100:i64, x[r - 1, i*16 + c - 2], 0.0)
"""  # noqa: E501
LONG = ROWS.replace("100", "400").replace("128", "416").replace("0..8", "0..26")
CHANGING = """
kernel @k()
  in x: i64[4]
  out y: i64[12]
  for i in 0..12: y[i] = 0:i64
  for j in 0..10:
    if index(j - 3) >= 0:i64:
      y[j] = y[0] + index(j)
    y[0] += 1:i64
    y[11] = select(index(j) < 7:i64, x[1], y[11])
"""


@all_targets
@pytest.mark.parametrize("text", [PADDED, ROWS, LONG, CHANGING])
def test_cut_loops_give_the_same(text: str, target: Target) -> None:
    kernel = parse_kernel(text)
    for n in (1, 2, 17) if kernel.sizes else (1,):
        check(kernel, target, {"n": n} if kernel.sizes else None)


def test_the_middle_of_a_padded_copy_has_no_condition() -> None:
    text = lower_kernel(parse_kernel(PADDED), Target.from_name("x86-64-v4"))
    assert text.count("phi") == 2  # the row, and its place
    assert not re.search(r"icmp \w+ i64 %loop\d+\.i", text) and "select" not in text


def test_what_loops_fix_is_computed_once() -> None:
    kernel = parse_kernel(
        """
kernel @k(h: 1.., w: 1..)
  in x: f32[h, w, 8]
  out y: f32[h, w, 8]
  for i in 0..h:
    for j in 0..w//2:
      unroll u in 0..2:
        vector c in 0..8: y[i, j*2 + u, c] = x[i, j*2 + u, c]*2.0
"""
    )
    text = lower_kernel(kernel, Target.from_name("x86-64-v3"))
    assert text.count("mul nsw") <= 3  # 8*w, times i; twice the variable inside is added up
    assert text.count("udiv") == 1
