"""The scalar operations of the tensor IR: arity, type rule and meaning, in one table.

The meaning is a numpy function on values of the operands' dtype; the interpreter uses it, and code
generation must agree with it (floats within rounding of the vector math library). Integer overflow
wraps. Integer `div` truncates toward zero and `mod` takes the dividend's sign, as in C; `floormod`
takes the divisor's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from aicc.dtypes import from_numpy, is_float, to_numpy

if TYPE_CHECKING:
    from aicc.tensor_ir.ir import Expr


@dataclass(frozen=True)
class ScalarOp:
    """`rule`: "same" = dtype of the (last) operands, "bool" = a truth value."""

    name: str
    arity: int
    rule: str
    meaning: Callable[..., Any]


def _div(a: Any, b: Any) -> Any:
    if np.asarray(a).dtype.kind in "iu":
        q = np.floor_divide(a, b)
        inexact = (np.remainder(a, b) != 0) & ((a < 0) != (b < 0))
        return q + inexact.astype(q.dtype) if isinstance(q, np.ndarray) else type(q)(q + inexact)
    return np.divide(a, b)


def _vectorised(fn: Callable[[float], float]) -> Callable[[Any], Any]:
    def meaning(a: Any) -> Any:
        wide = np.vectorize(fn, otypes=[np.float64])(np.asarray(a, np.float64))
        return wide.astype(np.asarray(a).dtype)[()]

    return meaning


def _max(a: Any, b: Any) -> Any:
    return np.maximum(a, b)  # a NaN operand gives NaN


_UNARY: dict[str, Callable[[Any], Any]] = {
    "neg": np.negative,
    "abs": np.abs,
    "exp": np.exp,
    "log": np.log,
    "tanh": np.tanh,
    "erf": _vectorised(math.erf),
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "asinh": np.arcsinh,
    "acosh": np.arccosh,
    "atanh": np.arctanh,
    "sqrt": np.sqrt,
    "floor": np.floor,
    "ceil": np.ceil,
    "trunc": np.trunc,
    "round": np.rint,  # half to even
    "bitnot": np.invert,
}
_BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": _div,
    "mod": np.fmod,
    "floormod": np.remainder,
    "max": _max,
    "min": np.minimum,
    "pow": np.power,
    "bitand": np.bitwise_and,
    "bitor": np.bitwise_or,
    "bitxor": np.bitwise_xor,
    "shl": np.left_shift,
    "shr": np.right_shift,
    "and": np.logical_and,
    "or": np.logical_or,
    "xor": np.logical_xor,
}
_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "eq": np.equal,
    "ne": np.not_equal,
}
COMPARISONS = frozenset(_COMPARE)
"""Operations that compare two values."""
ORDERINGS = COMPARISONS - {"eq", "ne"}
"""Comparisons that tell which value is less."""

OPS: dict[str, ScalarOp] = {
    **{n: ScalarOp(n, 1, "same", f) for n, f in _UNARY.items()},
    **{n: ScalarOp(n, 2, "same", f) for n, f in _BINARY.items()},
    **{n: ScalarOp(n, 2, "bool", f) for n, f in _COMPARE.items()},
    "not": ScalarOp("not", 1, "bool", np.logical_not),
    "isnan": ScalarOp("isnan", 1, "bool", np.isnan),
    "isinf": ScalarOp("isinf", 1, "bool", np.isinf),
    "fma": ScalarOp("fma", 3, "same", lambda a, b, c: a * b + c),
    "select": ScalarOp("select", 3, "same", lambda c, a, b: a if c else b),
}


def result_type(name: str, args: tuple[Expr, ...]) -> str:
    """The dtype of `name(*args)`. Raises TypeError where the operands do not fit the operation."""
    if name.startswith(("cast.", "bitcast.")):
        return name.split(".", 1)[1]
    op = OPS.get(name)
    if op is None:
        raise TypeError(f"unknown scalar operation {name!r}")
    if len(args) != op.arity:
        raise TypeError(f"{name} takes {op.arity} operands, not {len(args)}")
    operands = args[1:] if name == "select" else args
    kinds = {a.dtype for a in operands}
    if len(kinds) != 1:
        raise TypeError(f"{name}: operands of different types {', '.join(a.dtype for a in args)}")
    return "bool" if op.rule == "bool" else operands[0].dtype


def evaluate(name: str, args: list[Any], dtype: str) -> Any:
    """The value of `name(*args)` on numpy scalars, as a numpy scalar of `dtype`."""
    if name.startswith("bitcast."):
        return np.asarray(args[0]).view(to_numpy(dtype))[()]
    if name.startswith("cast."):
        return cast_value(args[0], dtype)
    with np.errstate(all="ignore"):
        return to_numpy(dtype).type(OPS[name].meaning(*args))


def cast_value(value: Any, dtype: str) -> Any:
    """A conversion as ONNX Cast defines it; a float that an integer type cannot hold saturates."""
    target = to_numpy(dtype)
    if dtype == "bool":
        return np.bool_(value != 0)
    if not is_float(dtype) and is_float(from_numpy(np.asarray(value).dtype)):
        info = np.iinfo(target)
        wide = float(value)
        if math.isnan(wide):
            return target.type(0)
        if math.isinf(wide):
            return target.type(info.max if wide > 0 else info.min)
        return target.type(min(max(int(wide), info.min), info.max))
    with np.errstate(all="ignore"):
        return np.asarray(value).astype(target)[()]
