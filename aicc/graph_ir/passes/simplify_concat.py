"""A rule of `simplify` for Concats of what is cut out of one value in even steps: the frames of a
signal, the patches of a series, as exporters write `unfold`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from aicc.graph_ir.graph import Node
from aicc.graph_ir.passes.rewrite import Editor
from aicc.graph_ir.passes.simplify_shapes import permutation, reshape

MANY = 4
"""Pieces, at least. Of fewer, a result's element is chosen as quickly as it is computed where."""


@dataclass(frozen=True)
class _Piece:
    """x[..., begin : begin + extent*step : step, ...] with its axes in another order."""

    x: str
    axis: int
    begin: int
    step: int
    extent: int
    order: tuple[int | None, ...]
    """For each axis of the piece the axis of x that it is; None for one of size 1."""


def concat_in_steps(ed: Editor, node: Node) -> str | None:
    """Concat(Slice(x, b), Slice(x, b + s), Slice(x, b + 2*s), ...) -> Windows(x), where each piece
    is transposed alike, and may have more axes of size 1; or -> Reshape(x), where the pieces are
    all of x, one after another"""
    if len(node.inputs) < MANY or ed.type_of(node.outputs[0]).value is not None:
        return None
    pieces: list[_Piece] = []
    for v in node.inputs:
        piece = _piece(ed, v)
        if piece is None or not _alike(piece, pieces):
            return None
        pieces.append(piece)
    first, n = pieces[0], len(pieces)
    every = pieces[1].begin - first.begin
    if every <= 0 or any(p.begin != first.begin + i * every for i, p in enumerate(pieces)):
        return None
    made = _pieces(ed, first, n, every)
    # The axis over pieces stands before that of x; where it goes, and what of x stays.
    where = int(node.attr("axis", 0)) % len(first.order)
    order: list[int] = []
    for at, axis in enumerate(first.order):
        if at == where:
            order.append(first.axis)
        if axis is not None:
            order.append(axis + (axis >= first.axis))
    order += [a for a in range(ed.type_of(made).rank) if a not in order]
    turned = str(ed.op("Transpose", made, perm=tuple(order)))
    return reshape(ed, turned, ed.type_of(node.outputs[0]))


def _pieces(ed: Editor, first: _Piece, n: int, every: int) -> str:
    """All pieces: `n` and the extent of one in place of their axis of x."""
    shape, strides = (n, first.extent), (every, first.step)
    t = ed.type_of(first.x)
    side_by_side = first.begin == 0 and first.step == 1 and every == first.extent
    if side_by_side and t.shape[first.axis] == n * first.extent:
        whole = (*t.shape[: first.axis], *shape, *t.shape[first.axis + 1 :])
        made = reshape(ed, first.x, replace(t, shape=whole, value=None))
        if made is not None:
            return made
    begin, axis = first.begin, first.axis
    cut = ed.op("aicc::Windows", first.x, axis=axis, begin=begin, shape=shape, strides=strides)
    return str(cut)


def _alike(piece: _Piece, others: Sequence[_Piece]) -> bool:
    if not others:
        return True
    o = others[0]
    mine = (piece.x, piece.axis, piece.step, piece.extent, piece.order)
    return mine == (o.x, o.axis, o.step, o.extent, o.order)


def _piece(ed: Editor, value: str) -> _Piece | None:
    """A Slice behind Transposes and Reshapes that add or drop axes of size 1; None for others."""
    views: list[Node] = []
    while (made := ed.made_by(value)) is not None and made.op in ("Transpose", "Reshape"):
        views.append(made)
        value = made.inputs[0]
    if made is None or made.op != "Slice":
        return None
    found = _slice(ed, made)
    if found is None:
        return None
    x, axis, begin, step, extent = found
    shape = ed.type_of(value).shape
    order: list[int | None] = [None if d == 1 else a for a, d in enumerate(shape)]
    for view in reversed(views):
        if view.op == "Transpose":
            order = [order[p] for p in permutation(ed, view)]
            continue
        kept = [a for a in order if a is not None]
        after = ed.type_of(view.outputs[0]).shape
        if [shape[a] for a in kept] != [d for d in after if d != 1]:
            return None
        rest = iter(kept)
        order = [None if d == 1 else next(rest) for d in after]
    return _Piece(x, axis, begin, step, extent, tuple(order))


def _slice(ed: Editor, node: Node) -> tuple[str, int, int, int, int] | None:
    """The operand of a Slice along one axis, the axis, and where it begins, its step and extent."""
    x = node.inputs[0]
    given = [ed.constant_of(v) if v else None for v in node.inputs[1:]]
    own, cut = ed.type_of(x).shape, ed.type_of(node.outputs[0]).shape
    starts = given[0]
    axes = given[2] if len(given) > 2 and given[2] is not None else np.arange(1)
    steps = given[3] if len(given) > 3 and given[3] is not None else np.ones(1, np.int64)
    if starts is None or any(v and g is None for v, g in zip(node.inputs[1:], given, strict=True)):
        return None
    if starts.size != 1 or axes.size != 1:
        return None
    axis, begin, step = int(axes.flat[0]) % len(own), int(starts.flat[0]), int(steps.flat[0])
    size, extent = own[axis], cut[axis]
    if begin < 0 and isinstance(size, int):
        begin = max(0, begin + size)
    if begin < 0 or step < 1 or not isinstance(extent, int) or extent == 0:
        return None
    return x, axis, begin, step, extent
