"""ResNet-18 and ResNet-50 (He et al. 2015, arXiv:1512.03385), with batch normalisation as trained.

The stride of a bottleneck is on its 3x3 convolution, as in the widely used variant 1.5.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx

from zoo.builder import GraphBuilder


def resnet18(batch: int = 1, size: int = 224) -> onnx.ModelProto:
    """Basic blocks of two 3x3 convolutions."""
    return _resnet("resnet18", (2, 2, 2, 2), _basic, 1, batch, size)


def resnet50(batch: int = 1, size: int = 224) -> onnx.ModelProto:
    """Bottlenecks of 1x1, 3x3 and 1x1 convolutions."""
    return _resnet("resnet50", (3, 4, 6, 3), _bottleneck, 4, batch, size)


def _conv_norm(
    g: GraphBuilder, x: str, name: str, cin: int, cout: int, kernel: int, stride: int = 1
) -> str:
    x = g.conv(x, name, cin, cout, kernel, stride, bias=False)
    return g.batch_norm(x, f"{name}.norm", cout, 0.7)


def _basic(g: GraphBuilder, x: str, name: str, cin: int, width: int, stride: int) -> str:
    x = g.op("Relu", _conv_norm(g, x, f"{name}.conv1", cin, width, 3, stride))
    return _conv_norm(g, x, f"{name}.conv2", width, width, 3)


def _bottleneck(g: GraphBuilder, x: str, name: str, cin: int, width: int, stride: int) -> str:
    x = g.op("Relu", _conv_norm(g, x, f"{name}.conv1", cin, width, 1))
    x = g.op("Relu", _conv_norm(g, x, f"{name}.conv2", width, width, 3, stride))
    return _conv_norm(g, x, f"{name}.conv3", width, 4 * width, 1)


def _resnet(
    name: str,
    depths: tuple[int, ...],
    block: Callable[[GraphBuilder, str, str, int, int, int], str],
    expansion: int,
    batch: int,
    size: int,
) -> onnx.ModelProto:
    g = GraphBuilder(name)
    x = g.input("x", (batch, 3, size, size))
    x = g.op("Relu", _conv_norm(g, x, "stem", 3, 64, 7, 2))
    x = g.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    cin = 64
    for stage, depth in enumerate(depths):
        width = 64 << stage
        for i in range(depth):
            label = f"layer{stage}.{i}"
            stride = 2 if stage and not i else 1
            shortcut = x
            if stride > 1 or cin != width * expansion:
                shortcut = _conv_norm(g, x, f"{label}.proj", cin, width * expansion, 1, stride)
            x = g.op("Relu", g.op("Add", block(g, x, label, cin, width, stride), shortcut))
            cin = width * expansion
    x = g.op("Flatten", g.op("GlobalAveragePool", x), axis=1)
    g.output(g.gemm(x, "head", cin, 1000), "logits", (batch, 1000))
    return g.build()
