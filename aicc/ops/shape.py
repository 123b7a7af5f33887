"""Shapes as data, constants made from shapes, and rearrangements of axes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from aicc.dtypes import INTEGERS, NUMERIC, from_numpy, is_float, to_numpy
from aicc.graph_ir.types import TensorType, trackable
from aicc.ops import values
from aicc.ops.broadcast import broadcast_shape, reader
from aicc.ops.elementwise_other import dtype_attribute, dtype_name
from aicc.ops.registry import Array, Case, OpContext, Operator, operator
from aicc.ops.samples import floats, ints, sample
from aicc.ops.sizes import axis_in
from aicc.symbolic import Size, ceildiv, maximum, proves_lt
from aicc.tensor_ir.builder import KernelBuilder, Tensor
from aicc.tensor_ir.ir import Const, Expr, as_expr, call, cast, const, select


def table(entries: Sequence[Size], i: Size) -> Expr:
    """`entries[i]` as an i64 expression, for 0 <= i < len(entries)."""
    if isinstance(i, int):
        return as_expr(entries[i], "i64")
    result = as_expr(entries[-1], "i64")
    for n in range(len(entries) - 2, -1, -1):
        result = select(call("eq", as_expr(i), n), as_expr(entries[n], "i64"), result)
    return result


@operator("Shape", attributes={"start": 0, "end": None})
class Shape(Operator):
    """The sizes of the axes start..end, which may count from the end and are clamped."""

    def infer(self, ctx: OpContext) -> list[TensorType]:
        sizes = self._sizes(ctx)
        return [TensorType("i64", (len(sizes),), sizes)]

    def _sizes(self, ctx: OpContext) -> tuple[Size, ...]:
        return ctx.input(0).shape[slice(ctx.attrs["start"], ctx.attrs.get("end"))]

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        (x,) = inputs
        assert x is not None
        return [np.array(x.shape[slice(ctx.attrs["start"], ctx.attrs.get("end"))], np.int64)]

    def lower(self, ctx: OpContext, b: KernelBuilder, *inputs: Tensor | None) -> Sequence[Tensor]:
        sizes = self._sizes(ctx)
        shape = (len(sizes),)
        return [b.compute(shape, lambda i: table(sizes, i) if sizes else const(0, "i64"))]

    def cases(self) -> Iterable[Case]:
        x = floats(2, 3, 4)
        symbols = {(0, 0): "n", (0, 2): "m"}
        yield Case("all", (x,), symbolic=symbols)
        for start, end in ((1, None), (0, -1), (-1, 99), (-99, 2), (2, 1)):
            attrs = {"start": start} if end is None else {"start": start, "end": end}
            yield Case(f"{start}_{end}", (x,), attrs, symbolic=symbols)
        yield Case("scalar", (floats(),))


@operator("Size")
class SizeOf(Operator):
    """The number of elements, as a scalar."""

    def infer(self, ctx: OpContext) -> list[TensorType]:
        return [TensorType("i64", (), (ctx.input(0).count,))]

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        (x,) = inputs
        assert x is not None
        return [np.array(x.size, np.int64)]

    def lower(self, ctx: OpContext, b: KernelBuilder, *inputs: Tensor | None) -> Sequence[Tensor]:
        return [b.compute((), lambda: as_expr(ctx.input(0).count, "i64"))]

    def cases(self) -> Iterable[Case]:
        yield Case("matrix", (floats(3, 5),), symbolic={(0, 0): "n", (0, 1): "m"})
        yield Case("scalar", (floats(),))
        yield Case("empty", (floats(3, 0),))


@operator("Expand", since=8, inputs=2)
class Expand(Operator):
    """The operand broadcast with the shape given, in either direction."""

    def infer(self, ctx: OpContext) -> list[TensorType]:
        x = ctx.input(0)
        shape = broadcast_shape(ctx, x.shape, ctx.require_value(1, "the shape"))
        known = values.array_of(x)
        if known is not None and trackable(x.dtype, shape):
            known = np.broadcast_to(known, [int(d) for d in shape if isinstance(d, int)])
            return [values.typed(x.dtype, shape, known)]
        return [TensorType(x.dtype, shape)]

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        x, shape = inputs
        assert x is not None and shape is not None
        full = np.broadcast_shapes(x.shape, tuple(int(s) for s in shape))
        return [np.broadcast_to(x, full).copy()]

    def lower(self, ctx: OpContext, b: KernelBuilder, *inputs: Tensor | None) -> Sequence[Tensor]:
        x, shape = inputs[0], ctx.outputs[0].shape
        assert x is not None
        at = reader(ctx, b, x, shape)
        return [b.compute(shape, lambda *i: at(i))]

    def cases(self) -> Iterable[Case]:
        yield Case("rows", (floats(3, 1), ints((2, 1, 6))), constant=(1,), symbolic={(0, 0): "n"})
        yield Case("smaller", (floats(3, 4), ints((1, 1))), constant=(1,), symbolic={(0, 0): "n"})
        yield Case("maybe", (floats(1, 4), ints((3, 4))), constant=(1,), symbolic={(0, 0): "n"})
        yield Case("scalar", (floats(), ints((2, 3))), constant=(1,))
        yield Case("empty", (floats(1, 3), ints((0, 3))), constant=(1,))
        yield Case("i64", (sample(1, dtype="i64"), ints((5,))), constant=(1,))
        yield Case("known", (sample(1, dtype="i64"), ints((5,))), constant=(0, 1))


@operator("ConstantOfShape", since=9, attributes={"value": 0.0, "dtype": "f32"})
class ConstantOfShape(Operator):
    """A tensor of the shape given, all of whose elements are `value`.

    ONNX's one-element tensor attribute becomes a number and an element type.
    """

    def upgrade(
        self, attrs: dict[str, Any], inputs: list[str], opset: int, graph: Any
    ) -> tuple[dict[str, Any], list[str]]:
        given = attrs.pop("value", None)
        if given is not None:
            array = np.asarray(given).reshape(-1)
            if array.size != 1:
                raise ValueError(f"value has {array.size} elements, not 1")
            attrs["dtype"] = from_numpy(array.dtype)
            number = array[0]
            attrs["value"] = float(number) if is_float(attrs["dtype"]) else int(number)
        return attrs, inputs

    def infer(self, ctx: OpContext) -> list[TensorType]:
        shape = ctx.require_value(0, "the shape")
        for d in shape:
            if proves_lt(d, 0):
                ctx.fail(f"{d} is no size")
        dtype = dtype_attribute(ctx, "dtype")
        known = None
        if trackable(dtype, shape):
            count = math.prod(int(d) for d in shape if isinstance(d, int))
            known = np.full(count, int(ctx.attrs["value"]), dtype=object)
        return [values.typed(dtype, shape, known)]

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        (shape,) = inputs
        assert shape is not None
        dtype = to_numpy(dtype_attribute(ctx, "dtype"))
        return [np.full([int(s) for s in shape], ctx.attrs["value"], dtype)]

    def lower(self, ctx: OpContext, b: KernelBuilder, *inputs: Tensor | None) -> Sequence[Tensor]:
        t = ctx.outputs[0]
        return [b.compute(t.shape, lambda *i: const(ctx.attrs["value"], t.dtype))]

    def cases(self) -> Iterable[Case]:
        yield Case("zeros", (ints((2, 3)),), constant=(0,))
        yield Case("f16", (ints((2, 3)),), {"value": 1.5, "dtype": "f16"}, constant=(0,))
        yield Case("i64", (ints((4,)),), {"value": -7, "dtype": "i64"}, constant=(0,))
        yield Case("bool", (ints((4, 1)),), {"value": 1, "dtype": "bool"}, constant=(0,))
        yield Case("scalar", (ints(()),), {"value": 2.5, "dtype": "f32"}, constant=(0,))
        yield Case("empty", (ints((0, 3)),), constant=(0,))


@operator("EyeLike", since=9, attributes={"dtype": None, "k": 0})
class EyeLike(Operator):
    """A matrix of the operand's shape with ones on diagonal k; 0 is the main one, 1 is above it."""

    def upgrade(
        self, attrs: dict[str, Any], inputs: list[str], opset: int, graph: Any
    ) -> tuple[dict[str, Any], list[str]]:
        if "dtype" in attrs:
            attrs["dtype"] = dtype_name(attrs["dtype"])
        return attrs, inputs

    def infer(self, ctx: OpContext) -> list[TensorType]:
        x = ctx.input(0)
        if x.rank != 2:
            ctx.fail("the operand must be a matrix")
        chosen = ctx.attrs.get("dtype") is not None
        return [TensorType(dtype_attribute(ctx, "dtype") if chosen else x.dtype, x.shape)]

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        (x,) = inputs
        assert x is not None
        return [
            np.eye(x.shape[0], x.shape[1], k=ctx.attrs["k"], dtype=to_numpy(ctx.outputs[0].dtype))
        ]

    def lower(self, ctx: OpContext, b: KernelBuilder, *inputs: Tensor | None) -> Sequence[Tensor]:
        t, k = ctx.outputs[0], int(ctx.attrs["k"])

        def element(i: Size, j: Size) -> Expr:
            on = call("eq", as_expr(i + k, "i64"), as_expr(j, "i64"))
            return select(on, const(1, t.dtype), const(0, t.dtype))

        return [b.compute(t.shape, element)]

    def cases(self) -> Iterable[Case]:
        yield Case("square", (floats(4, 4),), symbolic={(0, 0): "n"})
        yield Case("wide", (floats(3, 5),), {"k": 1, "dtype": "f64"})
        yield Case("tall", (sample(5, 3, dtype="i32"),), {"k": -2})


@operator("Range", since=11, inputs=3)
class Range(Operator):
    """start, start + delta, ... before limit. Integer bounds may be symbolic sizes."""

    def infer(self, ctx: OpContext) -> list[TensorType]:
        types = [ctx.input(i) for i in range(3)]
        dtype = types[0].dtype
        if dtype not in NUMERIC or any(t.dtype != dtype or t.count != 1 for t in types):
            ctx.fail("takes three scalars of one numeric type")
        count = self._count(ctx, dtype)
        known = None
        if dtype in INTEGERS and trackable(dtype, (count,)) and isinstance(count, int):
            start, delta = ctx.require_value(0, "start")[0], ctx.require_value(2, "delta")[0]
            known = np.empty(count, dtype=object)
            known[:] = [start + i * delta for i in range(count)]
        return [values.typed(dtype, (count,), known)]

    def _count(self, ctx: OpContext, dtype: str) -> Size:
        if dtype in INTEGERS:
            start, limit, delta = (
                ctx.require_value(i, what)[0] for i, what in enumerate(("start", "limit", "delta"))
            )
            if delta == 0:
                ctx.fail("delta is 0")
            if proves_lt(0, delta):
                return maximum(0, ceildiv(limit - start, delta))
            if not proves_lt(delta, 0):
                ctx.fail(f"the sign of delta {delta} must be known at compile time")
            return maximum(0, ceildiv(start - limit, -delta))
        scalars = [ctx.constant(i) for i in range(3)]
        if any(s is None for s in scalars):
            ctx.fail("bounds of a floating-point type must be constants")
        first, last, step = (s.reshape(()) for s in scalars if s is not None)
        if step == 0:
            ctx.fail("delta is 0")
        span = float(last - first) / float(step)
        if not math.isfinite(span):
            ctx.fail("the bounds are not finite")
        return max(0, math.ceil(span))

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        start, limit, delta = (x.reshape(()) for x in inputs if x is not None)
        span = float(limit - start) / float(delta)
        steps = np.arange(max(0, math.ceil(span)))
        return [(start + steps.astype(start.dtype) * delta).astype(start.dtype)]

    def lower(self, ctx: OpContext, b: KernelBuilder, *inputs: Tensor | None) -> Sequence[Tensor]:
        start, _, delta = inputs
        assert start is not None and delta is not None
        t = ctx.outputs[0]

        def element(i: Size) -> Expr:
            if t.dtype in INTEGERS and ctx.value(0) is not None and ctx.value(2) is not None:
                first, step = ctx.require_value(0, "start")[0], ctx.require_value(2, "delta")[0]
                return cast(as_expr(first + i * step, "i64"), t.dtype)
            first_value, step_value = start[(0,) * start.rank], delta[(0,) * delta.rank]
            number = cast(as_expr(i, "i64"), t.dtype)
            if isinstance(step_value, Const) and step_value.value == 1:
                return first_value + number
            return first_value + number * step_value

        return [b.compute(t.shape, element)]

    def cases(self) -> Iterable[Case]:
        for bounds in ((0, 5, 1), (2, 9, 3), (10, 4, -2), (3, 3, 1), (5, 2, 1), (7, 8, 1)):
            operands = tuple(np.array(v) for v in bounds)
            yield Case("_".join(map(str, bounds)), operands, constant=(0, 1, 2))
        for t in ("f32", "f64", "i32"):
            operands = tuple(np.array(v).astype(to_numpy(t)) for v in (1, 10, 2))
            yield Case(t, operands, constant=(0, 1, 2))
        fractions = tuple(np.array(v, np.float32) for v in (0.0, 1.05, 0.25))
        yield Case("fraction", fractions, constant=(0, 1, 2))


@operator("Tile", since=6, inputs=2)
class Tile(Operator):
    """Each axis repeated as often as its entry of `repeats` says."""

    def infer(self, ctx: OpContext) -> list[TensorType]:
        x, repeats = ctx.input(0), ctx.require_value(1, "repeats")
        if len(repeats) != x.rank:
            ctx.fail(f"{len(repeats)} repeats for {x.rank} axes")
        if any(proves_lt(r, 0) for r in repeats):
            ctx.fail("repeats must not be negative")
        shape = tuple(d * r for d, r in zip(x.shape, repeats, strict=True))
        known = values.array_of(x)
        if known is not None and all(isinstance(r, int) for r in repeats):
            known = np.tile(known, [int(r) for r in repeats if isinstance(r, int)])
            return [values.typed(x.dtype, shape, known)]
        return [TensorType(x.dtype, shape)]

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        x, repeats = inputs
        assert x is not None and repeats is not None
        return [np.tile(x, [int(r) for r in repeats]).reshape(np.multiply(x.shape, repeats))]

    def lower(self, ctx: OpContext, b: KernelBuilder, *inputs: Tensor | None) -> Sequence[Tensor]:
        x, shape = inputs[0], ctx.outputs[0].shape
        assert x is not None

        def own(i: Size, size: Size, full: Size) -> Size:
            return i if size == full else 0 if size in (0, 1) else i % size

        return [b.compute(shape, lambda *i: x[tuple(map(own, i, x.shape, shape))])]

    def cases(self) -> Iterable[Case]:
        yield Case(
            "matrix",
            (floats(2, 3), ints((3, 2))),
            constant=(1,),
            symbolic={(0, 0): "n", (0, 1): "m"},
        )
        yield Case("one", (floats(1, 3), ints((4, 1))), constant=(1,), symbolic={(0, 1): "m"})
        yield Case("none", (floats(2, 3), ints((0, 1))), constant=(1,))
        yield Case("i64", (sample(4, dtype="i64"), ints((2,))), constant=(0, 1))


@operator("Transpose", attributes={"perm": None})
class Transpose(Operator):
    """Axis i of the result is axis perm[i] of the operand; reversed where perm is not given."""

    def infer(self, ctx: OpContext) -> list[TensorType]:
        x, perm = ctx.input(0), self._perm(ctx)
        if sorted(perm) != list(range(x.rank)):
            ctx.fail(f"perm {perm} is no permutation of {x.rank} axes")
        shape = tuple(x.shape[p] for p in perm)
        known = values.array_of(x)
        return [values.typed(x.dtype, shape, None if known is None else known.transpose(perm))]

    def _perm(self, ctx: OpContext) -> tuple[int, ...]:
        perm, rank = ctx.attrs.get("perm"), ctx.input(0).rank
        if perm is None or (len(perm) == 0 and rank):
            return tuple(reversed(range(rank)))
        if len(perm) != rank:
            ctx.fail(f"perm {tuple(perm)} is no permutation of {rank} axes")
        return tuple(axis_in(ctx, int(p), rank) for p in perm)

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        (x,) = inputs
        assert x is not None
        return [x.transpose(self._perm(ctx)).copy()]

    def lower(self, ctx: OpContext, b: KernelBuilder, *inputs: Tensor | None) -> Sequence[Tensor]:
        x, perm = inputs[0], self._perm(ctx)
        assert x is not None
        place = [perm.index(axis) for axis in range(x.rank)]
        return [b.compute(ctx.outputs[0].shape, lambda *i: x[tuple(i[p] for p in place)])]

    def cases(self) -> Iterable[Case]:
        x = floats(2, 3, 4, 5)
        symbols = {(0, 0): "n", (0, 2): "h"}
        for perm in ((0, 2, 3, 1), (3, 1, 0, 2), (0, 2, 1, 3), (0, 1, 2, 3)):
            name = "".join(map(str, perm))
            yield Case(name, (x,), {"perm": perm}, symbolic=symbols)
        yield Case("reversed", (floats(2, 3, 4),), symbolic={(0, 0): "n"})
        yield Case("scalar", (floats(),))
        yield Case("empty", (floats(2, 0),), {"perm": (1, 0)})
        for t in ("i64", "u8", "bool", "f16"):
            yield Case(t, (sample(3, 5, dtype=t),), {"perm": (1, 0)})
