"""Rules of `simplify` for arithmetic, logic and conversions.

Constants of commutative operators stand on the right; x - c is x + (-c), so that what follows a
value is a chain of products and sums whose constants meet.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from aicc.dtypes import is_float
from aicc.graph_ir.graph import Node
from aicc.graph_ir.passes.rewrite import Editor

Array = np.ndarray[Any, Any]


def uniform(ed: Editor, value: str) -> float | None:
    """The one element that a constant consists of; None for others, and for large constants."""
    array = ed.constant_of(value) if value else None
    if array is None or not 0 < array.size <= 4096 or array.dtype == object:
        return None
    first = array.reshape(-1)[0]
    return float(first) if bool((array == first).all()) else None


def same_type(ed: Editor, a: str, b: str) -> bool:
    """Whether two values have one element type and provably one shape."""
    x, y = ed.type_of(a), ed.type_of(b)
    return x.dtype == y.dtype and x.shape == y.shape


NEUTRAL: dict[str, tuple[float, bool]] = {
    "Add": (0.0, True),
    "Sub": (0.0, False),
    "Mul": (1.0, True),
    "Div": (1.0, False),
    "Pow": (1.0, False),
    "And": (1.0, True),
    "Or": (0.0, True),
    "BitwiseOr": (0.0, True),
    "BitwiseXor": (0.0, True),
    "BitShift": (0.0, False),
}
"""op -> the operand that changes nothing, and whether also on the left."""


def neutral_operand(ed: Editor, node: Node) -> str | None:
    """x + 0, x - 0, x * 1, x / 1, x ** 1, x and true, x or false -> x"""
    element, both = NEUTRAL[node.op]
    for x, c in ((node.inputs), (node.inputs[::-1])) if both else ((node.inputs),):
        if uniform(ed, c) == element and same_type(ed, x, node.outputs[0]):
            return x
    return None


def constant_right(ed: Editor, node: Node) -> str | None:
    """c + x -> x + c"""
    a, b = node.inputs
    if ed.constant_of(a) is None or ed.constant_of(b) is not None:
        return None
    return str(ed.op(node.op, b, a))


def constants_together(ed: Editor, node: Node) -> str | None:
    """(x + c) + d -> x + (c + d), and the same for products, where no constant grows; floats and
    unsigned or signed integers alike. (x + c) + y -> (x + y) + c is left to fusion."""
    x, d = node.inputs
    inner, last = ed.made_by(x, node.op), ed.constant_of(d)
    if inner is None or last is None:
        return None
    first = ed.constant_of(inner.inputs[1])
    if first is None:
        return None
    with np.errstate(all="ignore"):
        both = first + last if node.op == "Add" else first * last
    if both.size > max(first.size, last.size) or not np.isfinite(both.astype(np.float64)).all():
        return None
    return str(ed.op(node.op, inner.inputs[0], ed.constant(both, ed.type_of(d).dtype)))


def affine_together(ed: Editor, node: Node) -> str | None:
    """(x * a + b) * c -> x * (a*c) + b*c, where no constant grows"""
    y, c = node.inputs
    add = ed.made_by(y, "Add")
    mul = ed.made_by(add.inputs[0], "Mul") if add is not None else None
    if add is None or mul is None:
        return None
    a, b, last = (ed.constant_of(v) for v in (mul.inputs[1], add.inputs[1], c))
    if a is None or b is None or last is None or not is_float(ed.type_of(y).dtype):
        return None
    with np.errstate(all="ignore"):
        scale, shift = a * last, b * last
    if scale.size > max(a.size, last.size) or shift.size > max(b.size, last.size):
        return None
    if not (np.isfinite(scale).all() and np.isfinite(shift).all()):
        return None
    dtype = ed.type_of(y).dtype
    scaled = ed.op("Mul", mul.inputs[0], ed.constant(scale, dtype))
    return str(ed.op("Add", scaled, ed.constant(shift, dtype)))


def subtract_constant(ed: Editor, node: Node) -> str | None:
    """x - c -> x + (-c)"""
    x, c = node.inputs
    array = ed.constant_of(c)
    if array is None or not is_float(ed.type_of(c).dtype):
        return None
    return str(ed.op("Add", x, ed.constant(-array, ed.type_of(c).dtype)))


def divide_by_power_of_two(ed: Editor, node: Node) -> str | None:
    """x / c -> x * (1/c) where c and 1/c are powers of two, so that no bit changes"""
    x, c = node.inputs
    array, dtype = ed.constant_of(c), ed.type_of(c).dtype
    if array is None or not is_float(dtype) or not 0 < array.size <= 4096:
        return None
    wide = array.astype(np.float64)
    mantissa, exponent = np.frexp(wide)
    if not (np.abs(mantissa) == 0.5).all() or np.abs(exponent).max() > 14:
        return None
    return str(ed.op("Mul", x, ed.constant(1.0 / wide, dtype)))


def small_power(ed: Editor, node: Node) -> str | None:
    """x ** 2 -> x*x;  x ** 3 -> x*x*x;  x ** 0.5 -> Sqrt(x);  x ** -1 -> Reciprocal(x)"""
    x, exponent = node.inputs
    e = uniform(ed, exponent)
    dtype = ed.type_of(x).dtype
    if e is None or not same_type(ed, x, node.outputs[0]):
        return None
    if e in (2.0, 3.0):
        square = str(ed.op("Mul", x, x))
        return square if e == 2.0 else str(ed.op("Mul", square, x))
    if is_float(dtype) and e in (0.5, -1.0):
        return str(ed.op("Sqrt" if e == 0.5 else "Reciprocal", x))
    return None


def twice(ed: Editor, node: Node) -> str | None:
    """Neg(Neg(x)), Not(Not(x)) -> x"""
    inner = ed.made_by(node.inputs[0], node.op)
    return inner.inputs[0] if inner is not None else None


def once(ed: Editor, node: Node) -> str | None:
    """f(f(x)) -> f(x) for Relu, Abs, Floor, Ceil, Round, Sign"""
    return node.inputs[0] if ed.made_by(node.inputs[0], node.op) is not None else None


def same_operands(ed: Editor, node: Node) -> str | None:
    """x and x, x or x -> x"""
    return node.inputs[0] if node.inputs[0] == node.inputs[1] else None


def same_cast(ed: Editor, node: Node) -> str | None:
    """Cast(x) to x's own type -> x"""
    return node.inputs[0] if same_type(ed, node.inputs[0], node.outputs[0]) else None


def no_bounds(ed: Editor, node: Node) -> str | None:
    """Clip(x) without bounds -> x"""
    return None if any(node.inputs[1:]) else node.inputs[0]


def few_operands(ed: Editor, node: Node) -> str | None:
    """Sum(x), Max(x), Min(x), Mean(x), Concat(x) -> x;  Sum(x, y, z) -> Add(Add(x, y), z)"""
    x = node.inputs[0]
    if len(node.inputs) == 1:
        return x
    if node.op != "Sum":
        return None
    for y in node.inputs[1:]:
        x = str(ed.op("Add", x, y))
    return x


def chosen(ed: Editor, node: Node) -> str | None:
    """Where(true, x, y) -> x;  Where(false, x, y) -> y;  Where(c, x, x) -> x"""
    c, x, y = node.inputs
    known = uniform(ed, c)
    value = x if known == 1.0 or x == y else y if known == 0.0 else None
    return value if value is not None and same_type(ed, value, node.outputs[0]) else None
