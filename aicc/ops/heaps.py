"""The first elements of a row in some order, kept in a binary heap while the row is read once.

    heap = the first k elements;  for each other element: if it comes before the root: replace it
    for j in k-1..0: the root goes behind what is left of the heap

The root is the one that comes last, so that most elements are compared once. R. W. Floyd,
Algorithm 245: Treesort 3 (1964).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aicc.symbolic import Size
from aicc.tensor_ir.builder import KernelBuilder, Tensor
from aicc.tensor_ir.ir import Expr, as_expr, as_index, call, select

Item = tuple[Expr, Expr]
"""A value, and the index that it has in the row."""
Ahead = Callable[[Item, Item], Expr]


@dataclass(frozen=True)
class Heap:
    """The heaps of all rows: `values` and `places` along `axis`. row: the indices of the others.

    ahead: whether an item comes before another. last: the largest position there is, where known.
    """

    b: KernelBuilder
    values: Tensor
    places: Tensor
    axis: int
    row: Sequence[Size]
    ahead: Ahead
    last: int | None
    item: tuple[Tensor, Tensor]
    hole: Tensor
    child: Tensor

    @staticmethod
    def make(
        b: KernelBuilder,
        dtype: str,
        shape: Sequence[Size],
        axis: int,
        row: Sequence[Size],
        ahead: Ahead,
        last: int | None,
    ) -> Heap:
        """Heaps of `shape`, and what they need per row; before the loops over rows."""
        rows = (*shape[:axis], *shape[axis + 1 :])
        return Heap(
            b,
            b.temp("values", dtype, shape),
            b.temp("places", "i64", shape),
            axis,
            row,
            ahead,
            last,
            (b.temp("value", dtype, rows), b.temp("place", "i64", rows)),
            b.temp("hole", "i64", rows),
            b.temp("child", "i64", rows),
        )

    def at(self, n: Size | Expr) -> Item:
        """The item at a position of the heap."""
        i = self._index(n)
        return self.values[i], self.places[i]

    def put(self, n: Size | Expr, item: Item) -> None:
        i = self._index(n)
        self.b.store(self.values, i, item[0])
        self.b.store(self.places, i, item[1])

    def _index(self, n: Size | Expr) -> tuple[Size, ...]:
        place = as_index(n, 0, self.last) if isinstance(n, Expr) else n
        return (*self.row[: self.axis], place, *self.row[self.axis :])

    def order(self, k: Size) -> None:
        """Makes a heap of k items in any order."""
        with self.b.loop("s", 0, k // 2) as s:
            start = k // 2 - 1 - s
            self._sift(self.at(start), as_expr(start, "i64"), as_expr(k, "i64"))

    def replace(self, item: Item, k: Size) -> None:
        """Puts an item in place of the root of a heap of k items."""
        self._sift(item, as_expr(0, "i64"), as_expr(k, "i64"))

    def sort(self, k: Size) -> None:
        """The items of a heap in order."""
        with self.b.loop("s", 0, k - 1) as s:
            end = k - 1 - s
            moved = self._hold(self.at(end))
            self.put(end, self.at(0))
            self._fall(moved, as_expr(0, "i64"), as_expr(end, "i64"))

    def _sift(self, item: Item, start: Expr, size: Expr) -> None:
        self._fall(self._hold(item), start, size)

    def _hold(self, item: Item) -> Item:
        row = tuple(self.row)
        for t, part in zip(self.item, item, strict=True):
            self.b.store(t, row, part)
        return self.item[0][row], self.item[1][row]

    def _fall(self, item: Item, start: Expr, size: Expr) -> None:
        """Moves the hole at `start` down to where the item belongs; each step the child that comes
        last moves up."""
        b, row = self.b, tuple(self.row)
        hole, child = self.hole[row], self.child[row]
        b.store(self.hole, row, start)
        b.store(self.child, row, start * 2 + 1)
        with b.repeat(call("lt", child, size)):
            with b.when(call("lt", child + 1, size)):
                behind = self.ahead(self.at(child), self.at(child + 1))
                b.store(self.child, row, select(behind, child + 1, child))
            moves = self.ahead(item, self.at(child))
            with b.when(moves):
                self.put(hole, self.at(child))
                b.store(self.hole, row, child)
            b.store(self.child, row, select(call("eq", hole, child), child * 2 + 1, size))
        self.put(hole, item)


__all__ = ["Heap", "Item"]
