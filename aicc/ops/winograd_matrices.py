"""The matrices of Winograd's convolution, and rows of them times values.

They are those of Toom and Cook for interpolation at `POINTS` and at infinity (Lavin and Gray, "Fast
algorithms for convolutional neural networks", 2016).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import cache

import numpy as np

from aicc.ops.registry import Array
from aicc.symbolic import Size
from aicc.tensor_ir.ir import Expr, as_expr, call, select

WINDOW = 3
"""Extent of the window."""

POINTS: Mapping[int, tuple[Fraction, ...]] = {
    2: (Fraction(0), Fraction(1), Fraction(-1)),
    4: (Fraction(0), Fraction(5, 8), Fraction(-5, 8), Fraction(3, 2), Fraction(-3, 2)),
}
"""Interpolation points for each extent of a tile.

Pairs +-p share the even and the odd parts of their transforms, and fractions over powers of two are
exact. Root mean square error against float64, as a multiple of that of the direct sum in float32
(normal data through a ReLU, C = 16 to 512): 0.8 to 0.7 for tiles of 2; for tiles of 4 it is 2.6 to
1.7 with these points, 5.9 to 3.7 with the usual 0, +-1, +-2, and 3.0 to 1.9 with 0, +-3/4, +-3/2.
"""

Row = tuple[Fraction, ...]
Matrix = tuple[Row, ...]


@cache
def matrices(m: int) -> tuple[Matrix, Matrix, Matrix]:
    """A' [m, m+2], G [m+2, 3] and B' [m+2, m+2]: A' ((G w) * (B' d)) is d correlated with w."""
    points = POINTS[m]

    def times(a: Sequence[Fraction], root: Fraction) -> list[Fraction]:
        """The polynomial a, lowest power first, times (x - root)."""
        return [
            (a[n - 1] if n else Fraction(0)) - root * (a[n] if n < len(a) else 0)
            for n in range(len(a) + 1)
        ]

    after = [(*(p**n for p in points), Fraction(int(n == m - 1))) for n in range(m)]
    weights: list[Row] = []
    before: list[Row] = []
    for p in points:
        scale, basis = Fraction(1), [Fraction(1)]
        for q in points:
            if q != p:
                scale, basis = scale * (p - q), times(basis, q)
        weights.append(tuple(p**n / scale for n in range(WINDOW)))
        before.append((*basis, Fraction(0)))
    basis = [Fraction(1)]
    for p in points:
        basis = times(basis, p)
    weights.append((Fraction(0),) * (WINDOW - 1) + (Fraction(1),))
    before.append(tuple(basis))
    return tuple(after), tuple(weights), tuple(before)


def as_array(m: Matrix) -> Array:
    """A matrix in float64."""
    return np.array([[float(v) for v in row] for row in m])


def _sum(terms: Sequence[tuple[Fraction, Expr]]) -> Expr:
    """A sum of products with constants; the first term's factor is 1 where one is."""
    ordered = sorted(terms, key=lambda t: t[0] != 1)
    factor, total = ordered[0]
    if factor != 1:
        total = total * float(factor)
    for factor, e in ordered[1:]:
        if factor == 1:
            total = total + e
        elif factor == -1:
            total = total - e
        else:
            total = call("fma", e, float(factor), total)
    return total


def even_odd(row: Row, values: Sequence[Expr]) -> Expr:
    """The row times the values; rows for p and -p share their even and odd parts."""
    parts: list[tuple[Fraction, Expr]] = []
    for start in (0, 1):
        terms = [(row[n], values[n]) for n in range(start, len(row), 2) if row[n]]
        if terms:
            lead = terms[-1][0]
            parts.append((lead, _sum([(c / lead, e) for c, e in reversed(terms)])))
    return _sum(parts)


def paired(points: Sequence[Fraction], row: Row, values: Sequence[Expr]) -> Expr:
    """The row times the values; rows share sums and differences of the values for p and -p."""
    terms: list[tuple[Fraction, Expr]] = []
    for n, factor in enumerate(row):
        mirror = points.index(-points[n]) if n < len(points) and -points[n] in points else n
        if mirror > n:
            other = row[mirror]
            pair = values[n] + values[mirror] if other == factor else values[n] - values[mirror]
            terms.append((factor, pair))
        elif mirror == n and factor:
            terms.append((factor, values[n]))
    return _sum(terms)


def choose(index: Size, options: Sequence[Expr]) -> Expr:
    """The option with the number `index`."""
    if isinstance(index, int):
        return options[index]
    made = options[-1]
    for n in reversed(range(len(options) - 1)):
        made = select(call("eq", as_expr(index), n), options[n], made)
    return made
