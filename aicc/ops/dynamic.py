"""Operators whose result sizes depend on data: run-time symbols with an upper bound."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack

import numpy as np

from aicc.graph_ir.types import TensorType
from aicc.ops.indexing import loops
from aicc.ops.registry import Array, Case, GraphRewriter, OpContext, Operator, operator
from aicc.ops.samples import floats, integers, ints, sample
from aicc.ops.sizes import axis_in
from aicc.symbolic import Size, hi_of, proves_le
from aicc.tensor_ir.builder import KernelBuilder, Tensor
from aicc.tensor_ir.ir import as_expr, as_index, call, cast, const


def run_time_size(ctx: OpContext, base: str, most: Size) -> Size:
    """A new symbol for a size that is known when the operator has run, and is at most `most`."""
    if ctx.fresh_symbol is None:
        ctx.fail("a size that is only known at run time cannot stand here")
    return ctx.fresh_symbol(base, hi_of(most))


@operator("First", domain="aicc", inputs=2)
class First(Operator):
    """The first elements of x along axis 0, as many as the second operand tells: in x's memory."""

    view = True
    counted = 1

    def infer(self, ctx: OpContext) -> list[TensorType]:
        x, count = ctx.input(0), ctx.input(1)
        if x.rank == 0 or count.dtype != "i64" or count.count != 1:
            ctx.fail("takes a tensor with an axis, and one number of type i64")
        known = ctx.value(1)
        first = run_time_size(ctx, "count", x.shape[0]) if known is None else known[0]
        if not proves_le(first, x.shape[0]) and known is not None:
            ctx.fail(f"{first} elements of {x.shape[0]}")
        return [TensorType(x.dtype, (first, *x.shape[1:]))]

    def part(self, ctx: OpContext) -> int:
        return 0

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        x, count = inputs
        assert x is not None and count is not None
        n = int(count.reshape(()))
        if not 0 <= n <= len(x):
            ctx.fail(f"{n} elements of {len(x)}")
        return [x[:n]]

    def lower(self, ctx: OpContext, b: KernelBuilder, *inputs: Tensor | None) -> Sequence[Tensor]:
        x = inputs[0]
        assert x is not None
        return [b.compute(ctx.outputs[0].shape, lambda *i: x[i])]

    def cases(self) -> Iterable[Case]:
        x = floats(5, 3)
        for n in (0, 2, 5):
            yield Case(f"rows{n}", (x, np.array(n)))
        yield Case("run", (x, ints((3,))), symbolic={(0, 0): "n"})
        yield Case("vector", (floats(7), ints((4,))))


@operator("NonZero", since=9)
class NonZero(Operator):
    """The indices of all elements that are not 0, one column each, in row-major order."""

    def infer(self, ctx: OpContext) -> list[TensorType]:
        x = ctx.input(0)
        if x.rank == 0:
            ctx.fail("a scalar has no indices")
        return [TensorType("i64", (x.rank, run_time_size(ctx, "found", x.count)))]

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        (x,) = inputs
        assert x is not None
        flat = x.reshape(-1)
        left = np.flatnonzero(flat if x.dtype == np.bool_ else flat != 0)
        found = np.empty((x.ndim, left.size), np.int64)
        for axis in range(x.ndim - 1, 0, -1):
            whole = left // max(1, x.shape[axis])
            np.subtract(left, whole * x.shape[axis], out=found[axis])
            left = whole
        found[0] = left
        return [found]

    def decompose(self, ctx: OpContext, g: GraphRewriter, *inputs: str) -> Sequence[str] | None:
        places, count = g.op("aicc::Places", inputs[0], n_outputs=2)
        return [g.op("Transpose", g.op("aicc::First", places, count), perm=(1, 0))]

    def cases(self) -> Iterable[Case]:
        yield Case("matrix", (integers(3, 5, lo=-1, hi=2),))
        yield Case("vector", (np.array([0.0, -1.5, 0.0, 2.0], np.float32),))
        yield Case("bool", (sample(2, 3, 4, dtype="bool"),))
        yield Case("none", (np.zeros((2, 2), np.float32),))
        named = {(0, 0): "n", (0, 1): "m"}
        yield Case("sizes", (integers(3, 5, lo=-1, hi=2),), symbolic=named)


@operator("Places", domain="aicc", inputs=1)
class Places(Operator):
    """The indices of all elements that are not 0, one row each, in row-major order, in the first
    rows of a tensor that has one for every element; the rest is undefined. Then their number."""

    def infer(self, ctx: OpContext) -> list[TensorType]:
        x = ctx.input(0)
        return [TensorType("i64", (x.count, x.rank)), TensorType("i64", (1,))]

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        (x,) = inputs
        assert x is not None
        found = np.argwhere(x != 0)
        places = np.zeros((x.size, x.ndim), np.int64)
        places[: len(found)] = found
        return [places, np.array([len(found)])]

    def lower(self, ctx: OpContext, b: KernelBuilder, *inputs: Tensor | None) -> Sequence[Tensor]:
        (x,) = inputs
        assert x is not None
        rows = ctx.outputs[0].shape[0]
        places, count = b.temp("places", "i64", (rows, x.rank)), b.temp("count", "i64", (1,))
        last = rows - 1 if isinstance(rows, int) else None
        found = b.temp("found", "i64", (1,))
        b.store(found, (0,), 0)
        with ExitStack() as stack:
            # What stands behind the last one found is written again: no branch to predict.
            i = loops(b, stack, "i", x.shape)
            for axis, index in enumerate(i):
                b.store(places, (as_index(found[0], 0, last), axis), as_expr(index, "i64"))
            counts = call("ne", x[tuple(i)], const(0, x.dtype))
            b.store(found, (0,), found[0] + cast(counts, "i64"))
        b.store(count, (0,), found[0])
        return [places, count]

    def cases(self) -> Iterable[Case]:
        yield Case("all", (floats(2, 3, 4) + 9,), {}, 2, symbolic={(0, 1): "n"})


@operator("Compress", since=9, inputs=2, attributes={"axis": None})
class Compress(Operator):
    """The slices along `axis` (without one: the elements) whose entry of the condition is True."""

    def infer(self, ctx: OpContext) -> list[TensorType]:
        x, condition = ctx.input(0), ctx.input(1)
        if condition.rank != 1 or condition.dtype != "bool":
            ctx.fail("the condition (input 1) must be a bool vector")
        if ctx.attrs.get("axis") is None:
            return [TensorType(x.dtype, (run_time_size(ctx, "kept", x.count),))]
        axis = axis_in(ctx, int(ctx.attrs["axis"]), x.rank)
        kept = run_time_size(ctx, "kept", x.shape[axis])
        return [TensorType(x.dtype, (*x.shape[:axis], kept, *x.shape[axis + 1 :]))]

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        x, condition = inputs
        assert x is not None and condition is not None
        return [np.compress(condition, x, ctx.attrs.get("axis"))]

    def decompose(self, ctx: OpContext, g: GraphRewriter, *inputs: str) -> Sequence[str] | None:
        x, axis = inputs[0], ctx.attrs.get("axis")
        if axis is None:
            x, axis = g.op("Reshape", x, g.constant((-1,), "i64")), 0
        places, count = g.op("aicc::Places", inputs[1], n_outputs=2)
        kept = g.op("aicc::First", g.op("Reshape", places, g.constant((-1,), "i64")), count)
        return [g.op("Gather", x, kept, axis=axis)]

    def cases(self) -> Iterable[Case]:
        x = floats(3, 4)
        yield Case("rows", (x, np.array([True, False, True])), {"axis": 0})
        yield Case("columns", (x, np.array([False, True])), {"axis": -1})
        yield Case("flat", (x, np.array([True, False, True, True, False])))
        yield Case("none", (x, np.zeros(3, np.bool_)), {"axis": 0})
