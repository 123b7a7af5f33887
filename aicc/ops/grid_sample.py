"""GridSample: reading between the elements of a tensor, at positions that come from data."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from aicc.dtypes import is_float
from aicc.graph_ir.types import TensorType
from aicc.ops.contraction import wide
from aicc.ops.indexing import loops
from aicc.ops.registry import Array, Case, OpContext, Operator, operator
from aicc.ops.samples import sample
from aicc.ops.sampling import cubic_weights
from aicc.ops.sizes import accumulator, agree, check_agree
from aicc.ops.windows import layout, text, with_layout
from aicc.symbolic import Size, hi_of, proves_le
from aicc.tensor_ir.builder import KernelBuilder, Tensor
from aicc.tensor_ir.ir import Expr, as_expr, as_index, call, cast, const, select

MODES = {
    "linear": "linear",
    "bilinear": "linear",
    "nearest": "nearest",
    "cubic": "cubic",
    "bicubic": "cubic",
}
"""Names up to opset 16 and from 20 on."""
PADDINGS = ("zeros", "border", "reflection")
CUBIC = -0.75
"""The coefficient a of Keys, Cubic convolution interpolation (1981)."""


@dataclass(frozen=True)
class Axis:
    """One sampled axis of `extent` elements: from a coordinate in [-1, 1] to taps."""

    extent: Size
    mode: str
    padding: str
    aligned: bool
    dtype: str

    @property
    def _last(self) -> Expr:
        return cast(as_expr(self.extent, "i64"), self.dtype) - 1.0

    def coordinate(self, g: Expr) -> Expr:
        """The position of `g` among the elements; not beyond the borders, but for zeros there."""
        last = self._last
        at = (g + 1.0) * 0.5 * last if self.aligned else ((g + 1.0) * (last + 1.0) - 1.0) * 0.5
        if self.mode == "nearest":
            at = call("round", at)
        # Where four elements count, each of them is brought inside on its own.
        if self.mode == "cubic":
            return at
        if self.padding == "border":
            return call("max", call("min", at, last), 0.0)
        return self._reflected(at) if self.padding == "reflection" else at

    def _reflected(self, at: Expr) -> Expr:
        """A position thrown back at the borders until it is inside them."""
        last, zero = self._last, const(0.0, self.dtype)
        lo = zero if self.aligned else zero - 0.5
        hi = last if self.aligned else last + 0.5
        span = hi - lo
        below = call("lt", at, lo)
        over = select(below, lo - at, at - hi)
        times = call("floor", over / span)
        rest = over - times * span
        odd = call("eq", times - call("floor", times * 0.5) * 2.0, 1.0)
        from_low = select(below, call("not", odd), odd)
        thrown = select(from_low, lo + rest, hi - rest)
        inside = call("or", call("le", over, 0.0), call("le", span, 0.0))
        return select(inside, call("max", call("min", at, hi), lo), thrown)

    @property
    def count(self) -> int:
        """How many elements count for a position."""
        return {"nearest": 1, "linear": 2, "cubic": 4}[self.mode]

    def weights(self, r: Expr) -> list[Expr]:
        """Of the elements that count, for a position `r` behind the one at or before it."""
        if self.mode == "nearest":
            return [const(1.0, self.dtype)]
        return cubic_weights(r, CUBIC) if self.mode == "cubic" else [1.0 - r, r]

    def place(self, base: Expr, n: int) -> Expr:
        """The whole position of the n-th element that counts; -1 for one beyond the border."""
        tap = base + float(n - (self.mode == "cubic"))
        last = self._last
        outside = const(-1 if self.padding == "zeros" else 0, "i64")
        if self.padding == "reflection":
            tap = self._reflected(tap)
        elif self.padding == "border":
            tap = call("max", call("min", tap, last), 0.0)
        # What is no number is outside as well.
        inside = call("and", call("ge", tap, 0.0), call("le", tap, last))
        return select(inside, cast(select(inside, tap, 0.0), "i64"), outside)


@operator(
    "GridSample",
    since=16,
    inputs=2,
    attributes={"align_corners": 0, "mode": "linear", "padding_mode": "zeros", "channels_last": 0},
)
class GridSample(Operator):
    """Data [N, C, spatial...] (or [N, spatial..., C] with `channels_last`) at the positions of a
    grid [N, results..., axes], which counts axes from the last and runs from -1 to 1: nearest,
    linear or cubic. ONNX GridSample-22."""

    def infer(self, ctx: OpContext) -> list[TensorType]:
        x, grid = ctx.input(0), ctx.input(1)
        if not is_float(x.dtype) or not is_float(grid.dtype):
            ctx.fail("takes data and a grid of floating-point numbers")
        at = layout(ctx, x.rank)
        self._axes(ctx, x.shape, "f32")
        batch, channels, sizes = at.split(x.shape)
        if grid.rank != x.rank:
            ctx.fail(f"the grid has {grid.rank} axes, the data {x.rank}")
        agree(ctx, grid.shape[-1], len(sizes), "coordinates of the grid")
        batch = agree(ctx, batch, grid.shape[0], "batch of the grid")
        if any(d == 0 for d in sizes):
            ctx.fail("the data are empty")
        return [TensorType(x.dtype, at.join(batch, channels, grid.shape[1:-1]))]

    @staticmethod
    def _axes(ctx: OpContext, shape: Sequence[Size], dtype: str) -> list[Axis]:
        mode, padding = text(ctx.attrs["mode"]), text(ctx.attrs["padding_mode"])
        if mode not in MODES:
            ctx.fail(f"unknown mode {mode!r}")
        if padding not in PADDINGS:
            ctx.fail(f"unknown padding_mode {padding!r}")
        sizes = layout(ctx, len(shape)).split(shape)[2]
        aligned = bool(ctx.attrs["align_corners"])
        return [Axis(d, MODES[mode], padding, aligned, dtype) for d in sizes]

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        x, grid = inputs
        assert x is not None and grid is not None
        at = layout(ctx, x.ndim)
        data = np.moveaxis(wide(at.to_first(x)), 1, -1)
        kind = np.float64 if grid.dtype == np.float64 else np.float32
        mode, padding = MODES[text(ctx.attrs["mode"])], text(ctx.attrs["padding_mode"])
        aligned = bool(ctx.attrs["align_corners"])
        shape = grid.shape[:-1]
        total: Array = np.zeros((*shape, data.shape[-1]))
        batch = np.arange(len(x)).reshape(-1, *(1,) * (len(shape) - 1))
        per_axis = []
        for n, extent in enumerate(data.shape[1:-1]):
            g = grid[..., data.ndim - 3 - n].astype(kind)
            per_axis.append(_numpy_taps(g, extent, mode, padding, aligned))
        for choice in np.ndindex(*(len(taps) for taps in per_axis)):
            places, weight = [], np.ones(shape)
            for taps, k in zip(per_axis, choice):
                places.append(taps[k][0])
                weight = weight * taps[k][1]
            total += np.where(weight != 0, weight, 0)[..., None] * data[(batch, *places)]
        return [at.from_first(np.moveaxis(total, -1, 1)).astype(x.dtype)]

    def lower(self, ctx: OpContext, b: KernelBuilder, *inputs: Tensor | None) -> Sequence[Tensor]:
        x, grid = inputs
        assert x is not None and grid is not None
        at, data = layout(ctx, x.rank), x
        kind = "f64" if grid.dtype == "f64" else "f32"
        axes = self._axes(ctx, x.shape, kind)
        check_agree(ctx, b, x.shape[0], grid.shape[0], "batch of the grid")
        for axis in axes:
            if not proves_le(1, axis.extent):
                some = call("gt", as_expr(axis.extent, "i64"), 0)
                b.check(some, f"{ctx.node}: {ctx.op}: the data are empty")
        sums = accumulator(x.dtype)
        shape = ctx.outputs[0].shape
        batch, channels, outs = at.split(shape)
        rows = (batch, *outs[:1])
        taps = max(a.count for a in axes)
        # Parts of the position at hand: one set for each row, which one thread computes.
        where = b.temp("where", kind, (*rows, len(axes)))
        places = b.temp("places", "i64", (*rows, len(axes), taps))
        weights = b.temp("weights", sums, (*rows, len(axes), taps))
        result = b.temp("sampled", x.dtype, shape)
        with ExitStack() as stack:
            n, *out = loops(b, stack, "i", (batch, *outs))
            row = (n, *out[:1])
            for k, axis in enumerate(axes):
                own = (*row, k)
                g = cast(grid[(n, *out, len(axes) - 1 - k)], kind)
                b.store(where, own, axis.coordinate(g))
                base = where[own] if axis.mode == "nearest" else call("floor", where[own])
                for t, w in enumerate(axis.weights(where[own] - base)):
                    b.store(places, (*own, t), axis.place(base, t))
                    b.store(weights, (*own, t), cast(w, sums))

            def along(c: Size, inside: bool, k: int, index: tuple[Size, ...]) -> Expr:
                """The sum over the elements of axis k and those behind it. inside: all count."""
                if k == len(axes):
                    return cast(data[at.join(n, c, index)], sums)
                total: Expr | None = None
                hi = hi_of(axes[k].extent)
                for t in range(axes[k].count):
                    own = (*row, k, t)
                    place = places[own] if inside else call("max", places[own], 0)
                    element = as_index(place, 0, None if hi is None else hi - 1)
                    value = along(c, inside, k + 1, (*index, element)) * weights[own]
                    if not inside:
                        value = select(call("ge", places[own], 0), value, const(0, sums))
                    total = value if total is None else total + value
                assert total is not None
                return total

            def sampled(inside: bool) -> None:
                with ExitStack() as over:
                    (c,) = loops(b, over, "c", (channels,))
                    value = along(c, inside, 0, ())
                    b.store(result, at.join(n, c, tuple(out)), cast(value, x.dtype))

            if text(ctx.attrs["padding_mode"]) != "zeros":
                sampled(inside=True)
                return [result]
            # Most positions are inside, which one comparison tells.
            least = functools.reduce(
                lambda p, q: call("min", p, q),
                (places[(*row, k, t)] for k, axis in enumerate(axes) for t in range(axis.count)),
            )
            with b.when(call("ge", least, 0)):
                sampled(inside=True)
            with b.when(call("lt", least, 0)):
                sampled(inside=False)
        return [result]

    def cases(self) -> Iterable[Case]:
        image = sample(2, 3, 4, 5)
        grid = sample(2, 6, 3, 2, seed=1) * np.float32(1.2)
        symbolic = {(0, 0): "n", (0, 2): "h", (0, 3): "w", (1, 0): "n", (1, 1): "p"}
        for mode in ("linear", "nearest", "cubic"):
            for padding in PADDINGS:
                for aligned in (0, 1):
                    attrs = {"mode": mode, "padding_mode": padding, "align_corners": aligned}
                    name = f"{mode}_{padding}_{aligned}"
                    yield Case(name, (image, grid), attrs, symbolic=symbolic, rtol=1e-4, atol=1e-4)
        last = np.ascontiguousarray(np.moveaxis(image, 1, -1))
        yield Case("channels_last", (last, grid), with_layout({}), rtol=1e-4, atol=1e-4)
        line = (sample(2, 3, 7), sample(2, 5, 1, seed=1))
        yield Case("line", line, {"mode": "bilinear"}, rtol=1e-4, atol=1e-4)
        volume = (sample(1, 2, 3, 4, 5), sample(1, 2, 2, 2, 3, seed=1))
        for mode in ("linear", "nearest"):
            yield Case(f"volume_{mode}", volume, {"mode": mode}, rtol=1e-4, atol=1e-4)
        far = (image, grid * 7)
        for padding in PADDINGS:
            yield Case(f"far_{padding}", far, {"padding_mode": padding}, rtol=1e-3, atol=1e-3)
        single = (sample(1, 2, 1, 1), sample(1, 3, 3, 2, seed=1))
        for padding in PADDINGS:
            attrs = {"padding_mode": padding, "align_corners": 1}
            yield Case(f"single_{padding}", single, attrs, rtol=1e-4, atol=1e-4)
        half = (image.astype(np.float16), grid.astype(np.float16))
        yield Case("f16", half, rtol=1e-2, atol=1e-2)
        yield Case("f64", (image.astype(np.float64), grid.astype(np.float64)), rtol=1e-9)


def _numpy_taps(
    g: Array, extent: int, mode: str, padding: str, aligned: bool
) -> list[tuple[Array, Array]]:
    """(position, weight) of every element that counts along one axis."""
    lo, hi = (0.0, extent - 1.0) if aligned else (-0.5, extent - 0.5)
    at = (g + 1) * (g.dtype.type(0.5) * (extent - 1))
    if not aligned:
        at = ((g + 1) * g.dtype.type(extent) - 1) * g.dtype.type(0.5)

    def thrown(v: Array) -> Array:
        if hi <= lo:
            return np.clip(v, lo, hi)
        period = 2 * (hi - lo)
        phase = np.mod(v - lo, period)
        return np.where((v >= lo) & (v <= hi), v, lo + np.minimum(phase, period - phase))

    if mode == "nearest":
        at = np.rint(at)
    if mode != "cubic" and padding == "border":
        at = np.clip(at, 0, extent - 1)
    elif mode != "cubic" and padding == "reflection":
        at = thrown(at)
    if mode == "nearest":
        chosen: list[tuple[Array, Array]] = [(at, np.ones(g.shape))]
    else:
        base = np.floor(at)
        steps = np.arange(-1, 3) if mode == "cubic" else np.arange(2)
        chosen = []
        for step in steps:
            d = np.abs(at - base - step).astype(np.float64)
            near = (CUBIC + 2) * d**3 - (CUBIC + 3) * d**2 + 1
            outer = CUBIC * d**3 - 5 * CUBIC * d**2 + 8 * CUBIC * d - 4 * CUBIC
            curve = np.where(d <= 1, near, outer) if mode == "cubic" else 1 - d
            chosen.append((base + step, curve))
    found = []
    for place, weight in chosen:
        if padding == "zeros":
            weight = np.where((place >= 0) & (place < extent), weight, 0)
        elif padding == "reflection":
            place = thrown(place)
        found.append((np.clip(np.trunc(place), 0, extent - 1).astype(np.int64), weight))
    return found


__all__ = ["Axis", "GridSample"]
