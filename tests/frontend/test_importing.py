"""ModelProto -> Graph: names, sizes, attributes, constants, order, refusals."""

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
