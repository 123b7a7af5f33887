"""Parts of tensors along axes: Concat, Split and Slice."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from aicc.graph_ir.types import TensorType, trackable
from aicc.ops import values
from aicc.ops.broadcast import never_equal
from aicc.ops.registry import Array, Case, GraphRewriter, OpContext, Operator, operator
from aicc.ops.samples import floats, ints, sample
from aicc.ops.sizes import axis_in, check_agree
from aicc.symbolic import Size, ceildiv, maximum, minimum, proves_le, proves_lt
from aicc.tensor_ir.builder import KernelBuilder, Tensor
from aicc.tensor_ir.ir import Expr, as_expr, call, select

MOST_JOINED = 64
"""Operands that one Concat joins."""


@operator("Concat", inputs=(1, None), attributes={"axis": 1})
class Concat(Operator):
    """The operands one after the other along `axis`."""

    def infer(self, ctx: OpContext) -> list[TensorType]:
        types = [ctx.input(i) for i in range(len(ctx.types))]
        first = types[0]
        if first.rank == 0:
            ctx.fail("scalars cannot be joined")
        axis = axis_in(ctx, int(ctx.attrs["axis"]), first.rank)
        shape = list(first.shape)
        for t in types[1:]:
            if t.rank != first.rank or t.dtype != first.dtype:
                ctx.fail("the operands differ in rank or element type")
            for a, d in enumerate(t.shape):
                if a == axis:
                    shape[a] = shape[a] + d
                elif never_equal(shape[a], d):
                    ctx.fail(f"sizes {shape[a]} and {d} of axis {a} differ")
                elif isinstance(d, int):
                    shape[a] = d
        known = [values.array_of(t) for t in types]
        joined = None
        if trackable(first.dtype, shape) and all(k is not None for k in known):
            joined = np.concatenate([k for k in known if k is not None], axis)
        return [values.typed(first.dtype, shape, joined)]

    def joined(self, ctx: OpContext) -> tuple[int, ...] | None:
        types = [ctx.input(i) for i in range(len(ctx.types))]
        axis = axis_in(ctx, int(ctx.attrs["axis"]), types[0].rank)
        static = all(isinstance(d, int) for t in types for d in t.shape)
        if not static or types[0].dtype == "str" or any(d != 1 for d in types[0].shape[:axis]):
            return None
        starts = [0]
        for t in types:
            starts.append(starts[-1] + int(t.count))
        return tuple(starts[:-1])

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        return [np.concatenate([x for x in inputs if x is not None], ctx.attrs["axis"])]

    def decompose(self, ctx: OpContext, g: GraphRewriter, *inputs: str) -> Sequence[str] | None:
        """Many operands are joined in groups: each in an expression would nest as deep."""
        values = list(inputs)
        while len(values) > MOST_JOINED:
            groups = [values[n : n + MOST_JOINED] for n in range(0, len(values), MOST_JOINED)]
            values = [g.op("Concat", *group, axis=ctx.attrs["axis"]) for group in groups]
        if len(values) == len(inputs):
            return None
        return [g.op("Concat", *values, axis=ctx.attrs["axis"])]

    def lower(self, ctx: OpContext, b: KernelBuilder, *inputs: Tensor | None) -> Sequence[Tensor]:
        operands = [t for t in inputs if t is not None]
        shape = ctx.outputs[0].shape
        axis = axis_in(ctx, int(ctx.attrs["axis"]), len(shape))
        for t in operands:
            for a, d in enumerate(t.shape):
                if a != axis:
                    check_agree(ctx, b, d, shape[a], f"axis {a}")
        parts = [t for t in operands if t.shape[axis] != 0] or operands[:1]

        def element(*i: Size) -> Expr:
            starts: list[Size] = []
            end: Size = 0
            for t in parts:
                starts.append(end)
                end = end + t.shape[axis]
            result: Expr | None = None
            for t, start in zip(reversed(parts), reversed(starts), strict=True):
                own = t[(*i[:axis], i[axis] - start, *i[axis + 1 :])]
                if result is None:
                    result = own
                else:
                    before = call("lt", as_expr(i[axis], "i64"), as_expr(start + t.shape[axis]))
                    result = select(before, own, result)
            assert result is not None
            return result

        return [b.compute(shape, element)]

    def cases(self) -> Iterable[Case]:
        x, y, z = floats(2, 3, 4), floats(2, 5, 4, seed=1), floats(2, 1, 4, seed=2)
        rows = {(0, 0): "n", (1, 0): "n"}
        yield Case("two", (x, y), {"axis": 1}, symbolic=rows)
        yield Case("sizes", (x, y), {"axis": 1}, symbolic={(0, 1): "a", (1, 1): "b"})
        yield Case("three", (x, y, z), {"axis": -2}, symbolic={**rows, (2, 0): "n"})
        yield Case("agree", (x, y), {"axis": 1}, symbolic={(0, 0): "n"})
        many = tuple(floats(2, 1 + n % 3, seed=n) for n in range(2 * MOST_JOINED + 1))
        yield Case("many", many, {"axis": 1})
        yield Case("first", (floats(1, 3), floats(2, 3, seed=1)), {"axis": 0})
        yield Case("last", (floats(2, 3), floats(2, 7, seed=1)), {"axis": -1}, symbolic=rows)
        yield Case("one", (x,), {"axis": 2}, symbolic={(0, 0): "n"})
        yield Case("empty", (floats(2, 0), floats(2, 3)), {"axis": 1}, symbolic=rows)
        yield Case("all_empty", (floats(0, 2), floats(0, 2)), {"axis": 0})
        yield Case("literal", (floats(3), np.ones(2, np.float32)), {"axis": 0}, constant=(1,))
        for t in ("i64", "u8", "bool", "f16"):
            pair = sample(3, dtype=t), sample(2, dtype=t, seed=1)
            yield Case(t, pair, {"axis": 0}, constant=(0,))


@operator("Split", inputs=(1, 2), attributes={"axis": 0, "num_outputs": None})
class Split(Operator):
    """Parts along `axis`: of the sizes given, or equal ones of which the last may be smaller.

    The sizes were an attribute before opset 13.
    """

    def upgrade(
        self, attrs: dict[str, Any], inputs: list[str], opset: int, graph: Any
    ) -> tuple[dict[str, Any], list[str]]:
        split = attrs.pop("split", None)
        if split is not None:
            inputs = [inputs[0], graph.add_constant("split", np.asarray(split, np.int64))]
        return attrs, inputs

    def _parts(self, ctx: OpContext) -> tuple[int, list[tuple[Size, Size]]]:
        """The axis, and start and size of every part."""
        x = ctx.input(0)
        axis = axis_in(ctx, int(ctx.attrs["axis"]), x.rank)
        extent = x.shape[axis]
        parts: list[tuple[Size, Size]] = []
        start: Size = 0
        if ctx.has(1):
            for size in ctx.require_value(1, "split"):
                if proves_lt(size, 0):
                    ctx.fail(f"{size} is no size")
                parts.append((start, size))
                start = start + size
            if never_equal(start, extent):
                ctx.fail(f"parts of {start} elements together, of {extent}")
        else:
            count = int(ctx.attrs.get("num_outputs") or ctx.n_outputs)
            size = ceildiv(extent, count)
            for n in range(count):
                start = minimum(n * size, extent)
                parts.append((start, minimum((n + 1) * size, extent) - start))
        if ctx.n_outputs > len(parts):
            ctx.fail(f"{ctx.n_outputs} results of {len(parts)} parts")
        return axis, parts[: ctx.n_outputs]

    def infer(self, ctx: OpContext) -> list[TensorType]:
        x, (axis, parts) = ctx.input(0), self._parts(ctx)
        known = values.array_of(x)
        types = []
        for start, size in parts:
            shape = (*x.shape[:axis], size, *x.shape[axis + 1 :])
            part = None
            if known is not None and isinstance(start, int) and isinstance(size, int):
                part = known[(slice(None),) * axis + (slice(start, start + size),)]
            types.append(values.typed(x.dtype, shape, part))
        return types

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        x, split = (*inputs, None)[:2]
        assert x is not None
        axis = int(ctx.attrs["axis"])
        if split is not None:
            ends = np.cumsum(split)[:-1]
        else:
            count = int(ctx.attrs.get("num_outputs") or ctx.n_outputs)
            ends = np.arange(1, count) * -(-x.shape[axis] // count)
        parts = np.split(x, ends, axis)[: ctx.n_outputs]
        return [np.array(p, order="C") for p in parts]

    def lower(self, ctx: OpContext, b: KernelBuilder, *inputs: Tensor | None) -> Sequence[Tensor]:
        x, (axis, parts) = inputs[0], self._parts(ctx)
        assert x is not None
        if ctx.has(1):
            total: Size = 0
            for size in ctx.require_value(1, "split"):
                if not proves_le(0, size):
                    b.check(call("ge", as_expr(size), 0), f"{ctx.node}: {ctx.op}: {size} < 0")
                total = total + size
            check_agree(ctx, b, total, x.shape[axis], "sum of the parts")

        def part(start: Size, size: Size) -> Tensor:
            shape = (*x.shape[:axis], size, *x.shape[axis + 1 :])
            return b.compute(shape, lambda *i: x[(*i[:axis], i[axis] + start, *i[axis + 1 :])])

        return [part(*p) for p in parts]

    def cases(self) -> Iterable[Case]:
        x = floats(6, 7)
        yield Case("equal", (x,), {"axis": 0, "num_outputs": 3}, 3, symbolic={(0, 1): "m"})
        yield Case("uneven", (x,), {"axis": 1, "num_outputs": 2}, 2, symbolic={(0, 0): "n"})
        yield Case("symbolic", (x,), {"axis": 1, "num_outputs": 3}, 3, symbolic={(0, 1): "m"})
        sizes = (x, ints((2, 0, 5)))
        yield Case("sizes", sizes, {"axis": -1}, 3, constant=(1,), symbolic={(0, 0): "n"})
        yield Case("sum", (x, ints((2, 5))), {"axis": 1}, 2, constant=(1,), symbolic={(0, 1): "m"})
        yield Case("single", (x, ints((6,))), {"axis": 0}, 1, constant=(1,))
        yield Case("ones", (floats(3, 2), ints((1, 1, 1))), {"axis": 0}, 3, constant=(1,))
        known = sample(6, dtype="i64"), ints((4, 2))
        yield Case("known", known, {"axis": 0}, 2, constant=(0, 1))
        for t in ("f16", "u8", "bool"):
            yield Case(t, (sample(4, dtype=t),), {"axis": 0, "num_outputs": 2}, 2)


_FAR = 2**31 - 1
"""Bounds at least this far away mean the end of the axis, whatever its size."""


@operator("Slice", inputs=(1, 5))
class Slice(Operator):
    """x[start:end:step] along axes, with Python's rules for negative and far bounds.

    Operands: data, starts, ends, axes (default: the first ones), steps (default 1). Starts, ends
    and axes were attributes before opset 10.
    """

    def upgrade(
        self, attrs: dict[str, Any], inputs: list[str], opset: int, graph: Any
    ) -> tuple[dict[str, Any], list[str]]:
        if opset < 10:
            for name in ("starts", "ends", "axes"):
                given = attrs.pop(name, None)
                if given is not None:
                    inputs.append(graph.add_constant(name, np.asarray(given, np.int64)))
        return attrs, inputs

    def _ranges(self, ctx: OpContext) -> list[tuple[Size, int, Size]]:
        """First index, step and extent for each axis."""
        x = ctx.input(0)
        starts, ends = ctx.require_value(1, "starts"), ctx.require_value(2, "ends")
        axes = ctx.ints(3, "axes") if ctx.has(3) else tuple(range(len(starts)))
        steps = ctx.ints(4, "steps") if ctx.has(4) else (1,) * len(starts)
        if not len(starts) == len(ends) == len(axes) == len(steps):
            ctx.fail("starts, ends, axes and steps have different lengths")
        ranges: list[tuple[Size, int, Size]] = [(0, 1, d) for d in x.shape]
        seen: set[int] = set()
        for start, end, a, step in zip(starts, ends, axes, steps, strict=True):
            axis = axis_in(ctx, a, x.rank)
            if axis in seen:
                ctx.fail(f"axis {axis} is there twice")
            if step == 0:
                ctx.fail("a step is 0")
            seen.add(axis)
            ranges[axis] = slice_range(start, end, step, x.shape[axis])
        return ranges

    def infer(self, ctx: OpContext) -> list[TensorType]:
        x, ranges = ctx.input(0), self._ranges(ctx)
        shape = tuple(extent for _, _, extent in ranges)
        known = values.array_of(x)
        if known is not None and trackable(x.dtype, shape):
            for axis, (start, step, extent) in enumerate(ranges):
                if not isinstance(start, int) or not isinstance(extent, int):
                    return [TensorType(x.dtype, shape)]
                known = known.take([start + k * step for k in range(extent)], axis)
            return [values.typed(x.dtype, shape, known)]
        return [TensorType(x.dtype, shape)]

    def sections(self, ctx: OpContext) -> tuple[tuple[int, int, int], ...] | None:
        found: list[tuple[int, int, int]] = []
        for axis, (begin, step, extent) in enumerate(self._ranges(ctx)):
            if step != 1 or not isinstance(begin, int):
                return None
            if begin != 0 or extent != ctx.input(0).shape[axis]:
                if not isinstance(extent, int):
                    return None
                found.append((axis, begin, extent))
        return tuple(found)

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        x, starts, ends, axes, steps = (*inputs, None, None)[:5]
        assert x is not None and starts is not None and ends is not None
        slices = [slice(None)] * x.ndim
        for n in range(len(starts)):
            axis = n if axes is None else int(axes[n])
            step = 1 if steps is None else int(steps[n])
            end: int | None = int(ends[n])
            if step < 0 and end is not None and end < -x.shape[axis]:
                end = None
            slices[axis] = slice(int(starts[n]), end, step)
        return [x[tuple(slices)].copy()]

    def lower(self, ctx: OpContext, b: KernelBuilder, *inputs: Tensor | None) -> Sequence[Tensor]:
        x, ranges = inputs[0], self._ranges(ctx)
        assert x is not None

        def element(*i: Size) -> Expr:
            return x[
                tuple(start + own * step for own, (start, step, _) in zip(i, ranges, strict=True))
            ]

        return [b.compute(ctx.outputs[0].shape, element)]

    def cases(self) -> Iterable[Case]:
        x = floats(5, 6, 7)
        big = 2**63 - 1
        symbols = {(0, 0): "n", (0, 1): "m"}
        for name, starts, ends, axes, steps in (
            ("first", (0,), (1,), (1,), (1,)),
            ("middle", (1, 2), (4, 5), (0, 1), (1, 1)),
            ("step", (1,), (6,), (1,), (2,)),
            ("far", (2, 0), (big, 99), (0, 2), (1, 3)),
            ("negative", (-3, -1), (-1, big), (0, -1), (1, 1)),
            ("before", (-99,), (2,), (0,), (1,)),
            ("reverse", (-1,), (-(2**63) + 1,), (1,), (-1,)),
            ("reverse_part", (4, -2), (0, 1), (0, 1), (-2, -1)),
            ("reverse_far", (99,), (-99,), (0,), (-3,)),
            ("empty", (3,), (2,), (0,), (1,)),
            ("reverse_empty", (1,), (4,), (1,), (-1,)),
        ):
            operands = (x, ints(starts), ints(ends), ints(axes), ints(steps))
            yield Case(name, operands, constant=(1, 2, 3, 4), symbolic=symbols)
        yield Case("no_axes", (x, ints((1, 1)), ints((3, 4))), constant=(1, 2), symbolic=symbols)
        no_axes = (x, ints((0, 1)), ints((5, 5)), None, ints((2, 3)))
        yield Case("no_axes_steps", no_axes, constant=(1, 2, 4))
        known = (sample(6, dtype="i64"), ints((1,)), ints((-1,)), ints((0,)), ints((2,)))
        yield Case("known", known, constant=(0, 1, 2, 3, 4))
        i32 = tuple(np.array([v], np.int32) for v in (1, 4, 0, 1))
        yield Case("i32", (floats(5), *i32), constant=(1, 2, 3, 4))
        for t in ("f16", "u8", "bool"):
            yield Case(t, (sample(5, dtype=t), ints((1,)), ints((4,))), constant=(1, 2))


def slice_range(start: Size, end: Size, step: int, extent: Size) -> tuple[Size, int, Size]:
    """First index, step and number of elements of a slice of an axis."""
    low = _bound(start, extent)
    high = _bound(end, extent)
    if step > 0:
        first, last = _clamp(low, 0, extent), _clamp(high, 0, extent)
        return first, step, maximum(0, ceildiv(last - first, step))
    first, last = _clamp(low, -1, extent - 1), _clamp(high, -1, extent - 1)
    return first, step, maximum(0, ceildiv(first - last, -step))


def _bound(v: Size, extent: Size) -> Size:
    """A bound counted from the front: negative ones count from the end."""
    if isinstance(v, int):
        if abs(v) >= _FAR:
            return extent if v > 0 else -1
        return v + extent if v < 0 else v
    if proves_le(0, v):
        return v
    if proves_lt(v, 0):
        return v + extent
    return v + extent * minimum(1, maximum(0, -v))


def _clamp(v: Size, lo: Size, hi: Size) -> Size:
    return maximum(lo, minimum(v, hi))
