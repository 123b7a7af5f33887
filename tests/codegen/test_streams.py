"""Constants that stream from memory through a loop are asked for ahead, where that helps."""

from __future__ import annotations

import numpy as np
import pytest

from aicc.codegen.kernel import lower_kernel
from aicc.codegen.target import Target
from aicc.symbolic import sym
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
        (16, 64, True, False),  # stays in the second cache
        (1000, LARGE, True, False),  # used so often that the first time does not count
        (1, LARGE, True, False),  # nothing but loads: enough of them are under way
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
