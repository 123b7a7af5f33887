"""GPT-2 small (Radford et al. 2019): reading a prompt, and going on token by token."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto

from zoo.builder import GraphBuilder

WIDTH, HEADS, VOCABULARY, CONTEXT = 768, 12, 50257, 1024


def gpt2_prefill(batch: int = 1, seq: int = 128, layers: int = 12) -> onnx.ModelProto:
    """`seq` token ids in, logits [batch, seq, 50257] out."""
    g = GraphBuilder("gpt2")
    ids = g.input("input_ids", (batch, seq), TensorProto.INT64)
    positions = g.constant(np.arange(seq)[None])
    future = np.triu(np.full((seq, seq), np.finfo(np.float32).min, np.float32), 1)
    logits, _ = _decoder(g, ids, positions, g.constant(future[None, None]), None, layers)
    g.output(logits, "logits", (batch, seq, VOCABULARY))
    return g.build()


def gpt2_decode(layers: int = 12) -> onnx.ModelProto:
    """One token and the cache of `past_len` in; logits and the cache, one longer, out."""
    g = GraphBuilder("gpt2")
    cache = ("batch", HEADS, "past_len", WIDTH // HEADS)
    ids = g.input("input_ids", ("batch", 1), TensorProto.INT64)
    positions = g.input("position_ids", ("batch", 1), TensorProto.INT64)
    past = [
        (g.input(f"past_key.{i}", cache), g.input(f"past_value.{i}", cache)) for i in range(layers)
    ]
    logits, present = _decoder(g, ids, positions, "", past, layers)
    g.output(logits, "logits", ("batch", 1, VOCABULARY))
    longer = ("batch", HEADS, "past_len + 1", WIDTH // HEADS)
    for i, (key, value) in enumerate(present):
        g.output(key, f"present_key.{i}", longer)
        g.output(value, f"present_value.{i}", longer)
    return g.build()


def _decoder(
    g: GraphBuilder,
    ids: str,
    positions: str,
    mask: str,
    past: list[tuple[str, str]] | None,
    layers: int,
) -> tuple[str, list[tuple[str, str]]]:
    """Returns the logits and each layer's keys and values, [batch, heads, n, 64]."""
    words = g.normal("embed.word", (VOCABULARY, WIDTH), 0.02)
    x = g.op("Gather", words, ids)
    x = g.op(
        "Add", x, g.op("Gather", g.normal("embed.position", (CONTEXT, WIDTH), 0.01), positions)
    )
    present: list[tuple[str, str]] = []
    for i in range(layers):
        name = f"layer{i}"
        y = g.linear(g.layer_norm(x, f"{name}.norm1", WIDTH), f"{name}.qkv", WIDTH, 3 * WIDTH)
        q, k, v = (
            g.op("Transpose", g.split_heads(part, HEADS, WIDTH // HEADS), perm=[0, 2, 1, 3])
            for part in g.ops("Split", y, outputs=3, axis=2, num_outputs=3)
        )
        if past is not None:
            k = g.op("Concat", past[i][0], k, axis=2)
            v = g.op("Concat", past[i][1], v, axis=2)
        present.append((k, v))
        k_transposed = g.op("Transpose", k, perm=[0, 1, 3, 2])
        y = g.attention(q, k_transposed, v, WIDTH // HEADS, mask)
        y = g.linear(g.merge_heads(y, WIDTH), f"{name}.out", WIDTH, WIDTH)
        x = g.op("Add", x, y)
        y = g.linear(g.layer_norm(x, f"{name}.norm2", WIDTH), f"{name}.up", WIDTH, 4 * WIDTH)
        x = g.op("Add", x, g.linear(g.gelu_tanh(y), f"{name}.down", 4 * WIDTH, WIDTH))
    x = g.layer_norm(x, "norm", WIDTH)
    # the head shares the table of word embeddings
    return g.op("MatMul", x, g.op("Transpose", words, perm=[1, 0])), present
