"""Half precision is how values are stored: they are computed in single precision.

The processors that code is made for multiply and add in 32 bits; a sum of products that is rounded
to 16 bits after each is slow and inexact. Constants become wide once, at compile time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from aicc.dtypes import to_numpy
from aicc.graph_ir.graph import Graph, Node
from aicc.graph_ir.passes.bodies import alone, bodies
from aicc.graph_ir.passes.rewrite import Editor, rewrite
from aicc.ops import registry
from aicc.symbolic import symbols

NARROW = ("f16", "bf16")
WIDE = "f32"
WIDE_VALUE = "wide"


@dataclass(frozen=True)
class Widen:
    """Operators over f16 and bf16 compute in f32. A result is rounded where it is stored: for an
    output of the model, or where the model itself casts it; not between operators.

    before: %y = MatMul(%x, @w)            %z = Relu(%y)                f16
    after:  %a = Cast(%x) {to="f32"}       %b = MatMul(%a, @w)          f32
            %c = Relu(%b)                  %z = Cast(%c) {to="f16"}
    """

    name: ClassVar[str] = "widen"
    rounds_less: ClassVar[bool] = True

    def __call__(self, graph: Graph) -> Graph:
        narrow = any(t.dtype in NARROW for t in graph.types.values())
        return rewrite(graph, _rule) if narrow or _in_regions(graph) else graph


def _in_regions(graph: Graph) -> bool:
    regions = [r for node in graph.nodes for r in node.regions]
    return any(any(t.dtype in NARROW for t in r.types.values()) or _in_regions(r) for r in regions)


def _rule(ed: Editor, node: Node) -> Sequence[str] | None:
    """op(%x) -> Cast(op(Cast(%x))), where the inner Cast is the value that %x was rounded from."""
    op = registry.find(node.op)
    if op is None or not op.deterministic or node.regions or node.op == "CastLike":
        return None
    narrow = [i for i in node.inputs if i and ed.type_of(i).dtype in NARROW]
    if not narrow or not _worth(ed, node, narrow):
        return None
    wide = replace(
        node,
        inputs=tuple(_wide(ed, i) if i in narrow else i for i in node.inputs),
        outputs=tuple(ed.fresh(o) if o else "" for o in node.outputs),
    )
    results: list[str] = []
    for old, new in zip(node.outputs, ed.offer(wide), strict=True):
        before = ed.type_of(old).dtype if old else ""
        if before in NARROW and ed.type_of(new).dtype == WIDE:
            rounded = str(ed.op("Cast", new, to=before))
            ed.memo[WIDE_VALUE, rounded] = new
            results.append(rounded)
        else:
            results.append(new if old else "")
    return results


def _worth(ed: Editor, node: Node, narrow: Sequence[str]) -> bool:
    """Whether a node computes, or copies what is there in wide form; and is not a cast that would
    stay one, nor names sizes that only a run can tell."""
    known = any((WIDE_VALUE, i) in ed.memo for i in narrow)
    if node.op == "Cast":
        return known and ed.type_of(node.outputs[0]).dtype not in NARROW
    types = [ed.type_of(o) for o in node.outputs if o]
    if all(t.value is not None for t in types):
        return False
    own = {s for t in types for d in t.shape for s in symbols(d)}
    own -= {s for i in node.inputs if i for d in ed.type_of(i).shape for s in symbols(d)}
    return not own and (known or not _moves(ed, node))


def _moves(ed: Editor, node: Node) -> bool:
    """Whether a node only copies elements: narrow ones are copied as they are, unless they are
    there in wide form."""
    return all(body is not None and body.moves for body in bodies(alone(ed.context(node), node)))


def _wide(ed: Editor, value: str) -> str:
    """A value in f32: what it was rounded from, or what it is cast to."""
    known: str | None = ed.memo.get((WIDE_VALUE, value))
    if known is None:
        data: np.ndarray[Any, Any] | None = ed.constant_of(value)
        if data is not None:
            known = ed.constant(data.astype(to_numpy(WIDE)), base=value)
        else:
            known = str(ed.op("Cast", value, to=WIDE))
        ed.memo[WIDE_VALUE, value] = known
    return known
