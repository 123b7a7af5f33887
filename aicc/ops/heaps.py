"""The first elements of a row in some order, kept in a binary heap while the row is read once.

    heap = the first k elements;  for each other element: if it comes before the root: replace it
    for j in k-1..0: the root goes behind what is left of the heap

The root is the one that comes last, so that most elements are compared once. R. W. Floyd,
Algorithm 245: Treesort 3 (1964). What is put in place of the root comes from the bottom and mostly
goes back there: where items are single numbers, the hole goes down to a leaf first, without looking
at it, and from there up again (I. Wegener, Bottom-up heapsort, 1993).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from aicc.symbolic import Size, hi_of
from aicc.tensor_ir.builder import KernelBuilder, Tensor
from aicc.tensor_ir.ir import Expr, as_expr, as_index, call, cast, select

Item = tuple[Expr, ...]
"""What there is of an element: its value and the index that it has in the row, or one number that
tells both."""
Ahead = Callable[[Item, Item], Expr]


@dataclass(frozen=True)
class Heap:
    """The heaps of all rows, along `axis` of `parts`, which hold the parts of the items. row: the
    indices of the other axes.

    ahead: whether an item comes before another. last: the largest position there is, where known.
    """

    b: KernelBuilder
    parts: tuple[Tensor, ...]
    axis: int
    row: Sequence[Size]
    ahead: Ahead
    last: int | None
    item: tuple[Tensor, ...]
    hole: Tensor
    child: Tensor

    @staticmethod
    def make(b: KernelBuilder, parts: Sequence[Tensor], axis: int, ahead: Ahead) -> Heap:
        """Heaps in tensors of one shape, and what they need per row; before the loops over rows,
        which `of` is told of."""
        shape = parts[0].shape
        rows, hi = (*shape[:axis], *shape[axis + 1 :]), hi_of(shape[axis])
        return Heap(
            b,
            tuple(parts),
            axis,
            (),
            ahead,
            None if hi is None else hi - 1,
            tuple(b.temp("item", t.dtype, rows) for t in parts),
            b.temp("hole", "i64", rows),
            b.temp("child", "i64", rows),
        )

    def of(self, row: Sequence[Size]) -> Heap:
        """The heap of one row."""
        return replace(self, row=row)

    def at(self, n: Size | Expr) -> Item:
        """The item at a position of the heap."""
        i = self._index(n)
        return tuple(t[i] for t in self.parts)

    def put(self, n: Size | Expr, item: Item) -> None:
        i = self._index(n)
        for t, part in zip(self.parts, item, strict=True):
            self.b.store(t, i, part)

    def _index(self, n: Size | Expr) -> tuple[Size, ...]:
        place = as_index(n, 0, self.last) if isinstance(n, Expr) else n
        return (*self.row[: self.axis], place, *self.row[self.axis :])

    def order(self, k: Size) -> None:
        """Makes a heap of k items in any order."""
        with self.b.loop("s", 0, k // 2) as s:
            start = k // 2 - 1 - s
            self._fall(self._hold(self.at(start)), as_expr(start, "i64"), as_expr(k, "i64"))

    def replace(self, item: Item, k: Size) -> None:
        """Puts an item in place of the root of a heap of k items."""
        self._fall(self._hold(item), as_expr(0, "i64"), as_expr(k, "i64"))

    def sort(self, k: Size) -> None:
        """The items of a heap in order."""
        with self.b.loop("s", 0, k - 1) as s:
            end = k - 1 - s
            moved = self._hold(self.at(end))
            self.put(end, self.at(0))
            self._fall(moved, as_expr(0, "i64"), as_expr(end, "i64"))

    def _hold(self, item: Item) -> Item:
        row = tuple(self.row)
        for t, part in zip(self.item, item, strict=True):
            self.b.store(t, row, part)
        return tuple(t[row] for t in self.item)

    def _fall(self, item: Item, start: Expr, size: Expr) -> None:
        """Moves the hole at `start` down to where the item belongs; of two children, the one that
        comes last moves up."""
        b, row = self.b, tuple(self.row)
        b.store(self.hole, row, start)
        b.store(self.child, row, start * 2 + 1)
        if len(self.parts) == 1:
            self._down_and_up(item, start, size)
        else:
            self._down(item, size)
        self.put(self.hole[row], item)

    def _down(self, item: Item, size: Expr) -> None:
        """As far as the item: comparisons are long, and most of one is skipped."""
        b, row = self.b, tuple(self.row)
        hole, child = self.hole[row], self.child[row]
        with b.repeat(call("lt", child, size)):
            with b.when(call("lt", child + 1, size)):
                behind = self.ahead(self.at(child), self.at(child + 1))
                b.store(self.child, row, select(behind, child + 1, child))
            moves = self.ahead(item, self.at(child))
            with b.when(moves):
                self.put(hole, self.at(child))
                b.store(self.hole, row, child)
            b.store(self.child, row, select(call("eq", hole, child), child * 2 + 1, size))

    def _down_and_up(self, item: Item, start: Expr, size: Expr) -> None:
        """To a leaf, without a branch that nobody can predict, and from there up."""
        b, row = self.b, tuple(self.row)
        hole, child = self.hole[row], self.child[row]
        with b.repeat(call("lt", child + 1, size)):
            behind = self.ahead(self.at(child), self.at(child + 1))
            b.store(self.child, row, child + cast(behind, "i64"))
            self.put(hole, self.at(child))
            b.store(self.hole, row, child)
            b.store(self.child, row, child * 2 + 1)
        with b.when(call("lt", child, size)):
            self.put(hole, self.at(child))
            b.store(self.hole, row, child)
        parent = select(call("gt", hole, start), call("shr", hole - 1, 1), start)
        b.store(self.child, row, parent)
        above = self.ahead(self.at(child), item)
        with b.repeat(call("and", call("gt", hole, start), above)):
            self.put(hole, self.at(child))
            b.store(self.hole, row, child)
            b.store(self.child, row, parent)


__all__ = ["Heap", "Item"]
