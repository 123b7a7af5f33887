"""Sizes that native code counts in a run: found, read, and what depends on them."""

from __future__ import annotations

import threading
import warnings

import numpy as np
import pytest
from onnx import TensorProto, helper

import aicc
from aicc.build import build
from aicc.errors import ExecutionError, InputError, IRError
from aicc.graph_ir.types import TensorType
from aicc.plan import plan
from aicc.planned_evaluate import evaluate_planned
from aicc.runtime.program import Read
from aicc.symbolic import sym
from aicc.target import Target
from tests.runtime.modules import Sketch, unary

ROWS, COLUMNS = 12, 5


def found_rows() -> bytes:
    """mask [12], x [12, 5] -> exp of the rows of x where the mask is true, their sum, their places
    and how many there are."""
    nodes = [
        helper.make_node("NonZero", ["mask"], ["nz"], "found"),
        helper.make_node("Squeeze", ["nz", "zero"], ["places"]),
        helper.make_node("Gather", ["x", "places"], ["rows"], axis=0),
        helper.make_node("Exp", ["rows"], ["y"]),
        helper.make_node("ReduceSum", ["rows", "zero"], ["sum"], keepdims=0),
        helper.make_node("Shape", ["places"], ["count"]),
    ]
    graph = helper.make_graph(
        nodes,
        "found_rows",
        [
            helper.make_tensor_value_info("mask", TensorProto.BOOL, [ROWS]),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [ROWS, COLUMNS]),
        ],
        [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, None),
            helper.make_tensor_value_info("sum", TensorProto.FLOAT, None),
            helper.make_tensor_value_info("places", TensorProto.INT64, None),
            helper.make_tensor_value_info("count", TensorProto.INT64, None),
        ],
        [helper.make_tensor("zero", TensorProto.INT64, [1], [0])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def check(model: aicc.CompiledModel, count: int) -> None:
    rng = np.random.default_rng(count)
    mask, x = np.zeros(ROWS, np.bool_), rng.random((ROWS, COLUMNS), np.float32)
    mask[rng.permutation(ROWS)[:count]] = True
    y, total, places, number = model(mask, x)
    np.testing.assert_array_equal(places, np.flatnonzero(mask))
    np.testing.assert_allclose(y, np.exp(x[mask]), rtol=1e-6)
    np.testing.assert_allclose(total, x[mask].sum(0), rtol=1e-5)
    np.testing.assert_array_equal(number, [count])


@pytest.fixture(scope="module")
def model() -> aicc.CompiledModel:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing runs in Python
        return aicc.compile(found_rows(), threads=1)


def test_any_count(model):
    assert model.report().host_ops == ()
    assert sum(isinstance(s, Read) for s in model.program.steps) == 1
    for count in (0, 3, ROWS, 3, 1):
        check(model, count)


def test_arrays_that_are_given(model):
    mask = np.arange(ROWS) < 4
    x = np.ones((ROWS, COLUMNS), np.float32)
    places = np.empty(4, np.int64)
    made = model.run(None, {"mask": mask, "x": x}, out={"places": places})
    assert made[2] is places
    np.testing.assert_array_equal(places, np.arange(4))
    with pytest.raises(InputError, match="places"):
        model.run(None, {"mask": mask, "x": x}, out={"places": np.empty(5, np.int64)})
    check(model, 5)  # a run that failed leaves the model as it was


def test_several_threads_at_once(model):
    wrong = []

    def work(seed: int) -> None:
        for n in range(50):
            try:
                check(model, (seed + n) % (ROWS + 1))
            except AssertionError as error:
                wrong.append(error)

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    assert not wrong


def test_saving(model, tmp_path):
    model.save(tmp_path / "m.aicc")
    loaded = aicc.load(tmp_path / "m.aicc")
    for count in (0, 7, ROWS):
        check(loaded, count)


def test_a_profile_tells_of_it(model):
    mask = np.arange(ROWS) < 4
    feed = {"mask": mask, "x": np.ones((ROWS, COLUMNS), np.float32)}
    kinds = [s.what for s in model.profile(feed, runs=2).steps]
    assert "read a size" in kinds


def test_only_the_count_is_wanted():
    nodes = [
        helper.make_node("NonZero", ["x"], ["nz"]),
        helper.make_node("Shape", ["nz"], ["shape"], start=1),
        helper.make_node("ConstantOfShape", ["shape"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "counts",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    model = aicc.compile(made, threads=1)
    for x in ([1, 0, 2], [0, 0], [5]):
        data = np.array(x, np.float32)
        np.testing.assert_array_equal(model(data), np.zeros(np.count_nonzero(data)))


def first(count: str = "n") -> Sketch:
    s = Sketch()
    s.input("x", "f32", 8)
    s.input(count, "i64", 1)
    k = sym("y.count", 0, 8)
    s.op("aicc::First", ["x", count], {"y": TensorType("f32", (k,))})
    s.call(unary("a", "neg", "f32", (k,)), ["y"], "z")
    return s


def test_a_count_that_does_not_fit():
    planned = plan(first().finish("z", "y"))
    model = build(planned, Target.host(), 1)
    x = np.arange(8, dtype=np.float32)
    for n in (0, 5, 8):
        z, y = model(x, np.array([n]))
        np.testing.assert_array_equal(y, x[:n])
        np.testing.assert_array_equal(z, -x[:n])
        meant = evaluate_planned(planned, {"x": x, "n": np.array([n])})
        np.testing.assert_array_equal(meant["z"], z)
    for n in (-1, 9, 2**40):
        with pytest.raises(ExecutionError, match=f"node_y.*: {n} elements of 8"):
            model(x, np.array([n]))
        with pytest.raises(ExecutionError, match=f"node_y.*: {n} elements of 8"):
            evaluate_planned(planned, {"x": x, "n": np.array([n])})


def test_one_count_for_two():
    """A number is read once, and tells the size of all that it counts."""
    s = first()
    s.input("w", "f32", 8, 2)
    s.op("aicc::First", ["w", "n"], {"v": TensorType("f32", (sym("v.count", 0, 8), 2))})
    s.op("aicc::First", ["x", "n"], {"u": TensorType("f32", (sym("u.count", 0, 8),))})
    planned = plan(s.finish("z", "v", "u"))
    assert sum(isinstance(step, Read) for step in planned.program.steps) == 1
    model = build(planned, Target.host(), 1)
    x, w = np.arange(8, dtype=np.float32), np.ones((8, 2), np.float32)
    z, v, u = model(x, np.array([3]), w)
    assert (z.shape, v.shape, u.shape) == ((3,), (3, 2), (3,))


def test_a_count_of_two_axes():
    s = first()
    s.input("w", "f32", 9)
    s.op("aicc::First", ["w", "n"], {"v": TensorType("f32", (sym("v.count", 0, 9),))})
    with pytest.raises(IRError, match="counts elements of two axes"):
        plan(s.finish("z", "v"))
