"""ViT-Base/16 (Dosovitskiy et al. 2020, arXiv:2010.11929)."""

from __future__ import annotations

import numpy as np
import onnx

from zoo.builder import GraphBuilder


def vit_base(batch: int = 1, size: int = 224, layers: int = 12) -> onnx.ModelProto:
    """Patches of 16x16, 768 channels, 12 heads; classifies the first token."""
    g = GraphBuilder("vit_base")
    width, heads, patch = 768, 12, 16
    tokens = (size // patch) ** 2
    image = g.input("image", (batch, 3, size, size))
    weights = g.normal("patch.weight", (width, 3, patch, patch), (3 * patch * patch) ** -0.5)
    bias = g.normal("patch.bias", (width,), 0.02)
    x = g.op("Conv", image, weights, bias, kernel_shape=[patch, patch], strides=[patch, patch])
    x = g.op("Reshape", x, g.ints(batch, width, tokens))
    x = g.op("Transpose", x, perm=[0, 2, 1])
    token = g.op("Expand", g.normal("class", (1, 1, width), 0.02), g.ints(batch, 1, width))
    x = g.op("Concat", token, x, axis=1)
    x = g.op("Add", x, g.normal("position", (1, tokens + 1, width), 0.02))
    for i in range(layers):
        name = f"layer{i}"
        y = g.layer_norm(x, f"{name}.norm1", width, 1e-6)
        # one projection for query, key and value, taken apart by Split and Squeeze
        y = g.linear(y, f"{name}.qkv", width, 3 * width)
        y = g.op("Reshape", y, g.ints(batch, tokens + 1, 3, heads, width // heads))
        y = g.op("Transpose", y, perm=[2, 0, 3, 1, 4])
        q, k, v = (
            g.op("Squeeze", part, g.ints(0))
            for part in g.ops("Split", y, outputs=3, axis=0, num_outputs=3)
        )
        y = g.attention(q, g.op("Transpose", k, perm=[0, 1, 3, 2]), v, width // heads)
        y = g.linear(g.merge_heads(y, width), f"{name}.out", width, width)
        x = g.op("Add", x, y)
        y = g.layer_norm(x, f"{name}.norm2", width, 1e-6)
        y = g.gelu(g.linear(y, f"{name}.up", width, 4 * width))
        x = g.op("Add", x, g.linear(y, f"{name}.down", 4 * width, width))
    x = g.op("Gather", g.layer_norm(x, "norm", width, 1e-6), g.constant(np.array(0)), axis=1)
    g.output(g.gemm(x, "head", width, 1000), "logits", (batch, 1000))
    return g.build()
