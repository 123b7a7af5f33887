"""Sizes that a model computes from numbers: the import knows them, whatever computes them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import aicc
from aicc.errors import OperatorError
from aicc.frontend import load_model


def model(nodes, constants, outputs) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "sizes",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3])],
        [helper.make_tensor_value_info(o, kind, None) for o, kind in outputs.items()],
        [numpy_helper.from_array(np.array(v), n) for n, v in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


X = np.arange(3, dtype=np.float32).reshape(1, 3)


def test_padding_computed_in_floating_point() -> None:
    """As exporters write "same" padding: sizes are rounded, halved, clipped and cast."""
    nodes = [
        helper.make_node("Ceil", ["ratio"], ["up"]),
        helper.make_node("Div", ["up", "two"], ["half"]),
        helper.make_node("Clip", ["half", "zero"], ["clipped"]),
        helper.make_node("Cast", ["clipped"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Unsqueeze", ["whole", "axis"], ["one"]),
        helper.make_node("Concat", ["none", "one", "none", "one"], ["pads"], axis=0),
        helper.make_node("Pad", ["x", "pads"], ["y"]),
    ]
    constants = {
        "ratio": np.float32(3.5),
        "two": np.float32(2),
        "zero": np.float32(0),
        "axis": np.array([0]),
        "none": np.array([0]),
    }
    made = model(nodes, constants, {"y": TensorProto.FLOAT})
    graph = load_model(made)
    assert graph.types["y"].shape == (1, 7)
    (y,) = aicc.compile(made).run(None, {"x": X})
    np.testing.assert_array_equal(y, np.pad(X, [(0, 0), (2, 2)]))


def test_integers_by_operators_that_do_not_trace_them() -> None:
    nodes = [
        helper.make_node("BitShift", ["a", "b"], ["c"], direction="LEFT"),
        helper.make_node("Cast", ["c"], ["d"], to=TensorProto.INT64),
        helper.make_node("Expand", ["x", "d"], ["y"]),
    ]
    constants = {"a": np.array([1, 3], np.uint8), "b": np.array([2, 0], np.uint8)}
    graph = load_model(model(nodes, constants, {"y": TensorProto.FLOAT}))
    assert graph.types["d"].value == (4, 3) and graph.types["y"].shape == (4, 3)


def test_a_number_may_be_a_result() -> None:
    nodes = [
        helper.make_node("Ceil", ["a"], ["b"]),
        helper.make_node("Relu", ["x"], ["y"]),
    ]
    outputs = {"b": TensorProto.FLOAT, "y": TensorProto.FLOAT}
    b, y = aicc.compile(model(nodes, {"a": np.float32(1.5)}, outputs)).run(None, {"x": X})
    assert b == 2 and b.shape == ()
    np.testing.assert_array_equal(y, X)


def test_sizes_that_shrink_to_nothing_at_what_a_symbol_counts_as() -> None:
    """Strides that need thousands of samples: estimates of memory and time stay 0 or more."""
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["a"], strides=[16]),
            helper.make_node("Conv", ["a", "v"], ["b"], strides=[16]),
            helper.make_node("Relu", ["b"], ["y"]),
        ],
        "audio",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, "samples"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [
            numpy_helper.from_array(np.ones((4, 1, 64), np.float32), "w"),
            numpy_helper.from_array(np.ones((8, 4, 32), np.float32), "v"),
        ],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    (y,) = aicc.compile(made).run(None, {"x": np.ones((1, 1, 2000), np.float32)})
    assert y.shape == (1, 8, 6) and np.all(y == 64 * 4 * 32)


def sized(chain, constants) -> onnx.ModelProto:
    """A model whose result has as many rows as `chain` makes of n, the rows of its input."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "first"], ["rows"]),
        helper.make_node("Cast", ["rows"], ["n"], to=TensorProto.FLOAT),
        *(
            helper.make_node(op, list(inputs), [result], **({"axis": 0} if op == "Concat" else {}))
            for op, inputs, result in chain
        ),
        helper.make_node("Cast", [chain[-1][2]], ["whole"], to=TensorProto.INT64),
        helper.make_node("Concat", ["whole", "three"], ["size"], axis=0),
        helper.make_node("Expand", ["one", "size"], ["y"]),
    ]
    numbers = {"first": np.array([0]), "three": np.array([3]), "one": np.float32(1)}
    numbers |= {"i": np.array([0]), "j": np.array([1])}
    numbers |= {k: np.float32(v) for k, v in constants.items()}
    made = model(nodes, numbers, {"y": TensorProto.FLOAT})
    made.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3]))
    return made


CHAINS = {
    "scaled": (
        [("Mul", "nk", "a"), ("Floor", "a", "b")],
        {"k": 1.5},
        lambda n: np.floor(n * np.float32(1.5)),
    ),
    "cut": ([("Div", "nk", "a")], {"k": 3}, lambda n: np.trunc(n / np.float32(3))),
    "frames": (
        [("Sub", "nk", "a"), ("Div", "as", "b"), ("Add", "bo", "c"), ("Ceil", "c", "d")],
        {"k": -4, "s": 5, "o": 1},
        lambda n: np.ceil((n + np.float32(4)) / np.float32(5) + np.float32(1)),
    ),
    "same": (
        [
            ("Div", "ns", "a"),
            ("Ceil", "a", "b"),
            ("Mul", "bs", "c"),
            ("Sub", "cn", "d"),
            ("Div", "dt", "e"),
            ("Clip", "eou", "f"),
            ("Add", "fo", "g"),
        ],
        {"s": 8, "t": 2, "o": 1, "u": 3},
        lambda n: np.clip((np.ceil(n / np.float32(8)) * 8 - n) / 2, 1, 3) + 1,
    ),
    "joined before it is rounded": (
        [("Mul", "nk", "a"), ("Concat", "au", "b"), ("Floor", "b", "c"), ("Slice", "cij", "d")],
        {"k": 0.75, "u": [6]},
        lambda n: np.floor(n * np.float32(0.75)),
    ),
    "the larger": ([("Mul", "nk", "a"), ("Max", "ao", "b")], {"k": 0.25, "o": 2.5}, None),
}


@pytest.mark.parametrize("chain", CHAINS)
def test_sizes_of_a_run_computed_in_floating_point(chain: str) -> None:
    operators, constants, meaning = CHAINS[chain]
    meaning = meaning or (lambda n: np.maximum(n * np.float32(0.25), np.float32(2.5)))
    compiled = aicc.compile(sized(operators, constants), threads=1)
    for n in (*range(1, 34), 1000):
        (y,) = compiled.run(None, {"x": np.zeros((n, 3), np.float32)})
        assert y.shape == (int(meaning(np.float32(n))), 3)


@pytest.mark.parametrize(
    "chain, constants",
    [
        ([("Mul", "nk", "a")], {"k": 0.7}),  # rounding tells whether ten of them are seven
        ([("Div", "nk", "a"), ("Mul", "as", "b")], {"k": 5, "s": 3}),
        ([("Div", "nk", "a"), ("Div", "nk", "b"), ("Add", "ab", "c")], {"k": 3}),
        ([("Sub", "kn", "a"), ("Div", "as", "b")], {"k": 5, "s": 2}),  # of unknown sign
        ([("Sqrt", "n", "a")], {}),
    ],
)
def test_floating_point_that_rounds_tells_no_sizes(chain, constants) -> None:
    with pytest.raises(OperatorError, match="Expand"):
        load_model(sized(chain, constants))


def test_many_steps_end() -> None:
    doubled = [("Add", (f"v{i}", f"v{i}"), f"v{i + 1}") for i in range(200)]
    with pytest.raises(OperatorError, match="Expand"):
        load_model(sized([("Add", "nk", "v0"), *doubled], {"k": 1}))


def test_a_branch_that_no_run_takes_need_not_fit() -> None:
    """As exporters write what depends on a rank that they did not know: both ways, and a choice."""

    def branch(op, inputs, **attrs):
        result = helper.make_tensor_value_info("z", TensorProto.FLOAT, None)
        return helper.make_graph([helper.make_node(op, inputs, ["z"], **attrs)], op, [], [result])

    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Size", ["shape"], ["rank"]),
        helper.make_node("Equal", ["rank", "none"], ["scalar"]),
        helper.make_node(
            "If",
            ["scalar"],
            ["y"],
            then_branch=branch("Transpose", ["x"], perm=[0]),
            else_branch=branch("Neg", ["x"]),
        ),
    ]
    made = model(nodes, {"none": np.array(0)}, {"y": TensorProto.FLOAT})
    (y,) = aicc.compile(made, threads=1).run(None, {"x": X})
    np.testing.assert_array_equal(y, -X)
