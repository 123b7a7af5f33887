"""No vector register is spilled in the innermost loops of scheduled kernels.

A tile whose accumulators do not fit the registers works on the stack: right results at half the
speed. This reads the assembly of kernels that recipes schedule, for targets of 32 and of 16 vector
registers, on any machine.
"""

from __future__ import annotations

import re

import pytest

from aicc.codegen.jit import assembly
from aicc.codegen.kernel import lower_kernel
from aicc.symbolic import sym
from aicc.target import Target
from aicc.tensor_ir.builder import KernelBuilder
from aicc.tensor_ir.ir import Kernel, call
from aicc.tensor_ir.recipes import scheduled

N = sym("n", 1)
MULTIPLY_ADDS = 12
"""An innermost loop of at least so many is one that tiles are about."""


def product(rows, depth, columns, epilogue="max"):
    b = KernelBuilder("k")
    x = b.input("x", "f32", (rows, depth))
    w = b.constant("w", "f32", (depth, columns))
    c = b.constant("c", "f32", (columns,))
    t = b.reduce((rows, columns), (depth,), lambda i, j, k: x[i, k] * w[k, j])
    more = (0.0,) if epilogue == "max" else ()
    b.mark_output(b.compute((rows, columns), lambda i, j: call(epilogue, t[i, j] + c[j], *more)))
    return b.build()


def batched(rows, depth, columns):
    """Scores of attention: no operand is known beforehand."""
    b = KernelBuilder("k")
    x = b.input("x", "f32", (12, rows, depth))
    w = b.input("w", "f32", (12, depth, columns))
    r = b.reduce((12, rows, columns), (depth,), lambda h, i, j, k: x[h, i, k] * w[h, k, j])
    b.mark_output(r)
    return b.build()


def convolution(side, channels, filters, window, stride=1):
    """Channels last, borders padded before."""
    b = KernelBuilder("k")
    size = (side - 1) * stride + window
    x = b.input("x", "f32", (size, size, channels))
    w = b.constant("w", "f32", (filters, channels, window, window))
    t = b.reduce(
        (side, side, filters),
        (window, window, channels),
        lambda i, j, f, a, e, c: x[i * stride + a, j * stride + e, c] * w[f, c, a, e],
    )
    b.mark_output(b.compute((side, side, filters), lambda i, j, f: call("max", t[i, j, f], 0.0)))
    return b.build()


def depthwise(side, channels, window, stride=1):
    b = KernelBuilder("k")
    size = (side - 1) * stride + window
    x = b.input("x", "f32", (size, size, channels))
    w = b.constant("w", "f32", (channels, window, window))
    t = b.reduce(
        (side, side, channels),
        (window, window),
        lambda i, j, c, a, e: x[i * stride + a, j * stride + e, c] * w[c, a, e],
    )
    b.mark_output(b.compute((side, side, channels), lambda i, j, c: call("max", t[i, j, c], 0.0)))
    return b.build()


KERNELS = {
    "product 32x1024x1024": product(32, 1024, 1024),
    "product 128x768x768": product(128, 768, 768),
    "product 128x3072x768": product(128, 3072, 768),
    "product 197x768x3072 erf": product(197, 768, 3072, "erf"),
    "product 3136x64x256": product(3136, 64, 256),
    "product 49x512x2048": product(49, 512, 2048),
    "product 1x2048x1000": product(1, 2048, 1000),
    "product nx768x2304": product(N, 768, 2304),
    "product nx257x64 tanh": product(N, 257, 64, "tanh"),
    "product nx64x10": product(N, 64, 10),
    "batched 128x64x128": batched(128, 64, 128),
    "batched nx64xn": batched(N, 64, N),
    "batched nxnx64": batched(N, N, 64),
    "convolution 56, 64 3x3": convolution(56, 64, 64, 3),
    "convolution 14, 256 3x3 / 2": convolution(14, 256, 256, 3, 2),
    "convolution 112, 3 7x7 / 2": convolution(112, 3, 64, 7, 2),
    "convolution 112, 3 3x3 / 2": convolution(112, 3, 32, 3, 2),
    "convolution 7, 512 3x3": convolution(7, 512, 512, 3),
    "convolution 19, 40 5x5": convolution(19, 40, 24, 5),
    "depthwise 56, 144 3x3": depthwise(56, 144, 3),
    "depthwise 28, 240 5x5 / 2": depthwise(28, 240, 5, 2),
    "depthwise 14, 384 7x7": depthwise(14, 384, 7),
    "depthwise 28, 96 13x13": depthwise(28, 96, 13),
    "depthwise 28, 96 31x31": depthwise(28, 96, 31),
}


def inner_loops(text: str) -> list[list[str]]:
    """The lines of each innermost loop: from a label to a jump back to it."""
    lines = text.splitlines()
    labels: dict[str, int] = {}
    found = []
    for n, line in enumerate(lines):
        label = re.match(r"(\.LBB\w+):", line)
        if label:
            labels[label[1]] = n
        jump = re.match(r"\s+j\w+\s+(\.LBB\w+)", line)
        if jump and jump[1] in labels:
            body = lines[labels[jump[1]] + 1 : n]
            if not any(re.match(r"\.LBB", x) for x in body):
                found.append(body)
    return found


def spilled(body: list[str]) -> set[str]:
    """Places on the stack that vectors go to and come back from in one turn of a loop. A place that
    is only read, or only written, belongs to a local buffer."""
    store = re.compile(r"\s+vmov[au]p[sd]\s+%[xyz]mm\d+,\s*(-?\d*\(%rsp\))$")
    load = re.compile(r"\s+v\w+\s+(?:\$\d+,\s*)?(-?\d*\(%rsp\)),.*mm\d+")
    stored = {m[1] for line in body if (m := store.match(line))}
    loaded = {m[1] for line in body if (m := load.match(line))}
    return stored & loaded


@pytest.mark.parametrize("level", ["x86-64-v4", "x86-64-v3"])
@pytest.mark.parametrize("name", KERNELS)
def test_no_spills_in_inner_loops(name: str, level: str) -> None:
    target = Target.from_name(level)
    kernel: Kernel = scheduled(KERNELS[name], target)[0]
    loops = inner_loops(assembly(lower_kernel(kernel, target), target))
    tiles = [x for x in loops if sum("vfmadd" in line for line in x) >= MULTIPLY_ADDS]
    assert tiles or "depthwise" in name, "no loop computes tiles"
    places = sorted({place for body in tiles for place in spilled(body)})
    assert not places


def test_what_counts_as_a_spill() -> None:
    text = """
.LBB0_1:
	vmovaps	%zmm0, 64(%rsp)
	vfmadd231ps	(%rsp), %zmm1, %zmm2
	vmovups	%zmm5, -128(%rsp)
	vmovups	(%rdi,%rsp), %zmm3
	vmovups	64(%rsp), %zmm3
	vfmadd231ps	-128(%rsp), %zmm1, %zmm2
	vmovups	%zmm5, 256(%rsp)
	vbroadcastss	16(%rsp), %zmm4
	jne	.LBB0_1
"""
    (body,) = inner_loops(text)
    assert spilled(body) == {"64(%rsp)", "-128(%rsp)"}
