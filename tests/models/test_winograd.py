"""Winograd's convolution as native code: its error against float64, beside that of the direct sum,
and small networks against onnxruntime."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import aicc
from aicc import pipeline
from aicc.graph_ir.passes import winograd
from aicc.graph_ir.passes.winograd import Winograd

BOUND = 8.0
"""How many times the error of the direct sum is allowed."""


def chain(size, channels, width=None, residual=False, gaps=(1, 1), batch=1, free=False):
    """Convolutions with bias and ReLU, and a sum with the input where `residual`. gaps: their
    dilations. free: only a run knows the sizes of the images and how many they are."""
    rng = np.random.default_rng(channels * size)
    nodes, constants, value = [], [], "x"
    for n, (c, o) in enumerate(pairwise(channels)):
        w = rng.standard_normal((o, c, 3, 3)) * np.sqrt(2 / (9 * c))
        constants += [
            numpy_helper.from_array(w.astype(np.float32), f"w{n}"),
            numpy_helper.from_array(rng.standard_normal(o).astype(np.float32), f"b{n}"),
        ]
        conv = f"c{n}"
        attrs = {"pads": [*gaps, *gaps], "dilations": gaps}
        nodes.append(helper.make_node("Conv", [value, f"w{n}", f"b{n}"], [conv], **attrs))
        if residual:
            nodes.append(helper.make_node("Add", [conv, value], [f"a{n}"]))
            conv = f"a{n}"
        nodes.append(helper.make_node("Relu", [conv], [f"r{n}"]))
        value = f"r{n}"
    n, h, w = ("n", "h", "w") if free else (batch, size, width or size)
    return model(nodes, [n, channels[0], h, w], [n, channels[-1], h, w], value, constants)


def model(nodes, x_shape, y_shape, y, constants):
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, x_shape)
    graph = helper.make_graph(
        nodes, "g", [x], [helper.make_tensor_value_info(y, TensorProto.FLOAT, y_shape)], constants
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(made)
    return made


def compiled(made, monkeypatch, tile, threads=1, together=False, late=False):
    """The model with every convolution that fits in tiles of `tile`, by one kernel where `together`
    and else by three; tile 0 for direct sums. late: each run transforms the weights."""

    def cost(graph, nodes):
        seconds = {"Conv": 3.0, "aicc::WinogradConv": 0.3 if together else 2.0}
        return seconds.get(nodes[0].op, 0.1)

    def passes(target, memory_budget=None, many=None):
        order = original(target, memory_budget)
        at = next(n for n, p in enumerate(order) if isinstance(p, Winograd))
        return [*order[:at], Winograd(cost, (tile,) if tile else ()), *order[at + 1 :]]

    original = pipeline.passes
    with monkeypatch.context() as m:
        if late:
            m.setattr(winograd, "ROOM", 0)
        m.setattr("aicc.driver.passes", passes)
        return aicc.compile(made, threads=threads)


def exact(x, w, gap):
    big = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (gap, gap), (gap, gap)))
    whole = (2 * gap + 1,) * 2
    taps = np.lib.stride_tricks.sliding_window_view(big, whole, (2, 3))[..., ::gap, ::gap]
    return np.einsum("nchwpq,ocpq->nohw", taps, w.astype(np.float64), optimize=True)


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("tile", [2, 4])
@pytest.mark.parametrize(
    ("size", "channels", "filters", "gap"),
    [(24, 16, 16, 1), (20, 64, 48, 1), (14, 256, 64, 1), (8, 512, 32, 1), (21, 64, 32, 3)],
)
def test_the_error_is_bounded_by_that_of_the_direct_sum(
    together, tile, size, channels, filters, gap, monkeypatch
):
    rng = np.random.default_rng(1)
    w = rng.standard_normal((filters, channels, 3, 3)) * np.sqrt(2 / (9 * channels))
    w = w.astype(np.float32)
    x = np.maximum(rng.standard_normal((1, channels, size, size)), 0).astype(np.float32)
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[gap] * 4, dilations=[gap] * 2)
    made = model([node], x.shape, [1, filters, size, size], "y", [numpy_helper.from_array(w, "w")])
    truth = exact(x, w, gap)
    errors = {}
    for t in (0, tile):
        native = compiled(made, monkeypatch, t, together=together)
        names = " ".join(step.what for step in native.profile({"x": x}))
        assert ("winograd" in names) == bool(t)
        (y,) = native.run(None, {"x": x})
        error = np.abs(y - truth)
        errors[t] = np.sqrt(np.mean(error**2)), error.max()
    assert errors[tile][0] <= 0.5 * BOUND * errors[0][0]
    assert errors[tile][1] <= BOUND * errors[0][1]


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("tile", [2, 4])
@pytest.mark.parametrize("residual", [False, True])
def test_networks_against_onnxruntime(tile, residual, together, monkeypatch):
    ort = pytest.importorskip("onnxruntime")
    channels = (20, 20, 20) if residual else (5, 24, 17, 32)
    made = chain(11, channels, width=14, residual=residual)
    session = ort.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(2).standard_normal((1, channels[0], 11, 14)).astype(np.float32)
    (want,) = session.run(None, {"x": x})
    native = compiled(made, monkeypatch, tile, together=together)
    steps = [s.what for s in native.profile({"x": x})]
    last = "winogradconv" if together else "winogradoutput"
    assert sum(last in s for s in steps) == len(channels) - 1
    # What follows each convolution is part of its last kernel.
    assert not any(s.startswith(("add", "relu")) for s in steps)
    (y,) = native.run(None, {"x": x})
    np.testing.assert_allclose(y, want, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("together", [False, True])
def test_results_are_the_same_for_every_number_of_threads(together, monkeypatch):
    made = chain(33, (32, 48, 32))
    x = np.random.default_rng(3).standard_normal((1, 32, 33, 33)).astype(np.float32)
    one, two = (
        compiled(made, monkeypatch, 4, threads=t, together=together).run(None, {"x": x})[0]
        for t in (1, 2)
    )
    assert one.tobytes() == two.tobytes()


@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize(
    ("tile", "channels", "gaps"), [(4, 64, (1, 1)), (2, 20, (1, 1)), (4, 33, (2, 2))]
)
def test_weights_that_each_run_transforms(tile, channels, gaps, free, monkeypatch):
    ort = pytest.importorskip("onnxruntime")
    made = chain(11, (channels, 64, 150), width=14, gaps=gaps, batch=2, free=free)
    session = ort.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(5).standard_normal((2, channels, 11, 14)).astype(np.float32)
    (want,) = session.run(None, {"x": x})
    results = []
    for threads in (1, 2):
        native = compiled(made, monkeypatch, tile, threads=threads, late=True)
        steps = [s.what for s in native.profile({"x": x})]
        assert sum("winogradfilters" in s for s in steps) == 4
        assert not any(s.startswith(("add", "relu")) for s in steps)
        results.append(native.run(None, {"x": x})[0])
    np.testing.assert_allclose(results[0], want, rtol=2e-4, atol=2e-4)
    assert results[0].tobytes() == results[1].tobytes()


@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize(
    ("gaps", "tile", "batch", "sizes"),
    [
        ((2, 2), 4, 1, (33, 17)),
        ((2, 2), 2, 2, (8, 12)),
        ((6, 6), 2, 1, (13, 7)),
        ((1, 3), 4, 3, (6, 19)),
    ],
)
def test_windows_with_gaps_against_onnxruntime(
    gaps, tile, batch, sizes, together, free, monkeypatch
):
    ort = pytest.importorskip("onnxruntime")
    made = chain(sizes[0], (16, 35, 20), sizes[1], gaps=gaps, batch=batch, free=free)
    session = ort.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(4).standard_normal((batch, 16, *sizes)).astype(np.float32)
    (want,) = session.run(None, {"x": x})
    results = []
    for threads in (1, 2):
        native = compiled(made, monkeypatch, tile, threads=threads, together=together)
        steps = [s.what for s in native.profile({"x": x})]
        last = "winogradconv" if together else "winogradoutput"
        assert sum(last in s for s in steps) == 2
        results.append(native.run(None, {"x": x})[0])
    np.testing.assert_allclose(results[0], want, rtol=2e-4, atol=2e-4)
    assert results[0].tobytes() == results[1].tobytes()


@pytest.mark.parametrize("gap", [1, 2])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("single", [False, True])
def test_only_a_run_knows_which_images_are_large(single, residual, gap, monkeypatch):
    """Small images are convolved directly: a kernel has both, and chooses by the sizes of a run."""
    ort = pytest.importorskip("onnxruntime")
    made = chain(11, (20, 20, 20), residual=residual, gaps=(gap, gap), free=True)
    if single:
        made.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    direct = compiled(made, monkeypatch, 0)
    natives = [compiled(made, monkeypatch, 4, threads=t, together=True) for t in (1, 2)]
    session = ort.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    alike = []
    for shape in ((1, 1, 1), (3, 2, 3), (1, 5, 1), (2, 6, 5), (2, 11, 14), (3, 25, 24)):
        shape = (1, *shape[1:]) if single else shape
        x = np.random.default_rng(6).standard_normal((shape[0], 20, *shape[1:])).astype(np.float32)
        (want,) = session.run(None, {"x": x})
        one, two = (m.run(None, {"x": x})[0] for m in natives)
        np.testing.assert_allclose(one, want, rtol=2e-4, atol=2e-4)
        assert one.tobytes() == two.tobytes()
        # Winograd's convolution rounds otherwise than the sum does.
        alike.append(np.abs(one - direct.run(None, {"x": x})[0]).max() < 2e-6)
    assert alike[:3] == [True] * 3 and alike[-2:] == [False] * 2


def test_one_filter_is_summed_directly(monkeypatch):
    made = chain(12, (32, 1))
    monkeypatch.setenv("AICC_WINOGRAD", "1")
    module = aicc.compile(made, stop_after="winograd")
    assert {n.op for n in module.nodes} >= {"Conv"}


def test_the_environment_turns_it_off(monkeypatch):
    made = chain(28, (64, 64))
    x = np.zeros((1, 64, 28, 28), np.float32)
    found = {}
    for setting in ("0", "1"):
        monkeypatch.setenv("AICC_WINOGRAD", setting)
        steps = aicc.compile(made, threads=1).profile({"x": x})
        found[setting] = any("winograd" in s.what for s in steps)
    assert not found["0"]
    assert found["1"]
