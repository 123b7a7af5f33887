"""Extremes of rows and columns that hold a NaN somewhere: it is the extreme one, as in numpy."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import aicc


@pytest.mark.parametrize("op", ("ReduceMax", "ReduceMin"))
@pytest.mark.parametrize("axis", (0, 1))
@pytest.mark.parametrize("size", (9, 49, 83, "n"))
def test_a_nan_anywhere_is_the_extreme(op: str, axis: int, size: int | str) -> None:
    n = 71 if isinstance(size, str) else size
    shape = ["m", size] if isinstance(size, str) else [n + 2, n]
    node = helper.make_node(op, ["x", "axes"], ["y"])
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    axes = numpy_helper.from_array(np.array([axis], np.int64), "axes")
    graph = helper.make_graph([node], "g", [x], [onnx.ValueInfoProto(name="y")], [axes])
    opset = [helper.make_opsetid("", 18)]
    model = aicc.compile(helper.make_model(graph, opset_imports=opset, ir_version=10), threads=1)
    data = np.random.default_rng(n).uniform(1.0, 2.0, (n + 2, n)).astype(np.float32)
    data *= 1.0 if op == "ReduceMin" else -1.0  # zeros that nobody asked for would be extreme
    data[np.arange(n), np.arange(n)] = np.nan
    (y,) = model.run(None, {"x": data})
    numpy = np.max if op == "ReduceMax" else np.min
    np.testing.assert_array_equal(y, numpy(data, axis=axis, keepdims=True))
