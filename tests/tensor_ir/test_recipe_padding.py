"""Products that read padded data."""

from __future__ import annotations

import math

import pytest
from recipe_check import check

from aicc.ops.sizes import within
from aicc.tensor_ir.builder import KernelBuilder
from aicc.tensor_ir.ir import select


def pointwise(channels_last, size=20, channels=5, filters=3):
    """A 1x1 convolution of an image with a border of zeros."""
    b = KernelBuilder("k")
    shape = (size, size, channels) if channels_last else (channels, size, size)
    x = b.input("x", "f32", shape)
    w = b.constant("w", "f32", (filters, channels))
    n = size + 2

    def border(*i):
        y, z = i[:2] if channels_last else i[1:]
        c = i[2] if channels_last else i[0]
        index = (y - 1, z - 1, c) if channels_last else (c, y - 1, z - 1)
        return select(within((y - 1, 0, size), (z - 1, 0, size)), x[index], 0.0)

    big = (n, n, channels) if channels_last else (channels, n, n)
    padded = b.compute(big, border, name="padded")
    if channels_last:
        y = b.reduce((n, n, filters), (channels,), lambda i, j, o, c: padded[i, j, c] * w[o, c])
    else:
        y = b.reduce((filters, n, n), (channels,), lambda o, i, j, c: padded[c, i, j] * w[o, c])
    b.mark_output(y)
    return b.build()


@pytest.mark.parametrize("channels_last", [False, True])
def test_a_tile_copies_the_rows_that_it_reads(channels_last):
    _, made = check(pointwise(channels_last))
    copies = [math.prod(b.shape) for b in made.buffers if b.name.startswith("padded")]
    assert sum(copies) <= 2 * 5 * 32
