"""Scales and shifts that follow a convolution or a matrix product go into its weights.

That is what a BatchNormalization decomposes into, and what exporters write out. The canonical form
is a linear operator without bias, then one Add of a constant shaped to broadcast: there is one form
for fusion to know, and a bias is an epilogue like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from aicc.graph_ir.graph import Graph, Node
from aicc.graph_ir.passes.rewrite import SHARED_BYTES, Editor
from aicc.graph_ir.passes.simplify_arithmetic import constants_together, same_type

Array = np.ndarray[Any, Any]
CONVOLUTIONS = ("Conv", "ConvTranspose")
LINEAR = (*CONVOLUTIONS, "MatMul")


@dataclass(frozen=True)
class FoldBatchNorm:
    """Constant factors per channel go into the weights before them, all shifts into one Add.

    before: %c = Conv(%x, @w, @b)  %m = Mul(%c, @scale)  %y = Add(%m, @shift)
    after:  %c = Conv(%x, @w*scale)  %y = Add(%c, @b*scale+shift)
    """

    rounds: int = 8

    name: ClassVar[str] = "batchnorm"

    def __call__(self, graph: Graph) -> Graph:
        for _ in range(self.rounds):
            made = Editor(graph, _rule).run()
            if made.nodes == graph.nodes:
                return made
            graph = made
        return graph


def _rule(ed: Editor, node: Node) -> Sequence[str] | None:
    for rule in RULES.get(node.op, ()):
        value = rule(ed, node)
        if value is not None:
            return [value]
    return None


def _linear(ed: Editor, value: str) -> Node | None:
    """The linear operator with weights of its own whose only reader uses `value`."""
    node = ed.made_by(value)
    if node is None or node.op not in LINEAR or not ed.read_once(value):
        return None
    weights = ed.constant_of(node.inputs[1])
    if weights is None or weights.ndim < 2 or weights.dtype.kind in "biu":
        return None
    if weights.nbytes > SHARED_BYTES and not ed.read_once(node.inputs[1]):
        return None
    return node


def _per_channel(ed: Editor, linear: Node, constant: Array) -> Array | None:
    """The constant as one number for each output channel, or for all; None where it is neither."""
    rank = ed.type_of(linear.outputs[0]).rank
    first = linear.op in CONVOLUTIONS and not linear.attr("channels_last", 0)
    axis = 1 if first else rank - 1
    if constant.ndim > rank:
        return None
    shape = (*(1,) * (rank - constant.ndim), *constant.shape)
    if any(d != 1 for n, d in enumerate(shape) if n != axis):
        return None
    return constant.reshape(-1)


def split_bias(ed: Editor, node: Node) -> str | None:
    """Conv(x, w, b) -> Add(Conv(x, w), b'), b' shaped to broadcast"""
    if len(node.inputs) < 3 or not node.inputs[2]:
        return None
    bias = node.inputs[2]
    last = bool(node.attr("channels_last", 0))
    spatial = 0 if last else ed.type_of(node.outputs[0]).rank - 2
    data = ed.constant_of(bias)
    if data is not None:
        shaped = ed.constant(data.reshape(-1, *(1,) * spatial), base=bias)
    elif last:
        shaped = bias
    else:
        axes = ed.constant(list(range(1, spatial + 1)), "i64")
        shaped = str(ed.op("Unsqueeze", bias, axes))
    plain = replace(ed.make(node.op, *node.inputs[:2]), attrs=node.attrs)
    return str(ed.op("Add", ed.offer(plain)[0], shaped))


def scale_into_weights(ed: Editor, node: Node) -> str | None:
    """Mul(Conv(x, @w), @s) -> Conv(x, @w*s), the same for ConvTranspose and MatMul"""
    value, factor = node.inputs
    data = ed.constant_of(factor)
    linear = _linear(ed, value)
    if data is None or linear is None or not same_type(ed, value, node.outputs[0]):
        return None
    scale = _per_channel(ed, linear, data)
    if scale is None or (linear.op in CONVOLUTIONS and len(linear.inputs) > 2):
        return None
    weights = ed.constant_of(linear.inputs[1])
    assert weights is not None
    scaled = _scaled(linear, weights, scale)
    made = ed.constant(scaled, ed.type_of(linear.inputs[1]).dtype, base=linear.inputs[1])
    fresh = replace(ed.make(linear.op, linear.inputs[0], made), attrs=linear.attrs)
    return ed.offer(replace(fresh, origin=(*linear.origin, *node.origin)))[0]


def _scaled(linear: Node, weights: Array, scale: Array) -> Array:
    """Weights whose product is `scale` times as large, per output channel."""
    if linear.op == "MatMul" or scale.size == 1:
        return weights * scale
    spatial = (1,) * (weights.ndim - 2)
    if linear.op == "Conv":
        return weights * scale.reshape(-1, 1, *spatial)
    group = int(linear.attr("group", 1))
    c, o = weights.shape[0] // group, weights.shape[1]
    grouped = weights.reshape(group, c, o, *weights.shape[2:])
    return (grouped * scale.reshape(group, 1, o, *spatial)).reshape(weights.shape)


def scale_past_shift(ed: Editor, node: Node) -> str | None:
    """Mul(Add(Conv(x, @w), @c), @s) -> Add(Mul(Conv(x, @w), @s), @c*s)"""
    value, factor = node.inputs
    scale, add = ed.constant_of(factor), ed.made_by(value, "Add")
    if scale is None or add is None or not ed.read_once(value):
        return None
    shift, linear = ed.constant_of(add.inputs[1]), _linear(ed, add.inputs[0])
    if shift is None or linear is None or _per_channel(ed, linear, scale) is None:
        return None
    if not same_type(ed, value, node.outputs[0]) or not same_type(ed, add.inputs[0], value):
        return None
    dtype = ed.type_of(value).dtype
    return str(ed.op("Add", ed.op("Mul", add.inputs[0], factor), ed.constant(shift * scale, dtype)))


def scale_before_view(ed: Editor, node: Node) -> str | None:
    """Mul(Transpose(Conv(x, @w)), @s) -> Transpose(Mul(Conv(x, @w), @s)), s one number, the same
    for Reshape and for a shift between"""
    view, factor = node.inputs
    data = ed.constant_of(factor)
    if data is None or data.size != 1 or not same_type(ed, view, node.outputs[0]):
        return None
    if _behind_views(ed, view) is None:
        return None
    made = ed.made_by(view)
    assert made is not None
    scaled = str(ed.op("Mul", made.inputs[0], ed.constant(data.reshape(()), base=factor)))
    moved = replace(ed.make(made.op, scaled, *made.inputs[1:]), attrs=made.attrs)
    return ed.offer(moved)[0]


def _behind_views(ed: Editor, value: str) -> Node | None:
    """The linear operator behind Transposes and Reshapes, at least one, and a constant shift."""
    node = ed.made_by(value)
    if node is None or node.op not in ("Transpose", "Reshape"):
        return None
    while node is not None and node.op in ("Transpose", "Reshape") and ed.read_once(value):
        value = node.inputs[0]
        node = ed.made_by(value)
    if node is not None and node.op == "Add" and ed.read_once(value):
        value = node.inputs[0] if ed.constant_of(node.inputs[1]) is not None else ""
    return _linear(ed, value)


def scale_after_product(ed: Editor, node: Node) -> str | None:
    """MatMul(Mul(a, @s), b) -> Mul(MatMul(a, b), @s), s one number and b not constant, where it is
    an epilogue; the same on the right. Not for 16-bit floats, whose range the scale protects."""
    if ed.type_of(node.outputs[0]).dtype not in ("f32", "f64"):
        return None
    for i in (0, 1):
        mul, other = ed.made_by(node.inputs[i], "Mul"), node.inputs[1 - i]
        if mul is None or not ed.read_once(node.inputs[i]) or ed.constant_of(other) is not None:
            continue
        data = ed.constant_of(mul.inputs[1])
        if data is None or data.size != 1:
            continue
        if not same_type(ed, mul.inputs[0], node.inputs[i]):
            continue
        operands = (mul.inputs[0], other) if i == 0 else (other, mul.inputs[0])
        product = ed.op("MatMul", *operands)
        return str(ed.op("Mul", product, ed.constant(data.reshape(()), base=mul.inputs[1])))
    return None


def divisor_as_factor(ed: Editor, node: Node) -> str | None:
    """Div(Conv(x, @w), @c) -> Mul(Conv(x, @w), @1/c), also past a shift"""
    value, divisor = node.inputs
    data = ed.constant_of(divisor)
    if data is None or not data.all():
        return None
    add = ed.made_by(value, "Add")
    source = add.inputs[0] if add is not None and ed.constant_of(add.inputs[1]) is not None else ""
    linear = _linear(ed, value) or (_linear(ed, source) if source else None)
    if linear is None or _per_channel(ed, linear, data) is None:
        return None
    return str(ed.op("Mul", value, ed.constant(1 / data, ed.type_of(divisor).dtype)))


RULES: dict[str, tuple[Callable[[Editor, Node], str | None], ...]] = {
    "Conv": (split_bias,),
    "ConvTranspose": (split_bias,),
    "Mul": (scale_into_weights, scale_past_shift, scale_before_view, constants_together),
    "MatMul": (scale_after_product,),
    "Div": (divisor_as_factor,),
    "Add": (constants_together,),
}
