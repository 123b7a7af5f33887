"""Sums of convolutions of the same data become one convolution.

Networks are trained with parallel branches (a window, a single tap, a scaled identity) that add up,
and are often exported so: RepVGG (Ding et al. 2021), MobileOne (Vasu et al. 2022).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from aicc.graph_ir.graph import Graph, Node
from aicc.graph_ir.passes.rewrite import Editor, rewrite
from aicc.graph_ir.passes.simplify_arithmetic import same_type

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class MergeBranches:
    """Convolutions of the same data that add up become one, by weights summed tap by tap.

    before: %a = Conv(%x, @w3)  %b = Conv(%x, @w1)  %c = Mul(%x, @s)  %y = Add(Add(%a, %b), %c)
    after:  %y = Conv(%x, @w)

    Shifts add up beside it. Weights are summed in double precision: only the order of the terms of
    a result changes, as where a scale goes into weights. The window that holds the windows of all
    has no more taps than they have together.
    """

    name: ClassVar[str] = "branches"

    def __call__(self, graph: Graph) -> Graph:
        inner = _inner_sums(graph)
        return rewrite(graph, lambda ed, node: _rule(ed, node, inner))


def _inner_sums(graph: Graph) -> frozenset[str]:
    """Values that only another sum of the same type reads."""
    count = Counter(v for n in graph.nodes for v in n.inputs)
    count.update(graph.outputs)
    return frozenset(
        v
        for n in graph.nodes
        if n.op == "Add"
        for v in n.inputs
        if count[v] == 1 and graph.types.get(v) == graph.types.get(n.outputs[0])
    )


@dataclass(frozen=True)
class _Branch:
    """A convolution `value` of `data` by weights [O, C/group, taps...]. group: None for a scale of
    each channel alone, by weights [C, 1, 1...], which is a part of any grouping.

    first, last: per axis, where the first and the last tap are, from the place in the data that
    counts for a result. steps: between taps. room: by how much the first tap can move, beyond the
    size of the data.
    """

    value: str
    data: str
    weights: Array
    group: int | None
    first: tuple[int, ...]
    last: tuple[int, ...]
    steps: tuple[int, ...]
    strides: tuple[int, ...]
    room: tuple[int, ...]
    origin: tuple[Any, ...] = ()


@dataclass
class _Sum:
    """What a tree of sums adds up."""

    branches: list[_Branch] = field(default_factory=list)
    shifts: list[Array] = field(default_factory=list)
    others: list[str] = field(default_factory=list)


def _rule(ed: Editor, node: Node, inner: frozenset[str]) -> Sequence[str] | None:
    if node.op != "Add" or node.outputs[0] in inner:
        return None
    found = _Sum()
    for v in node.inputs:
        _collect(ed, v, node.outputs[0], found)
    terms: list[str] = []
    while found.branches:
        parts = _alike(ed, found)
        summed = len(parts) > 1 and any(ed.made_by(b.value, "Conv") for b in parts)
        window = _window(parts) if summed else None
        if window is None:
            found.others.append(parts[0].value)
            found.branches.remove(parts[0])
            continue
        terms.append(_written(ed, parts, window, node))
        found.branches = [b for b in found.branches if b not in parts]
        if parts[-1].value == parts[-1].data:
            found.others.remove(parts[-1].value)
    if not terms:
        return None
    if found.shifts:
        shift = sum((s.astype(np.float64) for s in found.shifts), np.zeros(()))
        constant = ed.constant(shift, ed.type_of(node.outputs[0]).dtype)
        terms[0] = str(ed.op("Add", terms[0], constant))
    total, *rest = [*terms, *found.others]
    for term in rest:
        total = str(ed.op("Add", total, term))
    return [total]


def _collect(ed: Editor, value: str, top: str, found: _Sum) -> None:
    """Puts what a value that is added to `top` consists of into `found`."""
    rank = ed.type_of(top).rank
    left = [value]
    while left:
        term = left.pop()
        constant = ed.constant_of(term)
        if constant is not None:
            shape = (*(1,) * (rank - constant.ndim), *constant.shape)
            if constant.dtype.kind == "f" and all(d == 1 for n, d in enumerate(shape) if n != 1):
                found.shifts.append(constant.reshape(shape[1:]))
            else:
                found.others.append(term)
            continue
        made = ed.made_by(term) if ed.read_once(term) and same_type(ed, term, top) else None
        branch = None
        if made is not None and made.op == "Add":
            left += reversed(made.inputs)
            continue
        if made is not None and made.op == "Conv":
            branch = _convolution(ed, made)
        elif made is not None and made.op == "Mul":
            branch = _scale(ed, made)
        if branch is None:
            found.others.append(term)
        else:
            found.branches.append(branch)


def _convolution(ed: Editor, node: Node) -> _Branch | None:
    weights = ed.constant_of(node.inputs[1])
    if weights is None or weights.dtype.kind != "f" or not ed.read_once(node.inputs[1]):
        return None
    if len(node.inputs) > 2 or node.attr("channels_last", 0) or node.attr("filters_last", 0):
        return None
    count = weights.ndim - 2
    pads = tuple(node.attr("pads", ())) or (0,) * (2 * count)
    if node.attr("auto_pad", "NOTSET") not in ("NOTSET", b"NOTSET"):
        return None
    steps = tuple(node.attr("dilations", ())) or (1,) * count
    group: int | None = int(node.attr("group", 1))
    if group == weights.shape[0] and weights.shape[1:] == (1,) * (count + 1):
        group = None
    first = tuple(-b for b in pads[:count])
    spans = [(k - 1) * d for k, d in zip(weights.shape[2:], steps, strict=True)]
    return _Branch(
        node.outputs[0],
        node.inputs[0],
        weights,
        group,
        first,
        tuple(f + s for f, s in zip(first, spans, strict=True)),
        tuple(d if s else 0 for d, s in zip(steps, spans, strict=True)),
        tuple(node.attr("strides", ())) or (1,) * count,
        tuple(b + e - s for b, e, s in zip(pads[:count], pads[count:], spans, strict=True)),
        node.origin,
    )


def _scale(ed: Editor, node: Node) -> _Branch | None:
    """A constant factor for each channel."""
    data, factor = node.inputs
    constant, kind = ed.constant_of(factor), ed.type_of(data)
    if constant is None or not same_type(ed, data, node.outputs[0]) or constant.ndim > kind.rank:
        return None
    shape = (*(1,) * (kind.rank - constant.ndim), *constant.shape)
    channels = kind.shape[1] if kind.rank > 2 else None
    if not isinstance(channels, int) or any(d != 1 for n, d in enumerate(shape) if n != 1):
        return None
    scales = np.broadcast_to(constant.reshape(-1), (channels,))
    return _factors(node.outputs[0], data, scales, kind.rank - 2, node.origin)


def _factors(
    value: str, data: str, scales: Array, count: int, origin: tuple[Any, ...] = ()
) -> _Branch:
    still = (0,) * count
    weights = scales.reshape(-1, *(1,) * (count + 1))
    return _Branch(value, data, weights, None, still, still, still, (1,) * count, still, origin)


def _alike(ed: Editor, found: _Sum) -> list[_Branch]:
    """Branches of the data of the first one that can be one convolution, as far as their groups and
    strides tell; with the data themselves, where each channel goes by itself anyway."""
    one = found.branches[0]
    same = [b for b in found.branches if (b.data, b.strides) == (one.data, one.strides)]
    group = next((b.group for b in same if b.group is not None), None)
    parts = [b for b in same if b.group in (group, None)]
    outputs = parts[0].weights.shape[0]
    kind = ed.type_of(one.data)
    alone = group is None or group == kind.shape[1] == outputs
    if one.data in found.others and alone and set(one.strides) == {1}:
        scales = np.ones(outputs, one.weights.dtype)
        parts.append(_factors(one.data, one.data, scales, len(one.strides)))
    return parts


@dataclass(frozen=True)
class _Window:
    """The window that holds those of all branches: taps `first`, `first + step`, ..., `last`."""

    first: tuple[int, ...]
    last: tuple[int, ...]
    steps: tuple[int, ...]

    @property
    def kernel(self) -> tuple[int, ...]:
        return tuple((b - a) // s + 1 for a, b, s in zip(self.first, self.last, self.steps))


def _window(parts: list[_Branch]) -> _Window | None:
    """None where there is no such window, or one that takes more multiplications."""
    if len({b.room for b in parts}) > 1:
        return None
    first = tuple(map(min, zip(*(b.first for b in parts), strict=True)))
    last = tuple(map(max, zip(*(b.last for b in parts), strict=True)))
    steps: list[int] = []
    for n, start in enumerate(first):
        apart = {b.steps[n] for b in parts} - {0}
        step = apart.pop() if apart else max(b.first[n] - start for b in parts) or 1
        if apart or any((b.first[n] - start) % step for b in parts):
            return None
        steps.append(step)
    window = _Window(first, last, tuple(steps))
    taps = sum(math.prod(b.weights.shape[2:]) for b in parts)
    return window if math.prod(window.kernel) <= taps else None


def _written(ed: Editor, parts: list[_Branch], window: _Window, node: Node) -> str:
    """The one convolution by the sum of the weights, in place of the sum `node`."""
    grouped = next((b for b in parts if b.group is not None), parts[0])
    outputs, depth = grouped.weights.shape[:2]
    group = outputs if grouped.group is None else grouped.group
    total = np.zeros((outputs, depth, *window.kernel), np.float64)
    rows = np.arange(outputs)
    for b in parts:
        place = tuple(
            slice((f - start) // step, (f - start) // step + k)
            for f, start, step, k in zip(
                b.first, window.first, window.steps, b.weights.shape[2:], strict=True
            )
        )
        if b.group is None:
            total[(rows, rows % depth, *place)] += b.weights[:, 0]
        else:
            total[(slice(None), slice(None), *place)] += b.weights
    spans = [b - a for a, b in zip(window.first, window.last, strict=True)]
    ends = [r + f + s for r, f, s in zip(parts[0].room, window.first, spans, strict=True)]
    dtype = ed.type_of(node.outputs[0]).dtype
    made = ed.make(
        "Conv",
        parts[0].data,
        ed.constant(total, dtype),
        group=group,
        dilations=window.steps,
        strides=parts[0].strides,
        pads=(*(-f for f in window.first), *ends),
    )
    origin = dict.fromkeys(o for b in parts for o in b.origin)
    return ed.offer(replace(made, origin=(*origin, *node.origin)))[0]
