"""Strides of arrays that may be parts of larger ones: their normal form, and other shapes for the
same elements. Strides count elements."""

from __future__ import annotations

from collections.abc import Sequence

from aicc.symbolic import Size


def row_major(shape: Sequence[Size]) -> tuple[Size, ...]:
    """The strides of a dense array."""
    strides: list[Size] = []
    step: Size = 1
    for extent in reversed(shape):
        strides.append(step)
        step = step * extent
    return tuple(reversed(strides))


def normal_pitch(shape: Sequence[Size], strides: Sequence[Size]) -> tuple[Size, ...]:
    """Strides in the form that equal layouts share: (), where the array is dense; the stride of an
    axis of one element, which is never walked, as if the next axis went on in it."""
    found: list[Size] = []
    step: Size = 1
    for extent, stride in zip(reversed(shape), reversed(strides), strict=True):
        found.append(step if extent == 1 else stride)
        step = found[-1] * extent
    made = tuple(reversed(found))
    return () if made == row_major(shape) else made


def even_runs(shape: Sequence[Size], strides: Sequence[Size]) -> list[tuple[Size, Size]]:
    """(extent, stride) of what is walked evenly, outermost first: axes of which one goes on where
    the next one ends are one run."""
    runs: list[tuple[Size, Size]] = []
    for extent, stride in zip(shape, strides, strict=True):
        if extent == 1:
            continue
        if runs and runs[-1][1] == stride * extent:
            runs[-1] = (runs[-1][0] * extent, stride)
        else:
            runs.append((extent, stride))
    return runs


def same_walk(
    shape: Sequence[Size], pitch: Sequence[Size], other: Sequence[Size], other_pitch: Sequence[Size]
) -> bool:
    """Whether two shapes and pitches (() where dense) give the same elements in the same order."""
    if not pitch and not other_pitch:
        return True
    mine = even_runs(shape, pitch or row_major(shape))
    return mine == even_runs(other, other_pitch or row_major(other))


def reshaped(
    shape: Sequence[Size], strides: Sequence[Size], target: Sequence[Size]
) -> tuple[Size, ...] | None:
    """Strides by which the elements of one shape are walked, in order, under another one; None
    where no strides do."""
    runs = even_runs(shape, strides)
    made: list[Size] = []
    inside: Size = 1  # how much of the innermost run that is left is taken
    for extent in reversed(target):
        if extent == 1:
            made.append(0)
            continue
        if runs and inside == runs[-1][0]:
            runs.pop()
            inside = 1
        if not runs:
            return None
        made.append(inside * runs[-1][1])
        inside = inside * extent
        if inside != runs[-1][0] and not _divides(inside, runs[-1][0]):
            return None
    if len(runs) > 1 or (runs and inside != runs[0][0]):
        return None
    return tuple(reversed(made))


def _divides(part: Size, whole: Size) -> bool:
    return part != 0 and whole // part * part == whole
