"""Rules of `simplify` for operators with windows: padding that the operator does itself."""

from __future__ import annotations

from typing import Any

import numpy as np

from aicc.graph_ir.graph import Node
from aicc.graph_ir.passes.rewrite import Editor

_FILL = {"Conv": 0.0, "AveragePool": 0.0, "MaxPool": -np.inf}
"""What each operator's own padding counts as."""


def padding_inside(ed: Editor, node: Node) -> str | None:
    """Conv(Pad(x)), AveragePool(Pad(x)), MaxPool(Pad(x)) -> the same over x with more padding"""
    before = ed.made_by(node.inputs[0], "Pad")
    wanted = [o for o in node.outputs if o]
    if before is None or before.attr("mode") != "constant" or len(wanted) != 1:
        return None
    amounts = _amounts(ed, before, _FILL[node.op])
    own = _own(ed, node)
    if amounts is None or own is None:
        return None
    channels_last = bool(node.attr("channels_last", 0))
    rank = ed.type_of(node.inputs[0]).rank
    spatial = range(1, rank - 1) if channels_last else range(2, rank)
    if any(amounts[a] != (0, 0) for a in range(rank) if a not in spatial):
        return None
    count = rank - 2
    begins = [own[k] + amounts[a][0] for k, a in enumerate(spatial)]
    ends = [own[count + k] + amounts[a][1] for k, a in enumerate(spatial)]
    attrs: dict[str, Any] = {**dict(node.attrs), "pads": (*begins, *ends), "auto_pad": "NOTSET"}
    if node.op == "AveragePool":
        attrs["count_include_pad"] = 1
    return str(ed.op(node.op, before.inputs[0], *node.inputs[1:], **attrs))


def _own(ed: Editor, node: Node) -> tuple[int, ...] | None:
    """A node's own padding; None where it depends on sizes, or more would change its meaning."""
    count = ed.type_of(node.inputs[0]).rank - 2
    mode = node.attr("auto_pad", "NOTSET")
    mode = mode.decode() if isinstance(mode, bytes) else str(mode)
    if mode not in ("NOTSET", "VALID") or node.attr("ceil_mode", 0):
        return None
    given = tuple(node.attr("pads", ())) if mode == "NOTSET" else ()
    pads = given or (0,) * (2 * count)
    if node.op == "AveragePool" and any(pads) and not node.attr("count_include_pad", 0):
        return None
    return pads


def _amounts(ed: Editor, pad: Node, fill: float) -> list[tuple[int, int]] | None:
    """What a Pad adds before and after each axis; None where that is not known, something is taken
    away, or it is another element than `fill`."""
    operands = (*pad.inputs, "", "")[:4]
    x = ed.type_of(operands[0])
    given = ed.constant_of(operands[2]) if operands[2] else np.zeros(1)
    pads = ed.type_of(operands[1]).value
    axes = ed.type_of(operands[3]).value if operands[3] else tuple(range(x.rank))
    if given is None or pads is None or axes is None or given.astype(np.float64).item() != fill:
        return None
    numbers = [p for p in (*pads, *axes) if isinstance(p, int)]
    if len(numbers) != len(pads) + len(axes) or min(numbers[: len(pads)], default=0) < 0:
        return None
    amounts = [(0, 0)] * x.rank
    for n, axis in enumerate(numbers[len(pads) :]):
        amounts[axis] = numbers[n], numbers[n + len(axes)]
    return amounts


__all__ = ["padding_inside"]
