"""Pieces of one value in even steps."""

import numpy as np
import pytest
from pass_builder import Build, applied, ops

from aicc.graph_ir.passes.simplify import Simplify
from aicc.graph_ir.passes.simplify_concat import MANY
from aicc.symbolic import sym

N = sym("n", 1)


def i64(b, *values):
    return b.const(np.array(values, np.int64))


def sliced(b, x, axis, begin, end, step=1):
    return b("Slice", x, i64(b, begin), i64(b, end), i64(b, axis), i64(b, step))


def joined(begins, extent, view=None, *, axis=1, step=1, where=1, shape=(3, 40, 5)):
    """Operators left of a Concat of Slices."""
    b = Build()
    x = b.input("x", *shape)
    pieces = [sliced(b, x, axis, at, at + extent * step, step) for at in begins]
    if view:
        pieces = [view(b, p) for p in pieces]
    graph = b.done(b("Neg", b("Concat", *pieces, axis=where)))
    after = applied(graph, Simplify())
    assert ops(after)[-1] == "Neg"
    return ops(after)[:-1]


def unfolded(b, piece):
    return b("Unsqueeze", b("Transpose", piece, perm=(0, 2, 1)), i64(b, 1))


@pytest.mark.parametrize("rows", [3, N], ids=str)
def test_frames_are_windows(rows):
    begins = range(2, 34, 4)
    left = joined(begins, 7, unfolded, shape=(rows, 40, 5))
    assert left == ["aicc::Windows", "Transpose"]
    assert joined(begins, 7, shape=(rows, 40, 5)) == ["aicc::Windows", "Reshape"]


def test_pieces_along_another_axis_than_they_are_joined_along():
    assert joined(range(0, 32, 4), 7, where=2) == ["aicc::Windows", "Transpose", "Reshape"]
    assert joined(range(5), 1, axis=2, where=0) == ["Reshape", "Transpose", "Reshape"]


def test_every_other_element():
    assert joined((0, 1, 2, 3), 9, step=4) == ["aicc::Windows", "Reshape"]


def test_axes_that_come_and_go():
    def view(b, piece):
        turned = b("Transpose", piece, perm=(1, 0, 2))
        return b("Unsqueeze", b("Squeeze", turned, i64(b, 0)), i64(b, 0, 2))

    assert joined(range(6), 1, view, where=2) == ["aicc::Windows", "Reshape"]


def test_all_of_a_value_one_piece_after_another_is_a_view():
    assert joined(range(0, 40, 8), 8) == []
    b = lambda b, p: b("Unsqueeze", p, i64(b, 1))  # noqa: E731
    assert joined(range(0, 40, 8), 8, b) == ["Reshape"]


@pytest.mark.parametrize(
    "begins",
    [range(0, 4 * (MANY - 1), 4), (0, 4, 8, 13), (12, 8, 4, 0), (3, 3, 3, 3)],
    ids=["few", "uneven", "backwards", "the same"],
)
def test_other_pieces_are_joined(begins):
    assert joined(begins, 7)[-1] in ("Concat", "Tile")


def test_pieces_turned_in_different_ways_are_joined():
    b = Build()
    x = b.input("x", 3, 40, 3)
    pieces = [sliced(b, x, 1, at, at + 3) for at in range(0, 20, 4)]
    pieces[2] = b("Transpose", pieces[2], perm=(2, 1, 0))
    after = applied(b.done(b("Concat", *pieces, axis=1)), Simplify())
    assert ops(after)[-1] == "Concat"


def test_pieces_of_different_values_are_joined():
    b = Build()
    x, y = b.input("x", 3, 40), b.input("y", 3, 40)
    pieces = [sliced(b, y if at == 8 else x, 1, at, at + 3) for at in range(0, 20, 4)]
    after = applied(b.done(b("Concat", *pieces, axis=1)), Simplify())
    assert ops(after)[-1] == "Concat"
