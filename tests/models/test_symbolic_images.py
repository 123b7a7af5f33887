"""Images of sizes that a run tells: what borders take, what windows leave, what is resampled."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from judging import assert_agree, runtime
from onnx import TensorProto, helper, numpy_helper

import aicc
from aicc.errors import OperatorError
from aicc.frontend import load_model
from aicc.ops.broadcast import broadcast_size
from aicc.symbolic import Size, evaluate, maximum, minimum, sym
from zoo.builder import GraphBuilder

N, M = sym("n", 1), sym("m", 1)


def images(name: str = "images", channels: int = 3) -> tuple[GraphBuilder, str]:
    g = GraphBuilder(name)
    return g, g.input("x", ("n", channels, "h", "w"))


def feed(*shape: int) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(1).standard_normal(shape).astype(np.float32)}


def agree(model: onnx.ModelProto, *shapes: tuple[int, ...]) -> None:
    compiled, session = aicc.compile(model, threads=1), runtime(model)
    for shape in shapes:
        x = feed(*shape)
        assert_agree(session.run(None, x), compiled.run(None, x), str(shape))


def test_windows_without_padding_that_leave_nothing_of_small_images() -> None:
    """Estimates take some size for one that a run tells; at that size this model has no result."""
    g, x = images()
    for i, (c, o) in enumerate(((3, 8), (8, 16), (16, 16))):
        w = g.normal(f"w{i}", (o, c, 5, 5), 0.1)
        x = g.op("Relu", g.op("Conv", x, w, strides=[3, 3]))
    x = g.op("MaxPool", x, kernel_shape=[2, 2])
    x = g.op("Relu", g.conv(x, "depthwise", 16, 16, 3, groups=16))
    x = g.op(
        "Conv",
        g.op("AveragePool", x, kernel_shape=[3, 3], pads=[1] * 4),
        g.normal("v", (24, 16, 2, 2), 0.1),
    )
    g.output(g.op("GlobalAveragePool", x), "y", ("n", 24, 1, 1))
    agree(g.build(), (1, 3, 215, 190), (2, 3, 190, 217))


def test_pools_that_round_up_have_plain_sizes() -> None:
    """The last window starts inside the data: which bound holds is known for every size."""
    g, x = images(channels=16)
    for pads in ([0] * 4, [1] * 4, [0, 0, 1, 1]):
        x = g.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=pads, ceil_mode=1)
    x = g.conv(x, "depthwise", 16, 16, 3, groups=16)
    g.output(x, "y", (None, 16, None, None))
    model = g.build()
    graph = load_model(model)
    assert all("min" not in str(t.shape) for t in graph.types.values())
    agree(model, (1, 16, 33, 34), (2, 16, 35, 40), (1, 16, 9, 64))


def test_sums_of_what_strides_and_pools_leave() -> None:
    """(n + 1)//2 and n//2 are one size where they are added: the larger one, whatever stands
    around it, so that sizes stay short from stage to stage."""
    g, x = images(channels=8)
    for i in range(4):
        y = g.conv(x, f"c{i}", 8, 8, 3, 2)
        x = g.op("Add", y, g.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]))
    g.output(x, "y", (None, 8, None, None))
    model = g.build()
    graph = load_model(model)
    shape = graph.types[graph.outputs[0]].shape
    assert all("max" not in str(d) and "min" not in str(d) for d in shape)
    agree(model, (1, 8, 32, 48), (2, 8, 16, 64))
    with pytest.raises(aicc.AiccError, match="cannot be broadcast"):
        aicc.compile(model, threads=1).run(None, feed(1, 8, 37, 48))


@pytest.mark.parametrize(
    "a, b, common",
    [
        ((N + 1) // 4, ((N + 1) // 2 + 1) // 2, ((N + 1) // 2 + 1) // 2),
        (((N + 1) // 2 + 1) // 2, (N + 1) // 4, ((N + 1) // 2 + 1) // 2),
        (N // 3, (N + 2) // 3, (N + 2) // 3),
        (N // 2, N // 3, None),
        (N // 2, (M + 1) // 2, None),
    ],
)
def test_the_larger_of_two_quotients(a: Size, b: Size, common: Size | None) -> None:
    found = broadcast_size(a, b)
    assert found == (maximum(a, b) * minimum(1, minimum(a, b)) if common is None else common)
    for n in range(2, 40):
        values = {"n": n, "m": n + 1}
        x, y = (evaluate(v, values) for v in (a, b))
        assert found is not None
        if min(x, y) > 0 and (x == y or 1 in (x, y)):
            assert evaluate(found, values) == max(x, y)


def resampled(
    op: str, mode: str, opset: int, to: str, constant: bool = False, other: bool = False
) -> onnx.ModelProto:
    """x resampled to the size of its convolution (`down`) or the other way round (`up`), by
    factors as exporters computed them. constant: to a size of numbers. other: by another size."""
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []

    def node(op: str, *inputs: str, **attributes: object) -> str:
        nodes.append(helper.make_node(op, inputs, [f"v{len(nodes)}"], **attributes))
        return nodes[-1].output[0]

    def number(*data: float, dtype: type = np.float32, scalar: bool = False) -> str:
        array = np.array(data[0] if scalar else data, dtype)
        weights.append(numpy_helper.from_array(array, f"c{len(weights)}"))
        return weights[-1].name

    w = np.random.default_rng(2).standard_normal((4, 4, 3, 3)) * 0.2
    weights.append(numpy_helper.from_array(w.astype(np.float32), "w"))
    y = node("Conv", "x", "w", strides=[2, 2], pads=[1] * 4)
    a, b = (y, "x") if to == "up" else ("x", y)

    def size(value: str, axis: int) -> str:
        found = node("Gather", node("Shape", value), number(axis, dtype=np.int64, scalar=True))
        return node("Unsqueeze", found, axes=[0])

    new = number(20, 12)
    if not constant:
        new = node("Cast", node("Concat", size(b, 2), size(b, 3), axis=0), to=TensorProto.FLOAT)
    old = node("Concat", *(size(b if other else a, axis) for axis in (2, 3)), axis=0)
    ratio = node("Div", new, node("Cast", old, to=TensorProto.FLOAT))
    z = node(op, a, node("Concat", number(1, 1), ratio, axis=0), mode=mode)
    if not constant and not other:
        z = node("Add", z, b)
    node("Identity", z)
    nodes[-1].output[0] = "y"
    sides = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", ["n", 4, "h", "w"]), ("y", [None, 4, None, None]))
    ]
    graph = helper.make_graph(nodes, "resampled", sides[:1], sides[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("op, opset", [("Upsample", 9), ("Resize", 10)])
def test_factors_computed_from_sizes(op: str, opset: int, mode: str) -> None:
    agree(resampled(op, mode, opset, "up"), (1, 4, 9, 16), (2, 4, 30, 11), (1, 4, 65, 66))


def test_nearest_elements_of_what_shrinks() -> None:
    """Resize-10 rounds up where data shrink, which only a run tells here."""
    agree(resampled("Resize", "nearest", 10, "down"), (1, 4, 9, 16), (1, 4, 31, 20))
    made = resampled("Resize", "nearest", 10, "up", constant=True)
    agree(made, (1, 4, 10, 6), (1, 4, 40, 96), (2, 4, 80, 6))


def test_factors_that_tell_no_size() -> None:
    with pytest.raises(OperatorError, match="scales must be known"):
        load_model(resampled("Resize", "nearest", 10, "up", other=True))
