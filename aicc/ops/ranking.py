"""Sorting short rows without branches: where an element belongs is the number of those before it.

    keys = OrderKeys(x);  ranks = Ranks(keys);  values, places = Ranked(x, ranks)

All pairs are compared, which vectors do at once. `TopK` is written so where that is less work than
a heap, see `all_pairs`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import ExitStack

import numpy as np

from aicc.dtypes import is_float
from aicc.graph_ir.types import TensorType
from aicc.ops import radix
from aicc.ops.indexing import loops
from aicc.ops.registry import REQUIRED, Array, Case, OpContext, Operator, operator
from aicc.ops.samples import floats, integers, sample
from aicc.symbolic import Size
from aicc.tensor_ir.builder import KernelBuilder, Tensor
from aicc.tensor_ir.ir import Expr, Op, as_expr, as_index, call, cast, const, select

KEYED = ("f32", "f16", "bf16", "i16", "i8", "u16", "u8")
"""Types whose order 32 bits tell, with one value to spare."""
NAN_KEY = 0x7F800001
"""Behind infinity."""


def all_pairs(n: int, k: int) -> bool:
    """Whether comparing all pairs of n elements, in vectors, takes less than a heap of k, and less
    than sorting by digits. Measured."""
    return n * math.ceil(n / 16) < min(radix.heap_cost(n, k), radix.cost(n, k))


def order_key(x: Expr, largest: bool) -> Expr:
    """An i32 that is larger the earlier a value comes, and less than the largest i32; equal for
    equal values, of which NaN is one."""
    if is_float(x.dtype):
        x = cast(x, "f32")
        bits: Expr = Op("bitcast.i32", (x + 0.0,), "i32")  # of both zeros the same
        magnitude = call("bitand", call("shr", bits, const(31, "i32")), const(2**31 - 1, "i32"))
        key = select(call("isnan", x), const(NAN_KEY, "i32"), call("bitxor", bits, magnitude))
    else:
        key = cast(x, "i32")
    return key if largest else call("bitnot", key)


@operator("OrderKeys", domain="aicc", inputs=1, attributes={"largest": 1})
class OrderKeys(Operator):
    """Numbers that are larger the earlier an element comes in the order of TopK: `order_key`."""

    def infer(self, ctx: OpContext) -> list[TensorType]:
        return [TensorType("i32", ctx.input(0).shape)]

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        (x,) = inputs
        assert x is not None
        if is_float(ctx.input(0).dtype):
            bits = (x.astype(np.float32) + np.float32(0)).view(np.int32)
            keys = np.where(np.isnan(x), np.int32(NAN_KEY), bits ^ ((bits >> 31) & (2**31 - 1)))
        else:
            keys = x.astype(np.int32)
        return [keys if ctx.attrs["largest"] else ~keys]

    def lower(self, ctx: OpContext, b: KernelBuilder, *inputs: Tensor | None) -> Sequence[Tensor]:
        (x,) = inputs
        assert x is not None
        return [b.compute(x.shape, lambda *i: order_key(x[i], bool(ctx.attrs["largest"])))]

    def cases(self) -> Iterable[Case]:
        special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, -np.nan, 1e-45, -3], np.float32)
        for largest in (0, 1):
            yield Case(f"special_{largest}", (special,), {"largest": largest})
        for t in KEYED:
            yield Case(t, (sample(3, 7, dtype=t),))


@operator("Ranks", domain="aicc", inputs=1, attributes={"axis": REQUIRED})
class Ranks(Operator):
    """How many elements of its row along `axis` come before each one: those with larger keys, and
    those with the same key and a lower index."""

    def infer(self, ctx: OpContext) -> list[TensorType]:
        return [TensorType("i32", ctx.input(0).shape)]

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        (keys,) = inputs
        assert keys is not None
        axis = int(ctx.attrs["axis"])
        order = np.argsort(-keys.astype(np.int64), axis, kind="stable")
        return [np.argsort(order, axis, kind="stable").astype(np.int32)]

    def lower(self, ctx: OpContext, b: KernelBuilder, *inputs: Tensor | None) -> Sequence[Tensor]:
        (keys,) = inputs
        assert keys is not None
        axis = int(ctx.attrs["axis"])

        def before(*index: Size) -> Expr:
            *i, n = index
            place, own = (cast(as_expr(v, "i64"), "i32") for v in (n, i[axis]))
            earlier = select(call("lt", place, own), const(1, "i32"), const(0, "i32"))
            other = keys[(*i[:axis], n, *i[axis + 1 :])]
            first = call("gt", other + earlier, keys[tuple(i)])
            return select(first, const(1, "i32"), const(0, "i32"))

        return [b.reduce(keys.shape, (keys.shape[axis],), before)]

    def cases(self) -> Iterable[Case]:
        ties = integers(3, 20, 2, dtype="i32", lo=-3, hi=3)
        for axis in range(3):
            yield Case(f"axis{axis}", (ties,), {"axis": axis})


@operator("Ranked", domain="aicc", inputs=2, attributes={"axis": REQUIRED, "k": REQUIRED})
class Ranked(Operator):
    """The elements of the first k ranks along `axis`, and their indices."""

    def infer(self, ctx: OpContext) -> list[TensorType]:
        x, axis = ctx.input(0), int(ctx.attrs["axis"])
        shape = (*x.shape[:axis], int(ctx.attrs["k"]), *x.shape[axis + 1 :])
        return [TensorType(x.dtype, shape), TensorType("i64", shape)][: ctx.n_outputs]

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        x, ranks = inputs
        assert x is not None and ranks is not None
        axis = int(ctx.attrs["axis"])
        order = np.argsort(ranks, axis)
        order = order.take(range(int(ctx.attrs["k"])), axis)
        return [np.take_along_axis(x, order, axis), order.astype(np.int64)][: ctx.n_outputs]

    def lower(self, ctx: OpContext, b: KernelBuilder, *inputs: Tensor | None) -> Sequence[Tensor]:
        x, ranks = inputs
        assert x is not None and ranks is not None
        axis, k = int(ctx.attrs["axis"]), int(ctx.attrs["k"])
        shape = ctx.outputs[0].shape
        values, places = b.temp("values", x.dtype, shape), b.temp("places", "i64", shape)
        with ExitStack() as stack:
            i = loops(b, stack, "i", (*x.shape[:axis], *x.shape[axis + 1 :]))
            n = stack.enter_context(b.loop("n", 0, x.shape[axis]))
            own = (*i[:axis], n, *i[axis:])
            rank = ranks[own]
            if k != x.shape[axis]:
                stack.enter_context(b.when(call("lt", rank, const(k, "i32"))))
            to = (*i[:axis], as_index(cast(rank, "i64"), 0, k - 1), *i[axis:])
            b.store(values, to, x[own])
            b.store(places, to, as_expr(n, "i64"))
        return [values, places][: ctx.n_outputs]

    def cases(self) -> Iterable[Case]:
        x = floats(3, 7, 4)
        for axis in range(3):
            ranks = np.argsort(np.argsort(x, axis), axis).astype(np.int32)
            for k in (2, x.shape[axis]):
                yield Case(f"axis{axis}_{k}", (x, ranks), {"axis": axis, "k": k}, 2)
        yield Case("values", (x, ranks), {"axis": 2, "k": 4})
