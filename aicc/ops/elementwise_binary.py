"""Elementwise operators of two broadcast operands: arithmetic, bits, logic and comparisons."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from aicc.dtypes import FLOATS, INTEGERS, NUMERIC, SIGNED, UNSIGNED, is_float, nbytes, to_numpy
from aicc.errors import OperatorError
from aicc.graph_ir.types import TensorType
from aicc.ops import values
from aicc.ops.broadcast import broadcast_shape, reader
from aicc.ops.registry import Array, Case, OpContext, Operator, operator
from aicc.ops.samples import floats, integers, sample
from aicc.symbolic import Size
from aicc.tensor_ir.builder import KernelBuilder, Tensor
from aicc.tensor_ir.ir import Const, Expr, call, cast, const, select


class Binary(Operator):
    """z[i] = expr(x[i], y[i]) over the broadcast shape, of the operands' type or of `result`."""

    dtypes: ClassVar[tuple[str, ...]] = NUMERIC
    result: ClassVar[str | None] = None
    scalar: ClassVar[str] = ""
    numpy: ClassVar[Callable[..., Any]]
    mixed: ClassVar[bool] = False
    """True where the operands may be of different types."""

    def expr(self, ctx: OpContext, x: Expr, y: Expr) -> Expr:
        return call(self.scalar, x, y)

    def meaning(self, ctx: OpContext, x: Array, y: Array) -> Array:
        with np.errstate(all="ignore"):
            result: Array = np.asarray(type(self).numpy(x, y))
        return result

    def rule(self, x: Size, y: Size) -> Size | None:
        """The result for one pair of known integers; None where it is not provable."""
        return None

    def upgrade(
        self, attrs: dict[str, Any], inputs: list[str], opset: int, graph: Any
    ) -> tuple[dict[str, Any], list[str]]:
        attrs.pop("consumed_inputs", None)
        broadcast, axis = attrs.pop("broadcast", 0), attrs.pop("axis", None)
        if opset < 7 and broadcast and axis is not None and axis >= 0:
            raise OperatorError(
                f"broadcasting from axis {axis} (opset {opset}) is not supported; opset 7 "
                "aligns the last axes",
                op=self.name,
            )
        return attrs, inputs

    def infer(self, ctx: OpContext) -> list[TensorType]:
        x, y = ctx.input(0), ctx.input(1)
        for t in (x, y):
            if t.dtype not in self.dtypes:
                ctx.fail(f"no {t.dtype} elements; allowed are {', '.join(self.dtypes)}")
        if x.dtype != y.dtype and not self.mixed:
            ctx.fail("the operands have different element types")
        shape = broadcast_shape(ctx, x.shape, y.shape)
        return [
            values.elementwise(
                self.result or x.dtype, shape, (x, y), lambda a, b: self.rule_in(ctx, a, b)
            )
        ]

    def rule_in(self, ctx: OpContext, x: Size, y: Size) -> Size | None:
        return self.rule(x, y)

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        x, y = inputs
        assert x is not None and y is not None
        return [self.meaning(ctx, x, y)]

    def lower(self, ctx: OpContext, b: KernelBuilder, *inputs: Tensor | None) -> Sequence[Tensor]:
        x, y = inputs
        assert x is not None and y is not None
        shape = ctx.outputs[0].shape
        at, bt = reader(ctx, b, x, shape), reader(ctx, b, y, shape)
        return [b.compute(shape, lambda *i: self.expr(ctx, at(i), bt(i)))]

    def sample(self, *shape: int, dtype: str, seed: int = 0) -> Array:
        """Operand data of the cases; `seed` is 0 for the first operand and 1 for the second."""
        return sample(*shape, dtype=dtype, seed=seed)

    def cases(self) -> Iterable[Case]:
        first = self.dtypes[0] if "f32" not in self.dtypes else "f32"

        def pair(
            a: tuple[int, ...], b: tuple[int, ...], t: str = first
        ) -> tuple[Array | None, ...]:
            return self.sample(*a, dtype=t), self.sample(*b, dtype=t, seed=1)

        yield Case("same", pair((3, 17), (3, 17)), symbolic={(0, 0): "n", (1, 0): "n"})
        yield Case("scalar", pair((2, 5), ()), constant=(1,), symbolic={(0, 1): "n"})
        yield Case("outer", pair((3, 1), (1, 4)), symbolic={(0, 0): "n", (1, 1): "m"})
        yield Case("rank", pair((5,), (2, 3, 5)), symbolic={(1, 0): "n", (1, 2): "m"})
        yield Case("one_or_all", pair((1, 3), (4, 3)), symbolic={(0, 0): "n", (1, 0): "m"})
        yield Case("empty", pair((0, 3), (1, 3)), symbolic={(0, 0): "n", (1, 0): "m"})
        for t in self.dtypes:
            if t != first and t in ("f64", "f16", "i64", "i32", "i8", "u8", "bool"):
                yield Case(t, pair((5, 3), (3,), t))


@operator("Add", inputs=2)
class Add(Binary):
    """x + y; integers wrap."""

    scalar, numpy = "add", staticmethod(np.add)

    def rule(self, x: Size, y: Size) -> Size | None:
        return x + y


@operator("Sub", inputs=2)
class Sub(Binary):
    """x - y; integers wrap."""

    scalar, numpy = "sub", staticmethod(np.subtract)

    def rule(self, x: Size, y: Size) -> Size | None:
        return x - y


@operator("Mul", inputs=2)
class Mul(Binary):
    """x * y; integers wrap."""

    scalar, numpy = "mul", staticmethod(np.multiply)

    def rule(self, x: Size, y: Size) -> Size | None:
        return x * y


def guarded(name: str, x: Expr, y: Expr) -> Expr:
    """Integer `div`, `mod` or `floormod` without the two cases that trap in hardware.

    Division by zero gives 0, as in numpy; the least number by -1 wraps.
    """
    if isinstance(y, Const):
        if y.value == 0:
            return const(0, x.dtype)
        if y.value == -1:
            return -x if name == "div" else const(0, x.dtype)
        return call(name, x, y)
    zero = call("eq", y, 0)
    if x.dtype not in SIGNED:
        return select(zero, 0, call(name, x, select(zero, 1, y)))
    minus = call("eq", y, -1)
    safe = select(call("or", zero, minus), 1, y)
    by_minus: Expr = -x if name == "div" else const(0, x.dtype)
    return select(zero, 0, select(minus, by_minus, call(name, x, safe)))


@operator("Div", inputs=2)
class Div(Binary):
    """x / y; integers truncate toward zero."""

    def expr(self, ctx: OpContext, x: Expr, y: Expr) -> Expr:
        return x / y if is_float(x.dtype) else guarded("div", x, y)

    def meaning(self, ctx: OpContext, x: Array, y: Array) -> Array:
        with np.errstate(all="ignore"):
            if x.dtype.kind not in "iu":
                return np.asarray(np.divide(x, y))
            floor = np.floor_divide(x, y)
            inexact = np.not_equal(np.remainder(x, y), 0) & (np.less(x, 0) != np.less(y, 0))
            return np.asarray(floor + inexact.astype(floor.dtype), dtype=x.dtype)

    def rule(self, x: Size, y: Size) -> Size | None:
        return values.truncated_div(x, y)

    def sample(self, *shape: int, dtype: str, seed: int = 0) -> Array:
        data = sample(*shape, dtype=dtype, seed=seed)
        if seed == 0:
            return data
        return np.where(np.abs(data.astype(np.float64)) < 0.25, 2, data).astype(data.dtype)

    def cases(self) -> Iterable[Case]:
        yield from super().cases()
        a = np.array([7, -7, 7, -7, 0, -128, 127], np.int8)
        yield Case("signs", (a, np.array([2, 2, -2, -2, 5, -1, -1], np.int8)))
        yield Case("by_constant", (integers(9), np.array(3)), constant=(1,))


@operator("Mod", since=10, inputs=2, attributes={"fmod": 0})
class Mod(Binary):
    """The remainder: of the divisor's sign, or with fmod=1 of the dividend's."""

    def expr(self, ctx: OpContext, x: Expr, y: Expr) -> Expr:
        if not is_float(x.dtype):
            return guarded("mod" if ctx.attrs["fmod"] else "floormod", x, y)
        rest = call("mod", x, y)
        if ctx.attrs["fmod"]:
            return rest
        unlike = call("xor", call("lt", rest, 0), call("lt", y, 0))
        return select(call("and", call("ne", rest, 0), unlike), rest + y, rest)

    def meaning(self, ctx: OpContext, x: Array, y: Array) -> Array:
        with np.errstate(all="ignore"):
            return np.asarray(np.fmod(x, y) if ctx.attrs["fmod"] else np.remainder(x, y))

    def rule_in(self, ctx: OpContext, x: Size, y: Size) -> Size | None:
        return values.c_mod(x, y) if ctx.attrs["fmod"] else values.floor_mod(x, y)

    def cases(self) -> Iterable[Case]:
        a, b = integers(3, 4, lo=-20, hi=20), np.array([3, -3, 7, -1])
        yield Case("floor", (a, b), symbolic={(0, 0): "n"})
        yield Case("fmod_i64", (a, b), {"fmod": 1})
        yield Case("floor_u8", (a.astype(np.uint8), np.array(5, np.uint8)), constant=(1,))
        yield Case("i8", (np.array([-128, 127, 5], np.int8), np.array([-1, -1, 3], np.int8)))
        x = floats(3, 5, lo=-20, hi=20)
        yield Case("fmod_f32", (x, floats(5, lo=1, hi=3)), {"fmod": 1})
        yield Case("fmod_f64", (x.astype(np.float64), np.array(1.5)), {"fmod": 1})
        yield Case("floor_f32", (x, np.array([3, -3, 2.5, -0.25, np.inf], np.float32)))
        yield Case("floor_f16", (x.astype(np.float16), np.array(-1.5, np.float16)))


@operator("Pow", inputs=2)
class Pow(Binary):
    """x ** y, of x's type; y may be of another numeric type.

    A small constant exponent becomes multiplications, 0.5 a square root; other integer powers are
    computed in f64.
    """

    mixed = True
    expands_to: ClassVar[int] = 16

    def expr(self, ctx: OpContext, x: Expr, y: Expr) -> Expr:
        if isinstance(y, Const) and self._is_small(y.value):
            return self._multiplied(x, int(y.value))
        if not is_float(x.dtype):
            return cast(call("pow", cast(x, "f64"), cast(y, "f64")), x.dtype)
        wide = "f64" if x.dtype == "f64" else "f32"
        base = cast(x, wide)
        if isinstance(y, Const):
            if y.value == 0.5:
                return cast(call("sqrt", base), x.dtype)
            if y.value == -0.5:
                return cast(1 / call("sqrt", base), x.dtype)
            if y.value == -1:
                return cast(1 / base, x.dtype)
            return cast(call("pow", base, float(y.value)), x.dtype)
        return cast(call("pow", base, cast(y, wide)), x.dtype)

    def _is_small(self, exponent: float) -> bool:
        return 0 <= exponent <= self.expands_to and exponent == int(exponent)

    def _multiplied(self, x: Expr, n: int) -> Expr:
        if n == 0:
            return const(1, x.dtype)
        if n == 1:
            return x
        wide = cast(x, "f32") if x.dtype in ("f16", "bf16") else x
        return cast(_power(wide, n), x.dtype)

    def meaning(self, ctx: OpContext, x: Array, y: Array) -> Array:
        with np.errstate(all="ignore"):
            if x.dtype.kind in "iu" and y.dtype.kind in "iu" and np.all(np.greater_equal(y, 0)):
                return np.asarray(np.power(x, y.astype(x.dtype)))
            return np.asarray(np.power(x.astype(np.float64), y.astype(np.float64))).astype(x.dtype)

    def rule(self, x: Size, y: Size) -> Size | None:
        return values.power(x, y)

    def cases(self) -> Iterable[Case]:
        x = floats(3, 17, lo=0.1, hi=4)
        yield Case("general", (x, floats(17)), symbolic={(0, 0): "n"}, rtol=2e-5)
        for e in (0.0, 1.0, 2.0, 3.0, 7.0, 0.5, -0.5, -1.0, 1.7, -2.0):
            yield Case(f"by_{e}", (x, np.array(e, np.float32)), constant=(1,), rtol=2e-5)
        yield Case("negative_base", (floats(6), np.array(3.0, np.float32)), rtol=2e-5)
        yield Case("f16", (x.astype(np.float16), np.array(2.5, np.float16)))
        yield Case("float_int", (x, np.array([2, -1, 0] * 5 + [3, 1], np.int64)), rtol=2e-5)
        yield Case("int_float", (integers(2, 3, dtype="i32", lo=0), np.array(2.0, np.float32)))
        yield Case("int_int", (integers(2, 3, lo=1, hi=6), integers(3, lo=0, hi=5, seed=1)))
        yield Case("int_const", (integers(4, dtype="i32"), np.array(3, np.int32)), constant=(1,))


def _power(x: Expr, n: int) -> Expr:
    """x ** n by squaring, n >= 1."""
    if n == 1:
        return x
    half = _power(x, n // 2)
    return half * half if n % 2 == 0 else half * half * x


class Bitwise(Binary):
    """Bit by bit, on integers."""

    dtypes = INTEGERS


@operator("BitwiseAnd", since=18, inputs=2)
class BitwiseAnd(Bitwise):
    """x & y."""

    scalar, numpy = "bitand", staticmethod(np.bitwise_and)


@operator("BitwiseOr", since=18, inputs=2)
class BitwiseOr(Bitwise):
    """x | y."""

    scalar, numpy = "bitor", staticmethod(np.bitwise_or)


@operator("BitwiseXor", since=18, inputs=2)
class BitwiseXor(Bitwise):
    """x ^ y."""

    scalar, numpy = "bitxor", staticmethod(np.bitwise_xor)


@operator("BitShift", since=11, inputs=2, attributes={"direction": "LEFT"})
class BitShift(Binary):
    """Shifts integers; to the right with copies of the sign bit.

    A negative shift, or one by the width or more, leaves only copies of the sign bit (RIGHT) or 0.
    """

    dtypes = INTEGERS

    def infer(self, ctx: OpContext) -> list[TensorType]:
        if ctx.attrs["direction"] not in ("LEFT", "RIGHT"):
            ctx.fail(f"direction must be LEFT or RIGHT, not {ctx.attrs['direction']!r}")
        return super().infer(ctx)

    def expr(self, ctx: OpContext, x: Expr, y: Expr) -> Expr:
        right = ctx.attrs["direction"] == "RIGHT"
        inside = call("lt", y, 8 * nbytes(x.dtype))
        beyond: Expr = const(0, x.dtype)
        if x.dtype in SIGNED:
            inside = call("and", inside, call("ge", y, 0))
            if right:
                beyond = select(call("lt", x, 0), const(-1, x.dtype), beyond)
        shifted = call("shr" if right else "shl", x, select(inside, y, 0))
        return select(inside, shifted, beyond)

    def meaning(self, ctx: OpContext, x: Array, y: Array) -> Array:
        right = ctx.attrs["direction"] == "RIGHT"
        bits = 8 * x.dtype.itemsize
        outside = np.less(y, 0) | np.greater_equal(y, bits)
        by = np.where(outside, 0, y).astype(y.dtype)
        shifted = np.right_shift(x, by) if right else np.left_shift(x, by)
        beyond = np.where(np.less(x, 0) & right, -1, 0).astype(x.dtype)
        return np.asarray(np.where(outside, beyond, shifted), dtype=x.dtype)

    def cases(self) -> Iterable[Case]:
        for direction in ("LEFT", "RIGHT"):
            for t in INTEGERS:
                signed = t in SIGNED
                x = integers(3, 5, dtype=t, lo=-100 if signed else 0, hi=100)
                y = np.array([0, 1, 3, 7, 8 * nbytes(t) - 1], to_numpy(t))
                yield Case(f"{direction.lower()}_{t}", (x, y), {"direction": direction})
            far = np.array([-1, 8, 100, -128], np.int8), np.array([5, -5, 3, -7], np.int8)
            attrs = {"direction": direction}
            yield Case(f"far_{direction.lower()}", (far[1][:, None], far[0]), attrs)
        yield Case(
            "symbolic",
            (integers(3, dtype="u32", lo=0, hi=99), np.array(2, np.uint32)),
            symbolic={(0, 0): "n"},
        )


class Logical(Binary):
    """On truth values."""

    dtypes = ("bool",)


@operator("And", inputs=2)
class And(Logical):
    """x and y."""

    scalar, numpy = "and", staticmethod(np.logical_and)

    def rule(self, x: Size, y: Size) -> Size | None:
        return x * y


@operator("Or", inputs=2)
class Or(Logical):
    """x or y."""

    scalar, numpy = "or", staticmethod(np.logical_or)

    def rule(self, x: Size, y: Size) -> Size | None:
        return x + y - x * y


@operator("Xor", inputs=2)
class Xor(Logical):
    """Exactly one of x and y."""

    scalar, numpy = "xor", staticmethod(np.logical_xor)

    def rule(self, x: Size, y: Size) -> Size | None:
        return x + y - 2 * x * y


class Comparison(Binary):
    """True where the relation holds; False where an operand is NaN."""

    result = "bool"

    def sample(self, *shape: int, dtype: str, seed: int = 0) -> Array:
        if dtype == "bool":
            return sample(*shape, dtype=dtype, seed=seed)
        return integers(*shape, dtype=dtype, lo=0, hi=3, seed=seed)

    def cases(self) -> Iterable[Case]:
        yield from super().cases()
        nan = np.array([np.nan, 1.0, np.inf, np.nan, -0.0], np.float32)
        yield Case("nan", (nan, np.array([1.0, np.nan, np.inf, np.nan, 0.0], np.float32)))


@operator("Equal", inputs=2)
class Equal(Comparison):
    """x == y."""

    dtypes = (*NUMERIC, "bool")
    scalar, numpy = "eq", staticmethod(np.equal)

    def rule(self, x: Size, y: Size) -> Size | None:
        return values.equal(x, y)


@operator("Less", inputs=2)
class Less(Comparison):
    """x < y."""

    scalar, numpy = "lt", staticmethod(np.less)

    def rule(self, x: Size, y: Size) -> Size | None:
        return values.less(x, y)


@operator("LessOrEqual", since=12, inputs=2)
class LessOrEqual(Comparison):
    """x <= y."""

    scalar, numpy = "le", staticmethod(np.less_equal)

    def rule(self, x: Size, y: Size) -> Size | None:
        return values.less_equal(x, y)


@operator("Greater", inputs=2)
class Greater(Comparison):
    """x > y."""

    scalar, numpy = "gt", staticmethod(np.greater)

    def rule(self, x: Size, y: Size) -> Size | None:
        return values.less(y, x)


@operator("GreaterOrEqual", since=12, inputs=2)
class GreaterOrEqual(Comparison):
    """x >= y."""

    scalar, numpy = "ge", staticmethod(np.greater_equal)

    def rule(self, x: Size, y: Size) -> Size | None:
        return values.less_equal(y, x)


@operator("PRelu", inputs=2)
class PRelu(Binary):
    """x where x >= 0, slope * x elsewhere; slope is broadcast to x."""

    dtypes = (*FLOATS, "i64", "i32", "u64", "u32")

    def infer(self, ctx: OpContext) -> list[TensorType]:
        (result,) = super().infer(ctx)
        if result.shape != ctx.input(0).shape:
            ctx.fail("slope cannot be broadcast to the data's shape")
        return [result.without_value()]

    def expr(self, ctx: OpContext, x: Expr, y: Expr) -> Expr:
        return x if x.dtype in UNSIGNED else select(call("lt", x, 0), x * y, x)

    def meaning(self, ctx: OpContext, x: Array, y: Array) -> Array:
        return np.asarray(np.where(np.less(x, 0), x * y, x), dtype=x.dtype)

    def cases(self) -> Iterable[Case]:
        yield Case("channel", (floats(2, 3, 5), floats(3, 1)), constant=(1,))
        yield Case("scalar", (floats(2, 17), floats(1)), symbolic={(0, 0): "n"})
        yield Case("full", (floats(4, dtype="f16"), floats(4, dtype="f16", seed=1)))
        yield Case("i32", (integers(5, dtype="i32"), integers(5, dtype="i32", seed=1)))
