"""Conv: sliding sums of products, in groups, over one to three spatial axes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from aicc.graph_ir.types import TensorType
from aicc.ops.contraction import wide
from aicc.ops.registry import Array, Case, GraphRewriter, OpContext, Operator, operator
from aicc.ops.samples import sample
from aicc.ops.sizes import accumulator, agree, check_agree
from aicc.ops.windows import (
    WINDOW,
    Layout,
    Windows,
    layout,
    pad_stage,
    sliding,
    windows,
    with_layout,
)
from aicc.symbolic import Size
from aicc.tensor_ir.builder import KernelBuilder, Tensor
from aicc.tensor_ir.ir import Expr, cast, const


def kernel_extents(ctx: OpContext, weights: Sequence[Size], data_rank: int) -> tuple[int, ...]:
    """The spatial extents of the weights, which must be numbers and fit `kernel_shape`."""
    extents = tuple(weights[2:])
    if len(weights) != data_rank:
        ctx.fail(f"weights have {len(weights)} axes, data {data_rank}")
    given = tuple(ctx.attrs.get("kernel_shape", ()) or ())
    if not all(isinstance(k, int) for k in extents):
        ctx.fail("the spatial sizes of the weights must be known at compile time")
    if given and given != extents:
        ctx.fail(f"kernel_shape {list(given)} is not that of the weights, {list(extents)}")
    return tuple(int(k) for k in extents)


def groups_of(ctx: OpContext, channels: Size, weights: Size, what: str) -> int:
    """The `group` attribute, checked against channel counts where these are numbers."""
    group = int(ctx.attrs["group"])
    if group < 1:
        ctx.fail(f"group {group} must be positive")
    for size in (channels, weights):
        if isinstance(size, int) and size % group:
            ctx.fail(f"{size} {what} do not divide into {group} groups")
    return group


@dataclass(frozen=True)
class Sums:
    """The sums of a convolution, by groups of channels: `value(index)` is the one for an index of
    the result's layout; `flat` is their tensor where it has that layout itself."""

    value: Callable[[Sequence[Size]], Expr]
    flat: Tensor | None


@dataclass(frozen=True)
class Met:
    """The taps first..last of a window's axis, with the padding and the stride for these."""

    first: int
    last: int
    begin: Size
    end: Size
    stride: int

    @staticmethod
    def all(w: Windows, n: int) -> Met:
        return Met(0, w.kernel[n], w.begins[n], w.ends[n], w.strides[n])


def met(w: Windows, n: int) -> Met | None:
    """The taps along axis `n` that meet data in some window, where others do not."""
    size, begin, end, output = w.sizes[n], w.begins[n], w.ends[n], w.outputs[n]
    numbers = [v for v in (size, begin, end, output) if isinstance(v, int)]
    if len(numbers) < 4:
        return None
    size, begin, end, output = numbers
    kernel, stride, step = w.kernel[n], w.strides[n], w.dilations[n]
    taps = range(kernel)
    before = [t for t in taps if (output - 1) * stride - begin + t * step < 0]
    behind = [t for t in taps if t * step - begin >= size]
    # A window starts inside what is left of the padding.
    first, after = min(len(before), begin // step), min(len(behind), end // step)
    if first + after in (0, kernel):
        return None
    begin, end = begin - first * step, end - after * step
    alone = size + begin + end == (kernel - first - after - 1) * step + 1
    return Met(first, kernel - after, begin, end, 1 if alone else stride)


T = TypeVar("T")
Term = Callable[[Size, Size, Size, tuple[Size, ...], tuple[Size, ...]], Expr]


def group_sums(
    b: KernelBuilder,
    at: Layout,
    batch: Size,
    filters: Size,
    outputs: Sequence[Size],
    group: int,
    extents: Callable[[Sequence[Size]], Sequence[Size]],
    depth: Size,
    term: Term,
) -> Sums:
    """The stage that sums `term(n, filter, group, output, inner)` over the `extents` of a window,
    which may differ from output to output, and `depth` channels.

    Groups of one filter, or of one channel, take the group from the filter's number. Others get
    loops over groups and the filters of a group, so that each is a contraction of its own.
    """
    per_group = filters // group
    if group == 1 or per_group == 1 or depth == 1:

        def one(*index: Size) -> Expr:
            n, o, out = at.split(index[: at.rank])
            return term(n, o, 0 if group == 1 else o // per_group, out, index[at.rank :])

        def inner(*index: Size) -> tuple[Size, ...]:
            return (*extents(at.split(index)[2]), depth)

        flat = b.reduce(at.join(batch, filters, outputs), inner, one, name="sum")
        return Sums(lambda index: flat[tuple(index)], flat)

    def join(n: Size, g: Size, o: Size, out: Sequence[Size]) -> tuple[Size, ...]:
        return (n, *out, g, o) if at.channels_last else (n, g, o, *out)

    def parts(outer: Sequence[Size]) -> tuple[Size, Size, Size, Sequence[Size]]:
        if at.channels_last:
            return outer[0], outer[-2], outer[-1], outer[1:-2]
        return outer[0], outer[1], outer[2], outer[3:]

    def of_group(*index: Size) -> Expr:
        n, g, o, out = parts(index[: at.rank + 1])
        return term(n, g * per_group + o, g, tuple(out), index[at.rank + 1 :])

    def inner_of_group(*index: Size) -> tuple[Size, ...]:
        return (*extents(parts(index)[3]), depth)

    shape = join(batch, group, per_group, outputs)
    sums = b.reduce(shape, inner_of_group, of_group, name="sum")

    def element(index: Sequence[Size]) -> Expr:
        n, o, out = at.split(index)
        return sums[join(n, o // per_group, o % per_group, out)]

    return Sums(element, None)


def finish(
    b: KernelBuilder,
    at: Layout,
    shape: Sequence[Size],
    sums: Sums,
    bias: Tensor | None,
    dtype: str,
) -> Tensor:
    """The stage that adds the bias and gives the result its layout and type, where needed."""
    if bias is None and sums.flat is not None and sums.flat.dtype == dtype:
        return sums.flat

    def result(*index: Size) -> Expr:
        value = sums.value(index)
        if bias is not None:
            value = value + cast(bias[index[at.channel]], value.dtype)
        return cast(value, dtype)

    return b.compute(shape, result, name="conv")


@operator("Conv", since=1, inputs=(2, 3), attributes={**WINDOW, "group": 1, "filters_last": 0})
class Conv(Operator):
    """Convolution (cross-correlation). Data [N, C, spatial...], or [N, spatial..., C] with
    `channels_last`; weights [O, C/group, kernel...], or [kernel..., C/group, O] with
    `filters_last`; bias [O]. ONNX Conv-22."""

    def infer(self, ctx: OpContext) -> list[TensorType]:
        x, weights = ctx.input(0), self._filters_first(ctx, ctx.input(1).shape)
        at, w, _ = self._geometry(ctx, x.shape, weights)
        if ctx.has(2) and ctx.input(2).rank != 1:
            ctx.fail("the bias must have one axis")
        return [TensorType(x.dtype, at.join(x.shape[0], weights[0], w.outputs))]

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        x, weights, *rest = inputs
        assert x is not None and weights is not None
        weights = weights.transpose(self._filters_first(ctx, range(weights.ndim)))
        at, w, group = self._geometry(ctx, x.shape, weights.shape)
        taps = sliding(wide(at.to_first(x)), w, 0)
        kernel_axes = tuple(range(taps.ndim - len(w.kernel), taps.ndim))
        own = tuple(range(2, weights.ndim))
        parts = [
            np.tensordot(data, kernel, axes=((1, *kernel_axes), (1, *own)))
            for data, kernel in zip(
                np.split(taps, group, axis=1), np.split(wide(weights), group, axis=0)
            )
        ]
        y = np.concatenate(parts, axis=-1)
        if rest and rest[0] is not None:
            y = y + wide(rest[0])
        return [at.from_first(np.moveaxis(y, -1, 1)).astype(x.dtype)]

    def decompose(self, ctx: OpContext, g: GraphRewriter, *inputs: str) -> Sequence[str] | None:
        """Weights that meet nothing but padding go, and with them the padding: of a 3x3 window on
        data of one element, one is left."""
        if ctx.attrs["filters_last"] or ctx.attrs["channels_last"]:
            return None
        _, w, _ = self._geometry(ctx, ctx.input(0).shape, ctx.input(1).shape)
        axes = [met(w, n) for n in range(len(w.kernel))]
        if all(a is None for a in axes):
            return None
        kept = [a or Met.all(w, n) for n, a in enumerate(axes)]
        if not all(isinstance(p, int) for a in kept for p in (a.begin, a.end)):
            return None
        bounds = ([a.first for a in kept], [a.last for a in kept], range(2, len(kept) + 2))
        part = g.op("Slice", inputs[1], *(g.constant(tuple(v), "i64") for v in bounds))
        attrs = {
            **ctx.attrs,
            "auto_pad": "NOTSET",
            "kernel_shape": (),
            "strides": tuple(a.stride for a in kept),
            "pads": (*(a.begin for a in kept), *(a.end for a in kept)),
        }
        return [g.op("Conv", inputs[0], part, *inputs[2:], **attrs)]

    def lower(self, ctx: OpContext, b: KernelBuilder, *inputs: Tensor | None) -> Sequence[Tensor]:
        x, weights = inputs[:2]
        bias = inputs[2] if len(inputs) > 2 else None
        assert x is not None and weights is not None
        filters, depth, *kernel = self._filters_first(ctx, weights.shape)
        at, w, group = self._geometry(ctx, x.shape, (filters, depth, *kernel))
        batch, channels, _ = at.split(x.shape)
        check_agree(ctx, b, channels, depth * group, "channels of the data")
        if bias is not None:
            check_agree(ctx, b, bias.shape[0], filters, "size of the bias")
        if not w.exact:
            x = pad_stage(b, x, at, w.begins, w.padded, const(0, x.dtype))
        data, sum_type, count = x, accumulator(x.dtype), len(w.kernel)
        last = bool(ctx.attrs["filters_last"])

        def term(n: Size, o: Size, g: Size, out: tuple[Size, ...], inner: tuple[Size, ...]) -> Expr:
            tap, c = inner[:count], inner[count]
            value = data[at.join(n, g * depth + c, w.start(out, tap))]
            weight = weights[(*tap, c, o) if last else (o, c, *tap)]
            return cast(value, sum_type) * cast(weight, sum_type)

        window = w.kernel
        sums = group_sums(b, at, batch, filters, w.outputs, group, lambda _: window, depth, term)
        shape = at.join(batch, filters, w.outputs)
        return [finish(b, at, shape, sums, bias, x.dtype)]

    @staticmethod
    def _filters_first(ctx: OpContext, weights: Sequence[T]) -> tuple[T, ...]:
        """What is given for the axes of the weights, as [O, C/group, kernel...]."""
        if not ctx.attrs["filters_last"]:
            return tuple(weights)
        *kernel, depth, filters = weights
        return (filters, depth, *kernel)

    @staticmethod
    def _geometry(
        ctx: OpContext, data: Sequence[Size], weights: Sequence[Size]
    ) -> tuple[Layout, Windows, int]:
        at = layout(ctx, len(data))
        kernel = kernel_extents(ctx, weights, len(data))
        _, channels, sizes = at.split(data)
        group = groups_of(ctx, channels, weights[0], "channels")
        agree(ctx, channels, weights[1] * group, "channels of the data")
        return at, windows(ctx, sizes, kernel), group

    def cases(self) -> Iterable[Case]:
        for name, data, weights, attrs in (
            ("pointwise", (2, 3, 4, 5), (6, 3, 1, 1), {}),
            ("valid", (1, 2, 5, 6), (3, 2, 3, 3), {}),
            ("padded", (2, 3, 5, 6), (4, 3, 3, 3), {"pads": (1, 1, 1, 1)}),
            ("asymmetric", (1, 2, 5, 6), (3, 2, 3, 2), {"pads": (0, 2, 1, 0)}),
            ("strided", (1, 2, 7, 8), (3, 2, 3, 3), {"pads": (1, 1, 1, 1), "strides": (2, 3)}),
            ("dilated", (1, 2, 8, 9), (3, 2, 3, 2), {"pads": (2, 0, 1, 3), "dilations": (2, 3)}),
            ("same_upper", (1, 2, 5, 6), (3, 2, 3, 4), {"auto_pad": "SAME_UPPER"}),
            (
                "same_lower",
                (1, 2, 5, 6),
                (3, 2, 3, 4),
                {"auto_pad": "SAME_LOWER", "strides": (2, 2)},
            ),
            ("auto_valid", (1, 2, 5, 6), (3, 2, 3, 4), {"auto_pad": "VALID"}),
            ("depthwise", (1, 4, 5, 6), (4, 1, 3, 3), {"group": 4, "pads": (1, 1, 1, 1)}),
            ("multiplier", (1, 3, 5, 4), (6, 1, 3, 3), {"group": 3, "strides": (2, 2)}),
            ("groups", (2, 4, 4, 5), (6, 2, 3, 3), {"group": 2, "pads": (1, 1, 1, 1)}),
            ("one_filter_groups", (1, 6, 4, 4), (3, 2, 2, 2), {"group": 3}),
            ("one_dimension", (2, 3, 9), (4, 3, 3), {"pads": (1, 0), "strides": (2,)}),
            ("three_dimensions", (1, 2, 3, 4, 5), (3, 2, 2, 2, 3), {"pads": (0, 1, 1, 1, 0, 1)}),
            ("large_kernel", (1, 1, 5, 5), (2, 1, 5, 5), {}),
            ("beyond", (2, 2, 1, 2), (3, 2, 3, 5), {"pads": (1, 2, 1, 2), "strides": (2, 1)}),
            ("beyond_apart", (1, 2, 4, 5), (3, 2, 3, 3), {"pads": (5,) * 4, "dilations": (5, 5)}),
            ("beyond_before", (1, 1, 2, 3), (2, 1, 5, 3), {"pads": (4, 3, 0, 0)}),
            ("beyond_all", (1, 1, 2, 2), (2, 1, 2, 2), {"pads": (9,) * 4, "strides": (9, 9)}),
        ):
            x, w = sample(*data), sample(*weights)
            bias = sample(weights[0])
            axes = {(0, 0): "batch", **{(0, n): f"s{n}" for n in range(2, len(data))}}
            yield Case(name, (x, w), attrs, constant=(1,), symbolic=axes, atol=1e-5)
            last = np.ascontiguousarray(np.moveaxis(x, 1, -1))
            axes = {(0, 0): "batch", **{(0, n): f"s{n}" for n in range(1, len(data) - 1)}}
            yield Case(
                f"{name}_channels_last",
                (last, w, bias),
                with_layout(attrs),
                symbolic=axes,
                atol=1e-5,
            )
            turned = np.ascontiguousarray(w.transpose(*range(2, w.ndim), 1, 0))
            yield Case(
                f"{name}_filters_last",
                (last, turned, bias),
                {**with_layout(attrs), "filters_last": 1},
                atol=1e-5,
            )
        half = (sample(1, 3, 5, 5, dtype="f16"), sample(4, 3, 3, 3, dtype="f16"))
        yield Case("f16", half, rtol=2e-3, atol=2e-3)
