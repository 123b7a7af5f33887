"""Each precondition of the schedule steps: what breaks it is refused, with the kernel shown."""

from __future__ import annotations

import re

import pytest
from schedule_kernels import BORDERS, GRID, MAP, MAP_N, PRODUCT, SUM, TRIANGLE

from aicc.errors import ScheduleError
from aicc.tensor_ir.parse import parse_kernel
from aicc.tensor_ir.schedule import schedule
from aicc.tensor_ir.schedule_text import parse_steps
from aicc.tensor_ir.verify import verify

PART = """
kernel @k()
  in x: f32[2, 3, 4] pitch=[24, 8, 1]
  out y: f32[2, 3, 4] pitch=[18, 6, 1]
  for i in 0..2:
    for j in 0..3:
      for k in 0..4: y[i, j, k] = x[i, j, k]
"""
GUARDED = """
kernel @k()
  in x: f32[6]
  out y: f32[8]
  for i in 0..8: y[i] = select(index(i) >= 2:i64, x[i - 2], 0.0)
"""
PREFIX = """
kernel @k()
  in x: f32[9]
  out y: f32[9]
  y[0] = 0.0
  for i in 0..8: y[i + 1] = y[i] + x[i]
"""
PAIRS = """
kernel @k(n: 1..)
  in x: f32[8]
  in at: i64[8]
  temp s: f32[1]
  out y: f32[8]
  for a in 0..8: y[a] = 0.0
  for i in 0..8: y[i//2] += x[i]
  for j in 0..8:
    s[0] = x[j]
    y[j] = s[0]*s[0]
  for k in 0..8: y[int(at[k], 0..7)] = x[k]
  for q in 0..8:
    s[0] += x[q]
    y[q] = s[0]
  for p in 2..8: y[p] = 0.0
  for r in 0..8:
    for t in 0..r: y[r] += x[t]
  for u in 0..n:
    for v in 1..4: y[v] += x[v]
"""
RAGGED = """
kernel @k()
  in x: f32[5]
  out y: f32[5]
  for i in 0..5:
    y[i] = 0.0
    for k in 0..i + 1: y[i] += x[i]*x[k]
"""
DATA = """
kernel @k()
  in x: f32[8]
  temp n: i64[2]
  out y: f32[8]
  n[0] = 4:i64
  n[1] = 2:i64
  for i in 0..int(n[0], 0..8):
    n[0] = 3:i64
    y[i] = x[i]
  for a in 0..2:
    for b in 0..int(n[1], 0..8):
      n[1] = 1:i64
  for c in 0..2:
    for d in 0..int(n[1], 0..8):
      n[1] += 0:i64
"""
KINDS = """
kernel @k()
  in x: f32[4, 8]
  stack t: f32[8]
  stack s: f32[1]
  out y: f32[4, 8]
  parallel i in 0..4:
    for j in 0..2:
      vector l in 0..4: y[i, j*4 + l] = x[i, j*4 + l]
  unroll u in 0..4:
    for v in 0..8:
      t[v] = x[u, v]
      y[u, v] = t[v]
  for a in 0..4:
    s[0] += x[a, 0]
    y[a, 0] = s[0]
  for b in 0..4:
    for c in 0..8: t[c] = x[b, c]
    for d in 0..8: y[b, d] = t[d]
"""
SHARED = """
kernel @k()
  in x: f32[4, 8]
  stack t: f32[1]
  out y: f32[4]
  parallel i in 0..4:
    t[0] = 0.0
    for k in 0..8: t[0] += x[i, k]
    y[i] = t[0]
  for q in 0..4:
    y[q] = 0.0
    for r in 0..8: y[q] += x[q, r] + y[0]
"""
STAGES = """
kernel @k(n: 2..)
  in x: f32[n, 8]
  in at: i64[n]
  temp a: f32[n, 8]
  temp b: f32[n, 8]
  temp c: f32[n]
  temp d: f32[n, 8]
  stack e: f32[8]
  temp f: f32[n, 8]
  out y: f32[n, 8]
  out z: f32[n, 8]
  for a0 in 0..n:
    for a1 in 0..8: a[a0, a1] = x[a0, a1]
  for b0 in 0..n:
    for b1 in 0..8: b[b0, b1] = a[b0, b1] + 1.0
  for a2 in 0..n:
    for a3 in 0..8: a[a2, a3] = b[a2, a3] + b[n - 1 - a2, a3]
  for c0 in 0..n: c[c0] = f[c0, 0]
  for f0 in 0..n:
    for f1 in 0..8: f[f0, f1] = x[f0, f1]
  for d0 in 0..n:
    for d1 in 0..8: d[d0, d1] = f[d0, d1]*2.0
  for e0 in 0..8: e[e0] = x[0, e0]
  for y0 in 0..n:
    for y1 in 0..8: y[y0, y1] = d[y0, y1] + d[int(at[y0], 0..1), 0] + e[y1]
  for z0 in 0..n:
    for z1 in 0..8: z[z0, z1] = d[z0, z1]*d[z1 % 3, z1] + f[z0, z1]
  parallel w0 in 0..n:
    vector w1 in 0..8: z[w0, w1] += f[w0, w1]
"""
SOURCE = """
kernel @k()
  in x: f32[8]
  temp t: f32[8]
  stack s: f32[8]
  temp a: f32[8]
  temp b: f32[8]
  out y: f32[8]
  for i in 0..8: t[i] = x[i]
  for j in 0..8: a[j] = t[j]*2.0
  for k in 0..8: s[k] = x[k]
  for l in 0..8: b[l] = s[l]*2.0
  for m in 0..8:
    y[m] = a[m]
    t[m] = 0.0
  parallel p in 0..8: y[p] += b[p]
"""
REGION = """
kernel @k(n: 1.., m: 1..)
  in x: f32[n + m]
  in at: i64[4]
  temp t: f32[n + m]
  out y: f32[8]
  out z: f32[n + m]
  for i in 0..n + m: t[i] = x[i]
  for a in 0..8: y[a] = t[0] + t[n - m + a]
  for b in 0..4:
    for c in 0..2: y[c] = t[int(at[b + c], 0..0)]
  for d in 0..4: y[d] = select(at[d] > 0:i64, t[int(at[d])], 0.0)
  for e in 0..2:
    for f in 0..n: z[f] = t[f]
  for g in 0..2:
    for h in 0..int(at[g], 0..1): z[h] = t[h]
"""

UPDATE = """
kernel @k()
  in x: f32[8]
  temp t: f32[8]
  out y: f32[8]
  for h in 0..8: t[h] = x[h]
  for i in 0..8: t[i] = t[i]*2.0
  for j in 0..8: y[j] = t[j]
"""

# The kernel, steps of which the last is refused, and why.
REFUSED = [
    (MAP, "split(i, 4)", "4 does not always divide 10"),
    (MAP, "split(i, 4, pad)", "the tail is one of exact, guard, peel, even, mask, shift"),
    (MAP, "split(i, 16, shift)", "16 may be more than 10"),
    (MAP, "parallel(i); split(i, 4, shift)", "runs at once"),
    (PRODUCT, "split(k, 2, shift)", "only stores can run twice"),
    (UPDATE, "split(i, 3, shift)", "reads what it writes"),
    (MAP, "split(i, 0, peel)", "the factor is positive"),
    (MAP, "split(j, 2)", "there is no loop over j"),
    (PAIRS, "split(p, 2)", "the loop starts at 0"),
    (KINDS, "split(l, 2)", "the kind of the loop is vector already"),
    (KINDS, "split(u, 2)", "the kind of the loop is unroll already"),
    (KINDS, "split(i, 3, mask)", "lanes of a parallel loop cannot be masked"),
    (DATA, "split(i, 2, peel)", "a bound of i depends on what the loop writes"),
    (PRODUCT, "fuse(i, k)", "k is not perfectly nested in i"),
    (PRODUCT, "fuse(j, k)", "k is not perfectly nested in j"),
    (PAIRS, "fuse(r, t)", "the inner extent is constant"),
    (PAIRS, "fuse(u, v)", "both loops start at 0"),
    (KINDS, "fuse(i, j)", "the kind of i is parallel already"),
    (DATA, "fuse(a, b)", "a bound of a depends on what the loop writes"),
    (MAP, "reorder(j)", "no such loops"),
    (GRID, "reorder(i, i)", "no such loops"),
    (PRODUCT, "reorder(k, j, i)", "not in one perfect nest"),
    (PAIRS, "reorder(t, r)", "the extent of t depends on a loop inside it"),
    (KINDS, "reorder(j, i)", "a parallel loop is outermost"),
    (KINDS, "reorder(l, j)", "a vector loop innermost"),
    (KINDS, "reorder(v, u)", "different iterations of u, v may write the same element at t[v]"),
    (DATA, "reorder(d, c)", "the loops' bounds depend on what the body writes"),
    (MAP_N, "unroll(i)", "the extent n is not a number"),
    (GRID, "parallel(j); split(i, 2, guard); unroll(i.i)", "around a parallel loop"),
    (MAP_N, "vectorize(i)", "the extent n is not a number from 0"),
    (PAIRS, "vectorize(p)", "not a number from 0"),
    (PRODUCT, "vectorize(u)", "the body contains a loop"),
    (PREFIX, "vectorize(i)", "may touch the same element at y[i] and y[i + 1]"),
    (PAIRS, "vectorize(i)", "may write the same element at y[i//2]"),
    (PAIRS, "vectorize(j)", "may write the same element at s[0]"),
    (PAIRS, "vectorize(k)", "may write the same element at y[int(at[k], 0..7)]"),
    (PAIRS, "vectorize(q)", "may touch the same element at s[0]"),
    (GRID, "reorder(j, i); unroll(j); parallel(i)", "a loop around it is not serial"),
    (GRID, "parallel(j); parallel(i)", "or one inside is parallel"),
    (PREFIX, "parallel(i)", "may touch the same element at y[i] and y[i + 1]"),
    (SUM, "parallel(k)", "may write the same element at y[]"),
    (PAIRS, "parallel(j)", "may write the same element at s[0]"),
    (KINDS, "parallel(a)", "s is read before the iteration stores to it"),
    (KINDS, "parallel(b)", "t is used outside of the loop too"),
    (MAP, "decompose_reduction(i)", "the body is not a start value and a reduction"),
    (SHARED, "decompose_reduction(q)", "may touch the same element at y[q] and y[0]"),
    (
        SHARED,
        "decompose_reduction(i)",
        "a buffer of one iteration of a parallel loop joins the halves",
    ),
    (PRODUCT, "inline(r)", "r is not computed by one stage of stores"),
    (STAGES, "inline(a)", "a is not computed by one stage"),
    (PREFIX, "inline(y)", "y is not computed by one stage"),
    (STAGES, "inline(y)", "y is a result of the kernel"),
    (STAGES, "inline(f)", "f is read before it is computed"),
    (SOURCE, "inline(a)", "t, which a reads, changes after it"),
    (STAGES, "compute_at(a, b0)", "a is not computed by one stage"),
    (STAGES, "compute_at(d, f0)", "d is computed in or after the loop"),
    (STAGES, "compute_at(d, d0)", "d is computed in or after the loop"),
    (STAGES, "compute_at(f, y0)", "nothing in the loop reads f"),
    (SOURCE, "compute_at(a, m)", "t, which a reads, changes after it"),
    (STAGES, "compute_at(f, z0, out)", "the scope is one of stack, register, temp"),
    (STAGES, "compute_at(f, w1)", "a vector loop contains no other loop"),
    (STAGES, "compute_at(f, w0, temp)", "iterations of a parallel loop would share the buffer"),
    (SOURCE, "compute_at(b, p)", "s is not seen inside a parallel loop"),
    (STAGES, "compute_at(d, y0)", "loads of d at unrelated indices"),
    (REGION, "compute_at(t, a)", "loads of t at unrelated indices"),
    (REGION, "compute_at(t, b)", "loads of t at unrelated indices"),
    (REGION, "compute_at(t, d)", "int(at[d]) cannot be known at the beginning of the loop"),
    (REGION, "compute_at(t, e, register)", "a register buffer has a constant shape, not n"),
    (REGION, "compute_at(t, g)", "has no bound in the kernel's sizes"),
    (STAGES, "cache_write(a)", "a is not computed by one stage"),
    (PRODUCT, "cache_read(a, i, [0, 0])", "(0, 0) is not a permutation of the axes"),
    (STAGES, "cache_read(e)", "e is a stack buffer already"),
    (STAGES, "cache_read(x, c0)", "nothing reads x there"),
    (STAGES, "cache_read(a, b0)", "a is written where the copy is read, or later"),
    (STAGES, "outline(a, 0)", "a is not computed by one stage"),
    (PRODUCT, "outline(r, 2)", "r is no operation of 3 values"),
    (PRODUCT, "outline(r, 1, [0, 0])", "(0, 0) is not a permutation of the variables"),
    (GUARDED, "outline(y, 1)", "branch 1 of a selection reads memory"),
    (RAGGED, "outline(y, 1)", "the extent of k depends on other loops"),
    (PRODUCT, 'pack(a, "0 1")', "a is not an unpacked constant"),
    (PRODUCT, 'pack(b, "1 0"); pack(b, "1 0")', "b is not an unpacked constant"),
    (PRODUCT, 'pack(b, "0 1/4")', "does not place axis 1 once"),
    (PRODUCT, 'pack(b, "0 2")', "names no axis"),
    (PRODUCT, 'pack(b, "0 1/0 1%0")', "a tile has at least one element"),
    (PRODUCT, "rfactor(u, 2)", "the loop's body is not one reduction"),
    (PAIRS, "rfactor(i, 2)", "the loop does not reduce into one element of y"),
    (SHARED, "rfactor(r, 2)", "the value reads y"),
    (PRODUCT, "fuse_axes(r, 1)", "r has no axes 1 and 2"),
    (PART, "fuse_axes(x, 1)", "axis 1 of x does not go on in the next one"),
    (PART, "fuse_axes(y, 1)", "axis 1 of y does not go on in the next one"),
    (STAGES, "fuse_axes(a, 0)", "a is not computed by one stage"),
    (PRODUCT, 'pack(b, "1 0"); fuse_axes(b, 0)', "b has a layout already"),
    (PRODUCT, "split_axis(r, 1, 4)", "4 does not divide axis 1 of r"),
    (STAGES, "split_axis(a, 1, 2)", "a is not computed by one stage"),
    (PRODUCT, 'pack(b, "1 0"); split_axis(b, 0, 2)', "b has a layout already"),
    (PRODUCT, "pad_axis(y, 0, 3)", "y is not a local buffer"),
    (PRODUCT, "pad_axis(r, 2, 3)", "no axis"),
    (PRODUCT, "pad_axis(r, 0, 3, zero, -1)", "the halo, or what is added, is negative"),
    (PRODUCT, "pad_axis(r, 0, 3, zero, 0, -1)", "the halo, or what is added, is negative"),
    (PRODUCT, "pad_axis(r, 0, 3, wrap)", "not one of ('zero', 'clamp')"),
    (TRIANGLE, "cache_write(y); pad_axis(y.acc, 0, 4)", "extents of the reduction depend on i"),
    (PRODUCT, "permute_axes(y, [1, 0])", "y is not a local buffer computed by one stage"),
    (PRODUCT, "permute_axes(r, [0])", "[0] are not the axes of r"),
    (PRODUCT, "widen(r, 0, 8)", "r is no local array with an axis 0"),
    (PRODUCT, "compute_at(r, u); widen(r.u, 2, 8)", "r.u is no local array with an axis 2"),
    (PRODUCT, "compute_at(r, u); widen(r.u, 1, 5)", "5 is less than 6"),
    (SUM, "rfactor(k, 4, shift)", "the tail is peel or mask"),
    (PAIRS, "partition(p, 2)", "2 is not provably inside 0..8"),
    (MAP, "decide(j)", "there is no loop over j"),
    (MAP, "unswitch(i)", "no condition is the same for all in an iteration of i"),
    (BORDERS, "unswitch(i, true)", "not all in the loop are products with zero where it fails"),
    (MAP, "vectorize(i); unswitch(i)", "a vector loop contains no branch"),
    (SUM, "rfactor(k, 0)", "the loop's body is not one reduction"),
]


@pytest.mark.parametrize("before, steps, why", REFUSED, ids=[r[1] for r in REFUSED])
def test_refusal(before: str, steps: str, why: str) -> None:
    kernel = parse_kernel(before)
    verify(kernel)
    *first, last = parse_steps(steps)
    kernel = schedule(kernel, first)
    with pytest.raises(ScheduleError, match=re.escape(why)) as caught:
        last.apply(kernel)
    assert str(caught.value).startswith(f"{last}: ")
    assert str(kernel) in str(caught.value)
