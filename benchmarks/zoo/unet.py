"""U-Net (Ronneberger et al. 2015, arXiv:1505.04597), with padding and 32 to 512 channels."""

from __future__ import annotations

import onnx

from zoo.builder import GraphBuilder


def unet(batch: int = 1, size: int = 256, channels: int = 32) -> onnx.ModelProto:
    """Four levels down and up; two classes for each pixel."""
    g = GraphBuilder("unet")

    def double(x: str, name: str, cin: int, cout: int) -> str:
        x = g.op("Relu", g.conv(x, f"{name}.conv1", cin, cout, 3))
        return g.op("Relu", g.conv(x, f"{name}.conv2", cout, cout, 3))

    x = g.input("x", (batch, 3, size, size))
    skips: list[str] = []
    cin = 3
    for level in range(4):
        x = double(x, f"down{level}", cin, channels << level)
        cin = channels << level
        skips.append(x)
        x = g.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = double(x, "bottom", cin, channels << 4)
    for level in reversed(range(4)):
        wide, narrow = channels << (level + 1), channels << level
        weights = g.normal(f"up{level}.weight", (wide, narrow, 2, 2), (2 / wide) ** 0.5)
        bias = g.normal(f"up{level}.bias", (narrow,), 0.02)
        x = g.op("ConvTranspose", x, weights, bias, kernel_shape=[2, 2], strides=[2, 2])
        x = double(g.op("Concat", skips[level], x, axis=1), f"merge{level}", wide, narrow)
    g.output(g.conv(x, "head", channels, 2, 1), "logits", (batch, 2, size, size))
    return g.build()
