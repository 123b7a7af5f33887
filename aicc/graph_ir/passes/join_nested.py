"""Joins that begin as earlier ones do begin with what those joined."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from aicc.graph_ir.graph import Graph, Node


def nested(graph: Graph, joinable: Callable[[Node], bool]) -> Graph:
    """The graph with each Concat whose first operands are all those of an earlier one on what that
    made, so that parts which several values have in common need one place: the layers of a densely
    connected block, each of which reads all before it (Huang et al., "Densely Connected
    Convolutional Networks", arXiv 1608.06993).

    before: %y = Concat(%a, %b) {axis=3}    %z = Concat(%a, %b, %c) {axis=3}
    after:  %y = Concat(%a, %b) {axis=3}    %z = Concat(%y, %c) {axis=3}

    joinable: whether the operands of a Concat can be computed in their places.
    """
    made: dict[tuple[int, tuple[str, ...]], str] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        if node.op == "Concat" and len(node.inputs) > 1 and joinable(node):
            axis = int(node.attr("axis", 0)) % graph.types[node.outputs[0]].rank
            operands = node.inputs
            for count in range(len(operands) - 1, 1, -1):
                first = made.get((axis, operands[:count]))
                if first is not None:
                    node = replace(node, inputs=(first, *operands[count:]))
                    break
            made.setdefault((axis, operands), node.outputs[0])
        nodes.append(node)
    result = graph.copy()
    result.nodes = nodes
    return result
