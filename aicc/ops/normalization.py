"""Normalisation: centring and scaling by statistics of the data, or by given ones.

All but LRN are composed of primitives, the same ones that exporters write out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from aicc.graph_ir.types import TensorType
from aicc.ops.contraction import wide
from aicc.ops.registry import (
    REQUIRED,
    Array,
    Case,
    GraphRewriter,
    OpContext,
    Operator,
    operator,
)
from aicc.ops.samples import sample
from aicc.ops.sizes import accumulator, agree, axes_in, axis_in, within
from aicc.ops.windows import Layout, layout
from aicc.symbolic import Size
from aicc.tensor_ir.builder import KernelBuilder, Tensor
from aicc.tensor_ir.ir import Expr, call, cast, const, select


def _statistics_type(ctx: OpContext) -> str:
    """The type that statistics are computed in: `stash_type`, ONNX's 1 for f32, or the data's."""
    dtype = ctx.input(0).dtype
    return "f32" if dtype in ("f16", "bf16") and ctx.attrs.get("stash_type", 1) == 1 else dtype


def _centre(g: GraphRewriter, x: str, axes: Sequence[int]) -> tuple[str, str]:
    """(mean, x - mean) over axes, which are kept."""
    mean = g.op("ReduceMean", x, g.constant(tuple(axes), "i64"), keepdims=1)
    return mean, g.op("Sub", x, mean)


def _inverse_deviation(
    g: GraphRewriter, centred: str, axes: Sequence[int], epsilon: float, dtype: str
) -> str:
    """1 / sqrt(mean(centred^2) + epsilon) over axes, which are kept."""
    squares = g.op("Mul", centred, centred)
    variance = g.op("ReduceMean", squares, g.constant(tuple(axes), "i64"), keepdims=1)
    shifted = g.op("Add", variance, g.constant(epsilon, dtype))
    return str(g.op("Reciprocal", g.op("Sqrt", shifted)))


def as_dtype(g: GraphRewriter, x: str, dtype: str) -> str:
    """The value, converted where it has another type."""
    return x if g.type_of(x).dtype == dtype else str(g.op("Cast", x, to=dtype))


def per_channel(g: GraphRewriter, x: str, at: Layout) -> str:
    """A vector over channels, shaped to broadcast against an activation."""
    trailing = 0 if at.channels_last else at.rank - 2
    if trailing == 0:
        return x
    return str(g.op("Unsqueeze", x, g.constant(tuple(range(1, trailing + 1)), "i64")))


def spread(x: Array, at: Layout) -> Array:
    """`per_channel` in numpy."""
    return x if at.channels_last else x.reshape(-1, *(1,) * (at.rank - 2))


@operator(
    "LayerNormalization",
    since=1,
    inputs=(2, 3),
    attributes={"axis": -1, "epsilon": 1e-5, "stash_type": 1},
)
class LayerNormalization(Operator):
    """(x - mean) / sqrt(var + epsilon) * scale + bias, over `axis` and all that follow; optionally
    the means and the inverse deviations. ONNX LayerNormalization-17."""

    def infer(self, ctx: OpContext) -> list[TensorType]:
        x = ctx.input(0)
        axis = axis_in(ctx, int(ctx.attrs["axis"]), x.rank)
        row = TensorType(_statistics_type(ctx), (*x.shape[:axis], *(1,) * (x.rank - axis)))
        return [x.without_value(), row, row][: ctx.n_outputs]

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        x, scale, *rest = inputs
        assert x is not None and scale is not None
        axes = tuple(range(axis_in(ctx, int(ctx.attrs["axis"]), x.ndim), x.ndim))
        mean = np.mean(wide(x), axis=axes, keepdims=True)
        deviation = np.sqrt(np.var(wide(x), axis=axes, keepdims=True) + ctx.attrs["epsilon"])
        y = (wide(x) - mean) / deviation * wide(scale)
        if rest and rest[0] is not None:
            y = y + wide(rest[0])
        rows = [a.astype(wide(x).dtype) for a in (mean, 1 / deviation)]
        return [y.astype(x.dtype), *rows][: ctx.n_outputs]

    def decompose(self, ctx: OpContext, g: GraphRewriter, *inputs: str) -> Sequence[str] | None:
        x, dtype = ctx.input(0), _statistics_type(ctx)
        axes = range(axis_in(ctx, int(ctx.attrs["axis"]), x.rank), x.rank)
        mean, centred = _centre(g, as_dtype(g, inputs[0], dtype), axes)
        inverse = _inverse_deviation(g, centred, axes, float(ctx.attrs["epsilon"]), dtype)
        y = g.op("Mul", as_dtype(g, g.op("Mul", centred, inverse), x.dtype), inputs[1])
        if ctx.has(2):
            y = g.op("Add", y, inputs[2])
        return [y, mean, inverse][: ctx.n_outputs]

    def cases(self) -> Iterable[Case]:
        x = sample(2, 3, 8)
        named = {(0, 0): "n", (0, 1): "rows"}
        scale, bias = sample(8), sample(8, seed=1)
        yield Case("last", (x, scale, bias), symbolic=named, constant=(1, 2), atol=1e-5)
        yield Case("no_bias", (x, scale), {"epsilon": 1e-2}, atol=1e-5)
        pair = (x, sample(3, 8), sample(3, 8, seed=1))
        yield Case("axis1", pair, {"axis": 1}, symbolic={(0, 0): "n"}, atol=1e-5)
        yield Case("statistics", (x, scale, bias), n_outputs=3, atol=1e-5)
        half = tuple(a.astype(np.float16) for a in (x, scale, bias))
        yield Case("f16", half, rtol=4e-3, atol=4e-3)


@operator(
    "RMSNormalization",
    since=23,
    inputs=2,
    attributes={"axis": -1, "epsilon": 1e-5, "stash_type": 1},
)
class RMSNormalization(Operator):
    """x / sqrt(mean(x^2) + epsilon) * scale, over `axis` and all that follow.
    ONNX RMSNormalization-23."""

    def infer(self, ctx: OpContext) -> list[TensorType]:
        axis_in(ctx, int(ctx.attrs["axis"]), ctx.input(0).rank)
        return [ctx.input(0).without_value()]

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        x, scale = inputs
        assert x is not None and scale is not None
        axes = tuple(range(axis_in(ctx, int(ctx.attrs["axis"]), x.ndim), x.ndim))
        square = np.mean(np.square(wide(x)), axis=axes, keepdims=True)
        y = wide(x) / np.sqrt(square + np.float32(ctx.attrs["epsilon"]))
        return [(y * wide(scale)).astype(x.dtype)]

    def decompose(self, ctx: OpContext, g: GraphRewriter, *inputs: str) -> Sequence[str] | None:
        x, dtype = ctx.input(0), _statistics_type(ctx)
        axes = range(axis_in(ctx, int(ctx.attrs["axis"]), x.rank), x.rank)
        exact = as_dtype(g, inputs[0], dtype)
        inverse = _inverse_deviation(g, exact, axes, float(ctx.attrs["epsilon"]), dtype)
        y = as_dtype(g, g.op("Mul", exact, inverse), x.dtype)
        return [g.op("Mul", y, inputs[1])]

    def cases(self) -> Iterable[Case]:
        x = sample(2, 3, 8)
        named = {(0, 0): "n", (0, 1): "rows"}
        yield Case("last", (x, sample(8)), symbolic=named, constant=(1,))
        yield Case("axis1", (x, sample(3, 8)), {"axis": 1, "epsilon": 1e-2})


@operator(
    "InstanceNormalization",
    since=6,
    inputs=3,
    attributes={"epsilon": 1e-5, "channels_last": 0},
)
class InstanceNormalization(Operator):
    """(x - mean) / sqrt(var + epsilon) * scale + bias with the statistics of each channel of each
    sample. ONNX InstanceNormalization-22."""

    def infer(self, ctx: OpContext) -> list[TensorType]:
        layout(ctx, ctx.input(0).rank)
        return [ctx.input(0).without_value()]

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        x, scale, bias = (a for a in inputs if a is not None)
        at = layout(ctx, x.ndim)
        mean = np.mean(wide(x), axis=at.spatial, keepdims=True)
        variance = np.var(wide(x), axis=at.spatial, keepdims=True)
        y = (wide(x) - mean) / np.sqrt(variance + ctx.attrs["epsilon"])
        return [(y * spread(wide(scale), at) + spread(wide(bias), at)).astype(x.dtype)]

    def decompose(self, ctx: OpContext, g: GraphRewriter, *inputs: str) -> Sequence[str] | None:
        x, dtype = ctx.input(0), _statistics_type(ctx)
        at = layout(ctx, x.rank)
        _, centred = _centre(g, as_dtype(g, inputs[0], dtype), at.spatial)
        epsilon = float(ctx.attrs["epsilon"])
        inverse = _inverse_deviation(g, centred, at.spatial, epsilon, dtype)
        y = as_dtype(g, g.op("Mul", centred, inverse), x.dtype)
        y = g.op("Mul", y, per_channel(g, inputs[1], at))
        return [g.op("Add", y, per_channel(g, inputs[2], at))]

    def cases(self) -> Iterable[Case]:
        x, given = sample(2, 3, 4, 5), (sample(3), sample(3, seed=1))
        last = np.ascontiguousarray(np.moveaxis(x, 1, -1))
        yield Case("plane", (x, *given), symbolic={(0, 0): "n", (0, 2): "h"}, atol=1e-5)
        yield Case("channels_last", (last, *given), {"channels_last": 1}, atol=1e-5)
        yield Case("line", (sample(2, 3, 7), *given), {"epsilon": 0.1}, atol=1e-5)


@operator(
    "GroupNormalization",
    since=18,
    inputs=3,
    attributes={"num_groups": REQUIRED, "epsilon": 1e-5, "stash_type": 1, "per_group": 0},
)
class GroupNormalization(Operator):
    """(x - mean) / sqrt(var + epsilon) * scale + bias with the statistics of each group of channels
    of each sample. Scale and bias are for each channel, or with `per_group`, as in opset 18, for
    each group. ONNX GroupNormalization-21."""

    def upgrade(
        self, attrs: dict[str, Any], inputs: list[str], opset: int, graph: Any
    ) -> tuple[dict[str, Any], list[str]]:
        if opset < 21:
            attrs["per_group"] = 1
        return attrs, inputs

    def infer(self, ctx: OpContext) -> list[TensorType]:
        x, groups = ctx.input(0), int(ctx.attrs["num_groups"])
        layout(ctx, x.rank)
        channels = x.shape[1]
        if groups < 1 or (isinstance(channels, int) and channels % groups):
            ctx.fail(f"{channels} channels do not divide into {groups} groups")
        expected = groups if ctx.attrs["per_group"] else channels
        for i in (1, 2):
            agree(ctx, ctx.input(i).count, expected, "elements of scale and bias")
        return [x.without_value()]

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        x, scale, bias = (a for a in inputs if a is not None)
        groups, channels = int(ctx.attrs["num_groups"]), x.shape[1]
        rows = wide(x).reshape(x.shape[0], groups, -1)
        mean = rows.mean(-1, keepdims=True)
        deviation = np.sqrt(rows.var(-1, keepdims=True) + ctx.attrs["epsilon"])
        y = ((rows - mean) / deviation).reshape(x.shape)
        repeat = channels // groups if ctx.attrs["per_group"] else 1
        ones = (1,) * (x.ndim - 2)
        factor, offset = (np.repeat(wide(a), repeat).reshape(-1, *ones) for a in (scale, bias))
        return [(y * factor + offset).astype(x.dtype)]

    def decompose(self, ctx: OpContext, g: GraphRewriter, *inputs: str) -> Sequence[str] | None:
        x, dtype = ctx.input(0), _statistics_type(ctx)
        groups, epsilon = int(ctx.attrs["num_groups"]), float(ctx.attrs["epsilon"])
        rows = g.op("Reshape", inputs[0], g.constant((0, groups, -1), "i64"))
        _, centred = _centre(g, as_dtype(g, rows, dtype), (2,))
        inverse = _inverse_deviation(g, centred, (2,), epsilon, dtype)
        y = as_dtype(g, g.op("Mul", centred, inverse), x.dtype)

        def affine(value: str, at: Layout) -> str:
            value = g.op("Mul", value, per_channel(g, inputs[1], at))
            return str(g.op("Add", value, per_channel(g, inputs[2], at)))

        if ctx.attrs["per_group"]:
            y = affine(y, Layout(3, False))
        y = g.op("Reshape", y, g.op("Shape", inputs[0]))
        return [y if ctx.attrs["per_group"] else affine(y, Layout(x.rank, False))]

    def cases(self) -> Iterable[Case]:
        x, named = sample(2, 6, 4, 5), {(0, 0): "n", (0, 2): "h", (0, 3): "w"}
        given = (sample(6), sample(6, seed=1))
        yield Case("channels", (x, *given), {"num_groups": 2}, symbolic=named, atol=1e-5)
        pair = (sample(2), sample(2, seed=1))
        yield Case("groups", (x, *pair), {"num_groups": 2, "per_group": 1}, atol=1e-5)
        yield Case("line", (sample(2, 6, 7), *given), {"num_groups": 3}, atol=1e-5)


@operator(
    "LRN",
    since=1,
    inputs=1,
    attributes={"alpha": 1e-4, "beta": 0.75, "bias": 1.0, "size": REQUIRED, "channels_last": 0},
)
class LRN(Operator):
    """x / (bias + alpha/size * s)^beta, s the sum of squares of `size` neighbouring channels.
    ONNX LRN-13."""

    def infer(self, ctx: OpContext) -> list[TensorType]:
        layout(ctx, ctx.input(0).rank)
        if int(ctx.attrs["size"]) < 1:
            ctx.fail("size must be positive")
        return [ctx.input(0).without_value()]

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        x = inputs[0]
        assert x is not None
        at, size = layout(ctx, x.ndim), int(ctx.attrs["size"])
        first = wide(at.to_first(x))
        before = (size - 1) // 2
        total = np.zeros_like(first)
        for c in range(first.shape[1]):
            window = first[:, max(0, c - before) : c + size - before]
            total[:, c] = np.sum(np.square(window), axis=1)
        base = ctx.attrs["bias"] + ctx.attrs["alpha"] / size * total
        return [at.from_first((first / base ** ctx.attrs["beta"]).astype(x.dtype))]

    def lower(self, ctx: OpContext, b: KernelBuilder, *inputs: Tensor | None) -> Sequence[Tensor]:
        x = inputs[0]
        assert x is not None
        at, size = layout(ctx, x.rank), int(ctx.attrs["size"])
        n, channels, spatial = at.split(x.shape)
        before, sum_type = (size - 1) // 2, accumulator(x.dtype)
        bias, alpha, beta = (float(ctx.attrs[k]) for k in ("bias", "alpha", "beta"))

        def square(*index: Size) -> Expr:
            i, c, place = at.split(index)
            value = cast(x[at.join(i, c - before, place)], sum_type)
            inside = within((c - before, 0, channels))
            return select(inside, value * value, const(0, sum_type))

        squares = b.compute(at.join(n, channels + size - 1, spatial), square, name="squares")

        def neighbour(*index: Size) -> Expr:
            i, c, place = at.split(index[: x.rank])
            return squares[at.join(i, c + index[-1], place)]

        total = b.reduce(x.shape, (size,), neighbour, name="sum")

        def scale(*index: Size) -> Expr:
            base = total[index] * (alpha / size) + bias
            if beta == 0.75:  # the usual value; two roots are faster than a power
                root = call("sqrt", base)
                power = root * call("sqrt", root)
            else:
                power = call("pow", base, beta)
            return cast(cast(x[index], sum_type) / power, x.dtype)

        return [b.compute(x.shape, scale, name="lrn")]

    def cases(self) -> Iterable[Case]:
        x = sample(2, 7, 3, 4)
        last = np.ascontiguousarray(np.moveaxis(x, 1, -1))
        named = {(0, 0): "n", (0, 2): "h"}
        yield Case("odd", (x,), {"size": 5, "alpha": 0.3, "bias": 2.0}, symbolic=named)
        yield Case("even", (x,), {"size": 4, "alpha": 0.3, "beta": 0.6})
        yield Case("channels_last", (last,), {"size": 3, "alpha": 0.3, "channels_last": 1})
        yield Case("size_one", (x,), {"size": 1, "alpha": 0.3})


@operator("MeanVarianceNormalization", since=9, inputs=1, attributes={"axes": (0, 2, 3)})
class MeanVarianceNormalization(Operator):
    """(x - mean) / (deviation + 1e-9) over axes. ONNX MeanVarianceNormalization-13."""

    def infer(self, ctx: OpContext) -> list[TensorType]:
        axes_in(ctx, ctx.attrs["axes"], ctx.input(0).rank)
        return [ctx.input(0).without_value()]

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        x = inputs[0]
        assert x is not None
        axes = axes_in(ctx, ctx.attrs["axes"], x.ndim)
        mean = np.mean(wide(x), axis=axes, keepdims=True)
        deviation = np.std(wide(x), axis=axes, keepdims=True)
        return [((wide(x) - mean) / (deviation + 1e-9)).astype(x.dtype)]

    def decompose(self, ctx: OpContext, g: GraphRewriter, *inputs: str) -> Sequence[str] | None:
        x, dtype = ctx.input(0), _statistics_type(ctx)
        axes = axes_in(ctx, ctx.attrs["axes"], x.rank)
        _, centred = _centre(g, as_dtype(g, inputs[0], dtype), axes)
        squares = g.op("Mul", centred, centred)
        variance = g.op("ReduceMean", squares, g.constant(axes, "i64"), keepdims=1)
        deviation = g.op("Add", g.op("Sqrt", variance), g.constant(1e-9, dtype))
        return [as_dtype(g, g.op("Div", centred, deviation), x.dtype)]

    def cases(self) -> Iterable[Case]:
        yield Case("default", (sample(2, 3, 4, 5),), symbolic={(0, 0): "n"}, atol=1e-5)
        yield Case("axes", (sample(2, 3, 4),), {"axes": (1, -1)}, atol=1e-5)


@operator("LpNormalization", since=1, inputs=1, attributes={"axis": -1, "p": 2})
class LpNormalization(Operator):
    """x divided by its p-norm over an axis; 0 where the norm is 0. ONNX LpNormalization-22."""

    def infer(self, ctx: OpContext) -> list[TensorType]:
        axis_in(ctx, int(ctx.attrs["axis"]), ctx.input(0).rank)
        if ctx.attrs["p"] not in (1, 2):
            ctx.fail("p must be 1 or 2")
        return [ctx.input(0).without_value()]

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        x = inputs[0]
        assert x is not None
        axis = int(ctx.attrs["axis"])
        norm = np.linalg.norm(wide(x), ord=int(ctx.attrs["p"]), axis=axis, keepdims=True)
        return [(wide(x) / np.where(norm == 0, 1, norm)).astype(x.dtype)]

    def decompose(self, ctx: OpContext, g: GraphRewriter, *inputs: str) -> Sequence[str] | None:
        dtype = ctx.input(0).dtype
        axes = g.constant((int(ctx.attrs["axis"]),), "i64")
        norm = g.op(f"ReduceL{ctx.attrs['p']}", inputs[0], axes, keepdims=1)
        zero = g.op("Equal", norm, g.constant(0, dtype))
        divisor = g.op("Where", zero, g.constant(1, dtype), norm)
        return [g.op("Div", inputs[0], divisor)]

    def cases(self) -> Iterable[Case]:
        x = sample(3, 4, 5)
        x[1, :, 2] = 0
        for p in (1, 2):
            for axis in (1, -1):
                attrs = {"p": p, "axis": axis}
                yield Case(f"p{p}_axis{axis}", (x,), attrs, symbolic={(0, 0): "n"})
