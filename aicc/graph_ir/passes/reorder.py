"""Nodes in the order that needs the least memory at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, overload

from aicc.graph_ir.graph import Graph
from aicc.graph_ir.module import Module
from aicc.graph_ir.passes.memory_problem import memory_problem
from aicc.graph_ir.places import copies
from aicc.memory.joint import plan_memory


@dataclass(frozen=True)
class Reorder:
    """The same nodes, in the order whose arena is the smallest that `plan_memory` finds; as given
    where no other is better. Symbolic sizes count as typical ones.

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
        graph = level if isinstance(level, Graph) else level.graph
        if any(copies(node) for node in graph.nodes):
            return level
        problem = memory_problem(level)
        found = plan_memory(problem, self.time_budget).order
        made = graph.copy()
        made.nodes = [graph.nodes[i] for i in found.sequence]
        return made if isinstance(level, Graph) else level.with_graph(made)
