"""Long sums of native code: their error against float64 is that of sums in parts, which the hand-
written libraries have as well, and not that of one sum after the other."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

import aicc


def run(nodes, x, weights=None, target="native"):
    inits = [] if weights is None else [onnx.numpy_helper.from_array(weights, "w")]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", 1, x.shape)],
        [helper.make_tensor_value_info("y", 1, None)],
        inits,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (y,) = aicc.compile(model, threads=1, target=target).run(None, {"x": x})
    return y


def error(y, exact):
    """Root mean square, relative."""
    return float(np.sqrt(np.mean((y - exact) ** 2) / np.mean(exact**2)))


@pytest.mark.parametrize("target", ["native", "x86-64-v3"])
@pytest.mark.parametrize(("rows", "depth"), [(1, 1024), (24, 768), (24, 4096)])
def test_products(rows, depth, target):
    rng = np.random.default_rng(0)
    x = rng.random((rows, depth), dtype=np.float32)
    w = rng.random((depth, 64), dtype=np.float32)
    y = run([helper.make_node("MatMul", ["x", "w"], ["y"])], x, w, target)
    assert (
        error(y, x.astype(np.float64) @ w.astype(np.float64)) < 2.5e-7
    )  # one by one: 4e-7 to 9e-7


@pytest.mark.parametrize("channels", [8, 24, 200])
def test_means_of_images(channels):
    """Between two convolutions, channels are last."""
    rng = np.random.default_rng(0)
    x = rng.random((1, 96, 160, channels), dtype=np.float32)
    y = run([helper.make_node("ReduceMean", ["x"], ["y"], axes=[1, 2])], x)
    assert error(y, x.astype(np.float64).mean((1, 2), keepdims=True)) < 4e-7  # one by one: 2e-6
