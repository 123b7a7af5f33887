"""Selecting by value: ArgMax, ArgMin, TopK, OneHot."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import Any, ClassVar

import numpy as np

from aicc.dtypes import NUMERIC, is_float
from aicc.graph_ir.types import TensorType
from aicc.ops import radix
from aicc.ops.heaps import Heap, Item
from aicc.ops.indexing import loops
from aicc.ops.radix import Sorter
from aicc.ops.ranking import KEYED, all_pairs, order_key
from aicc.ops.registry import Array, Case, OpContext, Operator, operator
from aicc.ops.samples import floats, integers, ints, sample
from aicc.ops.sizes import axis_in
from aicc.symbolic import Size, hi_of, proves_le, proves_lt
from aicc.tensor_ir.builder import KernelBuilder, Tensor
from aicc.tensor_ir.ir import Expr, as_expr, as_index, call, cast, const, select

PACKED = (*KEYED, "i32")
"""Types of which 32 bits tell an element's place in the order."""
INDEX = 2**32 - 1
"""The index part of a number that tells an element's order, then its index, backwards: of equal
elements the first comes first."""


class ArgExtreme(Operator):
    """The index of the extreme element along `axis`, the first or the last one of equal elements.

    Two reductions: the extreme value, then the least (or largest) index that has it. A NaN counts
    as the extreme one, as in numpy.
    """

    extreme: ClassVar[str] = "max"

    def infer(self, ctx: OpContext) -> list[TensorType]:
        x = ctx.input(0)
        if x.dtype not in NUMERIC or x.rank == 0:
            ctx.fail("takes a tensor of numbers with an axis")
        axis = axis_in(ctx, int(ctx.attrs["axis"]), x.rank)
        if x.shape[axis] == 0:
            ctx.fail(f"axis {axis} is empty")
        kept: tuple[Size, ...] = (1,) if ctx.attrs["keepdims"] else ()
        return [TensorType("i64", (*x.shape[:axis], *kept, *x.shape[axis + 1 :]))]

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        (x,) = inputs
        assert x is not None
        axis, find = int(ctx.attrs["axis"]), np.argmax if self.extreme == "max" else np.argmin
        if ctx.attrs["select_last_index"]:
            result = x.shape[axis] - 1 - find(np.flip(x, axis), axis)
        else:
            result = find(x, axis)
        result = np.asarray(result, np.int64)
        return [np.expand_dims(result, axis) if ctx.attrs["keepdims"] else result]

    def lower(self, ctx: OpContext, b: KernelBuilder, *inputs: Tensor | None) -> Sequence[Tensor]:
        (x,) = inputs
        assert x is not None
        axis = axis_in(ctx, int(ctx.attrs["axis"]), x.rank)
        extent, keep = x.shape[axis], bool(ctx.attrs["keepdims"])
        if not proves_le(1, extent):
            b.check(call("gt", as_expr(extent), 0), f"{ctx.node}: {ctx.op}: axis {axis} is empty")
        shape = ctx.outputs[0].shape
        after = axis + 1 if keep else axis

        def own(i: Sequence[Size], k: Size) -> Expr:
            return x[(*i[:axis], k, *i[after:])]

        best = b.reduce(shape, (extent,), lambda *ik: own(ik[:-1], ik[-1]), self.extreme)
        last = bool(ctx.attrs["select_last_index"])
        other = const(-1, "i64") if last else as_expr(extent, "i64")

        def place(*ik: Size) -> Expr:
            value = own(ik[:-1], ik[-1])
            found = call("eq", value, best[ik[:-1]])
            if is_float(x.dtype):
                found = call("or", found, call("isnan", value))
            return select(found, as_expr(ik[-1], "i64"), other)

        return [b.reduce(shape, (extent,), place, "max" if last else "min")]

    def cases(self) -> Iterable[Case]:
        x = np.round(floats(3, 5, 4))
        symbols = {(0, 0): "n", (0, 1): "m"}
        for axis in (0, 1, -1):
            yield Case(f"axis{axis}", (x,), {"axis": axis}, symbolic=symbols)
        yield Case("no_keep", (x,), {"axis": 1, "keepdims": 0}, symbolic=symbols)
        last = {"axis": 1, "select_last_index": 1}
        yield Case("last", (x,), last, symbolic=symbols)
        yield Case("last_no_keep", (x,), {**last, "keepdims": 0})
        yield Case("vector", (integers(9),), {"keepdims": 0})
        yield Case("infinite", (np.full((2, 3), -np.inf, np.float32),), {"axis": 1})
        for t in ("i64", "i32", "u8", "i8", "f16", "f64"):
            yield Case(t, (sample(3, 7, dtype=t),), {"axis": -1})


_ARG = {"axis": 0, "keepdims": 1, "select_last_index": 0}


@operator("ArgMax", attributes=_ARG)
class ArgMax(ArgExtreme):
    """The index of the largest element."""


@operator("ArgMin", attributes=_ARG)
class ArgMin(ArgExtreme):
    """The index of the smallest element."""

    extreme = "min"


def _ahead(largest: bool, x: Expr, y: Expr) -> Expr:
    """True where a value comes before another. NaN is above all numbers."""
    ahead = call("gt" if largest else "lt", x, y)
    if is_float(x.dtype):
        nan_x, nan_y = call("isnan", x), call("isnan", y)
        first, second = (nan_x, nan_y) if largest else (nan_y, nan_x)
        ahead = call("or", ahead, call("and", first, call("not", second)))
    return ahead


def comes_before(largest: bool, x: Expr, m: Expr, y: Expr, n: Expr) -> Expr:
    """True where element m with value x comes before element n with value y.

    NaN is above all numbers and equal to itself, so that this is an order.
    """
    equal = call("eq", x, y)
    if is_float(x.dtype):
        equal = call("or", equal, call("and", call("isnan", x), call("isnan", y)))
    return call("or", _ahead(largest, x, y), call("and", equal, call("lt", m, n)))


@operator("TopK", inputs=2, attributes={"axis": -1, "largest": 1, "sorted": 1})
class TopK(Operator):
    """The k largest (or smallest) elements along `axis` and their indices, in order.

    Of equal elements the one with the lower index comes first. k was an attribute before opset 10.
    A row is read once, see `Heap`, or sorted by digits where k is large, see `radix`.
    """

    def upgrade(
        self, attrs: dict[str, Any], inputs: list[str], opset: int, graph: Any
    ) -> tuple[dict[str, Any], list[str]]:
        if opset < 10:
            inputs = [inputs[0], graph.add_constant("k", np.array([attrs.pop("k")], np.int64))]
        return attrs, inputs

    def infer(self, ctx: OpContext) -> list[TensorType]:
        x = ctx.input(0)
        if x.dtype not in NUMERIC or x.rank == 0:
            ctx.fail("takes a tensor of numbers with an axis")
        axis = axis_in(ctx, int(ctx.attrs["axis"]), x.rank)
        (k,) = ctx.require_value(1, "k")
        if proves_lt(k, 0) or proves_lt(x.shape[axis], k):
            ctx.fail(f"k = {k} of {x.shape[axis]} elements")
        shape = (*x.shape[:axis], k, *x.shape[axis + 1 :])
        return [TensorType(x.dtype, shape), TensorType("i64", shape)][: ctx.n_outputs]

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        x, k = inputs
        assert x is not None and k is not None
        axis, count = int(ctx.attrs["axis"]), int(k.reshape(()))
        keys = np.moveaxis(x, axis, -1)
        flat = keys.reshape(int(np.prod(keys.shape[:-1])), keys.shape[-1])
        order = np.zeros((len(flat), count), np.int64)
        for row, elements in enumerate(flat):
            items = [v.item() for v in elements]
            ranked = sorted((-v if ctx.attrs["largest"] else v, n) for n, v in enumerate(items))
            order[row] = [n for _, n in ranked[:count]]
        indices = np.moveaxis(order.reshape(*keys.shape[:-1], count), -1, axis)
        return [np.take_along_axis(x, indices, axis), indices.copy()][: ctx.n_outputs]

    def decompose(self, ctx: OpContext, g: Any, *inputs: str) -> list[str] | None:
        """Short rows: where each element belongs is the number of those before it."""
        x, axis = ctx.input(0), axis_in(ctx, int(ctx.attrs["axis"]), ctx.input(0).rank)
        k, extent = ctx.value(1), x.shape[axis]
        if k is None or not isinstance(k[0], int) or not isinstance(extent, int):
            return None
        if x.dtype not in KEYED:
            return None
        if not 0 < k[0] <= extent or not all_pairs(extent, k[0]):
            return None
        largest = int(ctx.attrs["largest"])
        keys = g.op("aicc::OrderKeys", inputs[0], largest=largest)
        ranks = g.op("aicc::Ranks", keys, axis=axis)
        made = g.op("aicc::Ranked", inputs[0], ranks, axis=axis, k=k[0], n_outputs=2)
        return list(made)[: ctx.n_outputs]

    def lower(self, ctx: OpContext, b: KernelBuilder, *inputs: Tensor | None) -> Sequence[Tensor]:
        x = inputs[0]
        assert x is not None
        axis = axis_in(ctx, int(ctx.attrs["axis"]), x.rank)
        (k,), extent = ctx.require_value(1, "k"), x.shape[axis]
        if not proves_le(k, extent):
            fits = call("le", as_expr(k, "i64"), as_expr(extent, "i64"))
            b.check(fits, f"{ctx.node}: {ctx.op}: k = {k} of {extent} elements")
        shape = ctx.outputs[0].shape
        if k == 0:
            return [b.compute(shape, lambda *i, t=t: const(0, t.dtype)) for t in ctx.outputs]

        largest = bool(ctx.attrs["largest"])
        values, places = b.temp("values", x.dtype, shape), b.temp("places", "i64", shape)
        packed = x.dtype in PACKED
        if packed and not proves_lt(extent, INDEX + 1):
            fits = call("le", as_expr(extent, "i64"), INDEX)
            b.check(fits, f"{ctx.node}: {ctx.op}: {extent} elements in a row")

        if packed and isinstance(extent, int) and isinstance(k, int) and _by_digits(extent, k):
            _sort_rows(b, x, (values, places), axis, largest)
            return [values, places][: ctx.n_outputs]

        def ahead(p: Item, q: Item) -> Expr:
            return call("gt", p[0], q[0]) if packed else comes_before(largest, *p, *q)

        def item(value: Expr, place: Size) -> Item:
            number = as_expr(place, "i64")
            if not packed:
                return value, number
            high = call("shl", cast(order_key(value, largest), "i64"), 32)
            return (call("bitor", high, INDEX - number),)

        def index(packed_item: Expr) -> Size:
            return as_index(INDEX - call("bitand", packed_item, INDEX), 0, _last(extent))

        heap = Heap.make(b, (places,) if packed else (values, places), axis, ahead)
        with ExitStack() as stack:
            i = loops(b, stack, "i", (*shape[:axis], *shape[axis + 1 :]))
            heap = heap.of(i)

            def at(t: Tensor, n: Size) -> Expr:
                return t[(*i[:axis], n, *i[axis:])]

            stack.enter_context(b.when(call("gt", as_expr(k, "i64"), 0)))
            with b.loop("j", 0, k) as j:
                heap.put(j, item(at(x, j), j))
            heap.order(k)
            with ExitStack() as scan:
                c = scan.enter_context(b.loop("c", k, extent))
                value = at(x, c)
                root = at(x, index(heap.at(0)[0])) if packed else heap.at(0)[0]
                # One comparison dismisses most elements; it also passes what is no number.
                behind = call("le" if largest else "ge", value, root)
                scan.enter_context(b.when(call("not", behind)))
                if is_float(x.dtype):
                    scan.enter_context(b.when(_ahead(largest, value, root)))
                heap.replace(item(value, c), k)
            heap.sort(k)
            if packed:
                with b.loop("r", 0, k) as r:
                    own = (*i[:axis], r, *i[axis:])
                    place = index(places[own])
                    b.store(values, own, at(x, place))
                    b.store(places, own, as_expr(place, "i64"))
        return [values, places][: ctx.n_outputs]

    def cases(self) -> Iterable[Case]:
        x = floats(3, 7, 4)
        symbols = {(0, 0): "n", (0, 1): "m"}
        for axis in (0, 1, -1):
            attrs = {"axis": axis}
            yield Case(f"axis{axis}", (x, ints((3,))), attrs, 2, constant=(1,), symbolic=symbols)
        smallest = {"axis": 1, "largest": 0}
        yield Case("smallest", (x, ints((4,))), smallest, 2, constant=(1,), symbolic=symbols)
        yield Case("all", (floats(9), ints((9,))), {}, 2, constant=(1,))
        yield Case("ties", (integers(3, 9, lo=0, hi=3), ints((5,))), {}, 2, constant=(1,))
        ties = (integers(3, 9, dtype="i32", lo=0, hi=3), ints((5,)))
        yield Case("ties_smallest", ties, {"largest": 0}, 2, constant=(1,))
        long = np.round(2 * floats(2, 300))  # a heap of numbers that are order and index
        yield Case("long", (long, ints((9,))), {}, 2, constant=(1,))
        yield Case("long_smallest", (long, ints((20,))), {"largest": 0}, 2, constant=(1,))
        # Sorted by digits: all elements, and those that reach what a part of the row tells.
        many = np.round(20 * floats(2, 300))
        yield Case("digits", (many, ints((100,))), {}, 2, constant=(1,))
        yield Case("digits_down", (many.T.copy(), ints((300,))), {"axis": 0}, 2, constant=(1,))
        wide = integers(1, 300, dtype="i32", lo=-(2**31), hi=2**31 - 1)
        yield Case("digits_i32", (wide, ints((300,))), {"largest": 0}, 2, constant=(1,))
        yield Case("digits_bound", (floats(2, 2600), ints((300,))), {}, 2, constant=(1,))
        few = integers(1, 2600, dtype="u8", lo=0, hi=4)
        yield Case("digits_few", (few, ints((300,))), {"largest": 0}, 2, constant=(1,))
        yield Case("one", (x, ints((1,))), {}, 2, constant=(1,))
        yield Case("none", (x, ints((0,))), {}, 2, constant=(1,))
        for t in ("f64", "f16", "u8", "i8"):
            yield Case(t, (sample(2, 8, dtype=t), ints((3,))), {}, 2, constant=(1,))


def _by_digits(extent: int, k: int) -> bool:
    """Whether sorting by digits takes less than a heap of the first k."""
    return extent <= INDEX and radix.cost(extent, k) < radix.heap_cost(extent, k)


def _sort_rows(
    b: KernelBuilder, x: Tensor, results: tuple[Tensor, Tensor], axis: int, largest: bool
) -> None:
    """Fills `results`, values and places, row by row through a `Sorter`."""
    values, places = results
    extent, k = x.shape[axis], values.shape[axis]
    assert isinstance(extent, int) and isinstance(k, int)
    sorter = Sorter(b, extent, k)
    with ExitStack() as stack:
        i = loops(b, stack, "i", (*x.shape[:axis], *x.shape[axis + 1 :]))

        def element(n: Size) -> Expr:
            return x[(*i[:axis], n, *i[axis:])]

        def item(n: Size) -> Expr:
            behind = 2**31 - 1 - cast(order_key(element(n), largest), "i64")
            return call("bitor", call("shl", behind, 32), as_expr(n, "i64"))

        items = sorter.sort(item)
        with b.loop("r", 0, k) as r:
            own = (*i[:axis], r, *i[axis:])
            place = as_index(call("bitand", items[r], INDEX), 0, extent - 1)
            b.store(values, own, element(place))
            b.store(places, own, as_expr(place, "i64"))


def _last(extent: Size) -> int | None:
    hi = hi_of(extent)
    return None if hi is None else hi - 1


@operator("OneHot", since=9, inputs=3, attributes={"axis": -1})
class OneHot(Operator):
    """For each index a row of `depth` elements: off everywhere but at the index.

    Operands: indices, depth (known at compile time), [off, on]. An index outside [-depth, depth)
    gives a row of off.
    """

    def infer(self, ctx: OpContext) -> list[TensorType]:
        indices, (depth,), pair = ctx.input(0), self._depth(ctx), ctx.input(2)
        if pair.shape != (2,):
            ctx.fail("values (input 2) must be [off, on]")
        if proves_lt(depth, 1):
            ctx.fail(f"depth {depth} must be positive")
        axis = axis_in(ctx, int(ctx.attrs["axis"]), indices.rank + 1)
        return [TensorType(pair.dtype, (*indices.shape[:axis], depth, *indices.shape[axis:]))]

    def _depth(self, ctx: OpContext) -> tuple[Size]:
        data = ctx.constant(1)
        if data is not None and data.size == 1:
            return (int(data.reshape(())),)
        value = ctx.require_value(1, "depth")
        if len(value) != 1:
            ctx.fail("depth (input 1) must be one number")
        return (value[0],)

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        indices, depth, pair = inputs
        assert indices is not None and depth is not None and pair is not None
        n = int(depth.reshape(()))
        axis = int(ctx.attrs["axis"]) % (indices.ndim + 1)
        whole = np.expand_dims(indices.astype(np.int64), axis)
        places = np.arange(n).reshape([-1 if a == axis else 1 for a in range(whole.ndim)])
        inside = (whole >= -n) & (whole < n)
        on = inside & (np.where(whole < 0, whole + n, whole) == places)
        return [np.where(on, pair[1], pair[0]).astype(pair.dtype)]

    def lower(self, ctx: OpContext, b: KernelBuilder, *inputs: Tensor | None) -> Sequence[Tensor]:
        indices, _, pair = inputs
        assert indices is not None and pair is not None
        (depth,) = self._depth(ctx)
        axis = axis_in(ctx, int(ctx.attrs["axis"]), indices.rank + 1)

        def element(*i: Size) -> Expr:
            e = cast(indices[(*i[:axis], *i[axis + 1 :])], "i64")
            place = as_expr(i[axis], "i64")
            on = call("or", call("eq", e, place), call("eq", e + as_expr(depth, "i64"), place))
            return select(on, pair[1], pair[0])

        return [b.compute(ctx.outputs[0].shape, element)]

    def cases(self) -> Iterable[Case]:
        pair = np.array([-1, 3], np.float32)
        at = integers(2, 3, lo=-7, hi=7)
        for axis in (-1, 0, 1):
            operands = (at, np.array(5), pair)
            yield Case(
                f"axis{axis}", operands, {"axis": axis}, constant=(1,), symbolic={(0, 0): "n"}
            )
        yield Case("constant", (at, ints((4,)), np.array([0, 1])), constant=(1, 2))
        real = (at.astype(np.float32), np.array(3.0, np.float32), pair)
        yield Case("real", real, constant=(1,))
        yield Case("scalar", (np.array(1), np.array(3), pair.astype(np.float64)), constant=(1,))
