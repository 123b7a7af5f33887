"""Rearrangements within a tensor: blocks and channels, triangles, running sums, reversed rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from aicc.dtypes import NUMERIC, is_float
from aicc.graph_ir.types import TensorType
from aicc.ops.indexing import loops
from aicc.ops.registry import REQUIRED, Array, Case, OpContext, Operator, operator
from aicc.ops.samples import floats, integers, sample
from aicc.ops.sizes import accumulator, axis_in, check_agree
from aicc.ops.windows import Layout, layout
from aicc.symbolic import Size, divides, minimum
from aicc.tensor_ir.builder import KernelBuilder, Tensor
from aicc.tensor_ir.ir import Expr, as_expr, as_index, call, cast, const, select

_SYMBOLS = {(0, 0): "n", (0, 2): "h", (0, 3): "w"}


class Blocks(Operator):
    """Between depth and blocks of blocksize x blocksize pixels, on [N, C, H, W]."""

    def _block(self, ctx: OpContext) -> tuple[Layout, int]:
        x, block = ctx.input(0), int(ctx.attrs["blocksize"])
        if x.rank != 4:
            ctx.fail("the operand must have rank 4")
        if ctx.attrs["mode"] not in ("DCR", "CRD"):
            ctx.fail(f"mode must be DCR or CRD, not {ctx.attrs['mode']!r}")
        if block < 1:
            ctx.fail(f"blocksize {block} must be positive")
        return layout(ctx, 4), block

    def _divided(self, ctx: OpContext, size: Size, by: int, what: str) -> Size:
        if isinstance(size, int) and not divides(by, size):
            ctx.fail(f"{what} {size} is no multiple of {by}")
        return size // by


@operator("DepthToSpace", attributes={"blocksize": REQUIRED, "mode": "DCR", "channels_last": 0})
class DepthToSpace(Blocks):
    """Channels become blocks: the block index is the outer part of the channel (DCR) or the inner
    part (CRD)."""

    def infer(self, ctx: OpContext) -> list[TensorType]:
        x, (at, s) = ctx.input(0), self._block(ctx)
        n, c, (h, w) = at.split(x.shape)
        depth = self._divided(ctx, c, s * s, "the number of channels")
        return [TensorType(x.dtype, at.join(n, depth, (h * s, w * s)))]

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        x, (at, s) = inputs[0], self._block(ctx)
        assert x is not None
        x = at.to_first(x)
        n, c, h, w = x.shape
        if ctx.attrs["mode"] == "DCR":
            y = x.reshape(n, s, s, c // (s * s), h, w).transpose(0, 3, 4, 1, 5, 2)
        else:
            y = x.reshape(n, c // (s * s), s, s, h, w).transpose(0, 1, 4, 2, 5, 3)
        return [np.array(at.from_first(y.reshape(n, c // (s * s), h * s, w * s)), order="C")]

    def lower(self, ctx: OpContext, b: KernelBuilder, *inputs: Tensor | None) -> Sequence[Tensor]:
        x, (at, s) = inputs[0], self._block(ctx)
        assert x is not None
        shape = ctx.outputs[0].shape
        depth = at.split(shape)[1]
        check_agree(ctx, b, depth * (s * s), at.split(x.shape)[1], "number of channels")

        def element(*i: Size) -> Expr:
            n, c, (h, w) = at.split(i)
            inner = (h % s) * s + w % s
            source = inner * depth + c if ctx.attrs["mode"] == "DCR" else c * (s * s) + inner
            return x[at.join(n, source, (h // s, w // s))]

        return [b.compute(shape, element)]

    def cases(self) -> Iterable[Case]:
        for mode in ("DCR", "CRD"):
            attrs = {"blocksize": 2, "mode": mode}
            yield Case(mode.lower(), (floats(2, 12, 2, 3),), attrs, symbolic=_SYMBOLS)
            last = {**attrs, "channels_last": 1}
            channels_last = {(0, 1): "h", (0, 2): "w"}
            yield Case(f"{mode}_last", (floats(1, 2, 3, 8),), last, symbolic=channels_last)
        yield Case("three", (sample(1, 9, 2, 1, dtype="i64"),), {"blocksize": 3})
        yield Case("depth", (floats(1, 8, 2, 2),), {"blocksize": 2}, symbolic={(0, 1): "c"})


@operator("SpaceToDepth", attributes={"blocksize": REQUIRED, "mode": "DCR", "channels_last": 0})
class SpaceToDepth(Blocks):
    """Blocks become channels: the block index is the outer part of the channel (DCR) or the inner
    part (CRD)."""

    def infer(self, ctx: OpContext) -> list[TensorType]:
        x, (at, s) = ctx.input(0), self._block(ctx)
        n, c, (h, w) = at.split(x.shape)
        spatial = self._divided(ctx, h, s, "the height"), self._divided(ctx, w, s, "the width")
        return [TensorType(x.dtype, at.join(n, c * (s * s), spatial))]

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        x, (at, s) = inputs[0], self._block(ctx)
        assert x is not None
        x = at.to_first(x)
        n, c, h, w = x.shape
        blocks = x.reshape(n, c, h // s, s, w // s, s)
        inner = ctx.attrs["mode"] == "CRD"
        y = blocks.transpose((0, 1, 3, 5, 2, 4) if inner else (0, 3, 5, 1, 2, 4))
        return [np.array(at.from_first(y.reshape(n, c * s * s, h // s, w // s)), order="C")]

    def lower(self, ctx: OpContext, b: KernelBuilder, *inputs: Tensor | None) -> Sequence[Tensor]:
        x, (at, s) = inputs[0], self._block(ctx)
        assert x is not None
        shape = ctx.outputs[0].shape
        _, depth, spatial = at.split(x.shape)
        for axis, (d, part) in enumerate(zip(spatial, at.split(shape)[2], strict=True), 2):
            check_agree(ctx, b, part * s, d, f"axis {axis}")

        def element(*i: Size) -> Expr:
            n, c, (h, w) = at.split(i)
            if ctx.attrs["mode"] == "DCR":
                block, source = c // depth, c % depth
            else:
                block, source = c % (s * s), c // (s * s)
            return x[at.join(n, source, (h * s + block // s, w * s + block % s))]

        return [b.compute(shape, element)]

    def cases(self) -> Iterable[Case]:
        yield Case("two", (floats(2, 3, 4, 6),), {"blocksize": 2}, symbolic=_SYMBOLS)
        inner = {"blocksize": 2, "mode": "CRD"}
        yield Case("crd", (floats(2, 3, 4, 6),), inner, symbolic=_SYMBOLS)
        yield Case("three", (sample(1, 1, 3, 6, dtype="f64"),), {"blocksize": 3})
        last = {"blocksize": 2, "channels_last": 1}
        yield Case("last", (floats(1, 4, 2, 3),), last, symbolic={(0, 1): "h", (0, 2): "w"})


@operator("Trilu", since=14, inputs=(1, 2), attributes={"upper": 1})
class Trilu(Operator):
    """The upper or lower triangle of the last two axes, from diagonal k; 0 elsewhere."""

    def infer(self, ctx: OpContext) -> list[TensorType]:
        x = ctx.input(0)
        if x.rank < 2:
            ctx.fail("the operand must have rank 2 or more")
        if ctx.has(1) and (ctx.input(1).count != 1 or ctx.input(1).dtype != "i64"):
            ctx.fail("k (input 1) must be an i64 scalar")
        return [x.without_value()]

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        x, k = (*inputs, None)[:2]
        assert x is not None
        triangle = np.triu if ctx.attrs["upper"] else np.tril
        return [np.asarray(triangle(x, 0 if k is None else int(k.reshape(()))))]

    def lower(self, ctx: OpContext, b: KernelBuilder, *inputs: Tensor | None) -> Sequence[Tensor]:
        x, k = (*inputs, None)[:2]
        assert x is not None
        diagonal: Expr = const(0, "i64") if k is None else k[(0,) * k.rank]
        side = "ge" if ctx.attrs["upper"] else "le"

        def element(*i: Size) -> Expr:
            inside = call(side, as_expr(i[-1] - i[-2], "i64"), diagonal)
            return select(inside, x[i], const(0, x.dtype))

        return [b.compute(x.shape, element)]

    def cases(self) -> Iterable[Case]:
        x = floats(2, 4, 5)
        for upper in (0, 1):
            attrs = {"upper": upper}
            yield Case(f"main{upper}", (x,), attrs, symbolic={(0, 1): "n", (0, 2): "m"})
            for k in (-2, 1, 9):
                yield Case(f"k{k}_{upper}", (x, np.array(k)), attrs, constant=(1,))
            yield Case(f"run_time{upper}", (x, np.array(1)), attrs, symbolic={(0, 0): "n"})
        yield Case("i64", (sample(3, 3, dtype="i64"),))
        yield Case("bool", (sample(3, 3, dtype="bool"),))
        yield Case("empty", (floats(0, 3),))


At = Callable[[Size], tuple[Size, ...]]
"""The index of an element along one axis."""


@operator("CumSum", since=11, inputs=2, attributes={"exclusive": 0, "reverse": 0})
class CumSum(Operator):
    """Running sums along an axis, with or without the element itself, from either end."""

    def _axis(self, ctx: OpContext) -> int:
        axis = ctx.ints(1, "axis")
        if len(axis) != 1:
            ctx.fail("axis (input 1) must be one number")
        return axis_in(ctx, axis[0], ctx.input(0).rank)

    def infer(self, ctx: OpContext) -> list[TensorType]:
        x = ctx.input(0)
        if x.dtype not in NUMERIC:
            ctx.fail(f"no {x.dtype} elements")
        self._axis(ctx)
        return [x.without_value()]

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        x, axes = inputs
        assert x is not None and axes is not None
        axis = int(axes.reshape(()))
        wide = x.astype(np.float64) if is_float(ctx.input(0).dtype) else x
        if ctx.attrs["reverse"]:
            wide = np.flip(wide, axis)
        total = np.cumsum(wide, axis, dtype=wide.dtype)
        if ctx.attrs["exclusive"]:
            total = total - wide
        if ctx.attrs["reverse"]:
            total = np.flip(total, axis)
        return [total.astype(x.dtype)]

    def lower(self, ctx: OpContext, b: KernelBuilder, *inputs: Tensor | None) -> Sequence[Tensor]:
        x, axis = inputs[0], self._axis(ctx)
        assert x is not None
        wide = accumulator(x.dtype)
        extent, exclusive = x.shape[axis], bool(ctx.attrs["exclusive"])
        backward = bool(ctx.attrs["reverse"])
        sums = b.temp("sums", wide, x.shape)

        def each(lo: Size, hi: Size, value: Callable[[At, Size], Expr]) -> None:
            """Stores `value` for steps lo..hi along the axis, the axes behind it innermost."""
            with ExitStack() as stack:
                before = loops(b, stack, "i", x.shape[:axis])
                j = stack.enter_context(b.loop("j", lo, hi))
                after = loops(b, stack, "k", x.shape[axis + 1 :])
                place = extent - 1 - j if backward else j
                b.store(
                    sums, (*before, place, *after), value(lambda p: (*before, p, *after), place)
                )

        def first(at: At, place: Size) -> Expr:
            return const(0, wide) if exclusive else cast(x[at(place)], wide)

        def further(at: At, place: Size) -> Expr:
            previous = place + 1 if backward else place - 1
            return sums[at(previous)] + cast(x[at(previous if exclusive else place)], wide)

        each(0, minimum(extent, 1), first)
        each(1, extent, further)
        return [sums if wide == x.dtype else b.compute(x.shape, lambda *i: cast(sums[i], x.dtype))]

    def cases(self) -> Iterable[Case]:
        x = floats(3, 5, 4)
        for exclusive in (0, 1):
            for reverse in (0, 1):
                attrs: dict[str, Any] = {"exclusive": exclusive, "reverse": reverse}
                name = f"{exclusive}{reverse}"
                operands = (x, np.array(1))
                symbols = {(0, 0): "n", (0, 1): "m"}
                yield Case(name, operands, attrs, constant=(1,), symbolic=symbols)
        yield Case("last", (x, np.array(-1)), constant=(1,))
        yield Case("i32", (sample(7, dtype="i32"), np.array([0], np.int32)), constant=(1,))
        yield Case("f64", (sample(7, dtype="f64"), np.array(0)), constant=(1,))
        yield Case("f16", (sample(7, dtype="f16"), np.array(0)), constant=(1,))
        yield Case("one", (floats(3, 1), np.array(1)), constant=(1,))


@operator("ReverseSequence", since=10, inputs=2, attributes={"batch_axis": 1, "time_axis": 0})
class ReverseSequence(Operator):
    """The first len[b] elements along the time axis reversed, for every b of the batch axis."""

    def infer(self, ctx: OpContext) -> list[TensorType]:
        x, lengths = ctx.input(0), ctx.input(1)
        axes = {int(ctx.attrs["batch_axis"]), int(ctx.attrs["time_axis"])}
        if axes != {0, 1} or x.rank < 2:
            ctx.fail("batch_axis and time_axis must be 0 and 1, of rank 2 or more")
        if lengths.rank != 1 or lengths.dtype != "i64":
            ctx.fail("lengths (input 1) must be an i64 vector")
        return [x.without_value()]

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        x, lengths = inputs
        assert x is not None and lengths is not None
        batch = int(ctx.attrs["batch_axis"])
        result = x.copy()
        source, target = np.moveaxis(x, batch, 0), np.moveaxis(result, batch, 0)
        for n, length in enumerate(lengths):
            target[n, :length] = source[n, :length][::-1]
        return [result]

    def lower(self, ctx: OpContext, b: KernelBuilder, *inputs: Tensor | None) -> Sequence[Tensor]:
        x, lengths = inputs
        assert x is not None and lengths is not None
        batch, time = int(ctx.attrs["batch_axis"]), int(ctx.attrs["time_axis"])
        extent = x.shape[time]
        check_agree(ctx, b, lengths.shape[0], x.shape[batch], "number of lengths")
        with b.loop("n", 0, lengths.shape[0]) as n:
            inside = call("and", call("ge", lengths[n], 0), call("le", lengths[n], extent))
            b.check(inside, f"{ctx.node}: {ctx.op}: a length is outside 0..{extent}")

        def element(*i: Size) -> Expr:
            t, length = as_expr(i[time], "i64"), lengths[i[batch]]
            top = extent - 1 if isinstance(extent, int) else None
            place = as_index(select(call("lt", t, length), length - 1 - t, t), 0, top)
            return x[tuple(place if a == time else v for a, v in enumerate(i))]

        return [b.compute(x.shape, element)]

    def cases(self) -> Iterable[Case]:
        lengths = np.array([4, 1, 3])
        symbols = {(0, 0): "t", (0, 1): "n", (1, 0): "n"}
        yield Case("time_first", (floats(4, 3, 2), lengths), symbolic=symbols)
        batch_first = {"batch_axis": 0, "time_axis": 1}
        yield Case("batch_first", (floats(3, 4), lengths), batch_first)
        yield Case("i64", (integers(4, 3), lengths))
