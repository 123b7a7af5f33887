"""ModelProto -> Graph: names, sizes, attributes, constants, order, regions, functions, refusals."""

import numpy as np
import onnx
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

from aicc.errors import AiccWarning, InputError, ModelError, OperatorError, UnsupportedError
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


# --- inputs and sizes ---------------------------------------------------------------------------


def test_symbols_are_shared_and_fresh():
    inputs = [value("x", ["batch", 3]), value("z", ["batch", 3]), value("free", [0, None, -1, 4])]
    g = load_model(model([node("Add", "x z", "y")], inputs, [value("y", ["batch", 3])]))
    batch = sym("batch", 1)
    assert g.types["x"] == g.types["z"] == g.types["y"] == TensorType("f32", (batch, 3))
    sizes = (sym("free_0", 1), sym("free_1", 1), sym("free_2", 1), 4)
    assert g.types["free"] == TensorType("f32", sizes)


def test_a_fresh_symbol_avoids_the_names_of_the_model():
    g = load_model(model([node("Relu", "x", "y")], [value("x", ["x_1", 0])], [value("y", None)]))
    assert g.types["x"].shape == (sym("x_1", 1), sym("x_1.1", 1))


def test_dims_pin_symbols():
    proto = model([node("Relu", "x", "y")], [value("x", ["batch", 0])], [value("y", ["batch", 0])])
    assert load_model(proto, dims={"batch": 2}).types["y"].shape == (2, sym("x_1", 1))
    assert load_model(proto, dims={"batch": np.int64(2), "x_1": 7}).types["y"].shape == (2, 7)
    for dims, said in [
        ({"bach": 1}, "no size is called 'bach'; the model's symbols are: 'batch', 'x_1'"),
        ({"batch": 0}, "not in 1"),
        ({"batch": -1}, "not in 1"),
        ({"batch": True}, "not in 1"),
        ({"batch": 1.5}, "not an integer"),
        ({"batch": "2"}, "not an integer"),
    ]:
        with pytest.raises(InputError, match=said):
            load_model(proto, dims=dims)


@pytest.mark.parametrize(
    ("broken", "kind", "said"),
    [
        (helper.make_tensor_value_info("x", F32, None), ModelError, "'x' has no shape"),
        (onnx.ValueInfoProto(name="x"), ModelError, "'x' has no type"),
        (value("x", [2], 0), ModelError, "'x' has no element type"),
        (value("x", [2], TensorProto.COMPLEX64), UnsupportedError, "'x': .*COMPLEX64"),
        (value("x", [2**40, 2**40]), ModelError, "overflow"),
        (value("x", ["n", 2**62]), ModelError, "overflow"),
        (
            helper.make_tensor_sequence_value_info("x", F32, [2]),
            UnsupportedError,
            "'x' is of kind sequence",
        ),
        (
            helper.make_value_info(
                "x", helper.make_optional_type_proto(helper.make_tensor_type_proto(F32, [2]))
            ),
            UnsupportedError,
            "'x' is of kind optional",
        ),
        (helper.make_sparse_tensor_value_info("x", F32, [2]), UnsupportedError, "kind sparse"),
    ],
)
def test_refused_inputs(broken, kind, said):
    with pytest.raises(kind, match=said):
        load_model(model([node("Relu", "x", "y")], [broken]))


def test_refused_output():
    out = helper.make_tensor_sequence_value_info("y", F32, [2])
    with pytest.raises(UnsupportedError, match="output 'y' is of kind sequence"):
        load_model(model([node("Relu", "x", "y")], outputs=[out]))


def test_initialized_inputs_are_constants():
    w = tensor("w", np.full((2, 3), 2, np.float32))
    proto = model([node("Mul", "x w", "y")], [value("x"), value("w")], initializers=[w])
    for ir_version in (3, 8):
        proto.ir_version = ir_version
        g = load_model(proto)
        assert g.inputs == ["x"] and list(g.constants) == ["w"]


def test_wrong_declarations_only_warn():
    proto = model([node("Relu", "x", "h"), node("Relu", "h", "y")], outputs=[value("y", [9, 9])])
    proto.graph.value_info.append(value("h", ["a", 3], I64))
    with pytest.warns(AiccWarning) as found:
        g = load_model(proto)
    assert len(found) == 1
    assert "'y' is f32[2, 3], declared f32[9, 9]" in str(found[0].message)
    assert "'h' is f32[2, 3], declared i64[a, 3]" in str(found[0].message)
    assert g.types["y"].shape == (2, 3)


# --- order and definitions ----------------------------------------------------------------------


def test_unsorted_nodes_are_sorted():
    nodes = [node("Neg", "b", "y"), node("Abs", "a", "b"), node("Exp", "x", "a")]
    g = load_model(model(nodes))
    assert [n.op for n in g.nodes] == ["Exp", "Abs", "Neg"]
    in_order = [node("Exp", "x", "a"), node("Abs", "x", "b"), node("Add", "a b", "y")]
    assert [n.op for n in load_model(model(in_order)).nodes] == ["Exp", "Abs", "Add"]


def test_sorting_minds_what_regions_capture():
    branch = graph([node("Identity", "late", "r1")], [], [value("r1")], name="a")
    other = graph([node("Identity", "x", "r2")], [], [value("r2")], name="b")
    nodes = [
        node("If", "c", "y", domain="test", then_branch=branch, else_branch=other),
        node("Neg", "x", "late"),
    ]
    inputs = [value("x"), value("c", [], TensorProto.BOOL)]
    g = load_model(model(nodes, inputs))
    assert [n.op for n in g.nodes] == ["Neg", "test::If"]


def test_cycles():
    nodes = [
        node("Add", "x c", "a", "first"),
        node("Neg", "a", "b", "second"),
        node("Exp", "b", "c", "third"),
        node("Abs", "c", "y", "after"),
    ]
    with pytest.raises(ModelError, match="cycle") as found:
        load_model(model(nodes))
    text = str(found.value)
    assert all(n in text for n in ("first", "second", "third")) and "after" not in text
    assert text.index("first") < text.index("second") < text.index("third")
    with pytest.raises(ModelError, match="cycle: 'y' -> 'y'"):
        load_model(model([node("Add", "x y", "y")]))


def test_undefined_values():
    with pytest.raises(ModelError, match="'nowhere', which node 'n1' reads; 'gone', which"):
        load_model(model([node("Add", "x nowhere", "a", "n1"), node("Add", "a gone", "y", "n2")]))
    with pytest.raises(ModelError, match="nothing defines the output 'z'"):
        load_model(model([node("Relu", "x", "y")], outputs=[value("z")]))


@pytest.mark.parametrize(
    "proto",
    [
        model([node("Relu", "x", "y"), node("Neg", "x", "y")]),
        model([node("Relu", "x", "x")]),
        model([node("Relu", "x", "w")], initializers=[tensor("w", X)]),
        model([node("Relu", "x", "y")], initializers=[tensor("w", X), tensor("w", X)]),
        model([node("Relu", "x", "y")], [value("x"), value("x")]),
    ],
)
def test_second_definitions(proto):
    with pytest.raises(ModelError, match="defined twice"):
        load_model(proto)


def test_nameless_things():
    with pytest.raises(ModelError, match="input 0 has no name"):
        load_model(model([node("Relu", "x", "y")], [value(""), value("x")]))
    with pytest.raises(ModelError, match="initializer 0 has no name"):
        load_model(model([node("Relu", "x", "y")], initializers=[tensor("", X)]))


def test_an_output_may_be_an_input_or_a_constant():
    proto = model([], outputs=[value("x"), value("w")], initializers=[tensor("w", X)])
    assert load_model(proto).outputs == ["x", "w"]


# --- operators and attributes -------------------------------------------------------------------


def test_everything_unknown_is_listed_at_once():
    nodes = [
        node("Frobnicate", "x", "a", "one", domain="com.acme"),
        node("Frobnicate", "a", "b", "two", domain="com.acme"),
        node("NoSuchOperator", "b x", "c", "three"),
        node("Relu", "c", "d", "fine"),
        node("Mystery", "d", "y", "four", domain="test"),
    ]
    proto = model(nodes)
    proto.opset_import.append(helper.make_opsetid("com.acme", 4))
    with pytest.raises(UnsupportedError) as found:
        load_model(proto)
    text = str(found.value)
    assert "com.acme::Frobnicate (opset 4)" in text and "'one', 'two'" in text
    assert "NoSuchOperator (opset 17)" in text and "'three'" in text
    assert "test::Mystery (opset 1)" in text and "'four'" in text
    assert "f32[2, 3]" in text and "'fine'" not in text


def test_unknown_operators_inside_regions_and_functions():
    region = graph([node("Inner", "x", "r", "deep", domain="test")], [], [value("r")], name="a")
    other = graph([node("Other", "x", "s", "side", domain="test")], [], [value("s")], name="b")
    called = function("F", "p", "q", [node("InF", "p", "q", "body", domain="test")])
    nodes = [
        node("F", "x", "f", "call", domain="test"),
        node("If", "c", "y", "choice", domain="test", then_branch=region, else_branch=other),
    ]
    proto = model(nodes, [value("x"), value("c", [], TensorProto.BOOL)], functions=[called])
    with pytest.raises(UnsupportedError) as found:
        load_model(proto)
    for part in ("test::Inner", "'deep'", "test::Other", "'side'", "test::InF", "'call/body'"):
        assert part in str(found.value)


def test_unknown_wins_over_what_does_not_fit():
    nodes = [node("Add", "x x x", "a", "bad"), node("Nope", "x", "y", "unknown")]
    with pytest.raises(UnsupportedError, match="Nope"):
        load_model(model(nodes))


def test_opsets():
    proto = model([node("Relu", "x", "y", "act")], opset=importer.NEWEST_OPSET + 1)
    with pytest.raises(
        UnsupportedError, match=rf"Relu \(opset {importer.NEWEST_OPSET + 1}\).*'act'"
    ):
        load_model(proto)
    with pytest.raises(UnsupportedError, match=r"Relu \(opset 0\)"):
        load_model(model([node("Relu", "x", "y", "act")], opset=0))
    with pytest.raises(UnsupportedError, match="imports no opset"):
        load_model(model([node("Foo", "x", "y", "act", domain="elsewhere")]))
    with pytest.raises(
        UnsupportedError, match=r"HardSwish \(opset 13\): aicc has it since opset 14"
    ):
        load_model(model([node("HardSwish", "x", "y")], opset=13))
    twice = model([node("Relu", "x", "y")])
    twice.opset_import.append(helper.make_opsetid("ai.onnx", 12))
    with pytest.raises(ModelError, match="imported in versions 17 and 12"):
        load_model(twice)


def test_both_names_of_the_onnx_domain():
    assert load_model(model([node("Relu", "x", "y", domain="ai.onnx")])).nodes[0].op == "Relu"


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (node("Relu", "x", "y", "n", alpha=1.0), "unknown attribute 'alpha'"),
        (node("Relu", "x", "y", "n", channels_last=1), "unknown attribute 'channels_last'"),
        (node("LeakyRelu", "x", "y", "n", alpha=1), "'alpha' is INT, not FLOAT"),
        (node("Cast", "x", "y", "n"), "attribute 'to' is missing"),
        (node("Add", "x", "y", "n"), "1 operands, not 2"),
        (node("Add", "x x x", "y", "n"), "3 operands, not 2"),
        (node("Relu", "x", "y z", "n"), "1 results, not 2"),
        (node("Foreign", "x", "y", "n", "test", mode=3), "'mode' is INT, not STRING"),
        (node("Foreign", "x", "y", "n", "test", other=3), "unknown attribute 'other'; known are"),
        (node("MatMul", "x x", "y", "n"), r"MatMul\(f32\[2, 3\], f32\[2, 3\]\)"),
    ],
)
def test_nodes_that_do_not_fit(broken, said):
    with pytest.raises(OperatorError, match=said) as found:
        load_model(model([broken]))
    assert found.value.node == "n" and "'n'" in str(found.value)


def test_all_nodes_that_do_not_fit_are_told():
    nodes = [node("Add", "x", "a", "n1"), node("Cast", "x", "b", "n2"), node("Add", "a b", "y")]
    with pytest.raises(OperatorError) as found:
        load_model(model(nodes))
    assert "'n1'" in str(found.value) and "'n2'" in str(found.value)


def test_attributes_have_defaults_and_plain_values():
    g = load_model(model([node("Foreign", "x", "y", domain="test", scale=0.5, ks=[1, 2])]))
    assert g.nodes[0].attrs == (("ks", (1, 2)), ("mode", "a"), ("scale", 0.5))
    assert g.nodes[0].op == "test::Foreign"


def test_an_attribute_twice_and_references_outside_of_functions():
    n = node("LeakyRelu", "x", "y", "n", alpha=0.5)
    n.attribute.append(helper.make_attribute("alpha", 0.25))
    with pytest.raises(OperatorError, match="there twice"):
        load_model(model([n]))
    n = node("LeakyRelu", "x", "y", "n")
    n.attribute.append(reference_attribute("alpha", "a", AttributeProto.FLOAT))
    with pytest.raises(OperatorError, match="outside of a function"):
        load_model(model([n]))


def test_attributes_without_a_type_as_in_ir_version_1():
    n = node("LeakyRelu", "x", "y", alpha=0.5)
    n.attribute[0].type = AttributeProto.UNDEFINED
    assert load_model(model([n])).nodes[0].attr("alpha") == 0.5


def test_operand_lists_end_at_the_last_one_given():
    n = node("Clip", "x", "y")
    n.input.extend(["", ""])
    assert load_model(model([n])).nodes[0].inputs == ("x",)


def test_old_opsets_are_upgraded():
    g = load_model(
        model([node("ReduceMean", "x", "y", axes=[1])], outputs=[value("y", None)], opset=11)
    )
    (n,) = g.nodes
    assert n.attr("axes") is None and g.constants[n.inputs[1]].tolist() == [1]
    assert g.types["y"].shape == (2, 1)


def test_names_made_for_operands_do_not_take_those_of_the_model():
    nodes = [node("ReduceMean", "x", "m", axes=[1]), node("Neg", "m", "axes")]
    first = load_model(model(nodes, outputs=[value("axes", None)], opset=11))
    made = first.nodes[0].inputs[1]
    again = [node("ReduceMean", "x", "m", axes=[1]), node("Neg", "m", made)]
    g = load_model(model(again, outputs=[value(made, None)], opset=11))
    assert g.nodes[0].inputs[1] != made and g.outputs == [made]


@pytest.mark.parametrize(
    ("attrs", "expected"),
    [
        ({"value": tensor("", np.array([[1, 2]], np.int32))}, np.array([[1, 2]], np.int32)),
        ({"value_float": 1.5}, np.float32(1.5)),
        ({"value_floats": [1.5, 2.0]}, np.array([1.5, 2], np.float32)),
        ({"value_int": 3}, np.int64(3)),
        ({"value_ints": [3, 4]}, np.array([3, 4], np.int64)),
        ({"value_string": "hi"}, np.array("hi", object)),
        ({"value_strings": ["a", "b"]}, np.array(["a", "b"], object)),
    ],
)
def test_constant_nodes(attrs, expected):
    g = load_model(
        model([node("Constant", "", "y", **attrs)], outputs=[onnx.ValueInfoProto(name="y")])
    )
    assert not g.nodes
    found = g.constants["y"]
    assert found.dtype == np.asarray(expected).dtype and found.shape == np.shape(expected)
    assert found.tolist() == np.asarray(expected).tolist()


def test_constant_nodes_that_do_not_fit():
    for attrs in ({}, {"value_int": 1, "value_float": 2.0}, {"value_int": 1.5}, {"foo": 1}):
        with pytest.raises(OperatorError):
            load_model(model([node("Constant", "", "y", **attrs)]))


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
