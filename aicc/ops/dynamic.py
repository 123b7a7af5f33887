"""Operators whose result sizes depend on data: run-time symbols with an upper bound."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from aicc.graph_ir.types import TensorType
from aicc.ops.registry import Array, Case, OpContext, Operator, operator
from aicc.ops.samples import floats, integers, sample
from aicc.ops.sizes import axis_in
from aicc.symbolic import Size, hi_of


def run_time_size(ctx: OpContext, base: str, most: Size) -> Size:
    """A new symbol for a size that is known when the operator has run, and is at most `most`."""
    if ctx.fresh_symbol is None:
        ctx.fail("a size that is only known at run time cannot stand here")
    return ctx.fresh_symbol(base, hi_of(most))


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

    def cases(self) -> Iterable[Case]:
        yield Case("matrix", (integers(3, 5, lo=-1, hi=2),))
        yield Case("vector", (np.array([0.0, -1.5, 0.0, 2.0], np.float32),))
        yield Case("bool", (sample(2, 3, 4, dtype="bool"),))
        yield Case("none", (np.zeros((2, 2), np.float32),))


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

    def cases(self) -> Iterable[Case]:
        x = floats(3, 4)
        yield Case("rows", (x, np.array([True, False, True])), {"axis": 0})
        yield Case("columns", (x, np.array([False, True])), {"axis": -1})
        yield Case("flat", (x, np.array([True, False, True, True, False])))
        yield Case("none", (x, np.zeros(3, np.bool_)), {"axis": 0})
