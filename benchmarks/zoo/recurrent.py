"""Recurrent networks: a GRU that takes one step, as in streaming, and a tagger of sentences."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto

from zoo.builder import GraphBuilder


def gru_step(inputs: int = 64, hidden: int = 128) -> onnx.ModelProto:
    """One step (Cho et al. 2014, arXiv:1406.1078): input and state in, the new state out."""
    g = GraphBuilder("gru_step")
    x = g.input("x", (1, 1, inputs))
    state = g.input("state", (1, 1, hidden))
    spread = hidden**-0.5
    weights = [
        g.normal("w", (1, 3 * hidden, inputs), spread),
        g.normal("r", (1, 3 * hidden, hidden), spread),
        g.normal("b", (1, 6 * hidden), spread),
    ]
    _, last = g.ops(
        "GRU", x, *weights, "", state, outputs=2, hidden_size=hidden, linear_before_reset=1
    )
    g.output(last, "next", (1, 1, hidden))
    return g.build()


def lstm_tagger(
    seq: int = 40, words: int = 20000, width: int = 128, hidden: int = 256, tags: int = 17
) -> onnx.ModelProto:
    """Word ids to scores of tags, by two bidirectional LSTM layers (Huang et al. 2015,
    arXiv:1508.01991)."""
    g = GraphBuilder("lstm_tagger")
    ids = g.input("ids", (seq, 1), TensorProto.INT64)
    x = g.op("Gather", g.normal("embed", (words, width), 0.5), ids)
    size = width
    for layer in range(2):
        spread = hidden**-0.5
        weights = [
            g.normal(f"lstm{layer}.w", (2, 4 * hidden, size), spread),
            g.normal(f"lstm{layer}.r", (2, 4 * hidden, hidden), spread),
            g.normal(f"lstm{layer}.b", (2, 8 * hidden), spread),
        ]
        y = g.op("LSTM", x, *weights, hidden_size=hidden, direction="bidirectional")
        y = g.op("Transpose", y, perm=[0, 2, 1, 3])  # [seq, 1, directions, hidden]
        x = g.op("Reshape", y, g.constant(np.array([seq, 1, 2 * hidden], np.int64)))
        size = 2 * hidden
    g.output(g.linear(x, "tags", size, tags), "scores", (seq, 1, tags))
    return g.build()
