"""Products whose right operand is computed, too: read in place, or its panels copied."""

from __future__ import annotations

import dataclasses

import pytest
from recipe_check import check

from aicc.target import Target
from aicc.tensor_ir.builder import KernelBuilder
from aicc.tensor_ir.recipes.tiles import Problem, choose_tile, copies

LARGE = dataclasses.replace(
    Target.from_name("x86-64-v4"), l1d=48 << 10, l2=1 << 20, l3=32 << 20, cpu="znver5"
)
SMALL = dataclasses.replace(LARGE, l1d=4 << 10, l2=8 << 10, l3=32 << 10)


def product(rows, depth, columns):
    b = KernelBuilder("k")
    x = b.input("x", "f32", (rows, depth))
    w = b.input("w", "f32", (depth, columns))
    b.mark_output(b.reduce((rows, columns), (depth,), lambda i, j, k: x[i, k] * w[k, j]))
    return b.build()


def problem(rows, depth, columns, far=False):
    stride = 4 * columns
    return Problem(
        rows, columns, depth, 4 * depth, right_stride=stride, copyable=True, far=far, alone=True
    )


def is_copied(machine, p):
    return copies(machine, choose_tile(machine, "f32", p), p)


def test_panels_whose_rows_share_few_sets_are_copied_for_many_tiles():
    assert is_copied(LARGE, problem(1024, 1024, 1024))
    assert not is_copied(LARGE, problem(8, 1024, 1024))
    assert not is_copied(LARGE, problem(1024, 256, 1000)), "they stay in the second cache"


def test_panels_that_no_cache_keeps_are_not_copied_for_that():
    assert not is_copied(LARGE, problem(256, 65536, 16))


def test_a_constant_is_never_copied():
    p = dataclasses.replace(problem(1024, 1024, 1024), copyable=False, right_stride=0)
    assert not is_copied(LARGE, p)


@pytest.mark.parametrize("rows", [1, 2, 4, 8])
def test_few_rows_read_whole_pairs_of_lines_of_a_matrix_in_memory(rows):
    tile = choose_tile(LARGE, "f32", problem(rows, 4096, 4096, far=True))
    assert tile.vectors % 2 == 0
    assert tile.vectors >= 16 or rows > 1


def test_a_last_cache_that_is_fast_feeds_wide_tiles():
    """A panel of two vectors and 6400 elements comes from the last cache: of 14 rows, tiles of one
    vector need more loads than the core has time for."""
    p = Problem(14, 256, 6400)
    slow = dataclasses.replace(LARGE, cpu="generic")
    assert LARGE.l3_rate > slow.l3_rate
    assert choose_tile(LARGE, "f32", p).vectors == 2
    assert choose_tile(slow, "f32", p).vectors == 1


@pytest.mark.parametrize(("rows", "columns"), [(150, 128), (31, 72), (1, 128), (9, 40)])
def test_copies_change_nothing(rows, columns):
    steps, made = check(product(rows, 72, columns), tolerance=1e-4, target=SMALL)
    copied = any(b.scope == "stack" for b in made.buffers)
    assert ("cache_read" in steps) == copied
    assert copied == (rows == 150)


@pytest.mark.parametrize("size", [(4, 12), (5, 7), (28, 28)])
def test_channels_ahead_of_pixels_stay_an_axis(size):
    """A product of filters and pixels: tiles of columns of any width, the last of them short."""
    height, width = size
    b = KernelBuilder("k")
    x = b.input("x", "f32", (20, height, width))
    w = b.constant("w", "f32", (24, 20))
    y = b.reduce((24, height, width), (20,), lambda f, i, j, c: w[f, c] * x[c, i, j])
    b.mark_output(y)
    _, made = check(b.build(), tolerance=1e-4)
    (read,) = [p for p in made.params if p.name == "x"]
    assert read.shape == (20, height * width)
    tile = next(b for b in made.buffers if b.scope == "register")
    assert tile.shape[-1] > 16 or height * width <= 16
