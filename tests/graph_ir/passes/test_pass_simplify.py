import numpy as np
import pytest
from pass_builder import Build, applied, count, ops

from aicc.graph_ir.graph import Graph, make_node
from aicc.graph_ir.passes.decompose import Decompose
from aicc.graph_ir.passes.simplify import RULES, Simplify
from aicc.graph_ir.types import TensorType
from aicc.ops import registry
from aicc.symbolic import sym

N, M = sym("n", 1), sym("m", 1)


def i64(b, *values):
    return b.const(np.array(values, np.int64))


def both(b, x, first, second):
    return b("Where", b("And", b(first, x), b(second, x)), b.const(0.0), x)


def one(make, *shape, dtype="f32"):
    """Operators left of `Relu(make(b, x))` after simplification, the Relu aside."""
    b = Build()
    x = b.input("x", *(shape or (2, 3)), dtype=dtype)
    graph = b.done(b("Neg", make(b, x)))
    after = applied(graph, Simplify())
    assert ops(after)[-1] == "Neg"
    return ops(after)[:-1]


@pytest.mark.parametrize(
    "op, value",
    [("Add", 0.0), ("Sub", 0.0), ("Mul", 1.0), ("Div", 1.0), ("Pow", 1.0)],
)
def test_neutral_operands(op, value):
    assert one(lambda b, x: b(op, x, b.const(value))) == []
    assert one(lambda b, x: b(op, x, b.const(np.full(3, value, np.float32)))) == []
    # A result of another shape is no copy.
    assert one(lambda b, x: b(op, x, b.const(np.full((4, 1, 1), value, np.float32)))) != []


def test_neutral_operands_on_the_left():
    assert one(lambda b, x: b("Add", b.const(0.0), x)) == []
    assert one(lambda b, x: b("Mul", b.const(1.0), x)) == []
    assert one(lambda b, x: b("Sub", b.const(0.0), x)) == ["Sub"]
    assert one(lambda b, x: b("Div", b.const(1.0), x)) == ["Div"]


@pytest.mark.parametrize(
    "make, left",
    [
        (lambda b, x: b("Identity", x), []),
        (lambda b, x: b("Dropout", x), []),
        (lambda b, x: b("Cast", x, to="f32"), []),
        (lambda b, x: b("Neg", b("Neg", x)), []),
        (lambda b, x: b("Relu", b("Relu", x)), ["Relu"]),
        (lambda b, x: b("Clip", x), []),
        (lambda b, x: b("Sum", x), []),
        (lambda b, x: b("Sum", x, x, x), ["Add", "Add"]),
        (lambda b, x: b("Max", x), []),
        (lambda b, x: b("Concat", x, axis=0), []),
        (lambda b, x: b("Where", b.const([True]), x, b.const(0.0)), []),
        (lambda b, x: b("Where", b.const([False]), b.const(0.0), x), []),
        (lambda b, x: b("Where", b("IsNaN", x), x, x), []),
        (lambda b, x: b("Where", b("IsNaN", x), b.const(0.0), x), ["IsNaN", "Where"]),
        (lambda b, x: both(b, x, "IsNaN", "IsNaN"), ["IsNaN", "Where"]),
        (lambda b, x: both(b, x, "IsNaN", "IsInf"), ["IsNaN", "IsInf", "And", "Where"]),
        (lambda b, x: b("Pow", x, b.const(2.0)), ["Mul"]),
        (lambda b, x: b("Pow", x, b.const(3.0)), ["Mul", "Mul"]),
        (lambda b, x: b("Pow", b("Abs", x), b.const(0.5)), ["Abs", "Sqrt"]),
        (lambda b, x: b("Pow", x, b.const(-1.0)), ["Reciprocal"]),
        (lambda b, x: b("Div", x, b.const(8.0)), ["Mul"]),
        (lambda b, x: b("Div", x, b.const([0.5, -4.0, 2.0])), ["Mul"]),
        (lambda b, x: b("Div", x, b.const(3.0)), ["Div"]),
        (lambda b, x: b("Sub", x, b.const(3.0)), ["Add"]),
        (lambda b, x: b("Add", b("Add", x, b.const(3.0)), b.const([1.0, 2.0, 3.0])), ["Add"]),
        (lambda b, x: b("Mul", b("Mul", x, b.const(3.0)), b.const(5.0)), ["Mul"]),
        (
            lambda b, x: b("Mul", b("Add", b("Mul", x, b.weights(3)), b.const(2.0)), b.weights(3)),
            ["Mul", "Add"],
        ),
        (lambda b, x: b("Transpose", x, perm=(0, 1)), []),
        (lambda b, x: b("Transpose", b("Transpose", x, perm=(1, 0)), perm=(1, 0)), []),
        (lambda b, x: b("Reshape", x, i64(b, 2, 3)), []),
        (lambda b, x: b("Reshape", x, i64(b, -1, 3)), []),
        (lambda b, x: b("Reshape", b("Reshape", x, i64(b, 6)), i64(b, 3, 2)), ["Reshape"]),
        (lambda b, x: b("Squeeze", b("Unsqueeze", x, i64(b, 1)), i64(b, 1)), []),
        (lambda b, x: b("Flatten", x, axis=0), ["Reshape"]),
        (lambda b, x: b("Flatten", x, axis=1), []),
        (lambda b, x: b("Expand", x, i64(b, 2, 1)), []),
        (lambda b, x: b("Add", b("Expand", x, i64(b, 4, 2, 3)), b.weights(4, 2, 3)), ["Add"]),
        (lambda b, x: b("Add", b("Expand", x, i64(b, 4, 2, 3)), x), ["Expand", "Add"]),
        (lambda b, x: b("Slice", x, i64(b, 0), i64(b, 99), i64(b, 1)), []),
        (lambda b, x: b("Slice", x, i64(b, -1), i64(b, -99), i64(b, 1), i64(b, -1)), ["Slice"]),
        (lambda b, x: b("Slice", x, i64(b, 1), i64(b, 3), i64(b, 1)), ["Slice"]),
        (lambda b, x: b("Pad", x, i64(b, 0, 0, 0, 0)), []),
        (lambda b, x: b("Tile", x, i64(b, 1, 1)), []),
        (lambda b, x: b("Split", x, i64(b, 3), axis=1), []),
    ],
)
def test_identities(make, left):
    assert one(make) == left


@pytest.mark.parametrize(
    ("shape", "expanded", "op", "weights", "left"),
    [
        ((2, 1, 3), (2, 5, 3), "Tanh", None, ["Tanh", "Expand"]),
        ((2, 3), (5, 2, 3), "Tanh", None, ["Expand", "Tanh"]),  # an axis more
        ((1, 2, 3, 1), (5, 2, 3, 4), "Conv", (6, 2, 1, 1), ["Conv", "Expand"]),
        ((1, 2, 3, 1), (5, 1, 1, 4), "Conv", (6, 2, 1, 1), ["Conv", "Expand"]),
        ((1, 1, 2, 3), (1, 2, 2, 3), "Conv", (6, 2, 1, 1), ["Expand", "Conv"]),  # channels
        ((1, 2, 3, 1), (1, 2, 3, 4), "Conv", (6, 2, 1, 3), ["Expand", "Conv"]),  # neighbours
        ((1, 2, 1, 3), (1, 2, 4, 3), "Conv", (6, 2, 3, 1), ["Expand", "Conv"]),
    ],
)
def test_what_is_repeated_is_computed_once(shape, expanded, op, weights, left):
    b = Build()
    repeated = b("Expand", b.input("x", *shape), i64(b, *expanded))
    made = b(op, repeated) if weights is None else b(op, repeated, b.weights(*weights))
    assert ops(applied(b.done(made), Simplify())) == left


def test_repeated_along_symbolic_axes():
    b = Build()
    x, like = b.input("x", 1, 2, 1, 1), b.input("like", N, 2, M, 4)
    made = b("Conv", b("Expand", x, b("Shape", like)), b.weights(2, 2, 1, 1))
    assert ops(applied(b.done(b("Add", like, made)), Simplify())) == ["Conv", "Add"]


def test_integer_division_and_powers_stay_exact():
    b = Build()
    x = b.input("x", 4, dtype="i64")
    y = b("Div", x, b.const(np.array(2, np.int64)))
    z = b("Pow", x, b.const(np.array(2, np.int64)))
    assert ops(applied(b.done(y, z), Simplify())) == ["Div", "Mul"]


def test_transposes_of_size_one_axes_are_views():
    assert one(lambda b, x: b("Transpose", x, perm=(0, 2, 3, 1)), 2, 1, 3, 5) == ["Reshape"]
    assert one(lambda b, x: b("Transpose", x, perm=(0, 2, 3, 1)), 2, 4, 1, 1) == ["Reshape"]
    assert one(lambda b, x: b("Transpose", x, perm=(0, 2, 1)), 2, 4, 3) == ["Transpose"]


def test_reductions_of_size_one_axes_are_views():
    def mean(b, x):
        return b("ReduceMean", x, i64(b, 1), keepdims=0)

    assert one(mean, 4, 1, 5) == ["Reshape"]
    assert one(mean, 4, 3, 5) == ["ReduceMean"]


def test_symbolic_views_get_constant_shapes():
    b = Build()
    x = b.input("x", N, M, 12)
    shape = b("Shape", x)
    rows = b("Slice", shape, i64(b, 0), i64(b, 2))
    heads = b("Reshape", x, b("Concat", rows, i64(b, 3, 4), axis=0))
    after = applied(b.done(b("Transpose", heads, perm=(0, 2, 1, 3))), Simplify())
    assert ops(after) == ["Reshape", "Transpose"]
    (target,) = after.constants.values()
    assert target.tolist() == [0, 0, 3, 4]


def test_sizes_that_no_constant_tells_stay():
    b = Build()
    x = b.input("x", N, M, 12)
    shape = b("Shape", x)
    swapped = b("Gather", shape, i64(b, 1, 0, 2))
    after = applied(b.done(b("Reshape", x, swapped)), Simplify())
    assert ops(after) == ["Shape", "Gather", "Reshape"]


def test_shape_arithmetic_keeps_its_contents():
    b = Build()
    x = b.input("x", N, 3)
    length = b("Squeeze", b("Shape", x, end=1), i64(b, 0))
    steps = b("Range", b.const(np.array(0, np.int64)), length, b.const(np.array(1, np.int64)))
    after = applied(b.done(steps), Simplify())
    assert after.types[after.outputs[0]].shape == (N,)


def test_common_subexpressions():
    b = Build()
    x = b.input("x", 2, 3)
    y = b("Add", b("Exp", x), b.const([1.0, 2.0, 3.0]))
    z = b("Add", b("Exp", x), b.const([1.0, 2.0, 3.0]))
    after = applied(b.done(b("Mul", y, z)), Simplify())
    assert ops(after) == ["Exp", "Add", "Mul"]
    assert len(after.constants) == 1


def test_random_nodes_are_not_common(monkeypatch):
    monkeypatch.setattr(registry.get("Exp"), "deterministic", False)
    b = Build()
    x = b.input("x", 2)
    after = Simplify()(b.done(b("Add", b("Exp", x), b("Exp", x))))
    assert ops(after) == ["Exp", "Exp", "Add"]


def test_outputs_keep_their_names():
    b = Build()
    x = b.input("x", 2)
    y = b("Relu", x)
    graph = b.done(b("Identity", y), y, b("Identity", x), b("Identity", b("Exp", x)))
    after = applied(graph, Simplify())
    assert count(after) == {"Relu": 1, "Identity": 2, "Exp": 1}


def test_products_keep_the_rows_of_their_operand():
    """A Gemm as exporters write it for [batch, rows, features]: views around it vanish."""
    b = Build()
    x = b.input("x", 2, 5, 8)
    y = b("Gemm", b("Reshape", x, i64(b, 10, 8)), b.weights(8, 6), b.weights(6))
    y = b("Reshape", y, i64(b, 2, 5, 6))
    graph = b.done(b("Add", b.input("r", 2, 5, 6), y))
    after = applied(graph, Decompose(), Simplify())
    assert ops(after) == ["MatMul", "Add", "Add"]


def test_products_take_the_rows_of_their_result():
    b = Build()
    x = b.input("x", 2, 5, 4, 2)
    y = b("Gemm", b("Reshape", x, i64(b, 10, 8)), b.weights(8, 6), b.weights(6))
    y = b("Reshape", y, i64(b, 2, 5, 6))
    graph = b.done(b("Add", b.input("r", 2, 5, 6), y))
    after = applied(graph, Decompose(), Simplify())
    assert ops(after) == ["Reshape", "MatMul", "Add", "Add"]
    assert after.types[after.nodes[0].outputs[0]].shape == (2, 5, 8)


@pytest.mark.parametrize("axis, turned", [(-1, True), (3, True), (2, False)])
def test_rows_of_a_softmax_are_the_left_operand_of_a_product(axis, turned):
    b = Build()
    v, s = b.input("v", 1, 2, 3, 5), b.input("s", 1, 2, 4, 5)
    p = b("Transpose", b("Softmax", s, axis=axis), perm=(0, 1, 3, 2))
    graph = b.done(b("Neg", b("MatMul", v, p)))
    after = applied(graph, Simplify())
    left = next(n for n in after.nodes if n.op == "MatMul").inputs[0]
    assert (next((n.op for n in after.nodes if left in n.outputs), "") == "Softmax") == turned


def test_products_of_rows_that_others_read_stay():
    b = Build()
    v, s = b.input("v", 3, 5), b.input("s", 4, 5)
    p = b("Softmax", s, axis=-1)
    t = b("Transpose", p, perm=(1, 0))
    after = applied(b.done(b("Neg", b("MatMul", v, t)), b("Neg", p)), Simplify())
    assert next(n for n in after.nodes if n.op == "MatMul").inputs[0] == "v"


def branch(name, op, result):
    g = Graph(name, [], [result], [make_node(op, ["x"], [result])])
    g.types[result] = TensorType("f32", (2,))
    return g


def test_an_if_of_known_condition_becomes_its_branch():
    b = Build()
    x = b.input("x", 2)
    c = b.const(np.array(False))
    regions = {"then_branch": branch("t", "Exp", "t"), "else_branch": branch("e", "Relu", "e")}
    order = [regions[a] for a in registry.get("If").attributes]
    b.ed.new.types["y"] = TensorType("f32", (2,))
    b.ed.add(make_node("If", [c], ["y"], regions=order))
    after = applied(b.done(b("Neg", "y")), Simplify())
    assert ops(after) == ["Relu", "Neg"]
    assert x in after.inputs


def test_regions_are_simplified_and_follow_renamed_values():
    b = Build()
    b.input("x", 2)
    cond = b.input("cond", dtype="bool")
    source = b("Identity", "x")
    at = b.input("at", 2, dtype="i64")  # an index may be out of range: both branches may not run
    nodes = [
        make_node("Identity", [source], ["u"]),
        make_node("Gather", ["u", at], ["t"], {"axis": 0}),
    ]
    inner = Graph("t", [], ["t"], nodes)
    inner.types.update({n: TensorType("f32", (2,)) for n in "tu"})
    regions = {"then_branch": inner, "else_branch": branch("e", "Relu", "e")}
    order = [regions[a] for a in registry.get("If").attributes]
    b.ed.new.types["y"] = TensorType("f32", (2,))
    b.ed.add(make_node("If", [cond], ["y"], regions=order))
    after = applied(b.done("y"), Simplify())
    assert ops(after) == ["If"]
    assert sorted(ops(r) for r in after.nodes[0].regions) == [["Gather"], ["Relu"]]


def test_every_rule_says_before_and_after():
    for rules in RULES.values():
        for rule in rules:
            assert "->" in (rule.__doc__ or ""), rule.__name__


@pytest.mark.parametrize(
    "indices, axis, op",
    [
        (np.arange(2, 9), 1, "Slice"),
        (np.arange(0, 11, 3), 1, "Slice"),
        (np.array([-2, -1]), 1, "Slice"),
        (np.arange(11)[::-1], 1, "aicc::Windows"),
        (np.arange(4)[:, None] * 2 + np.arange(3), 1, "aicc::Windows"),
        (np.add.outer(np.arange(2), np.arange(3)), -1, "aicc::Windows"),
        (np.array([0, 1, 3]), 1, "Gather"),  # not evenly spaced
        (np.array([[0, 1], [1, 3]]), 1, "Gather"),
        (np.array([4, 4]), 1, "Gather"),  # one element again and again
        (np.array(3), 1, "Gather"),
    ],
)
def test_what_is_looked_up_at_even_steps_is_read_there(indices, axis, op):
    b = Build()
    x = b.input("x", 3, 11, 4)
    y = b("Gather", x, b.const(indices), axis=axis)
    graph = b.done(b("Neg", y))
    assert ops(applied(graph, Simplify())) == [op, "Neg"]
