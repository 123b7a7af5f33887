"""Models that compile in a moment, one for each thing that the pipeline can meet."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto

from zoo.builder import GraphBuilder


def mlp() -> onnx.ModelProto:
    """Two layers, a symbolic batch, a softmax."""
    g = GraphBuilder("mlp")
    x = g.op("Relu", g.gemm(g.input("x", ("batch", 12)), "a", 12, 20))
    g.output(g.op("Softmax", g.gemm(x, "b", 20, 5), axis=-1), "y", ("batch", 5))
    return g.build()


def convnet() -> onnx.ModelProto:
    """Convolutions, normalisation, a residual sum, pooling, a head."""
    g = GraphBuilder("convnet")
    x = g.conv(g.input("x", (1, 3, 10, 10)), "stem", 3, 8, 3, 2, bias=False)
    x = g.op("Relu", g.batch_norm(x, "norm", 8))
    y = g.conv(x, "depthwise", 8, 8, 3, groups=8)
    x = g.op("Relu", g.op("Add", g.conv(y, "pointwise", 8, 8, 1), x))
    x = g.op("Flatten", g.op("GlobalAveragePool", x), axis=1)
    g.output(g.gemm(x, "head", 8, 4), "y", (1, 4))
    return g.build()


def transformer() -> onnx.ModelProto:
    """One encoder layer over a symbolic batch and length, shapes computed as exporters do."""
    g = GraphBuilder("transformer")
    width, heads = 16, 2
    ids = g.input("ids", ("batch", "seq"), TensorProto.INT64)
    x = g.layer_norm(g.op("Gather", g.normal("table", (11, width), 1.0), ids), "norm", width)
    q, k, v = (
        g.split_heads(g.linear(x, part, width, width), heads, width // heads) for part in "qkv"
    )
    y = g.attention(
        g.op("Transpose", q, perm=[0, 2, 1, 3]),
        g.op("Transpose", k, perm=[0, 2, 3, 1]),
        g.op("Transpose", v, perm=[0, 2, 1, 3]),
        width // heads,
    )
    y = g.linear(g.merge_heads(y, width), "out", width, width)
    x = g.layer_norm(g.op("Add", y, x), "norm1", width)
    g.output(g.gelu(g.linear(x, "up", width, 24)), "y", ("batch", "seq", 24))
    return g.build()


def with_host_operators() -> onnx.ModelProto:
    """What native code does not do, with a size that only the run tells, and strings."""
    g = GraphBuilder("hosts")
    x = g.op("Mul", g.input("x", ("n", 4)), g.scalar(2.0))
    found = g.op(
        "Compress",
        x,
        g.op("Greater", g.op("ReduceSum", x, g.ints(1), keepdims=0), g.scalar(0.0)),
        axis=0,
    )
    g.output(g.op("Exp", found), "y", ("kept", 4))
    labels = g.constant(np.array(["a", "b", "c", "d"], object))
    best = g.op("Gather", labels, g.op("ArgMax", x, axis=1, keepdims=0))
    g.output(best, "labels", ("n",), TensorProto.STRING)
    return g.build()


def feeds(name: str, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """Feeds of several sizes for the model of that name."""
    rng = np.random.default_rng(seed)
    if name == "transformer":
        return [{"ids": rng.integers(0, 11, s)} for s in ((1, 1), (2, 7), (3, 20))]
    shapes = {"mlp": [(1, 12), (5, 12)], "convnet": [(1, 3, 10, 10)], "hosts": [(1, 4), (6, 4)]}
    return [{"x": rng.standard_normal(s).astype(np.float32)} for s in shapes[name]]


MODELS = {
    "mlp": mlp,
    "convnet": convnet,
    "transformer": transformer,
    "hosts": with_host_operators,
}
