"""ConvNeXt-T (Liu et al. 2022, arXiv:2201.03545): 7x7 depthwise convolutions."""

from __future__ import annotations

import onnx

from zoo.builder import GraphBuilder

STAGES = [(96, 3), (192, 3), (384, 9), (768, 3)]  # channels, blocks


def convnext_tiny(batch: int = 1, size: int = 224) -> onnx.ModelProto:
    """The classifier of 1000 classes, with the transposes that exporters leave around each norm."""
    g = GraphBuilder("convnext_tiny")

    def last(x: str) -> str:
        return g.op("Transpose", x, perm=[0, 2, 3, 1])

    def first(x: str) -> str:
        return g.op("Transpose", x, perm=[0, 3, 1, 2])

    def patches(x: str, name: str, cin: int, cout: int, kernel: int) -> str:
        spread = (cin * kernel * kernel) ** -0.5
        weights = g.normal(f"{name}.weight", (cout, cin, kernel, kernel), spread)
        bias = g.normal(f"{name}.bias", (cout,), 0.02)
        window = {"kernel_shape": [kernel] * 2, "strides": [kernel] * 2}
        return g.op("Conv", x, weights, bias, **window)

    x = g.input("x", (batch, 3, size, size))
    x = first(g.layer_norm(last(patches(x, "stem", 3, 96, 4)), "stem.norm", 96, 1e-6))
    for stage, (width, blocks) in enumerate(STAGES):
        if stage:
            before = STAGES[stage - 1][0]
            x = first(g.layer_norm(last(x), f"down{stage}.norm", before, 1e-6))
            x = patches(x, f"down{stage}", before, width, 2)
        for i in range(blocks):
            name = f"stage{stage}.{i}"
            y = last(g.conv(x, f"{name}.depthwise", width, width, 7, groups=width))
            y = g.layer_norm(y, f"{name}.norm", width, 1e-6)
            y = g.gelu(g.linear(y, f"{name}.up", width, 4 * width))
            y = g.linear(y, f"{name}.down", 4 * width, width, 0.5)
            y = g.op("Mul", y, g.normal(f"{name}.scale", (width,), 0.02, 0.3))
            x = g.op("Add", x, first(y))
    x = g.op("ReduceMean", x, g.ints(2, 3), keepdims=0)
    x = g.layer_norm(x, "norm", 768, 1e-6)
    g.output(g.gemm(x, "classifier", 768, 1000), "logits", (batch, 1000))
    return g.build()
