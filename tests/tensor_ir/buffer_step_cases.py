"""Schedule steps that change buffers, and where they are computed, each on a small kernel."""

from schedule_kernels import GAPS, PRODUCT, ROWS, STARTED, SUM, TWO, WINDOW

# Name, kernel, steps, and the statements and local buffers that they make.
BUFFER_STEPS = [
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
        "outline_a_condition",
        """
kernel @k(n: 1..)
  in x: f32[n, 6]
  in z: f32[6]
  out y: f32[n, 6]
  for i in 0..n:
    for j in 0..6: y[i, j] = select(z[j] > 0.0, x[i, j], 0.0)
""",
        "outline(y, 0)",
        """
  temp y.0: bool[6]
  for y.0.0 in 0..6: y.0[y.0.0] = z[y.0.0] > 0.0
  for i in 0..n:
    for j in 0..6: y[i, j] = select(y.0[j], x[i, j], 0.0)
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
