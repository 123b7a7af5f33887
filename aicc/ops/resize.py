"""Resize and Upsample: resampling along axes, one axis after the other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from aicc.dtypes import is_float
from aicc.graph_ir.types import TensorType
from aicc.ops.contraction import wide
from aicc.ops.registry import Array, Case, GraphRewriter, OpContext, Operator, operator
from aicc.ops.samples import ints, sample
from aicc.ops.sampling import COORDINATES, POLICIES, ROUNDINGS, Sampler, Scale, scaled, scales_of
from aicc.ops.sizes import accumulator
from aicc.ops.windows import text
from aicc.symbolic import Size
from aicc.tensor_ir.builder import KernelBuilder, Tensor
from aicc.tensor_ir.ir import Expr, call, cast, const, select

_ATTRIBUTES = {
    "antialias": 0,
    "axes": (),
    "coordinate_transformation_mode": "half_pixel",
    "cubic_coeff_a": -0.75,
    "exclude_outside": 0,
    "extrapolation_value": 0.0,
    "keep_aspect_ratio_policy": "stretch",
    "mode": "nearest",
    "nearest_mode": "round_prefer_floor",
}


@operator("Resize", since=10, inputs=(1, 4), attributes=_ATTRIBUTES)
class Resize(Operator):
    """Resampling to `scales` or `sizes` (operands 2 and 3), of all axes or of `axes`: nearest,
    linear or cubic; operand 1 is the region for tf_crop_and_resize. ONNX Resize-19."""

    def upgrade(
        self, attrs: dict[str, Any], inputs: list[str], opset: int, graph: Any
    ) -> tuple[dict[str, Any], list[str]]:
        if opset < 11:
            attrs["coordinate_transformation_mode"] = "asymmetric"
            attrs["nearest_mode"] = "simple"
            inputs = [inputs[0], "", *inputs[1:]]
        return attrs, inputs

    def infer(self, ctx: OpContext) -> list[TensorType]:
        x = ctx.input(0)
        self._check(ctx)
        factors = ctx.constant(2) if self._given(ctx, 2) else None
        if self._given(ctx, 2) and factors is None:
            ctx.fail("scales must be known at compile time")
        sizes = ctx.require_value(3, "sizes") if self._given(ctx, 3) else None
        return [TensorType(x.dtype, self._shape(x.shape, scales_of(ctx, x.shape, factors, sizes)))]

    @staticmethod
    def _given(ctx: OpContext, i: int) -> bool:
        return ctx.has(i) and ctx.input(i).count != 0

    @staticmethod
    def _shape(shape: Sequence[Size], scales: Sequence[Scale]) -> tuple[Size, ...]:
        results = {s.axis: s.result for s in scales}
        return tuple(results.get(n, d) for n, d in enumerate(shape))

    @staticmethod
    def _check(ctx: OpContext) -> None:
        for name, known in (
            ("coordinate_transformation_mode", COORDINATES),
            ("nearest_mode", ROUNDINGS),
            ("mode", ("nearest", "linear", "cubic")),
        ):
            if text(ctx.attrs[name]) not in known:
                ctx.fail(f"unknown {name} {text(ctx.attrs[name])!r}")
        if ctx.attrs["antialias"] and text(ctx.attrs["mode"]) != "nearest":
            ctx.fail("antialias is not supported")
        crop = text(ctx.attrs["coordinate_transformation_mode"]) == "tf_crop_and_resize"
        if crop and not Resize._given(ctx, 1):
            ctx.fail("tf_crop_and_resize needs a region of interest (input 1)")

    def lower(self, ctx: OpContext, b: KernelBuilder, *inputs: Tensor | None) -> Sequence[Tensor]:
        x = inputs[0]
        assert x is not None
        factors = ctx.constant(2) if self._given(ctx, 2) else None
        sizes = ctx.value(3) if self._given(ctx, 3) else None
        scales = scales_of(ctx, x.shape, factors, sizes)
        mode = text(ctx.attrs["mode"])
        crop = text(ctx.attrs["coordinate_transformation_mode"]) == "tf_crop_and_resize"
        samplers: list[Sampler] = []
        for n, s in enumerate(scales):
            if s.same and not crop:
                continue
            roi = None
            if crop:
                region = inputs[1]
                assert region is not None
                roi = (cast(region[n], "f32"), cast(region[n + len(scales)], "f32"))
            sampler = Sampler(ctx, b, s, roi)
            sampler.prepare({"nearest": 1, "linear": 2, "cubic": 4}[mode])
            samplers.append(sampler)
        if mode == "nearest" or not samplers:
            return [self._nearest(ctx, b, x, self._shape(x.shape, scales), samplers)]
        inner = accumulator(x.dtype) if is_float(x.dtype) else "f32"
        value = x
        # What shrinks comes first, what grows last. Elements of the last axis take the most work:
        # it comes where there are fewest, last of those that shrink and first of those that grow.
        for sampler in sorted(
            samplers, key=lambda s: (s.growth, s.s.axis if s.growth < 1 else -s.s.axis)
        ):
            value = self._interpolate(ctx, b, value, sampler, inner)
        if value.dtype != x.dtype:
            last = value
            value = b.compute(value.shape, lambda *i: cast(last[i], x.dtype), name="resized")
        return [value]

    @staticmethod
    def _nearest(
        ctx: OpContext,
        b: KernelBuilder,
        x: Tensor,
        shape: Sequence[Size],
        samplers: Sequence[Sampler],
    ) -> Tensor:
        fill = const(float(ctx.attrs["extrapolation_value"]), x.dtype)

        def element(*index: Size) -> Expr:
            source = list(index)
            gone: Expr | None = None
            for s in samplers:
                o = index[s.s.axis]
                (source[s.s.axis],) = s.positions(o)
                outside = s.outside(o)
                if outside is not None:
                    gone = outside if gone is None else call("or", gone, outside)
            value = x[tuple(source)]
            return value if gone is None else select(gone, fill, value)

        return b.compute(shape, element, name="resized")

    @staticmethod
    def _interpolate(ctx: OpContext, b: KernelBuilder, x: Tensor, s: Sampler, dtype: str) -> Tensor:
        axis = s.s.axis
        shape = tuple(s.s.result if n == axis else d for n, d in enumerate(x.shape))

        def element(*index: Size) -> Expr:
            o = index[axis]
            total: Expr | None = None
            weights = s.weights(o)
            for k, p in enumerate(s.positions(o)):
                at = tuple(p if n == axis else i for n, i in enumerate(index))
                term = cast(x[at], dtype)
                term = term * cast(weights[k], dtype) if weights else term
                total = term if total is None else total + term
            assert total is not None
            outside = s.outside(o)
            if outside is None:
                return total
            return select(outside, const(float(ctx.attrs["extrapolation_value"]), dtype), total)

        return b.compute(shape, element, name="resized")

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        x, roi, factors, sizes = (*inputs, None, None, None)[:4]
        assert x is not None
        by_factor = factors is not None and factors.size > 0
        given = None if by_factor or sizes is None else [int(v) for v in sizes]
        scales = scales_of(ctx, x.shape, factors if by_factor else None, given)
        y = x if text(ctx.attrs["mode"]) == "nearest" else wide(x).astype(np.float64)
        outside = np.zeros([int(d) for d in self._shape(x.shape, scales)], np.bool_)
        for n, s in enumerate(scales):
            region = (0.0, 1.0)
            if roi is not None and roi.size:
                region = (float(roi[n]), float(roi[n + len(scales)]))
            at = _coordinates(ctx, s, region)
            if text(ctx.attrs["coordinate_transformation_mode"]) == "tf_crop_and_resize":
                gone = (at < 0) | (at > x.shape[s.axis] - 1)
                outside |= gone.reshape(-1, *(1,) * (x.ndim - s.axis - 1))
            if text(ctx.attrs["mode"]) == "nearest":
                rounded = _round(text(ctx.attrs["nearest_mode"]), at, float(s.factor or 1))
                y = np.take(y, np.clip(rounded, 0, x.shape[s.axis] - 1).astype(int), axis=s.axis)
            else:
                matrix = _weights(ctx, at, x.shape[s.axis])
                y = np.moveaxis(np.tensordot(matrix, y, axes=(1, s.axis)), 0, s.axis)
        return [np.where(outside, ctx.attrs["extrapolation_value"], y).astype(x.dtype)]

    def cases(self) -> Iterable[Case]:
        x = sample(1, 2, 3, 4)
        named = {(0, 0): "n", (0, 2): "h", (0, 3): "w"}

        def scales(*values: float) -> Array:
            return np.array(values, np.float32)

        def case(name: str, factors: Array, attrs: dict[str, Any], **more: Any) -> Case:
            return Case(name, (x, None, factors), attrs, constant=(2,), atol=1e-5, **more)

        twice = scales(1, 1, 2, 2)
        for coordinates in ("asymmetric", "half_pixel", "pytorch_half_pixel", "align_corners"):
            for rounding in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"):
                attrs = {"coordinate_transformation_mode": coordinates, "nearest_mode": rounding}
                yield case(f"twice_{coordinates}_{rounding}", twice, attrs, symbolic=named)
        for coordinates in COORDINATES[:5]:
            mode = {"coordinate_transformation_mode": coordinates}
            for name, factors in (
                ("grow", scales(1, 1, 1.7, 3)),
                ("shrink", scales(1, 1, 0.7, 0.5)),
                ("mixed", scales(1, 1.5, 2.0, 0.75)),
            ):
                yield case(f"nearest_{name}_{coordinates}", factors, mode)
                for kind in ("linear", "cubic"):
                    more = {"symbolic": named} if name == "grow" else {}
                    attrs = {**mode, "mode": kind}
                    yield case(f"{kind}_{name}_{coordinates}", factors, attrs, **more)
        outside = {"mode": "cubic", "exclude_outside": 1, "cubic_coeff_a": -0.5}
        yield case("exclude_outside", scales(1, 1, 1.7, 2), outside)
        last: dict[str, Any] = {"axes": (3, 2), "mode": "linear"}
        yield case("axes", scales(1.5, 2), last, symbolic=named)
        sizes = (x, None, None, ints((1, 2, 7, 5)))
        for kind in ("nearest", "linear", "cubic"):
            mode = {"mode": kind}
            yield Case(f"sizes_{kind}", sizes, mode, constant=(3,), symbolic=named, atol=1e-5)
        fit = (x, None, None, ints((7, 9)))
        for policy in POLICIES[1:]:
            keep = {"keep_aspect_ratio_policy": policy, "axes": (2, 3)}
            yield Case(policy, fit, keep, constant=(3,))
        attrs = {"coordinate_transformation_mode": "tf_crop_and_resize"}
        region = scales(0, 0, 0.2, 0.4, 1, 1, 0.6, 1.3)
        for kind in ("nearest", "linear", "cubic"):
            crop = {**attrs, "mode": kind, "extrapolation_value": 7.0}
            operands = (x, region, None, ints((1, 2, 5, 6)))
            yield Case(f"crop_{kind}", operands, crop, constant=(3,), atol=1e-4)
        bytes_ = sample(1, 1, 3, 4, dtype="u8")
        yield Case("u8", (bytes_, None, twice), constant=(2,))
        line = (sample(2, 3, 5), None, scales(1, 1, 2))
        yield Case("line", line, {"mode": "linear"}, constant=(2,), atol=1e-5)
        half = (sample(1, 1, 3, 4, dtype="f16"), None, twice)
        yield Case("f16", half, {"mode": "linear"}, constant=(2,), rtol=2e-3, atol=2e-3)


def _coordinates(ctx: OpContext, s: Scale, roi: tuple[float, float]) -> Array:
    """Source coordinates of an axis with numbers for sizes, in f32 as ONNX's runtimes have them."""
    f = np.float32
    n, m, mode = f(s.size), f(s.result), text(ctx.attrs["coordinate_transformation_mode"])
    o, factor = np.arange(int(s.result)).astype(f), f(s.factor)
    if mode == "asymmetric":
        return o / factor
    if mode == "tf_half_pixel_for_nn":
        return (o + f(0.5)) / factor
    if mode == "align_corners":
        return o * (n - 1) / (m - 1) if m > 1 else o * 0
    if mode == "tf_crop_and_resize":
        start, end = f(roi[0]), f(roi[1])
        if m > 1:
            return start * (n - 1) + o * (end - start) * (n - 1) / (m - 1)
        return np.full(1, (start + end) * (n - 1) * f(0.5))
    if mode == "pytorch_half_pixel" and m <= 1:
        return o * 0
    at = (o + f(0.5)) / factor - f(0.5)
    return at + n / 2 * (1 - m / (factor * n)) if mode == "half_pixel_symmetric" else at


def _round(mode: str, at: Array, factor: float) -> Array:
    if mode == "simple":
        mode = "ceil" if factor < 1 else "floor"
    if mode == "round_prefer_floor":
        return np.asarray(np.ceil(at - np.float32(0.5)))
    if mode == "round_prefer_ceil":
        return np.asarray(np.floor(at + np.float32(0.5)))
    return np.asarray(np.floor(at) if mode == "floor" else np.ceil(at))


def _weights(ctx: OpContext, at: Array, n: int) -> Array:
    """The matrix [results, n] that interpolates an axis at given coordinates."""
    cubic = text(ctx.attrs["mode"]) == "cubic"
    a = float(ctx.attrs["cubic_coeff_a"])
    matrix = np.zeros((len(at), n))
    for o, x in enumerate(at.astype(np.float64)):
        taps = np.arange(-1, 3) if cubic else np.arange(2)
        positions = np.floor(x) + taps
        d = np.abs(x - positions)
        if cubic:
            near = (a + 2) * d**3 - (a + 3) * d**2 + 1
            far = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
            w = np.where(d <= 1, near, far)
        else:
            w = 1 - d
        if cubic and ctx.attrs["exclude_outside"]:
            w = np.where((positions < 0) | (positions >= n), 0, w)
            w = w / w.sum()
        np.add.at(matrix[o], np.clip(positions, 0, n - 1).astype(int), w)
    return matrix


@operator("Upsample", since=7, inputs=2, attributes={"mode": "nearest"})
class Upsample(Operator):
    """Resize by `scales` (operand 1) with asymmetric coordinates, rounded down.
    ONNX Upsample-9."""

    def upgrade(
        self, attrs: dict[str, Any], inputs: list[str], opset: int, graph: Any
    ) -> tuple[dict[str, Any], list[str]]:
        if opset < 9:
            factors = np.asarray(attrs.pop("scales"), np.float32)
            inputs = [inputs[0], graph.add_constant("scales", factors)]
        return attrs, inputs

    @staticmethod
    def _factors(ctx: OpContext) -> Array:
        factors = ctx.constant(1)
        if factors is None:
            ctx.fail("scales must be known at compile time")
        return np.asarray(factors)

    def infer(self, ctx: OpContext) -> list[TensorType]:
        x, factors = ctx.input(0), self._factors(ctx)
        if len(factors) != x.rank:
            ctx.fail(f"{len(factors)} scales for {x.rank} axes")
        return [TensorType(x.dtype, tuple(scaled(d, float(f)) for d, f in zip(x.shape, factors)))]

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        x, factors = inputs
        assert x is not None and factors is not None
        y = x if text(ctx.attrs["mode"]) == "nearest" else wide(x)
        for axis, f in enumerate(factors.astype(np.float32)):
            n = x.shape[axis]
            at = np.arange(int(scaled(n, float(f)))).astype(np.float32) / f
            low = np.minimum(np.floor(at).astype(int), n - 1)
            first = np.take(y, low, axis)
            if text(ctx.attrs["mode"]) == "nearest":
                y = first
                continue
            part = (np.minimum(at, n - 1) - low).reshape(-1, *(1,) * (x.ndim - axis - 1))
            y = first * (1 - part) + np.take(y, np.minimum(low + 1, n - 1), axis) * part
        return [y.astype(x.dtype)]

    def decompose(self, ctx: OpContext, g: GraphRewriter, *inputs: str) -> Sequence[str] | None:
        mode = text(ctx.attrs["mode"])
        factors = g.constant(self._factors(ctx), "f32")
        return [
            g.op(
                "Resize",
                inputs[0],
                "",
                factors,
                mode="linear" if mode == "bilinear" else mode,
                coordinate_transformation_mode="asymmetric",
                nearest_mode="floor",
            )
        ]

    def cases(self) -> Iterable[Case]:
        named = {(0, 0): "n", (0, 2): "h"}
        for mode in ("nearest", "linear"):
            for name, factors in (("twice", (1, 1, 2, 2)), ("mixed", (1, 1, 1.7, 3))):
                operands = (sample(1, 2, 3, 4), np.array(factors, np.float32))
                attrs = {"mode": mode}
                yield Case(f"{mode}_{name}", operands, attrs, constant=(1,), symbolic=named)
