"""Nodes that compute nothing: their results are where other values are, or are put there.

A view's result is its operand's memory or a part of it. What is joined is its operands side by side
in memory, so that they can be computed in place. A copy's result is its operand's elements,
elsewhere. Parts along an inner axis are not dense: they have the strides of the whole.

    %a: f32[n, 24] = call(...)                    0 + [32, 1]     in %j
    %b: f32[n, 8] = call(...)                    24 + [32, 1]     in %j
    %j: f32[n, 32] = aicc::Join(%a, %b)           dense
    %s: f32[n, 16] = aicc::Section(%j)           16 + [32, 1]     in %j
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass

from aicc.graph_ir.graph import Graph, Node
from aicc.graph_ir.infer import context
from aicc.ops import registry
from aicc.symbolic import Size
from aicc.tensor_ir.strides import normal_pitch, reshaped, row_major


def is_view(node: Node) -> bool:
    """Whether a node only gives its first operand, or a part of it, another shape."""
    found = registry.find(node.op)
    wanted = [o for o in node.outputs if o]
    return found is not None and found.view and wanted == [node.outputs[0]] and bool(node.inputs[0])


def copies(node: Node) -> bool:
    """Whether a node's result is its operand in memory of its own."""
    found = registry.find(node.op)
    return found is not None and found.copies


def counted(node: Node) -> int | None:
    """The operand, if any, whose number tells a run the first extent of a view."""
    found = registry.find(node.op)
    return None if found is None else found.counted


def joined(graph: Graph, node: Node) -> tuple[int, ...] | None:
    """The element of its result at which each operand of a join starts; None for other nodes."""
    found = registry.find(node.op)
    if found is None or type(found).joined is registry.Operator.joined:
        return None
    return found.joined(context(graph, node))


def cut(graph: Graph, node: Node) -> tuple[tuple[int, int, int], ...] | None:
    """Axis, first index and extent of each axis of which a node gives a section of its first
    operand; None for other nodes, and for sections that only a run can tell."""
    found = registry.find(node.op)
    if found is None or type(found).sections is registry.Operator.sections:
        return None
    return found.sections(context(graph, node))


def takes_no_kernel(graph: Graph, node: Node) -> bool:
    """True for copies, for views of as many elements as a run counts, and for joins of operands of
    which some are computed."""
    if copies(node) or counted(node) is not None:
        return True
    if joined(graph, node) is None:
        return False
    return any(v not in graph.constants and v not in graph.inputs for v in node.inputs)


@dataclass(frozen=True)
class Place:
    """Where a value lies: in the memory of the value `root`, from an element on. pitch: its strides
    in elements; () where it is dense."""

    root: str
    start: int
    pitch: tuple[Size, ...]


class Places:
    """The places of a graph's values.

    computed: the values that kernels write, who can do so in any place; joins, which are put
    together, need not be named. None for all but inputs, constants, views and copies.
    """

    def __init__(self, graph: Graph, computed: Container[str] | None = None) -> None:
        self.graph = graph
        self._makers = graph.producers()
        self._known: dict[str, Place] = {}
        self.home: dict[str, tuple[str, int]] = {}
        """For what is computed as a part of a join: its result, and the element of that at which
        the part starts."""
        joins = [(node, starts) for node in graph.nodes if (starts := joined(graph, node))]
        results = {node.outputs[0] for node, _ in joins}
        for node, starts in joins:
            (result,) = node.outputs
            for name, start in zip(node.inputs, starts, strict=True):
                found = name in results or self._written(name, computed)
                if found and graph.types[name].count != 0:
                    self.home.setdefault(name, (result, start))

    def _written(self, name: str, computed: Container[str] | None) -> bool:
        if computed is not None:
            return name in computed
        node = self._makers.get(name)
        return node is not None and not is_view(node) and not copies(node)

    def whole(self, name: str) -> str:
        """The joined value that a value is computed as a part of in the end; itself for others."""
        while name in self.home:
            name = self.home[name][0]
        return name

    def is_alias(self, node: Node) -> bool:
        """Whether a view's result is in its operand's memory indeed: the same number of elements,
        or a part, and strides that its shape can be walked with."""
        if not is_view(node):
            return False
        source, result = (self.graph.types[n] for n in (node.inputs[0], node.outputs[0]))
        return source.dtype == result.dtype and self._viewed(node) is not None

    def place(self, name: str) -> Place:
        """Where a value lies. One that is neither a part nor a view has memory of its own."""
        found = self._known.get(name)
        if found is None:
            found = self._known[name] = self._find(name)
        return found

    def _find(self, name: str) -> Place:
        if name in self.home:
            result, start = self.home[name]
            at = self.place(result)
            strides = at.pitch or row_major(self.graph.types[result].shape)
            return Place(at.root, at.start + start, self._pitch(name, strides))
        node = self._makers.get(name)
        viewed = self._viewed(node) if node is not None and is_view(node) else None
        return viewed or Place(name, 0, ())

    def _pitch(self, name: str, strides: Sequence[Size]) -> tuple[Size, ...]:
        return normal_pitch(self.graph.types[name].shape, strides)

    def _viewed(self, node: Node) -> Place | None:
        """Where a view's result lies; None where it cannot be a view of where its operand lies."""
        source, name = node.inputs[0], node.outputs[0]
        types, at = self.graph.types, self.place(source)
        op, ctx = registry.get(node.op), context(self.graph, node)
        box = op.box(ctx)
        if box is not None:
            axis, index = box
            strides = at.pitch or row_major(types[source].shape)
            moved = index * strides[axis]
            if not isinstance(moved, int):
                return None
            return Place(at.root, at.start + moved, self._pitch(name, strides))
        begin = op.part(ctx)
        if not at.pitch:
            whole = types[source].count == types[name].count
            return (
                Place(at.root, at.start + (begin or 0), ()) if whole or begin is not None else None
            )
        shape = types[name].shape
        found = None if begin is not None else reshaped(types[source].shape, at.pitch, shape)
        return None if found is None else Place(at.root, at.start, normal_pitch(shape, found))
