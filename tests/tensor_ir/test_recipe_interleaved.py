"""The recipe for products whose results alternate along the contiguous axis."""

from __future__ import annotations

import numpy as np
import pytest
from recipe_check import TARGET, check

from aicc.codegen.kernel import lower_kernel
from aicc.ops.sizes import within
from aicc.symbolic import ceildiv, sym
from aicc.tensor_ir.builder import KernelBuilder
from aicc.tensor_ir.ir import call, select
from aicc.tensor_ir.recipes.interleaved import Problem, choose_block


def phased(shape, filters, kernel, stride, costly=False):
    """[C, W] -> [O, W * stride]: every element spreads over `kernel` results from its own on."""
    channels, width = shape
    b = KernelBuilder("k")
    x = b.input("x", "f32", (channels, width + kernel // stride))
    w = b.constant("w", "f32", (channels, filters, kernel))
    before = ceildiv(kernel, stride) - 1

    def extents(o, phase, u):
        return (ceildiv(kernel - phase, stride), channels)

    def term(o, phase, u, j, c):
        return x[c, u - j + before] * w[c, o, phase + j * stride]

    sums = b.reduce((filters, stride, width), extents, term)
    shift = b.constant("b", "f32", (filters,))

    def result(o, p):
        value = sums[o, p % stride, p // stride] + shift[o]
        return call("tanh", value) if costly else value

    b.mark_output(b.compute((filters, width * stride), result))
    return b.build()


def tiled(made):
    return {b.scope for b in made.buffers if b not in made.params} == {"register"}


@pytest.mark.parametrize("kernel, stride", [(2, 2), (4, 2), (3, 2), (5, 3), (9, 4), (3, 5)])
@pytest.mark.parametrize("width", [5, 16, 33])
def test_phases_are_interleaved_in_registers(width, kernel, stride):
    text, made = check(phased((3, width), 3, kernel, stride))
    assert tiled(made) and "vectorize" in text


def test_the_width_may_be_a_size_of_the_run():
    kernel = phased((4, sym("w", 1)), 2, 3, 2)
    for w in (1, 16, 50, 97):
        text, made = check(kernel, {"w": w})
        assert tiled(made) and "peel" in text


def test_a_long_function_behind_it_is_right():
    check(phased((3, 20), 2, 4, 2, costly=True))


def test_lanes_are_picked_by_shuffles_and_none_is_gathered():
    _, made = check(phased((4, 32), 2, 4, 2))
    text = lower_kernel(made, TARGET)
    assert "shufflevector" in text and "gather" not in text and "scatter" not in text


def test_blocks_fit_the_registers_and_waste_no_vectors():
    for rows in ((1,), (3,), (16,), (4, 2)):
        for pixels in ((8,), (28,), (64,), (8, 64, 200)):
            _, block = choose_block(TARGET, 16, Problem(rows, 2, pixels, 2, 64))
            tile = int(np.prod(block.rows)) * 2 * block.vectors
            assert tile + 2 * block.vectors + 2 <= TARGET.vector_registers
            assert all(n % r == 0 for n, r in zip(rows, block.rows, strict=True))
    assert choose_block(TARGET, 16, Problem((1,), 2, (28,), 2, 64))[1].vectors == 2
    assert choose_block(TARGET, 16, Problem((1,), 40, (28,), 2, 64)) is None


def folded(width, kernel, stride):
    """[kernel, W] -> [W * stride + kernel]: windows that overlap are added up."""
    b = KernelBuilder("k")
    x = b.input("x", "f32", (kernel, width))
    steps = width + ceildiv(kernel, stride)

    def term(o, phase, t, j):
        inside = within((t - j, 0, width))
        return select(inside, x[phase + j * stride, t - j], 0.0)

    extents = lambda o, phase, t: (ceildiv(kernel - phase, stride),)  # noqa: E731
    sums = b.reduce((2, stride, steps), extents, term)
    b.mark_output(b.compute((2, steps * stride), lambda o, p: sums[o, p % stride, p // stride]))
    return b.build()


@pytest.mark.parametrize("kernel, stride", [(8, 1), (4, 2), (5, 2), (9, 4)])
@pytest.mark.parametrize("width", [5, 33])
def test_sums_without_weights_are_tiles_too(width, kernel, stride):
    text, made = check(folded(width, kernel, stride))
    assert tiled(made) and "vectorize" in text
