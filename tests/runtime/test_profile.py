"""Profiles: times, work and the machine's limits, as text, JSON and trace."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import aicc
from aicc import config, machine_limits
from aicc.errors import AiccError
from aicc.model import CompiledModel
from aicc.runtime.limits import Limits
from aicc.runtime.profile import Times
from aicc.runtime.profile_report import Profile, StepProfile, profile
from aicc.runtime.program import Buffer, Call, Copy, Host, Program, Work
from aicc.target import Target

LIMITS = Limits({"f32": 100.0, "f64": 50.0}, ((1_000, 200.0), (100_000, 50.0), (10_000_000, 10.0)))


@pytest.fixture(scope="module")
def model() -> CompiledModel:
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(rng.normal(size=s).astype(np.float32), n)
        for n, s in (("w", (256, 384)), ("v", (384, 16)))
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"], name="act"),
        helper.make_node("MatMul", ["b", "v"], ["c"], name="second"),
        helper.make_node("Softmax", ["c"], ["y"], name="soft"),
    ]
    ports = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, ["rows", k])
        for n, k in (("x", 256), ("y", 16))
    ]
    graph = helper.make_graph(nodes, "net", ports[:1], ports[1:], weights)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    compiled = aicc.compile(made, threads=2)
    compiled.limits = lambda: LIMITS
    return compiled


@pytest.fixture(scope="module")
def measured(model: CompiledModel) -> Profile:
    return model.profile({"x": np.ones((48, 256), np.float32)}, 3)


def test_work_of_a_model(measured: Profile) -> None:
    """Operations are those of the sizes of the run."""
    products = {k.nodes[0]: k for k in measured if k.nodes and k.nodes[0] in ("first", "second")}
    assert products["first"].operations == 2 * 48 * 256 * 384 + 48 * 384  # Relu is one each
    assert products["second"].operations >= 2 * 48 * 384 * 16
    moved = 4 * (256 * 384 + 48 * 256 + 48 * 384)
    assert products["first"].bytes == moved
    assert sum(s.share for s in measured) == pytest.approx(1)
    assert 0 < measured.run < 1
    assert measured.seconds == pytest.approx(sum(s.seconds for s in measured))
    nodes = [n for s in measured for n in s.nodes]
    assert sorted(nodes) == ["act", "first", "second", "soft"]


def test_limits_of_a_model(model: CompiledModel, measured: Profile) -> None:
    first = next(s for s in measured if "first" in s.nodes)
    assert first.cores == 2  # rows are shared out
    compute = 2 * (48 * 256 * 384 + 48 * 384) / 100e9
    constants = 4 * 256 * 384 / 10e9  # all constants of the model lie beyond 100 kB
    moving = constants + 4 * (48 * 256 + 48 * 384) / 10e9
    assert model.program.constant_bytes > 100_000
    assert first.limit == pytest.approx(max(compute, moving) / 2)
    assert first.bound == ("compute" if compute >= moving else "memory")
    assert first.percent == pytest.approx(100 * first.limit / first.seconds)
    assert first.lost == pytest.approx(max(0, first.seconds - first.limit))
    assert first.gflops == pytest.approx(first.operations / first.seconds / 1e9)


def program() -> Program:
    w = Work(2_000_000, 1_000_000, 40_000, 800, 0, "f32", shared=True)
    buffers = (
        Buffer("x", "f32", (100,), "input", 0),
        Buffer("h", "f32", (100,), "arena", 0, "", 0, 3),
        Buffer("k", "f32", (100,), "host"),
        Buffer("y", "f32", (100,), "output", 0),
    )
    steps = (
        Call("big", ("x",), ("h",), (), ("a", "b"), w),
        Call("big", ("h",), ("h",), (), ("c",), w),
        Call("small", ("h",), ("h",), (), ("d",), Work(100, 100, 0, 800)),
        Host("NonZero", 0, ("h",), ("k",), ("e",)),
        Copy("h", "y"),
        Call("unknown", ("h",), ("h",)),
    )
    return Program("net", ("x",), (("y", "y"),), (), buffers, steps, 448, 448, 40_000)


def made(limits: Limits | None = LIMITS) -> Profile:
    times = Times((30e-6, 50e-6, 1e-6, 100e-6, 2e-6, 3e-6), 150e-6, {})
    return profile(program(), times, 4, limits)


def test_steps() -> None:
    p = made()
    assert [s.what for s in p] == ["big", "big", "small", "host NonZero", "copy", "unknown"]
    big, _, small, host, copy, unknown = p
    assert big.limit == pytest.approx(20e-6 / 4)  # 1e6 multiply-adds at 100 GFLOP/s on four cores
    assert big.bound == "compute" and big.cores == 4
    assert small.limit == pytest.approx(800 / 200e9)  # from the smallest footprint
    assert small.bound == "memory" and small.cores == 1
    assert host.limit is None and host.lost == host.seconds and host.operations is None
    assert copy.bytes == 800 and copy.limit == pytest.approx(800 / 200e9)
    assert unknown.limit is None
    assert made(None)[0].limit is None and made(None)[0].operations == 2_000_000


def test_kernels_are_sorted_by_lost_time() -> None:
    kernels = made().kernels()
    assert [k.what for k in kernels] == ["host NonZero", "big", "unknown", "copy", "small"]
    big = kernels[1]
    assert (big.calls, big.nodes, big.operations) == (2, ("a", "b", "c"), 4_000_000)
    assert big.seconds == pytest.approx(80e-6)
    assert big.limit == pytest.approx(10e-6)


def test_table() -> None:
    text = str(made())
    lines = text.splitlines()
    assert lines[0].startswith("net: a run takes 0.150 ms with 4 threads; its 6 steps")
    assert "100 GFLOP/s" in lines[1] and "200 for 1 KiB" in lines[1]
    cells = lines[4].split()
    assert cells == [
        *("big", "2", "0.080", "43.0%", "4.00", "0.08", "50.0", "1.0"),
        *("12%", "compute", "0.070", "a,", "b,", "c"),
    ]
    assert len(made().table(2).splitlines()) == 3 + 2 + 1
    assert made().table(2).splitlines()[-1].startswith("and 3 more: 0.006 ms, ")
    assert "limits are not known" in str(made(None))


def test_long_lists_of_nodes_are_cut() -> None:
    step = StepProfile("k", tuple(f"/layer/{n}/MatMul" for n in range(40)), 1.0)
    (line,) = Profile("net", 1, 1.0, (step,)).table().splitlines()[2:]
    assert line.endswith("/layer/2/MatMul and 37 more")


def test_json() -> None:
    data = json.loads(made().to_json())
    assert data == json.loads(json.dumps(made().as_dict()))
    assert data["threads"] == 4 and len(data["steps"]) == 6
    assert data["steps"][0]["percent"] == pytest.approx(100 * 5 / 30)
    assert Limits.from_dict(data["limits"]) == LIMITS


def test_chrome_trace(tmp_path: Path) -> None:
    made().to_chrome_trace(tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    lanes = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
    assert lanes == {0: "caller", 1: "thread 1", 2: "thread 2", 3: "thread 3"}
    slices = [e for e in events if e["ph"] == "X"]
    caller = [e for e in slices if e["tid"] == 0]
    assert [e["name"] for e in caller] == [s.what for s in made()]
    assert [e["dur"] for e in caller] == pytest.approx([30, 50, 1, 100, 2, 3])
    assert [e["ts"] for e in caller] == pytest.approx([0, 30, 80, 81, 181, 183])
    assert [e["name"] for e in slices if e["tid"] == 3] == ["big", "big"]  # what threads share
    assert caller[0]["args"]["operations"] == 2_000_000


# --- limits ---------------------------------------------------------------------------------------


def test_rates() -> None:
    assert [LIMITS.rate(n) for n in (1, 1_000, 1_001, 1e12)] == [200.0, 200.0, 50.0, 10.0]
    compute, moving = LIMITS.seconds(1e6, "f64", [(1e5, 2_000), (0, 1e9)], 2)
    assert compute == pytest.approx(2e6 / 50e9 / 2)
    assert moving == pytest.approx(1e5 / 50e9 / 2)


@pytest.mark.parametrize(
    "data",
    [
        None,
        {},
        {"peak": {"f64": 1}, "bandwidth": [[1, 1]]},
        {"peak": {"f32": 1}, "bandwidth": []},
        {"peak": {"f32": -1}, "bandwidth": [[1, 1]]},
        {"peak": {"f32": 1}, "bandwidth": [[2, 1], [1, 1]]},
        {"peak": {"f32": "fast"}, "bandwidth": [[1, 1]]},
    ],
)
def test_what_is_no_limits(data: object) -> None:
    with pytest.raises(ValueError):
        Limits.from_dict(data)


def test_limits_are_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AICC_CACHE_DIR", str(tmp_path / "new" / "cache"))
    measured: list[Target] = []

    def measure(target: Target) -> Limits:
        measured.append(target)
        return LIMITS

    monkeypatch.setattr(machine_limits, "measure", measure)
    host = Target.host()
    assert machine_limits.machine_limits(host) == LIMITS
    assert machine_limits.machine_limits(host) == LIMITS
    assert len(measured) == 1
    (file,) = config.cache_folder().iterdir()  # nothing else is left behind
    machine_limits.machine_limits(Target.from_name("x86-64-v3"))
    assert len(measured) == 2  # another target has limits of its own
    file.write_text("{")
    assert machine_limits.machine_limits(host) == LIMITS
    assert len(measured) == 3
    assert Limits.from_dict(json.loads(file.read_text())) == LIMITS


def test_a_folder_that_cannot_be_written_is_no_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("AICC_CACHE_DIR", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr(machine_limits, "measure", lambda target: LIMITS)
    assert machine_limits.machine_limits(Target.host()) == LIMITS


def test_measured_limits() -> None:
    limits = machine_limits.measure(Target.host())
    assert limits == Limits.from_dict(limits.as_dict())
    assert 1 < limits.peak["f32"] < 10_000


def test_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AICC_CACHE_DIR", raising=False)
    monkeypatch.setattr(config.sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert config.cache_folder() == tmp_path / "aicc"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert config.cache_folder() == Path.home() / ".cache" / "aicc"
    monkeypatch.setenv("AICC_CACHE_DIR", "~/elsewhere")  # no shell reads what a container sets
    assert config.cache_folder() == Path.home() / "elsewhere"


def test_work_in_the_text_of_programs(model: CompiledModel) -> None:
    from aicc.runtime.program_text import parse_program, print_program

    text = print_program(model.program)
    assert parse_program(text) == model.program
    assert " work f32[rows*" in text
    broken = text.replace(" work f32[", " work f32[1, ", 1)
    with pytest.raises(AiccError, match="operations, instructions and bytes"):
        parse_program(broken)
