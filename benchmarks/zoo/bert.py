"""BERT-Base (Devlin et al. 2018, arXiv:1810.04805): the encoder, with fixed or symbolic sizes."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto

from zoo.builder import GraphBuilder


def bert_base(batch: int | str = 1, seq: int | str = 128, layers: int = 12) -> onnx.ModelProto:
    """Token ids and a mask in, hidden states [batch, seq, 768] and the pooled first one out."""
    g = GraphBuilder("bert_base")
    width, heads = 768, 12
    ids = g.input("input_ids", (batch, seq), TensorProto.INT64)
    mask = g.input("attention_mask", (batch, seq), TensorProto.INT64)
    types = g.input("token_type_ids", (batch, seq), TensorProto.INT64)

    # positions 0 .. seq-1, from the shape of the ids
    length = g.op("Gather", g.op("Shape", ids), g.ints(1), axis=0)
    positions = g.op(
        "Slice", g.constant(np.arange(512)[None]), g.ints(0), length, g.ints(1), g.ints(1)
    )
    x = g.op("Gather", g.normal("embed.word", (30522, width), 0.02), ids)
    x = g.op("Add", x, g.op("Gather", g.normal("embed.type", (2, width), 0.02), types))
    x = g.op("Add", x, g.op("Gather", g.normal("embed.position", (512, width), 0.02), positions))
    x = g.layer_norm(x, "embed.norm", width, 1e-12)

    # [batch, 1, 1, seq]: 0 where attended to, the smallest float elsewhere
    shut = g.op("Unsqueeze", g.op("Cast", mask, to=TensorProto.FLOAT), g.ints(1, 2))
    shut = g.op("Sub", g.scalar(1.0), shut)
    shut = g.op("Mul", shut, g.scalar(float(np.finfo(np.float32).min)))

    for i in range(layers):
        name = f"layer{i}"
        q, k, v = (
            g.split_heads(g.linear(x, f"{name}.{part}", width, width), heads, width // heads)
            for part in ("query", "key", "value")
        )
        y = g.attention(
            g.op("Transpose", q, perm=[0, 2, 1, 3]),
            g.op("Transpose", k, perm=[0, 2, 3, 1]),
            g.op("Transpose", v, perm=[0, 2, 1, 3]),
            width // heads,
            shut,
        )
        y = g.linear(g.merge_heads(y, width), f"{name}.out", width, width)
        x = g.layer_norm(g.op("Add", y, x), f"{name}.norm1", width, 1e-12)
        y = g.gelu(g.linear(x, f"{name}.up", width, 4 * width))
        y = g.linear(y, f"{name}.down", 4 * width, width)
        x = g.layer_norm(g.op("Add", y, x), f"{name}.norm2", width, 1e-12)

    first = g.op("Gather", x, g.constant(np.array(0)), axis=1)
    g.output(x, "last_hidden_state", (batch, seq, width))
    g.output(g.op("Tanh", g.gemm(first, "pooler", width, width)), "pooled", (batch, width))
    return g.build()


def bert_base_dyn() -> onnx.ModelProto:
    """The same with symbols for the batch and the length."""
    return bert_base("batch", "seq")
