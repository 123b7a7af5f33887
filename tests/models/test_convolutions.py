"""Models of one convolution or pooling: every kind is tiled in registers, and right."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import aicc
from aicc.tensor_ir.ir import Reduce
from aicc.tensor_ir.walk import walk_stmts

CONVOLUTIONS = {
    "pointwise": ((1, 24, 9, 10), (40, 24, 1, 1), {}),
    "strided_pointwise": ((2, 24, 9, 10), (40, 24, 1, 1), {"strides": [2, 2]}),
    "groups": ((1, 32, 9, 10), (48, 8, 3, 3), {"group": 4, "pads": [1] * 4}),
    "groups_pointwise": ((1, 24, 9, 10), (24, 8, 1, 1), {"group": 3}),
    "dilated": ((1, 16, 13, 13), (24, 16, 3, 3), {"pads": [2] * 4, "dilations": [2, 2]}),
    "five_strided": ((1, 8, 17, 17), (24, 8, 5, 5), {"pads": [2] * 4, "strides": [2, 2]}),
    "first_layer": ((2, 3, 33, 33), (32, 3, 3, 3), {"pads": [1] * 4, "strides": [2, 2]}),
    "patches": ((1, 3, 32, 32), (40, 3, 8, 8), {"strides": [8, 8]}),
    "audio": ((1, 16, 120), (24, 16, 15), {"pads": [7, 7]}),
    "audio_frames": ((1, 1, 400), (24, 1, 40), {"strides": [16]}),
    "volume": ((1, 8, 4, 7, 8), (16, 8, 3, 3, 3), {"pads": [1] * 6}),
    "few_filters": ((2, 24, 11, 37), (3, 24, 9, 9), {"pads": [4] * 4}),
    "one_filter": ((1, 24, 11, 37), (1, 24, 3, 3), {"pads": [1] * 4}),
    "depthwise": ((2, 24, 9, 14), (24, 1, 3, 3), {"group": 24, "pads": [1] * 4}),
    "depthwise_strided": (
        (1, 24, 14, 14),
        (24, 1, 5, 5),
        {"group": 24, "pads": [2] * 4, "strides": [2, 2]},
    ),
    "depthwise_audio": ((1, 24, 100), (24, 1, 31), {"group": 24, "pads": [15, 15]}),
}
TRANSPOSED = {
    "twice": ((1, 16, 7, 8), (16, 24, 2, 2), {"strides": [2, 2]}),
    "overlap": ((1, 16, 7, 8), (16, 24, 4, 4), {"strides": [2, 2], "pads": [1] * 4}),
    "odd": ((1, 16, 7, 8), (16, 24, 3, 3), {"strides": [2, 2], "pads": [1] * 4}),
    "odd_to_even": (
        (2, 16, 7, 8),
        (16, 24, 3, 3),
        {"strides": [2, 2], "pads": [1] * 4, "output_padding": [1, 1]},
    ),
    "audio": ((1, 16, 50), (16, 24, 8), {"strides": [4], "pads": [2, 2]}),
    "depthwise": ((1, 24, 7, 9), (24, 1, 4, 4), {"group": 24, "strides": [2, 2], "pads": [1] * 4}),
    "depthwise_odd": ((1, 24, 7, 9), (24, 1, 3, 3), {"group": 24, "strides": [2, 2]}),
    "single": ((1, 16, 1, 1), (16, 24, 4, 4), {"strides": [2, 2], "pads": [0, 1, 1, 0]}),
    "unstrided": ((1, 16, 7, 8), (16, 24, 3, 3), {"pads": [1, 0, 2, 1]}),
    "unstrided_groups": ((1, 16, 7, 8), (16, 6, 3, 3), {"group": 4, "dilations": [2, 1]}),
    "dilated": ((1, 16, 7, 8), (16, 24, 3, 3), {"strides": [2, 3], "dilations": [2, 2]}),
    "one_filter": ((1, 16, 7, 18), (16, 1, 2, 2), {"strides": [2, 2]}),
    "few_filters": (
        (2, 16, 17, 35),
        (16, 3, 9, 9),
        {"strides": [3, 3], "pads": [4] * 4, "output_padding": [2, 2]},
    ),
    "few_filters_odd": ((1, 16, 7, 18), (16, 2, 3, 3), {"strides": [2, 2], "pads": [1] * 4}),
    "few_filters_audio": ((1, 16, 50), (16, 1, 11), {"strides": [5], "pads": [3, 3]}),
    "few_filters_volume": (
        (1, 8, 3, 4, 17),
        (8, 2, 4, 4, 4),
        {"strides": [2] * 3, "pads": [1] * 6},
    ),
}
POOLING = {
    "maximum": ("MaxPool", (1, 24, 14, 14), {"kernel_shape": [3, 3], "strides": [2, 2]}),
    "padded": ("MaxPool", (2, 24, 14, 13), {"kernel_shape": [5, 5], "pads": [2] * 4}),
    "axis_by_axis": (
        "MaxPool",
        (1, 24, 12, 13),
        {"kernel_shape": [4, 5], "pads": [1, 0, 2, 3], "dilations": [2, 1]},
    ),
    "same": ("MaxPool", (1, 24, 9, 8), {"kernel_shape": [5, 4], "auto_pad": "SAME_LOWER"}),
    "volume": (
        "MaxPool",
        (1, 8, 6, 7, 8),
        {"kernel_shape": [3, 3, 3], "ceil_mode": 1, "pads": [1, 0, 1, 0, 1, 1]},
    ),
    "average": ("AveragePool", (1, 24, 14, 14), {"kernel_shape": [3, 3], "pads": [1] * 4}),
    "all": ("AveragePool", (2, 40, 7, 7), {"kernel_shape": [7, 7]}),
}


def one(op, shape, weights=None, **attrs):
    constants, inputs = [], ["x"]
    if weights is not None:
        rng = np.random.default_rng(0)
        w = rng.standard_normal(weights).astype(np.float32)
        filters = weights[0] if op == "Conv" else weights[1] * attrs.get("group", 1)
        shift = rng.standard_normal(filters).astype(np.float32)
        constants = [numpy_helper.from_array(w, "w"), numpy_helper.from_array(shift, "b")]
        inputs += ["w", "b"]
    graph = helper.make_graph(
        [helper.make_node(op, inputs, ["y"], **attrs)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def check(model, shape):
    ort = pytest.importorskip("onnxruntime")
    module = aicc.compile(model, stop_after="schedule")
    for kernel in module.kernels.values():
        scopes = {b.name: b.scope for b in kernel.buffers}
        into = {scopes[s.buffer] for s in walk_stmts(kernel.body) if isinstance(s, Reduce)}
        assert into <= {"register"}, kernel
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (want,) = session.run(None, {"x": x})
    (got,) = aicc.compile(model, threads=2).run(None, {"x": x})
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions(name):
    shape, weights, attrs = CONVOLUTIONS[name]
    check(one("Conv", shape, weights, **attrs), shape)


@pytest.mark.parametrize("name", TRANSPOSED)
def test_transposed_convolutions(name):
    shape, weights, attrs = TRANSPOSED[name]
    check(one("ConvTranspose", shape, weights, **attrs), shape)


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
@pytest.mark.parametrize("filters, last", [(1, False), (3, False), (64, True)])
def test_lanes_run_along_pixels_where_filters_are_few(op, filters, last):
    weights = (filters, 16, 4, 4) if op == "Conv" else (16, filters, 4, 4)
    model = one(op, (1, 16, 9, 40), weights, strides=[1, 1] if op == "Conv" else [2, 2])
    graph = aicc.compile(model, stop_after="layout")
    (node,) = (n for n in graph.nodes if n.op == op)
    assert bool(node.attr("channels_last", 0)) is last


@pytest.mark.parametrize("name", POOLING)
def test_pooling(name):
    op, shape, attrs = POOLING[name]
    check(one(op, shape, **attrs), shape)


def test_copies_that_phases_would_make_anew_are_made_once():
    model = one("ConvTranspose", (1, 64, 7, 8), (64, 128, 4, 4), strides=[2, 2], pads=[1] * 4)
    module = aicc.compile(model, stop_after="schedule")
    scopes = {b.name: b.scope for k in module.kernels.values() for b in k.buffers}
    assert scopes["padded"] == "temp"
    check(model, (1, 64, 7, 8))
