"""Recurrent networks, compiled once for all lengths and batches, against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import aicc
from aicc.tensor_ir.ir import For
from aicc.tensor_ir.walk import walk_stmts

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
FEATURES = 10


def network(
    op: str, hidden: int, direction: str = "forward", lengths: bool = False, **attrs: Any
) -> onnx.ModelProto:
    """Two layers as exporters write them, batch first outside, steps first inside."""
    rng = np.random.default_rng(0)
    d = 2 if direction == "bidirectional" else 1
    nodes, weights = [helper.make_node("Transpose", ["x"], ["x0"], perm=[1, 0, 2])], []

    def weight(name: str, *shape: int) -> str:
        data = rng.normal(0, 1 / np.sqrt(shape[-1]), shape).astype(np.float32)
        weights.append(numpy_helper.from_array(data, name))
        return name

    def ints(name: str, *values: int) -> str:
        weights.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    size = FEATURES
    for n in range(2):
        g = GATES[op] * hidden
        operands = [f"x{n}", weight(f"w{n}", d, g, size), weight(f"r{n}", d, g, hidden)]
        operands += [weight(f"b{n}", d, 2 * g), "lengths" if lengths else ""]
        results = [f"y{n}", f"h{n}", *([f"c{n}"] if op == "LSTM" else [])]
        kind = {"hidden_size": hidden, "direction": direction, **attrs}
        nodes.append(helper.make_node(op, operands, results, name=f"{op}{n}", **kind))
        nodes.append(helper.make_node("Transpose", [f"y{n}"], [f"t{n}"], perm=[0, 2, 1, 3]))
        shape = ints(f"s{n}", 0, 0, -1)
        nodes.append(helper.make_node("Reshape", [f"t{n}", shape], [f"x{n + 1}"]))
        size = d * hidden
    nodes.append(helper.make_node("Transpose", ["x2"], ["y"], perm=[1, 0, 2]))
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "seq", FEATURES])]
    if lengths:
        inputs.append(helper.make_tensor_value_info("lengths", TensorProto.INT32, ["batch"]))
    outputs = ["y", "h0", "h1", *(["c1"] if op == "LSTM" else [])]
    infos = [onnx.ValueInfoProto(name=name) for name in outputs]
    graph = helper.make_graph(nodes, "recurrent", inputs, infos, weights)
    opset = [helper.make_opsetid("", 17)]
    made = helper.make_model(graph, opset_imports=opset, ir_version=8)
    return onnx.shape_inference.infer_shapes(made, check_type=True, strict_mode=True)


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options)


CASES = [
    ("LSTM", 16, "forward", False, {}),
    ("LSTM", 21, "bidirectional", True, {}),
    ("LSTM", 40, "reverse", False, {"clip": 2.0}),
    ("GRU", 16, "forward", True, {"linear_before_reset": 1}),
    ("GRU", 33, "bidirectional", False, {"linear_before_reset": 1}),
    ("GRU", 20, "bidirectional", True, {}),
    ("RNN", 48, "bidirectional", False, {}),
    ("RNN", 7, "reverse", True, {"activations": ["Relu"]}),
    ("LSTM", 8, "bidirectional", False, {"activations": ["HardSigmoid", "Tanh", "Relu"] * 2}),
    ("RNN", 12, "bidirectional", False, {"activations": ["Relu", "Tanh"]}),
]


@pytest.mark.parametrize(
    ("op", "hidden", "direction", "lengths", "attrs"), CASES, ids=lambda v: str(v)
)
def test_against_onnxruntime(
    op: str, hidden: int, direction: str, lengths: bool, attrs: dict[str, Any]
) -> None:
    model = network(op, hidden, direction, lengths, **attrs)
    other = session(model)
    compiled = aicc.compile(model, threads=1)
    shared = aicc.compile(model, threads=2)
    assert compiled.report().host_ops == ()
    rng = np.random.default_rng(1)
    for batch, seq in ((1, 9), (2, 1), (3, 5), (7, 4), (1, 30)):
        feed = {"x": rng.normal(size=(batch, seq, FEATURES)).astype(np.float32)}
        if lengths:
            feed["lengths"] = rng.integers(1, seq + 1, batch).astype(np.int32)
        expected = other.run(None, feed)
        actual = compiled.run(None, feed)
        for a, e, b in zip(actual, expected, shared.run(None, feed), strict=True):
            np.testing.assert_allclose(a, e, rtol=1e-4, atol=1e-5)
            assert np.array_equal(a, b)  # bit for bit, whatever the number of threads


@pytest.mark.parametrize("batch", [2, 5, 13, 32])
@pytest.mark.parametrize("op", ["LSTM", "GRU"])
def test_batches_that_are_known(op: str, batch: int) -> None:
    """Tiles of as many rows as suit the batch, without a rest that goes row by row."""
    model = network(op, 40, "bidirectional")
    x = np.random.default_rng(3).normal(size=(batch, 4, FEATURES)).astype(np.float32)
    expected = session(model).run(None, {"x": x})
    pinned = {"batch": batch, "seq": 4}
    kernels = aicc.compile(model, dims=pinned, stop_after="plan").kernels
    sums = [b for k in kernels.values() for b in k.buffers if b.scope == "register"]
    assert sums and all(b.shape[0] > 1 for b in sums if len(b.shape) == 3)
    for a, e in zip(aicc.compile(model, dims=pinned, threads=1)(x), expected, strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("op", GATES)
def test_lengths_of_a_known_number_of_steps(op: str) -> None:
    """A run computes with the steps up to the end of the longest sample only."""
    model = network(op, 16, "bidirectional", lengths=True)
    compiled = aicc.compile(model, dims={"batch": 3, "seq": 6}, threads=1)
    assert "read" in str(compiled.program) and compiled.report().host_ops == ()
    other = session(model)
    x = np.random.default_rng(5).normal(size=(3, 6, FEATURES)).astype(np.float32)
    for lengths in ([1, 2, 3], [6, 6, 6], [2, 2, 2], [1, 6, 4]):
        feed = {"x": x, "lengths": np.array(lengths, np.int32)}
        for a, e in zip(compiled.run(None, feed), other.run(None, feed), strict=True):
            np.testing.assert_allclose(a, e, rtol=1e-4, atol=1e-5)
    for lengths in ([7, 1, 1], [-1, 2, 3], [-1, -1, -1]):
        with pytest.raises(aicc.ExecutionError, match=op):
            compiled.run(None, {"x": x, "lengths": np.array(lengths, np.int32)})


def test_a_length_beyond_the_steps_ends_the_run() -> None:
    compiled = aicc.compile(network("GRU", 8, lengths=True), threads=1)
    feed = {"x": np.zeros((2, 3, FEATURES), np.float32), "lengths": np.array([3, 4], np.int32)}
    with pytest.raises(aicc.ExecutionError, match=r"GRU0.*a length exceeds the steps"):
        compiled.run(None, feed)


@pytest.mark.parametrize("op", GATES)
def test_threads_share_a_step(op: str) -> None:
    """Cells that are large enough for it: products of 100,000 weights and more."""
    model = network(op, 328)
    planned = aicc.compile(model, stop_after="plan")
    kernel = next(k for n, k in planned.kernels.items() if "steps" in n)
    loops = [s for s in walk_stmts(kernel.body) if isinstance(s, For)]
    assert any(s.kind == "parallel" and s not in kernel.body for s in loops)
    one, two = (aicc.compile(model, threads=n) for n in (1, 2))
    other = session(model)
    for batch, seq in ((1, 5), (6, 3)):
        x = np.random.default_rng(2).normal(size=(batch, seq, FEATURES)).astype(np.float32)
        expected = other.run(None, {"x": x})
        for a, b, e in zip(one(x), two(x), expected, strict=True):
            assert np.array_equal(a, b)
            np.testing.assert_allclose(a, e, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("op", GATES)
def test_only_the_last_state(op: str) -> None:
    """The sequence that nobody reads is not computed either."""
    model = network(op, 16)
    kept = [o for o in model.graph.output if o.name == "h1"]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    x = np.random.default_rng(0).normal(size=(2, 3, FEATURES)).astype(np.float32)
    (expected,) = session(model).run(None, {"x": x})
    np.testing.assert_allclose(aicc.compile(model)(x), expected, rtol=1e-4, atol=1e-5)
