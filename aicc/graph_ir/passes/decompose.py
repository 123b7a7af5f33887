"""Composite operators become primitive ones, the same that exporters write out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from aicc.graph_ir.graph import Graph, Node
from aicc.graph_ir.passes.rewrite import Editor, rewrite
from aicc.ops import registry


@dataclass(frozen=True)
class Decompose:
    """Every node whose operator has a `decompose` becomes the nodes that it gives, until none has.

    before: %y = Softmax(%x) {axis=-1}
    after:  %m = ReduceMax(%x, @axes)  %d = Sub(%x, %m)  %e = Exp(%d)
            %s = ReduceSum(%e, @axes)  %y = Div(%e, %s)

    keep: operators that are left as they are.
    """

    keep: frozenset[str] = frozenset()

    name: ClassVar[str] = "decompose"

    def __call__(self, graph: Graph) -> Graph:
        return rewrite(graph, self._rule)

    def _rule(self, ed: Editor, node: Node) -> Sequence[str] | None:
        op = registry.find(node.op)
        if op is None or node.op in self.keep:
            return None
        made = op.decompose(ed.context(node), ed, *node.inputs)
        return None if made is None else [*made, *[""] * (len(node.outputs) - len(made))]
