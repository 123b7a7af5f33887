"""The first elements of a row in order, where they are many: sorted by digits of 8 bits.

    sample = the first elements of the row: a bound that k of them reach
    candidates = elements that reach the bound, twice, the second time k of the candidates
    for each digit, the lowest first: candidates in the order of the digit, then of their places

No step has a branch that depends on the elements, and the sort takes the same few passes whatever
they are. D. E. Knuth, The Art of Computer Programming 3, 5.2.5 (sorting by distribution).
"""

from __future__ import annotations

import math
from collections.abc import Callable

from aicc.symbolic import Size
from aicc.tensor_ir.builder import KernelBuilder, Tensor
from aicc.tensor_ir.ir import Expr, as_expr, as_index, call

INDEX = 2**32 - 1
"""The part of an item that is the element's index; the part above tells its place in the order."""
BITS = 8
"""Bits of a digit."""
DIGITS = 32 // BITS
TOP = 11
"""The highest bits of a number, of which bounds are made: with a float's sign and exponent two of
its fraction."""
SAMPLE = 4
"""A bound comes from a sample this many times as long as what is looked for."""

Items = Callable[[Size], Expr]
"""Position in the row -> the item: an i64 that is smaller the earlier the element comes."""


def cost(n: int, k: int) -> float:
    """The work of sorting k of n elements, in the unit of `heap_cost`. Measured."""
    sampled = _sampled(n, k)
    if sampled == n:
        return 400 + 12.0 * n
    return 6000 + 4 * sampled + 3 * n + 6 * n * k / sampled + 16.0 * k


def heap_cost(n: int, k: int) -> float:
    """The work of a heap of k of n elements, which has k (1 + log n/k) elements that come and go,
    each through log k levels. Measured."""
    return n + 9 * k * (1 + math.log(n / k)) * math.log2(k)


def _sampled(n: int, k: int) -> int:
    """The length of the sample; n where all elements are sorted."""
    return n if 2 * SAMPLE * k > n else SAMPLE * k


class Sorter:
    """What the rows of a kernel share to sort k of n elements each, one row after the other."""

    def __init__(self, b: KernelBuilder, n: int, k: int) -> None:
        self.b, self.n, self.k = b, n, k
        self.parts = [b.temp(f"part{p}", "i64", (n,)) for p in range(2)]
        self.counts = b.temp("counts", "i32", (DIGITS, 1 << BITS))
        self.tops = b.temp("tops", "i32", (1 << TOP,))
        self.total = b.temp("total", "i32", (1,))
        self.bound = b.temp("bound", "i64", (1,))
        self.kept = [b.temp(f"kept{p}", "i64", (1,)) for p in range(2)]

    def sort(self, item: Items) -> Tensor:
        """The items of one row; the tensor whose first k are the first of them, in order."""
        sampled = _sampled(self.n, self.k)
        first, second = self.parts
        if sampled == self.n:
            with self.b.loop("j", 0, self.n) as j:
                self.b.store(first, (j,), item(j))
            return self._sorted(self.n)
        self._reach(item, sampled)
        some = self._keep(item, self.n, second, self.kept[0])
        self._reach(lambda j: second[j], some)
        return self._sorted(self._keep(lambda j: second[j], some, first, self.kept[1]))

    def _reach(self, item: Items, size: Size) -> None:
        """Makes `bound` the least number of TOP bits that k of `size` items do not exceed."""
        b = self.b
        with b.loop("z", 0, 1 << TOP) as z:
            b.store(self.tops, (z,), 0)
        with b.loop("j", 0, size) as j:
            b.accumulate(self.tops, (self._top(item(j)),), as_expr(1, "i32"))
        b.store(self.total, (0,), self.tops[0])
        b.store(self.bound, (0,), 0)
        with b.repeat(call("lt", self.total[0], as_expr(self.k, "i32"))):
            b.store(self.bound, (0,), self.bound[0] + 1)
            at = as_index(self.bound[0], 0, (1 << TOP) - 1)
            b.store(self.total, (0,), self.total[0] + self.tops[at])

    def _keep(self, item: Items, size: Size, into: Tensor, kept: Tensor) -> Size:
        """Writes those of `size` items whose TOP bits do not exceed `bound`, in their order, and
        where the next one goes the one that follows. How many there are, which `kept` says."""
        b = self.b
        b.store(kept, (0,), 0)
        with b.loop("j", 0, size) as j:
            x = item(j)
            b.store(into, (as_index(kept[0], 0, self.n - 1),), x)
            reaches = call("le", _field(x, 64 - TOP, TOP), self.bound[0])
            b.store(kept, (0,), kept[0] + call("cast.i64", reaches))
        return as_index(kept[0], 0, self.n)

    def _top(self, x: Expr) -> Size:
        return as_index(_field(x, 64 - TOP, TOP), 0, (1 << TOP) - 1)

    def _sorted(self, size: Size) -> Tensor:
        """Sorts `size` items of the first part; the part that holds them then."""
        b, counts = self.b, self.counts
        source, target = self.parts
        with b.loop("p", 0, DIGITS) as p, b.loop("z", 0, 1 << BITS) as z:
            b.store(counts, (p, z), 0)
        with b.loop("j", 0, size) as j:
            for p in range(DIGITS):
                b.accumulate(counts, (p, _digit(source[j], p)), as_expr(1, "i32"))
        for p in range(DIGITS):
            # Where the first item of each digit goes.
            b.store(self.total, (0,), 0)
            with b.loop("d", 0, 1 << BITS) as d:
                b.store(self.total, (0,), self.total[0] + counts[p, d])
                b.store(counts, (p, d), self.total[0] - counts[p, d])
            with b.loop("j", 0, size) as j:
                digit = _digit(source[j], p)
                b.store(target, (as_index(counts[p, digit], 0, self.n - 1),), source[j])
                b.accumulate(counts, (p, digit), as_expr(1, "i32"))
            source, target = target, source
        return source


def _digit(x: Expr, p: int) -> Size:
    return as_index(_field(x, 32 + BITS * p, BITS), 0, (1 << BITS) - 1)


def _field(x: Expr, low: int, bits: int) -> Expr:
    """`bits` bits of x from bit `low` on."""
    return call("bitand", call("shr", x, low), (1 << bits) - 1)
