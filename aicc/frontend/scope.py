"""The names that are visible while a graph, a region or a function body is imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx

from aicc.errors import ModelError
from aicc.frontend.functions import FunctionKey
from aicc.graph_ir.graph import Graph, Node
from aicc.graph_ir.infer import constant_type
from aicc.graph_ir.types import TensorType
from aicc.ops.registry import Operator


class Names:
    """The value names of one model: each is given out once, regions and functions included."""

    def __init__(self) -> None:
        self._used: set[str] = set()
        self._log: list[str] = []

    def reserve(self, name: str) -> None:
        if name not in self._used:
            self._used.add(name)
            self._log.append(name)

    def fresh(self, base: str) -> str:
        """`base`, or `base.1` and so on where it is taken."""
        name, n = base, 1
        while name in self._used:
            name, n = f"{base}.{n}", n + 1
        self.reserve(name)
        return name

    def mark(self) -> int:
        return len(self._log)

    def rollback(self, mark: int) -> None:
        """Gives back the names since `mark`: a region is imported anew."""
        self._used.difference_update(self._log[mark:])
        del self._log[mark:]


@dataclass
class Scope:
    """Where a node is imported.

    graph: what it becomes part of. outer: types and constants around a region. parent: the scope
    around a region, whose values it may use; None for the main graph and for function bodies.
    names: ONNX's value names -> the graph's. given: names wanted for values defined here. keep:
    whether ONNX's names are kept as they are, as in the main graph. opsets: version by domain.
    bound: attributes of the function around, None outside of one. prefix: for names of nodes and
    of a function's values. calls: the functions being expanded.
    """

    graph: Graph
    all_names: Names
    opsets: Mapping[str, int]
    outer: Graph | None = None
    parent: Scope | None = None
    names: dict[str, str] = field(default_factory=dict)
    given: dict[str, str] = field(default_factory=dict)
    keep: bool = False
    bound: Mapping[str, onnx.AttributeProto] | None = None
    prefix: str = ""
    calls: tuple[FunctionKey, ...] = ()
    depth: int = 0
    makers: dict[str, Node] = field(default_factory=dict)
    """The nodes of `graph` by the values that they compute."""

    def add_node(self, node: Node, types: Sequence[TensorType]) -> None:
        """Adds a node to the graph; types: of its results, those left out included."""
        self.graph.nodes.append(node)
        for result, t in zip(node.outputs, types):
            if result:
                self.makers[result] = node
                self.graph.types[result] = t

    def sees(self, name: str) -> bool:
        return name in self.names or (self.parent is not None and self.parent.sees(name))

    def resolve(self, name: str) -> str:
        """The graph's name of a visible value; "" for an omitted one."""
        if not name:
            return ""
        if name in self.names:
            return self.names[name]
        if self.parent is None:
            raise ModelError(f"nothing defines the value {name!r}")
        return self.parent.resolve(name)

    def define(self, name: str, what: str) -> str:
        """The graph's name for a value defined here. Raises ModelError for a second definition."""
        if name in self.names:
            raise ModelError(f"{what}: the value {name!r} is defined twice")
        if name in self.given:
            chosen = self.given[name]
        elif self.keep:
            chosen = name
        else:
            chosen = self.all_names.fresh(self.prefix + name)
        self.names[name] = chosen
        return chosen

    def type_of(self, value: str) -> TensorType | None:
        """The type of a value of the graph or around it; None where it has none."""
        found = self.graph.types.get(value)
        return self.outer.types.get(value) if found is None and self.outer is not None else found

    @property
    def types(self) -> Mapping[str, TensorType]:
        """The types of all values so far."""
        around = {} if self.outer is None else self.outer.types
        return {**around, **self.graph.types} if around else self.graph.types

    def add_constant(self, base: str, data: np.ndarray[Any, Any]) -> str:
        """A constant of the graph under a fresh name, which is returned."""
        name = self.all_names.fresh(self.prefix + base)
        self.set_constant(name, data)
        return name

    def set_constant(self, name: str, data: np.ndarray[Any, Any]) -> None:
        self.graph.constants[name] = data if data.flags.c_contiguous else data.copy(order="C")
        self.graph.types[name] = constant_type(self.graph.constants[name])


def regions_of(
    scope: Scope, op: Operator, inputs: Sequence[str], regions: Mapping[str, onnx.GraphProto]
) -> list[str]:
    """The attributes whose subgraphs become a node's regions, in the operator's order. The branch
    that no run takes, which may not even fit, stands for nothing: it is the other one."""
    own = [a for a in op.attributes if a in regions]
    condition = scope.type_of(inputs[0]) if op.name == "If" and len(own) == 2 else None
    if condition is None or condition.value is None or len(condition.value) != 1:
        return own
    return [own[0 if condition.value[0] else 1]] * 2
