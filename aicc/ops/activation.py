"""Activation functions: elementwise maps with attributes (ONNX opsets 1 to 24)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import ClassVar

import numpy as np

from aicc.dtypes import FLOATS, SIGNED
from aicc.graph_ir.types import TensorType
from aicc.ops.elementwise_unary import Unary, in_double, widened
from aicc.ops.registry import Array, Case, GraphRewriter, OpContext, Operator, operator
from aicc.ops.samples import floats
from aicc.tensor_ir.ir import Expr, call, select


class Activation(Unary):
    """A map of floats; 16-bit floats are computed in f32. `curve` is its meaning in f64."""

    low, high = -6.0, 6.0
    variants: ClassVar[tuple[dict[str, float], ...]] = ()
    """Attributes of further cases."""

    def formula(self, ctx: OpContext, x: Expr) -> Expr:
        raise NotImplementedError

    def curve(self, ctx: OpContext, x: Array) -> Array:
        raise NotImplementedError

    def expr(self, ctx: OpContext, x: Expr) -> Expr:
        return widened(x, lambda e: self.formula(ctx, e))

    def meaning(self, ctx: OpContext, x: Array) -> Array:
        return in_double(lambda v: self.curve(ctx, v), x)

    def cases(self) -> Iterable[Case]:
        yield from super().cases()
        yield Case("far", (np.array([-1e4, -100, -30, 0, 30, 100, 1e4], np.float32),))
        for n, attrs in enumerate(self.variants):
            yield Case(f"variant{n}", (floats(3, 17, lo=self.low, hi=self.high),), attrs)


@operator("Relu")
class Relu(Activation):
    """max(x, 0)."""

    dtypes = FLOATS + SIGNED

    def expr(self, ctx: OpContext, x: Expr) -> Expr:
        return call("max", x, 0)

    def meaning(self, ctx: OpContext, x: Array) -> Array:
        return np.asarray(np.maximum(x, np.zeros((), x.dtype)))


@operator("LeakyRelu", attributes={"alpha": 0.01})
class LeakyRelu(Activation):
    """x where x >= 0, else alpha * x."""

    variants = ({"alpha": 0.2}, {"alpha": -0.5}, {"alpha": 3.0})

    def formula(self, ctx: OpContext, x: Expr) -> Expr:
        return select(call("lt", x, 0.0), x * ctx.attrs["alpha"], x)

    def curve(self, ctx: OpContext, x: Array) -> Array:
        return np.where(x < 0, ctx.attrs["alpha"] * x, x)


@operator("ThresholdedRelu", since=10, attributes={"alpha": 1.0})
class ThresholdedRelu(Activation):
    """x where x > alpha, else 0."""

    variants = ({"alpha": 0.25},)

    def formula(self, ctx: OpContext, x: Expr) -> Expr:
        return select(call("gt", x, ctx.attrs["alpha"]), x, 0.0)

    def curve(self, ctx: OpContext, x: Array) -> Array:
        return np.where(x > ctx.attrs["alpha"], x, 0)


@operator("Elu", attributes={"alpha": 1.0})
class Elu(Activation):
    """x where x >= 0, else alpha * (exp(x) - 1)."""

    variants = ({"alpha": 0.3},)

    def formula(self, ctx: OpContext, x: Expr) -> Expr:
        return select(call("lt", x, 0.0), (call("exp", x) - 1.0) * ctx.attrs["alpha"], x)

    def curve(self, ctx: OpContext, x: Array) -> Array:
        return np.where(x < 0, ctx.attrs["alpha"] * np.expm1(x), x)


@operator(
    "Selu", attributes={"alpha": 1.67326319217681884765625, "gamma": 1.05070102214813232421875}
)
class Selu(Activation):
    """gamma * x where x > 0, else gamma * alpha * (exp(x) - 1)."""

    variants = ({"alpha": 2.0, "gamma": 3.0},)

    def formula(self, ctx: OpContext, x: Expr) -> Expr:
        alpha, gamma = ctx.attrs["alpha"], ctx.attrs["gamma"]
        return select(call("gt", x, 0.0), x * gamma, (call("exp", x) - 1.0) * (alpha * gamma))

    def curve(self, ctx: OpContext, x: Array) -> Array:
        return np.asarray(ctx.attrs["gamma"] * np.where(x > 0, x, ctx.attrs["alpha"] * np.expm1(x)))


@operator("Celu", since=12, attributes={"alpha": 1.0})
class Celu(Activation):
    """max(x, 0) + min(0, alpha * (exp(x / alpha) - 1))."""

    variants = ({"alpha": 2.0},)

    def formula(self, ctx: OpContext, x: Expr) -> Expr:
        alpha = ctx.attrs["alpha"]
        return select(call("lt", x, 0.0), (call("exp", x * (1.0 / alpha)) - 1.0) * alpha, x)

    def curve(self, ctx: OpContext, x: Array) -> Array:
        alpha = ctx.attrs["alpha"]
        return np.asarray(np.maximum(x, 0) + np.minimum(0, alpha * np.expm1(x / alpha)))


@operator("Sigmoid")
class Sigmoid(Activation):
    """1 / (1 + exp(-x)): where exp overflows to infinity, the quotient is the limit, 0."""

    low, high = -20.0, 20.0

    def formula(self, ctx: OpContext, x: Expr) -> Expr:
        return 1.0 / (call("exp", -x) + 1.0)

    def curve(self, ctx: OpContext, x: Array) -> Array:
        return np.exp(-np.logaddexp(0, -x))


@operator("HardSigmoid", attributes={"alpha": 0.2, "beta": 0.5})
class HardSigmoid(Activation):
    """max(0, min(1, alpha * x + beta))."""

    variants = ({"alpha": 1 / 6, "beta": 0.5},)

    def formula(self, ctx: OpContext, x: Expr) -> Expr:
        line = x * ctx.attrs["alpha"] + ctx.attrs["beta"]
        return call("min", call("max", line, 0.0), 1.0)

    def curve(self, ctx: OpContext, x: Array) -> Array:
        return np.asarray(np.clip(ctx.attrs["alpha"] * x + ctx.attrs["beta"], 0, 1))


@operator("Softplus")
class Softplus(Activation):
    """log(1 + exp(x)) = max(x, 0) + log1p(exp(-|x|)).

    log1p(e) = log(u) * e / (u - 1) with u = 1 + e as rounded, e where u is 1 (Goldberg 1991,
    "What every computer scientist should know about floating-point arithmetic", theorem 4).
    """

    def formula(self, ctx: OpContext, x: Expr) -> Expr:
        e = call("exp", -call("abs", x))
        u = e + 1.0
        log1p = select(call("eq", u, 1.0), e, call("log", u) * e / (u - 1.0))
        return call("max", x, 0.0) + log1p

    def curve(self, ctx: OpContext, x: Array) -> Array:
        return np.logaddexp(0, x)


@operator("Softsign")
class Softsign(Activation):
    """x / (1 + |x|)."""

    def formula(self, ctx: OpContext, x: Expr) -> Expr:
        return x / (call("abs", x) + 1.0)

    def curve(self, ctx: OpContext, x: Array) -> Array:
        return np.asarray(x / (1 + np.abs(x)))


@operator("Mish", since=18)
class Mish(Activation):
    """x * tanh(log(1 + exp(x))) = x * w / (w + 2) with w = e * (e + 2), e = exp(x).

    Above 20 the quotient is 1 to the last bit, also in f64.
    """

    def formula(self, ctx: OpContext, x: Expr) -> Expr:
        e = call("exp", call("min", x, 20.0))
        w = e * (e + 2.0)
        return x * (w / (w + 2.0))

    def curve(self, ctx: OpContext, x: Array) -> Array:
        return x * np.tanh(np.logaddexp(0, x))


@operator("Swish", since=24, attributes={"alpha": 1.0})
class Swish(Activation):
    """x * sigmoid(alpha * x)."""

    variants = ({"alpha": 1.702},)

    def formula(self, ctx: OpContext, x: Expr) -> Expr:
        return x / (call("exp", x * -ctx.attrs["alpha"]) + 1.0)

    def curve(self, ctx: OpContext, x: Array) -> Array:
        return np.asarray(x * np.exp(-np.logaddexp(0, -ctx.attrs["alpha"] * x)))


class Composite(Operator):
    """A map of floats that is spelled out in other operators, as exporters spell it."""

    def infer(self, ctx: OpContext) -> list[TensorType]:
        x = ctx.input(0)
        if x.dtype not in FLOATS:
            ctx.fail(f"no {x.dtype} elements; allowed are {', '.join(FLOATS)}")
        return [x]

    def cases(self) -> Iterable[Case]:
        yield Case("matrix", (floats(3, 17, lo=-6, hi=6),), symbolic={(0, 0): "n"})
        yield Case("scalar", (floats(),))
        yield Case("empty", (floats(0, 3),))
        yield Case("f64", (floats(5, dtype="f64", lo=-6, hi=6),))
        yield Case("f16", (floats(5, dtype="f16"),), atol=4e-3)


@operator("HardSwish", since=14)
class HardSwish(Composite):
    """x * max(0, min(1, x / 6 + 1/2))."""

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        (x,) = inputs
        assert x is not None
        return [in_double(lambda v: v * np.clip(v / 6 + 0.5, 0, 1), x)]

    def decompose(self, ctx: OpContext, g: GraphRewriter, *inputs: str) -> Sequence[str] | None:
        (x,) = inputs
        return [g.op("Mul", x, g.op("HardSigmoid", x, alpha=1 / 6, beta=0.5))]


@operator("Gelu", since=20, attributes={"approximate": "none"})
class Gelu(Composite):
    """x * P(X <= x), X standard normal (Hendrycks and Gimpel 2016), or its tanh approximation."""

    def infer(self, ctx: OpContext) -> list[TensorType]:
        if ctx.attrs["approximate"] not in ("none", "tanh"):
            ctx.fail(f"approximate must be none or tanh, not {ctx.attrs['approximate']!r}")
        return super().infer(ctx)

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        (x,) = inputs
        assert x is not None
        if ctx.attrs["approximate"] == "none":
            erf = np.vectorize(math.erf, otypes=[np.float64])
            return [in_double(lambda v: 0.5 * v * (1 + erf(v / math.sqrt(2))), x)]
        scale = math.sqrt(2 / math.pi)
        return [in_double(lambda v: 0.5 * v * (1 + np.tanh(scale * (v + 0.044715 * v**3))), x)]

    def decompose(self, ctx: OpContext, g: GraphRewriter, *inputs: str) -> Sequence[str] | None:
        (x,) = inputs
        dtype = ctx.input(0).dtype

        def c(v: float) -> str:
            return g.constant(v, dtype)

        if ctx.attrs["approximate"] == "none":
            bent = g.op("Erf", g.op("Mul", x, c(1 / math.sqrt(2))))
        else:
            cube = g.op("Mul", g.op("Mul", g.op("Mul", x, x), x), c(0.044715))
            bent = g.op("Tanh", g.op("Mul", g.op("Add", x, cube), c(math.sqrt(2 / math.pi))))
        return [g.op("Mul", g.op("Mul", x, c(0.5)), g.op("Add", bent, c(1.0)))]

    def cases(self) -> Iterable[Case]:
        for case in super().cases():
            yield case
            yield Case(
                f"{case.name}_tanh",
                case.inputs,
                {"approximate": "tanh"},
                symbolic=case.symbolic,
                atol=case.atol,
            )
