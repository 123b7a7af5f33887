"""DenseNet-121 (Huang et al. 2016, arXiv:1608.06993): every layer reads all before it."""

from __future__ import annotations

import onnx

from zoo.builder import GraphBuilder

BLOCKS = (6, 12, 24, 16)
GROWTH = 32


def densenet121(batch: int = 1, size: int = 224) -> onnx.ModelProto:
    """The classifier of 1000 classes; normalisation before each convolution, as trained."""
    g = GraphBuilder("densenet121")

    def norm_relu(x: str, name: str, channels: int) -> str:
        return g.op("Relu", g.batch_norm(x, name, channels, 0.8))

    x = g.conv(g.input("x", (batch, 3, size, size)), "stem", 3, 64, 7, 2, bias=False)
    x = norm_relu(x, "stem.norm", 64)
    x = g.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    channels = 64
    for block, layers in enumerate(BLOCKS):
        for i in range(layers):
            name = f"block{block}.{i}"
            y = norm_relu(x, f"{name}.norm1", channels)
            y = g.conv(y, f"{name}.conv1", channels, 4 * GROWTH, 1, bias=False)
            y = norm_relu(y, f"{name}.norm2", 4 * GROWTH)
            y = g.conv(y, f"{name}.conv2", 4 * GROWTH, GROWTH, 3, bias=False)
            x = g.op("Concat", x, y, axis=1)
            channels += GROWTH
        if block + 1 < len(BLOCKS):
            x = norm_relu(x, f"transition{block}.norm", channels)
            x = g.conv(x, f"transition{block}", channels, channels // 2, 1, bias=False)
            x = g.op("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
            channels //= 2
    x = norm_relu(x, "norm", channels)
    x = g.op("Flatten", g.op("GlobalAveragePool", x), axis=1)
    g.output(g.gemm(x, "classifier", channels, 1000), "logits", (batch, 1000))
    return g.build()
