"""If, Loop and Scan that need no host: by the pass that makes plain nodes of them, and compiled."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from pass_builder import agree, ops

import aicc
from aicc.frontend import load_model
from aicc.graph_ir.evaluate import evaluate
from aicc.graph_ir.passes import control_flow
from aicc.graph_ir.passes.fold import Fold
from aicc.graph_ir.passes.simplify import Simplify

F, I64, B = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
value = helper.make_tensor_value_info
node = helper.make_node


def model(nodes, inputs, outputs, **constants):
    tensors = [numpy_helper.from_array(np.asarray(a), n) for n, a in constants.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return made


def loop(nodes, trips, again="go", start=True):
    """y, rows = Loop(trips, start, s): the body has `s_in`, the number `i` and the outer `w`."""
    body = helper.make_graph(
        nodes,
        "body",
        [value("i", I64, []), value("go", B, []), value("s_in", F, [3])],
        [value(again, B, []), value("s_out", F, [3]), value("row", F, [3])],
    )
    return model(
        [node("Loop", ["m", "c", "s"], ["y", "rows"], body=body)],
        [value("s", F, [3]), value("w", F, [3])],
        [value("y", F, None), value("rows", F, None)],
        m=np.array(trips),
        c=np.array(start),
    )


STEP = [
    node("Cast", ["i"], ["f"], to=F),
    node("Mul", ["s_in", "w"], ["t"]),
    node("Add", ["t", "f"], ["s_out"]),
    node("Neg", ["s_out"], ["row"]),
]


def simplified(made):
    before = load_model(made)
    after = Simplify()(Fold()(before))
    agree(before, after)
    return after


def test_a_loop_becomes_its_iterations():
    made = loop(STEP, 4)
    assert ops(simplified(made)).count("Mul") == 4
    s, w = np.ones(3, np.float32), np.array([1, 2, -1], np.float32)
    compiled = aicc.compile(made, threads=1)
    assert not compiled.report().host_ops
    y, rows = compiled.run(None, {"s": s, "w": w})
    expected = []
    for i in range(4):
        s = s * w + i
        expected.append(-s)
    np.testing.assert_array_equal(y, s)
    np.testing.assert_array_equal(rows, expected)


def test_constants_of_a_body_are_there_once():
    nodes = [*STEP[:2], node("Constant", [], ["k"], value_floats=[1.0, 2.0, 3.0])]
    nodes += [node("Add", ["t", "k"], ["s_out"]), STEP[3]]
    after = simplified(loop(nodes, 5))
    assert ops(after).count("Add") == 5
    assert len([a for a in after.constants.values() if a.shape == (3,)]) == 1


@pytest.mark.parametrize(
    "again, extra, start",
    [
        ("more", [node("Greater", ["f", "f"], ["more"])], True),  # it may end before
        ("go", [], False),  # it does not begin
    ],
)
def test_loops_that_may_end_are_left(again, extra, start):
    after = simplified(loop([*STEP, *extra], 4, again, start))
    assert ops(after) == ["Loop"]


def test_no_iteration_and_many_are_left(monkeypatch):
    assert ops(simplified(loop(STEP, 0))) == ["Loop"]
    assert "Loop" not in ops(simplified(loop(STEP, 6)))
    monkeypatch.setattr(control_flow, "UNROLLED_NODES", 6 * len(STEP) - 1)
    assert ops(simplified(loop(STEP, 6))) == ["Loop"]


def test_loops_in_loops():
    inner = helper.make_graph(
        [node("Mul", ["a", "w"], ["b"]), node("Identity", ["on"], ["on_"])],
        "inner",
        [value("j", I64, []), value("on", B, []), value("a", F, [3])],
        [value("on_", B, []), value("b", F, [3])],
    )
    nodes = [
        node("Constant", [], ["two"], value_int=2),
        node("Loop", ["two", "", "s_in"], ["t"], body=inner),
        node("Cast", ["i"], ["f"], to=F),
        *STEP[2:],
    ]
    after = simplified(loop(nodes, 3))
    assert ops(after).count("Mul") == 6
    assert "Loop" not in ops(after)


@pytest.mark.parametrize("axis, backward, out_axis, reverse", [(0, 0, 0, 0), (1, 1, -1, 1)])
def test_a_scan_becomes_its_iterations(axis, backward, out_axis, reverse):
    body = helper.make_graph(
        [
            node("Mul", ["h", "w"], ["t"]),
            node("Add", ["t", "x_t"], ["h_"]),
            node("Abs", ["h_"], ["o"]),
        ],
        "body",
        [value("h", F, [2]), value("x_t", F, [2])],
        [value("h_", F, [2]), value("o", F, [2])],
    )
    scan = node(
        "Scan", ["h0", "x"], ["y", "outs"], body=body, num_scan_inputs=1,
        scan_input_axes=[axis], scan_input_directions=[backward],
        scan_output_axes=[out_axis], scan_output_directions=[reverse],
    )  # fmt: skip
    shape = [5, 2] if axis == 0 else [2, 5]
    made = model(
        [scan],
        [value("h0", F, [2]), value("x", F, shape), value("w", F, [2])],
        [value("y", F, None), value("outs", F, None)],
    )
    after = simplified(made)
    assert ops(after).count("Abs") == 5
    assert "Scan" not in ops(after)


def test_a_scan_of_a_length_that_a_run_tells_is_left():
    body = helper.make_graph(
        [node("Add", ["h", "x_t"], ["h_"]), node("Abs", ["h_"], ["o"])],
        "body",
        [value("h", F, [2]), value("x_t", F, [2])],
        [value("h_", F, [2]), value("o", F, [2])],
    )
    made = model(
        [node("Scan", ["h0", "x"], ["y", "outs"], body=body, num_scan_inputs=1)],
        [value("h0", F, [2]), value("x", F, ["n", 2])],
        [value("y", F, None), value("outs", F, None)],
    )
    graph = Simplify()(load_model(made))
    assert ops(graph) == ["Scan"]
    feed = {"h0": np.zeros(2, np.float32), "x": np.ones((3, 2), np.float32)}
    np.testing.assert_array_equal(evaluate(graph, feed)["y"], [3, 3])


def choice(then, other, sizes=((3,), (3,)), condition=(), **constants):
    """y = If(c): each branch is the nodes that make `a` of x."""
    branches = [
        helper.make_graph(nodes, name, [], [value("a", F, list(size))])
        for nodes, name, size in zip((then, other), ("then", "other"), sizes)
    ]
    return model(
        [node("If", ["c"], ["y"], then_branch=branches[0], else_branch=branches[1])],
        [value("c", B, list(condition)), value("x", F, [3]), value("i", I64, [3])],
        [value("y", F, None)],
        **constants,
    )


@pytest.mark.parametrize("condition", [(), (1,), (1, 1)])
def test_both_branches_of_an_if_are_computed_where_neither_can_fail(condition):
    made = choice([node("Exp", ["x"], ["a"])], [node("Log", ["x"], ["a"])], condition=condition)
    after = simplified(made)
    assert sorted(ops(after))[:2] == ["Exp", "Log"] and ops(after)[-1] == "Where"
    compiled = aicc.compile(made, threads=1)
    assert not compiled.report().host_ops
    x = np.array([-1, 1, 2], np.float32)  # a logarithm that is not chosen may be NaN
    for c in (True, False):
        feed = {"c": np.full(condition, c), "x": x, "i": np.zeros(3, np.int64)}
        with np.errstate(invalid="ignore"):
            expected = np.exp(x) if c else np.log(x)
        np.testing.assert_allclose(compiled.run(None, feed)[0], expected, rtol=1e-6)


@pytest.mark.parametrize(
    "other, size",
    [
        ([node("Gather", ["x", "i"], ["a"])], (3,)),  # an index may be none
        ([node("Softmax", ["x"], ["t"], axis=0), node("Gather", ["t", "i"], ["a"])], (3,)),
        ([node("Concat", ["x", "x"], ["a"], axis=0)], (6,)),
    ],
)
def test_branches_that_may_fail_or_differ_stay_branches(other, size):
    made = choice([node("Exp", ["x"], ["a"])], other, ((3,), size))
    assert ops(Simplify()(load_model(made))) == ["If"]


def products(count):
    """The nodes that multiply x [256, 256] by itself so many times."""
    made = [node("MatMul", ["a" if n else "x", "x"], ["a"]) for n in range(count)]
    for n, product in enumerate(made[:-1]):
        product.output[0] = made[n + 1].input[0] = f"a{n}"
    return made


@pytest.mark.parametrize(
    "then, other, both",
    [
        (products(1), products(2), True),
        ([node("Neg", ["x"], ["a"])], [node("Exp", ["x"], ["a"])], True),
        ([node("Neg", ["x"], ["a"])], products(1), False),
        (products(1), products(20), False),
    ],
)
def test_both_branches_are_computed_where_one_is_not_much_more_than_the_other(then, other, both):
    shape = [256, 256]
    branches = [
        helper.make_graph(nodes, name, [], [value("a", F, shape)])
        for nodes, name in ((then, "then"), (other, "else"))
    ]
    made = model(
        [node("If", ["c"], ["y"], then_branch=branches[0], else_branch=branches[1])],
        [value("c", B, []), value("x", F, shape)],
        [value("y", F, shape)],
    )
    assert ("If" not in ops(Simplify()(load_model(made)))) == both
