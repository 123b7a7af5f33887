"""EfficientNet-B0 (Tan and Le 2019, arXiv:1905.11946): squeeze and excitation."""

from __future__ import annotations

import onnx

from zoo.builder import GraphBuilder

# (expansion, kernel, output channels, repeats, stride of the first), table 1 of the paper
STAGES = [
    (1, 3, 16, 1, 1),
    (6, 3, 24, 2, 2),
    (6, 5, 40, 2, 2),
    (6, 3, 80, 3, 2),
    (6, 5, 112, 3, 1),
    (6, 5, 192, 4, 2),
    (6, 3, 320, 1, 1),
]


def efficientnet_b0(batch: int = 1, size: int = 224) -> onnx.ModelProto:
    """The classifier of 1000 classes; batch normalisation folded, as exporters write it."""
    g = GraphBuilder("efficientnet_b0")

    def silu(x: str) -> str:
        return g.op("Mul", x, g.op("Sigmoid", x))

    def squeeze_excite(x: str, name: str, channels: int, squeezed: int) -> str:
        s = g.op("ReduceMean", x, g.ints(2, 3), keepdims=1)
        s = silu(g.conv(s, f"{name}.reduce", channels, squeezed, 1))
        return g.op("Mul", x, g.op("Sigmoid", g.conv(s, f"{name}.expand", squeezed, channels, 1)))

    x = g.input("x", (batch, 3, size, size))
    x = silu(g.conv(x, "stem", 3, 32, 3, 2))
    cin = 32
    for stage, (expansion, kernel, cout, repeats, first) in enumerate(STAGES):
        for i in range(repeats):
            name, stride, wide = f"stage{stage}.{i}", first if i == 0 else 1, cin * expansion
            y = x
            if expansion > 1:
                y = silu(g.conv(y, f"{name}.expand", cin, wide, 1))
            y = silu(g.conv(y, f"{name}.depthwise", wide, wide, kernel, stride, groups=wide))
            y = squeeze_excite(y, f"{name}.se", wide, cin // 4)
            y = g.conv(y, f"{name}.project", wide, cout, 1)
            x = g.op("Add", x, y) if stride == 1 and cin == cout else y
            cin = cout
    x = silu(g.conv(x, "head", cin, 1280, 1))
    x = g.op("Flatten", g.op("GlobalAveragePool", x), axis=1)
    g.output(g.gemm(x, "classifier", 1280, 1000), "logits", (batch, 1000))
    return g.build()
