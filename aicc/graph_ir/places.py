"""Nodes that compute nothing: their results are where other values are, or are put there.

A view's result is its operand's memory or a part of it. What is joined is its operands one after
the other in memory, so that they can be computed in place. A copy's result is its operand's
elements, elsewhere.
"""

from __future__ import annotations

from aicc.graph_ir.graph import Graph, Node
from aicc.graph_ir.infer import context
from aicc.ops import registry


def is_view(node: Node) -> bool:
    """Whether a node only gives its first operand, or a part of it, another shape."""
    found = registry.find(node.op)
    wanted = [o for o in node.outputs if o]
    return found is not None and found.view and wanted == [node.outputs[0]] and bool(node.inputs[0])


def copies(node: Node) -> bool:
    """Whether a node's result is its operand in memory of its own."""
    found = registry.find(node.op)
    return found is not None and found.copies


def joined(graph: Graph, node: Node) -> tuple[int, ...] | None:
    """The element of its result at which each operand of a join starts; None for other nodes."""
    found = registry.find(node.op)
    if found is None or type(found).joined is registry.Operator.joined:
        return None
    return found.joined(context(graph, node))


def takes_no_kernel(graph: Graph, node: Node) -> bool:
    """True for copies, and for joins of operands of which some are computed."""
    if copies(node):
        return True
    if joined(graph, node) is None:
        return False
    return any(v not in graph.constants and v not in graph.inputs for v in node.inputs)
