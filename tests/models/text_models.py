"""Small models of the families that read text, with symbolic sizes and seeded weights."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto

from zoo.builder import GraphBuilder

VOCABULARY = 50


def mlp() -> onnx.ModelProto:
    """Three layers, symbolic batch."""
    g = GraphBuilder("mlp")
    x = g.input("x", ("batch", 40))
    x = g.op("Relu", g.gemm(x, "a", 40, 65))
    x = g.op("Tanh", g.linear(x, "b", 65, 32))
    g.output(g.op("Softmax", g.gemm(x, "head", 32, 10), axis=-1), "y", ("batch", 10))
    return g.build()


def bert() -> onnx.ModelProto:
    """Two encoder layers, symbolic batch and length, a mask, positions from the shape."""
    g = GraphBuilder("bert")
    width, heads = 32, 4
    ids = g.input("input_ids", ("batch", "seq"), TensorProto.INT64)
    mask = g.input("attention_mask", ("batch", "seq"), TensorProto.INT64)
    length = g.op("Gather", g.op("Shape", ids), g.ints(1), axis=0)
    positions = g.op(
        "Slice", g.constant(np.arange(512)[None]), g.ints(0), length, g.ints(1), g.ints(1)
    )
    x = g.op("Gather", g.normal("word", (VOCABULARY, width), 1.0), ids)
    x = g.op("Add", x, g.op("Gather", g.normal("position", (512, width), 0.5), positions))
    x = g.layer_norm(x, "norm", width, 1e-12)
    shut = g.op("Unsqueeze", g.op("Cast", mask, to=TensorProto.FLOAT), g.ints(1, 2))
    shut = g.op("Mul", g.op("Sub", g.scalar(1.0), shut), g.scalar(float(np.finfo(np.float32).min)))
    for i in range(2):
        q, k, v = (
            g.split_heads(g.linear(x, f"{i}.{part}", width, width, 2.0), heads, width // heads)
            for part in ("query", "key", "value")
        )
        y = g.attention(
            g.op("Transpose", q, perm=[0, 2, 1, 3]),
            g.op("Transpose", k, perm=[0, 2, 3, 1]),
            g.op("Transpose", v, perm=[0, 2, 1, 3]),
            width // heads,
            shut,
        )
        y = g.linear(g.merge_heads(y, width), f"{i}.out", width, width)
        x = g.layer_norm(g.op("Add", y, x), f"{i}.norm1", width, 1e-12)
        y = g.linear(g.gelu(g.linear(x, f"{i}.up", width, 96)), f"{i}.down", 96, width)
        x = g.layer_norm(g.op("Add", y, x), f"{i}.norm2", width, 1e-12)
    first = g.op("Gather", x, g.constant(np.array(0)), axis=1)
    g.output(x, "hidden", ("batch", "seq", width))
    g.output(g.op("Tanh", g.gemm(first, "pooler", width, width)), "pooled", ("batch", width))
    return g.build()


def _gpt(g: GraphBuilder, ids: str, positions: str, mask: str, past: list[tuple[str, str]]) -> str:
    width, heads = 32, 4
    words = g.normal("word", (VOCABULARY, width), 0.5)
    x = g.op("Gather", words, ids)
    x = g.op("Add", x, g.op("Gather", g.normal("position", (256, width), 0.3), positions))
    for i in range(2):
        y = g.linear(g.layer_norm(x, f"{i}.norm1", width), f"{i}.qkv", width, 3 * width)
        q, k, v = (
            g.op("Transpose", g.split_heads(part, heads, width // heads), perm=[0, 2, 1, 3])
            for part in g.ops("Split", y, outputs=3, axis=2, num_outputs=3)
        )
        if past:
            k, v = (g.op("Concat", p, n, axis=2) for p, n in zip(past[i], (k, v)))
            g.output(k, f"present_key.{i}", ("batch", heads, "total", width // heads))
            g.output(v, f"present_value.{i}", ("batch", heads, "total", width // heads))
        y = g.attention(q, g.op("Transpose", k, perm=[0, 1, 3, 2]), v, width // heads, mask)
        x = g.op("Add", x, g.linear(g.merge_heads(y, width), f"{i}.out", width, width))
        y = g.linear(g.layer_norm(x, f"{i}.norm2", width), f"{i}.up", width, 4 * width)
        x = g.op("Add", x, g.linear(g.gelu_tanh(y), f"{i}.down", 4 * width, width))
    return g.op("MatMul", g.layer_norm(x, "norm", width), g.op("Transpose", words, perm=[1, 0]))


def gpt_prefill() -> onnx.ModelProto:
    """A prompt of symbolic length under a causal mask, built from the shape of the ids."""
    g = GraphBuilder("gpt")
    ids = g.input("input_ids", ("batch", "seq"), TensorProto.INT64)
    length = g.op("Gather", g.op("Shape", ids), g.constant(np.array(1)), axis=0)
    rows = g.op("Range", g.constant(np.array(0)), length, g.constant(np.array(1)))
    later = g.op("Less", g.op("Unsqueeze", rows, g.ints(1)), g.op("Unsqueeze", rows, g.ints(0)))
    least = g.scalar(float(np.finfo(np.float32).min))
    mask = g.op("Where", later, least, g.scalar(0.0))
    logits = _gpt(g, ids, g.op("Unsqueeze", rows, g.ints(0)), mask, [])
    g.output(logits, "logits", ("batch", "seq", VOCABULARY))
    return g.build()


def gpt_decode() -> onnx.ModelProto:
    """One token after a cache of symbolic length, which comes out one longer."""
    g = GraphBuilder("gpt")
    cache = ("batch", 4, "past", 8)
    ids = g.input("input_ids", ("batch", 1), TensorProto.INT64)
    positions = g.input("position_ids", ("batch", 1), TensorProto.INT64)
    past = [(g.input(f"past_key.{i}", cache), g.input(f"past_value.{i}", cache)) for i in range(2)]
    g.output(_gpt(g, ids, positions, "", past), "logits", ("batch", 1, VOCABULARY))
    return g.build()


def qwen() -> onnx.ModelProto:
    """Root-mean-square normalisation, rotary positions, two queries to a key, gated SiLU."""
    g = GraphBuilder("qwen")
    width, heads, groups, head = 32, 4, 2, 8
    ids = g.input("input_ids", ("batch", "seq"), TensorProto.INT64)
    shape = g.op("Shape", ids)
    batch, length = (g.op("Gather", shape, g.ints(n), axis=0) for n in (0, 1))
    end = g.op("Squeeze", length, g.ints(0))
    rows = g.op("Range", g.constant(np.array(0)), end, g.constant(np.array(1)))
    places = g.op("Unsqueeze", g.op("Cast", rows, to=TensorProto.FLOAT), g.ints(1))
    rates = (10000.0 ** (-np.arange(0, head, 2) / head)).astype(np.float32)[None]
    angles = g.op("MatMul", places, g.constant(rates))
    angles = g.op("Concat", angles, angles, axis=-1)
    cos, sin = g.op("Cos", angles), g.op("Sin", angles)
    later = g.op("Less", g.op("Unsqueeze", rows, g.ints(1)), g.op("Unsqueeze", rows, g.ints(0)))
    mask = g.op("Where", later, g.scalar(float(np.finfo(np.float32).min)), g.scalar(0.0))

    def rms(x: str, name: str, channels: int) -> str:
        mean = g.op("ReduceMean", g.op("Pow", x, g.scalar(2.0)), g.ints(-1), keepdims=1)
        root = g.op("Sqrt", g.op("Add", mean, g.scalar(1e-6)))
        x = g.op("Mul", x, g.op("Div", g.scalar(1.0), root))
        return g.op("Mul", g.normal(name, (channels,), 0.1, 1.0), x)

    def rotate(x: str) -> str:
        low = g.op("Slice", x, g.ints(0), g.ints(head // 2), g.ints(3))
        high = g.op("Slice", x, g.ints(head // 2), g.ints(2**62), g.ints(3))
        turned = g.op("Concat", g.op("Neg", high), low, axis=-1)
        return g.op("Add", g.op("Mul", x, cos), g.op("Mul", turned, sin))

    def repeat(x: str) -> str:
        """[batch, groups, seq, head] -> [batch, heads, seq, head]."""
        x = g.op("Unsqueeze", x, g.ints(2))
        times = g.ints(heads // groups)
        full = g.op("Concat", batch, g.ints(groups), times, length, g.ints(head), axis=0)
        x = g.op("Expand", x, full)
        return g.op(
            "Reshape", x, g.op("Concat", batch, g.ints(heads), length, g.ints(head), axis=0)
        )

    x = g.op("Gather", g.normal("word", (VOCABULARY, width), 0.5), ids)
    for i in range(2):
        y = rms(x, f"{i}.norm1", width)
        q = g.split_heads(g.linear(y, f"{i}.q", width, heads * head), heads, head)
        k = g.split_heads(g.linear(y, f"{i}.k", width, groups * head), groups, head)
        v = g.split_heads(g.linear(y, f"{i}.v", width, groups * head), groups, head)
        q, k = rms(q, f"{i}.q_norm", head), rms(k, f"{i}.k_norm", head)
        q, k, v = (g.op("Transpose", part, perm=[0, 2, 1, 3]) for part in (q, k, v))
        k, v = repeat(rotate(k)), repeat(v)
        y = g.attention(rotate(q), g.op("Transpose", k, perm=[0, 1, 3, 2]), v, head, mask)
        x = g.op("Add", x, g.linear(g.merge_heads(y, heads * head), f"{i}.o", heads * head, width))
        y = rms(x, f"{i}.norm2", width)
        gate = g.linear(y, f"{i}.gate", width, 64)
        y = g.op("Mul", g.op("Mul", gate, g.op("Sigmoid", gate)), g.linear(y, f"{i}.up", width, 64))
        x = g.op("Add", x, g.linear(y, f"{i}.down", 64, width))
    x = g.op("MatMul", rms(x, "norm", width), g.normal("head", (width, VOCABULARY), 0.2))
    g.output(x, "logits", ("batch", "seq", VOCABULARY))
    return g.build()


MODELS = {f.__name__: f for f in (mlp, bert, gpt_prefill, gpt_decode, qwen)}

SIZES: dict[str, tuple[dict[str, int], ...]] = {
    "mlp": tuple({"batch": n} for n in (1, 2, 16, 33)),
    "bert": tuple({"batch": b, "seq": s} for b, s in ((1, 7), (1, 128), (4, 33), (3, 64))),
    "gpt_prefill": tuple({"batch": b, "seq": s} for b, s in ((1, 1), (2, 16), (1, 61))),
    "gpt_decode": tuple({"batch": b, "past": n} for b, n in ((1, 1), (3, 64), (2, 127))),
    "qwen": tuple({"batch": b, "seq": s} for b, s in ((1, 5), (2, 16), (1, 70))),
}
"""What each model's symbols are bound to, one run after the other of one compiled model."""
