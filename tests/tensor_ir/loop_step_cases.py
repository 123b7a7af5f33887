"""Schedule steps that change loops, each on a small kernel."""

from schedule_kernels import (
    BORDERS,
    GRID,
    LANES,
    MAP,
    MAP_N,
    PADDED,
    PRODUCT,
    SUM,
    TRIANGLE,
    UNEVEN,
)

# Name, kernel, steps, and the statements and local buffers that they make.
LOOP_STEPS = [
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
        "unswitch_products",
        PADDED,
        "unswitch(k, true)",
        """
  for i in 0..6:
    y[i] = 0.0
    for k in 0..3:
      if index(i + k) >= 2:i64:
        for c in 0..4: y[i] += select(index(c) < index(i), x[i + k - 2, c], 0.0)*w[k, c]
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
]
