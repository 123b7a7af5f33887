"""Drawings, by matplotlib, which the extra `viz` brings; imported when one is made."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING, Any

from aicc.errors import MissingPackageError
from aicc.runtime.memory_map import MemoryMap, Tensor, readable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#4e79a7", "#f28e2b", "#59a14f", "#b07aa1", "#e15759", "#76b7b2", "#edc948", "#9c755f")
"""Of the kinds that hold most memory for longest; the others share the next one."""
OTHER = "#bab0ac"
LIGHT = ("#f28e2b", "#76b7b2", "#edc948", OTHER)
"""Of these, those that dark letters are read on."""
LARGEST, SMALLEST = 8.0, 4.5
"""Points of labels; below, nobody can read them."""
RESOLUTION = 150
"""Dots per inch, in files of dots."""
MIB = float(1 << 20)


def plot_memory(memory: MemoryMap, path: str | os.PathLike[str]) -> None:
    """Writes a drawing of a model's arena to a file, whose ending tells the format: svg, pdf, png.

    Across: the steps of a run. Up: the arena. A rectangle is a tensor, from its first to its last
    step and from its offset to its end; its colour tells by what kind of kernel it is computed, and
    a dark edge that it is alive at the peak. The grey area behind is as high as what is alive in
    each step takes without holes. Names stand where there is room for them.

    Raises MissingPackageError without matplotlib, ValueError for an unknown ending, OSError where
    the file cannot be written.
    """
    figure = memory_figure(memory)
    ending = os.path.splitext(os.fspath(path))[1].lstrip(".").lower()
    known = figure.canvas.get_supported_filetypes()
    if ending not in known:
        raise ValueError(f"{os.fspath(path)!r}: a drawing ends with one of {', '.join(known)}")
    figure.savefig(path, dpi=RESOLUTION)


def memory_figure(memory: MemoryMap) -> Figure:
    """The drawing, as a matplotlib Figure. Raises MissingPackageError without matplotlib."""
    try:
        from matplotlib.collections import PolyCollection
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"drawings need {error.name}; pip install 'aicc[viz]' brings it"
        ) from None
    tensors = [t for t in memory.tensors if t.bytes]
    colours = _colours(memory, tensors)
    steps = len(memory.steps)
    figure = Figure(figsize=(min(24.0, max(9.0, 5 + steps / 20)), 7.5), layout="constrained")
    axes: Axes = figure.add_subplot()
    at_peak = set(memory.at_peak)
    axes.add_collection(
        PolyCollection(
            [_corners(t) for t in tensors],
            facecolors=[colours[_kind(memory, t)] for t in tensors],
            edgecolors=["#222222" if t in at_peak else "#ffffff" for t in tensors],
            linewidths=[0.7 if t in at_peak else 0.3 for t in tensors],
        )
    )
    top = max(memory.arena, memory.live_peak, 1) / MIB
    axes.set_xlim(0, max(steps, 1))
    axes.set_ylim(0, 1.06 * top)
    live = [n / MIB for n in memory.live]
    lines: list[Any] = [
        axes.stairs(live, color="#d9d9d9", fill=True, zorder=0, label="alive in the step")
    ]
    lines += _levels(axes, memory)
    axes.set_title(f"{memory.name}: {len(tensors)} tensors, {memory.verdict()}", fontsize=10)
    axes.set_xlabel("step")
    axes.set_ylabel("offset in the arena, MiB")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    _legend(figure, colours, lines)
    _label(figure, axes, tensors, [colours[_kind(memory, t)] for t in tensors])
    return figure


def _corners(t: Tensor) -> list[tuple[float, float]]:
    left, right, low, high = t.first, t.last + 1, t.offset / MIB, (t.offset + t.bytes) / MIB
    return [(left, low), (right, low), (right, high), (left, high)]


def _kind(memory: MemoryMap, t: Tensor) -> str:
    """The first word of the name of the kernel that writes a tensor."""
    return memory.steps[t.first][0].lstrip("@").split("_")[0]


def _colours(memory: MemoryMap, tensors: list[Tensor]) -> dict[str, str]:
    """By kind: those that hold most bytes for most steps first."""
    held: Counter[str] = Counter()
    for t in tensors:
        held[_kind(memory, t)] += t.bytes * (t.last - t.first + 1)
    found = {}
    for n, (kind, _) in enumerate(held.most_common()):
        found[kind] = COLOURS[n] if n < len(COLOURS) else OTHER
    return found


def _levels(axes: Axes, memory: MemoryMap) -> list[Any]:
    """The arena's size and its bounds as lines across; equal ones are one."""
    told: dict[int, list[str]] = {}
    told.setdefault(memory.arena, []).append("arena")
    told.setdefault(memory.live_peak, []).append("live peak")
    if memory.bound is not None:
        told.setdefault(memory.bound, []).append("bound for any order")
    styles = ("-", "--", ":")
    return [
        axes.axhline(
            size / MIB,
            color="#c1121f",
            linestyle=styles[n],
            linewidth=1.4,
            label=f"{' = '.join(names)}: {readable(size)}",
        )
        for n, (size, names) in enumerate(sorted(told.items(), reverse=True))
    ]


def _legend(figure: Figure, colours: dict[str, str], lines: list[Any]) -> None:
    from matplotlib.patches import Patch

    shown = {kind: colour for kind, colour in colours.items() if colour != OTHER}
    kinds = [Patch(color=colour, label=kind) for kind, colour in shown.items()]
    if len(shown) < len(colours):
        kinds.append(Patch(color=OTHER, label=f"{len(colours) - len(shown)} other kinds"))
    figure.legend(
        handles=[*lines, *kinds],
        loc="outside lower center",
        ncols=min(6, max(1, len(kinds) + len(lines))),
        fontsize=8,
        frameon=False,
    )


def _label(figure: Figure, axes: Axes, tensors: list[Tensor], colours: list[str]) -> None:
    """Names and sizes, where a rectangle has room for a line of them, lying or standing."""
    figure.draw_without_rendering()  # the layout is not known before
    scale_x, scale_y = axes.transData.transform([(0, 0), (1, 1)])[1] - axes.transData.transform(
        (0, 0)
    )
    points = 72 / figure.dpi
    for t, colour in zip(tensors, colours):
        width = (t.last + 1 - t.first) * scale_x * points
        height = t.bytes / MIB * scale_y * points
        for text in (f"{t.name} {readable(t.bytes)}", t.name):
            size, turned = _fit(len(text), width, height)
            if size >= SMALLEST:
                axes.text(
                    (t.first + t.last + 1) / 2,
                    (t.offset + t.bytes / 2) / MIB,
                    text,
                    fontsize=min(size, LARGEST),
                    rotation=90 if turned else 0,
                    ha="center",
                    va="center",
                    color="#222222" if colour in LIGHT else "white",
                    clip_on=True,
                    parse_math=False,
                )
                break


def _fit(letters: int, width: float, height: float) -> tuple[float, bool]:
    """The size, in points, of a text of so many letters in a rectangle of points, and whether it
    stands upright in it. A letter is about 0.62 of its size wide."""
    lying = min(0.7 * height, 0.92 * width / (0.62 * letters))
    standing = min(0.7 * width, 0.92 * height / (0.62 * letters))
    return (lying, False) if lying >= min(standing, SMALLEST) else (standing, True)
