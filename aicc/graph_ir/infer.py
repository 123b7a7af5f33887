"""Type inference: asks each operator for the types of its results, in order."""

from __future__ import annotations

from typing import Any

import numpy as np

from aicc.dtypes import INTEGERS, from_numpy
from aicc.graph_ir.graph import Graph, Node
from aicc.graph_ir.types import VALUE_LIMIT, TensorType
from aicc.ops import registry
from aicc.ops.registry import OpContext


def constant_type(data: np.ndarray[Any, Any]) -> TensorType:
    """The type of an array, with its contents where they are few and integers or bools."""
    dtype = from_numpy(data.dtype)
    value = None
    if (dtype in INTEGERS or dtype == "bool") and data.size <= VALUE_LIMIT:
        value = tuple(int(x) for x in data.reshape(-1))
    return TensorType(dtype, tuple(int(d) for d in data.shape), value)


def context(graph: Graph, node: Node, outer: Graph | None = None) -> OpContext:
    """What a node's operator may know: operand types and constant data, result types if known."""

    def type_of(name: str) -> TensorType | None:
        if not name:
            return None
        found = graph.types.get(name)
        return outer.types.get(name) if found is None and outer is not None else found

    return OpContext(
        op=node.op,
        attrs=dict(node.attrs),
        types=tuple(type_of(i) for i in node.inputs),
        constants=tuple(graph.constants.get(i) for i in node.inputs),
        outputs=tuple(graph.types[o] for o in node.outputs if o in graph.types),
        n_outputs=len(node.outputs),
        node=", ".join(node.origin) or ", ".join(node.outputs),
    )


def infer_node(graph: Graph, node: Node) -> None:
    """Records the result types of `node` in `graph.types`."""
    types = registry.get(node.op).infer(context(graph, node))
    for name, t in zip(node.outputs, types, strict=False):
        if name:
            graph.types[name] = t


def infer(graph: Graph) -> None:
    """Records the types of all nodes' results, in order; operands must be typed."""
    for node in graph.nodes:
        infer_node(graph, node)
