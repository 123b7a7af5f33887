"""Which `Freedom` of layout each operator has: the table of operators that name axes, and how the
rest is found."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from aicc.graph_ir.graph import Node
from aicc.graph_ir.passes.axes import (
    AlongAxis,
    AxesOperand,
    ChannelsLast,
    EitherOrder,
    Elementwise,
    Fixed,
    Freedom,
    Pointwise,
    Reduction,
    ResizeAxes,
    Transposition,
    View,
    identity,
)
from aicc.graph_ir.passes.folds import adds_up
from aicc.graph_ir.passes.maps import is_elementwise
from aicc.graph_ir.passes.rewrite import Editor
from aicc.graph_ir.passes.simplify_shapes import permutation
from aicc.graph_ir.types import TensorType
from aicc.ops import registry
from aicc.symbolic import Size, proves_lt


def is_pointwise(node: Node, weights: TensorType | None) -> bool:
    """True for a Conv whose kernel is one element, without strides and padding."""
    return (
        node.op == "Conv"
        and weights is not None
        and all(d == 1 for d in weights.shape[2:])
        and all(s == 1 for s in node.attr("strides", ()))
        and not any(node.attr("pads", ()))
    )


def runs_of(
    source: Sequence[Size], shape: Sequence[Size]
) -> list[tuple[list[int], list[int]]] | None:
    """The smallest runs of axes, size 1 left out, whose products are equal; None where products of
    symbols cannot be compared, or there is nothing but ones."""
    x = [a for a, d in enumerate(source) if d != 1]
    y = [a for a, d in enumerate(shape) if d != 1]
    runs: list[tuple[list[int], list[int]]] = []
    while x and y:
        own, other = [x.pop(0)], [y.pop(0)]
        a, b = source[own[0]], shape[other[0]]
        while a != b:
            if x and _smaller(a, b):
                own.append(x.pop(0))
                a = a * source[own[-1]]
            elif y and _smaller(b, a):
                other.append(y.pop(0))
                b = b * shape[other[-1]]
            else:
                return None
        runs.append((own, other))
    return runs if runs and not x and not y else None


def _smaller(a: Size, b: Size) -> bool:
    if isinstance(a, int) and isinstance(b, int):
        return a < b
    if proves_lt(a, b):
        return True
    # n against n*64: what divides the other without remainder is smaller.
    return a != 0 and (b // a) * a == b and not proves_lt(b, a)


Maker = Callable[[Editor, Node, list[TensorType | None], list[TensorType]], Freedom | None]


def _along(all_operands: bool = False, default: int = 0) -> Maker:
    def make(
        ed: Editor, node: Node, x: list[TensorType | None], y: list[TensorType]
    ) -> Freedom | None:
        return AlongAxis(node, x, y, all_operands, default) if y[0].rank else None

    return make


def _listed(place: int, count: int | None) -> Maker:
    """Axes in operand `place`. Without it: the first ones, as many as operand `count` has numbers
    for; all of them where `count` is None."""

    def make(
        ed: Editor, node: Node, x: list[TensorType | None], y: list[TensorType]
    ) -> Freedom | None:
        axes = _axes(x, place)
        if axes == ():
            given = None if count is None else x[count]
            n = y[0].rank if given is None else given.shape[0]
            axes = tuple(range(n)) if isinstance(n, int) else None
        return None if axes is None else AxesOperand(node, x, y, place, axes)

    return make


def _axes(x: Sequence[TensorType | None], place: int) -> tuple[int, ...] | None:
    """The axes that an operand lists, counted from the front; () where it is omitted."""
    data, given = x[0], x[place] if place < len(x) else None
    if given is None:
        return ()
    if data is None or given.value is None or not all(isinstance(a, int) for a in given.value):
        return None
    return tuple(a % data.rank for a in given.value if isinstance(a, int))


def _reduction(
    ed: Editor, node: Node, x: list[TensorType | None], y: list[TensorType]
) -> Freedom | None:
    axes = _axes(x, 1)
    if axes is None or x[0] is None:
        return None
    if not axes and node.attr("noop_with_empty_axes", 0):
        return None
    return Reduction(node, x, y, axes or identity(x[0].rank))


def _transpose(
    ed: Editor, node: Node, x: list[TensorType | None], y: list[TensorType]
) -> Freedom | None:
    return Transposition(node, x, y, permutation(ed, node))


def _view(
    ed: Editor, node: Node, x: list[TensorType | None], y: list[TensorType]
) -> Freedom | None:
    if x[0] is None or y[0].value is not None:
        return None
    runs = runs_of(x[0].shape, y[0].shape)
    return None if runs is None else View(node, x, y, runs)


def _resize(
    ed: Editor, node: Node, x: list[TensorType | None], y: list[TensorType]
) -> Freedom | None:
    return ResizeAxes(node, x, y)


_REDUCTIONS = (
    *("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2"),
    *("ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp"),
)

TABLE: dict[str, Maker] = {
    "Transpose": _transpose,
    "Reshape": _view,
    "Concat": _along(all_operands=True, default=1),
    "Split": _along(),
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax"), _along(default=-1)),
    **dict.fromkeys(("QuantizeLinear", "DequantizeLinear"), _along(default=1)),
    "Slice": _listed(place=3, count=1),
    "Pad": _listed(place=3, count=None),
    "Resize": _resize,
    **dict.fromkeys(_REDUCTIONS, _reduction),
}
"""Operators that name axes. Elementwise ones are found by what they lower to."""
FEW_FILTERS = 6
"""Filters that leave most of the lanes empty which run along them."""
FEW_CHANNELS = 8
"""As many where each has a channel of its own."""
WHOLE = 16
"""Filters whose multiples fill vectors."""


def _may_be_first(node: Node, x: TensorType, y: TensorType) -> bool:
    """True for an operator with channels that has tiles also for lanes along the pixels, which are
    the better ones for some shapes: estimates tell."""
    if node.op == "ConvTranspose":
        return True
    channels, filters, group = x.shape[1], y.shape[1], int(node.attr("group", 1))
    if node.op != "Conv" or not isinstance(filters, int):
        return False
    if group == 1:
        # Windows over more zeros than data may become a product and a fold.
        return filters <= FEW_FILTERS or adds_up(node, x, y)
    each = filters // group
    if channels != group:
        return each < WHOLE
    # Of each channel with several filters, parts of vectors are taken several times.
    parts = each > 1 and bool(filters % WHOLE or (each % WHOLE and WHOLE % each))
    return filters <= FEW_CHANNELS or parts


def freedom(ed: Editor, node: Node, last: bool = False) -> Freedom:
    """The layouts that a node of the old graph may be computed in. last: a Conv has channels last
    in any case, as it has to where nothing estimates how long it takes otherwise."""
    x = [ed.type_of(i) if i else None for i in node.inputs]
    y = [ed.type_of(o) for o in node.outputs if o]
    op = registry.find(node.op)
    if op is None or node.regions or not y or not x or x[0] is None:
        return Fixed(node, x, y)
    if "channels_last" in op.attributes and not node.attr("channels_last", 0):
        # More than one result is wanted: positions in the data, which count in its own layout.
        if len(y) > 1 or x[0].rank < 3:
            return Fixed(node, x, y)
        pointwise = is_pointwise(node, x[1] if len(x) > 1 else None)
        computed = len(x) > 1 and ed.constant_of(node.inputs[1]) is None
        turned = "filters_last" in op.attributes and computed
        if pointwise:
            return Pointwise(node, x, y, turned)
        fixed = last and node.op == "Conv"
        if not fixed and not turned and _may_be_first(node, x[0], y[0]):
            return EitherOrder(node, x, y, needs_lanes=node.op == "ConvTranspose")
        return ChannelsLast(node, x, y, turned)
    maker = TABLE.get(node.op)
    if maker is not None:
        made = maker(ed, node, x, y)
        return Fixed(node, x, y) if made is None else made
    if max(t.rank for t in y) > 1 and is_elementwise(ed.context(node)):
        return Elementwise(node, x, y)
    return Fixed(node, x, y)
