"""A multilayer perceptron: 784 -> 1024 -> 1024 -> 10, the classic of handwritten digits."""

from __future__ import annotations

import onnx

from zoo.builder import GraphBuilder


def mlp(batch: int = 32) -> onnx.ModelProto:
    """784 -> 1024 -> 1024 -> 10 with ReLU and a softmax."""
    g = GraphBuilder("mlp")
    x = g.input("x", (batch, 784))
    for i, (inputs, outputs) in enumerate([(784, 1024), (1024, 1024)]):
        x = g.op("Relu", g.gemm(x, f"fc{i}", inputs, outputs))
    g.output(g.op("Softmax", g.gemm(x, "head", 1024, 10), axis=-1), "y", (batch, 10))
    return g.build()


def mlp_small(batch: int = 1, width: int = 64) -> onnx.ModelProto:
    """Two layers over one row of 64: what a call costs."""
    g = GraphBuilder("mlp_small")
    x = g.input("x", (batch, width))
    x = g.op("Relu", g.gemm(x, "fc0", width, width))
    g.output(g.gemm(x, "fc1", width, width), "y", (batch, width))
    return g.build()
