"""Each schedule step on a small kernel: the text before and after, and what both compute."""

from __future__ import annotations

import numpy as np
import pytest
from schedule_kernels import (
    BORDERS,
    GAPS,
    GRID,
    LANES,
    MAP,
    MAP_N,
    PRODUCT,
    ROWS,
    STARTED,
    SUM,
    TRIANGLE,
    TWO,
    UNEVEN,
    WINDOW,
)

from aicc.dtypes import to_numpy
from aicc.symbolic import evaluate, maximum, sym
from aicc.tensor_ir.interp import run
from aicc.tensor_ir.ir import Kernel
from aicc.tensor_ir.packing import pack_array
from aicc.tensor_ir.parse import parse_kernel
from aicc.tensor_ir.schedule import Split, schedule
from aicc.tensor_ir.schedule_partition import Decide, Partition
from aicc.tensor_ir.schedule_text import parse_steps, print_steps
from aicc.tensor_ir.verify import verify

# Name, kernel, steps, and the statements and local buffers that they make.
CASES = [
    (
        "widen",
        PRODUCT,
        "compute_at(r, u); widen(r.u, 1, 8)",
        """
  const b: f32[5, 6]
  stack r.u: f32[1, 8]
  for u in 0..4:
    for r.u.1 in 0..6:
      r.u[0, r.u.1] = 0.0
      for r.u.k0 in 0..5: r.u[0, r.u.1] += a[u, r.u.k0]*b[r.u.k0, r.u.1]
    for v in 0..6: y[u, v] = max(r.u[0, v], 0.0)
""",
    ),
    (
        "split_short",
        MAP_N,
        "split(i, 4, short)",
        """
  for i.o in 0..(n + 3)//4:
    for i.i in 0..min(4, -i.o*4 + n): y[i.o*4 + i.i] = x[i.o*4 + i.i]*2.0
""",
    ),
    (
        "split_short_reordered",
        GRID,
        "split(i, 4, short); reorder(i.o, j, i.i)",
        """
  for i.o in 0..(n + 3)//4:
    for j in 0..6:
      for i.i in 0..min(4, -i.o*4 + n):
        y[j, i.o*4 + i.i] = x[i.o*4 + i.i, j] + cast.f32(index(i.o*4 + i.i))
""",
    ),
    (
        "partition_beyond",
        MAP_N,
        "partition(i, 2)",
        """
  for i.a in 0..min(2, n): y[i.a] = x[i.a]*2.0
  for i.p in 0..max(0, n - 2): y[i.p + 2] = x[i.p + 2]*2.0
""",
    ),
    (
        "unswitch",
        BORDERS,
        "unswitch(i)",
        """
  for i in 0..6:
    if index(i) >= 1:i64:
      for j in 0..n + 2:
        y[i, j] = select(index(j - 1) >= 0:i64 and index(j - 1) < index(n), x[i - 1, j - 1], 0.0)
    else:
      for j.e in 0..n + 2: y[i, j.e] = 0.0
""",
    ),
    (
        "unswitch_beside_others",
        LANES,
        "unswitch(i)",
        """
  for i in 0..6:
    if index(i) >= 1:i64:
      for j in 0..8: y[i, j] = select(index(j) < 5:i64, x[i - 1, j], 0.0)
    else:
      for j.e in 0..8: y[i, j.e] = 0.0
""",
    ),
    (
        "permute_axes",
        PRODUCT,
        "permute_axes(r, [1, 0])",
        """
  const b: f32[5, 6]
  temp r: f32[6, 4]
  for j in 0..6:
    for i in 0..4:
      r[j, i] = 0.0
      for k in 0..5: r[j, i] += a[i, k]*b[k, j]
  for u in 0..4:
    for v in 0..6: y[u, v] = max(r[v, u], 0.0)
""",
    ),
    (
        "split_exact",
        MAP,
        "split(i, 5)",
        """
  for i.o in 0..2:
    for i.i in 0..5: y[i.o*5 + i.i] = x[i.o*5 + i.i]*2.0
""",
    ),
    (
        "split_guard",
        MAP,
        "split(i, 4, guard)",
        """
  for i.o in 0..3:
    for i.i in 0..4:
      if index(i.o*4 + i.i) < 10:i64:
        y[i.o*4 + i.i] = x[i.o*4 + i.i]*2.0
""",
    ),
    (
        "split_peel",
        MAP,
        "split(i, 4, peel)",
        """
  for i.o in 0..2:
    for i.i in 0..4: y[i.o*4 + i.i] = x[i.o*4 + i.i]*2.0
  for i.t in 0..2: y[i.t + 8] = x[i.t + 8]*2.0
""",
    ),
    (
        "split_even",
        MAP,
        "split(i, 4, even); split(i.t, 3, peel)",
        """
  for i.o in 0..1:
    for i.i in 0..4: y[i.o*4 + i.i] = x[i.o*4 + i.i]*2.0
  for i.t.o in 0..2:
    for i.t.i in 0..3: y[i.t.o*3 + i.t.i + 4] = x[i.t.o*3 + i.t.i + 4]*2.0
""",
    ),
    (
        "split_even_by_too_much_for_groups_of_one_less",
        MAP,
        "split(i, 7, even)",
        """
  for i.t in 0..10: y[i.t] = x[i.t]*2.0
""",
    ),
    (
        "split_symbolic_even",
        MAP_N,
        "split(i, 2, even)",
        """
  for i.o in 0..min(max(0, n - (n + 1)//2), n//2):
    for i.i in 0..2: y[i.o*2 + i.i] = x[i.o*2 + i.i]*2.0
  for i.t in 0..-min(max(0, n - (n + 1)//2), n//2)*2 + n:
    y[min(max(0, n - (n + 1)//2), n//2)*2 + i.t] = x[min(max(0, n - (n + 1)//2), n//2)*2 + i.t]*2.0
""",
    ),
    (
        "split_shift",
        MAP,
        "split(i, 4, shift)",
        """
  for i.o in 0..3:
    for i.i in 0..4: y[i.i + min(6, i.o*4)] = x[i.i + min(6, i.o*4)]*2.0
""",
    ),
    (
        "split_mask",
        MAP,
        "split(i, 4, mask)",
        """
  for i.o in 0..2:
    for i.i in 0..4: y[i.o*4 + i.i] = x[i.o*4 + i.i]*2.0
  for i.m in 0..4:
    if index(i.m + 8) < 10:i64:
      y[i.m + 8] = x[i.m + 8]*2.0
""",
    ),
    (
        "split_symbolic_guard",
        MAP_N,
        "split(i, 4, guard)",
        """
  for i.o in 0..(n + 3)//4:
    for i.i in 0..4:
      if index(i.o*4 + i.i) < index(n):
        y[i.o*4 + i.i] = x[i.o*4 + i.i]*2.0
""",
    ),
    (
        "split_symbolic_peel",
        MAP_N,
        "split(i, 4, peel)",
        """
  for i.o in 0..n//4:
    for i.i in 0..4: y[i.o*4 + i.i] = x[i.o*4 + i.i]*2.0
  for i.t in 0..n%4: y[(n//4)*4 + i.t] = x[(n//4)*4 + i.t]*2.0
""",
    ),
    (
        "split_symbolic_mask",
        MAP_N,
        "split(i, 4, mask)",
        """
  for i.o in 0..n//4:
    for i.i in 0..4: y[i.o*4 + i.i] = x[i.o*4 + i.i]*2.0
  if index((n//4)*4) < index(n):
    for i.m in 0..4:
      if index((n//4)*4 + i.m) < index(n):
        y[(n//4)*4 + i.m] = x[(n//4)*4 + i.m]*2.0
""",
    ),
    (
        "split_by_more_than_there_are",
        MAP,
        "split(i, 16, mask)",
        """
  for i.m in 0..16:
    if index(i.m) < 10:i64:
      y[i.m] = x[i.m]*2.0
""",
    ),
    (
        "split_by_more_than_there_are_peels_all",
        MAP,
        "split(i, 16, peel)",
        """
  for i.t in 0..10: y[i.t] = x[i.t]*2.0
""",
    ),
    (
        "split_widens_loops_inside",
        TRIANGLE,
        "split(i, 2, guard)",
        """
  for i.o in 0..3:
    for i.i in 0..2:
      if index(i.o*2 + i.i) < 5:i64:
        y[i.o*2 + i.i] = 0.0
        for k in 0..i.o*2 + i.i + 1: y[i.o*2 + i.i] += x[k]
""",
    ),
    (
        "split_renames_the_loops_of_the_tail",
        TRIANGLE,
        "split(i, 2, peel)",
        """
  for i.o in 0..2:
    for i.i in 0..2:
      y[i.o*2 + i.i] = 0.0
      for k: 0..4 in 0..i.o*2 + i.i + 1: y[i.o*2 + i.i] += x[k]
  for i.t in 0..1:
    y[i.t + 4] = 0.0
    for k.t in 0..i.t + 5: y[i.t + 4] += x[k.t]
""",
    ),
    (
        "split_keeps_a_loop_parallel",
        MAP,
        "parallel(i); split(i, 4, peel)",
        """
  parallel i.o in 0..2:
    for i.i in 0..4: y[i.o*4 + i.i] = x[i.o*4 + i.i]*2.0
  parallel i.t in 0..2: y[i.t + 8] = x[i.t + 8]*2.0
""",
    ),
    (
        "fuse",
        GRID,
        "fuse(i, j)",
        """
  for i.j in 0..n*6: y[i.j%6, i.j//6] = x[i.j//6, i.j%6] + cast.f32(index(i.j//6))
""",
    ),
    (
        "reorder",
        GRID,
        "reorder(j, i)",
        """
  for j in 0..6:
    for i in 0..n: y[j, i] = x[i, j] + cast.f32(index(i))
""",
    ),
    (
        "reorder_with_a_loop_between",
        PRODUCT,
        "decompose_reduction(i); reorder(k, i)",
        """
  const b: f32[5, 6]
  temp r: f32[4, 6]
  for i.s in 0..4:
    for j.s in 0..6: r[i.s, j.s] = 0.0
  for k in 0..5:
    for j in 0..6:
      for i in 0..4: r[i, j] += a[i, k]*b[k, j]
  for u in 0..4:
    for v in 0..6: y[u, v] = max(r[u, v], 0.0)
""",
    ),
    (
        "unroll_extents_that_unrolled_loops_give",
        UNEVEN,
        "unroll(i); unroll(j)",
        """
  unroll i in 0..3:
    unroll j in 0..i + 1:
      for k in 0..4: y[i, k] += x[j, k]
""",
    ),
    (
        "reorder_with_extents_of_outer_loops",
        UNEVEN,
        "reorder(k, i, j)",
        """
  for k in 0..4:
    for i in 0..3:
      for j in 0..i + 1: y[i, k] += x[j, k]
""",
    ),
    (
        "unroll",
        MAP,
        "unroll(i)",
        """
  unroll i in 0..10: y[i] = x[i]*2.0
""",
    ),
    (
        "vectorize",
        MAP,
        "split(i, 5); vectorize(i.i)",
        """
  for i.o in 0..2:
    vector i.i in 0..5: y[i.o*5 + i.i] = x[i.o*5 + i.i]*2.0
""",
    ),
    (
        "vectorize_a_reduction",
        SUM,
        "split(k, 4, mask); vectorize(k.i); vectorize(k.m)",
        """
  y[] = 0.0
  for k.o in 0..n//4:
    vector k.i in 0..4: y[] += x[k.o*4 + k.i]
  if index((n//4)*4) < index(n):
    vector k.m in 0..4:
      if index((n//4)*4 + k.m) < index(n):
        y[] += x[(n//4)*4 + k.m]
""",
    ),
    (
        "parallel",
        GRID,
        "parallel(i)",
        """
  parallel i in 0..n:
    for j in 0..6: y[j, i] = x[i, j] + cast.f32(index(i))
""",
    ),
    (
        "parallel_after_fusing",
        GRID,
        "fuse(i, j); parallel(i.j)",
        """
  parallel i.j in 0..n*6: y[i.j%6, i.j//6] = x[i.j//6, i.j%6] + cast.f32(index(i.j//6))
""",
    ),
    (
        "decompose_reduction",
        PRODUCT,
        "decompose_reduction(i)",
        """
  const b: f32[5, 6]
  temp r: f32[4, 6]
  for i.s in 0..4:
    for j.s in 0..6: r[i.s, j.s] = 0.0
  for i in 0..4:
    for j in 0..6:
      for k in 0..5: r[i, j] += a[i, k]*b[k, j]
  for u in 0..4:
    for v in 0..6: y[u, v] = max(r[u, v], 0.0)
""",
    ),
    (
        "decompose_reduction_of_the_inner_loop",
        PRODUCT,
        "decompose_reduction(j)",
        """
  const b: f32[5, 6]
  temp r: f32[4, 6]
  for i in 0..4:
    for j.s in 0..6: r[i, j.s] = 0.0
    for j in 0..6:
      for k in 0..5: r[i, j] += a[i, k]*b[k, j]
  for u in 0..4:
    for v in 0..6: y[u, v] = max(r[u, v], 0.0)
""",
    ),
    (
        "inline",
        ROWS,
        "inline(e)",
        """
  temp top: f32[n]
  for i in 0..n:
    top[i] = -inf
    for k in 0..m: top[i] max= x[i, k]
  for u in 0..n:
    for v in 0..m: y[u, v] = x[u, v] - top[u] + (x[u, 0] - top[u])
""",
    ),
    (
        "inline_twice",
        TWO,
        "inline(t)",
        """
  for u in 0..n - 3: y[u] = x[u]*x[u] + x[u + 3]*x[u + 3]
  for v in 0..n: z[v] = x[n - v - 1]*x[n - v - 1]
""",
    ),
    (
        "compute_at_a_row",
        ROWS,
        "compute_at(e, u); compute_at(top, u)",
        """
  stack e.u: f32[1, m]
  stack top.u: f32[1]
  for u in 0..n:
    top.u[0] = -inf
    for top.u.k0 in 0..m: top.u[0] max= x[u, top.u.k0]
    for e.u.1 in 0..m: e.u[0, e.u.1] = x[u, e.u.1] - top.u[0]
    for v in 0..m: y[u, v] = e.u[0, v] + e.u[0, 0]
""",
    ),
    (
        "compute_at_the_whole_of_an_axis",
        """
kernel @k(n: 1.., m: 1..)
  in x: f32[8, n]
  temp e: f32[8, n]
  out y: f32[8]
  for i in 0..8:
    for j in 0..n: e[i, j] = x[i, j]*2.0
  for u in 0..8:
    y[u] = e[u, min(n//m, n - 1)] + e[u, min(m//n, n - 1)]
""",
        "compute_at(e, u)",
        """
  stack e.u: f32[1, n]
  for u in 0..8:
    for e.u.1 in 0..n: e.u[0, e.u.1] = x[u, e.u.1]*2.0
    y[u] = e.u[0, min(n - 1, n//m)] + e.u[0, min(m//n, n - 1)]
""",
    ),
    (
        "compute_at_a_row_of_a_fused_loop",
        ROWS,
        "inline(e); compute_at(top, u)",
        """
  stack top.u: f32[1]
  for u in 0..n:
    top.u[0] = -inf
    for top.u.k0 in 0..m: top.u[0] max= x[u, top.u.k0]
    for v in 0..m: y[u, v] = x[u, v] - top.u[0] + (x[u, 0] - top.u[0])
""",
    ),
    (
        "compute_at_a_halo",
        WINDOW,
        "split(u, 4, peel); compute_at(r, u.o); compute_at(p, u.o)",
        """
  temp p: f32[n + 2]
  temp r: f32[n]
  stack r.u.o: f32[4]
  stack p.u.o: f32[6]
  for a in 0..n + 2: p[a] = select(index(a) > 0:i64, x[a - 1], 0.0)
  for i in 0..n:
    r[i] = 0.0
    for k in 0..3: r[i] += p[i + k]
  for u.o in 0..n//4:
    for p.u.o.0 in 0..6:
      p.u.o[p.u.o.0] = select(index(u.o*4 + p.u.o.0) > 0:i64, x[u.o*4 + p.u.o.0 - 1], 0.0)
    for r.u.o.0 in 0..4:
      r.u.o[r.u.o.0] = 0.0
      for r.u.o.k0 in 0..3: r.u.o[r.u.o.0] += p.u.o[r.u.o.0 + r.u.o.k0]
    for u.i in 0..4: y[u.o*4 + u.i] = r.u.o[u.i]
  for u.t in 0..n%4: y[(n//4)*4 + u.t] = r[(n//4)*4 + u.t]
""",
    ),
    (
        "compute_at_rows_with_gaps",
        GAPS,
        "compute_at(p, i)",
        """
  temp r: f32[12, 6]
  stack p.i: f32[3, 6]
  for i in 0..12:
    for p.i.0 in 0..3:
      for p.i.1 in 0..6: p.i[p.i.0, p.i.1] = x[p.i.0*6 + i, p.i.1]*2.0
    for j in 0..6:
      r[i, j] = 0.0
      for k in 0..3: r[i, j] += p.i[k, j]
  for u in 0..12:
    for v in 0..6: y[u, v] = r[u, v]
""",
    ),
    (
        "compute_at_rows_without_gaps",
        GAPS,
        "split(i, 2); compute_at(p, i.o)",
        """
  temp r: f32[12, 6]
  stack p.i.o: f32[14, 6]
  for i.o in 0..6:
    for p.i.o.0 in 0..14:
      for p.i.o.1 in 0..6: p.i.o[p.i.o.0, p.i.o.1] = x[i.o*2 + p.i.o.0, p.i.o.1]*2.0
    for i.i in 0..2:
      for j in 0..6:
        r[i.o*2 + i.i, j] = 0.0
        for k in 0..3: r[i.o*2 + i.i, j] += p.i.o[k*6 + i.i, j]
  for u in 0..12:
    for v in 0..6: y[u, v] = r[u, v]
""",
    ),
    (
        "compute_at_every_point",
        WINDOW,
        "compute_at(p, i)",
        """
  temp r: f32[n]
  stack p.i: f32[3]
  for i in 0..n:
    for p.i.0 in 0..3: p.i[p.i.0] = select(index(i + p.i.0) > 0:i64, x[i + p.i.0 - 1], 0.0)
    r[i] = 0.0
    for k in 0..3: r[i] += p.i[k]
  for u in 0..n: y[u] = r[u]
""",
    ),
    (
        "compute_at_a_guarded_consumer",
        PRODUCT,
        "split(v, 4, guard); reorder(v.o, u); compute_at(r, v.o)",
        """
  const b: f32[5, 6]
  stack r.v.o: f32[4, 4]
  for v.o in 0..2:
    for r.v.o.0 in 0..4:
      for r.v.o.1 in 0..4:
        if index(v.o*4 + r.v.o.1) < 6:i64:
          r.v.o[r.v.o.0, r.v.o.1] = 0.0
          for r.v.o.k0 in 0..5:
            r.v.o[r.v.o.0, r.v.o.1] += a[r.v.o.0, r.v.o.k0]*b[r.v.o.k0, v.o*4 + r.v.o.1]
    for u in 0..4:
      for v.i in 0..4:
        if index(v.o*4 + v.i) < 6:i64:
          y[u, v.o*4 + v.i] = max(r.v.o[u, v.i], 0.0)
""",
    ),
    (
        "compute_at_two_consumers",
        TWO,
        ("split(u, 4, peel); compute_at(t, u.o); split(v, 2, peel); compute_at(t, v.o, register)"),
        """
  temp t: f32[n]
  stack t.u.o: f32[7]
  register t.v.o: f32[2]
  for i in 0..n: t[i] = x[i]*x[i]
  for u.o in 0..(n + 1)//4 - 1:
    for t.u.o.0 in 0..7: t.u.o[t.u.o.0] = x[u.o*4 + t.u.o.0]*x[u.o*4 + t.u.o.0]
    for u.i in 0..4: y[u.o*4 + u.i] = t.u.o[u.i] + t.u.o[u.i + 3]
  for u.t in 0..(n + 1)%4:
    y[((n + 1)//4)*4 + u.t - 4] = t[((n + 1)//4)*4 + u.t - 4] + t[((n + 1)//4)*4 + u.t - 1]
  for v.o in 0..n//2:
    for t.v.o.0 in 0..2: t.v.o[t.v.o.0] = x[-v.o*2 + n + t.v.o.0 - 2]*x[-v.o*2 + n + t.v.o.0 - 2]
    for v.i in 0..2: z[v.o*2 + v.i] = t.v.o[-v.i + 1]
  for v.t in 0..n%2: z[(n//2)*2 + v.t] = t[-(n//2)*2 + n - v.t - 1]
""",
    ),
    (
        "compute_at_a_register_tile",
        PRODUCT,
        "split(v, 3); reorder(v.o, u, v.i); compute_at(r, v.o, register)",
        """
  const b: f32[5, 6]
  register r.v.o: f32[4, 3]
  for v.o in 0..2:
    for r.v.o.0 in 0..4:
      for r.v.o.1 in 0..3:
        r.v.o[r.v.o.0, r.v.o.1] = 0.0
        for r.v.o.k0 in 0..5:
          r.v.o[r.v.o.0, r.v.o.1] += a[r.v.o.0, r.v.o.k0]*b[r.v.o.k0, v.o*3 + r.v.o.1]
    for u in 0..4:
      for v.i in 0..3: y[u, v.o*3 + v.i] = max(r.v.o[u, v.i], 0.0)
""",
    ),
    (
        "cache_write",
        STARTED,
        "cache_write(y)",
        """
  temp y.acc: f32[3]
  for i in 0..3:
    y.acc[i] = x[i, 0]
    for k in 0..4: y.acc[i] += x[i, k]
  for i.w in 0..3: y[i.w] = y.acc[i.w]
""",
    ),
    (
        "cache_read",
        PRODUCT,
        "cache_read(b, i, [1, 0])",
        """
  const b: f32[5, 6]
  temp r: f32[4, 6]
  temp b.c: f32[6, 5]
  for b.c.0 in 0..6:
    for b.c.1 in 0..5: b.c[b.c.0, b.c.1] = b[b.c.1, b.c.0]
  for i in 0..4:
    for j in 0..6:
      r[i, j] = 0.0
      for k in 0..5: r[i, j] += a[i, k]*b.c[j, k]
  for u in 0..4:
    for v in 0..6: y[u, v] = max(r[u, v], 0.0)
""",
    ),
    (
        "outline",
        PRODUCT,
        "outline(r, 0, [1, 0])",
        """
  const b: f32[5, 6]
  temp r: f32[4, 6]
  temp r.0: f32[5, 4]
  for r.0.0 in 0..5:
    for r.0.1 in 0..4: r.0[r.0.0, r.0.1] = a[r.0.1, r.0.0]
  for i in 0..4:
    for j in 0..6:
      r[i, j] = 0.0
      for k in 0..5: r[i, j] += r.0[k, i]*b[k, j]
  for u in 0..4:
    for v in 0..6: y[u, v] = max(r[u, v], 0.0)
""",
    ),
    (
        "cache_read_at",
        PRODUCT,
        "cache_read(a); compute_at(a.c, i)",
        """
  const b: f32[5, 6]
  temp r: f32[4, 6]
  stack a.c.i: f32[1, 5]
  for i in 0..4:
    for a.c.i.1 in 0..5: a.c.i[0, a.c.i.1] = a[i, a.c.i.1]
    for j in 0..6:
      r[i, j] = 0.0
      for k in 0..5: r[i, j] += a.c.i[0, k]*b[k, j]
  for u in 0..4:
    for v in 0..6: y[u, v] = max(r[u, v], 0.0)
""",
    ),
    (
        "pack",
        PRODUCT,
        'pack(b, "1/4 0 1%4")',
        """
  const b: f32[2, 5, 4] pack="1/4 0 1%4"
  temp r: f32[4, 6]
  for i in 0..4:
    for j in 0..6:
      r[i, j] = 0.0
      for k in 0..5: r[i, j] += a[i, k]*b[j//4, k, j%4]
  for u in 0..4:
    for v in 0..6: y[u, v] = max(r[u, v], 0.0)
""",
    ),
    (
        "rfactor",
        SUM,
        "rfactor(k, 4)",
        """
  register y.r: f32[4]
  y[] = 0.0
  for k.s in 0..4: y.r[k.s] = 0.0
  for k.o in 0..n//4:
    for k.i in 0..4: y.r[k.i] += x[k.o*4 + k.i]
  for k.f in 0..4: y[] += y.r[k.f]
  for k.t in 0..n%4: y[] += x[(n//4)*4 + k.t]
""",
    ),
    (
        "rfactor_mask",
        SUM,
        "rfactor(k, 4, mask)",
        """
  register y.r: f32[4]
  y[] = 0.0
  for k.s in 0..4: y.r[k.s] = 0.0
  for k.o in 0..n//4:
    for k.i in 0..4: y.r[k.i] += x[k.o*4 + k.i]
  if index((n//4)*4) < index(n):
    for k.t in 0..4:
      if index((n//4)*4 + k.t) < index(n):
        y.r[k.t] += x[(n//4)*4 + k.t]
  for k.f in 0..4: y[] += y.r[k.f]
""",
    ),
    (
        "rfactor_exact",
        STARTED,
        "rfactor(k, 2)",
        """
  register y.r: f32[2]
  for i in 0..3:
    y[i] = x[i, 0]
    for k.s in 0..2: y.r[k.s] = 0.0
    for k.o in 0..2:
      for k.i in 0..2: y.r[k.i] += x[i, k.o*2 + k.i]
    for k.f in 0..2: y[i] += y.r[k.f]
""",
    ),
]


def results(kernel: Kernel, arrays: dict[str, np.ndarray], sizes: dict[str, int]) -> dict:
    """What the kernel's results hold after a run on copies of the arrays, packed as it asks."""
    given = {}
    for b in kernel.params:
        shape = tuple(evaluate(d, sizes) for d in b.shape)
        if b.scope == "out":
            given[b.name] = np.zeros(shape, to_numpy(b.dtype))
        else:
            given[b.name] = pack_array(arrays[b.name], b.pack) if b.pack else arrays[b.name]
    run(kernel, given, sizes)
    return {b.name: given[b.name] for b in kernel.params if b.scope == "out"}


def compare(kernel: Kernel, made: Kernel) -> None:
    """Both compute the same, for several sizes."""
    for n, m in ((4, 3), (5, 1), (9, 8)):
        sizes = {s.name: {"n": n, "m": m}[s.name] for s in kernel.sizes}
        rng = np.random.default_rng(n)
        arrays = {
            b.name: rng.integers(-5, 6, [evaluate(d, sizes) for d in b.shape]).astype(np.float32)
            for b in kernel.params
        }
        want = results(kernel, arrays, sizes)
        got = results(made, arrays, sizes)
        for name, a in want.items():
            np.testing.assert_array_equal(a, got[name])


@pytest.mark.parametrize("before, steps, after", [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_step(before: str, steps: str, after: str) -> None:
    kernel = parse_kernel(before)
    made = schedule(kernel, parse_steps(steps))
    verify(made)
    lines = str(made).splitlines()
    shown = [x for x in lines if not x.startswith(("kernel", "  in ", "  out "))]
    assert "\n".join(shown) == after.strip("\n")
    assert parse_steps(print_steps(parse_steps(steps))) == parse_steps(steps)
    compare(kernel, made)


def test_conditions_that_hold_in_tiles_are_known():
    kernel = parse_kernel(BORDERS)
    n = sym("n", 1)
    inside = maximum(0, n - 3)
    made = schedule(
        kernel, (Partition("j", 2), Partition("j.p", inside // 4 * 4), Split("j.p.a", 4))
    )
    made = Decide("j.p.a.o").apply(made)
    tiles, rest = (str(made).split(f"for {v}", 1)[1] for v in ("j.p.a.o", "j.p.p"))
    assert "select(index(i) >= 1:i64, x[i - 1, j.p.a.o*4 + j.p.a.i + 1], 0.0)" in tiles
    assert "< index(n), x[" in rest
    compare(kernel, made)
