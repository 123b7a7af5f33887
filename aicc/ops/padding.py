"""Elements before and after axes: Pad."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from aicc.dtypes import to_numpy
from aicc.graph_ir.types import TensorType
from aicc.ops.registry import Array, Case, OpContext, Operator, operator
from aicc.ops.samples import floats, ints, sample
from aicc.ops.sizes import axis_in, within
from aicc.symbolic import Size, lo_of, maximum, minimum, mod, proves_le, proves_lt
from aicc.tensor_ir.builder import KernelBuilder, Tensor
from aicc.tensor_ir.ir import Expr, as_expr, call, cast, const, select

_PAD_MODES = ("constant", "reflect", "edge", "wrap")


@operator("Pad", inputs=(1, 4), attributes={"mode": "constant"})
class Pad(Operator):
    """Elements added before and after axes, or taken away where a pad is negative.

    Operands: data, pads [begins..., ends...], the constant (default 0), axes (default all). Pads
    and constant were attributes before opset 11. Mode `reflect` repeats without the border,
    `wrap` periodically.
    """

    def upgrade(
        self, attrs: dict[str, Any], inputs: list[str], opset: int, graph: Any
    ) -> tuple[dict[str, Any], list[str]]:
        if opset < 11:
            pads, value = attrs.pop("pads", attrs.pop("paddings", None)), attrs.pop("value", 0.0)
            inputs = [
                inputs[0],
                graph.add_constant("pads", np.asarray(pads, np.int64)),
                graph.add_constant("pad_value", np.array(value, np.float32)),
            ]
        return attrs, inputs

    def _pads(self, ctx: OpContext) -> list[tuple[Size, Size]]:
        """Begin and end of every axis."""
        x, pads = ctx.input(0), ctx.require_value(1, "pads")
        axes = range(x.rank)
        if ctx.has(3):
            axes = [axis_in(ctx, a, x.rank) for a in ctx.ints(3, "axes")]  # type: ignore[assignment]
        if len(pads) != 2 * len(axes):
            ctx.fail(f"{len(pads)} pads for {len(axes)} axes")
        result: list[tuple[Size, Size]] = [(0, 0)] * x.rank
        for n, axis in enumerate(axes):
            result[axis] = pads[n], pads[n + len(axes)]
        return result

    def infer(self, ctx: OpContext) -> list[TensorType]:
        x, mode = ctx.input(0), ctx.attrs["mode"]
        if mode not in _PAD_MODES:
            ctx.fail(f"mode must be one of {', '.join(_PAD_MODES)}, not {mode!r}")
        if ctx.has(2) and (ctx.input(2).count != 1 or ctx.input(2).dtype not in (x.dtype, "f32")):
            ctx.fail("the constant (input 2) must be a scalar of the type of the data")
        shape = tuple(d + lo + hi for d, (lo, hi) in zip(x.shape, self._pads(ctx), strict=True))
        for d, full in zip(x.shape, shape, strict=True):
            if proves_lt(full, 0):
                ctx.fail(f"the result has size {full}")
            if mode != "constant" and d == 0 and full != 0:
                ctx.fail(f"mode {mode} has nothing to repeat")
        return [TensorType(x.dtype, shape)]

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        x, pads, value, axes = (*inputs, None, None)[:4]
        assert x is not None and pads is not None
        chosen = range(x.ndim) if axes is None else [int(a) % x.ndim for a in axes]
        widths = [(0, 0)] * x.ndim
        crop = [slice(None)] * x.ndim
        for n, axis in enumerate(chosen):
            lo, hi = int(pads[n]), int(pads[n + len(chosen)])
            widths[axis] = max(lo, 0), max(hi, 0)
            crop[axis] = slice(max(-lo, 0), x.shape[axis] - max(-hi, 0))
        mode = ctx.attrs["mode"]
        options: dict[str, Any] = {}
        if mode == "constant":
            options["constant_values"] = 0 if value is None else value.reshape(()).astype(x.dtype)
        return [np.pad(x[tuple(crop)], widths, mode, **options)]

    def lower(self, ctx: OpContext, b: KernelBuilder, *inputs: Tensor | None) -> Sequence[Tensor]:
        x, _, value, _ = (*inputs, None, None)[:4]
        assert x is not None
        pads, mode = self._pads(ctx), ctx.attrs["mode"]
        if mode != "constant":
            return [self._repeat(ctx, b, x, pads, mode)]
        fill: Expr = const(0, x.dtype)
        if value is not None:
            fill = cast(value[(0,) * value.rank], x.dtype)

        def element(*i: Size) -> Expr:
            own = tuple(v - lo for v, (lo, _) in zip(i, pads, strict=True))
            inside = within(*((v, 0, d) for v, d in zip(own, x.shape, strict=True)))
            return select(inside, x[own], fill)

        return [b.compute(ctx.outputs[0].shape, element)]

    def _repeat(
        self,
        ctx: OpContext,
        b: KernelBuilder,
        x: Tensor,
        pads: Sequence[tuple[Size, Size]],
        mode: str,
    ) -> Tensor:
        for d, (lo, hi) in zip(x.shape, pads, strict=True):
            least = lo_of(d)
            if (lo, hi) != (0, 0) and not isinstance(d, int) and (least is None or least < 1):
                b.check(call("gt", as_expr(d), 0), f"{ctx.node}: {ctx.op}: nothing to repeat")

        # Crops come first: what is taken away is not repeated.
        begins = [maximum(0, -lo) for lo, _ in pads]
        kept = [
            d - begin - maximum(0, -hi)
            for d, begin, (_, hi) in zip(x.shape, begins, pads, strict=True)
        ]

        def source(i: Size, axis: int) -> Size:
            lo, hi = pads[axis]
            if (lo, hi) == (0, 0):
                return i
            return begins[axis] + repeated(i - maximum(0, lo), kept[axis], mode, lo, hi)

        def element(*i: Size) -> Expr:
            return x[tuple(source(v, axis) for axis, v in enumerate(i))]

        return b.compute(ctx.outputs[0].shape, element)

    def cases(self) -> Iterable[Case]:
        x = floats(3, 4, 5)
        one = np.array(1.5, np.float32)
        symbols = {(0, 0): "n", (0, 2): "m"}
        pads = ints((0, 1, 2, 1, 0, 2))
        yield Case("zero", (x, pads), constant=(1,), symbolic=symbols)
        yield Case("constant", (x, pads, one), constant=(1, 2), symbolic=symbols)
        yield Case("run_time", (x, pads, one), constant=(1,))
        for mode in ("reflect", "edge", "wrap"):
            attrs = {"mode": mode}
            yield Case(mode, (x, pads), attrs, constant=(1,), symbolic=symbols)
            far = (floats(2, 3), ints((5, 0, 4, 7)))
            yield Case(f"{mode}_far", far, attrs, constant=(1,), symbolic={(0, 1): "m"})
            line = (floats(1, 3), ints((2, 0, 3, 0)))
            yield Case(f"{mode}_line", line, attrs, constant=(1,))
        axes = (x, ints((1, 2)), None, ints((-1,)))
        yield Case("axes", axes, constant=(1, 3), symbolic=symbols)
        two = (x, ints((1, 0, 0, 3)), one, ints((2, 0)))
        yield Case("two_axes", two, constant=(1, 2, 3), symbolic=symbols)
        yield Case("crop", (x, ints((-1, 0, 2, 0, -2, -1))), constant=(1,), symbolic=symbols)
        yield Case("crop_edge", (x, ints((-1, 1, 0, 1, 0, -2))), {"mode": "edge"}, constant=(1,))
        yield Case("empty", (floats(0, 2), ints((1, 0, 1, 0)), one), constant=(1, 2))
        for t in ("i64", "u8", "f16", "bool"):
            value = np.array(1).astype(to_numpy(t))
            yield Case(t, (sample(4, dtype=t), ints((1, 2)), value), constant=(1, 2))


def repeated(j: Size, extent: Size, mode: str, lo: Size, hi: Size) -> Size:
    """The index inside an axis that stands for `j` outside of it, -lo <= j < extent + hi."""
    if mode == "edge":
        return maximum(0, minimum(j, extent - 1))
    if mode == "wrap":
        return mod(j, maximum(1, extent))
    near = proves_le(lo, extent - 1) and proves_le(hi, extent - 1)
    if near:
        distance = maximum(j, -j)
        return minimum(distance, 2 * (extent - 1) - distance)
    # A zigzag of this period; for a single element it is 1, and every index is 0.
    period = maximum(1, 2 * (extent - 1))
    phase = mod(j, period)
    return minimum(phase, period - phase)
