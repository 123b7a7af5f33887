"""Layouts of constants: the text form of `pack`, and the data in that form."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aicc.symbolic import Size

Array = np.ndarray[Any, Any]


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


SLAB = 1 << 22
"""Bytes that are packed at a time."""


def pack_array(data: Array, layout: str) -> Array:
    """`data` in a layout, C order; what tiles lack is zero."""
    shape = tuple(p.extent for p in parse_layout(layout, data.shape))
    made = np.empty(shape, data.dtype)
    pack_into(made, data, layout)
    return made


def pack_into(
    target: Array, data: Array, layout: str, done: Callable[[Array], None] = lambda slab: None
) -> None:
    """Writes `data` in a layout to an array of its shape, without a copy in between.

    done: told each slab of `data`, of SLAB bytes or little more, once it is written.
    """
    parts = parse_layout(layout or " ".join(map(str, range(data.ndim))), data.shape)
    tiles = {p.axis: p.tile for p in parts if p.kind}
    for p in parts:
        rest = data.shape[p.axis] % p.tile
        if p.kind == "%" and rest:
            lacking = {"/": slice(-1, None), "%": slice(rest, None)}
            target[tuple(lacking[q.kind] if q.axis == p.axis else slice(None) for q in parts)] = 0
    for region in itertools.product(*_regions(data, tiles)):
        here: tuple[Any, ...] = (*(slice(start, stop) for start, stop, _ in region), ...)
        slab = data[here]
        # Each axis of the slab as tiles and places in one, then in the layout's order.
        split: list[int] = []
        for start, stop, tile in region:
            split += [(stop - start) // tile, tile]
        order = [2 * p.axis + (p.kind == "%") for p in parts]
        ones = [axis for axis in range(len(split)) if axis not in order]
        source = slab.reshape(split).transpose(*order, *ones)
        where: list[Any] = []
        for p in parts:
            start, stop, tile = region[p.axis]
            inside = slice(0, tile), slice(start // p.tile, -(-stop // p.tile))
            where.append(inside[p.kind != "%"])
        _copy(target[(*where, ...)], source.reshape(source.shape[: len(parts)]))
        done(slab)


def _copy(target: Array, source: Array) -> None:
    """Copies; where rows are written of what lies in columns, in strips of a few columns, which
    stay in the cache while all rows are written: several times as fast."""
    strip = max(1, 64 // target.itemsize)
    if target.ndim < 2 or source.strides[-1] == source.itemsize or target.shape[-1] <= 8 * strip:
        np.copyto(target, source)
        return
    for at in range(0, target.shape[-1], strip):
        np.copyto(target[..., at : at + strip], source[..., at : at + strip])


def _regions(data: Array, tiles: Mapping[int, int]) -> list[list[tuple[int, int, int]]]:
    """For each axis, the ranges that are packed one after another: (start, stop, tile of it)."""
    strides = [abs(s) if n > 1 else -1 for s, n in zip(data.strides, data.shape)]
    widest = int(np.argmax(strides)) if strides else -1
    found = []
    for axis, n in enumerate(data.shape):
        tile = tiles.get(axis, 1)
        step = n
        if axis == widest:
            step = max(1, SLAB * n // max(data.nbytes, 1) // tile) * tile
        whole = n - n % tile
        ranges = [(at, min(at + step, whole), tile) for at in range(0, whole, step)] if n else []
        if n % tile:
            ranges.append((whole, n, n % tile))
        found.append(ranges)
    return found
