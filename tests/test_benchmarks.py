"""The measuring side: operation counts, comparing outputs, workers, the models built offline."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from harness import feeds, flops
from harness.client import EngineError, Worker, error_in_tolerances, measure
from zoo import bert, efficientnet, gpt2, mlp, mobilenet_v2, resnet, unet, vit
from zoo.builder import GraphBuilder


def single(op_type, inputs, attributes=None, initializers=(), outputs=1):
    """A model of one node; `inputs` maps names to shapes."""
    names = [*inputs, *(t.name for t in initializers)]
    node = helper.make_node(op_type, names, [f"y{i}" for i in range(outputs)], **(attributes or {}))
    graph = helper.make_graph(
        [node],
        "single",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info("y0", TensorProto.FLOAT, None)],
        list(initializers),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@pytest.mark.parametrize(
    ("op_type", "inputs", "attributes", "expected"),
    [
        ("MatMul", {"a": (5, 3, 4), "b": (4, 7)}, {}, 2 * 5 * 3 * 7 * 4),
        ("Gemm", {"a": (4, 3), "b": (7, 4)}, {"transA": 1, "transB": 1}, 2 * 3 * 7 * 4),
        ("Conv", {"x": (2, 6, 9, 9), "w": (4, 3, 3, 3)}, {"group": 2}, 2 * (2 * 4 * 7 * 7) * 27),
        ("Conv", {"x": (1, 3, 9), "w": (4, 3, 3)}, {"strides": [2]}, 2 * (4 * 4) * 9),
        ("ConvTranspose", {"x": (1, 6, 5, 5), "w": (6, 4, 2, 2)}, {}, 2 * (6 * 25) * 16),
        (
            "LSTM",
            {"x": (10, 2, 8), "w": (1, 64, 8), "r": (1, 64, 16)},
            {"hidden_size": 16},
            2 * 10 * 2 * 64 * (8 + 16),
        ),
        ("Add", {"a": (5, 5), "b": (5, 5)}, {}, 0),
    ],
)
def test_operations_of_one_node(op_type, inputs, attributes, expected):
    model = single(op_type, inputs, attributes)
    assert flops.count(model, feeds.generic(model)) == expected


def test_operations_where_shape_inference_stops():
    g = GraphBuilder("opaque")
    x = g.input("x", ("rows", 4))
    kept = g.op(
        "Compress",
        x,
        g.op("Greater", g.op("ReduceSum", x, g.ints(1), keepdims=0), g.scalar(0.0)),
        axis=0,
    )
    g.output(g.op("MatMul", kept, g.normal("w", (4, 3), 1.0)), "y", ("some", 3))
    array = np.array([[1, 1, 1, 1], [-1, -1, -1, -1], [2, 0, 0, 0]], np.float32)
    assert flops.count(g.build(), {"x": array}) == 2 * 2 * 3 * 4  # two of three rows are kept


def test_error_in_tolerances():
    expected = np.array([1.0, 100.0, np.nan, np.inf], np.float32)
    assert error_in_tolerances(expected, expected) == 0
    close, far = expected.copy(), expected.copy()
    close[0] += 0.01  # atol * 100 + rtol * 1 = 0.011
    far[0] += 0.012
    assert 0.8 < error_in_tolerances(close, expected) < 1 < error_in_tolerances(far, expected)
    assert error_in_tolerances(expected[:3], expected) == np.inf
    assert error_in_tolerances(expected.astype(np.float64), expected) == np.inf
    assert error_in_tolerances(np.nan_to_num(expected), expected) == np.inf
    zeros = np.zeros(2, np.float32)
    assert error_in_tolerances(zeros + 1e-30, zeros) == np.inf
    ints = np.array([1, 2])
    assert error_in_tolerances(ints, ints) == 0
    assert error_in_tolerances(ints + 1, ints) == np.inf


def test_generic_inputs():
    model = single("Add", {"a": ("n", 3), "b": (1, 3)})
    model.graph.input[1].type.tensor_type.elem_type = TensorProto.INT64
    feed = feeds.generic(model, {"n": 5}, {"b": (7, 9)})
    assert feed["a"].shape == (5, 3) and feed["a"].dtype == np.float32
    assert set(feed["b"].ravel()) <= {7, 8} and feed["b"].dtype == np.int64


def test_measure_alternates_and_compares(tmp_path: Path):
    g = GraphBuilder("product")
    x = g.input("x", (8, 16))
    model = g.build_single("MatMul", [x, g.normal("w", (16, 4), 1.0)], (8, 4))
    onnx.save(model, tmp_path / "m.onnx")
    engines = ["onnxruntime", "numpy"]
    feed = feeds.generic(model)
    measured = measure(tmp_path / "m.onnx", feed, engines, 1, tmp_path, rounds=2, seconds=0.01)
    for name in engines:
        m = measured[name]
        assert m.error == "" and m.version.startswith(name)
        assert m.agrees is not None and m.agrees <= 1
        assert len(m.times) >= 2 and 0 < m.best <= m.median and m.peak_bytes > 1e6


def test_an_engine_that_refuses_is_reported_and_the_others_go_on(tmp_path: Path):
    model = single("Relu", {"x": (3,)})
    onnx.save(model, tmp_path / "m.onnx")
    feed = feeds.generic(model)
    measured = measure(
        tmp_path / "m.onnx", feed, ["onnxruntime", "numpy"], 1, tmp_path, rounds=1, seconds=0.01
    )
    assert "single MatMul or Gemm" in measured["numpy"].error
    assert not measured["onnxruntime"].error and measured["onnxruntime"].times


def test_a_worker_that_dies_is_an_error():
    with Worker("onnxruntime", 1) as worker:
        with pytest.raises(EngineError, match="no model is loaded"):
            worker.ask("time", seconds=0.01)
        worker._process.kill()
        with pytest.raises(EngineError, match="onnxruntime died"):
            worker.ask("memory")


@pytest.mark.parametrize(
    ("model", "dims", "shape"),
    [
        (lambda: mlp.mlp(2), {}, (2, 10)),
        (lambda: resnet.resnet18(size=32), {}, (1, 1000)),
        (lambda: resnet.resnet50(size=32), {}, (1, 1000)),
        (lambda: mobilenet_v2.mobilenet_v2(size=32), {}, (1, 1000)),
        (lambda: efficientnet.efficientnet_b0(size=32), {}, (1, 1000)),
        (lambda: unet.unet(size=32, channels=4), {}, (1, 2, 32, 32)),
        (lambda: vit.vit_base(size=32, layers=1), {}, (1, 1000)),
        (lambda: bert.bert_base(2, 8, layers=1), {}, (2, 8, 768)),
        (lambda: bert.bert_base("b", "s", layers=1), {"b": 2, "s": 5}, (2, 5, 768)),
        (lambda: gpt2.gpt2_prefill(seq=8, layers=1), {}, (1, 8, 50257)),
        (lambda: gpt2.gpt2_decode(layers=1), {"batch": 2, "past_len": 3}, (2, 1, 50257)),
    ],
)
def test_models_built_offline_run(model, dims, shape):
    proto = model()
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    outputs = session.run(None, feeds.generic(proto, dims))
    assert outputs[0].shape == shape
    for declared, output in zip(proto.graph.output, outputs):
        assert len(declared.type.tensor_type.shape.dim) == output.ndim
        assert np.isfinite(output).all() and output.std() > 0


def test_operations_of_a_published_architecture():
    model = resnet.resnet50()
    operations = flops.count(model, feeds.generic(model))
    assert operations == pytest.approx(2 * 4.09e9, rel=0.01)  # 4.09 G multiply-adds, as published
