"""Transposed convolutions, and convolutions whose windows lie over data and zeros, as one matrix
product and a sum of its windows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from aicc.decisions import Decision, note
from aicc.graph_ir.graph import Graph, Node
from aicc.graph_ir.passes.rewrite import Editor
from aicc.graph_ir.passes.simplify_shapes import reshape
from aicc.graph_ir.types import TensorType
from aicc.ops.registry import Array
from aicc.symbolic import Size, product

GAIN = 1.1
"""How many times as fast as the direct sum it has to be: it needs memory for what is between."""
APART = 3.0
"""How many times its estimate a fold takes whose windows do not overlap: a shuffle, not a sum."""
LEAST = 8
"""Channels of a group that are worth a product."""
Cost = Callable[[Graph, Sequence[Node]], float]
"""Estimated seconds of nodes as one kernel."""


@dataclass(frozen=True)
class Form:
    """A convolution as windows that add up: element i reaches the results i*stride - begin + k for
    each tap k of `kernel`, in each of `group` groups of filters."""

    kernel: tuple[int, ...]
    begins: tuple[int, ...]
    group: int
    mirrored: bool
    """True for weights [O, C/group, kernel...] whose taps go backwards, not [C, O/group, ...]."""

    def weights(self, data: Array) -> Array:
        """The left matrices [group, O/group * kernel, C/group]; without the first axis for one."""
        g, space = self.group, range(3, 3 + len(self.kernel))
        parts = data.reshape(g, data.shape[0] // g, *data.shape[1:])
        if self.mirrored:
            parts = np.flip(parts, tuple(space)).transpose(0, 1, *space, 2)
        else:
            parts = parts.transpose(0, 2, *space, 1)
        shape = (g, -1, parts.shape[-1]) if g > 1 else (-1, parts.shape[-1])
        return np.ascontiguousarray(parts).reshape(shape)


@dataclass(frozen=True)
class Folds:
    """Convolutions in channels-first order whose data are fewer than their results become matrix
    products and folds where that is estimated to be faster.

    before: %y = ConvTranspose(%x, @w) {strides=[2,2], pads=[1,1,1,1]}      64 filters to 3
    after:  %m = MatMul(@u, Reshape(%x))        [48, 64] x [64, H*W]
            %y = aicc::Fold(Reshape(%m)) {strides=[2,2], begins=[1,1]}

    Each element is multiplied with all taps of all filters at once, which fill vectors and tiles
    however few the filters and however short the rows are, and none is multiplied that lies in the
    padding. What it costs is the memory between.

    cost: estimates kernels.
    """

    cost: Cost
    name: ClassVar[str] = "folds"

    def __call__(self, graph: Graph) -> Graph:
        if not any(n.op in ("ConvTranspose", "Conv") for n in graph.nodes):
            return graph
        return Editor(graph, self._rule).run()

    def _rule(self, ed: Editor, node: Node) -> list[str] | None:
        types = {v: ed.type_of(v) for v in (*node.inputs, *node.outputs) if v}
        w = ed.constant_of(node.inputs[1]) if len(node.inputs) > 1 else None
        form = None if w is None else form_of(node, types)
        if form is None or w is None:
            return None
        direct = Graph("folds", types=types, constants=ed.new.constants)
        before, (after, turned) = self.cost(direct, [node]), seconds(self.cost, direct, node, form)
        taken = after * GAIN < before
        what = "pixels by taps, and a fold" if turned else "taps by pixels, and a fold"
        note(Decision(self.name, what, taken, after, before, node.origin))
        if not taken:
            return None
        y = types[node.outputs[0]]
        matrix, _, windows = shapes(types[node.inputs[0]], y, form)
        data = reshape(ed, node.inputs[0], matrix)
        parts = (
            None if data is None else reshape(ed, self._product(ed, data, w, form, turned), windows)
        )
        if parts is None:
            return None
        result = ed.op("aicc::Fold", parts, **_attributes(node, y, form))
        if len(node.inputs) > 2 and node.inputs[2]:
            shape = (-1, *(1 for _ in form.kernel))
            bias = ed.op("Reshape", node.inputs[2], ed.constant(shape, "i64"), allowzero=0)
            result = ed.op("Add", result, bias)
        return [result]

    @staticmethod
    def _product(ed: Editor, data: str, w: Array, form: Form, turned: bool) -> str:
        """The products of all taps and all pixels."""
        weights = form.weights(w)
        if not turned:
            return str(ed.op("MatMul", ed.constant(weights), data))
        perm = (*range(weights.ndim - 1), weights.ndim, weights.ndim - 1)
        right = ed.constant(np.ascontiguousarray(np.swapaxes(weights, -1, -2)))
        made = ed.op("MatMul", ed.op("Transpose", data, perm=perm), right)
        return str(ed.op("Transpose", made, perm=perm))


def with_folds(cost: Cost) -> Cost:
    """The estimate of what nodes take where a convolution may become a product and a fold."""

    def estimate(graph: Graph, nodes: Sequence[Node]) -> float:
        found = cost(graph, nodes)
        if len(nodes) == 1 and nodes[0].op in ("ConvTranspose", "Conv"):
            (node,) = nodes
            form = form_of(node, graph.types) if node.inputs[1] in graph.constants else None
            if form is not None:
                after, _ = seconds(cost, graph, node, form)
                return after if after * GAIN < found else found
        return found

    return estimate


def form_of(node: Node, types: dict[str, TensorType]) -> Form | None:
    """How a convolution's windows add up; None where they do not, or would not pay: of a Conv, the
    data have to be fewer than the results."""
    if node.op not in ("ConvTranspose", "Conv") or node.attr("channels_last", 0):
        return None
    x, w, y = (types[v] for v in (*node.inputs[:2], node.outputs[0]))
    kernel, sizes, results = w.shape[2:], x.shape[2:], y.shape[2:]
    numbers = [v for v in (*w.shape, *sizes, *results, x.shape[1]) if isinstance(v, int)]
    count, group = len(kernel), int(node.attr("group", 1))
    if len(numbers) < len(w.shape) + 2 * count + 1 or x.dtype != "f32":
        return None
    mode = node.attr("auto_pad", "NOTSET")
    if mode not in ("NOTSET", b"NOTSET") or tuple(node.attr("output_shape", ()) or ()):
        return None
    if any(d != 1 for d in node.attr("dilations", ())) or numbers[-1] < LEAST * group:
        return None
    pads = tuple(node.attr("pads", ())) or (0,) * (2 * count)
    taps = tuple(int(k) for k in numbers[2 : 2 + count])
    if node.op == "ConvTranspose":
        return Form(taps, pads[:count], group, False)
    begins = tuple(k - 1 - p for k, p in zip(taps, pads))
    if node.attr("filters_last", 0) or not adds_up(node, types[node.inputs[0]], y):
        return None
    if any(b < 0 for b in begins):
        return None
    return Form(taps, begins, group, True)


def shapes(x: TensorType, y: TensorType, form: Form) -> tuple[TensorType, TensorType, TensorType]:
    """The types of the data as matrices, of the products and of these as windows."""
    batch, sizes, filters, g = x.shape[0], x.shape[2:], y.shape[1], form.group
    groups: tuple[Size, ...] = (g,) if g > 1 else ()
    rows, places = filters // g * product(form.kernel), product(sizes)
    return (
        TensorType(x.dtype, (batch, *groups, x.shape[1] // g, places)),
        TensorType(x.dtype, (batch, *groups, rows, places)),
        TensorType(x.dtype, (batch, filters, *form.kernel, *sizes)),
    )


def _attributes(node: Node, y: TensorType, form: Form) -> dict[str, Any]:
    strides = tuple(node.attr("strides", ())) or (1,) * len(form.kernel)
    outputs = tuple(int(n) for n in y.shape[2:] if isinstance(n, int))
    return {"outputs": outputs, "strides": strides, "begins": form.begins}


def seconds(cost: Cost, graph: Graph, node: Node, form: Form) -> tuple[float, bool]:
    """The estimated time of the product and of the fold, and whether the product is taken the other
    way round, for images of fewer pixels than a vector has lanes."""
    y = graph.types[node.outputs[0]]
    matrix, made, windows = shapes(graph.types[node.inputs[0]], y, form)
    *batch, rows, places = made.shape
    depth = matrix.shape[-2]
    left: list[Size] = [*batch[1:], rows, depth]
    types = {
        "x": matrix,
        "m": made,
        "v": windows,
        "y": y,
        "u": TensorType("f32", tuple(left)),
        "t": TensorType("f32", (*batch, places, depth)),
        "w": TensorType("f32", (*left[:-2], depth, rows)),
        "n": TensorType("f32", (*batch, places, rows)),
    }
    zeros = {v: [n for n in types[v].shape if isinstance(n, int)] for v in "uw"}
    constants = {v: np.broadcast_to(np.float32(0), shape) for v, shape in zeros.items()}
    sketch = Graph("folds", types=types, constants={**graph.constants, **constants})
    attrs = {"dilations": (), **_attributes(node, y, form)}
    perm = (("perm", (*range(len(batch)), len(batch) + 1, len(batch))),)
    straight = [Node("MatMul", ("u", "x"), ("m",))]
    other = [
        Node("Transpose", ("x",), ("t",), perm),
        Node("MatMul", ("t", "w"), ("n",)),
        Node("Transpose", ("n",), ("m",), perm),
    ]
    fold = cost(sketch, [Node("aicc::Fold", ("v",), ("y",), tuple(sorted(attrs.items())))])
    if all(k <= s for k, s in zip(form.kernel, attrs["strides"])):
        fold *= APART
    first, second = (sum(cost(sketch, [n]) for n in nodes) for nodes in (straight, other))
    return min(first, second) + fold, second * GAIN < first


def adds_up(node: Node, x: TensorType, y: TensorType) -> bool:
    """Whether the windows of a Conv with channels first go over more zeros than data: no pixel is
    left out, and there are known to be more results than pixels, in numbers that estimates take."""
    steps = (*node.attr("strides", ()), *node.attr("dilations", ()))
    results, pixels = product(y.shape[2:]), product(x.shape[2:])
    if not isinstance(results, int) or not isinstance(pixels, int):
        return False
    return results > pixels and all(s == 1 for s in steps)
