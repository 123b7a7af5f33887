"""Overlapping windows added up: Col2Im, and the second half of a transposed convolution as a
product.

Element i of window k lies at the result `i*stride - begin + k*dilation`. It is lowered the other
way round, as sums for each result. A result at position p = t*stride + a (its phase a) gets the
elements (p + begin - k*dilation) / stride of the windows' taps k for which that is whole: those
that do not exist are left out of the loops over rows, and out of each vector along the last axis.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aicc.graph_ir.types import TensorType
from aicc.ops.contraction import wide
from aicc.ops.registry import REQUIRED, Array, Case, GraphRewriter, OpContext, Operator, operator
from aicc.ops.samples import sample
from aicc.ops.sizes import accumulator, always, within
from aicc.ops.windows import explicit_pads, per_axis
from aicc.symbolic import Size, ceildiv, maximum, minimum, product
from aicc.tensor_ir.builder import KernelBuilder, Tensor
from aicc.tensor_ir.ir import Expr, cast, const, select


@dataclass(frozen=True)
class Overlap:
    """Element i of `size` in window k of `kernel` lies at i*stride - begin + k*dilation, of
    `output` results."""

    size: Size
    kernel: int
    stride: int
    dilation: int
    begin: int
    output: Size

    @property
    def phases(self) -> int:
        """Results side by side that take turns, where taps are found by their phase."""
        return self.stride if self.dilation == 1 else 1

    @property
    def steps(self) -> Size:
        """The number of values of t."""
        return ceildiv(self.output, self.phases)

    def sources(self, t: Size, phase: Size) -> tuple[Size, Size, int, int]:
        """(tap, element, step of taps, step of elements): the first tap that reaches a result and
        the element it takes, and how far apart the next ones are."""
        if self.dilation == 1:
            at = phase + self.begin
            return at % self.stride, t + at // self.stride, self.stride, 1
        return 0, t + phase + self.begin, 1, self.dilation

    def taps(self, t: Size, phase: Size) -> tuple[Size, Size]:
        """(first, end) of the taps whose elements exist, where each is a whole one."""
        first, element, apart, step = self.sources(t, phase)
        begin = maximum(0, ceildiv(element - self.size + 1, step))
        end = minimum(ceildiv(self.kernel - first, apart), element // step + 1)
        return begin, maximum(begin, end)

    @property
    def apart(self) -> bool:
        """True where no two windows overlap."""
        return self.dilation == 1 and self.kernel <= self.stride

    @property
    def plain(self) -> bool:
        """True where every tap of a phase takes a whole element."""
        return self.dilation == 1 or self.stride == 1


def overlaps(ctx: OpContext, shape: Sequence[Size]) -> list[Overlap]:
    """The geometry of each spatial axis of a Fold of windows of this shape."""
    outputs, rank = ctx.attrs["outputs"], len(shape)
    count = len(outputs)
    strides, dilations = per_axis(ctx, "strides", count), per_axis(ctx, "dilations", count)
    begins = tuple(int(v) for v in ctx.attrs["begins"]) or (0,) * count
    kernel, sizes = shape[2 : 2 + count], shape[2 + count :]
    if rank != 2 + 2 * count or not count or len(begins) != count:
        ctx.fail(f"data with {rank} axes are not windows over {count} axes")
    if not all(isinstance(k, int) for k in kernel):
        ctx.fail("the sizes of the windows must be known at compile time")
    each = zip(sizes, kernel, strides, dilations, begins, outputs)
    return [Overlap(n, int(k), s, d, int(b), int(o)) for n, k, s, d, b, o in each]


def add_up(x: Array, axes: Sequence[Overlap]) -> Array:
    """The results [N, C, outputs...] of windows [N, C, kernel..., sizes...]."""
    reach = [
        max((int(a.size) - 1) * a.stride + (a.kernel - 1) * a.dilation + 1, a.begin + int(a.output))
        for a in axes
    ]
    full = np.zeros((*x.shape[:2], *reach), x.dtype)
    for tap in np.ndindex(*(a.kernel for a in axes)):
        first = [k * a.dilation for k, a in zip(tap, axes)]
        spans = [(int(a.size) - 1) * a.stride + 1 for a in axes]
        places = (slice(f, f + n, a.stride) for f, n, a in zip(first, spans, axes))
        full[(slice(None), slice(None), *places)] += x[(slice(None), slice(None), *tap)]
    kept = (slice(a.begin, a.begin + int(a.output)) for a in axes)
    return np.ascontiguousarray(full[(slice(None), slice(None), *kept)])


@operator(
    "Fold",
    domain="aicc",
    inputs=1,
    attributes={"outputs": REQUIRED, "strides": (), "dilations": (), "begins": ()},
)
class Fold(Operator):
    """Windows [N, C, kernel..., sizes...] -> [N, C, outputs...]: each result is the sum of the
    elements that lie there."""

    def infer(self, ctx: OpContext) -> list[TensorType]:
        x, axes = ctx.input(0), overlaps(ctx, ctx.input(0).shape)
        return [TensorType(x.dtype, (*x.shape[:2], *(a.output for a in axes)))]

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        (x,) = inputs
        assert x is not None
        return [add_up(wide(x), overlaps(ctx, x.shape)).astype(x.dtype)]

    def lower(self, ctx: OpContext, b: KernelBuilder, *inputs: Tensor | None) -> Sequence[Tensor]:
        (x,) = inputs
        assert x is not None
        axes, sum_type = overlaps(ctx, x.shape), accumulator(x.dtype)
        count, last = len(axes), axes[-1]
        if all(a.apart for a in axes):
            return [self._placed(b, x, axes)]

        def places(index: Sequence[Size]) -> list[tuple[Size, Size]]:
            """(t, phase) of each axis; only of the last one are these axes of their own."""
            *outer, phase, t = index[2 : 3 + count]
            return [*((0, p) for p in outer), (t, phase)]

        def extents(*index: Size) -> tuple[Size, ...]:
            def along(a: Overlap, t: Size, phase: Size) -> Size:
                if a is not last and a.plain:
                    begin, end = a.taps(t, phase)
                    return end - begin
                first, _, apart, _ = a.sources(t, phase)
                return ceildiv(a.kernel - first, apart)

            return tuple(along(a, *place) for a, place in zip(axes, places(index)))

        def term(*index: Size) -> Expr:
            taps: list[Size] = []
            source: list[Size] = []
            bounds: list[tuple[Size, Size, Size]] = []
            for a, (t, phase), k in zip(axes, places(index), index[3 + count :]):
                first, element, apart, step = a.sources(t, phase)
                counted = a is not last and a.plain
                j = a.taps(t, phase)[0] + k if counted else k
                at = element - j * step
                if not a.plain:
                    bounds.append((at % a.stride, 0, 1))
                    at = at // a.stride
                if not counted:
                    bounds.append((at, 0, a.size))
                taps.append(first + j * apart)
                source.append(at)
            inside = within(*bounds)
            value = cast(x[(*index[:2], *taps, *source)], sum_type)
            return value if always(inside) else select(inside, value, const(0, sum_type))

        outer = [a.output for a in axes[:-1]]
        shape = (*x.shape[:2], *outer, last.phases, last.steps)
        sums = b.reduce(shape, extents, term, name="sum")

        def element(*index: Size) -> Expr:
            *leading, p = index
            return cast(sums[(*leading, p % last.phases, p // last.phases)], x.dtype)

        return [b.compute((*x.shape[:2], *outer, last.output), element, name="fold")]

    @staticmethod
    def _placed(b: KernelBuilder, x: Tensor, axes: Sequence[Overlap]) -> Tensor:
        """Windows that do not overlap: each result is one element, or nothing."""

        def element(*index: Size) -> Expr:
            taps = [(p + a.begin) % a.stride for p, a in zip(index[2:], axes)]
            source = [(p + a.begin) // a.stride for p, a in zip(index[2:], axes)]
            bounds: list[tuple[Size, Size, Size]] = [(k, 0, a.kernel) for k, a in zip(taps, axes)]
            bounds += [(i, 0, a.size) for i, a in zip(source, axes)]
            inside = within(*bounds)
            value = x[(*index[:2], *taps, *source)]
            return value if always(inside) else select(inside, value, const(0, x.dtype))

        return b.compute((*x.shape[:2], *(a.output for a in axes)), element, name="fold")

    def cases(self) -> Iterable[Case]:
        for name, shape, attrs in (
            ("plain", (1, 2, 3, 3, 4, 5), {"outputs": (6, 7)}),
            ("apart", (2, 3, 2, 2, 4, 5), {"outputs": (8, 10), "strides": (2, 2)}),
            (
                "apart_cut",
                (1, 2, 3, 3, 4, 5),
                {"outputs": (9, 13), "strides": (3, 3), "begins": (1, 1)},
            ),
            ("padded", (2, 2, 3, 2, 4, 5), {"outputs": (4, 5), "begins": (1, 1)}),
            (
                "twice",
                (1, 2, 4, 4, 3, 9),
                {"outputs": (6, 18), "strides": (2, 2), "begins": (1, 1)},
            ),
            ("odd", (1, 2, 3, 3, 3, 4), {"outputs": (6, 8), "strides": (2, 2), "begins": (1, 1)}),
            ("gaps", (1, 2, 2, 2, 3, 3), {"outputs": (9, 10), "strides": (3, 4)}),
            ("dilated", (1, 2, 3, 2, 3, 4), {"outputs": (7, 6), "dilations": (2, 2)}),
            (
                "dilated_twice",
                (1, 2, 3, 2, 3, 4),
                {"outputs": (10, 9), "dilations": (3, 2), "strides": (2, 2)},
            ),
            ("one_axis", (2, 3, 10, 7), {"outputs": (40,), "strides": (5,)}),
            (
                "three_axes",
                (1, 2, 2, 3, 2, 3, 3, 4),
                {"outputs": (6, 5, 7), "strides": (2, 1, 2), "begins": (0, 0, 1)},
            ),
            ("more", (1, 1, 2, 2, 2, 2), {"outputs": (5, 6), "strides": (2, 2)}),
            ("wide", (1, 2, 8, 8, 14, 14), {"outputs": (21, 21)}),
        ):
            half = len(shape) // 2 - 1
            axes = {(0, 0): "batch", **{(0, 2 + half + n): f"s{n}" for n in range(half)}}
            yield Case(name, (sample(*shape),), dict(attrs), symbolic=axes, atol=1e-5)
        windows = sample(1, 2, 3, 3, 4, 5, dtype="f16")
        yield Case("f16", (windows,), {"outputs": (6, 7)}, rtol=2e-3, atol=2e-3)


@operator("Col2Im", since=18, inputs=3, attributes={"dilations": (), "pads": (), "strides": ()})
class Col2Im(Operator):
    """Columns [N, C * product(block_shape), L] -> images [N, C, image_shape...], whose overlapping
    blocks they are; what overlaps is added. ONNX Col2Im-18."""

    def _geometry(self, ctx: OpContext) -> tuple[list[Overlap], Size]:
        """Each axis, and the channels of the images."""
        x = ctx.input(0)
        image = ctx.require_value(1, "the shape of the images")
        block, count = ctx.ints(2, "the shape of the blocks"), len(image)
        if x.rank != 3 or not count or len(block) != count or any(k < 1 for k in block):
            ctx.fail(f"columns with {x.rank} axes are no blocks {list(block)} of {list(image)}")
        strides, dilations = per_axis(ctx, "strides", count), per_axis(ctx, "dilations", count)
        begins, ends = explicit_pads(ctx, count)
        axes = []
        for n, (o, k, s, d) in enumerate(zip(image, block, strides, dilations)):
            room = o + begins[n] + ends[n] - (k - 1) * d - 1
            if isinstance(room, int) and room < 0:
                ctx.fail(f"a block of {(k - 1) * d + 1} does not fit {o} elements with padding")
            axes.append(Overlap(room // s + 1, k, s, d, begins[n], o))
        sizes, taps = product([a.size for a in axes]), product(block)
        if isinstance(x.shape[1], int) and x.shape[1] % taps:
            ctx.fail(f"{x.shape[1]} rows are no whole blocks of {taps}")
        if isinstance(sizes, int) and isinstance(x.shape[2], int) and sizes != x.shape[2]:
            ctx.fail(f"the images have {sizes} blocks, not {x.shape[2]}")
        return axes, x.shape[1] // taps

    def infer(self, ctx: OpContext) -> list[TensorType]:
        x = ctx.input(0)
        axes, channels = self._geometry(ctx)
        return [TensorType(x.dtype, (x.shape[0], channels, *(a.output for a in axes)))]

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        x = inputs[0]
        assert x is not None
        axes, _ = self._geometry(ctx)
        kernel = [a.kernel for a in axes]
        channels = x.shape[1] // int(np.prod(kernel))
        shape = (x.shape[0], channels, *kernel, *(int(a.size) for a in axes))
        return [add_up(wide(x).reshape(shape), axes).astype(x.dtype)]

    def decompose(self, ctx: OpContext, g: GraphRewriter, *inputs: str) -> Sequence[str] | None:
        axes, channels = self._geometry(ctx)
        sizes = [a.size for a in axes]
        outputs = [a.output for a in axes]
        if not all(isinstance(v, int) for v in (*sizes, *outputs, channels)):
            return None
        kernel = [a.kernel for a in axes]
        shape = g.constant((0, channels, *kernel, *sizes), "i64")
        attrs: dict[str, Any] = {
            "outputs": tuple(outputs),
            "strides": tuple(a.stride for a in axes),
            "dilations": tuple(a.dilation for a in axes),
            "begins": tuple(a.begin for a in axes),
        }
        return [g.op("aicc::Fold", g.op("Reshape", inputs[0], shape), **attrs)]

    def cases(self) -> Iterable[Case]:
        for name, x, image, block, attrs in (
            ("plain", (1, 5, 5), (5, 5), (1, 5), {}),
            ("pads", (1, 5, 15), (5, 5), (1, 5), {"pads": (0, 1, 0, 1)}),
            ("strides", (1, 9, 4), (5, 5), (3, 3), {"strides": (2, 2)}),
            ("dilations", (1, 4, 5), (6, 6), (2, 2), {"dilations": (1, 5)}),
            ("three_axes", (1, 10, 12), (3, 4, 5), (1, 1, 5), {}),
            ("one_axis", (2, 12, 9), (33,), (4,), {"strides": (4,), "pads": (1, 2)}),
        ):
            at = tuple(np.array(v, np.int64) for v in (image, block))
            yield Case(name, (sample(*x), *at), dict(attrs), constant=(1, 2), atol=1e-5)
