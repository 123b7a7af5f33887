"""Small kernels as text that the tests of schedule steps share."""

MAP = """
kernel @k()
  in x: f32[10]
  out y: f32[10]
  for i in 0..10: y[i] = x[i]*2.0
"""
MAP_N = """
kernel @k(n: 1..)
  in x: f32[n]
  out y: f32[n]
  for i in 0..n: y[i] = x[i]*2.0
"""
GRID = """
kernel @k(n: 1..)
  in x: f32[n, 6]
  out y: f32[6, n]
  for i in 0..n:
    for j in 0..6: y[j, i] = x[i, j] + cast.f32(index(i))
"""
PRODUCT = """
kernel @k()
  in a: f32[4, 5]
  const b: f32[5, 6]
  temp r: f32[4, 6]
  out y: f32[4, 6]
  for i in 0..4:
    for j in 0..6:
      r[i, j] = 0.0
      for k in 0..5: r[i, j] += a[i, k]*b[k, j]
  for u in 0..4:
    for v in 0..6: y[u, v] = max(r[u, v], 0.0)
"""
ROWS = """
kernel @k(n: 1.., m: 1..)
  in x: f32[n, m]
  temp top: f32[n]
  temp e: f32[n, m]
  out y: f32[n, m]
  for i in 0..n:
    top[i] = -inf
    for k in 0..m: top[i] max= x[i, k]
  for a in 0..n:
    for b in 0..m: e[a, b] = x[a, b] - top[a]
  for u in 0..n:
    for v in 0..m: y[u, v] = e[u, v] + e[u, 0]
"""
WINDOW = """
kernel @k(n: 1..)
  in x: f32[n + 1]
  temp p: f32[n + 2]
  temp r: f32[n]
  out y: f32[n]
  for a in 0..n + 2: p[a] = select(index(a) > 0:i64, x[a - 1], 0.0)
  for i in 0..n:
    r[i] = 0.0
    for k in 0..3: r[i] += p[i + k]
  for u in 0..n: y[u] = r[u]
"""
GAPS = """
kernel @k()
  in x: f32[24, 6]
  temp p: f32[24, 6]
  temp r: f32[12, 6]
  out y: f32[12, 6]
  for a in 0..24:
    for b in 0..6: p[a, b] = x[a, b]*2.0
  for i in 0..12:
    for j in 0..6:
      r[i, j] = 0.0
      for k in 0..3: r[i, j] += p[i + k*6, j]
  for u in 0..12:
    for v in 0..6: y[u, v] = r[u, v]
"""
TWO = """
kernel @k(n: 4..)
  in x: f32[n]
  temp t: f32[n]
  out y: f32[n - 3]
  out z: f32[n]
  for i in 0..n: t[i] = x[i]*x[i]
  for u in 0..n - 3: y[u] = t[u] + t[u + 3]
  for v in 0..n: z[v] = t[n - 1 - v]
"""
STARTED = """
kernel @k()
  in x: f32[3, 4]
  out y: f32[3]
  for i in 0..3:
    y[i] = x[i, 0]
    for k in 0..4: y[i] += x[i, k]
"""
SUM = """
kernel @k(n: 1..)
  in x: f32[n]
  out y: f32[]
  y[] = 0.0
  for k in 0..n: y[] += x[k]
"""
TRIANGLE = """
kernel @k()
  in x: f32[5]
  out y: f32[5]
  for i in 0..5:
    y[i] = 0.0
    for k in 0..i + 1: y[i] += x[k]
"""
BORDERS = """
kernel @k(n: 1..)
  in x: f32[5, n]
  out y: f32[6, n + 2]
  for i in 0..6:
    for j in 0..n + 2:
      y[i, j] = select({inside}, x[i - 1, j - 1], 0.0)
""".format(inside="index(i) >= 1:i64 and index(j - 1) >= 0:i64 and index(j - 1) < index(n)")
PADDED = """
kernel @k()
  in x: f32[6, 4]
  in w: f32[3, 4]
  out y: f32[6]
  for i in 0..6:
    y[i] = 0.0
    for k in 0..3:
      for c in 0..4: y[i] += select({inside}, x[i + k - 2, c], 0.0)*w[k, c]
""".format(inside="index(i + k) >= 2:i64 and index(c) < index(i)")
LANES = """
kernel @k()
  in x: f32[5, 5]
  out y: f32[6, 8]
  for i in 0..6:
    for j in 0..8:
      y[i, j] = select(index(i) >= 1:i64, select(index(j) < 5:i64, x[i - 1, j], 0.0), 0.0)
"""
UNEVEN = """
kernel @k()
  in x: f32[3, 4]
  out y: f32[3, 4]
  for i in 0..3:
    for j in 0..i + 1:
      for k in 0..4: y[i, k] += x[j, k]
"""
