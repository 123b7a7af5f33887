"""Constant folding: what does not depend on the model's inputs is computed now."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from aicc.dtypes import to_numpy
from aicc.errors import AiccError
from aicc.graph_ir.graph import Graph, Node
from aicc.graph_ir.passes.rewrite import SHARED_BYTES, Editor, rewrite
from aicc.ops import registry
from aicc.uniform import filled

Array = np.ndarray[Any, Any]

log = logging.getLogger("aicc")


@dataclass(frozen=True)
class Fold:
    """Nodes over constants, and values that inference knows, become constants; dead nodes go.

    before: %s = Shape(%x)    %c = Mul(@a, @b)    %y = Reshape(%x, %s)
    after:  %y = Reshape(%x, @s)                  where all sizes of %x are numbers

    Results beyond `expansion` bytes that are larger than their operands are left where every reader
    repeats them along axes anyway (a broadcast that fusion computes for free).
    """

    expansion: int = 1 << 24

    name: ClassVar[str] = "fold"

    def __call__(self, graph: Graph) -> Graph:
        return rewrite(graph, Folder(self.expansion))


@dataclass(frozen=True)
class Folder:
    """The rule of `Fold`."""

    expansion: int

    def __call__(self, ed: Editor, node: Node) -> list[str] | None:
        return known_values(ed, node) or self.evaluate(ed, node)

    def evaluate(self, ed: Editor, node: Node) -> list[str] | None:
        """op(@a, @b) -> @c, which is one for all nodes that are equal: layers may share weights."""
        if node.op == "Identity" and ed.constant_of(node.inputs[0]) is not None:
            return [node.inputs[0]]
        key = ("folded", node.op, node.inputs, node.attrs, tuple(map(bool, node.outputs)))
        known: list[str] | None = ed.memo.get(key)
        if known is None and (known := self._evaluate(ed, node)) is not None:
            ed.memo[key] = known
        return known

    def _evaluate(self, ed: Editor, node: Node) -> list[str] | None:
        """op(@a, @b) -> @c, by the operator's reference."""
        op = registry.find(node.op)
        if op is None or not op.deterministic or node.regions:
            return None
        arrays = [ed.constant_of(i) if i else None for i in node.inputs]
        if any(a is None and i for a, i in zip(arrays, node.inputs)):
            return None
        if not node.inputs and any(ed.type_of(o).dtype == "str" for o in node.outputs if o):
            return None
        before = sum(a.nbytes for a in arrays if a is not None)
        after = 0
        for o in node.outputs:
            size = ed.type_of(o).nbytes if o else 0
            if not isinstance(size, int):
                return None
            after += size
        if after > max(before, self.expansion) and self._only_broadcast(ed, node):
            return None
        if after > SHARED_BYTES and (one := _only_element(ed, node, arrays)) is not None:
            shape = [int(d) for d in ed.type_of(node.outputs[0]).shape]
            return [ed.constant(filled(one, shape), base=node.outputs[0])]
        if node.op == "Transpose" and arrays[0] is not None:
            # The largest constants that are folded: a view, which is copied when it is packed.
            view = arrays[0].transpose(node.attr("perm") or None)
            return [ed.constant(view, base=node.outputs[0])]
        try:
            results = op.reference(ed.context(node), *arrays)
        except (AiccError, ArithmeticError, LookupError, MemoryError, ValueError) as error:
            # What fails on these operands fails when the model runs, where the error belongs.
            log.debug("%s is not folded: %s", node.op, error)
            return None
        return [
            ed.constant(np.asarray(r), ed.type_of(o).dtype, base=o) if o else ""
            for o, r in zip(node.outputs, results)
        ]

    @staticmethod
    def _only_broadcast(ed: Editor, node: Node) -> bool:
        """True where each reader has an operand of another value's full shape beside this one."""
        wanted = set(node.outputs)
        if not wanted.isdisjoint(ed.old.outputs):
            return False
        readers = [n for n in ed.old.nodes if not wanted.isdisjoint(n.inputs)]
        return all(
            len(r.inputs) > 1
            and all(
                ed.old.types[i].shape == ed.old.types[r.outputs[0]].shape
                for i in r.inputs
                if i in ed.old.types and (i in wanted or ed.old.types[i].rank > 1)
            )
            for r in readers
        )


def _only_element(ed: Editor, node: Node, arrays: Sequence[Array | None]) -> Array | None:
    """The one element that a node repeats; None for other nodes."""
    (first, *_) = arrays or (None,)
    if first is None:
        return None
    if node.op == "ConstantOfShape":
        (element,) = registry.get(node.op).reference(ed.context(node), np.ones_like(first))
        return element
    return first if node.op == "Expand" and first.size == 1 else None


def known_values(ed: Editor, node: Node) -> list[str] | None:
    """A node whose results' contents inference knows as numbers -> constants."""
    wanted = [o for o in node.outputs if o]
    if not wanted:
        return None
    types = [ed.type_of(o) for o in wanted]
    for t in types:
        if t.value is None or not all(isinstance(v, int) for v in (*t.value, *t.shape)):
            return None
    made = {
        o: ed.constant(np.array(t.value, to_numpy(t.dtype)).reshape(t.shape), base=o)
        for o, t in zip(wanted, types)
    }
    return [made.get(o, "") for o in node.outputs]
