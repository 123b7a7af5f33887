"""Rules of `simplify` for operators that only move elements: views, transposes, slices, broadcasts.

Views become Reshapes with a constant shape where sizes allow it, and Reshapes give way to the shape
that products and sums around them work in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from aicc.errors import OperatorError
from aicc.graph_ir.graph import Node
from aicc.graph_ir.infer import result_types
from aicc.graph_ir.passes.rewrite import Editor
from aicc.graph_ir.passes.simplify_arithmetic import same_type
from aicc.graph_ir.types import TensorType
from aicc.symbolic import Size, product

_NO_PADS = (None, "", "NOTSET", "VALID")


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


def _expanded(ed: Editor, value: str) -> Node | None:
    """The Expand that a value is the result of, where it repeats elements along axes that its
    operand has."""
    made = ed.made_by(value, "Expand")
    if made is None:
        return None
    own, shape = ed.type_of(made.inputs[0]).shape, ed.type_of(value).shape
    more = any(d == 1 and e != 1 for d, e in zip(own, shape))
    return made if len(own) == len(shape) and more else None


def expand_after_map(ed: Editor, node: Node) -> str | None:
    """f(Expand(x)) -> Expand(f(x)) for a function of one element: computed once for each of x"""
    source = _expanded(ed, node.inputs[0])
    if source is None or ed.type_of(node.outputs[0]).value is not None:
        return None
    fresh = replace(ed.make(node.op, source.inputs[0]), attrs=node.attrs)
    return str(ed.op("Expand", ed.offer(fresh)[0], source.inputs[1]))


def expand_after_convolution(ed: Editor, node: Node) -> str | None:
    """Conv(Expand(x), w) -> Expand(Conv(x, w)) for windows of one element, and x whose channels are
    not repeated"""
    source = _expanded(ed, node.inputs[0])
    single = all(k == 1 for k in ed.type_of(node.inputs[1]).shape[2:])
    moved = any(int(n) != 1 for n in node.attr("strides") or ())
    moved = moved or any(int(n) for n in node.attr("pads") or ())
    if source is None or not single or moved or node.attr("auto_pad") not in _NO_PADS:
        return None
    own, shape = ed.type_of(source.inputs[0]).shape, ed.type_of(node.inputs[0]).shape
    sizes = ed.type_of(source.inputs[1]).shape
    if own[1] != shape[1] or sizes != (len(shape),):
        return None
    fresh = replace(ed.make(node.op, source.inputs[0], *node.inputs[1:]), attrs=node.attrs)
    ones = np.arange(len(shape)) == 1
    kept = ed.op("Where", ed.constant(ones, "bool"), ed.constant(1, "i64"), source.inputs[1])
    return str(ed.op("Expand", ed.offer(fresh)[0], kept))


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


def product_of_rows(ed: Editor, node: Node) -> str | None:
    """MatMul(x, Transpose(p)) -> Transpose(MatMul(p, Transpose(x))) where p is a Softmax over its
    rows and matrices are transposed: a product computes its left operand's rows on the way"""
    x, value = node.inputs
    turned = ed.made_by(value, "Transpose")
    if turned is None or not ed.read_once(value) or ed.type_of(x).rank < 2:
        return None
    rows = turned.inputs[0]
    softmax = ed.made_by(rows, "Softmax")
    rank = ed.type_of(rows).rank
    if softmax is None or rank < 2 or permutation(ed, turned) != _turned(rank):
        return None
    if softmax.attr("axis", -1) % rank != rank - 1 or not ed.read_once(rows):
        return None
    other = str(ed.op("Transpose", x, perm=_turned(ed.type_of(x).rank)))
    made = str(ed.op("MatMul", rows, other))
    return str(ed.op("Transpose", made, perm=_turned(ed.type_of(made).rank)))


def _turned(rank: int) -> tuple[int, ...]:
    """The permutation that transposes matrices."""
    return (*range(rank - 2), rank - 1, rank - 2)


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


def gather_in_steps(ed: Editor, node: Node) -> str | None:
    """Gather(x, @indices) -> Slice(x) or Windows(x), where the indices are b + i*s + j*t + ..."""
    x, at = node.inputs
    indices, rank = ed.constant_of(at), ed.type_of(x).rank
    axis = int(node.attr("axis", 0)) % max(rank, 1)
    if indices is None or indices.ndim == 0 or indices.size < 2 or rank == 0:
        return None
    extent = ed.type_of(x).shape[axis]
    if not isinstance(extent, int):
        return None
    places = np.where(indices < 0, indices.astype(np.int64) + extent, indices)
    if places.min() < 0 or places.max() >= extent:
        return None  # an error, of Gather
    begin = int(places.flat[0])
    line = np.full((), begin)
    strides: list[int] = []
    for a, d in enumerate(places.shape):
        second = tuple(int(n == a) for n in range(places.ndim))
        strides.append(int(places[second]) - begin if d > 1 else 0)
        line = line[..., None] + np.arange(d) * strides[-1]
    if not any(strides) or not np.array_equal(line, places):
        return None
    if places.ndim == 1 and strides[0] > 0:
        bounds = (begin, begin + (places.size - 1) * strides[0] + 1, axis, strides[0])
        return str(ed.op("Slice", x, *(ed.constant(np.array([v])) for v in bounds)))
    shape = places.shape
    made = ed.op("aicc::Windows", x, axis=axis, begin=begin, shape=shape, strides=tuple(strides))
    return str(made)
