"""The module: the graph after fusion, beside the kernels that it calls.

    module ::= kernel* graph
    node   ::= results "= call(" operands ") {kernel=" name (", work=" work)? "}"
    work   ::= dtype "[" operations, instructions, constants, moved, again "]"

A node with op "call" runs a kernel: its operands are the kernel's `in` and `const` parameters in
order, its results the `out` parameters in order; the kernel's sizes are the graph's symbols of the
same names. Its work (`tensor_ir.work`) was counted before the kernel was scheduled. Any other node
is a view (an operator whose result is its operand's memory in another shape, or a part of it), a
copy, a join (its operands side by side in memory: `graph_ir.places`), or a host operator, which
runs its reference in Python. Both levels are in one object, so that fusion, layout and
scheduling can ask for each other's cost.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from aicc.graph_ir.graph import Graph, Node
from aicc.tensor_ir.ir import Kernel

CALL = "call"


@dataclass
class Module:
    """graph: calls, views, copies, joins and host operators. kernels: by name; equal kernels are
    there once."""

    graph: Graph
    kernels: dict[str, Kernel] = field(default_factory=dict)

    def kernel_of(self, node: Node) -> Kernel:
        return self.kernels[node.attr("kernel")]

    def with_graph(self, graph: Graph) -> Module:
        return replace(self, graph=graph)

    def __str__(self) -> str:
        from aicc.graph_ir.module_text import print_module

        return print_module(self)
