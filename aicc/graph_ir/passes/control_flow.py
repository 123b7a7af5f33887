"""Control flow as plain nodes, so that it runs as native code.

An If takes the branch of a known condition; of one that only a run can tell, it takes both branches
and chooses between their results, where Python would not be faster with one of them. Loops whose
number of iterations is known become these, one behind the other: they share their kernels, and
sizes that depend on the number are known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from aicc.dtypes import FLOATS
from aicc.graph_ir.graph import Graph, Node
from aicc.graph_ir.passes.bodies import bodies
from aicc.graph_ir.passes.rewrite import Editor
from aicc.graph_ir.types import TensorType
from aicc.ops import registry
from aicc.symbolic import Size, symbols
from aicc.tensor_ir.work import scalar_operations

UNROLLED_NODES = 2500
"""Nodes that a loop may become. Each takes two milliseconds to compile; run by Python, the loop
takes some hundred times as long."""
AT_ONCE = 1 << 22
"""Operations of both branches of an If that take no longer than it takes Python to begin with one:
a tenth of a millisecond."""
SLOWER = 16
"""How many times as long Python takes for a branch: from four, for large matrix products, to forty,
for convolutions and softmax."""


def inline_if(ed: Editor, node: Node) -> list[str] | None:
    """If(@condition) -> the nodes of the branch that it chooses;
    If(%condition) -> Where(%condition, the results of one branch, those of the other)"""
    names = list(registry.get("If").attributes)
    branches = [node.regions[names.index(n)] for n in ("then_branch", "else_branch")]
    condition = ed.constant_of(node.inputs[0])
    if condition is not None and condition.size == 1:
        return ed.inline(branches[0 if bool(condition.reshape(-1)[0]) else 1])
    if ed.type_of(node.inputs[0]).count != 1 or not _both_pay(ed, branches):
        return None
    types = [[_type_in(ed, b, o) for o in b.outputs] for b in branches]
    if any(a.dtype != b.dtype or a.shape != b.shape for a, b in zip(*types, strict=True)):
        return None
    chosen = str(ed.op("Reshape", node.inputs[0], ed.constant(np.zeros(0, np.int64))))
    both = [ed.inline(b) for b in branches]
    return [str(ed.op("Where", chosen, a, b)) for a, b in zip(*both, strict=True)]


def _type_in(ed: Editor, region: Graph, value: str) -> TensorType:
    return region.types.get(value) or ed.type_of(value)


def _both_pay(ed: Editor, branches: Sequence[Graph]) -> bool:
    """Whether both branches may be computed, and take no longer than Python takes for the one of
    fewer operations."""
    counts: list[int] = []
    for branch in branches:
        count = _operations(ed, branch)
        if count is None:
            return False
        counts.append(count)
    return sum(counts) <= AT_ONCE + SLOWER * min(counts)


def _operations(ed: Editor, branch: Graph) -> int | None:
    """The operations of a branch that may run though it is not chosen: it computes floats of known
    sizes of floats and constants, by loops that no data end. None for others."""
    read = {i for n in branch.nodes for i in n.inputs if i} | set(branch.outputs)
    made = {o for n in branch.nodes for o in n.outputs if o}
    types = {name: _type_in(ed, branch, name) for name in read | made}
    data = {
        name: branch.constants.get(name, ed.constant_of(ed.resolve(name))) for name in read - made
    }
    constants = {name: a for name, a in data.items() if a is not None}
    for name, t in types.items():
        if name not in constants and t.dtype not in (*FLOATS, "bool"):
            return None
        if not all(isinstance(d, int) for d in t.shape):
            return None
    inputs = [name for name in data if name not in constants]
    alone = Graph("branch", inputs, branch.outputs, branch.nodes, constants, types)
    total: Size = 0
    for body in bodies(alone):
        if body is None or body.checks:
            return None
        total = total + scalar_operations(body.kernel.body)
    return total if isinstance(total, int) else None


def unroll_loop(ed: Editor, node: Node) -> list[str] | None:
    """Loop(@trips, @true, %state) -> the nodes of the body, `trips` times, where it never asks for
    an end"""
    (body,) = node.regions
    limit, start = (*node.inputs, "", "")[:2]
    trips = ed.constant_of(limit) if limit else None
    on = ed.constant_of(start) if start else np.array(True)
    if trips is None or on is None or not on.all():
        return None
    again = body.types.get(body.outputs[0]) or ed.type_of(body.outputs[0])
    count = int(trips.reshape(-1)[0])
    if again.value != (1,) or not _unrollable(ed, node, body, count):
        return None
    ed.adopt_constants(body)
    carried = list(node.inputs[2:])
    stacks: list[list[str]] = []
    for trip in range(count):
        given = [ed.constant(np.array(trip, np.int64)), ed.constant(np.array(True)), *carried]
        results = iteration(ed, body, given)[1:]
        carried, elements = results[: len(carried)], results[len(carried) :]
        stacks.append(elements)
    return [*carried, *(_stack(ed, parts, 0) for parts in zip(*stacks, strict=True))]


def unroll_scan(ed: Editor, node: Node) -> list[str] | None:
    """Scan(%state, %sequence) -> the nodes of the body, once for each element of the sequence"""
    (body,) = node.regions
    scans = int(node.attr("num_scan_inputs"))
    states = len(node.inputs) - scans
    axes = _each(node, "scan_input_axes", scans)
    sequences = node.inputs[states:]
    axes = [a % ed.type_of(x).rank for a, x in zip(axes, sequences, strict=True)]
    count = ed.type_of(sequences[0]).shape[axes[0]]
    if not isinstance(count, int) or not _unrollable(ed, node, body, count):
        return None
    ed.adopt_constants(body)
    backward = _each(node, "scan_input_directions", scans)
    parts = [_elements(ed, x, axis, count) for x, axis in zip(sequences, axes, strict=True)]
    parts = [p[::-1] if b else p for p, b in zip(parts, backward, strict=True)]
    carried = list(node.inputs[:states])
    stacks: list[list[str]] = []
    for given in zip(*parts, strict=True):
        results = iteration(ed, body, [*carried, *given])
        carried, elements = results[:states], results[states:]
        stacks.append(elements)
    columns = list(zip(*stacks, strict=True))
    out_axes = _each(node, "scan_output_axes", len(columns))
    reverse = _each(node, "scan_output_directions", len(columns))
    made = [
        _stack(ed, parts[::-1] if r else parts, axis % (ed.type_of(parts[0]).rank + 1))
        for parts, axis, r in zip(columns, out_axes, reverse, strict=True)
    ]
    return [*carried, *made]


def _unrollable(ed: Editor, node: Node, body: Graph, count: int) -> bool:
    """Whether a loop is short, is no loop of loops, and names no sizes that only a run can tell."""
    if not 0 < count * len(body.nodes) <= UNROLLED_NODES or any(n.regions for n in body.nodes):
        return False
    given = {s for i in node.inputs if i for d in ed.type_of(i).shape for s in symbols(d)}
    made = {s for o in node.outputs if o for d in ed.type_of(o).shape for s in symbols(d)}
    return made <= given


def _each(node: Node, name: str, count: int) -> list[int]:
    return [int(v) for v in node.attr(name) or ()] or [0] * count


def iteration(ed: Editor, body: Graph, given: Sequence[str]) -> list[str]:
    """The results of a body whose inputs are `given`, as nodes of the graph around it."""
    names = dict(zip(body.inputs, given, strict=True))

    def value(name: str) -> str:
        return names.get(name) or ed.resolve(name)

    for node in body.nodes:
        made = replace(
            node,
            inputs=tuple(value(i) if i else "" for i in node.inputs),
            outputs=tuple(ed.fresh(o) if o else "" for o in node.outputs),
        )
        for old, new in zip(node.outputs, ed.offer(made), strict=True):
            if old:
                names[old] = new
    return [value(o) for o in body.outputs]


def _elements(ed: Editor, sequence: str, axis: int, count: int) -> list[str]:
    """What a sequence has along an axis, without that axis."""
    at = ed.constant(np.array([axis], np.int64))
    if count == 1:
        return [str(ed.op("Squeeze", sequence, at))]
    sizes = ed.constant(np.ones(count, np.int64))
    rows = ed.op("Split", sequence, sizes, n_outputs=count, axis=axis)
    return [str(ed.op("Squeeze", row, at)) for row in rows]


def _stack(ed: Editor, parts: Sequence[str], axis: int) -> str:
    at = ed.constant(np.array([axis], np.int64))
    return str(ed.op("Concat", *(ed.op("Unsqueeze", p, at) for p in parts), axis=axis))
