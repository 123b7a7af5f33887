"""Layouts of constants: the text form of `pack`, and the data in that form."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aicc.symbolic import Size


class PackError(ValueError):
    """A layout that does not describe the array."""


@dataclass(frozen=True)
class Part:
    """One new axis; kind: "" for all of an old axis, "/" for its tiles, "%" for places in one."""

    axis: int
    kind: str
    tile: int
    extent: Size

    def index(self, i: Size) -> Size:
        return i // self.tile if self.kind == "/" else i % self.tile if self.kind == "%" else i


def parse_layout(layout: str, shape: Sequence[Size]) -> list[Part]:
    """The new axes of "1/16 0 1%16" for an array of `shape`. Raises PackError."""
    parts: list[Part] = []
    for word in layout.split():
        match = re.fullmatch(r"(\d+)(?:([/%])(\d+))?", word)
        if match is None or int(match[1]) >= len(shape):
            raise PackError(f"{word!r} names no axis of {tuple(shape)}")
        axis, kind, tile = int(match[1]), match[2] or "", int(match[3] or 1)
        if tile < 1:
            raise PackError(f"{word!r}: a tile has at least one element")
        whole = shape[axis]
        extent = (whole + (tile - 1)) // tile if kind == "/" else tile if kind == "%" else whole
        parts.append(Part(axis, kind, tile, extent))
    for axis in range(len(shape)):
        mine = sorted((p.kind, p.tile) for p in parts if p.axis == axis)
        whole_axis = mine == [("", 1)]
        tiled = len(mine) == 2 and [m[0] for m in mine] == ["%", "/"] and mine[0][1] == mine[1][1]
        if not whole_axis and not tiled:
            raise PackError(f"{layout!r} does not place axis {axis} once")
    return parts


def pack_array(data: np.ndarray[Any, Any], layout: str) -> np.ndarray[Any, Any]:
    """`data` in a layout, C order; what tiles lack is zero."""
    return np.ascontiguousarray(pack_view(data, layout))


def pack_view(data: np.ndarray[Any, Any], layout: str) -> np.ndarray[Any, Any]:
    """`pack_array` without the last copy: a view of `data`, or of a padded copy."""
    parts = parse_layout(layout, data.shape)
    tiles = {p.axis: p.tile for p in parts if p.kind}
    pads = [(0, -n % tiles.get(axis, 1)) for axis, n in enumerate(data.shape)]
    if any(p for _, p in pads):
        data = np.pad(data, pads)
    split: list[int] = []
    place: dict[tuple[int, str], int] = {}
    for axis, n in enumerate(data.shape):
        if axis in tiles:
            place[axis, "/"], place[axis, "%"] = len(split), len(split) + 1
            split += [n // tiles[axis], tiles[axis]]
        else:
            place[axis, ""] = len(split)
            split.append(n)
    order = [place[p.axis, p.kind] for p in parts]
    return data.reshape(split).transpose(order)
