"""Pooling: maxima, means and p-norms of sliding windows, or of all spatial positions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from aicc.graph_ir.types import TensorType
from aicc.ops.contraction import wide
from aicc.ops.registry import Array, Case, GraphRewriter, OpContext, Operator, operator
from aicc.ops.samples import sample
from aicc.ops.sizes import accumulator
from aicc.ops.windows import (
    WINDOW,
    Layout,
    Windows,
    layout,
    pad_stage,
    per_axis,
    sliding,
    windows,
    with_layout,
)
from aicc.symbolic import Size, ceildiv, maximum, minimum, proves_le
from aicc.tensor_ir.builder import KernelBuilder, Tensor, identity
from aicc.tensor_ir.ir import Expr, as_expr, call, cast, const, select

_WINDOW = {**WINDOW, "ceil_mode": 0}
SEPARATED = 1.5
"""How many times as many elements a window has as its axes together, where these are gone through
one after the other."""

LONG = 24
"""From which extent on a window may be longer than data whose size only a run knows."""


class _Pool(Operator):
    """Common to pooling over windows: one result per channel and window."""

    def infer(self, ctx: OpContext) -> list[TensorType]:
        x = ctx.input(0)
        at, w = self._geometry(ctx, x.shape)
        return [TensorType(x.dtype, at.join(x.shape[0], x.shape[at.channel], w.outputs))]

    @staticmethod
    def _geometry(ctx: OpContext, shape: Sequence[Size]) -> tuple[Layout, Windows]:
        at = layout(ctx, len(shape))
        if not ctx.attrs.get("kernel_shape"):
            ctx.fail("kernel_shape is missing")
        kernel = per_axis(ctx, "kernel_shape", at.rank - 2)
        return at, windows(ctx, at.split(shape)[2], kernel)

    @staticmethod
    def _padded(b: KernelBuilder, x: Tensor, at: Layout, w: Windows, fill: Expr) -> Tensor:
        return x if w.exact else pad_stage(b, x, at, w.begins, w.padded, fill)

    @staticmethod
    def _shape(x: Tensor, at: Layout, w: Windows) -> tuple[Size, ...]:
        return at.join(x.shape[0], x.shape[at.channel], w.outputs)

    def _cases(
        self, extra: Mapping[str, Any] = {}, ceil: bool = True, atol: float = 1e-6
    ) -> Iterable[Case]:
        for name, data, attrs in (
            ("valid", (1, 3, 5, 6), {"kernel_shape": (2, 2)}),
            ("strided", (2, 2, 7, 8), {"kernel_shape": (3, 3), "strides": (2, 2)}),
            (
                "padded",
                (1, 2, 6, 5),
                {"kernel_shape": (3, 3), "strides": (2, 2), "pads": (1, 1, 1, 1)},
            ),
            ("asymmetric", (1, 2, 5, 6), {"kernel_shape": (3, 2), "pads": (0, 1, 2, 0)}),
            (
                "same_upper",
                (1, 2, 5, 6),
                {"kernel_shape": (3, 2), "strides": (2, 2), "auto_pad": "SAME_UPPER"},
            ),
            ("same_lower", (1, 2, 5, 6), {"kernel_shape": (2, 4), "auto_pad": "SAME_LOWER"}),
            ("ceil", (1, 2, 6, 7), {"kernel_shape": (3, 3), "strides": (2, 2), "ceil_mode": 1}),
            (
                "ceil_padded",
                (1, 2, 6, 7),
                {
                    "kernel_shape": (3, 3),
                    "strides": (3, 2),
                    "ceil_mode": 1,
                    "pads": (1, 1, 1, 1),
                },
            ),
            ("dilated", (1, 2, 8, 9), {"kernel_shape": (3, 2), "dilations": (2, 3)}),
            ("one_dimension", (2, 3, 9), {"kernel_shape": (3,), "strides": (2,), "pads": (1, 0)}),
            ("three_dimensions", (1, 2, 4, 3, 5), {"kernel_shape": (2, 2, 3)}),
        ):
            x = sample(*data)
            attrs = {**attrs, **extra}
            axes = {(0, 0): "batch", **{(0, n): f"s{n}" for n in range(2, len(data))}}
            yield Case(name, (x,), attrs, symbolic=axes, atol=atol)
            last = np.ascontiguousarray(np.moveaxis(x, 1, -1))
            axes = {(0, 0): "batch", **{(0, n): f"s{n}" for n in range(1, len(data) - 1)}}
            yield Case(
                f"{name}_channels_last", (last,), with_layout(attrs), symbolic=axes, atol=atol
            )


@operator("MaxPool", since=1, inputs=1, attributes={**_WINDOW, "storage_order": 0})
class MaxPool(_Pool):
    """The largest element of each window; optionally its position, flat in the channels-first
    operand, whose last spatial axes are swapped in memory with storage_order 1. ONNX MaxPool-22."""

    def infer(self, ctx: OpContext) -> list[TensorType]:
        (y,) = super().infer(ctx)
        return [y, TensorType("i64", y.shape)][: ctx.n_outputs]

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        x = inputs[0]
        assert x is not None
        at, w = self._geometry(ctx, x.shape)
        first = at.to_first(x)
        floating = x.dtype.kind not in "iu"
        least = -np.inf if floating else int(np.iinfo(x.dtype).min)
        taps = sliding(first, w, least)
        flat = taps.reshape(*taps.shape[: first.ndim], -1)
        best = np.argmax(flat, axis=-1)
        y = np.take_along_axis(flat, best[..., None], -1)[..., 0]
        results = [at.from_first(y)]
        if ctx.n_outputs > 1:
            order = tuple(range(first.ndim))
            spatial = first.shape[2:]
            if ctx.attrs["storage_order"]:
                order = (0, 1, *reversed(order[2:]))
            swapped = tuple(first.shape[a] for a in order)
            flat_index = np.arange(first.size).reshape(swapped).transpose(np.argsort(order))
            where = sliding(flat_index.reshape(*first.shape[:2], *spatial), w, -1)
            where = where.reshape(*flat.shape)
            # padding never wins: of equal elements, take the first that is inside
            score = np.where((flat == y[..., None]) & (where >= 0), 1, 0)
            found = np.argmax(score, axis=-1)
            index = np.take_along_axis(where, found[..., None], -1)[..., 0]
            results.append(at.from_first(index.astype(np.int64)))
        return results

    def decompose(self, ctx: OpContext, g: GraphRewriter, *inputs: str) -> Sequence[str] | None:
        """The largest along one axis after the other, where that takes far fewer comparisons than
        there are elements in a window, also when what is between goes through memory."""
        _, w = self._geometry(ctx, ctx.input(0).shape)
        kernel = tuple(ctx.attrs["kernel_shape"])
        large = [n for n, k in enumerate(kernel) if k > 1]
        passes = sum(kernel[n] for n in large)
        separable = ctx.n_outputs == 1 and len(large) > 1 and all(s == 1 for s in w.strides)
        if not separable or math.prod(kernel) <= SEPARATED * passes:
            return None
        value, count = inputs[0], len(kernel)
        given = tuple(ctx.attrs.get("pads", ()) or ()) or (0,) * (2 * count)
        for n in large:

            def only(values: Sequence[int], other: int, n: int = n) -> tuple[int, ...]:
                return tuple(v if a % count == n else other for a, v in enumerate(values))

            attrs = {
                **ctx.attrs,
                "kernel_shape": only(kernel, 1),
                "dilations": only(w.dilations, 1),
                "pads": only(given, 0),
                "strides": (),
            }
            value = g.op("MaxPool", value, **attrs)
        return [value]

    def lower(self, ctx: OpContext, b: KernelBuilder, *inputs: Tensor | None) -> Sequence[Tensor]:
        x = inputs[0]
        assert x is not None
        at, w = self._geometry(ctx, x.shape)
        shape = self._shape(x, at, w)
        if ctx.n_outputs == 1 and at.channels_last and _repeats(w):
            padded = _repeated(b, x, at, w)
        else:
            padded = self._padded(b, x, at, w, identity("max", x.dtype))

        def tap(*index: Size) -> Expr:
            n, c, out = at.split(index[: at.rank])
            return padded[at.join(n, c, w.start(out, index[at.rank :]))]

        y = b.reduce(shape, w.kernel, tap, op="max", name="max")
        if ctx.n_outputs == 1:
            return [y]
        batch, channels, sizes = at.split(x.shape)
        count: Size = batch * channels
        for d in sizes:
            count = count * d

        def position(*index: Size) -> Expr:
            n, c, out = at.split(index[: at.rank])
            start = w.start(out, index[at.rank :])
            flat: Size = n * channels + c
            place = [p - begin for p, begin in zip(start, w.begins)]
            axes = list(zip(place, sizes))
            for p, d in axes:
                flat = flat * d + p
            wins = call("eq", tap(*index), y[index[: at.rank]])
            for p, d in axes:
                if not w.exact:
                    inside = call("and", call("ge", as_expr(p), 0), call("lt", as_expr(p), d))
                    wins = call("and", wins, inside)
            return select(wins, as_expr(flat), as_expr(count))

        first = b.reduce(shape, w.kernel, position, op="min", name="position")
        if not ctx.attrs["storage_order"]:
            return [y, first]

        def swapped(*index: Size) -> Expr:
            """The same place where the first spatial axis is the fastest in memory."""
            rest, plane = first[index], as_expr(0)
            for d in reversed(sizes):
                plane, rest = plane * as_expr(d) + call("mod", rest, d), call("div", rest, d)
            for d in sizes:
                rest = rest * as_expr(d)
            return rest + plane

        return [y, b.compute(shape, swapped, name="position")]

    def cases(self) -> Iterable[Case]:
        yield from self._cases()
        grid = np.round(sample(2, 2, 5, 6) * 2).astype(np.float32)  # ties: the first one counts
        attrs = {"kernel_shape": (3, 2), "strides": (1, 2), "pads": (1, 0, 1, 1)}
        yield Case("indices", (grid,), attrs, n_outputs=2, symbolic={(0, 2): "h", (0, 0): "n"})
        yield Case("column_major", (grid,), {**attrs, "storage_order": 1}, n_outputs=2)
        last = np.ascontiguousarray(np.moveaxis(grid, 1, -1))
        yield Case("indices_channels_last", (last,), with_layout(attrs), n_outputs=2)
        for dtype in ("i8", "u8", "f64"):
            x = sample(1, 2, 5, 5, dtype=dtype)
            yield Case(dtype, (x,), {"kernel_shape": (3, 3), "pads": (1, 1, 1, 1)})


def _repeats(w: Windows) -> bool:
    """True where each window that reaches over a border has the element at that border as well."""
    sizes = zip(w.sizes, w.kernel, w.strides, w.dilations, w.begins, w.outputs)
    return not w.exact and all(
        d == 1 and proves_le(begin, k - 1) and proves_le((o - 1) * s - begin, n - 1)
        for n, k, s, d, begin, o in sizes
    )


def _repeated(b: KernelBuilder, x: Tensor, at: Layout, w: Windows) -> Tensor:
    """The data with the elements at their borders beyond those: for the largest element of a window
    that has them, the same as nothing there; loads need no condition."""
    n, c, sizes = at.split(x.shape)

    def element(*index: Size) -> Expr:
        i, channel, spatial = at.split(index)
        place = zip(spatial, w.begins, sizes)
        inside = [minimum(maximum(p - begin, 0), size - 1) for p, begin, size in place]
        return x[at.join(i, channel, inside)]

    return b.compute(at.join(n, c, w.padded), element, name="padded")


@operator("AveragePool", since=1, inputs=1, attributes={**_WINDOW, "count_include_pad": 0})
class AveragePool(_Pool):
    """The mean of each window: of its elements inside the data, or with `count_include_pad` inside
    the padding too. ONNX AveragePool-22."""

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        x = inputs[0]
        assert x is not None
        at, w = self._geometry(ctx, x.shape)
        first = wide(at.to_first(x))
        counted = np.ones_like(first)
        if ctx.attrs["count_include_pad"]:
            pads = [(int(p), int(e)) for p, e in zip(w.begins, w.ends)]
            counted = np.pad(counted, [(0, 0), (0, 0), *pads], constant_values=1)
            plain = Windows(
                tuple(counted.shape[2:]), w.kernel, w.strides, w.dilations, (0,) * len(pads),
                (0,) * len(pads), w.outputs, w.overhang,
            )  # fmt: skip
            number = sliding(counted, plain, 0)
        else:
            number = sliding(counted, w, 0)
        axes = tuple(range(first.ndim, number.ndim))
        y = sliding(first, w, 0).sum(axes) / number.sum(axes)
        return [at.from_first(y.astype(x.dtype))]

    def lower(self, ctx: OpContext, b: KernelBuilder, *inputs: Tensor | None) -> Sequence[Tensor]:
        x = inputs[0]
        assert x is not None
        at, w = self._geometry(ctx, x.shape)
        shape = self._shape(x, at, w)
        sum_type = accumulator(x.dtype)
        padded = self._padded(b, x, at, w, const(0, x.dtype))

        def tap(*index: Size) -> Expr:
            n, c, out = at.split(index[: at.rank])
            return cast(padded[at.join(n, c, w.start(out, index[at.rank :]))], sum_type)

        total = b.reduce(shape, _taps(w), tap, name="sum")
        include_pad = bool(ctx.attrs["count_include_pad"])
        whole = w.exact or (include_pad and not w.overhang)

        def mean(*index: Size) -> Expr:
            if whole:
                return cast(total[index] * (1.0 / math.prod(w.kernel)), x.dtype)
            number = self._count(w, at.split(index)[2], include_pad)
            return cast(total[index] / cast(as_expr(number), sum_type), x.dtype)

        return [b.compute(shape, mean, name="mean")]

    @staticmethod
    def _count(w: Windows, out: Sequence[Size], include_pad: bool) -> Size:
        """How many taps of a window count: those inside the data, or inside the padding too."""
        total: Size = 1
        for n, o, k, s, d, begin, end in zip(
            w.sizes, out, w.kernel, w.strides, w.dilations, w.begins, w.ends
        ):
            start = o * s - begin
            low = 0 if include_pad else maximum(0, ceildiv(0 - start, d))
            stop = n + end if include_pad else n
            high = minimum(k, ceildiv(stop - start, d))
            total = total * (high - low)
        return total

    def cases(self) -> Iterable[Case]:
        yield from self._cases()
        long = {"kernel_shape": (LONG, 3), "ceil_mode": 1, "pads": (2, 0, 0, 1)}
        symbolic = {(0, 0): "n", (0, 2): "h", (0, 3): "w"}
        yield Case("long", (sample(2, 5, LONG + 7, 6),), long, symbolic=symbolic)
        for case in self._cases({"count_include_pad": 1}):
            yield Case(f"{case.name}_include_pad", case.inputs, case.attrs, symbolic=case.symbolic)


def _taps(w: Windows) -> tuple[Size, ...]:
    """How many elements of a window may be inside the data, along each axis: of a window that is as
    long as any data only a run knows how many."""
    return tuple(
        k if isinstance(n, int) or k < LONG else minimum(k, ceildiv(n + begin, d))
        for n, k, d, begin in zip(w.sizes, w.kernel, w.dilations, w.begins)
    )


@operator("LpPool", since=1, inputs=1, attributes={**_WINDOW, "p": 2})
class LpPool(_Pool):
    """The p-norm of each window. ONNX LpPool-22."""

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        x = inputs[0]
        assert x is not None
        at, w = self._geometry(ctx, x.shape)
        taps = np.abs(sliding(wide(at.to_first(x)), w, 0))
        p = float(ctx.attrs["p"])
        y = np.power(np.power(taps, p).sum(tuple(range(x.ndim, taps.ndim))), 1 / p)
        return [at.from_first(y.astype(x.dtype))]

    def lower(self, ctx: OpContext, b: KernelBuilder, *inputs: Tensor | None) -> Sequence[Tensor]:
        x = inputs[0]
        assert x is not None
        at, w = self._geometry(ctx, x.shape)
        shape = self._shape(x, at, w)
        p, sum_type = float(ctx.attrs["p"]), accumulator(x.dtype)
        padded = self._padded(b, x, at, w, const(0, x.dtype))

        def tap(*index: Size) -> Expr:
            n, c, out = at.split(index[: at.rank])
            value = cast(padded[at.join(n, c, w.start(out, index[at.rank :]))], sum_type)
            if p == 2:
                return value * value
            return call("abs", value) if p == 1 else call("pow", call("abs", value), p)

        total = b.reduce(shape, w.kernel, tap, name="sum")

        def root(*index: Size) -> Expr:
            value = total[index]
            if p != 1:
                value = call("sqrt", value) if p == 2 else call("pow", value, 1 / p)
            return cast(value, x.dtype)

        return [b.compute(shape, root, name="norm")]

    def cases(self) -> Iterable[Case]:
        yield from self._cases()
        for p in (1, 3):
            attrs = {"kernel_shape": (2, 3), "pads": (1, 0, 0, 1), "p": p}
            yield Case(f"p{p}", (sample(1, 2, 4, 5),), attrs)


class _Global(Operator):
    """Common to pooling over all spatial positions: a reduction that keeps its axes."""

    reduction = ""

    def infer(self, ctx: OpContext) -> list[TensorType]:
        x = ctx.input(0)
        at = layout(ctx, x.rank)
        ones = (1,) * (at.rank - 2)
        return [TensorType(x.dtype, at.join(x.shape[0], x.shape[at.channel], ones))]

    def decompose(self, ctx: OpContext, g: GraphRewriter, *inputs: str) -> Sequence[str] | None:
        spatial = layout(ctx, ctx.input(0).rank).spatial
        return [g.op(self.reduction, inputs[0], g.constant(spatial, "i64"), keepdims=1)]

    def cases(self) -> Iterable[Case]:
        x = sample(2, 3, 4, 5)
        yield Case("plane", (x,), symbolic={(0, 0): "batch", (0, 2): "h"})
        yield Case("channels_last", (x,), {"channels_last": 1}, symbolic={(0, 1): "h"})
        yield Case("line", (sample(2, 3, 7),))
        yield Case("volume", (sample(1, 2, 3, 4, 2),))


@operator("GlobalAveragePool", since=1, inputs=1, attributes={"channels_last": 0})
class GlobalAveragePool(_Global):
    """The mean over all spatial positions. ONNX GlobalAveragePool-22."""

    reduction = "ReduceMean"

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        x = inputs[0]
        assert x is not None
        axes = layout(ctx, x.ndim).spatial
        return [np.mean(wide(x), axis=axes, keepdims=True).astype(x.dtype)]


@operator("GlobalMaxPool", since=1, inputs=1, attributes={"channels_last": 0})
class GlobalMaxPool(_Global):
    """The largest element over all spatial positions. ONNX GlobalMaxPool-22."""

    reduction = "ReduceMax"

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        x = inputs[0]
        assert x is not None
        return [np.max(x, axis=layout(ctx, x.ndim).spatial, keepdims=True)]


@operator("GlobalLpPool", since=2, inputs=1, attributes={"channels_last": 0, "p": 2})
class GlobalLpPool(_Global):
    """The p-norm over all spatial positions. ONNX GlobalLpPool-22."""

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        x = inputs[0]
        assert x is not None
        axes, p = layout(ctx, x.ndim).spatial, float(ctx.attrs["p"])
        total = np.sum(np.power(np.abs(wide(x)), p), axis=axes, keepdims=True)
        return [np.power(total, 1 / p).astype(x.dtype)]

    def decompose(self, ctx: OpContext, g: GraphRewriter, *inputs: str) -> Sequence[str] | None:
        x, p = ctx.input(0), float(ctx.attrs["p"])
        axes = g.constant(layout(ctx, x.rank).spatial, "i64")
        if p in (1.0, 2.0):
            return [g.op(f"ReduceL{int(p)}", inputs[0], axes, keepdims=1)]
        powers = g.op("Pow", g.op("Abs", inputs[0]), g.constant(p, x.dtype))
        total = g.op("ReduceSum", powers, axes, keepdims=1)
        return [g.op("Pow", total, g.constant(1 / p, x.dtype))]

    def cases(self) -> Iterable[Case]:
        yield from super().cases()
        for p in (1, 3):
            yield Case(f"p{p}", (sample(2, 3, 4),), {"p": p})
