"""If, Loop and Scan: imported, typed and run in numpy, against onnxruntime."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from aicc.errors import AiccError, OperatorError
from aicc.frontend.importer import load_model
from aicc.graph_ir.evaluate import evaluate

F, I, B = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL  # noqa: E741


def value(name, shape, kind=F):
    return helper.make_tensor_value_info(name, kind, shape)


def node(op, inputs, outputs, **attrs):
    return helper.make_node(op, inputs, outputs, **attrs)


def graph(nodes, inputs, outputs, **constants):
    weights = [numpy_helper.from_array(np.asarray(a), n) for n, a in constants.items()]
    return helper.make_graph(nodes, "g", inputs, outputs, weights)


def model(nodes, inputs, outputs, **constants):
    made = helper.make_model(
        graph(nodes, inputs, outputs, **constants),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    return made


def check(made, *feeds):
    """The imported graph and onnxruntime agree on every feed; returns the graph."""
    imported = load_model(made)
    session = onnxruntime.InferenceSession(
        made.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    for feed in feeds:
        expected = session.run(None, feed)
        actual = evaluate(imported, feed)
        for (name, a), e in zip(actual.items(), expected, strict=True):
            assert a.dtype == e.dtype and a.shape == e.shape, name
            np.testing.assert_allclose(a, e, rtol=1e-5, atol=1e-6, err_msg=name)
    return imported


def shape_of(imported, name):
    return [str(d) for d in imported.types[name].shape]


X = np.arange(6, dtype=np.float32).reshape(2, 3) - 2


def conditional(then, otherwise):
    return model(
        [node("If", ["c"], ["y"], then_branch=then, else_branch=otherwise)],
        [value("c", [], B), value("x", ["n", 3])],
        [value("y", None)],
    )


def test_if_of_equal_types():
    then = graph([node("Neg", ["x"], ["a"])], [], [value("a", None)])
    other = graph([node("Abs", ["x"], ["b"])], [], [value("b", None)])
    feeds = ({"c": np.array(c), "x": X} for c in (True, False))
    imported = check(conditional(then, other), *feeds)
    assert shape_of(imported, "y") == ["n", "3"]


def test_if_of_other_sizes():
    then = graph([node("Neg", ["x"], ["a"])], [], [value("a", None)])
    twice = graph([node("Concat", ["x", "x"], ["b"], axis=1)], [], [value("b", None)])
    feeds = ({"c": np.array(c), "x": X} for c in (True, False))
    imported = check(conditional(then, twice), *feeds)
    rows, columns = imported.types["y"].shape
    assert str(rows) == "n"
    assert not isinstance(columns, int)


def test_if_of_other_ranks_is_refused():
    then = graph([node("Neg", ["x"], ["a"])], [], [value("a", None)])
    flat = graph([node("ReduceSum", ["x"], ["b"], keepdims=0)], [], [value("b", None)])
    with pytest.raises(OperatorError, match="rank"):
        load_model(conditional(then, flat))


def test_if_with_known_condition_has_that_branch_type():
    then = graph([node("Neg", ["x"], ["a"])], [], [value("a", None)])
    flat = graph([node("ReduceSum", ["x"], ["b"], keepdims=0)], [], [value("b", None)])
    made = model(
        [node("If", ["c"], ["y"], then_branch=then, else_branch=flat)],
        [value("x", [2, 3])],
        [value("y", None)],
        c=np.array(True),
    )
    assert shape_of(load_model(made), "y") == ["2", "3"]


def loop(body, inputs, outputs, operands=("m", "c", "s"), results=("y",), **constants):
    return model(
        [node("Loop", list(operands), list(results), body=body)], inputs, outputs, **constants
    )


def body(nodes, carried, outputs, **constants):
    inputs = [value("i", [], I), value("go", [], B), *carried]
    return graph(nodes, inputs, outputs, **constants)


COUNT = [
    node("Cast", ["i"], ["f"], to=F),
    node("Add", ["s_in", "f"], ["s_out"]),
    node("Mul", ["s_out", "x"], ["row"]),
    node("Identity", ["go"], ["go_on"]),
]
COUNT_RESULTS = [value("go_on", [], B), value("s_out", []), value("row", None)]
COUNT_INPUTS = [value("s", []), value("x", ["n"])]


def test_loop_with_known_number_of_iterations():
    made = loop(
        body(COUNT, [value("s_in", [])], COUNT_RESULTS),
        COUNT_INPUTS,
        [value("y", None), value("rows", None)],
        results=("y", "rows"),
        m=np.array(4),
        c=np.array(True),
    )
    x = np.arange(3, dtype=np.float32)
    imported = check(made, {"s": np.array(1.5, np.float32), "x": x})
    assert shape_of(imported, "rows") == ["4", "n"]
    assert imported.types["y"].shape == ()


def test_loop_with_number_of_iterations_from_an_input():
    made = loop(
        body(COUNT, [value("s_in", [])], COUNT_RESULTS),
        [value("m", [], I), value("c", [], B), *COUNT_INPUTS],
        [value("y", None), value("rows", None)],
        results=("y", "rows"),
    )
    x = np.arange(3, dtype=np.float32)
    feeds = [
        {"m": np.array(m), "c": np.array(c), "s": np.array(1.5, np.float32), "x": x}
        for m, c in ((3, True), (1, True), (0, True), (3, False))
    ]
    imported = check(made, *feeds[:2])
    for feed in feeds[2:]:  # of no iteration, onnxruntime gives rows of no columns
        results = evaluate(imported, feed)
        assert results["y"] == feed["s"]
        assert results["rows"].shape == (0, 3)
    trips, n = imported.types["rows"].shape
    assert not isinstance(trips, int)
    assert str(n) == "n"


def test_loop_until_its_condition_fails():
    nodes = [
        node("Add", ["s_in", "s_in"], ["s_out"]),
        node("Less", ["s_out", "top"], ["go_on"]),
    ]
    made = loop(
        body(nodes, [value("s_in", [])], [value("go_on", [], B), value("s_out", [])]),
        [value("s", []), value("top", [])],
        [value("y", None)],
        operands=("", "", "s"),
    )
    check(made, {"s": np.array(1, np.float32), "top": np.array(50, np.float32)})


def test_loop_whose_value_grows():
    nodes = [
        node("Concat", ["s_in", "x"], ["s_out"], axis=0),
        node("Identity", ["go"], ["go_on"]),
    ]
    made = loop(
        body(nodes, [value("s_in", None)], [value("go_on", [], B), value("s_out", None)]),
        [value("m", [], I), value("s", [2]), value("x", ["n"])],
        [value("y", None)],
        operands=("m", "", "s"),
    )
    s, x = np.ones(2, np.float32), np.zeros(3, np.float32)
    imported = check(made, *({"m": np.array(m), "s": s, "x": x} for m in (0, 1, 3)))
    assert not isinstance(imported.types["y"].shape[0], int)


def test_loop_that_never_ends_is_refused():
    made = loop(
        body(COUNT, [value("s_in", [])], COUNT_RESULTS),
        COUNT_INPUTS,
        [value("y", None), value("rows", None)],
        operands=("", "", "s"),
        results=("y", "rows"),
    )
    with pytest.raises(OperatorError, match="never ends"):
        load_model(made)


def test_loop_whose_value_changes_its_type_is_refused():
    nodes = [
        node("Unsqueeze", ["s_in", "zero"], ["s_out"]),
        node("Identity", ["go"], ["go_on"]),
    ]
    made = loop(
        body(
            nodes,
            [value("s_in", None)],
            [value("go_on", [], B), value("s_out", None)],
            zero=np.array([0]),
        ),
        [value("m", [], I), value("s", [2])],
        [value("y", None)],
        operands=("m", "", "s"),
    )
    with pytest.raises(AiccError, match="rank"):
        load_model(made)


def scan(nodes, outputs, results, **attrs):
    inner = graph(nodes, [value("h_in", [3]), value("e", [3])], outputs)
    made = node("Scan", ["h", "x"], list(results), body=inner, num_scan_inputs=1, **attrs)
    axes = attrs.get("scan_input_axes", [0])
    x = value("x", ["t", 3] if axes[0] == 0 else [3, "t"])
    return model([made], [value("h", [3]), x], [value(r, None) for r in results])


SUMS = [node("Add", ["h_in", "e"], ["h_out"]), node("Mul", ["h_in", "e"], ["row"])]
SUMS_RESULTS = [value("h_out", [3]), value("row", [3])]


def test_scan():
    made = scan(SUMS, SUMS_RESULTS, ("final", "rows"))
    feeds = (
        {"h": np.ones(3, np.float32), "x": np.arange(3 * t, dtype=np.float32).reshape(t, 3)}
        for t in (1, 4)
    )
    imported = check(made, *feeds)
    assert shape_of(imported, "rows") == ["t", "3"]
    assert shape_of(imported, "final") == ["3"]


def test_scan_over_other_axes_and_backwards():
    made = scan(
        SUMS,
        SUMS_RESULTS,
        ("final", "rows"),
        scan_input_axes=[1],
        scan_input_directions=[1],
        scan_output_axes=[-1],
        scan_output_directions=[1],
    )
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    imported = check(made, {"h": np.ones(3, np.float32), "x": x})
    assert shape_of(imported, "rows") == ["3", "t"]
