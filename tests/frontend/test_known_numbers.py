"""Sizes that a model computes from numbers: the import knows them, whatever computes them."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import aicc
from aicc.frontend import load_model


def model(nodes, constants, outputs) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "sizes",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3])],
        [helper.make_tensor_value_info(o, kind, None) for o, kind in outputs.items()],
        [numpy_helper.from_array(np.array(v), n) for n, v in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


X = np.arange(3, dtype=np.float32).reshape(1, 3)


def test_padding_computed_in_floating_point() -> None:
    """As exporters write "same" padding: sizes are rounded, halved, clipped and cast."""
    nodes = [
        helper.make_node("Ceil", ["ratio"], ["up"]),
        helper.make_node("Div", ["up", "two"], ["half"]),
        helper.make_node("Clip", ["half", "zero"], ["clipped"]),
        helper.make_node("Cast", ["clipped"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Unsqueeze", ["whole", "axis"], ["one"]),
        helper.make_node("Concat", ["none", "one", "none", "one"], ["pads"], axis=0),
        helper.make_node("Pad", ["x", "pads"], ["y"]),
    ]
    constants = {
        "ratio": np.float32(3.5),
        "two": np.float32(2),
        "zero": np.float32(0),
        "axis": np.array([0]),
        "none": np.array([0]),
    }
    made = model(nodes, constants, {"y": TensorProto.FLOAT})
    graph = load_model(made)
    assert graph.types["y"].shape == (1, 7)
    (y,) = aicc.compile(made).run(None, {"x": X})
    np.testing.assert_array_equal(y, np.pad(X, [(0, 0), (2, 2)]))


def test_integers_by_operators_that_do_not_trace_them() -> None:
    nodes = [
        helper.make_node("BitShift", ["a", "b"], ["c"], direction="LEFT"),
        helper.make_node("Cast", ["c"], ["d"], to=TensorProto.INT64),
        helper.make_node("Expand", ["x", "d"], ["y"]),
    ]
    constants = {"a": np.array([1, 3], np.uint8), "b": np.array([2, 0], np.uint8)}
    graph = load_model(model(nodes, constants, {"y": TensorProto.FLOAT}))
    assert graph.types["d"].value == (4, 3) and graph.types["y"].shape == (4, 3)


def test_a_number_may_be_a_result() -> None:
    nodes = [
        helper.make_node("Ceil", ["a"], ["b"]),
        helper.make_node("Relu", ["x"], ["y"]),
    ]
    outputs = {"b": TensorProto.FLOAT, "y": TensorProto.FLOAT}
    b, y = aicc.compile(model(nodes, {"a": np.float32(1.5)}, outputs)).run(None, {"x": X})
    assert b == 2 and b.shape == ()
    np.testing.assert_array_equal(y, X)


def test_sizes_that_shrink_to_nothing_at_what_a_symbol_counts_as() -> None:
    """Strides that need thousands of samples: estimates of memory and time stay 0 or more."""
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["a"], strides=[16]),
            helper.make_node("Conv", ["a", "v"], ["b"], strides=[16]),
            helper.make_node("Relu", ["b"], ["y"]),
        ],
        "audio",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, "samples"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [
            numpy_helper.from_array(np.ones((4, 1, 64), np.float32), "w"),
            numpy_helper.from_array(np.ones((8, 4, 32), np.float32), "v"),
        ],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    (y,) = aicc.compile(made).run(None, {"x": np.ones((1, 1, 2000), np.float32)})
    assert y.shape == (1, 8, 6) and np.all(y == 64 * 4 * 32)
