"""Operators of older opsets are imported in the newest one's form and keep their meaning."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from aicc.errors import AiccError
from aicc.frontend import load_model
from aicc.graph_ir.evaluate import evaluate

X = np.linspace(-3, 3, 24, dtype=np.float32).reshape(2, 3, 4)
ROW = X[:1, :, :1]
SCALAR = np.array(0.5, np.float32)


def single(op: str, opset: int, inputs: tuple[Any, ...], n_outputs: int, **attrs: Any) -> Any:
    values = [
        helper.make_tensor_value_info(
            f"x{i}", helper.np_dtype_to_tensor_dtype(a.dtype), list(a.shape)
        )
        for i, a in enumerate(inputs)
    ]
    outputs = [f"y{i}" for i in range(n_outputs)]
    node = helper.make_node(op, [v.name for v in values], outputs, **attrs)
    results = [onnx.ValueInfoProto(name=name) for name in outputs]
    graph = helper.make_graph([node], "g", values, results)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return onnx.shape_inference.infer_shapes(made)


@pytest.mark.parametrize(
    ("op", "opset", "inputs", "n_outputs", "attrs"),
    [
        ("Squeeze", 11, (ROW,), 1, {"axes": [0, -1]}),
        ("Squeeze", 9, (ROW,), 1, {}),
        ("Unsqueeze", 12, (X,), 1, {"axes": [0, -1]}),
        ("Slice", 9, (X,), 1, {"starts": [1, -3], "ends": [99, -1], "axes": [1, 2]}),
        ("Slice", 9, (X,), 1, {"starts": [0, 1], "ends": [1, 3]}),
        ("Split", 11, (X,), 2, {"axis": 2, "split": [1, 3]}),
        ("Split", 11, (X,), 3, {"axis": 1}),
        ("Split", 13, (X,), 2, {"axis": -1}),
        ("Clip", 7, (X,), 1, {"min": -1.0, "max": 2.0}),
        ("Clip", 9, (X,), 1, {"max": 0.5}),
        ("Clip", 7, (X,), 1, {}),
        ("Pad", 8, (X,), 1, {"pads": [0, 1, 0, 2, 0, 1], "value": 2.5}),
        ("Pad", 10, (X,), 1, {"pads": [1, 0, 1, 0, 2, 1], "mode": "reflect"}),
        ("Dropout", 7, (X,), 1, {"ratio": 0.3}),
        ("TopK", 9, (X,), 2, {"k": 2, "axis": 1}),
        ("Add", 7, (X, X[0]), 1, {}),
        ("Cast", 9, (X,), 1, {"to": 6}),
        ("Cast", 13, (X,), 1, {"to": 10}),
        ("Max", 8, (X, X[0] * 2), 1, {}),
        ("Pow", 7, (np.abs(X), SCALAR), 1, {}),
        ("Transpose", 8, (X,), 1, {}),
        ("Flatten", 9, (X,), 1, {"axis": 2}),
        ("Concat", 8, (X, X), 1, {"axis": 1}),
        ("ArgMax", 11, (X,), 1, {"axis": -1}),
        ("DepthToSpace", 9, (X.reshape(1, 24, 1, 1),), 1, {"blocksize": 2}),
        ("EyeLike", 9, (X[0],), 1, {"dtype": 7, "k": 1}),
        ("Scatter", 10, (X[0], np.array([[2, 0, 1, 1]]), X[0, :1]), 1, {"axis": 0}),
        ("ScatterElements", 11, (X[0], np.array([[2, 0, 1, 1]]), X[0, :1]), 1, {"axis": 0}),
    ],
)
def test_same_as_the_runtime(
    op: str, opset: int, inputs: tuple[Any, ...], n_outputs: int, attrs: dict[str, Any]
) -> None:
    model = single(op, opset, inputs, n_outputs, **attrs)
    feed = {f"x{i}": a for i, a in enumerate(inputs)}
    graph = load_model(model)
    ours = evaluate(graph, feed)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    for actual, expected in zip(ours.values(), session.run(None, feed), strict=True):
        assert actual.dtype == expected.dtype
        np.testing.assert_allclose(actual, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("op", "inputs", "attrs", "expected"),
    [
        ("Add", (X, X[0, 0]), {"broadcast": 1}, X + X[0, 0]),
        ("Mul", (X, X), {}, X * X),
        ("Reshape", (X,), {"shape": [4, 6]}, X.reshape(4, 6)),
        ("Reshape", (X,), {"shape": [0, -1]}, X.reshape(2, 12)),
    ],
)
def test_opset_before_the_runtime(
    op: str, inputs: tuple[Any, ...], attrs: dict[str, Any], expected: Any
) -> None:
    opset = 1 if op == "Reshape" else 6
    graph = load_model(single(op, opset, inputs, 1, **attrs))
    (actual,) = evaluate(graph, {f"x{i}": a for i, a in enumerate(inputs)}).values()
    np.testing.assert_array_equal(actual, expected)


def test_broadcasting_from_an_inner_axis_is_refused() -> None:
    model = single("Add", 6, (X, X[0, :, 0]), 1, broadcast=1, axis=1)
    with pytest.raises(AiccError, match="broadcasting from axis 1"):
        load_model(model)


def test_tensor_attributes_become_numbers() -> None:
    value = numpy_helper.from_array(np.array([-3], np.int64))
    model = single("ConstantOfShape", 9, (np.array([2, 2]),), 1, value=value)
    del model.graph.input[:]
    model.graph.initializer.append(numpy_helper.from_array(np.array([2, 2]), "x0"))
    graph = load_model(model)
    assert graph.nodes[-1].attr("value") == -3 and graph.nodes[-1].attr("dtype") == "i64"
    (actual,) = evaluate(graph, {}).values()
    np.testing.assert_array_equal(actual, np.full((2, 2), -3))
