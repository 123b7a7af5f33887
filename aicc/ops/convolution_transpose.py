"""ConvTranspose: every input element spreads over a window of results.

It is lowered the other way round, as sums for each result. A result at position p = t*stride + a
(its phase a) gets only the taps k with k = a + begin (mod stride), from the input elements
(p + begin - k) / stride: one dense contraction over these taps and the channels for each phase,
with no multiplications by inserted zeros. Of a kernel that is no multiple of the stride, some
phases have a tap less than others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aicc.graph_ir.types import TensorType
from aicc.ops.contraction import wide
from aicc.ops.convolution import Sums, finish, group_sums, groups_of, kernel_extents
from aicc.ops.registry import Array, Case, GraphRewriter, OpContext, Operator, operator
from aicc.ops.samples import sample
from aicc.ops.sizes import accumulator, agree, check_agree
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
from aicc.tensor_ir.ir import Expr, cast, const


@dataclass(frozen=True)
class Spread:
    """Element i of an axis of `size` reaches the results `i*stride - begin + k*dilation`; `extra`
    more results lie behind the last of those."""

    size: Size
    kernel: int
    stride: int
    dilation: int
    begin: Size
    end: Size
    extra: int
    output: Size

    @property
    def span(self) -> int:
        """The results that one element reaches, gaps included."""
        return (self.kernel - 1) * self.dilation + 1

    @property
    def whole(self) -> bool:
        """True where every element has results of its own, as many as the kernel is long."""
        parts = self.kernel == self.stride and self.dilation == 1 and self.begin == 0
        return parts and self.output == self.size * self.stride

    @property
    def taps(self) -> int:
        """The most taps that one phase has, of weights without gaps."""
        return -(-self.kernel // self.stride)

    def taps_of(self, phase: Size) -> Size:
        """The taps that a phase has."""
        if self.kernel % self.stride == 0:
            return self.taps
        return ceildiv(self.kernel - (phase + self.begin) % self.stride, self.stride)

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
        more = 0
        if wanted or mode.startswith("SAME"):
            output = wanted[n] if wanted else size * s
            total = maximum(0, whole - output)
            half = total // 2
            begin = half if mode == "SAME_UPPER" else total - half
            end = total - begin
            missing = output - whole
            more = missing if isinstance(missing, int) and missing > 0 else 0
        if isinstance(output, int) and output < 1:
            ctx.fail(f"spatial axis {n} of the result would have {output} elements")
        found.append(Spread(size, k, s, d, begin, end, extra[n] + more, output))
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
        """One element along an axis needs no overlap, stride 1 is a convolution, dilated weights
        are weights with zeros in between, and a result that is no multiple of the stride is
        computed up to the next one and cut."""
        at, axes, group = self._geometry(ctx, ctx.input(0).shape, ctx.input(1).shape)
        made = _Rewriting(g, inputs, {**ctx.attrs, "auto_pad": "NOTSET"}, at, axes, group)
        return (
            made.of_single_elements()
            or made.as_convolution(ctx.input(1).shape)
            or made.without_dilation()
            or made.of_whole_steps()
        )

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
        data = x
        if any(a.first != 0 or a.reach != a.size for a in axes):
            begins = [-a.first for a in axes]
            data = pad_stage(b, x, at, begins, [a.reach for a in axes], const(0, x.dtype))

        def phased(pairs: Sequence[tuple[Size, Size]]) -> tuple[Size, ...]:
            """(t, phase) of every axis in the order of the sums' axes: as the result has them, but
            for what is last: lanes run along t where no channels are there for them."""
            if not at.channels_last:
                pairs = (*pairs[:-1], pairs[-1][::-1])
            return tuple(v for pair in pairs for v in pair)

        def paired(out: Sequence[Size]) -> list[tuple[Size, Size]]:
            pairs = [(out[n], out[n + 1]) for n in range(0, len(out), 2)]
            return pairs if at.channels_last else [*pairs[:-1], pairs[-1][::-1]]

        def extents(out: Sequence[Size]) -> tuple[Size, ...]:
            return tuple(a.taps_of(phase) for a, (_, phase) in zip(axes, paired(out)))

        def term(n: Size, o: Size, g: Size, out: tuple[Size, ...], inner: tuple[Size, ...]) -> Expr:
            source, taps = [], []
            for a, (t, phase), j in zip(axes, paired(out), inner):
                source.append(t + (phase + a.begin) // a.stride - j - a.first)
                taps.append((phase + a.begin) % a.stride + j * a.stride)
            own = o % per_group if group > 1 else o
            c = g * depth + inner[count]
            value = cast(data[at.join(n, c, source)], sum_type)
            return value * cast(weights[(c, own, *taps)], sum_type)

        big = Layout(2 + 2 * count, at.channels_last)
        outputs = phased([(a.steps, a.stride) for a in axes])
        sums = group_sums(b, big, batch, filters, outputs, group, extents, depth, term)

        def element(index: Sequence[Size]) -> Expr:
            n, o, out = at.split(index)
            places = phased([(p // a.stride, p % a.stride) for p, a in zip(out, axes)])
            return sums.value(big.join(n, o, places))

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
            for shape in ((9, 8), (10, 8), (11, 5)):
                attrs = {"strides": (3, 2), "output_shape": shape, "auto_pad": mode}
                name = f"output_shape_{mode.lower()}_{shape[0]}_{shape[1]}"
                yield Case(name, pair, attrs, atol=1e-5)


@dataclass(frozen=True)
class _Rewriting:
    """A node on its way to others: its operands, attributes and geometry."""

    g: GraphRewriter
    inputs: Sequence[str]
    attrs: dict[str, Any]
    at: Layout
    axes: Sequence[Spread]
    group: int

    def of_single_elements(self) -> Sequence[str] | None:
        """An axis of one element is the kernel itself, or the part of it that pads leave: a stride
        as long as that has one tap for each result."""
        single = [a.size == 1 and not a.whole for a in self.axes]
        if not any(single):
            return None
        known = [(a.begin, a.output) for a, one in zip(self.axes, single) if one]
        if not all(isinstance(v, int) for pair in known for v in pair):
            return None
        weights = self._spaced([a.dilation if one else 1 for a, one in zip(self.axes, single)])
        first, end, more = [], [], []
        for a in (a for a, one in zip(self.axes, single) if one):
            assert isinstance(a.begin, int) and isinstance(a.output, int)
            first.append(a.begin)
            end.append(a.begin + a.output)
            more.append(max(0, a.begin + a.output - a.span))
        places = [n + 2 for n, one in enumerate(single) if one]
        if any(more):
            amounts = dict(zip(places, more))
            weights = self._padded(weights, [amounts.get(n, 0) for n in range(len(single) + 2)])
        weights = self._cut(weights, first, end, places)
        return self._again(
            weights,
            [1 if one else a.dilation for a, one in zip(self.axes, single)],
            [a.output if one else a.stride for a, one in zip(self.axes, single)],
            [(0, 0) if one else (a.begin, a.end) for a, one in zip(self.axes, single)],
            [0 if one else a.extra for a, one in zip(self.axes, single)],
        )

    def as_convolution(self, weights: Sequence[Size]) -> Sequence[str] | None:
        """Stride 1: windows of the data, with the weights the other way round."""
        if any(a.stride != 1 for a in self.axes):
            return None
        begins = [a.span - 1 - a.begin for a in self.axes]
        ends = [a.output - a.size + a.span - 1 - b for a, b in zip(self.axes, begins)]
        if not all(isinstance(p, int) and p >= 0 for p in (*begins, *ends)):
            return None
        g, w, count = self.g, self.inputs[1], len(self.axes)
        spatial = tuple(range(2, count + 2))
        if self.group == 1:
            w = g.op("Transpose", w, perm=(1, 0, *spatial))
        else:
            channels, filters, *kernel = weights
            if not isinstance(channels, int) or not isinstance(filters, int):
                return None
            parts = (self.group, channels // self.group, filters, *kernel)
            w = g.op("Reshape", w, g.constant(parts, "i64"))
            w = g.op("Transpose", w, perm=(0, 2, 1, *(n + 1 for n in spatial)))
            shape = (self.group * filters, channels // self.group, *kernel)
            w = g.op("Reshape", w, g.constant(shape, "i64"))
        back = ((-1,) * count, (-(2**62),) * count, spatial, (-1,) * count)
        w = g.op("Slice", w, *(g.constant(v, "i64") for v in back))
        attrs: dict[str, Any] = {
            "strides": (1,) * count,
            "dilations": tuple(a.dilation for a in self.axes),
            "pads": (*begins, *ends),
            "group": self.group,
            "channels_last": int(self.at.channels_last),
        }
        return [g.op("Conv", self.inputs[0], w, *self.inputs[2:], **attrs)]

    def without_dilation(self) -> Sequence[str] | None:
        if all(a.dilation == 1 for a in self.axes):
            return None
        return self._again(
            self._spaced([a.dilation for a in self.axes]),
            [1] * len(self.axes),
            [a.stride for a in self.axes],
            [(a.begin, a.end) for a in self.axes],
            [a.extra for a in self.axes],
        )

    def of_whole_steps(self) -> Sequence[str] | None:
        over = [a.steps * a.stride - a.output for a in self.axes]
        if all(n == 0 for n in over) or not all(isinstance(n, int) for n in over):
            return None
        # what the end's padding does not give, output_padding does
        ends = [a.end - n for a, n in zip(self.axes, over)]
        more = [-e if isinstance(e, int) and e < 0 else 0 for e in ends]
        y = self._again(
            self.inputs[1],
            [a.dilation for a in self.axes],
            [a.stride for a in self.axes],
            [(a.begin, e + m) for a, e, m in zip(self.axes, ends, more)],
            [a.extra + m for a, m in zip(self.axes, more)],
        )
        if y is None:
            return None
        cut = [(n, -int(e)) for n, e in zip(self.at.spatial, over) if e != 0]
        places, last = zip(*cut)
        return [self._cut(y[0], (0,) * len(cut), last, places)]

    def _again(
        self,
        weights: str,
        dilations: Sequence[int],
        strides: Sequence[Any],
        pads: Sequence[tuple[Size, Size]],
        extra: Sequence[int],
    ) -> list[str] | None:
        """The operator with other attributes; None where they would not be numbers."""
        ends = [*(b for b, _ in pads), *(e for _, e in pads)]
        if not all(isinstance(v, int) for v in (*ends, *strides)):
            return None
        attrs = {
            **self.attrs,
            "dilations": tuple(dilations),
            "kernel_shape": (),
            "output_shape": (),
            "output_padding": tuple(extra),
            "pads": tuple(ends),
            "strides": tuple(strides),
        }
        return [self.g.op("ConvTranspose", self.inputs[0], weights, *self.inputs[2:], **attrs)]

    def _spaced(self, dilations: Sequence[int]) -> str:
        """The weights with zeros between their elements."""
        weights = self.inputs[1]
        for n, (a, d) in enumerate(zip(self.axes, dilations)):
            if d == 1 or a.kernel == 1:
                continue
            place = n + 2
            g, rank = self.g, len(self.axes) + 2
            weights = g.op("Unsqueeze", weights, g.constant((place + 1,), "i64"))
            amounts = [d - 1 if m == place + 1 else 0 for m in range(rank + 1)]
            weights = self._padded(weights, amounts)
            behind = (b.kernel for b in self.axes[n + 1 :])
            shape = (*(0 for _ in range(place)), a.kernel * d, *behind)
            weights = g.op("Reshape", weights, g.constant(shape, "i64"))
            weights = self._cut(weights, (0,), (a.span,), (place,))
        return weights

    def _padded(self, value: str, amounts: Sequence[int]) -> str:
        """Zeros behind the elements of each axis."""
        both = (*(0 for _ in amounts), *amounts)
        return str(self.g.op("Pad", value, self.g.constant(both, "i64")))

    def _cut(
        self, value: str, first: Sequence[int], end: Sequence[int], axes: Sequence[int]
    ) -> str:
        bounds = (self.g.constant(tuple(v), "i64") for v in (first, end, axes))
        return str(self.g.op("Slice", value, *bounds))
