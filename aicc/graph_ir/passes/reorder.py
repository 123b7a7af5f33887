"""Nodes in the order that needs the least memory at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, overload

from aicc.graph_ir.graph import Graph, reads
from aicc.graph_ir.module import Module
from aicc.graph_ir.passes.layout import typical
from aicc.memory.order_problem import Problem
from aicc.memory.ordering import order
from aicc.ops import registry


@dataclass(frozen=True)
class Reorder:
    """The same nodes, in the order of least peak memory that `order` finds; as given where no other
    is better. Symbolic sizes count as typical ones.

    before: %a = Conv(%x)  %b = Conv(%x)  %c = ReduceMean(%a)  %d = ReduceMean(%b)  %y = Add(%c, %d)
    after:  %a = Conv(%x)  %c = ReduceMean(%a)  %b = Conv(%x)  %d = ReduceMean(%b)  %y = Add(%c, %d)

    time_budget: seconds for the search where it does not end before; most models take milliseconds.
    """

    time_budget: float = 2.0

    name: ClassVar[str] = "reorder"

    @overload
    def __call__(self, level: Graph) -> Graph: ...

    @overload
    def __call__(self, level: Module) -> Module: ...

    def __call__(self, level: Graph | Module) -> Graph | Module:
        if isinstance(level, Graph):
            return self._of(level)
        return level.with_graph(self._of(level.graph))

    def _of(self, graph: Graph) -> Graph:
        found = order(memory_problem(graph), self.time_budget)
        made = graph.copy()
        made.nodes = [graph.nodes[i] for i in found.sequence]
        return made


def memory_problem(graph: Graph) -> Problem:
    """What the nodes of a graph write and read. Inputs and constants take no memory of the run's; a
    view is its operand's memory: its readers read that, and a value of no bytes for its sake."""
    index: dict[str, int] = {}
    sizes: list[int] = []
    root: dict[str, str] = {}
    writes: list[tuple[int, ...]] = []
    used: list[tuple[int, ...]] = []
    for node in graph.nodes:
        operands: list[int] = []
        for value in dict.fromkeys(reads(node)):
            # A view's own value, then what it views, down to the memory.
            while value in index:
                operands.append(index[value])
                if value not in root:
                    break
                value = root[value]
        op = registry.find(node.op)
        view = op is not None and op.view
        made: list[int] = []
        for o in node.outputs:
            if o:
                index[o] = len(sizes)
                sizes.append(0 if view else typical(graph.types[o].nbytes))
                made.append(index[o])
                if view:
                    root[o] = node.inputs[0]
        writes.append(tuple(made))
        used.append(tuple(dict.fromkeys(operands)))
    kept: set[int] = set()
    for value in graph.outputs:
        while value in index:
            kept.add(index[value])
            value = root.get(value, "")
    return Problem(tuple(sizes), tuple(writes), tuple(used), frozenset(kept))
