"""Constants that stream from memory through a loop are asked for ahead, where that helps."""

from __future__ import annotations

import numpy as np
import pytest

from aicc.codegen.kernel import lower_kernel
from aicc.symbolic import sym
from aicc.target import Target
from aicc.tensor_ir.builder import KernelBuilder
from aicc.tensor_ir.recipes import scheduled

TARGET = Target.from_name("x86-64-v4")


def product(rows, depth, columns, constant=True):
    b = KernelBuilder("k")
    x = b.input("x", "f32", (rows, depth))
    w = (b.constant if constant else b.input)("w", "f32", (depth, columns))
    b.mark_output(b.reduce((rows, columns), (depth,), lambda i, j, k: x[i, k] * w[k, j]))
    return scheduled(b.build(), TARGET)[0]


LARGE = TARGET.l2 // 4 // 512 + 64


@pytest.mark.parametrize(
    "rows, columns, constant, ahead",
    [
        (16, LARGE, True, True),
        (16, 256, True, True),  # the second cache holds it, but not from run to run
        (16, 64, True, False),  # stays in the second cache
        (1000, LARGE, True, False),  # used so often that the first time does not count
        (1, LARGE, True, False),  # nothing but loads: enough of them are under way
        (4, LARGE, True, False),  # not much more
        (8, LARGE, True, True),
        (16, LARGE, False, False),  # nobody knows where it is
        (sym("n", lo=1), LARGE, True, False),
    ],
)
def test_prefetch(rows, columns, constant, ahead):
    text = lower_kernel(product(rows, 512, columns, constant), TARGET)
    assert ("@llvm.prefetch" in text) == ahead


def test_every_line_of_the_stream_is_asked_for_once():
    made = product(16, 512, LARGE)
    (w,) = (b for b in made.params if b.scope == "const")
    text = lower_kernel(made, TARGET)
    width = int(w.shape[-1])
    steps = text.count("call void @llvm.prefetch")
    assert steps % (width * 4 // 64) == 0
    assert np.prod([n for n in w.shape if isinstance(n, int)]) * 4 > TARGET.l2


def scores(rows, depth, constant=True):
    """Products with a constant added, and what is made of their rows: a tile of the constant is
    read beside the loop that computes a tile."""
    b = KernelBuilder("k")
    q, k, v = (b.input(n, "f32", (8, rows, depth)) for n in "qkv")
    shape = (8, rows, rows)
    w = (b.constant if constant else b.input)("w", "f32", shape)
    s = b.reduce(shape, (depth,), lambda h, i, j, k_: q[h, i, k_] * k[h, j, k_])
    s = b.compute(shape, lambda *i, s=s: s[i] + w[i])
    top = b.reduce((8, rows, 1), (rows,), lambda h, i, o, j: s[h, i, j], op="max")
    p = b.compute(shape, lambda h, i, j: s[h, i, j] - top[h, i, 0])
    b.mark_output(b.reduce((8, rows, depth), (rows,), lambda h, i, d, j: p[h, i, j] * v[h, j, d]))
    return scheduled(b.build(), TARGET)[0]


@pytest.mark.parametrize(
    "rows, constant, ahead", [(196, True, True), (196, False, False), (32, True, False)]
)
def test_what_is_read_beside_a_loop_is_asked_for_in_it(rows, constant, ahead):
    """Some of it in each iteration: no more lines at once than a core can wait for."""
    made = scores(rows, 32, constant)
    text = lower_kernel(made, TARGET)
    assert ("call void @llvm.prefetch" in text) == ahead
    if ahead:
        (w,) = (b for b in made.params if b.scope == "const")
        lines = int(np.prod([int(n) for n in w.shape[-2:]])) * 4 // 64
        calls = [
            block.count("call void @llvm.prefetch")
            for block in text.split("\nloop")
            if "@llvm.prefetch" in block and "declare" not in block
        ]
        assert len(calls) == 1 and 1 <= calls[0] <= 4 < lines
        assert calls[0] * 8 >= lines  # 8 iterations of four steps each
