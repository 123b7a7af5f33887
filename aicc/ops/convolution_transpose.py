"""ConvTranspose: every input element spreads over a window of results.

It is lowered the other way round, as sums for each result. A result at position p = t*stride + a
(its phase a) gets only the taps k with k = a + begin (mod stride), from the input elements
(p + begin - k) / stride: one dense contraction over these taps and the channels for each phase,
with no multiplications by inserted zeros.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import gcd
from typing import Any

import numpy as np

from aicc.graph_ir.types import TensorType
from aicc.ops.contraction import wide
from aicc.ops.convolution import Sums, finish, group_sums, groups_of, kernel_extents
from aicc.ops.registry import Array, Case, GraphRewriter, OpContext, Operator, operator
from aicc.ops.samples import sample
from aicc.ops.sizes import accumulator, agree, check_agree, within
from aicc.ops.windows import (
    WINDOW,
    Layout,
    explicit_pads,
    layout,
    pad_stage,
    per_axis,
    text,
    with_layout,
)
from aicc.symbolic import Size, ceildiv, maximum
from aicc.tensor_ir.builder import KernelBuilder, Tensor
from aicc.tensor_ir.ir import Expr, as_expr, call, cast, const, select


@dataclass(frozen=True)
class Spread:
    """Element i of an axis of `size` reaches the results `i*stride - begin + k*dilation`."""

    size: Size
    kernel: int
    stride: int
    dilation: int
    begin: Size
    end: Size
    output: Size

    @property
    def taps(self) -> int:
        """The most taps that one phase has."""
        step = self.stride // gcd(self.stride, self.dilation)
        return -(-self.kernel // step)

    @property
    def dense(self) -> bool:
        """True where every phase has the taps a + j*stride, none missing."""
        return (self.dilation == 1 or self.kernel == 1) and self.kernel % self.stride == 0

    @property
    def steps(self) -> Size:
        """The number of values of t."""
        return ceildiv(self.output, self.stride)

    @property
    def first(self) -> Size:
        """The first input element that some result asks for; there may be none so early."""
        return self.begin // self.stride - (self.taps - 1)

    @property
    def reach(self) -> Size:
        """How many input elements results ask for, from the first to the last."""
        return self.steps + (self.stride - 1 + self.begin) // self.stride - self.first


def spreads(ctx: OpContext, sizes: Sequence[Size], kernel: Sequence[int]) -> list[Spread]:
    """The geometry of each spatial axis from pads, auto_pad, output_padding and output_shape."""
    count = len(sizes)
    strides, dilations = per_axis(ctx, "strides", count), per_axis(ctx, "dilations", count)
    extra = tuple(int(v) for v in ctx.attrs["output_padding"] or ()) or (0,) * count
    wanted = tuple(int(v) for v in ctx.attrs["output_shape"] or ())[-count:]
    if len(extra) != count or any(v < 0 for v in extra):
        ctx.fail(f"output_padding {list(extra)} must be {count} numbers that are not negative")
    if wanted and len(wanted) != count:
        ctx.fail(f"output_shape {list(wanted)} must have {count} elements")
    mode = text(ctx.attrs["auto_pad"])
    if mode not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
        ctx.fail(f"unknown auto_pad {mode!r}")
    begins, ends = explicit_pads(ctx, count) if mode == "NOTSET" else ((0,) * count,) * 2
    found = []
    for n, size in enumerate(sizes):
        k, s, d = kernel[n], strides[n], dilations[n]
        whole = (size - 1) * s + (k - 1) * d + 1 + extra[n]
        begin: Size = begins[n]
        end: Size = ends[n]
        output = whole - begin - end
        if wanted or mode.startswith("SAME"):
            output = wanted[n] if wanted else size * s
            total = maximum(0, whole - output)
            half = total // 2
            begin = half if mode == "SAME_UPPER" else total - half
            end = total - begin
        if isinstance(output, int) and output < 1:
            ctx.fail(f"spatial axis {n} of the result would have {output} elements")
        found.append(Spread(size, k, s, d, begin, end, output))
    return found


@operator(
    "ConvTranspose",
    since=1,
    inputs=(2, 3),
    attributes={**WINDOW, "group": 1, "output_padding": (), "output_shape": ()},
)
class ConvTranspose(Operator):
    """Transposed convolution. Data [N, C, spatial...], or [N, spatial..., C] with `channels_last`;
    weights [C, O/group, kernel...]; bias [O]. ONNX ConvTranspose-22."""

    @staticmethod
    def _geometry(
        ctx: OpContext, data: Sequence[Size], weights: Sequence[Size]
    ) -> tuple[Layout, list[Spread], int]:
        at = layout(ctx, len(data))
        kernel = kernel_extents(ctx, weights, len(data))
        _, channels, sizes = at.split(data)
        group = groups_of(ctx, channels, weights[0], "channels")
        agree(ctx, channels, weights[0], "channels of the data")
        return at, spreads(ctx, sizes, kernel), group

    def infer(self, ctx: OpContext) -> list[TensorType]:
        x, weights = ctx.input(0), ctx.input(1)
        at, axes, group = self._geometry(ctx, x.shape, weights.shape)
        if ctx.has(2) and ctx.input(2).rank != 1:
            ctx.fail("the bias must have one axis")
        outputs = [a.output for a in axes]
        return [TensorType(x.dtype, at.join(x.shape[0], weights.shape[1] * group, outputs))]

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        x, weights, *rest = inputs
        assert x is not None and weights is not None
        at, axes, group = self._geometry(ctx, x.shape, weights.shape)
        first, kernel = wide(at.to_first(x)), wide(weights)
        filters = weights.shape[1] * group
        outputs = [int(a.output) for a in axes]
        begins = [int(a.begin) for a in axes]
        reach = [(int(a.size) - 1) * a.stride + (a.kernel - 1) * a.dilation + 1 for a in axes]
        extents = [max(r, b + o) for r, b, o in zip(reach, begins, outputs)]
        full = np.zeros((x.shape[0], filters, *extents), first.dtype)
        for tap in np.ndindex(*weights.shape[2:]):
            part = [
                np.einsum("nc...,co->no...", data, w[(..., *tap)])
                for data, w in zip(np.split(first, group, 1), np.split(kernel, group, 0))
            ]
            places = (
                slice(k * a.dilation, k * a.dilation + (int(a.size) - 1) * a.stride + 1, a.stride)
                for k, a in zip(tap, axes)
            )
            full[(slice(None), slice(None), *places)] += np.concatenate(part, axis=1)
        kept = (slice(b, b + o) for b, o in zip(begins, outputs))
        y = full[(slice(None), slice(None), *kept)]
        if rest and rest[0] is not None:
            y = y + wide(rest[0]).reshape(-1, *(1,) * len(axes))
        return [at.from_first(y).astype(x.dtype)]

    def decompose(self, ctx: OpContext, g: GraphRewriter, *inputs: str) -> Sequence[str] | None:
        """A kernel that is no multiple of the stride gets taps of zero, so that all phases have
        equally many; a result that is none is computed up to the next multiple and cut."""
        at, axes, _ = self._geometry(ctx, ctx.input(0).shape, ctx.input(1).shape)
        if any(a.dilation != 1 and a.kernel != 1 for a in axes):
            return None
        over = [a.steps * a.stride - a.output for a in axes]
        if all(a.dense for a in axes) and all(n == 0 for n in over):
            return None
        missing = [-a.kernel % a.stride for a in axes]
        begins = [a.begin for a in axes]
        # the end's padding removes what the taps add, and output_padding is in it already
        ends = [
            (a.size - 1) * a.stride + a.kernel + m - a.begin - a.output - n
            for a, m, n in zip(axes, missing, over)
        ]
        extra = [-e if isinstance(e, int) and e < 0 else 0 for e in ends]
        pads = (*begins, *(e + x for e, x in zip(ends, extra)))
        if not all(isinstance(p, int) for p in (*pads, *over)):
            return None
        weights = inputs[1]
        if any(missing):
            amounts = (0,) * (len(axes) + 4) + tuple(missing)
            weights = g.op("Pad", weights, g.constant(amounts, "i64"))
        attrs = {
            **ctx.attrs,
            "auto_pad": "NOTSET",
            "dilations": (),
            "kernel_shape": (),
            "output_shape": (),
            "output_padding": tuple(extra),
            "pads": pads,
        }
        y = g.op("ConvTranspose", inputs[0], weights, *inputs[2:], **attrs)
        cut = [(n, -int(e)) for n, e in zip(at.spatial, over) if e != 0]
        if not cut:
            return [y]
        numbers, last = zip(*cut)
        bounds = (g.constant(v, "i64") for v in ((0,) * len(cut), last, numbers))
        return [g.op("Slice", y, *bounds)]

    def lower(self, ctx: OpContext, b: KernelBuilder, *inputs: Tensor | None) -> Sequence[Tensor]:
        x, weights = inputs[:2]
        bias = inputs[2] if len(inputs) > 2 else None
        assert x is not None and weights is not None
        at, axes, group = self._geometry(ctx, x.shape, weights.shape)
        batch, channels, _ = at.split(x.shape)
        check_agree(ctx, b, channels, weights.shape[0], "channels of the data")
        depth, per_group, count = weights.shape[0] // group, weights.shape[1], len(axes)
        filters = per_group * group
        if bias is not None:
            check_agree(ctx, b, bias.shape[0], filters, "size of the bias")
        sum_type = accumulator(x.dtype)
        dense = all(a.dense for a in axes)
        data = x
        if dense and any(a.first != 0 or a.reach != a.size for a in axes):
            begins = [-a.first for a in axes]
            data = pad_stage(b, x, at, begins, [a.reach for a in axes], const(0, x.dtype))

        def term(n: Size, o: Size, g: Size, out: tuple[Size, ...], inner: tuple[Size, ...]) -> Expr:
            t, phase, j, c = out[:count], out[count:], inner[:count], g * depth + inner[count]
            own = o % per_group if group > 1 else o
            if dense:
                moved = [p + a.begin for p, a in zip(phase, axes)]
                source = [u + p // a.stride - v - a.first for u, p, v, a in zip(t, moved, j, axes)]
                taps = [p % a.stride + v * a.stride for p, v, a in zip(moved, j, axes)]
                cond = within()
            else:
                source, taps, cond = _sparse(axes, t, phase, j)
            value = cast(data[at.join(n, c, source)], sum_type)
            product = value * cast(weights[(c, own, *taps)], sum_type)
            return product if dense else select(cond, product, const(0, sum_type))

        big = Layout(2 + 2 * count, at.channels_last)
        outputs = (*(a.steps for a in axes), *(a.stride for a in axes))
        extents = (*(a.taps for a in axes), depth)
        sums = group_sums(b, big, batch, filters, outputs, group, extents, term)

        def element(index: Sequence[Size]) -> Expr:
            n, o, out = at.split(index)
            t = [p // a.stride for p, a in zip(out, axes)]
            phase = [p % a.stride for p, a in zip(out, axes)]
            return sums.value(big.join(n, o, (*t, *phase)))

        shape = at.join(batch, filters, [a.output for a in axes])
        return [finish(b, at, shape, Sums(element, None), bias, x.dtype)]

    def cases(self) -> Iterable[Case]:
        for name, data, weights, given in (
            ("plain", (1, 2, 3, 4), (2, 3, 3, 3), {}),
            ("twice", (2, 3, 3, 4), (3, 4, 2, 2), {"strides": (2, 2)}),
            ("overlap", (1, 2, 3, 4), (2, 3, 4, 4), {"strides": (2, 2), "pads": (1, 1, 1, 1)}),
            (
                "odd_kernel",
                (1, 2, 3, 4),
                (2, 3, 3, 3),
                {"strides": (2, 2), "pads": (1, 1, 1, 1), "output_padding": (1, 1)},
            ),
            ("asymmetric", (1, 2, 4, 3), (2, 3, 3, 2), {"strides": (3, 2), "pads": (0, 1, 2, 0)}),
            ("gaps", (1, 2, 3, 3), (2, 3, 2, 2), {"strides": (3, 3)}),
            ("dilated", (1, 2, 3, 4), (2, 3, 2, 3), {"dilations": (2, 3), "strides": (2, 2)}),
            (
                "dilated_common",
                (1, 1, 4, 3),
                (1, 2, 3, 2),
                {"dilations": (2, 4), "strides": (4, 2)},
            ),
            (
                "same_upper",
                (1, 2, 3, 4),
                (2, 3, 3, 3),
                {"auto_pad": "SAME_UPPER", "strides": (2, 2)},
            ),
            (
                "same_lower",
                (1, 2, 3, 4),
                (2, 3, 3, 4),
                {"auto_pad": "SAME_LOWER", "strides": (2, 1)},
            ),
            ("groups", (1, 4, 3, 3), (4, 3, 3, 3), {"group": 2, "strides": (2, 2)}),
            ("depthwise", (1, 3, 3, 4), (3, 1, 4, 4), {"group": 3, "strides": (2, 2)}),
            ("multiplier", (1, 3, 3, 4), (3, 2, 2, 2), {"group": 3, "strides": (2, 2)}),
            ("one_dimension", (2, 3, 5), (3, 4, 3), {"strides": (2,), "pads": (1, 0)}),
            ("three_dimensions", (1, 2, 2, 3, 2), (2, 2, 2, 2, 3), {"strides": (2, 1, 2)}),
            (
                "pads_over_stride",
                (1, 2, 4, 4),
                (2, 2, 4, 4),
                {"strides": (2, 2), "pads": (3, 2, 3, 3)},
            ),
        ):
            attrs: dict[str, Any] = dict(given)
            x, w = sample(*data), sample(*weights)
            bias = sample(weights[1] * int(attrs.get("group", 1)))
            axes = {(0, 0): "batch", **{(0, n): f"s{n}" for n in range(2, len(data))}}
            yield Case(name, (x, w), attrs, constant=(1,), symbolic=axes, atol=1e-5)
            last = np.ascontiguousarray(np.moveaxis(x, 1, -1))
            axes = {(0, 0): "batch", **{(0, n): f"s{n}" for n in range(1, len(data) - 1)}}
            attrs = with_layout(attrs)
            yield Case(f"{name}_channels_last", (last, w, bias), attrs, symbolic=axes, atol=1e-5)
        pair = (sample(1, 2, 3, 3), sample(2, 2, 3, 3))
        for mode in ("NOTSET", "SAME_UPPER"):
            attrs = {"strides": (3, 2), "output_shape": (9, 8), "auto_pad": mode}
            yield Case(f"output_shape_{mode.lower()}", pair, attrs, atol=1e-5)


def _sparse(
    axes: Sequence[Spread], t: Sequence[Size], phase: Sequence[Size], j: Sequence[Size]
) -> tuple[list[Size], list[Size], Expr]:
    """Input positions, taps, and where both exist, of the j-th tap of each phase.

    Taps k at q = a + begin solve k*dilation = q (mod stride): where g = gcd(stride, dilation)
    divides q, they are k = q/g * (dilation/g)^-1 (mod stride/g).
    """
    source, taps, cond = [], [], within()
    for u, a, v, axis in zip(t, phase, j, axes):
        g = gcd(axis.stride, axis.dilation)
        step = axis.stride // g
        inverse = pow(axis.dilation // g, -1, step) if step > 1 else 0
        q = (a + axis.begin) % axis.stride
        tap = (q // g * inverse) % step + v * step
        place = (u * axis.stride + a + axis.begin - tap * axis.dilation) // axis.stride
        source.append(place)
        taps.append(tap)
        cond = call("and", cond, within((place, 0, axis.size), (tap, 0, axis.kernel)))
        if g > 1:
            cond = call("and", cond, call("eq", as_expr(q % g), as_expr(0)))
    return source, taps, cond
