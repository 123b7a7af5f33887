"""Elementwise operators of one operand without parameters: arithmetic, roots, exponentials,
trigonometry, rounding, tests and logical negation (ONNX opsets 1 to 24)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from aicc.dtypes import FLOATS, INTEGERS, NUMERIC, SIGNED, UNSIGNED, is_float, to_numpy
from aicc.graph_ir.types import TensorType
from aicc.ops import values
from aicc.ops.registry import Array, Case, OpContext, Operator, operator
from aicc.ops.samples import floats, sample
from aicc.symbolic import Size
from aicc.tensor_ir.builder import KernelBuilder, Tensor
from aicc.tensor_ir.ir import Expr, call, cast, select


def widened(x: Expr, fn: Callable[[Expr], Expr]) -> Expr:
    """`fn(x)`; a 16-bit float is computed in f32 and rounded once."""
    if x.dtype in ("f16", "bf16"):
        return cast(fn(cast(x, "f32")), x.dtype)
    return fn(x)


def in_double(fn: Callable[..., Any], *arrays: Array) -> Array:
    """`fn` evaluated in f64 and rounded to the operands' float type; the oracle of float maths."""
    with np.errstate(all="ignore"):
        result = fn(*(a.astype(np.float64) for a in arrays))
        return np.asarray(result).astype(arrays[0].dtype)


class Unary(Operator):
    """y[i] = expr(x[i]), of the same type unless `result` names another."""

    dtypes: ClassVar[tuple[str, ...]] = FLOATS
    result: ClassVar[str | None] = None
    low: ClassVar[float] = -2.0
    high: ClassVar[float] = 2.0

    def expr(self, ctx: OpContext, x: Expr) -> Expr:
        raise NotImplementedError

    def meaning(self, ctx: OpContext, x: Array) -> Array:
        raise NotImplementedError

    def rule(self, x: Size) -> Size | None:
        """The result for one known integer; None where it is not tracked."""
        return None

    def upgrade(
        self, attrs: dict[str, Any], inputs: list[str], opset: int, graph: Any
    ) -> tuple[dict[str, Any], list[str]]:
        attrs.pop("consumed_inputs", None)  # opset 1: an optimisation hint
        return attrs, inputs

    def infer(self, ctx: OpContext) -> list[TensorType]:
        x = ctx.input(0)
        if x.dtype not in self.dtypes:
            ctx.fail(f"no {x.dtype} elements; allowed are {', '.join(self.dtypes)}")
        return [values.elementwise(self.result or x.dtype, x.shape, (x,), self.rule)]

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        (x,) = inputs
        assert x is not None
        return [np.asarray(self.meaning(ctx, x))]

    def lower(self, ctx: OpContext, b: KernelBuilder, *inputs: Tensor | None) -> Sequence[Tensor]:
        (x,) = inputs
        assert x is not None
        return [b.compute(x.shape, lambda *i: self.expr(ctx, x[i]))]

    def cases(self) -> Iterable[Case]:
        def data(*shape: int, dtype: str) -> Array:
            if is_float(dtype):
                return floats(*shape, dtype=dtype, lo=self.low, hi=self.high)
            return sample(*shape, dtype=dtype)

        first = self.dtypes[0] if "f32" not in self.dtypes else "f32"
        yield Case("matrix", (data(3, 17, dtype=first),), symbolic={(0, 0): "n"})
        yield Case("scalar", (data(dtype=first),))
        yield Case("empty", (data(2, 0, 3, dtype=first),))
        for dtype in self.dtypes:
            if dtype != first and dtype in ("f64", "f16", "bf16", "i64", "i8", "u8", "bool"):
                yield Case(dtype, (data(5, 3, dtype=dtype),))


class FloatUnary(Unary):
    """A scalar operation of the tensor IR on floats, with its mathematical meaning."""

    scalar: ClassVar[str] = ""
    math: ClassVar[Callable[..., Any]]

    def expr(self, ctx: OpContext, x: Expr) -> Expr:
        return widened(x, lambda e: call(self.scalar, e))

    def meaning(self, ctx: OpContext, x: Array) -> Array:
        return in_double(type(self).math, x)


def _float_unary(
    name: str, scalar: str, fn: Callable[..., Any], low: float = -2.0, high: float = 2.0
) -> None:
    """Registers a FloatUnary: `fn` is its meaning, low..high the range of its cases."""
    body = {"scalar": scalar, "math": staticmethod(fn), "low": low, "high": high}
    body["__doc__"] = f"y = {scalar}(x), elementwise."
    operator(name)(type(name, (FloatUnary,), body))


_float_unary("Exp", "exp", np.exp, -20, 20)
_float_unary("Log", "log", np.log, 1e-3, 50)
_float_unary("Sqrt", "sqrt", np.sqrt, 0, 50)
_float_unary("Erf", "erf", np.vectorize(math.erf, otypes=[np.float64]), -4, 4)
_float_unary("Tanh", "tanh", np.tanh, -6, 6)
_float_unary("Sin", "sin", np.sin, -30, 30)
_float_unary("Cos", "cos", np.cos, -30, 30)
_float_unary("Tan", "tan", np.tan, -1.4, 1.4)
_float_unary("Asin", "asin", np.arcsin, -1, 1)
_float_unary("Acos", "acos", np.arccos, -1, 1)
_float_unary("Atan", "atan", np.arctan, -9, 9)
_float_unary("Sinh", "sinh", np.sinh, -6, 6)
_float_unary("Cosh", "cosh", np.cosh, -6, 6)
_float_unary("Asinh", "asinh", np.arcsinh, -9, 9)
_float_unary("Acosh", "acosh", np.arccosh, 1, 9)
_float_unary("Atanh", "atanh", np.arctanh, -0.95, 0.95)


@operator("Neg")
class Neg(Unary):
    """y = -x; integers wrap."""

    dtypes = FLOATS + SIGNED

    def expr(self, ctx: OpContext, x: Expr) -> Expr:
        return -x

    def meaning(self, ctx: OpContext, x: Array) -> Array:
        return np.negative(x)

    def rule(self, x: Size) -> Size | None:
        return -x


@operator("Abs")
class Abs(Unary):
    """y = |x|."""

    dtypes = NUMERIC

    def expr(self, ctx: OpContext, x: Expr) -> Expr:
        return x if x.dtype in UNSIGNED else call("abs", x)

    def meaning(self, ctx: OpContext, x: Array) -> Array:
        return np.abs(x)

    def rule(self, x: Size) -> Size | None:
        return values.absolute(x)


@operator("Sign")
class Sign(Unary):
    """y = -1, 0 or 1; NaN stays NaN."""

    dtypes = NUMERIC

    def expr(self, ctx: OpContext, x: Expr) -> Expr:
        negative = x if x.dtype in UNSIGNED else select(call("lt", x, 0), -1, x)
        return select(call("gt", x, 0), 1, negative)

    def meaning(self, ctx: OpContext, x: Array) -> Array:
        return np.sign(x)

    def cases(self) -> Iterable[Case]:
        yield from super().cases()
        yield Case("zeros", (np.array([0.0, -0.0, 1e-30, -np.inf], np.float32),))


@operator("Reciprocal")
class Reciprocal(Unary):
    """y = 1 / x."""

    low, high = 0.1, 4.0

    def expr(self, ctx: OpContext, x: Expr) -> Expr:
        return widened(x, lambda e: 1 / e)

    def meaning(self, ctx: OpContext, x: Array) -> Array:
        return in_double(lambda v: 1 / v, x)


class Rounding(FloatUnary):
    """Rounds to an integer of the same float type."""

    def expr(self, ctx: OpContext, x: Expr) -> Expr:
        return widened(x, lambda e: call(self.scalar, e))

    def cases(self) -> Iterable[Case]:
        yield from super().cases()
        ties = [-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 0.49999997, 8388609.0, -0.0]
        yield Case("ties", (np.array(ties, np.float32),))


@operator("Floor")
class Floor(Rounding):
    """The largest integer not above x."""

    scalar, math = "floor", staticmethod(np.floor)


@operator("Ceil")
class Ceil(Rounding):
    """The smallest integer not below x."""

    scalar, math = "ceil", staticmethod(np.ceil)


@operator("Round")
class Round(Rounding):
    """The nearest integer, halves to the even one."""

    scalar, math = "round", staticmethod(np.rint)


@operator("Not")
class Not(Unary):
    """Logical negation."""

    dtypes = ("bool",)

    def expr(self, ctx: OpContext, x: Expr) -> Expr:
        return call("not", x)

    def meaning(self, ctx: OpContext, x: Array) -> Array:
        return np.logical_not(x)

    def rule(self, x: Size) -> Size | None:
        return 1 - x


@operator("BitwiseNot", since=18)
class BitwiseNot(Unary):
    """Inverts every bit."""

    dtypes = INTEGERS

    def expr(self, ctx: OpContext, x: Expr) -> Expr:
        return call("bitnot", x)

    def meaning(self, ctx: OpContext, x: Array) -> Array:
        return np.invert(x)


def _special(dtype: str) -> Array:
    return np.array([0.0, np.nan, np.inf, -np.inf, -0.0, 3.0, -np.nan]).astype(to_numpy(dtype))


@operator("IsNaN", since=9)
class IsNaN(Unary):
    """True where x is NaN."""

    result = "bool"

    def expr(self, ctx: OpContext, x: Expr) -> Expr:
        return call("isnan", x)

    def meaning(self, ctx: OpContext, x: Array) -> Array:
        return np.isnan(x)

    def cases(self) -> Iterable[Case]:
        yield from super().cases()
        yield from (Case(f"special_{t}", (_special(t),)) for t in ("f32", "f64", "f16"))


@operator("IsInf", since=10, attributes={"detect_negative": 1, "detect_positive": 1})
class IsInf(Unary):
    """True where x is infinite, of a sign that is asked for."""

    result = "bool"

    def expr(self, ctx: OpContext, x: Expr) -> Expr:
        found = call("isinf", x)
        if not ctx.attrs["detect_negative"]:
            found = call("and", found, call("gt", x, 0))
        if not ctx.attrs["detect_positive"]:
            found = call("and", found, call("lt", x, 0))
        return found

    def meaning(self, ctx: OpContext, x: Array) -> Array:
        result = np.zeros(x.shape, np.bool_)
        if ctx.attrs["detect_negative"]:
            result = result | np.isneginf(x.astype(np.float64))
        if ctx.attrs["detect_positive"]:
            result = result | np.isposinf(x.astype(np.float64))
        return result

    def cases(self) -> Iterable[Case]:
        yield from super().cases()
        for negative, positive in ((1, 1), (0, 1), (1, 0), (0, 0)):
            attrs = {"detect_negative": negative, "detect_positive": positive}
            yield Case(f"special_{negative}{positive}", (_special("f32"),), attrs)


@operator("Identity")
class Identity(Unary):
    """y = x."""

    dtypes = (*NUMERIC, "bool", "str")
    view = True

    def infer(self, ctx: OpContext) -> list[TensorType]:
        return [ctx.input(0)]

    def expr(self, ctx: OpContext, x: Expr) -> Expr:
        return x

    def meaning(self, ctx: OpContext, x: Array) -> Array:
        return x.copy()


@operator("Dropout", inputs=(1, 3), attributes={"seed": None})
class Dropout(Operator):
    """Inference only: the data as they are, and a mask of all True where it is asked for.

    Operands data, ratio, training_mode since opset 12; ratio was an attribute before.
    """

    view = True

    def upgrade(
        self, attrs: dict[str, Any], inputs: list[str], opset: int, graph: Any
    ) -> tuple[dict[str, Any], list[str]]:
        for legacy in ("ratio", "is_test", "consumed_inputs"):
            attrs.pop(legacy, None)
        return attrs, inputs

    def infer(self, ctx: OpContext) -> list[TensorType]:
        x = ctx.input(0)
        if ctx.has(2) and ctx.value(2) != (0,):
            ctx.fail("Dropout in training mode is not supported")
        return [x, TensorType("bool", x.shape)][: ctx.n_outputs]

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        x = inputs[0]
        assert x is not None
        return [x.copy(), np.ones(x.shape, np.bool_)][: ctx.n_outputs]

    def lower(self, ctx: OpContext, b: KernelBuilder, *inputs: Tensor | None) -> Sequence[Tensor]:
        x = inputs[0]
        assert x is not None
        results = [b.compute(x.shape, lambda *i: x[i])]
        if ctx.n_outputs > 1:
            results.append(b.compute(x.shape, lambda *i: True, "bool"))
        return results

    def cases(self) -> Iterable[Case]:
        x = floats(3, 5)
        ratio, off = np.array(0.5, np.float32), np.array(False)
        yield Case("plain", (x,), symbolic={(0, 0): "n"})
        yield Case("mask", (x, ratio, off), n_outputs=2, constant=(1, 2))
        yield Case("no_ratio", (floats(4, dtype="f16"), None, off), constant=(2,))
