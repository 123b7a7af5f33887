"""The measuring side: operation counts, comparing outputs, workers, the models built offline."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

import compile_time
import kernels
import memory
import models
import threads
from aicc.memory.order_problem import live_peak
from aicc.memory.placement import greedy
from aicc.memory.placement import live_peak as live_bytes
from harness import feeds, flops, fresh, options
from harness.client import EngineError, Worker, error_in_tolerances, measure, same
from harness.problems import CAPACITY, order_graphs, reverse_post_order, spans
from harness.record import Record
from harness.table import Table
from zoo import (
    bert,
    convnext,
    densenet,
    efficientnet,
    gpt2,
    mlp,
    mobilenet_v2,
    recurrent,
    resnet,
    unet,
    vit,
    yolo,
)
from zoo.builder import GraphBuilder

PROBLEMS = {name: spans(name) for name in ("placement", "usage")}


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
    assert same(measured.values()) == "yes"
    measured["numpy"].agrees = 1.5
    assert same(measured.values()) == "not numpy"


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
        (lambda: mlp.mlp_small(), {}, (1, 64)),
        (lambda: recurrent.gru_step(8, 16), {}, (1, 1, 16)),
        (lambda: recurrent.lstm_tagger(5, 20, 8, 16, 3), {}, (5, 1, 3)),
        (lambda: convnext.convnext_tiny(size=32), {}, (1, 1000)),
        (lambda: densenet.densenet121(size=32), {}, (1, 1000)),
        (lambda: yolo.yolo(size=64), {}, (1, 144, 84)),
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


@pytest.mark.parametrize(
    ("model", "published"),
    [
        (resnet.resnet50, 2 * 4.09e9),
        (convnext.convnext_tiny, 2 * 4.46e9),
        (densenet.densenet121, 2 * 2.83e9),
        (yolo.yolo, 8.7e9),
    ],
)
def test_operations_of_published_architectures(model, published):
    built = model()
    assert flops.count(built, feeds.generic(built)) == pytest.approx(published, rel=0.01)


# --- the commands -----------------------------------------------------------------------------

TINY = ["--models", "mlp_small", "--rounds", "1"]


@pytest.fixture
def files(tmp_path):
    return ["--markdown", str(tmp_path / "t.md"), "--json", str(tmp_path / "t.json")]


def written(files):
    """What a command has left: the Markdown, and the figures."""
    text, told = Path(files[1]).read_text(), json.loads(Path(files[3]).read_text())
    assert {"processor", "cores", "memory_bytes", "system", "load"} <= told["machine"].keys()
    assert {"python", "aicc", "numpy", "onnx", "onnxruntime"} <= told["versions"].keys()
    assert told["date"] in text and told["command"] in text and "--json" in told["command"]
    for name, version in told["versions"].items():
        assert f"{name} {version}" in text
    return text, told


def rows(text):
    """The cells of each row of all tables."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[c.strip() for c in line.strip("|").split("|")] for line in lines if "---" not in line]


def test_models(files):
    command = [*TINY, "--seconds", "0.02", "--engines", "onnxruntime", *files]
    assert models.main(command) == 0
    text, told = written(files)
    (result,) = told["results"]
    own, other = sorted(result["engines"], key=lambda e: e["engine"])
    ratio = other["median_seconds"] / own["median_seconds"]
    assert result["speedup"] == {"onnxruntime": pytest.approx(ratio)}
    (summary,) = told["summary"]
    assert summary["geometric_mean"] == {"onnxruntime": pytest.approx(ratio)}
    assert f"{ratio:.3f}x onnxruntime in the geometric mean of 1 models" in text
    head, row = rows(text)
    assert row[head.index("over onnxruntime")] == f"{ratio:.2f}x" and row[-1] == "yes"


def test_engines_that_are_not_installed_are_left_out(monkeypatch, capsys):
    monkeypatch.setattr(options, "installed", lambda name: name != "openvino")
    assert options.available(["onnxruntime", "openvino"]) == ["onnxruntime", "aicc"]
    assert "openvino is not installed and left out" in capsys.readouterr().out


def test_geometric_means():
    record = Record("t", "x", [])
    gains = [{"a": 2.0, "b": 4.0}, {"a": 8.0, "b": 1.0}, {}]
    models.summarize(record, 1, gains, ["a", "b"])
    (told,) = record.summary
    assert told["geometric_mean"] == pytest.approx({"a": 4.0, "b": 2.0, "fastest": 2**0.5})
    assert any("slower on 0" in line for line in record.lines)


def test_inputs_of_ones_own(tmp_path, monkeypatch, files):
    onnx.save(mlp.mlp_small(), tmp_path / "own.onnx")
    maker = "import numpy as np\ndef make(name, model):\n    assert name == 'own'\n"
    (tmp_path / "mine.py").write_text(maker + "    return {'x': np.ones((1, 64), np.float32)}\n")
    monkeypatch.chdir(tmp_path)
    p = options.parser("x")
    options.add_models(p)
    read = p.parse_args(["--onnx", "own.onnx", "--inputs", "mine:make"])
    (case,) = options.cases(read, tmp_path)
    assert case.name == "own" and case.feed["x"].tolist() == [[1.0] * 64]


def test_kernels(files, monkeypatch):
    few = [kernels.MatMul(1, 64, 64, "m"), kernels.Conv(7, 8, 8, 3, 1, 8, "c")]
    monkeypatch.setattr(kernels, "KERNELS", few)
    command = ["--rounds", "1", "--seconds", "0.02", *files]
    assert kernels.main(command) == 0
    text, told = written(files)
    assert [set(r["speedup"]) for r in told["results"]] == [
        {"onnxruntime", "numpy"},
        {"onnxruntime"},
    ]
    assert [r["kind"] for r in told["results"]] == ["matmul", "depthwise"]
    assert len(rows(text)) == 3


def test_kernels_are_those_of_all_kinds():
    kinds = {k.kind for k in kernels.KERNELS}
    assert {"matmul", "conv1x1", "conv3x3", "conv7x7", "conv5x5", "depthwise"} == kinds
    assert len(set(kernels.KERNELS)) == len(kernels.KERNELS)


def test_threads(files):
    command = [*TINY, "--seconds", "0.02", "--threads", "1,2", *files]
    assert threads.main(command) == 0
    _, told = written(files)
    (result,) = told["results"]
    found = {(e["engine"], e["threads"]): e for e in result["engines"]}
    assert set(found) == {(e, n) for e in ("aicc", "onnxruntime") for n in (1, 2)}
    for scaling in result["scaling"]:
        one, many = (found[scaling["engine"], n] for n in (1, scaling["threads"]))
        ratio = one["median_seconds"] / many["median_seconds"]
        assert scaling["scaling"] == pytest.approx(ratio)
        assert 0 <= many["idle_cpu_seconds"] < 3
    assert {(s["engine"], s["threads"]) for s in told["summary"]} == {
        ("aicc", 2), ("onnxruntime", 2),
    }  # fmt: skip


def test_compile_time(files):
    assert compile_time.main([*TINY, "--engines", "onnxruntime", *files]) == 0
    _, told = written(files)
    figures = told["results"][0]["figures"]
    assert set(figures) == {"cold", "again", "loaded", "onnxruntime"}
    assert all(f["load_seconds"] > 0 and f["first_seconds"] > 0 for f in figures.values())
    assert all(f["import_seconds"] > 0 for f in figures.values())
    assert [s["kind"] for s in told["summary"]] == ["cold", "again", "loaded", "onnxruntime"]


def test_memory(files, monkeypatch):
    few = {name: list(found.items())[:1] for name, found in PROBLEMS.items()}
    monkeypatch.setattr(memory, "spans", lambda name: dict(few[name]))
    graphs = order_graphs()[-1:]
    monkeypatch.setattr(memory, "order_graphs", lambda: graphs)
    parts = ["order", "usage", "joined", "arenas", "resident"]
    assert memory.main(["--parts", *parts, "--models", "mlp_small", *files]) == 0
    text, told = written(files)
    by_part = {r["part"]: r for r in told["results"]}
    assert list(by_part) == parts
    assert by_part["order"]["proven"] and by_part["order"]["peak"] == by_part["order"]["optimum"]
    assert by_part["order"]["reverse_post_order"] > by_part["order"]["optimum"]
    assert by_part["joined"]["arena"] == by_part["joined"]["optimum"]
    assert by_part["usage"]["greedy_by_size"] == by_part["usage"]["bound"]
    assert by_part["arenas"]["arena"] >= by_part["arenas"]["bound"]
    resident = by_part["resident"]["figures"]
    assert {"aicc", "loaded", "onnxruntime"} <= resident.keys()
    for engine in ("aicc", "loaded"):
        assert resident[engine]["peak"] >= resident[engine]["ready_peak"] > 1e6
        assert resident[engine]["weights"] >= 2 * 64 * 65 * 4
    for title in ("Order: peak", "Order and placement together", "Memory of processes"):
        assert f"## {title}" in text


def test_what_processes_hold_beyond_weights_and_arena(capsys):
    record = Record("t", "x", [])
    mb = 1 << 20
    for weights, peak, running in ((10, 90, 60), (100, 250, 170)):
        own = {"file": weights * mb, "weights": weights * mb, "arena": 5 * mb}
        own |= {"ready_peak": peak * mb, "peak": 0}
        other = {"ready_peak": 240 * mb, "running": 300 * mb, "peak": 0}
        figures = {"aicc": own, "loaded": own | {"running": running * mb}, "onnxruntime": other}
        record.results.append({"part": "resident", "figures": figures})
    memory.summarize(record)
    (told,) = record.summary
    assert told["compiling_beyond"] == 90 * mb and told["running_beyond"] == 65 * mb
    assert told["large_models_above_onnxruntime"] == {"compiling": 1, "running": 0}
    assert "of 1 models with more than 20 MB" in record.lines[1]


def test_memory_problems_that_are_shipped():
    graphs, placement, usage = order_graphs(), PROBLEMS["placement"], PROBLEMS["usage"]
    assert (len(graphs), len(placement), len(usage)) == (5, 8, 4)
    for graph in graphs:
        assert live_peak(graph.problem, reverse_post_order(graph)) > graph.optimum
        assert max(graph.problem.floors) <= graph.optimum
    for buffers in placement.values():
        assert live_bytes(buffers) <= CAPACITY < greedy(buffers, "size", 1).size
    for name, published in memory.PUBLISHED.items():
        (buffers,) = (b for n, b in usage.items() if n.startswith(name))
        size = greedy(buffers, "size", 1).size
        assert size / 2**20 == pytest.approx(published, abs=0.0006)
        assert size == live_bytes(buffers)


def test_a_process_that_fails_is_an_error(tmp_path):
    told = fresh.ask("aicc", tmp_path / "none.onnx", tmp_path / "none.npz", 1)
    assert told["error"].startswith("aicc: ") and "none.onnx" in told["error"]


def test_tables_in_markdown(capsys):
    table = Table([("a", -4), ("b", 3)])
    table.row("x|y", 1)
    table.row(None, "z")
    assert table.markdown() == "| a | b |\n| --- | ---: |\n| x\\|y | 1 |\n|  | z |"
    assert capsys.readouterr().out.startswith("a       b\n")
