"""The command line: results on standard output alone, messages on standard error, exit codes."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from small_models import MODELS, feeds
from typer.testing import CliRunner

import aicc
from aicc.cli.app import app
from aicc.cli.values import UsageError, file_name, sizes, table, to_json


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("models")
    for name, build in MODELS.items():
        onnx.save(build(), made / f"{name}.onnx")
    return made


@pytest.fixture
def mlp(folder):
    return str(folder / "mlp.onnx")


def call(*args):
    return CliRunner().invoke(app, [str(a) for a in args])


def told(*args):
    """What a command that succeeds prints as JSON."""
    made = call(*args, "--json")
    assert made.exit_code == 0, made.stderr
    return json.loads(made.stdout)


def refused(code, *args):
    """The one message of a command that fails."""
    made = call(*args)
    assert made.exit_code == code, made.output
    assert made.stdout == ""
    lines = [line for line in made.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "Traceback" not in made.stderr
    return made.stderr


# --- run --------------------------------------------------------------------------------------


def test_run_given_inputs(mlp, tmp_path):
    feed = feeds("mlp")[1]
    np.save(tmp_path / "x.npy", feed["x"])
    expected = aicc.compile(mlp)(**feed)
    made = told("run", mlp, "--input", f"x={tmp_path / 'x.npy'}", "--output", tmp_path / "out")
    (y,) = made["outputs"]
    assert (y["name"], y["dtype"], y["shape"]) == ("y", "float32", [5, 5])
    assert y["first"] == expected.reshape(-1)[:6].tolist()
    np.testing.assert_array_equal(np.load(y["file"]), expected)
    plain = call("run", mlp, "-i", tmp_path / "x.npy")  # the one input needs no name
    assert plain.stdout.startswith("y: float32[5, 5]  min ") and plain.stdout.count("\n") == 1


def test_run_random_inputs(folder):
    path = folder / "transformer.onnx"
    first = told("run", path, "--random")["outputs"]
    assert first[0]["shape"] == [1, 64, 24]
    assert told("run", path, "--random")["outputs"] == first
    assert told("run", path, "--random", "--seed", "1")["outputs"] != first
    sized = told("run", path, "--random", "--sizes", "seq=7,batch=3")["outputs"]
    assert sized[0]["shape"] == [3, 7, 24]
    pinned = told("run", path, "--random", "--dims", "batch=2", "--dims", "seq=5")["outputs"]
    assert pinned[0]["shape"] == [2, 5, 24]


def test_host_operators_are_a_warning(folder, tmp_path):
    made = call("run", folder / "hosts.onnx", "--random", "--sizes", "n=3", "-o", tmp_path)
    assert made.exit_code == 0
    assert "warning: 1 operators have no native code" in made.stderr
    assert made.stdout.splitlines()[1].startswith("labels: object[3]  [c, c, d]")
    assert np.load(tmp_path / "labels.npy").tolist() == ["c", "c", "d"]


def test_faults_of_run(mlp, tmp_path):
    assert "give --input NAME=FILE.npy, or --random" in refused(2, "run", mlp)
    assert "cannot read 'no.npy'" in refused(2, "run", mlp, "--input", "x=no.npy")
    np.save(tmp_path / "x.npy", np.zeros((2, 13), np.float32))
    np.save(tmp_path / "o.npy", np.array([{}], object), allow_pickle=True)
    np.savez(tmp_path / "z.npz", np.zeros(1))
    x = f"x={tmp_path / 'x.npy'}"
    assert "size 13 along axis 1 instead of 12" in refused(2, "run", mlp, "--input", x)
    assert "x is given twice" in refused(2, "run", mlp, "-i", x, "-i", x)
    assert "unknown inputs: q" in refused(
        2, "run", mlp, "-i", f"q={tmp_path / 'x.npy'}", "--random"
    )
    assert "cannot read" in refused(2, "run", mlp, "-i", f"x={tmp_path / 'o.npy'}")
    assert "several arrays" in refused(2, "run", mlp, "-i", f"x={tmp_path / 'z.npz'}")
    assert "'batch': a name, = and a size" in refused(2, "run", mlp, "--random", "--dims", "batch")
    assert (
        "cannot" in refused(2, "run", mlp, "--random", "-o", tmp_path / "x.npy" / "below") or True
    )


def test_a_run_that_its_data_end(tmp_path):
    value = helper.make_tensor_value_info
    made = helper.make_model(
        helper.make_graph(
            [helper.make_node("Gather", ["x", "i"], ["y"], "pick")],
            "g",
            [value("x", TensorProto.FLOAT, [3, 2]), value("i", TensorProto.INT64, [1])],
            [value("y", TensorProto.FLOAT, [1, 2])],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
    )
    made.ir_version = 8
    onnx.save(made, tmp_path / "gather.onnx")
    np.save(tmp_path / "i.npy", np.array([9]))
    text = refused(3, "run", tmp_path / "gather.onnx", "--random", "-i", f"i={tmp_path / 'i.npy'}")
    assert "pick" in text and "out of range" in text


# --- compile, resume --------------------------------------------------------------------------


def test_compile(mlp):
    made = call("compile", mlp, "--threads", "1")
    assert made.exit_code == 0 and made.stdout.startswith("model mlp: ")
    report = told("compile", mlp, "--threads", "1", "--check", "2")["report"]
    assert report["threads"] == 1 and report["host_ops"] == []


def test_compile_up_to_a_pass(mlp, tmp_path):
    text = call("compile", mlp, "--stop-after", "fold").stdout
    assert text == str(aicc.compile(mlp, stop_after="fold"))
    made = told("compile", mlp, "--stop-after", "fuse", "--dims", "batch=2")
    assert made["level"] == "Module" and "f32[2, 12]" in made["text"]
    files = told("compile", mlp, "--stop-after", "fuse", "--dump", tmp_path)["files"]
    assert [os.path.basename(f) for f in files][:2] == ["00_graph.txt", "01_fold.txt"]
    went_on = told("resume", tmp_path, "fuse", "--threads", "1")
    assert went_on["report"]["name"] == "mlp"
    text = told("resume", tmp_path, "fuse", "--stop-after", "plan")["text"]
    assert "program @mlp" in text


def test_saved_models(mlp, tmp_path):
    saved = tmp_path / "mlp.aicc"
    assert str(saved) in call("compile", mlp, "-o", saved).stdout
    assert told("compile", mlp, "-o", saved)["files"] == [str(saved)]
    expected = told("run", mlp, "--random")["outputs"]
    assert told("run", saved, "--random", "--threads", "1")["outputs"] == expected
    assert "compiled already" in refused(2, "run", saved, "--random", "--dims", "batch=1")
    assert "compiled already" in refused(2, "run", saved, "--random", "--target", "native")
    assert "--stop-after" in refused(2, "compile", mlp, "-o", saved, "--stop-after", "fold")
    saved.write_bytes(saved.read_bytes()[:-1])
    assert "truncated" in refused(1, "run", saved, "--random")


def test_refusals_of_compile(mlp, tmp_path):
    (tmp_path / "bad.onnx").write_bytes(b"\x07\x07\x07")
    assert "does not exist" in refused(1, "compile", tmp_path / "none.onnx")
    assert "not an ONNX model" in refused(1, "compile", tmp_path / "bad.onnx")
    assert "there is no pass 'polish'" in refused(1, "compile", mlp, "--stop-after", "polish")
    assert "unknown target 'abacus'" in refused(1, "compile", mlp, "--target", "abacus")
    assert "cannot read" in refused(1, "resume", tmp_path / "nowhere", "fold")
    made = call("compile", tmp_path / "none.onnx", "--debug")
    assert isinstance(made.exception, aicc.ModelError)


def test_usage(mlp):
    for args in (
        [],
        ["fly"],
        ["run"],
        ["run", mlp, "--threads", "0"],
        ["compile", mlp, "--check", "4"],
    ):
        made = call(*args)
        assert made.exit_code == 2 and made.stderr
    assert call("--version").stdout == f"aicc {aicc.__version__}\n"
    shown = call("--help").stdout
    assert "Exit codes: 0 done; 1 the model cannot be read" in shown
    assert "..." not in shown.partition("Commands:")[2]  # each command's line is whole


def test_what_all_commands_take():
    """As the README says."""
    commands = re.findall(r"^  (\w+) +[A-Z]", call("--help").stdout.partition("Commands:")[2], re.M)
    assert len(commands) == 7
    for command in commands:
        shown = call(command, "--help").stdout
        assert all(f" {option} " in shown for option in ("--threads", "--target", "--json")), (
            command
        )


# --- bench, inspect ---------------------------------------------------------------------------


def test_bench(mlp):
    made = told("bench", mlp, "--vs", "onnxruntime", "--threads", "1", "--rounds", "2",
                "--seconds", "0.01", "--sizes", "batch=3")  # fmt: skip
    assert made["inputs"] == {"x": [3, 12]} and made["threads"] == 1
    ours, theirs = made["engines"]
    assert (ours["engine"], theirs["engine"]) == ("aicc", "onnxruntime")
    for engine in made["engines"]:
        assert 0 < engine["best"] <= engine["median"] < 1 and engine["runs"] >= 2
        assert engine["load"] > 0 and engine["peak"] > 1 << 20
    assert theirs["difference"] == ""
    assert made["ratio"]["best"] == ours["best"] / theirs["best"]
    text = call("bench", mlp, "--rounds", "1", "--seconds", "0").stdout.splitlines()
    assert text[0].startswith("x: float32[1, 12]; ") and text[1].split()[:2] == ["engine", "best"]
    assert len(text) == 3


def test_faults_of_bench(mlp, tmp_path):
    assert "compared with onnxruntime" in refused(2, "bench", mlp, "--vs", "abacus")
    assert "aicc: TargetError: unknown target" in refused(1, "bench", mlp, "--target", "abacus")
    assert "does not exist" in refused(1, "bench", tmp_path / "none.onnx")


def test_profile(mlp, tmp_path, monkeypatch):
    monkeypatch.setenv("AICC_CACHE_DIR", str(tmp_path / "cache"))
    trace = tmp_path / "trace.json"
    made = told("profile", mlp, "--threads", "1", "--runs", "2", "--trace", trace)
    call("compile", mlp, "-o", tmp_path / "saved")
    loaded = told("profile", tmp_path / "saved", "--threads", "1", "--runs", "1")
    assert loaded["limits"] == made["limits"] and len(loaded["steps"]) == len(made["steps"])
    assert made["threads"] == 1 and made["run"] > 0
    assert made["limits"]["peak"]["f32"] > 1
    assert all(k["seconds"] > 0 for k in made["kernels"])
    lost = [k["lost"] for k in made["kernels"]]
    assert lost == sorted(lost, reverse=True)
    events = json.loads(trace.read_text())["traceEvents"]
    assert sum(e["ph"] == "X" for e in events) == len(made["steps"])
    shown = call("profile", mlp, "--runs", "1", "--top", "1")
    assert shown.exit_code == 0, shown.stderr
    lines = shown.stdout.splitlines()
    assert lines[2].split()[:3] == ["kernel", "calls", "ms"]
    assert len(lines) == 4 + (len(made["kernels"]) > 1)
    assert "nowhere" in refused(2, "profile", mlp, "--trace", tmp_path / "nowhere" / "t.json")


def test_inspect(folder):
    made = told("inspect", folder / "convnet.onnx")
    assert made["inputs"] == [{"name": "x", "dtype": "float32", "shape": [1, 3, 10, 10]}]
    assert made["operators"]["Conv"] == 3
    assert sum(made["kernels"].values()) == made["report"]["calls"]
    assert {"import", "fuse", "plan", "codegen"} <= made["stages"].keys()
    text = call("inspect", folder / "transformer.onnx").stdout
    assert "  ids: int64[batch, seq]" in text and "operator" in text and "kernel" in text


def test_memory(folder, tmp_path):
    made = told("memory", folder / "convnet.onnx")
    assert made["arena"] >= made["live_peak"] >= made["bound"] > 0
    assert made["live_peak"] == max(made["live"]) == sum(t["bytes"] for t in made["at_peak"])
    assert all(t["nodes"] for t in made["at_peak"]) and made["weights"] > 0
    text = call("memory", folder / "convnet.onnx").stdout
    assert "bound for any order" in text and "alive at the peak, step" in text
    open_sizes = told("memory", folder / "transformer.onnx", "--sizes", "batch=2,seq=7")
    assert open_sizes["sizes"] == {"batch": 2, "seq": 7} and open_sizes["bound"] is None
    fixed = told("memory", folder / "transformer.onnx", "--dims", "batch=2,seq=7")
    assert fixed["sizes"] == {} and fixed["bound"] is not None
    saved = tmp_path / "m.aicc"
    assert call("compile", folder / "convnet.onnx", "-o", saved).exit_code == 0
    assert told("memory", saved) == made


def test_memory_drawn(folder, tmp_path):
    pytest.importorskip("matplotlib")
    made = call("memory", folder / "convnet.onnx", "--plot", tmp_path / "m.svg")
    assert made.exit_code == 0 and made.stdout.endswith("m.svg\n")
    assert "<svg" in (tmp_path / "m.svg").read_text()
    assert "ends with one of" in refused(
        2, "memory", folder / "convnet.onnx", "--plot", tmp_path / "m.onnx"
    )


def test_memory_without_matplotlib(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.collections", None)
    message = refused(4, "memory", folder / "convnet.onnx", "--plot", tmp_path / "m.svg")
    assert "pip install 'aicc[viz]'" in message


# --- values, the process ----------------------------------------------------------------------


def test_sizes():
    assert sizes(["batch=1, seq=128", "n=3"], "--dims") == {"batch": 1, "seq": 128, "n": 3}
    assert sizes(["a=b=2"], "--dims") == {"a=b": 2}  # a symbol may have any name
    for text in ("batch", "batch=", "=3", "batch=-1", "batch=x", "a=1,a=2"):
        with pytest.raises(UsageError, match="--dims"):
            sizes([text], "--dims")


def test_json_has_no_numbers_of_its_own():
    data = {"a": [np.float32(0.5), float("nan"), -float("inf")], "b": np.int64(3), "c": None}
    assert json.loads(to_json(data)) == {"a": [0.5, "NaN", "-Infinity"], "b": 3, "c": None}


def test_tables_and_file_names():
    assert table(["name", "n"], [["a", 1], ["bcd", 20]]) == "name   n\na      1\nbcd   20"
    assert file_name("a/../b:0") == "a_.._b_0" and file_name("..") == "output"


def process(*args, **env):
    return subprocess.run(
        [sys.executable, "-m", "aicc", *map(str, args)],
        capture_output=True,
        text=True,
        env={**os.environ, **env},
    )


def test_the_process(mlp, tmp_path):
    made = process("run", mlp, "--random", "--json")
    assert made.returncode == 0 and made.stderr == ""
    assert json.loads(made.stdout)["outputs"][0]["shape"] == [1, 5]
    made = process("run", tmp_path / "none.onnx", "--random")
    assert made.returncode == 1 and made.stderr.count("\n") == 1 and not made.stdout


def test_without_the_extra(tmp_path):
    (tmp_path / "typer.py").write_text("raise ModuleNotFoundError('no typer', name='typer')")
    made = process("--help", PYTHONPATH=str(tmp_path))
    assert made.returncode == 4
    assert "needs typer; pip install 'aicc[cli]'" in made.stderr and made.stderr.count("\n") == 1
