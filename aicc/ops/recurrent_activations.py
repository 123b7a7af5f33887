"""The activation functions that RNN, GRU and LSTM take by name: in numpy, and as scalar code."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aicc.ops.registry import Array, OpContext
from aicc.ops.windows import text
from aicc.tensor_ir.ir import Expr, call, const, select


@dataclass(frozen=True)
class _Function:
    """meaning, scalar: functions of (x, alpha, beta). alpha, beta: defaults; None: it has none."""

    meaning: Callable[[Array, float, float], Any]
    scalar: Callable[[Expr, float, float], Expr]
    alpha: float | None = None
    beta: float | None = None


def _sigmoid(x: Expr) -> Expr:
    return 1.0 / (call("exp", -x) + 1.0)


def _softplus(x: Expr) -> Expr:
    """max(x, 0) + log(1 + exp(-|x|)), whose exponential does not overflow."""
    return call("max", x, 0.0) + call("log", call("exp", -call("abs", x)) + 1.0)


_FUNCTIONS: Mapping[str, _Function] = {
    "relu": _Function(lambda x, a, b: np.maximum(x, 0), lambda x, a, b: call("max", x, 0.0)),
    "tanh": _Function(lambda x, a, b: np.tanh(x), lambda x, a, b: call("tanh", x)),
    "sigmoid": _Function(lambda x, a, b: np.exp(-np.logaddexp(0, -x)), lambda x, a, b: _sigmoid(x)),
    "affine": _Function(lambda x, a, b: a * x + b, lambda x, a, b: x * a + b, 1.0, 0.0),
    "leakyrelu": _Function(
        lambda x, a, b: np.where(x < 0, a * x, x),
        lambda x, a, b: select(call("lt", x, 0.0), x * a, x),
        0.01,
    ),
    "thresholdedrelu": _Function(
        lambda x, a, b: np.where(x > a, x, 0),
        lambda x, a, b: select(call("gt", x, a), x, 0.0),
        1.0,
    ),
    "scaledtanh": _Function(
        lambda x, a, b: a * np.tanh(b * x),
        lambda x, a, b: call("tanh", x * b) * a,
        1.0,
        1.0,
    ),
    "hardsigmoid": _Function(
        lambda x, a, b: np.clip(a * x + b, 0, 1),
        lambda x, a, b: call("min", call("max", x * a + b, 0.0), 1.0),
        0.2,
        0.5,
    ),
    "elu": _Function(
        lambda x, a, b: np.where(x < 0, a * np.expm1(x), x),
        lambda x, a, b: select(call("lt", x, 0.0), (call("exp", x) - 1.0) * a, x),
        1.0,
    ),
    "softsign": _Function(
        lambda x, a, b: x / (1 + np.abs(x)), lambda x, a, b: x / (call("abs", x) + 1.0)
    ),
    "softplus": _Function(lambda x, a, b: np.logaddexp(0, x), lambda x, a, b: _softplus(x)),
}


@dataclass(frozen=True)
class Activation:
    """One function with its parameters; called on an array it gives the array of results."""

    name: str
    alpha: float
    beta: float

    def __call__(self, x: Array) -> Array:
        return np.asarray(_FUNCTIONS[self.name].meaning(x, self.alpha, self.beta))

    def scalar(self, x: Expr) -> Expr:
        """The function of a scalar expression."""
        return _FUNCTIONS[self.name].scalar(x, self.alpha, self.beta)


def activations(ctx: OpContext, defaults: Sequence[str], directions: int) -> list[list[Activation]]:
    """The functions of each direction, from the attributes `activations`, `activation_alpha` and
    `activation_beta`, whose values belong to the functions that take one, in order."""
    count = len(defaults)
    names = [text(n).lower() for n in ctx.attrs["activations"] or ()]
    names = names or [n.lower() for n in defaults] * directions
    if len(names) != count * directions:
        ctx.fail(f"{len(names)} activations, not {count * directions}")
    alphas = iter(ctx.attrs["activation_alpha"] or ())
    betas = iter(ctx.attrs["activation_beta"] or ())
    made: list[Activation] = []
    for name in names:
        if name not in _FUNCTIONS:
            ctx.fail(f"unknown activation {name!r}")
        f = _FUNCTIONS[name]
        a = 0.0 if f.alpha is None else float(next(alphas, f.alpha))
        b = 0.0 if f.beta is None else float(next(betas, f.beta))
        made.append(Activation(name, a, b))
    return [made[d * count : (d + 1) * count] for d in range(directions)]


def as_attributes(functions: Sequence[Activation]) -> dict[str, Any]:
    """Attributes from which `activations` reads these functions."""
    known = [(f, _FUNCTIONS[f.name]) for f in functions]
    return {
        "activations": tuple(f.name for f in functions),
        "activation_alpha": tuple(f.alpha for f, k in known if k.alpha is not None),
        "activation_beta": tuple(f.beta for f, k in known if k.beta is not None),
    }


def clipped(x: Expr, limit: float) -> Expr:
    """`x` within [-limit, limit]; as it is where the limit is 0."""
    if limit <= 0:
        return x
    low, high = const(-limit, x.dtype), const(limit, x.dtype)
    return call("min", call("max", x, low), high)
