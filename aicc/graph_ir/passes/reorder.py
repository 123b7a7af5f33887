"""Nodes in the order that needs the least memory at once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, overload

from aicc.graph_ir.graph import Graph, reads
from aicc.graph_ir.module import Module
from aicc.graph_ir.passes.layout import typical
from aicc.graph_ir.places import copies, is_view, joined
from aicc.memory.order_problem import Problem
from aicc.memory.ordering import order


@dataclass(frozen=True)
class Reorder:
    """The same nodes, in the order of least peak memory that `order` finds; as given where no other
    is better. Symbolic sizes count as typical ones.

    before: %a = Conv(%x)  %b = Conv(%x)  %c = ReduceMean(%a)  %d = ReduceMean(%b)  %y = Add(%c, %d)
    after:  %a = Conv(%x)  %c = ReduceMean(%a)  %b = Conv(%x)  %d = ReduceMean(%b)  %y = Add(%c, %d)

    Where there are copies, the order was made to go with them, and stays.

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
        if any(copies(node) for node in graph.nodes):
            return graph
        found = order(memory_problem(graph), self.time_budget)
        made = graph.copy()
        made.nodes = [graph.nodes[i] for i in found.sequence]
        return made


def memory_problem(graph: Graph) -> Problem:
    """What the nodes of a graph write and read. Inputs and constants take no memory of the run's; a
    view is its operand's memory: its readers read that, and a value of no bytes for its sake. What
    is joined is its operands' memory, and as many bytes as of them are copied."""
    index: dict[str, int] = {}
    sizes: list[int] = []
    roots: dict[str, tuple[str, ...]] = {}
    taken: set[str] = set()
    computed: set[str] = set()
    writes: list[tuple[int, ...]] = []
    used: list[tuple[int, ...]] = []

    def held(values: Iterable[str]) -> dict[int, None]:
        """The values, what they are views of, and so on down to the memory."""
        found: dict[int, None] = {}
        todo = list(values)
        while todo:
            value = todo.pop()
            if value in index and index[value] not in found:
                found[index[value]] = None
                todo += roots.get(value, ())
        return found

    for node in graph.nodes:
        operands = held(reads(node))
        view, join = is_view(node), joined(graph, node) is not None
        made: list[int] = []
        for o in node.outputs:
            if o:
                size = 0 if view else typical(graph.types[o].nbytes)
                if join:
                    parts = [v for v in dict.fromkeys(node.inputs) if v in computed - taken]
                    taken.update(parts)
                    size -= sum(typical(graph.types[v].nbytes) for v in parts)
                    roots[o] = tuple(parts)
                elif view:
                    roots[o] = (node.inputs[0],)
                if not view and not copies(node):
                    computed.add(o)
                index[o] = len(sizes)
                sizes.append(size)
                made.append(index[o])
        writes.append(tuple(made))
        used.append(tuple(operands))
    return Problem(tuple(sizes), tuple(writes), tuple(used), frozenset(held(graph.outputs)))
