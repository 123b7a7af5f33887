"""Identities and canonical forms: small rules applied to a fixed point, and common subexpressions.

A rule looks at one node whose operands are simplified already and returns the value that takes its
result's place, or None. RULES lists them by operator; each docstring states before -> after.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from aicc.dtypes import is_float
from aicc.errors import OperatorError
from aicc.graph_ir.graph import Graph, Node
from aicc.graph_ir.infer import result_types
from aicc.graph_ir.passes.fold import Fold, Folder
from aicc.graph_ir.passes.rewrite import Editor
from aicc.graph_ir.types import TensorType
from aicc.ops import registry
from aicc.symbolic import Size, product

Array = np.ndarray[Any, Any]
ValueRule = Callable[[Editor, Node], str | None]


@dataclass(frozen=True)
class Simplify:
    """Applies RULES, constant folding and common subexpression elimination until nothing changes.

    before: %a = Add(%x, @zero)  %t = Transpose(%a) {perm=[1,0]}  %y = Transpose(%t) {perm=[1,0]}
    after:  %y is %x
    """

    rounds: int = 8

    name: ClassVar[str] = "simplify"

    def __call__(self, graph: Graph) -> Graph:
        for _ in range(self.rounds):
            rule = _Simplifier()
            ed = Editor(graph, rule)
            ed.share_constants()
            made = ed.run()
            if made.nodes == graph.nodes and made.outputs == graph.outputs:
                return made
            graph = made
        return graph


class _Simplifier:
    """The rule of one walk."""

    def __init__(self) -> None:
        self.fold = Folder(Fold().expansion)

    def __call__(self, ed: Editor, node: Node) -> Sequence[str] | None:
        folded = self.fold(ed, node)
        if folded is not None:
            return folded
        if node.op == "If":
            return inline_if(ed, node)
        if sum(1 for o in node.outputs if o) == 1 and node.outputs[0]:
            for rule in RULES.get(node.op, ()):
                value = rule(ed, node)
                if value is not None:
                    return [value, *[""] * (len(node.outputs) - 1)]
        return self.common(ed, node)

    def common(self, ed: Editor, node: Node) -> tuple[str, ...] | None:
        """op(x) -> the result of an equal node before it."""
        op = registry.find(node.op)
        if op is None or not op.deterministic or node.regions:
            return None
        wanted = tuple(bool(o) for o in node.outputs)
        key = (node.op, node.inputs, node.attrs, wanted)
        known: tuple[str, ...] | None = ed.memo.setdefault(key, node.outputs)
        return None if known is node.outputs else known


# --- what rules ask -----------------------------------------------------------------------------


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


def reshape(ed: Editor, x: str, like: TensorType) -> str | None:
    """`x` in the shape of `like`: itself, or a Reshape whose operand is constant; None where sizes
    are symbols that neither stay in place nor follow from the others."""
    own = ed.type_of(x)
    if own.shape == like.shape:
        return x
    target = target_shape(own.shape, like.shape)
    if target is None:
        return None
    return str(ed.op("Reshape", x, ed.constant(target, "i64"), allowzero=0))


def target_shape(own: Sequence[Size], shape: Sequence[Size]) -> list[int] | None:
    """Reshape's operand for a result of this shape: 0 copies a size in place, -1 follows."""
    target: list[int] = []
    for axis, d in enumerate(shape):
        stays = axis < len(own) and own[axis] == d
        if isinstance(d, int) and d != 0:
            target.append(d)
        elif stays:
            target.append(0)
        elif isinstance(d, int):
            return None
        else:
            target.append(-1)
    return target if target.count(-1) <= 1 else None


# --- arithmetic ---------------------------------------------------------------------------------

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


# --- shapes -------------------------------------------------------------------------------------


def identity(ed: Editor, node: Node) -> str | None:
    """Identity(x), Dropout(x) whose mask nobody reads -> x"""
    return node.inputs[0]


def same_shape(ed: Editor, node: Node) -> str | None:
    """A view, an Expand or a Split of x with x's own type -> x"""
    return node.inputs[0] if same_type(ed, node.inputs[0], node.outputs[0]) else None


def view_as_reshape(ed: Editor, node: Node) -> str | None:
    """Squeeze, Unsqueeze, Flatten, Reshape(Reshape(x)) -> Reshape(x, @shape) where a constant shape
    says it. Where contents are tracked the node stays, so that shape arithmetic goes on."""
    result = ed.type_of(node.outputs[0])
    if result.value is not None:
        return None
    x = node.inputs[0]
    while (inner := ed.made_by(x, "Reshape")) is not None:
        x = inner.inputs[0]
    own = ed.type_of(x)
    if node.op == "Reshape" and x == node.inputs[0]:
        target = target_shape(own.shape, result.shape)
        shape = ed.constant_of(node.inputs[1])
        if target is None or (shape is not None and shape.tolist() == target):
            return None
    return reshape(ed, x, result)


def expanded_operand(ed: Editor, node: Node) -> str | None:
    """f(Expand(x), y) -> f(x, y) where the result's shape follows from the other operands"""
    for i, value in enumerate(node.inputs):
        source = ed.made_by(value, "Expand") if value else None
        if source is None:
            continue
        inputs = [*node.inputs]
        inputs[i] = source.inputs[0]
        fresh = replace(ed.make(node.op, *inputs), attrs=node.attrs)
        try:
            (t,) = result_types(ed.context(fresh))
        except OperatorError:
            continue
        if t.shape == ed.type_of(node.outputs[0]).shape:
            return ed.offer(fresh)[0]
    return None


def _leading_view(ed: Editor, value: str) -> str | None:
    """The source of a Reshape that leaves the last axis as it is."""
    view = ed.made_by(value, "Reshape")
    if view is None:
        return None
    source, result = ed.type_of(view.inputs[0]).shape, ed.type_of(value).shape
    fits = len(source) > 1 and len(result) > 1 and source[-1] == result[-1]
    return view.inputs[0] if fits else None


def view_after_product(ed: Editor, node: Node) -> str | None:
    """MatMul(Reshape(x), w) -> Reshape(MatMul(x, w)) where w is a matrix and x keeps its rows, so
    that what follows works in x's own shape"""
    value, weights = node.inputs
    source = _leading_view(ed, value)
    if source is None or ed.type_of(weights).rank != 2:
        return None
    return reshape(ed, str(ed.op("MatMul", source, weights)), ed.type_of(node.outputs[0]))


def view_after_sum(ed: Editor, node: Node) -> str | None:
    """Add(Reshape(x), @b) -> Reshape(Add(x, @b)) where b is a vector over the last axis, kept"""
    value, vector = node.inputs
    source, data = _leading_view(ed, value), ed.constant_of(vector)
    if source is None or data is None or data.ndim > 1:
        return None
    return reshape(ed, str(ed.op("Add", source, vector)), ed.type_of(node.outputs[0]))


def view_before_product(ed: Editor, node: Node) -> str | None:
    """Reshape(Add(MatMul(Reshape(x), w), @b)) -> Add(MatMul(Reshape(x), w), @b) where the rows of
    the result are arranged anew, with or without the sum"""
    value, result = node.inputs[0], ed.type_of(node.outputs[0])
    add = ed.made_by(value, "Add")
    product = ed.made_by(add.inputs[0] if add is not None else value, "MatMul")
    if product is None or result.rank < 2 or ed.type_of(value).shape[-1] != result.shape[-1]:
        return None
    x, weights = product.inputs
    bias = ed.constant_of(add.inputs[1]) if add is not None else None
    if add is not None and (bias is None or bias.ndim > 1 or not ed.read_once(add.inputs[0])):
        return None
    if ed.made_by(x, "Reshape") is None or ed.type_of(weights).rank != 2 or not ed.read_once(value):
        return None
    rows = TensorType(result.dtype, (*result.shape[:-1], ed.type_of(x).shape[-1]))
    shaped = reshape(ed, x, rows)
    if shaped is None or shaped == x:
        return None
    made = str(ed.op("MatMul", shaped, weights))
    return made if add is None else str(ed.op("Add", made, add.inputs[1]))


def permutation(ed: Editor, node: Node) -> tuple[int, ...]:
    """The axes of a Transpose: its attribute, or all of them reversed."""
    rank = ed.type_of(node.inputs[0]).rank
    perm = node.attr("perm") or ()
    return tuple(int(p) for p in perm) or tuple(reversed(range(rank)))


def transposes_together(ed: Editor, node: Node) -> str | None:
    """Transpose(x) of no axes -> x;  Transpose(Transpose(x)) -> Transpose(x)"""
    perm = permutation(ed, node)
    x = node.inputs[0]
    if perm == tuple(range(len(perm))):
        return x
    inner = ed.made_by(x, "Transpose")
    if inner is None:
        return None
    before = permutation(ed, inner)
    return str(ed.op("Transpose", inner.inputs[0], perm=tuple(before[p] for p in perm)))


def transpose_as_reshape(ed: Editor, node: Node) -> str | None:
    """Transpose(x) that moves only axes of size 1 -> Reshape(x)"""
    shape = ed.type_of(node.inputs[0]).shape
    moved = [p for p in permutation(ed, node) if shape[p] != 1]
    if moved != sorted(moved):
        return None
    return reshape(ed, node.inputs[0], ed.type_of(node.outputs[0]))


def whole_slice(ed: Editor, node: Node) -> str | None:
    """Slice(x) of every element, in order -> x"""
    steps = ed.type_of(node.inputs[4]).value if len(node.inputs) > 4 and node.inputs[4] else (1,)
    if steps is None or any(s != 1 for s in steps):
        return None
    return same_shape(ed, node)


def zero_pad(ed: Editor, node: Node) -> str | None:
    """Pad(x) by nothing -> x"""
    pads = ed.type_of(node.inputs[1]).value
    if pads is None or any(p != 0 for p in pads):
        return None
    return same_shape(ed, node)


def single_repeat(ed: Editor, node: Node) -> str | None:
    """Tile(x) by ones -> x"""
    repeats = ed.type_of(node.inputs[1]).value
    if repeats is None or any(r != 1 for r in repeats):
        return None
    return same_shape(ed, node)


def no_reduction(ed: Editor, node: Node) -> str | None:
    """ReduceSum, ReduceMean, ReduceMax, ReduceMin, ReduceProd over axes of size 1 -> Reshape(x)"""
    x, result = ed.type_of(node.inputs[0]), ed.type_of(node.outputs[0])
    if result.value is not None or product(x.shape) != product(result.shape):
        return None
    kept = [d for d in x.shape if d != 1]
    if kept != [d for d in result.shape if d != 1] or 0 in kept:
        return None
    return reshape(ed, node.inputs[0], result)


# --- control flow -------------------------------------------------------------------------------


def inline_if(ed: Editor, node: Node) -> list[str] | None:
    """If(@condition) -> the nodes of the branch that it chooses"""
    condition = ed.constant_of(node.inputs[0])
    if condition is None or condition.size != 1:
        return None
    names = list(registry.get("If").attributes)
    chosen = "then_branch" if bool(condition.reshape(-1)[0]) else "else_branch"
    return ed.inline(node.regions[names.index(chosen)])


# --- the table ----------------------------------------------------------------------------------

_REDUCTIONS = ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd")
_IDEMPOTENT = ("Relu", "Abs", "Floor", "Ceil", "Round", "Sign")
_COMPARISONS = ("Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual")

RULES: dict[str, tuple[ValueRule, ...]] = {
    "Identity": (identity,),
    "Dropout": (identity,),
    "Add": (
        neutral_operand,
        constant_right,
        constants_together,
        view_after_sum,
        expanded_operand,
    ),
    "MatMul": (view_after_product,),
    "Sub": (neutral_operand, subtract_constant, expanded_operand),
    "Mul": (
        neutral_operand,
        constant_right,
        constants_together,
        affine_together,
        expanded_operand,
    ),
    "Div": (neutral_operand, divide_by_power_of_two, expanded_operand),
    "Pow": (neutral_operand, small_power, expanded_operand),
    "And": (neutral_operand, same_operands, constant_right, expanded_operand),
    "Or": (neutral_operand, same_operands, constant_right, expanded_operand),
    "Xor": (expanded_operand,),
    "BitwiseOr": (neutral_operand,),
    "BitwiseXor": (neutral_operand,),
    "BitShift": (neutral_operand,),
    "Where": (chosen, expanded_operand),
    **dict.fromkeys(_COMPARISONS, (expanded_operand,)),
    "Neg": (twice,),
    "Not": (twice,),
    **dict.fromkeys(_IDEMPOTENT, (once,)),
    "Cast": (same_cast,),
    "CastLike": (same_cast,),
    "Clip": (no_bounds,),
    **dict.fromkeys(("Sum", "Mean", "Concat"), (few_operands,)),
    **dict.fromkeys(("Max", "Min"), (few_operands, expanded_operand)),
    **dict.fromkeys(("Flatten", "Squeeze", "Unsqueeze"), (same_shape, view_as_reshape)),
    "Reshape": (same_shape, view_before_product, view_as_reshape),
    "Expand": (same_shape,),
    "Split": (same_shape,),
    "Transpose": (transposes_together, transpose_as_reshape),
    "Slice": (whole_slice,),
    "Pad": (zero_pad,),
    "Tile": (single_repeat,),
    **dict.fromkeys(_REDUCTIONS, (no_reduction,)),
}
