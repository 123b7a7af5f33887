"""Elementwise operators that are neither unary nor binary: sums and extrema of any number of
operands, Clip, Where, conversions, Shrink."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from aicc.dtypes import FLOATS, INTEGERS, NUMERIC, is_float, to_numpy
from aicc.graph_ir.types import TensorType
from aicc.ops import values
from aicc.ops.broadcast import broadcast_shape, reader
from aicc.ops.elementwise_unary import Unary
from aicc.ops.registry import REQUIRED, Array, Case, GraphRewriter, OpContext, Operator, operator
from aicc.ops.samples import bools, floats, integers, sample
from aicc.symbolic import Size, maximum, minimum
from aicc.tensor_ir.builder import KernelBuilder, Tensor
from aicc.tensor_ir.ir import Expr, call, cast, const, select

ONNX_DTYPES = {
    1: "f32",
    2: "u8",
    3: "i8",
    4: "u16",
    5: "i16",
    6: "i32",
    7: "i64",
    8: "str",
    9: "bool",
    10: "f16",
    11: "f64",
    12: "u32",
    13: "u64",
    16: "bf16",
}
"""TensorProto.DataType -> element type."""


def dtype_attribute(ctx: OpContext, name: str) -> str:
    """An element type given by an attribute: a name such as "f32", or ONNX's number for it."""
    given = ctx.attrs[name]
    found = ONNX_DTYPES.get(given, "") if isinstance(given, int) else given
    if found not in ONNX_DTYPES.values():
        ctx.fail(f"{name}: element type {given} is not supported")
    return str(found)


def dtype_name(given: Any) -> Any:
    """ONNX's number of an element type as a name where it has one, for `upgrade`."""
    return ONNX_DTYPES.get(given, given) if isinstance(given, int) else given


class Variadic(Operator):
    """Any number of operands, broadcast together and combined from left to right."""

    dtypes: ClassVar[tuple[str, ...]] = FLOATS
    scalar: ClassVar[str] = "add"

    def upgrade(
        self, attrs: dict[str, Any], inputs: list[str], opset: int, graph: Any
    ) -> tuple[dict[str, Any], list[str]]:
        attrs.pop("consumed_inputs", None)
        return attrs, inputs

    def rule(self, x: Size, y: Size) -> Size | None:
        return None

    def infer(self, ctx: OpContext) -> list[TensorType]:
        types = [ctx.input(i) for i in range(len(ctx.types))]
        first = types[0]
        if first.dtype not in self.dtypes:
            ctx.fail(f"no {first.dtype} elements; allowed are {', '.join(self.dtypes)}")
        if any(t.dtype != first.dtype for t in types):
            ctx.fail("the operands have different element types")
        shape = broadcast_shape(ctx, *(t.shape for t in types))

        def fold(*elements: Size) -> Size | None:
            total: Size | None = elements[0]
            for e in elements[1:]:
                total = None if total is None else self.rule(total, e)
            return total

        return [values.elementwise(first.dtype, shape, types, fold)]

    def combine(self, ctx: OpContext, elements: Sequence[Expr]) -> Expr:
        total = elements[0]
        for e in elements[1:]:
            total = call(self.scalar, total, e)
        return total

    def lower(self, ctx: OpContext, b: KernelBuilder, *inputs: Tensor | None) -> Sequence[Tensor]:
        shape = ctx.outputs[0].shape
        readers = [reader(ctx, b, t, shape) for t in inputs if t is not None]
        return [b.compute(shape, lambda *i: self.combine(ctx, [r(i) for r in readers]))]

    def cases(self) -> Iterable[Case]:
        x, y, z = floats(3, 5), floats(5, seed=1), floats(2, 1, 5, seed=2)
        yield Case("one", (x,), symbolic={(0, 0): "n"})
        yield Case("two", (x, y), symbolic={(0, 0): "n"})
        yield Case("three", (x, y, z), symbolic={(0, 0): "n", (2, 0): "m"})
        yield Case("constant", (x, np.array(0.5, np.float32)), constant=(1,))
        yield Case("empty", (floats(0, 4), floats(4)))
        for t in self.dtypes:
            if t in ("f64", "f16", "i64", "i8", "u8"):
                yield Case(t, (sample(2, 3, dtype=t), sample(3, dtype=t, seed=1)))


def _folded(fn: Any, inputs: Sequence[Array | None]) -> Array:
    arrays = [a for a in inputs if a is not None]
    total = arrays[0].copy()
    for a in arrays[1:]:
        total = fn(total, a)
    return np.asarray(total, dtype=arrays[0].dtype)


@operator("Sum", inputs=(1, None))
class Sum(Variadic):
    """The sum of the operands."""

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        return [_folded(np.add, inputs)]


@operator("Mean", inputs=(1, None))
class Mean(Variadic):
    """The arithmetic mean of the operands."""

    def combine(self, ctx: OpContext, elements: Sequence[Expr]) -> Expr:
        return super().combine(ctx, elements) / float(len(elements))

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        arrays = [a.astype(np.float64) for a in inputs if a is not None]
        mean = np.mean(np.stack(np.broadcast_arrays(*arrays)), axis=0)
        return [np.asarray(mean).astype(to_numpy(ctx.outputs[0].dtype))]


@operator("Max", inputs=(1, None))
class Max(Variadic):
    """The largest of the operands; NaN where one is NaN."""

    dtypes, scalar = NUMERIC, "max"

    def rule(self, x: Size, y: Size) -> Size | None:
        return maximum(x, y)

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        return [_folded(np.maximum, inputs)]


@operator("Min", inputs=(1, None))
class Min(Variadic):
    """The smallest of the operands; NaN where one is NaN."""

    dtypes, scalar = NUMERIC, "min"

    def rule(self, x: Size, y: Size) -> Size | None:
        return minimum(x, y)

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        return [_folded(np.minimum, inputs)]


@operator("Clip", inputs=(1, 3))
class Clip(Operator):
    """min(max(x, low), high) with scalar bounds, each of which may be omitted.

    The bounds were attributes before opset 11. Where low > high the result is high.
    """

    def upgrade(
        self, attrs: dict[str, Any], inputs: list[str], opset: int, graph: Any
    ) -> tuple[dict[str, Any], list[str]]:
        attrs.pop("consumed_inputs", None)
        low, high = attrs.pop("min", None), attrs.pop("max", None)
        if opset < 11:
            bounds = [
                "" if v is None else graph.add_constant(name, np.array(v, np.float32))
                for name, v in (("clip_min", low), ("clip_max", high))
            ]
            inputs = [inputs[0], *bounds]
        return attrs, inputs

    def infer(self, ctx: OpContext) -> list[TensorType]:
        x = ctx.input(0)
        if x.dtype not in NUMERIC:
            ctx.fail(f"no {x.dtype} elements")
        for i in (1, 2):
            if ctx.has(i):
                bound = ctx.input(i)
                if bound.count != 1:
                    ctx.fail(f"input {i} must be a scalar")
                # A bound that was an f32 attribute is converted.
                if bound.dtype not in (x.dtype, "f32"):
                    ctx.fail(f"input {i} must be of the type of the data")
        return [x.without_value()]

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        x, low, high = (*inputs, None, None)[:3]
        assert x is not None
        result = x.copy()
        if low is not None:
            result = np.maximum(result, low.reshape(()).astype(x.dtype))
        if high is not None:
            result = np.minimum(result, high.reshape(()).astype(x.dtype))
        return [np.asarray(result)]

    def lower(self, ctx: OpContext, b: KernelBuilder, *inputs: Tensor | None) -> Sequence[Tensor]:
        x, low, high = (*inputs, None, None)[:3]
        assert x is not None

        def clipped(*i: Size) -> Expr:
            e = x[i]
            if low is not None:
                e = call("max", e, cast(low[(0,) * low.rank], x.dtype))
            if high is not None:
                e = call("min", e, cast(high[(0,) * high.rank], x.dtype))
            return e

        return [b.compute(x.shape, clipped)]

    def cases(self) -> Iterable[Case]:
        x = floats(3, 17, lo=-9, hi=9)
        zero, six = np.array(0, np.float32), np.array(6, np.float32)
        yield Case("relu6", (x, zero, six), constant=(1, 2), symbolic={(0, 0): "n"})
        yield Case("not_constant", (x, zero, six))
        yield Case("low", (x, zero), constant=(1,))
        yield Case("high", (x, None, six), constant=(2,))
        yield Case("none", (x,))
        yield Case("crossed", (x, six, zero))
        yield Case("empty", (floats(0, 2), zero, six), constant=(1, 2))
        for t in ("f64", "f16", "i64", "i8", "u8"):
            bounds = np.array(1).astype(to_numpy(t)), np.array(5).astype(to_numpy(t))
            yield Case(t, (sample(2, 7, dtype=t), *bounds), constant=(1, 2))


@operator("Where", since=9, inputs=3)
class Where(Operator):
    """x where the condition holds, else y; all three are broadcast together."""

    def infer(self, ctx: OpContext) -> list[TensorType]:
        cond, x, y = ctx.input(0), ctx.input(1), ctx.input(2)
        if cond.dtype != "bool" or x.dtype != y.dtype:
            ctx.fail("takes a bool condition and two operands of one type")
        shape = broadcast_shape(ctx, cond.shape, x.shape, y.shape)
        return [values.elementwise(x.dtype, shape, (cond, x, y), values.choose)]

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        cond, x, y = inputs
        assert cond is not None and x is not None and y is not None
        return [np.asarray(np.where(cond, x, y), dtype=x.dtype)]

    def lower(self, ctx: OpContext, b: KernelBuilder, *inputs: Tensor | None) -> Sequence[Tensor]:
        shape = ctx.outputs[0].shape
        cond, x, y = (reader(ctx, b, t, shape) for t in inputs if t is not None)
        return [b.compute(shape, lambda *i: select(cond(i), x(i), y(i)))]

    def cases(self) -> Iterable[Case]:
        yield Case(
            "same",
            (bools(3, 17), floats(3, 17), floats(3, 17, seed=1)),
            symbolic={(0, 0): "n", (1, 0): "n", (2, 0): "n"},
        )
        mask = (bools(1, 4, 4), floats(2, 4, 4), np.array(-1e9, np.float32))
        yield Case("mask", mask, constant=(2,), symbolic={(0, 1): "n", (1, 1): "n"})
        yield Case("spread", (bools(3, 1), floats(4), floats(2, 1, 1)))
        yield Case("empty", (bools(0, 1), floats(4), np.array(1, np.float32)))
        for t in ("i64", "u8", "f16", "bool", "f64"):
            yield Case(t, (bools(5), sample(5, dtype=t), sample(5, dtype=t, seed=1)))


class Conversion(Operator):
    """Converts elements: to bool by x != 0, floats to integers toward zero."""

    def target(self, ctx: OpContext) -> str:
        raise NotImplementedError

    def infer(self, ctx: OpContext) -> list[TensorType]:
        x, dtype = ctx.input(0), self.target(ctx)
        if "str" in (x.dtype, dtype) and x.dtype != dtype:
            ctx.fail(f"no conversion from {x.dtype} to {dtype}")
        rule = values.nonzero if dtype == "bool" else lambda v: v
        return [values.elementwise(dtype, x.shape, (x,), rule)]

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        x, dtype = inputs[0], self.target(ctx)
        assert x is not None
        to = to_numpy(dtype)
        if dtype == "bool":
            return [np.not_equal(x, 0)]
        with np.errstate(all="ignore"):
            if is_float(ctx.input(0).dtype) and dtype in INTEGERS:
                # What the integer cannot hold saturates, and NaN gives 0.
                info = np.iinfo(to)
                wide = np.clip(np.nan_to_num(x.astype(np.float64), nan=0.0), -2e19, 2e19)
                flat = [min(max(int(v), info.min), info.max) for v in wide.flat]
                return [np.array(flat, dtype=to).reshape(x.shape)]
            return [x.astype(to)]

    def lower(self, ctx: OpContext, b: KernelBuilder, *inputs: Tensor | None) -> Sequence[Tensor]:
        x, dtype = inputs[0], self.target(ctx)
        assert x is not None
        return [b.compute(x.shape, lambda *i: cast(x[i], dtype))]


@operator("Cast", attributes={"to": REQUIRED, "saturate": 1, "round_mode": "up"})
class Cast(Conversion):
    """Converts to the type named by `to`."""

    def upgrade(
        self, attrs: dict[str, Any], inputs: list[str], opset: int, graph: Any
    ) -> tuple[dict[str, Any], list[str]]:
        if "to" in attrs:
            attrs["to"] = dtype_name(attrs["to"])
        return attrs, inputs

    def target(self, ctx: OpContext) -> str:
        return dtype_attribute(ctx, "to")

    def cases(self) -> Iterable[Case]:
        types = ("f32", "f64", "f16", "i64", "i32", "i8", "u8", "bool")
        for source in types:
            for to in types:
                x = (
                    floats(17, dtype=source, lo=0, hi=100)
                    if is_float(source)
                    else (
                        bools(17) if source == "bool" else integers(17, dtype=source, lo=0, hi=100)
                    )
                )
                yield Case(f"{source}_{to}", (x,), {"to": to})
        yield Case("bf16", (floats(3, 5, dtype="bf16"),), {"to": "f32"})
        yield Case("to_bf16", (floats(3, 5),), {"to": "bf16"})
        yield Case("negative", (floats(3, 5, lo=-9, hi=9),), {"to": "i32"}, symbolic={(0, 0): "n"})
        yield Case("nan_to_bool", (np.array([np.nan, 0.0, -0.0, 0.3], np.float32),), {"to": "bool"})
        yield Case("wrap", (integers(9, lo=-1000, hi=1000),), {"to": "i8"})


@operator("CastLike", since=15, inputs=2, attributes={"saturate": 1, "round_mode": "up"})
class CastLike(Conversion):
    """Converts to the type of the second operand."""

    def target(self, ctx: OpContext) -> str:
        return ctx.input(1).dtype

    def decompose(self, ctx: OpContext, g: GraphRewriter, *inputs: str) -> Sequence[str] | None:
        return [g.op("Cast", inputs[0], to=self.target(ctx))]

    def cases(self) -> Iterable[Case]:
        yield Case("f16", (floats(3, 5), floats(1, dtype="f16")), symbolic={(0, 0): "n"})
        yield Case("i64", (floats(3, 5, lo=-9, hi=9), integers(2)))


@operator("Shrink", since=9, attributes={"bias": 0.0, "lambd": 0.5})
class Shrink(Unary):
    """x + bias below -lambd, x - bias above lambd, else 0, also for NaN."""

    dtypes = NUMERIC

    def expr(self, ctx: OpContext, x: Expr) -> Expr:
        wide = "f64" if x.dtype in ("f64", "i64", "u64") else "f32"
        v, bias, lambd = cast(x, wide), ctx.attrs["bias"], ctx.attrs["lambd"]
        above = select(call("gt", v, lambd), v - bias, const(0.0, wide))
        return cast(select(call("lt", v, -lambd), v + bias, above), x.dtype)

    def meaning(self, ctx: OpContext, x: Array) -> Array:
        v, bias, lambd = x.astype(np.float64), ctx.attrs["bias"], ctx.attrs["lambd"]
        result = np.where(v < -lambd, v + bias, np.where(v > lambd, v - bias, 0))
        return result.astype(x.dtype)

    def cases(self) -> Iterable[Case]:
        yield Case("hard", (floats(3, 17),), {"lambd": 1.0}, symbolic={(0, 0): "n"})
        yield Case("soft", (floats(3, 17),), {"lambd": 0.7, "bias": 0.7})
        yield Case("i64", (integers(9),), {"lambd": 3.0, "bias": 1.0})
        yield Case("f16", (floats(9, dtype="f16"),), {"lambd": 0.5, "bias": 0.25})
