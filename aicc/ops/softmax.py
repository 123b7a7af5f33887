"""Softmax and its relatives: distributions over an axis."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from aicc.dtypes import is_float
from aicc.graph_ir.types import TensorType
from aicc.ops.contraction import wide
from aicc.ops.registry import Array, Case, GraphRewriter, OpContext, Operator, operator
from aicc.ops.samples import sample
from aicc.ops.sizes import axis_in
from aicc.symbolic import Size, product
from aicc.tensor_ir.builder import KernelBuilder, Tensor
from aicc.tensor_ir.ir import Expr, as_expr, call, const, select

_ATTRIBUTES = {"axis": -1, "flatten": 0}
"""`flatten`: the distribution is over all axes from `axis` on, as it was before opset 13."""


class _Distribution(Operator):
    """Common to operators that normalise over one axis, or over `axis` and all that follow."""

    def upgrade(
        self, attrs: dict[str, Any], inputs: list[str], opset: int, graph: Any
    ) -> tuple[dict[str, Any], list[str]]:
        if opset < 13:
            attrs.setdefault("axis", 1)
            attrs["flatten"] = 1
        return attrs, inputs

    def infer(self, ctx: OpContext) -> list[TensorType]:
        self._axes(ctx)
        return [ctx.input(0).without_value()]

    @staticmethod
    def _axes(ctx: OpContext) -> tuple[int, ...]:
        rank, axis = ctx.input(0).rank, int(ctx.attrs["axis"])
        if ctx.attrs["flatten"] and axis == rank:
            return ()
        first = axis_in(ctx, axis, rank)
        return tuple(range(first, rank)) if ctx.attrs["flatten"] else (first,)

    def cases(self) -> Iterable[Case]:
        x = sample(2, 3, 5) * 3
        for axis in (0, 1, 2, -1):
            named = {(0, 0): "n", (0, 2): "m"}
            yield Case(f"axis{axis}", (x,), {"axis": axis}, symbolic=named)
        yield Case("flatten", (x,), {"axis": 1, "flatten": 1}, symbolic={(0, 2): "m"})
        yield Case("long", (sample(2, 67) * 20,))
        yield Case("ties", (np.round(x),))
        half = sample(3, 9, dtype="f16")
        yield Case("f16", (half,), rtol=4e-3, atol=4e-3)


@operator("Softmax", since=1, inputs=1, attributes=_ATTRIBUTES)
class Softmax(_Distribution):
    """exp(x) / sum(exp(x)) over an axis. ONNX Softmax-13."""

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        x = inputs[0]
        assert x is not None
        axes = self._axes(ctx)
        e = np.exp(wide(x) - np.max(wide(x), axis=axes, keepdims=True))
        return [(e / np.sum(e, axis=axes, keepdims=True)).astype(x.dtype)]

    def decompose(self, ctx: OpContext, g: GraphRewriter, *inputs: str) -> Sequence[str] | None:
        axes = g.constant(self._axes(ctx), "i64")
        keep = {"keepdims": 1, "noop_with_empty_axes": 1}
        e = g.op("Exp", g.op("Sub", inputs[0], g.op("ReduceMax", inputs[0], axes, **keep)))
        # One division per row; rounding differs from a division per element by one ulp at most.
        scale = g.op("Reciprocal", g.op("ReduceSum", e, axes, **keep))
        return [g.op("Mul", e, scale)]


@operator("LogSoftmax", since=1, inputs=1, attributes=_ATTRIBUTES)
class LogSoftmax(_Distribution):
    """The logarithm of Softmax. ONNX LogSoftmax-13."""

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        x = inputs[0]
        assert x is not None
        axes = self._axes(ctx)
        d = wide(x) - np.max(wide(x), axis=axes, keepdims=True)
        return [(d - np.log(np.sum(np.exp(d), axis=axes, keepdims=True))).astype(x.dtype)]

    def decompose(self, ctx: OpContext, g: GraphRewriter, *inputs: str) -> Sequence[str] | None:
        axes = g.constant(self._axes(ctx), "i64")
        keep = {"keepdims": 1, "noop_with_empty_axes": 1}
        d = g.op("Sub", inputs[0], g.op("ReduceMax", inputs[0], axes, **keep))
        total = g.op("ReduceSum", g.op("Exp", d), axes, **keep)
        return [g.op("Sub", d, g.op("Log", total))]


@operator("Hardmax", since=1, inputs=1, attributes=_ATTRIBUTES)
class Hardmax(_Distribution):
    """1 at the first of the largest elements over an axis, else 0. ONNX Hardmax-13."""

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        x = inputs[0]
        assert x is not None
        axes = self._axes(ctx)
        moved = np.moveaxis(x, axes, range(x.ndim - len(axes), x.ndim))
        flat = moved.reshape(*moved.shape[: x.ndim - len(axes)], -1)
        y = np.zeros_like(flat)
        np.put_along_axis(y, np.argmax(flat, axis=-1)[..., None], 1, -1)
        back = np.moveaxis(y.reshape(moved.shape), range(x.ndim - len(axes), x.ndim), axes)
        return [np.ascontiguousarray(back)]

    def lower(self, ctx: OpContext, b: KernelBuilder, *inputs: Tensor | None) -> Sequence[Tensor]:
        x = inputs[0]
        assert x is not None
        axes = self._axes(ctx)
        shape = tuple(1 if n in axes else d for n, d in enumerate(x.shape))
        extents = tuple(x.shape[a] for a in axes)

        def element(*index: Size) -> Expr:
            at = dict(zip(axes, index[x.rank :]))
            return x[tuple(at.get(n, i) for n, i in enumerate(index[: x.rank]))]

        def number(position: Sequence[Size]) -> Size:
            flat: Size = 0
            for i, d in zip(position, extents):
                flat = flat * d + i
            return flat

        best = b.reduce(shape, extents, element, op="max", name="best")
        place = first_best(b, shape, extents, element, best, number)

        def hit(*index: Size) -> Expr:
            row = tuple(0 if n in axes else i for n, i in enumerate(index))
            own = as_expr(number([index[a] for a in axes]))
            one, zero = const(1, x.dtype), const(0, x.dtype)
            return select(call("eq", own, place[row]), one, zero)

        return [b.compute(x.shape, hit, name="hardmax")]


def first_best(
    b: KernelBuilder,
    shape: Sequence[Size],
    extents: Sequence[Size],
    element: Any,
    best: Tensor,
    number: Any,
) -> Tensor:
    """The least `number(position)` among the positions in `extents` whose
    `element(*index, *position)` equals `best[index]`. A NaN counts as the best."""
    rank = len(shape)
    nothing = product(extents)

    def score(*index: Size) -> Expr:
        value = element(*index)
        wins = call("eq", value, best[index[:rank]])
        if is_float(value.dtype):
            wins = call("or", wins, call("isnan", value))
        return select(wins, as_expr(number(index[rank:]), "i64"), as_expr(nothing, "i64"))

    return b.reduce(shape, extents, score, op="min", name="position")
