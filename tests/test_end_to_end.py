"""What a user may do wrong, with models and feeds: one typed error each; the model lives on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import aicc
from aicc.errors import (
    AiccError,
    ExecutionError,
    InputError,
    ModelError,
    OperatorError,
    TargetError,
    UnsupportedError,
)
from zoo.builder import GraphBuilder

F32, I64 = TensorProto.FLOAT, TensorProto.INT64


def model(
    nodes: list[onnx.NodeProto], inputs: dict[str, Any], outputs: list[str], **weights: Any
) -> bytes:
    """A serialized model; inputs: name -> (element type, shape)."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(n, t, s) for n, (t, s) in inputs.items()],
        [helper.make_value_info(n, onnx.TypeProto()) for n in outputs],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in weights.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return bytes(made.SerializeToString())


def compiled(*args: Any, **options: Any) -> aicc.CompiledModel:
    made = aicc.compile(*args, **{"threads": 1, **options})
    assert isinstance(made, aicc.CompiledModel)
    return made


# --- data that end a run ------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [10, "rows"])
@pytest.mark.parametrize("bad", [10, -11, 2**40, -(2**63)])
def test_an_index_out_of_range(rows: int | str, bad: int) -> None:
    """The error names the node; no element outside the table is read; the next run is right."""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["g"], name="embedding_lookup"),
        helper.make_node("Relu", ["g"], ["r"], name="act"),
        helper.make_node("ReduceSum", ["r"], ["y"], name="total", keepdims=0),
    ]
    m = compiled(model(nodes, {"table": (F32, [rows, 4]), "ids": (I64, ["n"])}, ["y"]))
    table = np.arange(40, dtype=np.float32).reshape(10, 4)
    good = np.array([0, 9, -1, -10])
    assert m.run(None, {"table": table, "ids": good})[0] == table[good].sum()
    with pytest.raises(ExecutionError, match=r"embedding_lookup.*out of range"):
        m.run(None, {"table": table, "ids": np.array([3, bad, 2])})
    assert m.run(None, {"table": table, "ids": good})[0] == table[good].sum()


@pytest.mark.parametrize("threads", [1, 2])
def test_an_index_out_of_range_in_the_middle_of_a_model(threads: int) -> None:
    g = GraphBuilder("m")
    ids = g.input("ids", ("batch", "seq"), I64)
    x = g.op("Gather", g.normal("words", (50, 64), 1.0), ids)
    x = g.layer_norm(g.linear(x, "up", 64, 64), "norm", 64)
    g.output(x, "y", ("batch", "seq", 64))
    m = compiled(g.build(), threads=threads)
    ids = np.arange(40).reshape(2, 20)
    expected = m(ids)
    for place in ((0, 0), (1, 19), (0, 13)):
        wrong = ids.copy()
        wrong[place] = 50
        with pytest.raises(ExecutionError, match=r"gather_0.*out of range"):
            m(wrong)
        np.testing.assert_array_equal(m(ids), expected)


@pytest.mark.parametrize(
    ("op", "inputs", "feed", "said"),
    [
        (
            "GatherElements",
            {"x": (F32, [3, 4]), "i": (I64, [1, 4])},
            {"x": np.zeros((3, 4), np.float32), "i": np.array([[0, 1, 3, 2]])},
            "out of range",
        ),
        (
            "GatherND",
            {"x": (F32, ["n", 4]), "i": (I64, [2, 2])},
            {"x": np.zeros((3, 4), np.float32), "i": np.array([[0, 3], [3, 0]])},
            "out of range",
        ),
        (
            "ScatterND",
            {"x": (F32, [4]), "i": (I64, [2, 1]), "u": (F32, [2])},
            {"x": np.zeros(4, np.float32), "i": np.array([[0], [4]]), "u": np.ones(2, np.float32)},
            "out of range",
        ),
        (
            "Add",
            {"x": (F32, ["n"]), "y": (F32, ["m"])},
            {"x": np.zeros(3, np.float32), "y": np.zeros(4, np.float32)},
            "broadcast",
        ),
        (
            "MatMul",
            {"x": (F32, [2, "n"]), "y": (F32, ["m", 2])},
            {"x": np.zeros((2, 3), np.float32), "y": np.zeros((4, 2), np.float32)},
            "",
        ),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_data_that_do_not_fit(op: str, inputs: Any, feed: Any, said: str) -> None:
    node = helper.make_node(op, list(inputs), ["z"], name="the_culprit")
    m = compiled(model([node], inputs, ["z"]))
    with pytest.raises(ExecutionError, match=f"the_culprit.*{said}"):
        m.run(None, feed)


def test_more_memory_than_there_is() -> None:
    """The result would take 2**48 bytes, which no process can address."""
    node = helper.make_node("Mul", ["x", "y"], ["z"])
    m = compiled(model([node], {"x": (F32, ["n", 1]), "y": (F32, [1, "m"])}, ["z"]))
    many = np.zeros(1 << 23, np.float32)
    with pytest.raises(ExecutionError, match="no memory for a run of these sizes"):
        m.run(None, {"x": many[:, None], "y": many[None]})
    assert m.run(None, {"x": many[:2, None], "y": many[None, :3]})[0].shape == (2, 3)


# --- feeds ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_inputs() -> aicc.CompiledModel:
    nodes = [
        helper.make_node("Add", ["a", "b"], ["s"]),
        helper.make_node("Relu", ["s"], ["r"]),
    ]
    return compiled(model(nodes, {"a": (F32, ["n", 3]), "b": (F32, ["n", 3])}, ["s", "r"]))


A = np.ones((2, 3), np.float32)


@pytest.mark.parametrize(
    ("feed", "said"),
    [
        ({"a": A}, "b"),
        ({}, "a"),
        ({"a": A, "b": A, "c": A}, "c"),
        ({"a": A, "B": A}, "B"),
        ({"a": A, "b": A.astype(np.float64)}, "float64"),
        ({"a": A, "b": A.astype(np.int32)}, "int32"),
        ({"a": A, "b": A[0]}, "rank"),
        ({"a": A, "b": A[None]}, "rank"),
        ({"a": A, "b": np.ones((2, 4), np.float32)}, "4"),
        ({"a": A, "b": np.ones((5, 3), np.float32)}, "n"),
        ({"a": A, "b": A.tolist()}, "b"),
        ({"a": A, "b": None}, "b"),
        ({"a": A, "b": "text"}, "b"),
    ],
)
def test_feeds_that_do_not_fit(two_inputs: aicc.CompiledModel, feed: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        two_inputs.run(None, feed)
    np.testing.assert_array_equal(two_inputs.run(["s"], {"a": A, "b": A})[0], A + A)


def test_names_of_outputs(two_inputs: aicc.CompiledModel) -> None:
    r, s = two_inputs.run(["r", "s"], {"a": A, "b": -A - A})
    np.testing.assert_array_equal(s, -A)
    np.testing.assert_array_equal(r, 0 * A)
    with pytest.raises(InputError, match="nothing"):
        two_inputs.run(["s", "nothing"], {"a": A, "b": A})


def test_calls(two_inputs: aicc.CompiledModel) -> None:
    for s, r in (two_inputs(A, A), two_inputs(A, b=A), two_inputs(b=A, a=A)):
        np.testing.assert_array_equal(s, A + A)
        np.testing.assert_array_equal(r, A + A)
    for wrong in (lambda: two_inputs(A), lambda: two_inputs(A, A, A), lambda: two_inputs(A, a=A)):
        with pytest.raises(InputError):
            wrong()


# --- models ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", [b"", b"no protobuf at all", b"\x08\x09", onnx.ModelProto()])
def test_no_model(source: Any) -> None:
    with pytest.raises(ModelError):
        aicc.compile(source)


def test_truncated(tmp_path: Path) -> None:
    whole = model([helper.make_node("Relu", ["x"], ["y"])], {"x": (F32, [2])}, ["y"])
    path = tmp_path / "m.onnx"
    path.write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(ModelError):
        aicc.compile(path)
    with pytest.raises((ModelError, OSError)):
        aicc.compile(tmp_path / "missing.onnx")


def test_everything_unknown_at_once() -> None:
    nodes = [
        helper.make_node("Frobnicate", ["x"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"], name="fine"),
        helper.make_node("Twist", ["b"], ["y"], name="second"),
    ]
    with pytest.raises(UnsupportedError) as caught:
        aicc.compile(model(nodes, {"x": (F32, [2])}, ["y"]))
    for word in ("Frobnicate", "first", "Twist", "second", "18", "f32"):
        assert word in str(caught.value)
    assert "fine" not in str(caught.value)


def test_shapes_that_do_not_fit_name_the_node() -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="projection")
    with pytest.raises(OperatorError, match="projection") as caught:
        aicc.compile(model([node], {"x": (F32, [2, 3])}, ["y"], w=np.zeros((4, 5), np.float32)))
    assert "MatMul" in str(caught.value) and "[2, 3]" in str(caught.value)


def test_options() -> None:
    data = model([helper.make_node("Relu", ["x"], ["y"])], {"x": (F32, ["n"])}, ["y"])
    with pytest.raises(TargetError, match="pdp-11"):
        aicc.compile(data, target="pdp-11")
    with pytest.raises(AiccError, match="no pass 'polish'"):
        aicc.compile(data, stop_after="polish")
    with pytest.raises((AiccError, ValueError), match="threads"):
        aicc.compile(data, threads=0)
    with pytest.raises(AiccError, match="rows"):
        aicc.compile(data, dims={"rows": 3})
    m = compiled(data, dims={"n": 3})
    with pytest.raises(InputError):
        m(np.zeros(4, np.float32))
