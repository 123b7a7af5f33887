"""Loops whose number of iterations is known become their iterations, one behind the other.

So they run as native code, the iterations share their kernels, and sizes that depend on the number
of the iteration are known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from aicc.graph_ir.graph import Graph, Node
from aicc.graph_ir.passes.rewrite import Editor
from aicc.symbolic import symbols

UNROLLED_NODES = 1500
"""Nodes that a loop may become: what compiles in seconds."""


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
