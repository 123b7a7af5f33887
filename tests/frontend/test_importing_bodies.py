"""ModelProto -> Graph: regions of If and Loop, functions of the model, definitions of ONNX."""

import numpy as np
import pytest
import region_operators  # noqa: F401 - registers operators
from model_builder import (
    F32,
    I64,
    function,
    graph,
    model,
    node,
    reference_attribute,
    tensor,
    value,
)
from onnx import AttributeProto, TensorProto, helper

from aicc.errors import ModelError, OperatorError, UnsupportedError
from aicc.frontend import importer, load_model
from aicc.graph_ir.evaluate import evaluate
from aicc.graph_ir.types import TensorType
from aicc.graph_ir.verify import verify
from aicc.ops import registry
from aicc.symbolic import sym

X = np.array([[-1.0, 0.0, 2.0], [3.0, -4.0, 5.0]], np.float32)


def run(proto, **feed):
    g = load_model(proto)
    verify(g)
    return list(evaluate(g, feed or {"x": X}).values())


# --- regions ------------------------------------------------------------------------------------


def choice(**kw):
    # Both branches call their values alike, and one of them shadows nothing of the outside.
    then = graph([node("Neg", "x", "t"), node("Add", "t one", "r")], [], [value("r")],
                 [tensor("one", np.float32(1))], name="then")  # fmt: skip
    other = graph([node("Abs", "x", "t"), node("Exp", "t", "r")], [], [value("r")], name="other")
    nodes = [node("If", "c", "y", domain="test", then_branch=then, else_branch=other)]
    return model(nodes, [value("x"), value("c", [], TensorProto.BOOL)], **kw)


def test_if():
    g = load_model(choice())
    verify(g)
    then, other = g.nodes[0].regions
    assert (then.name, other.name) == ("then", "other")
    names = [n for r in (then, other) for n in r.defined()]
    assert len(set(names)) == len(names) == 5
    assert then.nodes[0].inputs == ("x",)
    assert g.types["y"] == TensorType("f32", (2, 3))
    for c, expected in ((True, 1 - X), (False, np.exp(np.abs(X)))):
        assert np.allclose(evaluate(g, {"x": X, "c": np.array(c)})["y"], expected)


def loop(body_nodes, state_shape=(2, 3)):
    body = graph(body_nodes, [value("i", [], I64), value("s", state_shape)], [value("s_out")],
                 name="body")  # fmt: skip
    nodes = [node("Repeat", "n x", "y", domain="test", body=body)]
    return model(nodes, [value("x"), value("n", [], I64)], [value("y", None)])


def test_loop():
    nodes = [node("Cast", "i", "f", to=F32), node("Add", "s f", "a"), node("Add", "a x", "s_out")]
    (y,) = run(loop(nodes), x=X, n=np.array(3))
    assert np.allclose(y, 4 * X + 3)


def test_nested_regions_see_everything_around():
    inner = graph([node("Add", "s x", "deep")], [], [value("deep")], name="inner")
    plain = graph([node("Identity", "s", "flat")], [], [value("flat")], name="plain")
    nodes = [
        node("Cast", "i", "b", to=TensorProto.BOOL),
        node("If", "b", "s_out", domain="test", then_branch=inner, else_branch=plain),
    ]
    (y,) = run(loop(nodes), x=X, n=np.array(3))
    assert np.allclose(y, 3 * X)


def test_a_region_is_imported_anew_for_wider_types():
    nodes = [node("Constant", "", "zero", value_ints=[0]), node("ReduceSum", "s zero", "s_out")]
    g = load_model(loop(nodes))
    verify(g)
    assert g.types["y"].shape[0] == sym("y.0.0", 0) and g.types["y"].shape[1] == 3
    region = g.nodes[0].regions[0]
    assert [n.op for n in region.nodes] == ["ReduceSum"]
    assert list(region.constants) == ["zero"]  # no trace of the first attempt
    assert np.allclose(evaluate(g, {"x": X, "n": np.array(0)})["y"], X)
    assert np.allclose(evaluate(g, {"x": X, "n": np.array(2)})["y"], X.sum(0, keepdims=True))


def test_region_faults():
    with pytest.raises(ModelError, match="'gone'"):
        load_model(loop([node("Add", "s gone", "s_out")]))
    with pytest.raises(ModelError, match="nothing defines the value 's_out'"):
        load_model(loop([node("Neg", "s", "other")]))
    with pytest.raises(OperatorError, match=r"'inside'.*Add"):
        load_model(loop([node("Add", "s i", "s_out", "inside")]))
    proto = loop([node("Neg", "s", "s_out")])
    proto.graph.node[0].attribute[0].g.input.append(value("extra"))
    with pytest.raises(OperatorError, match="'body' has 3 inputs, but is given 2"):
        load_model(proto)
    missing = node("If", "c", "y", "n", domain="test", then_branch=graph([node("Neg", "x", "y")]))
    with pytest.raises(OperatorError, match="'else_branch' is missing"):
        load_model(model([missing], [value("x"), value("c", [], TensorProto.BOOL)]))


def test_shadowing_takes_the_inner_value_from_its_definition_on():
    nodes = [node("Neg", "x", "before"), node("Abs", "s", "x"), node("Add", "before x", "s_out")]
    (y,) = run(loop(nodes), x=X, n=np.array(1))
    assert np.allclose(y, -X + np.abs(X))


# --- functions ----------------------------------------------------------------------------------


def test_functions_are_inlined():
    scaled = function(
        "Scaled", "p q", "r",
        [node("Mul", "p q", "t", "mul"), node("Neg", "t", "r", "neg")],
    )  # fmt: skip
    nodes = [
        node("Scaled", "x x", "a", "call", domain="test"),
        node("Scaled", "a x", "y", "again", domain="test"),
    ]
    g = load_model(model(nodes, functions=[scaled]))
    assert [n.op for n in g.nodes] == ["Mul", "Neg", "Mul", "Neg"]
    assert [n.origin for n in g.nodes][:2] == [("call/mul",), ("call/neg",)]
    assert g.nodes[1].outputs == ("a",) and g.outputs == ["y"]
    assert np.allclose(evaluate(g, {"x": X})["y"], X**3)


def test_attributes_of_functions():
    leaky = node("LeakyRelu", "p", "r")
    leaky.attribute.append(reference_attribute("alpha", "slope", AttributeProto.FLOAT))
    with_default = function("F", "p", "r", [leaky], protos=[helper.make_attribute("slope", 0.5)])
    optional = function("F", "p", "r", [leaky], attributes=["slope"])
    call, plain = node("F", "x", "y", "n", "test", slope=0.25), node("F", "x", "y", "n", "test")
    for f, n, alpha in [
        (with_default, call, 0.25),
        (with_default, plain, 0.5),
        (optional, call, 0.25),
        (optional, plain, 0.01),
    ]:
        (made,) = load_model(model([n], functions=[f])).nodes
        assert made.attr("alpha") == alpha
    wrong = node("F", "x", "y", "n", "test", gradient=0.25)
    with pytest.raises(
        OperatorError, match="unknown attribute 'gradient'; the function has: slope"
    ):
        load_model(model([wrong], functions=[with_default]))


def test_functions_pass_values_through_and_omit_operands():
    f = function("F", "p q", "r s", [node("Neg", "p", "s")])
    f.output[0] = "p"
    g = load_model(
        model(
            [node("F", "x", "y z", domain="test")], outputs=[value("y"), value("z")], functions=[f]
        )
    )
    assert g.outputs == ["y", "z"]
    found = evaluate(g, {"x": X})
    assert np.array_equal(found["y"], X) and np.array_equal(found["z"], -X)
    optional = function("G", "p lo", "r", [node("Clip", "p lo", "r")])
    (n,) = load_model(model([node("G", "x", "y", domain="test")], functions=[optional])).nodes
    assert n.inputs == ("x",)


def test_functions_with_regions_and_their_own_opset():
    branch = graph([node("LeakyRelu", "p", "a")], [], [value("a")], name="a")
    branch.node[0].attribute.append(reference_attribute("alpha", "slope", AttributeProto.FLOAT))
    other = graph([node("Identity", "p", "b")], [], [value("b")], name="b")
    body = [
        node("ReduceMax", "p", "m", axes=[0, 1], keepdims=0),
        node("Cast", "m", "c", to=TensorProto.BOOL),
        node("If", "c", "r", domain="test", then_branch=branch, else_branch=other),
    ]
    f = function("F", "p", "r", body, attributes=["slope"], opset=11)
    call = node("F", "x", "y", domain="test", slope=0.5)
    (y,) = run(model([call], functions=[f], opset=18))
    assert np.allclose(y, np.where(X < 0, X / 2, X))


def test_recursive_functions():
    f = function("F", "p", "r", [node("G", "p", "r", domain="test")])
    g = function("G", "p", "r", [node("F", "p", "r", domain="test")])
    with pytest.raises(ModelError, match="recursive: test::F -> test::G -> test::F"):
        load_model(model([node("F", "x", "y", domain="test")], functions=[f, g]))
    with pytest.raises(ModelError, match="defined twice"):
        load_model(model([node("F", "x", "y", domain="test")], functions=[f, f]))


def test_functions_that_multiply_or_nest_without_end(monkeypatch):
    monkeypatch.setattr(importer, "NODE_LIMIT", 5000)
    bombs = [
        function(f"F{i}", "p", "r", [
            node(f"F{i + 1}", "p", "t", domain="test"), node(f"F{i + 1}", "t", "r", domain="test")
        ])
        for i in range(40)
    ]  # fmt: skip
    bombs.append(function("F40", "p", "r", [node("Neg", "p", "r")]))
    with pytest.raises(ModelError, match="more than 5000 nodes"):
        load_model(model([node("F0", "x", "y", domain="test")], functions=bombs))
    chain = [
        function(f"C{i}", "p", "r", [node(f"C{i + 1}", "p", "r", domain="test")]) for i in range(99)
    ]
    chain.append(function("C99", "p", "r", [node("Neg", "p", "r")]))
    with pytest.raises(ModelError, match="deep"):
        load_model(model([node("C0", "x", "y", domain="test")], functions=chain))


def test_function_faults():
    f = function("F", "p", "r", [node("Neg", "gone", "r")])
    with pytest.raises(ModelError, match=r"function test::F.*'gone'"):
        load_model(model([node("F", "x", "y", domain="test")], functions=[f]))
    f = function("F", "p", "r", [node("Neg", "p", "other")])
    with pytest.raises(ModelError, match="output 'r' of the function test::F"):
        load_model(model([node("F", "x", "y", domain="test")], functions=[f]))
    f = function("F", "p", "r", [node("Neg", "p", "r")])
    with pytest.raises(OperatorError, match="only 1 inputs and 1 outputs"):
        load_model(model([node("F", "x x", "y", domain="test")], functions=[f]))
    f = function("F", "p", "r", [node("Neg", "p", "p")])
    with pytest.raises(ModelError, match="defined twice"):
        load_model(model([node("F", "x", "y", domain="test")], functions=[f]))


def test_operators_without_a_class_take_their_definition_from_onnx(monkeypatch):
    registry.find("Relu")  # loads all
    monkeypatch.delitem(registry._REGISTRY, "HardSwish")
    (y,) = run(model([node("HardSwish", "x", "y")]))
    assert np.allclose(y, X * np.clip(X / 6 + 0.5, 0, 1), atol=1e-6)


def test_definitions_that_depend_on_the_context(monkeypatch):
    registry.find("Relu")
    monkeypatch.delitem(registry._REGISTRY, "Celu")
    monkeypatch.delitem(registry._REGISTRY, "Gelu")
    (y,) = run(model([node("Gelu", "x", "y", approximate="tanh")], opset=20))
    inner = np.sqrt(2 / np.pi) * (X + 0.044715 * X**3)
    assert np.allclose(y, 0.5 * X * (1 + np.tanh(inner)), atol=1e-5)
    (y,) = run(model([node("Celu", "x", "y", alpha=2.0)]))
    assert np.allclose(y, np.maximum(X, 0) + np.minimum(0, 2 * np.expm1(X / 2)), atol=1e-5)


def test_a_definition_that_needs_something_unknown_is_told_as_the_operator(monkeypatch):
    registry.find("Relu")
    monkeypatch.delitem(registry._REGISTRY, "HardSwish")
    monkeypatch.delitem(registry._REGISTRY, "HardSigmoid")
    with pytest.raises(UnsupportedError, match=r"HardSwish.*'act'"):
        load_model(model([node("HardSwish", "x", "y", "act")]))
