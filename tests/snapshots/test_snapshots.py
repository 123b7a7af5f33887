"""The kernels of three small models as text: a refactoring changes none of them.

`--update-golden` writes the texts anew after a change that is meant to change kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import onnx
import pytest

import aicc
from aicc.graph_ir.module import Module
from aicc.target import Target
from zoo.builder import GraphBuilder

TARGET = replace(
    Target.from_name("x86-64-v3"),
    l1d=32 << 10,
    l2=1 << 20,
    l3=32 << 20,
    cores=2,
)
"""A machine that is the same wherever the test runs."""


def mlp() -> onnx.ModelProto:
    g = GraphBuilder("mlp")
    x = g.op("Relu", g.gemm(g.input("x", ("batch", 40)), "hidden", 40, 48))
    g.output(g.op("Softmax", g.gemm(x, "head", 48, 10), axis=-1), "y", ("batch", 10))
    return g.build()


def convolutions() -> onnx.ModelProto:
    g = GraphBuilder("convolutions")
    x = g.op("Relu", g.conv(g.input("x", (1, 3, 16, 16)), "stem", 3, 16, 3, 2))
    y = g.op("HardSwish", g.conv(x, "depthwise", 16, 16, 3, groups=16))
    x = g.op("Add", g.conv(y, "pointwise", 16, 16, 1), x)
    g.output(g.op("Flatten", g.op("GlobalAveragePool", x)), "y", (1, 16))
    return g.build()


def attention() -> onnx.ModelProto:
    g = GraphBuilder("attention")
    x = g.input("x", ("batch", "seq", 32))
    y = g.layer_norm(x, "norm", 32)
    q, k, v = (g.split_heads(g.linear(y, part, 32, 32), 2, 16) for part in ("q", "k", "v"))
    q, v = (g.op("Transpose", part, perm=[0, 2, 1, 3]) for part in (q, v))
    y = g.attention(q, g.op("Transpose", k, perm=[0, 2, 3, 1]), v, 16)
    y = g.op("Add", x, g.linear(g.merge_heads(y, 32), "out", 32, 32))
    g.output(y, "y", ("batch", "seq", 32))
    return g.build()


@pytest.mark.parametrize("model", [mlp, convolutions, attention], ids=lambda f: f.__name__)
def test_kernels(model: Callable[[], onnx.ModelProto], golden: Callable[[str, str], None]) -> None:
    module = aicc.compile(model(), target=TARGET, stop_after="schedule")
    assert isinstance(module, Module)
    golden(model.__name__, "\n".join(f"{kernel}" for kernel in module.kernels.values()))
