import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from pass_builder import Build, applied, ops

import aicc
from aicc.dtypes import to_numpy
from aicc.graph_ir.passes.simplify import Simplify
from aicc.graph_ir.passes.widen import Widen
from aicc.passes import NARROW


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_values_are_rounded_where_they_leave_and_not_between(dtype, golden):
    b = Build("mlp")
    x = b.input("x", 4, 8, dtype=dtype)
    w = b.const(np.linspace(-1, 1, 64).reshape(8, 8), "w", dtype)
    y = b("Relu", b("MatMul", x, w))
    part = NARROW[to_numpy(dtype).name]
    after = applied(b.done(b("MatMul", y, w), y), Widen(), Simplify(), rtol=part, atol=part)
    assert ops(after) == ["Cast", "MatMul", "Relu", "Cast", "MatMul", "Cast"]
    assert {after.types[o].dtype for o in after.outputs} == {dtype}
    made = {n.op: after.types[n.outputs[0]].dtype for n in after.nodes if n.op != "Cast"}
    assert made == {"MatMul": "f32", "Relu": "f32"}
    assert [a.dtype for a in after.constants.values()] == [np.float32]
    golden(f"widen_{dtype}", str(after))


def test_what_only_copies_stays_narrow():
    b = Build()
    table = b.const(np.arange(20.0).reshape(5, 4), "table", "f16")
    x = b("Gather", table, b.input("ids", 3, dtype="i64"))
    y = b("Transpose", x, perm=(1, 0))
    after = applied(b.done(y), Widen(), Simplify())
    assert ops(after) == ["Gather", "Transpose"]
    assert after.constants[after.nodes[0].inputs[0]].dtype == np.float16


def test_copies_of_what_is_there_in_wide_form_are_wide():
    b = Build()
    x = b.input("x", 4, 8, dtype="f16")
    y = b("Transpose", b("Relu", x), perm=(1, 0))
    after = applied(b.done(b("Exp", y)), Widen(), Simplify())
    assert ops(after) == ["Cast", "Relu", "Transpose", "Exp", "Cast"]


def test_a_cast_of_the_model_rounds():
    b = Build()
    x = b.input("x", 4, 8)
    y = b("Cast", x, to="f16")
    after = applied(b.done(b("Exp", b("Cast", b("Relu", y), to="f32"))), Widen(), Simplify())
    assert ops(after) == ["Cast", "Cast", "Relu", "Exp"]
    assert [after.types[n.outputs[0]].dtype for n in after.nodes] == ["f16", *["f32"] * 3]


def test_graphs_without_narrow_values_are_left_alone():
    b = Build()
    graph = b.done(b("Relu", b.input("x", 4)))
    assert Widen()(graph) is graph


def test_regions_are_widened_on_their_own():
    body = helper.make_graph(
        [helper.make_node("Mul", ["h", "w"], ["next"]), helper.make_node("Relu", ["t"], ["r"])],
        "body",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT16, [3]) for n in ("h", "t")],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT16, [3]) for n in ("next", "r")],
    )
    scan = helper.make_node("Scan", ["b", "x"], ["y", "z"], body=body, num_scan_inputs=1)
    before = helper.make_node("Exp", ["a"], ["b"])
    a, x, y, z = (
        helper.make_tensor_value_info(n, TensorProto.FLOAT16, s)
        for n, s in (("a", [3]), ("x", ["n", 3]), ("y", [3]), ("z", ["n", 3]))
    )
    w = numpy_helper.from_array(np.array([0.5, 1.5, -1], np.float16), "w")
    graph = helper.make_graph([before, scan], "g", [a, x], [y, z], [w])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    rng = np.random.default_rng(0)
    feed = {"a": rng.random(3).astype("f2"), "x": rng.standard_normal((5, 3)).astype("f2")}
    with pytest.warns(aicc.AiccWarning, match="Scan"):
        compiled = aicc.compile(model, threads=1, check=3)
    y_, z_ = compiled.run(None, feed)
    power = np.array([0.5, 1.5, -1]) ** 5
    np.testing.assert_allclose(y_, np.exp(feed["a"].astype("f8")) * power, rtol=1e-2)
    np.testing.assert_array_equal(z_, np.maximum(feed["x"], 0))


def test_sums_of_products_in_half_precision_are_exact_to_its_last_bits():
    """Rounded after each product, a sum of 2048 of them would be off by percents."""
    rng = np.random.default_rng(0)
    w = rng.random((2048, 32)).astype(np.float16)
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    x, y = (
        helper.make_tensor_value_info(n, TensorProto.FLOAT16, [16, s])
        for n, s in (("x", 2048), ("y", 32))
    )
    graph = helper.make_graph([node], "g", [x], [y], [numpy_helper.from_array(w, "w")])
    model = aicc.compile(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
        threads=1,
    )
    a = rng.random((16, 2048)).astype(np.float16)
    exact = a.astype("f8") @ w.astype("f8")
    np.testing.assert_allclose(model.run(None, {"x": a})[0], exact, rtol=1e-3)
