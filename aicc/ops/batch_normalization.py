"""BatchNormalization: with given statistics, or those of the batch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from aicc.errors import OperatorError
from aicc.graph_ir.types import TensorType
from aicc.ops.contraction import wide
from aicc.ops.normalization import as_dtype, per_channel, spread
from aicc.ops.registry import (
    Array,
    Case,
    GraphRewriter,
    OpContext,
    Operator,
    operator,
)
from aicc.ops.samples import floats, sample
from aicc.ops.sizes import agree
from aicc.ops.windows import Layout


@operator(
    "BatchNormalization",
    since=7,
    inputs=5,
    attributes={"epsilon": 1e-5, "momentum": 0.9, "training_mode": 0, "channels_last": 0},
)
class BatchNormalization(Operator):
    """(x - mean) / sqrt(var + epsilon) * scale + bias for each channel, with given statistics, or
    in training mode with those of the batch; then results 1 and 2 are the given ones, moved towards
    these by 1 - momentum. ONNX BatchNormalization-15."""

    def upgrade(
        self, attrs: dict[str, Any], inputs: list[str], opset: int, graph: Any
    ) -> tuple[dict[str, Any], list[str]]:
        if attrs.pop("spatial", 1) == 0:
            raise OperatorError("BatchNormalization with spatial = 0 is not supported")
        return attrs, inputs

    @staticmethod
    def _layout(ctx: OpContext) -> Layout:
        rank = ctx.input(0).rank
        if rank < 2:
            ctx.fail("the data need a batch and a channel axis")
        return Layout(rank, bool(ctx.attrs["channels_last"]) or rank == 2)

    def infer(self, ctx: OpContext) -> list[TensorType]:
        if ctx.n_outputs > (3 if ctx.attrs["training_mode"] else 1):
            ctx.fail(f"{ctx.n_outputs} results are not supported")
        x, at = ctx.input(0), self._layout(ctx)
        for i in range(1, 5):
            if ctx.input(i).rank != 1:
                ctx.fail(f"input {i} must have one axis")
            agree(ctx, ctx.input(i).shape[0], x.shape[at.channel], "channels")
        moved = [ctx.input(i).without_value() for i in (3, 4)]
        return [x.without_value(), *moved][: ctx.n_outputs]

    @staticmethod
    def _others(at: Layout) -> tuple[int, ...]:
        """The axes that the statistics of a batch go over."""
        return tuple(a for a in range(at.rank) if a != at.channel)

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        at = self._layout(ctx)
        x, *given = (a for a in inputs if a is not None)
        scale, bias, mean, variance = (wide(a) for a in given)
        moved: list[Array] = []
        if ctx.attrs["training_mode"]:
            own = [f(wide(x), axis=self._others(at)) for f in (np.mean, np.var)]
            keep = float(ctx.attrs["momentum"])
            for a, old, new in zip(given[2:], (mean, variance), own):
                moved.append((old * keep + new * (1 - keep)).astype(a.dtype))
            mean, variance = own
        centred = wide(x) - spread(mean, at)
        scaled = centred / np.sqrt(spread(variance, at) + ctx.attrs["epsilon"])
        y = scaled * spread(scale, at) + spread(bias, at)
        return [y.astype(x.dtype), *moved][: ctx.n_outputs]

    def decompose(self, ctx: OpContext, g: GraphRewriter, *inputs: str) -> Sequence[str] | None:
        """x * s + t, where s and t fold into constants if the statistics are constant."""
        x, scale, bias, mean, variance = inputs
        at, dtype = self._layout(ctx), ctx.input(4).dtype
        if ctx.attrs["training_mode"]:
            return self._with_own_statistics(ctx, g, *inputs)
        shifted = g.op("Add", variance, g.constant(float(ctx.attrs["epsilon"]), dtype))
        factor = g.op("Div", as_dtype(g, scale, dtype), g.op("Sqrt", shifted))
        offset = g.op("Sub", as_dtype(g, bias, dtype), g.op("Mul", mean, factor))
        s, t = (per_channel(g, as_dtype(g, a, ctx.input(0).dtype), at) for a in (factor, offset))
        return [g.op("Add", g.op("Mul", x, s), t)]

    def _with_own_statistics(
        self, ctx: OpContext, g: GraphRewriter, x: str, scale: str, bias: str, *given: str
    ) -> Sequence[str]:
        at, dtype = self._layout(ctx), ctx.input(4).dtype
        data = as_dtype(g, x, dtype)
        axes = g.constant(self._others(at), "i64")
        mean = g.op("ReduceMean", data, axes, keepdims=0)
        centred = g.op("Sub", data, per_channel(g, mean, at))
        variance = g.op("ReduceMean", g.op("Mul", centred, centred), axes, keepdims=0)
        shifted = g.op("Add", variance, g.constant(float(ctx.attrs["epsilon"]), dtype))
        factor = g.op("Div", as_dtype(g, scale, dtype), g.op("Sqrt", shifted))
        scaled = g.op("Mul", centred, per_channel(g, factor, at))
        y = g.op("Add", scaled, per_channel(g, as_dtype(g, bias, dtype), at))
        results = [as_dtype(g, y, ctx.input(0).dtype)]
        keep = float(ctx.attrs["momentum"])
        for old, new in zip(given, (mean, variance)):
            kind = g.type_of(old).dtype
            part = g.op("Mul", as_dtype(g, new, kind), g.constant(1 - keep, kind))
            results.append(g.op("Add", g.op("Mul", old, g.constant(keep, kind)), part))
        return results[: ctx.n_outputs]

    def cases(self) -> Iterable[Case]:
        given = [sample(3, seed=n) for n in range(3)] + [floats(3, lo=0.5, hi=2.0)]
        x = sample(2, 3, 4, 5)
        last = np.ascontiguousarray(np.moveaxis(x, 1, -1))
        named = {(0, 0): "n", (0, 2): "h"}
        yield Case("plane", (x, *given), constant=(1, 2, 3, 4), symbolic=named, atol=1e-5)
        yield Case("channels_last", (last, *given), {"channels_last": 1}, atol=1e-5)
        yield Case("epsilon", (x, *given), {"epsilon": 0.1}, atol=1e-5)
        yield Case("no_space", (sample(4, 3), *given), atol=1e-5)
        yield Case("line", (sample(2, 3, 7), *given), atol=1e-5)
        training = {"training_mode": 1, "momentum": 0.7}
        yield Case("training", (x, *given), training, 3, symbolic=named, atol=1e-5)
        yield Case("training_one", (sample(1, 3, 20), *given), training, atol=1e-5)
        turned = {**training, "channels_last": 1}
        yield Case("training_channels_last", (last, *given), turned, 3, atol=1e-5)
