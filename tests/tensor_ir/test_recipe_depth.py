"""Products whose depth, or columns, are listed in another order than the data lie in memory."""

from __future__ import annotations

import pytest
from recipe_check import check

from aicc.symbolic import sym
from aicc.tensor_ir.builder import KernelBuilder

N = sym("n", 1)


def flattened(batch, height, width, channels, columns, scope="constant"):
    """Features of images in channels-last order, listed channel by channel, times a matrix."""
    b = KernelBuilder("k")
    x = b.input("x", "f32", (batch, height, width, channels))
    depth = channels * height * width
    w = getattr(b, scope)("w", "f32", (depth, columns))
    pixels = height * width
    y = b.reduce(
        (batch, columns),
        (depth,),
        lambda i, j, k: x[i, k % pixels // width, k % width, k // pixels] * w[k, j],
    )
    b.mark_output(y)
    return b.build()


def layout(kernel):
    """The layout of the weights."""
    return next(p for p in kernel.params if p.name == "w").pack


@pytest.mark.parametrize(
    ("batch", "height", "width", "channels"),
    [(1, 2, 3, 20), (5, 7, 7, 16), (8, 1, 6, 33), (12, 5, 1, 17), (3, 4, 4, 1)],
)
def test_pixels_are_outside_and_channels_inside(batch, height, width, channels):
    _, made = check(flattened(batch, height, width, channels, 40), tolerance=1e-4)
    pixels = height * width
    inside = f"0%{pixels} 0/{pixels}" in layout(made)
    assert inside == (pixels > 1 and channels > 1)


def test_images_of_any_number():
    for batch in (1, 2, 9, 16):
        _, made = check(flattened(N, 3, 3, 18, 35), {"n": batch}, 1e-4)
        assert "0%9 0/9" in layout(made)


def test_a_matrix_that_is_computed_keeps_its_order():
    _, made = check(flattened(6, 3, 3, 18, 48, "input"), tolerance=1e-4)
    (w,) = [p for p in made.params if p.name == "w"]
    assert w.shape == (162, 48)


def test_a_window_keeps_the_order_of_its_weights():
    b = KernelBuilder("k")
    x = b.input("x", "f32", (20, 8))
    w = b.constant("w", "f32", (3, 8, 32))
    b.mark_output(b.reduce((18, 32), (3, 8), lambda i, f, k, c: x[i + k, c] * w[k, c, f]))
    _, made = check(b.build())
    assert "%" not in layout(made).rsplit(" ", 1)[0]


@pytest.mark.parametrize(("outer", "inner"), [(8, 13), (3, 40), (2, 65)])
def test_columns_of_two_axes_are_copied_as_one(outer, inner):
    b = KernelBuilder("k")
    a = b.input("a", "f32", (3, 20, 12))
    x = b.input("x", "f32", (3, outer, 12, inner))
    y = b.reduce(
        (3, 20, outer * inner),
        (12,),
        lambda h, i, j, k: a[h, i, k] * x[h, j // inner, k, j % inner],
    )
    b.mark_output(y)
    steps, made = check(b.build())
    assert "cache_read" in steps and "fuse_axes" in steps
    (copy,) = [c for c in made.buffers if c.scope == "stack"]
    assert len(copy.shape) == 3 and copy.shape[2] < inner * outer + 16


def test_columns_in_the_other_order_are_copied_as_one():
    b = KernelBuilder("k")
    a, x = b.input("a", "f32", (20, 12)), b.input("x", "f32", (13, 12, 8))
    y = b.reduce((20, 104), (12,), lambda i, j, k: a[i, k] * x[j % 13, k, j // 13])
    b.mark_output(y)
    steps, _ = check(b.build())
    assert "cache_read" in steps and "fuse_axes" in steps


def test_columns_of_two_axes_of_a_constant_keep_them():
    b = KernelBuilder("k")
    a, w = b.input("a", "f32", (20, 40)), b.constant("w", "f32", (40, 16, 5))
    b.mark_output(b.reduce((20, 16, 5), (40,), lambda i, t, d, k: a[i, k] * w[k, t, d]))
    _, made = check(b.build())
    assert len(made.buffer("w").pack.split()) == 4  # of three axes, one in tiles
