"""Identities and canonical forms: small rules applied to a fixed point, and common subexpressions.

A rule looks at one node whose operands are simplified already and returns the value that takes its
result's place, or None. RULES lists them by operator; each docstring states before -> after.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from aicc.graph_ir.graph import Graph, Node
from aicc.graph_ir.passes.control_flow import inline_if, unroll_loop, unroll_scan
from aicc.graph_ir.passes.fold import Fold, Folder
from aicc.graph_ir.passes.rewrite import Editor
from aicc.graph_ir.passes.simplify_arithmetic import (
    affine_together,
    chosen,
    constant_right,
    constants_together,
    divide_by_power_of_two,
    few_operands,
    neutral_operand,
    no_bounds,
    once,
    same_cast,
    same_operands,
    small_power,
    subtract_constant,
    twice,
)
from aicc.graph_ir.passes.simplify_concat import concat_in_steps
from aicc.graph_ir.passes.simplify_shapes import (
    expand_after_convolution,
    expand_after_map,
    expanded_operand,
    gather_in_steps,
    identity,
    no_reduction,
    product_of_rows,
    same_shape,
    single_repeat,
    transpose_as_reshape,
    transposes_together,
    view_after_product,
    view_after_sum,
    view_as_reshape,
    view_before_product,
    whole_slice,
    zero_pad,
)
from aicc.graph_ir.passes.simplify_windows import padding_inside
from aicc.ops import registry

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
        if node.op in CONTROL:
            return CONTROL[node.op](ed, node)
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


CONTROL: dict[str, Callable[[Editor, Node], list[str] | None]] = {
    "If": inline_if,
    "Loop": unroll_loop,
    "Scan": unroll_scan,
}

# --- the table ----------------------------------------------------------------------------------

_REDUCTIONS = ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd")
_IDEMPOTENT = ("Relu", "Abs", "Floor", "Ceil", "Round", "Sign")
_MAPS = ("Sigmoid", "Tanh", "Exp", "Log", "Sqrt", "Erf", "Softplus", "LeakyRelu", "HardSigmoid")
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
    "MatMul": (view_after_product, product_of_rows),
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
    **dict.fromkeys(_MAPS, (expand_after_map,)),
    "Neg": (twice, expand_after_map),
    "Not": (twice, expand_after_map),
    **dict.fromkeys(_IDEMPOTENT, (once, expand_after_map)),
    "Cast": (same_cast, expand_after_map),
    "CastLike": (same_cast,),
    "Clip": (no_bounds,),
    **dict.fromkeys(("Sum", "Mean"), (few_operands,)),
    "Concat": (few_operands, concat_in_steps),
    **dict.fromkeys(("Max", "Min"), (few_operands, expanded_operand)),
    **dict.fromkeys(("Flatten", "Squeeze", "Unsqueeze"), (same_shape, view_as_reshape)),
    "Reshape": (same_shape, view_before_product, view_as_reshape),
    "Expand": (same_shape,),
    "Split": (same_shape,),
    "Transpose": (transposes_together, transpose_as_reshape),
    "Slice": (whole_slice,),
    "Gather": (gather_in_steps,),
    "Pad": (zero_pad,),
    "Conv": (padding_inside, expand_after_convolution),
    **dict.fromkeys(("AveragePool", "MaxPool"), (padding_inside,)),
    "Tile": (single_repeat,),
    **dict.fromkeys(_REDUCTIONS, (no_reduction,)),
}
