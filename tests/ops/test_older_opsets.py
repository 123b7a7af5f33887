"""Nodes of older opsets mean the same after import as they do to onnxruntime."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from aicc.errors import OperatorError
from aicc.frontend.importer import load_model
from aicc.graph_ir.evaluate import evaluate
from aicc.ops.samples import floats, sample


def model(op, opset, arrays, attrs, weights):
    names = [f"x{i}" for i in range(len(arrays))]
    kind = TensorProto.FLOAT
    inputs = [
        helper.make_tensor_value_info(n, kind, a.shape)
        for i, (n, a) in enumerate(zip(names, arrays))
        if i not in weights
    ]
    constants = [numpy_helper.from_array(arrays[i], names[i]) for i in weights]
    node = helper.make_node(op, names, ["y"], name="tested", **attrs)
    result = helper.make_tensor_value_info("y", kind, None)
    graph = helper.make_graph([node], "g", inputs, [result], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=4)


X = sample(2, 3, 4, 5)
CHANNELS = (sample(3), sample(3, seed=1), sample(3, seed=2), floats(3, lo=0.5, hi=2.0))


def scales(*values):
    return np.array(values, np.float32)


NODES = [
    *((op, 11, (X,), {"axes": [1, -1], "keepdims": k}, ()) for op in (
        "ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2",
        "ReduceSumSquare", "ReduceLogSumExp",
    ) for k in (0, 1)),
    ("ReduceLogSum", 11, (np.abs(X),), {"axes": [2]}, ()),
    ("ReduceSum", 7, (X,), {}, ()),
    ("ReduceMean", 13, (X,), {"axes": [0, 3]}, ()),
    *((op, 9, (X,), attrs, ()) for op in ("Softmax", "LogSoftmax", "Hardmax") for attrs in (
        {}, {"axis": 0}, {"axis": 2}, {"axis": 3},
    )),
    ("Softmax", 11, (X,), {"axis": -2}, ()),
    ("Softmax", 13, (X,), {"axis": 1}, ()),
    ("Upsample", 7, (X,), {"scales": [1.0, 1.0, 2.0, 3.0]}, ()),
    ("Upsample", 9, (X, scales(1, 1, 2, 3)), {"mode": "linear"}, (1,)),
    ("Resize", 10, (X, scales(1, 1, 2, 3)), {}, (1,)),
    ("Resize", 10, (X, scales(1, 1, 0.6, 0.7)), {}, (1,)),
    ("Resize", 10, (X, scales(1, 1, 1.7, 1.5)), {"mode": "linear"}, (1,)),
    ("Resize", 11, (X, scales(), scales(1, 1, 2, 1.5)),
     {"coordinate_transformation_mode": "tf_half_pixel_for_nn"}, (1, 2)),
    ("BatchNormalization", 7, (X, *CHANNELS), {}, (1, 2, 3, 4)),
    ("BatchNormalization", 9, (X, *CHANNELS), {"epsilon": 0.01}, (1, 2, 3, 4)),
    ("InstanceNormalization", 6, (X, *CHANNELS[:2]), {}, ()),
    ("LRN", 7, (X,), {"size": 3, "alpha": 0.1}, ()),
    ("LpNormalization", 7, (X,), {"axis": 1, "p": 1}, ()),
    ("MeanVarianceNormalization", 9, (X,), {}, ()),
    ("MaxPool", 7, (X,), {"kernel_shape": [2, 3], "strides": [2, 1]}, ()),
    ("MaxPool", 10, (X,), {"kernel_shape": [2, 2], "strides": [3, 2], "ceil_mode": 1}, ()),
    ("AveragePool", 7, (X,), {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1],
                              "count_include_pad": 1}, ()),
    ("AveragePool", 10, (X,), {"kernel_shape": [3, 3], "auto_pad": "SAME_UPPER"}, ()),
    ("LpPool", 7, (X,), {"kernel_shape": [2, 2]}, ()),
    ("GlobalAveragePool", 7, (X,), {}, ()),
    ("Conv", 7, (X, sample(4, 3, 3, 3), sample(4)), {"auto_pad": "SAME_LOWER"}, (1, 2)),
    ("ConvTranspose", 7, (X, sample(3, 2, 3, 3)), {"strides": [2, 2]}, (1,)),
    ("Gemm", 7, (sample(2, 3), sample(4, 3), sample(4)), {"transB": 1, "alpha": 0.5}, (1, 2)),
    ("MatMul", 7, (sample(2, 3), sample(3, 4)), {}, ()),
]  # fmt: skip


@pytest.mark.parametrize(
    ("op", "opset", "arrays", "attrs", "weights"),
    NODES,
    ids=[f"{n[0]}-{n[1]}-{i}" for i, n in enumerate(NODES)],
)
def test_against_onnxruntime(op, opset, arrays, attrs, weights):
    made = model(op, opset, arrays, attrs, weights)
    feed = {f"x{i}": a for i, a in enumerate(arrays) if i not in weights}
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        made.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    (expected,) = session.run(None, feed)
    actual = evaluate(load_model(made), feed)["y"]
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def test_batch_normalization_that_is_not_spatial_is_refused():
    made = model("BatchNormalization", 7, (X, *CHANNELS), {"spatial": 0}, (1, 2, 3, 4))
    with pytest.raises(OperatorError, match="spatial"):
        load_model(made)


def test_group_normalization_of_opset_18_scales_groups():
    x, pair = sample(2, 6, 4), (sample(2), sample(2, seed=1))
    made = model("GroupNormalization", 18, (x, *pair), {"num_groups": 2}, ())
    made.ir_version = 8
    rows = x.reshape(2, 2, -1)
    norm = (rows - rows.mean(-1, keepdims=True)) / np.sqrt(rows.var(-1, keepdims=True) + 1e-5)
    expected = norm * pair[0][:, None] + pair[1][:, None]
    actual = evaluate(load_model(made), {"x0": x, "x1": pair[0], "x2": pair[1]})["y"]
    np.testing.assert_allclose(actual, expected.reshape(x.shape), rtol=1e-5, atol=1e-5)
