"""Reading at indices that come from data: Gather, GatherElements, GatherND."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from aicc.graph_ir.types import TensorType, trackable
from aicc.ops import values
from aicc.ops.indexing import bounds, check_indices, position, require_range
from aicc.ops.registry import Array, Case, OpContext, Operator, operator
from aicc.ops.samples import floats, integers, ints, sample
from aicc.ops.sizes import agree, axis_in, check_agree
from aicc.symbolic import Size, proves_le, proves_lt
from aicc.tensor_ir.builder import KernelBuilder, Tensor
from aicc.tensor_ir.ir import Expr, as_expr, call


def require_index_type(ctx: OpContext, i: int, allowed: Sequence[str] = ("i64", "i32")) -> None:
    """Raises OperatorError where operand `i` cannot be indices."""
    if ctx.input(i).dtype not in allowed:
        ctx.fail(f"indices (input {i}) must be {' or '.join(allowed)}")


@operator("Gather", inputs=2, attributes={"axis": 0})
class Gather(Operator):
    """Slices of the data along `axis`, one for each index."""

    def infer(self, ctx: OpContext) -> list[TensorType]:
        x, indices = ctx.input(0), ctx.input(1)
        require_index_type(ctx, 1)
        if x.rank == 0:
            ctx.fail("the data have no axes")
        axis = axis_in(ctx, int(ctx.attrs["axis"]), x.rank)
        require_range(ctx, ctx.constant(1), x.shape[axis])
        shape = (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])
        known, places = values.array_of(x), values.array_of(indices)
        if known is not None and places is not None and trackable(x.dtype, shape):
            if all(isinstance(p, int) for p in places.reshape(-1)):
                numbers = places.astype(np.int64)
                if bounds(numbers) is not None:
                    require_range(ctx, numbers, x.shape[axis])
                taken = known.take(numbers.reshape(-1), axis)
                return [values.typed(x.dtype, shape, taken)]
        return [TensorType(x.dtype, shape)]

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        x, indices = inputs
        assert x is not None and indices is not None
        return [np.asarray(np.take(x, indices, int(ctx.attrs["axis"])))]

    def lower(self, ctx: OpContext, b: KernelBuilder, *inputs: Tensor | None) -> Sequence[Tensor]:
        x, indices = inputs
        assert x is not None and indices is not None
        axis = axis_in(ctx, int(ctx.attrs["axis"]), x.rank)
        extent, data, q = x.shape[axis], ctx.constant(1), indices.rank
        check_indices(ctx, b, indices.shape, lambda i: indices[tuple(i)], extent, data)

        def element(*i: Size) -> Expr:
            place = position(indices[i[axis : axis + q]], extent, data)
            return x[(*i[:axis], place, *i[axis + q :])]

        return [b.compute(ctx.outputs[0].shape, element)]

    def cases(self) -> Iterable[Case]:
        x = floats(5, 3, 4)
        symbols = {(0, 0): "n", (0, 1): "m"}
        at = integers(2, 3, lo=-5, hi=5)
        yield Case("rows", (x, at), symbolic={**symbols, (1, 1): "k"})
        yield Case("columns", (x, integers(4, lo=-3, hi=3)), {"axis": 1}, symbolic=symbols)
        yield Case("last", (x, integers(2, 2, dtype="i32", lo=0, hi=4)), {"axis": -1})
        yield Case("scalar", (x, np.array(2)), constant=(1,), symbolic=symbols)
        yield Case("scalar_last", (x, np.array(-1)), {"axis": 1}, constant=(1,), symbolic=symbols)
        yield Case("run_time_scalar", (x, np.array(-2)), symbolic=symbols)
        yield Case("constant", (x, ints((0, 4, 2))), constant=(1,), symbolic=symbols)
        yield Case("mixed", (x, ints((-1, 0))), constant=(1,), symbolic=symbols)
        yield Case("negative", (x, ints((-1, -2))), {"axis": 2}, constant=(1,))
        yield Case("none", (x, ints(())), symbolic=symbols)
        yield Case("table", (x, at), constant=(0,))
        yield Case("known_scalar", (sample(6, dtype="i64"), np.array(-2)), constant=(0, 1))
        yield Case("known", (sample(6, dtype="i64"), ints((1, -1))), constant=(0, 1))
        for t in ("i64", "u8", "f16", "bool"):
            yield Case(t, (sample(4, 2, dtype=t), ints((3, 0, -4))))


@operator("GatherElements", since=11, inputs=2, attributes={"axis": 0})
class GatherElements(Operator):
    """For each index one element: its place along `axis` is the index, the others its own."""

    def infer(self, ctx: OpContext) -> list[TensorType]:
        x, indices = ctx.input(0), ctx.input(1)
        require_index_type(ctx, 1)
        if x.rank != indices.rank or x.rank == 0:
            ctx.fail("data and indices must have one rank, at least 1")
        axis = axis_in(ctx, int(ctx.attrs["axis"]), x.rank)
        for a, (d, e) in enumerate(zip(x.shape, indices.shape, strict=True)):
            if a != axis and proves_lt(d, e):
                ctx.fail(f"axis {a} of the indices is longer than that of the data")
        require_range(ctx, ctx.constant(1), x.shape[axis])
        return [TensorType(x.dtype, indices.shape)]

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        x, indices = inputs
        assert x is not None and indices is not None
        axis = int(ctx.attrs["axis"]) % x.ndim
        crop = tuple(slice(None) if a == axis else slice(d) for a, d in enumerate(indices.shape))
        return [np.take_along_axis(x[crop], indices.astype(np.int64), axis)]

    def lower(self, ctx: OpContext, b: KernelBuilder, *inputs: Tensor | None) -> Sequence[Tensor]:
        x, indices = inputs
        assert x is not None and indices is not None
        axis = axis_in(ctx, int(ctx.attrs["axis"]), x.rank)
        check_shorter(ctx, b, indices.shape, x.shape, axis)
        extent, data = x.shape[axis], ctx.constant(1)
        check_indices(ctx, b, indices.shape, lambda i: indices[tuple(i)], extent, data)

        def element(*i: Size) -> Expr:
            return x[(*i[:axis], position(indices[i], extent, data), *i[axis + 1 :])]

        return [b.compute(indices.shape, element)]

    def cases(self) -> Iterable[Case]:
        x = floats(4, 5)
        symbols = {(0, 0): "n", (1, 0): "n", (0, 1): "m"}
        columns = integers(4, 3, lo=-5, hi=5)
        yield Case("columns", (x, columns), {"axis": 1}, symbolic=symbols)
        yield Case("rows", (x, integers(7, 5, lo=-4, hi=4)), {"axis": 0})
        yield Case("fewer", (x, integers(2, 3, lo=0, hi=4)), symbolic={(0, 0): "n", (0, 1): "m"})
        yield Case("constant", (x, columns), {"axis": -1}, constant=(1,))
        yield Case("i32", (sample(4, dtype="u8"), integers(3, dtype="i32", lo=-4, hi=4)))
        yield Case("empty", (x, integers(0, 5, lo=0, hi=1)))


def check_shorter(
    ctx: OpContext, b: KernelBuilder, part: Sequence[Size], whole: Sequence[Size], axis: int
) -> None:
    """Ends the run where an axis other than `axis` of `part` is longer than that of `whole`."""
    for a, (d, full) in enumerate(zip(part, whole, strict=True)):
        if a != axis and not proves_le(d, full):
            message = f"{ctx.node}: {ctx.op}: axis {a}: {d} is more than {full}"
            b.check(call("le", as_expr(d, "i64"), as_expr(full, "i64")), message)


def tuple_length(ctx: OpContext) -> int:
    """The number of axes that an index tuple (the last axis of operand 1) addresses."""
    indices = ctx.input(1)
    if indices.rank == 0 or not isinstance(indices.shape[-1], int):
        ctx.fail("the last axis of the indices must have a size known at compile time")
    return int(indices.shape[-1])


@operator("GatherND", since=11, inputs=2, attributes={"batch_dims": 0})
class GatherND(Operator):
    """Slices of the data at index tuples, within each of the leading `batch_dims` axes."""

    def infer(self, ctx: OpContext) -> list[TensorType]:
        x, indices = ctx.input(0), ctx.input(1)
        require_index_type(ctx, 1, ("i64",))
        batch, k = int(ctx.attrs["batch_dims"]), tuple_length(ctx)
        if not 0 <= batch < min(x.rank, indices.rank) or batch + k > x.rank:
            ctx.fail(f"batch_dims {batch} and index tuples of {k} do not fit the data")
        lead = tuple(agree(ctx, x.shape[a], indices.shape[a], f"axis {a}") for a in range(batch))
        data = ctx.constant(1)
        for c in range(k):
            require_range(ctx, None if data is None else data[..., c], x.shape[batch + c])
        return [TensorType(x.dtype, (*lead, *indices.shape[batch:-1], *x.shape[batch + k :]))]

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        x, indices = inputs
        assert x is not None and indices is not None
        batch, k = int(ctx.attrs["batch_dims"]), indices.shape[-1]
        result = np.empty((*indices.shape[:-1], *x.shape[batch + k :]), x.dtype)
        for at in np.ndindex(*indices.shape[:-1]):
            result[at] = x[at[:batch] + tuple(int(v) for v in indices[at])]
        return [result]

    def lower(self, ctx: OpContext, b: KernelBuilder, *inputs: Tensor | None) -> Sequence[Tensor]:
        x, indices = inputs
        assert x is not None and indices is not None
        batch, k, data = int(ctx.attrs["batch_dims"]), tuple_length(ctx), ctx.constant(1)
        for a in range(batch):
            check_agree(ctx, b, x.shape[a], indices.shape[a], f"axis {a}")
        parts = [None if data is None else data[..., c] for c in range(k)]
        for c in range(k):
            check_indices(
                ctx,
                b,
                indices.shape[:-1],
                lambda i, c=c: indices[(*i, c)],  # type: ignore[misc]
                x.shape[batch + c],
                parts[c],
            )
        q = indices.rank - 1

        def element(*i: Size) -> Expr:
            places = [
                position(indices[(*i[:q], c)], x.shape[batch + c], parts[c]) for c in range(k)
            ]
            return x[(*i[:batch], *places, *i[q:])]

        return [b.compute(ctx.outputs[0].shape, element)]

    def cases(self) -> Iterable[Case]:
        x = floats(3, 4, 5)
        symbols = {(0, 0): "n", (0, 2): "m", (1, 0): "k"}
        yield Case("elements", (x, integers(6, 3, lo=-3, hi=3)), symbolic=symbols)
        yield Case("slices", (x, integers(2, 2, 1, lo=0, hi=3)), symbolic=symbols)
        rows = (x, integers(3, 2, 1, lo=-4, hi=4))
        yield Case("batch", rows, {"batch_dims": 1}, symbolic={(0, 0): "n", (1, 0): "n"})
        yield Case("batch2", (x, integers(3, 4, 1, lo=-5, hi=5)), {"batch_dims": 2})
        yield Case("constant", (x, np.array([[0, -1], [2, 3]])), constant=(1,), symbolic=symbols)
        yield Case("vector", (x, ints((1, 2))), constant=(1,))
        yield Case("empty", (x, integers(0, 2, lo=0, hi=1)))
        yield Case("bool", (sample(3, 2, dtype="bool"), integers(4, 2, lo=0, hi=2)))
