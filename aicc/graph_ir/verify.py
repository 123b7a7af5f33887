"""The verifier of graphs: single definition, definition before use, types that the rules give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from aicc.dtypes import ALL
from aicc.errors import IRError, OperatorError
from aicc.graph_ir.graph import Graph, Node
from aicc.graph_ir.infer import constant_type, context, enclosing, result_types
from aicc.graph_ir.text import graph_symbols
from aicc.graph_ir.types import TensorType
from aicc.ops import registry
from aicc.ops.registry import REQUIRED

_ATTRIBUTE_TYPES = (int, float, str, bytes, TensorType)


def verify(graph: Graph) -> None:
    """Raises IRError, naming the graph and the node, where an invariant of `graph_ir.graph` fails.

    Types are compared up to `value`, the contents known at compile time: passes may know more.
    """
    GraphVerifier(graph.name).graph(graph, None)
    graph_symbols(graph)


class GraphVerifier:
    """Walks a graph; `node` may be overridden for other kinds of nodes."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.defined: set[str] = set()
        """Every value so far, of this graph, those around it, and regions that are done."""

    def fail(self, message: str) -> None:
        raise IRError(f"graph {self.where!r}: {message}")

    def graph(
        self, graph: Graph, outer: Graph | None, visible: frozenset[str] = frozenset()
    ) -> None:
        """visible: the values around a region."""
        seen = set(visible)

        def define(name: str, what: str) -> None:
            if name in self.defined:
                self.fail(f"{what}: the value {name!r} is defined twice")
            self.defined.add(name)
            seen.add(name)
            t = graph.types.get(name)
            if t is None:
                self.fail(f"{what}: the value {name!r} has no type")
            elif t.dtype not in ALL:
                self.fail(f"{what}: the value {name!r} is of the unknown type {t}")

        for name in graph.inputs:
            define(name, "inputs")
        for name, data in graph.constants.items():
            define(name, "constants")
            found, stored = constant_type(data), graph.types[name]
            if found.without_value() != stored.without_value():
                self.fail(
                    f"the constant {name!r} is {found.without_value()}, its type says {stored}"
                )
        for position, node in enumerate(graph.nodes):
            self.node(graph, outer, node, position, frozenset(seen) if node.regions else None, seen)
            for o in node.outputs:
                if o:
                    define(o, _named(node, position))
        for name in graph.outputs:
            if name not in seen:
                self.fail(f"the output {name!r} is not defined")

    def node(
        self,
        graph: Graph,
        outer: Graph | None,
        node: Node,
        position: int,
        visible: frozenset[str] | None,
        seen: set[str],
    ) -> None:
        what = _named(node, position)
        op = registry.find(node.op)
        if op is None:
            self.fail(f"{what}: no operator is called {node.op!r}")
            return
        for name in node.inputs:
            if name and name not in seen:
                self.fail(f"{what}: the operand {name!r} is not defined before it")
        most = len(node.inputs) if op.max_inputs is None else op.max_inputs
        if not op.min_inputs <= len(node.inputs) <= most:
            self.fail(f"{what}: {len(node.inputs)} operands, not {op.min_inputs}..{op.max_inputs}")
        names = [k for k, _ in node.attrs]
        if names != sorted(set(names)):
            self.fail(f"{what}: attributes that are not sorted, or there twice: {names}")
        for k, v in node.attrs:
            if k not in op.attributes:
                self.fail(f"{what}: unknown attribute {k!r}")
            if not all(
                isinstance(x, _ATTRIBUTE_TYPES) for x in (v if isinstance(v, tuple) else (v,))
            ):
                self.fail(f"{what}: the attribute {k!r} cannot be {v!r}")
        regional = len(node.regions)
        missing = [k for k, d in op.attributes.items() if d is REQUIRED and k not in names]
        if len(missing) > regional:  # a graph attribute is a region, not among `attrs`
            self.fail(f"{what}: the attribute {missing[0]!r} is missing")
        around = enclosing(graph, outer) if node.regions else graph
        for region in node.regions:
            inside = GraphVerifier(f"{self.where}/{what}/{region.name}")
            inside.defined = self.defined
            inside.graph(region, around, visible or frozenset())
        self.types(graph, outer, node, what)

    def types(self, graph: Graph, outer: Graph | None, node: Node, what: str) -> None:
        """Compares the recorded types of a node's results, and of its regions' values."""
        ctx = context(graph, node, outer)
        around = enclosing(graph, outer) if node.regions else graph

        def infer_region(i: int, types: Sequence[TensorType]) -> list[TensorType]:
            region = node.regions[i]
            attempts[i] = [t.without_value() for t in types]
            stored = [region.types.get(o) or around.types.get(o) for o in region.outputs]
            return [t for t in stored if t is not None]

        attempts: dict[int, list[TensorType]] = {}
        ctx = replace(ctx, infer_region=infer_region)
        try:
            inferred = result_types(ctx)
        except OperatorError as error:
            self.fail(f"{what}: {error}")
            return
        for i, types in attempts.items():
            region = node.regions[i]
            stored_inputs = [region.types[n].without_value() for n in region.inputs]
            if stored_inputs != types:
                self.fail(
                    f"{what}: region {region.name!r} is typed for {stored_inputs}, not {types}"
                )
        for name, t in zip(node.outputs, inferred):
            stored = graph.types.get(name)
            if name and stored is not None and stored.without_value() != t.without_value():
                self.fail(
                    f"{what}: {name!r} is {stored.without_value()}, "
                    f"but {node.op} gives {t.without_value()}"
                )


def _named(node: Node, position: int) -> str:
    results = ", ".join(f"%{o}" for o in node.outputs if o)
    return f"node {position} ({results} = {node.op})"
