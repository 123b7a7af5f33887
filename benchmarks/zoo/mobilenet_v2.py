"""MobileNetV2, width 1.0 (Sandler et al. 2018, arXiv:1801.04381): linear bottlenecks."""

from __future__ import annotations

import onnx

from zoo.builder import GraphBuilder

# (expansion, output channels, repeats, stride of the first), table 2 of the paper
STAGES = [
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
]


def mobilenet_v2(batch: int = 1, size: int = 224) -> onnx.ModelProto:
    """The classifier of 1000 classes; batch normalisation folded, as exporters write it."""
    g = GraphBuilder("mobilenet_v2")
    zero, six = g.scalar(0.0), g.scalar(6.0)

    def relu6(x: str) -> str:
        return g.op("Clip", x, zero, six)

    x = g.input("x", (batch, 3, size, size))
    x = relu6(g.conv(x, "stem", 3, 32, 3, 2))
    cin = 32
    for stage, (expansion, cout, repeats, first) in enumerate(STAGES):
        for i in range(repeats):
            name, stride, wide = f"stage{stage}.{i}", first if i == 0 else 1, cin * expansion
            y = x
            if expansion > 1:
                y = relu6(g.conv(y, f"{name}.expand", cin, wide, 1))
            y = relu6(g.conv(y, f"{name}.depthwise", wide, wide, 3, stride, groups=wide))
            y = g.conv(y, f"{name}.project", wide, cout, 1)
            x = g.op("Add", x, y) if stride == 1 and cin == cout else y
            cin = cout
    x = relu6(g.conv(x, "head", cin, 1280, 1))
    x = g.op("ReduceMean", x, g.ints(2, 3), keepdims=0)
    g.output(g.gemm(x, "classifier", 1280, 1000), "logits", (batch, 1000))
    return g.build()
