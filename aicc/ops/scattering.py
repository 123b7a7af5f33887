"""Writing at indices that come from data: ScatterElements, ScatterND."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from aicc.graph_ir.types import TensorType
from aicc.ops.gathering import check_shorter, require_index_type, tuple_length
from aicc.ops.indexing import check_indices, loops, position, require_range
from aicc.ops.registry import Array, Case, OpContext, Operator, operator
from aicc.ops.samples import floats, integers, ints, sample
from aicc.ops.sizes import axis_in, check_agree
from aicc.symbolic import Size, proves_lt
from aicc.tensor_ir.builder import KernelBuilder, Tensor
from aicc.tensor_ir.ir import Expr

REDUCTIONS: dict[str, Callable[[Any, Any], Any]] = {
    "none": lambda old, new: new,
    "add": np.add,
    "mul": np.multiply,
    "max": np.maximum,
    "min": np.minimum,
}
"""What `reduction` does with the element that is there, and an update."""


class Scatter(Operator):
    """A copy of the data with updates at indices; several to one place apply in order."""

    def check_types(self, ctx: OpContext) -> tuple[TensorType, TensorType, TensorType]:
        x, indices, updates = ctx.input(0), ctx.input(1), ctx.input(2)
        if ctx.attrs["reduction"] not in REDUCTIONS:
            ctx.fail(f"reduction must be one of {', '.join(REDUCTIONS)}")
        if x.dtype != updates.dtype or x.rank == 0:
            ctx.fail("data and updates must be of one type, and not scalars")
        if x.dtype == "bool" and ctx.attrs["reduction"] != "none":
            ctx.fail("truth values can only be replaced")
        return x, indices, updates

    def write(
        self, ctx: OpContext, b: KernelBuilder, out: Tensor, at: Sequence[Size], value: Expr
    ) -> None:
        reduction = ctx.attrs["reduction"]
        if reduction == "none":
            b.store(out, at, value)
        else:
            b.accumulate(out, at, value, reduction)


@operator("ScatterElements", since=11, inputs=3, attributes={"axis": 0, "reduction": "none"})
class ScatterElements(Scatter):
    """For each index one update: its place along `axis` is the index, the others its own."""

    def infer(self, ctx: OpContext) -> list[TensorType]:
        x, indices, updates = self.check_types(ctx)
        require_index_type(ctx, 1)
        if not x.rank == indices.rank == updates.rank:
            ctx.fail("data, indices and updates must have one rank")
        axis = axis_in(ctx, int(ctx.attrs["axis"]), x.rank)
        for a, (d, e, u) in enumerate(zip(x.shape, indices.shape, updates.shape, strict=True)):
            if proves_lt(u, e) or (a != axis and proves_lt(d, e)):
                ctx.fail(f"axis {a} of the indices is longer than that of the data or updates")
        require_range(ctx, ctx.constant(1), x.shape[axis])
        return [x.without_value()]

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        x, indices, updates = inputs
        assert x is not None and indices is not None and updates is not None
        axis = int(ctx.attrs["axis"]) % x.ndim
        combine = REDUCTIONS[ctx.attrs["reduction"]]
        result = x.copy()
        for at in np.ndindex(*indices.shape):
            place = (*at[:axis], int(indices[at]), *at[axis + 1 :])
            result[place] = combine(result[place], updates[at])
        return [result]

    def lower(self, ctx: OpContext, b: KernelBuilder, *inputs: Tensor | None) -> Sequence[Tensor]:
        x, indices, updates = inputs
        assert x is not None and indices is not None and updates is not None
        axis = axis_in(ctx, int(ctx.attrs["axis"]), x.rank)
        check_shorter(ctx, b, indices.shape, x.shape, axis)
        check_shorter(ctx, b, indices.shape, updates.shape, -1)
        extent, data = x.shape[axis], ctx.constant(1)
        check_indices(ctx, b, indices.shape, lambda i: indices[tuple(i)], extent, data)
        out = b.compute(x.shape, lambda *i: x[i])
        with ExitStack() as stack:
            i = tuple(loops(b, stack, "u", indices.shape))
            place = position(indices[i], extent, data)
            self.write(ctx, b, out, (*i[:axis], place, *i[axis + 1 :]), updates[i])
        return [out]

    def cases(self) -> Iterable[Case]:
        x, at, new = floats(4, 5), integers(3, 5, lo=-4, hi=4), floats(3, 5, seed=1)
        distinct = np.array([[1, 0, 2, 3, -1], [0, 1, 3, 2, 0]])
        some = x, distinct, floats(2, 5, seed=1)
        yield Case("rows", some, symbolic={(0, 0): "n", (1, 0): "k", (2, 0): "k"})
        columns = x, np.array([[0, 4], [1, -1], [2, 3], [4, 0]]), floats(4, 2, seed=1)
        yield Case("columns", columns, {"axis": 1}, symbolic={(0, 0): "n", (1, 0): "n"})
        yield Case("constant", columns, {"axis": -1}, constant=(1,))
        for reduction in ("add", "mul", "max", "min"):
            yield Case(reduction, (x, at, new), {"reduction": reduction})
        whole = sample(6, dtype="i64"), ints((0, 3, 3)), sample(3, dtype="i64", seed=1)
        yield Case("i64_add", whole, {"reduction": "add"})
        yield Case("bool", (sample(4, dtype="bool"), ints((2,)), np.array([True])))
        yield Case("empty", (x, integers(0, 5, lo=0, hi=1), floats(0, 5)))


@operator("Scatter", since=9, inputs=3, attributes={"axis": 0, "reduction": "none"})
class OldScatter(ScatterElements):
    """ScatterElements under the name that it had in opsets 9 and 10."""

    def cases(self) -> Iterable[Case]:
        at = np.array([[1, 0, 2], [0, 2, 1]])
        yield Case("rows", (floats(3, 3), at, floats(2, 3, seed=1)), symbolic={(0, 0): "n"})


@operator("ScatterND", since=11, inputs=3, attributes={"reduction": "none"})
class ScatterND(Scatter):
    """Updates of slices at index tuples, the last axis of the indices."""

    def infer(self, ctx: OpContext) -> list[TensorType]:
        x, indices, updates = self.check_types(ctx)
        require_index_type(ctx, 1, ("i64",))
        k = tuple_length(ctx)
        if k > x.rank:
            ctx.fail(f"index tuples of {k} do not fit the data")
        wanted = (*indices.shape[:-1], *x.shape[k:])
        if len(wanted) != updates.rank:
            ctx.fail(f"the updates must have rank {len(wanted)}")
        for a, (d, e) in enumerate(zip(wanted, updates.shape, strict=True)):
            if proves_lt(d, e) or proves_lt(e, d):
                ctx.fail(f"axis {a} of the updates has size {e}, not {d}")
        data = ctx.constant(1)
        for c in range(k):
            require_range(ctx, None if data is None else data[..., c], x.shape[c])
        return [x.without_value()]

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        x, indices, updates = inputs
        assert x is not None and indices is not None and updates is not None
        combine = REDUCTIONS[ctx.attrs["reduction"]]
        result = x.copy()
        for at in np.ndindex(*indices.shape[:-1]):
            place = tuple(int(v) for v in indices[at])
            result[place] = combine(result[place], updates[at])
        return [result]

    def lower(self, ctx: OpContext, b: KernelBuilder, *inputs: Tensor | None) -> Sequence[Tensor]:
        x, indices, updates = inputs
        assert x is not None and indices is not None and updates is not None
        k, q, data = tuple_length(ctx), indices.rank - 1, ctx.constant(1)
        for a, (d, e) in enumerate(
            zip((*indices.shape[:-1], *x.shape[k:]), updates.shape, strict=True)
        ):
            check_agree(ctx, b, d, e, f"axis {a}")
        parts = [None if data is None else data[..., c] for c in range(k)]
        for c in range(k):
            check_indices(
                ctx,
                b,
                indices.shape[:-1],
                lambda i, c=c: indices[(*i, c)],  # type: ignore[misc]
                x.shape[c],
                parts[c],
            )
        out = b.compute(x.shape, lambda *i: x[i])
        with ExitStack() as stack:
            i = tuple(loops(b, stack, "u", updates.shape))
            places = [position(indices[(*i[:q], c)], x.shape[c], parts[c]) for c in range(k)]
            self.write(ctx, b, out, (*places, *i[q:]), updates[i])
        return [out]

    def cases(self) -> Iterable[Case]:
        x = floats(4, 3, 5)
        elements = x, np.array([[0, 1, 2], [-1, 2, 0], [3, 0, 4]]), floats(3, seed=1)
        symbols = {(0, 0): "n", (1, 0): "k", (2, 0): "k"}
        yield Case("elements", elements, symbolic=symbols)
        slices = x, np.array([[1], [-1]]), floats(2, 3, 5, seed=1)
        yield Case("slices", slices, symbolic={**symbols, (0, 1): "m", (2, 1): "m"})
        yield Case("constant", slices, constant=(1,))
        grid = x, np.array([[[0, 0], [1, 1]], [[2, 2], [3, 0]]]), floats(2, 2, 5, seed=1)
        yield Case("grid", grid)
        repeated = x, np.array([[1], [1], [0]]), floats(3, 3, 5, seed=1)
        for reduction in ("add", "mul", "max", "min"):
            yield Case(reduction, repeated, {"reduction": reduction})
        yield Case("i64", (sample(5, dtype="i64"), np.array([[4], [0]]), ints((7, 8))))
        yield Case("empty", (x, integers(0, 2, lo=0, hi=1), floats(0, 5)))
