"""The verifier: each invariant that a graph can break, told with its place."""

import numpy as np
import pytest
import region_operators  # noqa: F401 - registers operators

from aicc.errors import IRError
from aicc.graph_ir.graph import Graph, make_node
from aicc.graph_ir.infer import infer
from aicc.graph_ir.types import TensorType
from aicc.graph_ir.verify import verify
from aicc.symbolic import sym

N = sym("n", 1)


def sound():
    """y = relu(x @ w) where c else x @ w, with a region that uses values around it."""
    g = Graph("sound", ["x", "c"], ["y"])
    g.types.update(x=TensorType("f32", (N, 4)), c=TensorType("bool", ()))
    g.add_constant("w", np.ones((4, 8), np.float32))
    g.nodes.append(make_node("MatMul", ["x", "w"], ["h"]))
    yes, no = Graph("yes", [], ["r"]), Graph("no", [], ["h"])
    yes.nodes.append(make_node("Relu", ["h"], ["r"]))
    g.nodes.append(make_node("test::If", ["c"], ["y"], regions=[yes, no]))
    infer(g)
    return g


def test_a_sound_graph():
    verify(sound())


def replace_node(at, *node, **kw):
    return lambda g: g.nodes.__setitem__(at, make_node(*node, **kw))


def region(g, i=0):
    return g.nodes[1].regions[i]


def shadow(g):
    region(g).nodes[0] = make_node("Relu", ["h"], ["x"])
    region(g).types["x"] = g.types["h"]
    region(g).outputs[:] = ["x"]


def inner_name_outside(g):
    g.outputs.append("r")


def two_ranges(g):
    g.inputs.append("z")
    g.types["z"] = TensorType("f32", (sym("n", 0),))


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda g: g.nodes.reverse(), r"node 0 .*'h' is not defined before it|'h' .* before"),
        (lambda g: g.inputs.append("x"), "inputs: the value 'x' is defined twice"),
        (lambda g: g.nodes.insert(1, g.nodes[0]), r"node 1 \(%h = MatMul\): .*twice"),
        (lambda g: g.outputs.append("gone"), "output 'gone' is not defined"),
        (inner_name_outside, "output 'r' is not defined"),
        (shadow, "'x' is defined twice"),
        (lambda g: g.types.pop("x"), "'x' has no type"),
        (lambda g: g.types.pop("h"), "'h' has no type"),
        (lambda g: g.types.update(x=TensorType("f31", (N, 4))), "unknown type f31"),
        (lambda g: g.types.update(h=TensorType("f32", (N, 9))), r"'h' is f32\[n, 9\], but MatMul"),
        (lambda g: g.types.update(h=TensorType("f64", (N, 8))), "'h' is f64"),
        (lambda g: g.types.update(y=TensorType("f32", (N, 9))), "'y' is f32"),
        (lambda g: g.types.update(w=TensorType("f32", (4, 9))), r"constant 'w' is f32\[4, 8\]"),
        (replace_node(0, "Nope", ["x", "w"], ["h"]), "no operator is called 'Nope'"),
        (replace_node(0, "MatMul", ["x"], ["h"]), "1 operands, not 2..2"),
        (replace_node(0, "MatMul", ["x", "w", "w"], ["h"]), "3 operands, not 2..2"),
        (replace_node(0, "MatMul", ["x", ""], ["h"]), "input 1 is missing"),
        (replace_node(0, "MatMul", ["w", "w"], ["h"]), r"node 0 \(%h = MatMul\).*MatMul\(f32"),
        (replace_node(0, "MatMul", ["x", "w"], ["h"], {"a": 1}), "unknown attribute 'a'"),
        (replace_node(0, "Cast", ["x"], ["h"]), "attribute 'to' is missing"),
        (replace_node(0, "Cast", ["x"], ["h"], {"to": [1]}), "'to' cannot be"),
        (lambda g: region(g).nodes.append(make_node("Neg", ["y"], ["q"])), "'y' is not defined"),
        (lambda g: region(g).types.update(r=TensorType("f32", (N, 1))), r"sound/node 1 .*yes.*'r'"),
        (lambda g: region(g, 1).outputs.append("gone"), "'gone' is not defined"),
        (two_ranges, "the size 'n' has two ranges"),
    ],
)  # fmt: skip
def test_broken_graphs(harm, said):
    g = sound()
    harm(g)
    with pytest.raises(IRError, match=said) as found:
        verify(g)
    assert "sound" in str(found.value)


def test_attributes_are_sorted_and_single():
    for attrs in ((("b", 1), ("a", 2)), (("a", 1), ("a", 2))):
        g = sound()
        node = make_node("MatMul", ["x", "w"], ["h"])
        object.__setattr__(node, "attrs", attrs)
        g.nodes[0] = node
        with pytest.raises(IRError, match="not sorted, or there twice"):
            verify(g)


def test_known_contents_are_not_compared():
    g = Graph("g", ["x"], ["s"])
    g.types["x"] = TensorType("f32", (N, 4))
    g.nodes.append(make_node("Shape", ["x"], ["s"], {"start": 0}))
    infer(g)
    assert g.types["s"].value == (N, 4)
    g.types["s"] = g.types["s"].without_value()
    verify(g)
