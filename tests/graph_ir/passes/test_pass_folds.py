"""Transposed convolutions as one product and a fold."""

from __future__ import annotations

import numpy as np
import pytest
from pass_builder import Build, applied, ops

from aicc.decisions import collect
from aicc.graph_ir.graph import Node
from aicc.graph_ir.passes.decompose import Decompose
from aicc.graph_ir.passes.folds import Folds, adds_up, with_folds
from aicc.graph_ir.passes.simplify import Simplify
from aicc.graph_ir.types import TensorType
from aicc.kernels import Coster
from aicc.lower import Describer
from aicc.symbolic import sym
from aicc.target import Target

COST = Coster(Target.host(), Describer())


def dear(graph, nodes):
    """Takes every convolution for slow."""
    return 1.0 if nodes[0].op in ("Conv", "ConvTranspose") else 1e-6


def transposed(shape, filters, kernel, bias=False, **attrs):
    b = Build()
    group, count = attrs.get("group", 1), len(shape) - 2
    w = b.weights(shape[1], filters // group, *(kernel,) * count)
    more = [b.weights(filters)] if bias else []
    return b.done(b("ConvTranspose", b.input("x", *shape), w, *more, **attrs))


@pytest.mark.parametrize(
    "shape, filters, kernel, attrs",
    [
        ((2, 8, 3, 4), 3, 4, {"strides": (2, 2), "pads": (1, 1, 1, 1)}),
        ((1, 8, 3, 4), 2, 3, {"strides": (2, 2), "pads": (1, 0, 0, 1), "bias": True}),
        ((1, 16, 2, 3), 4, 3, {"strides": (2, 2), "group": 2, "output_padding": (1, 1)}),
        ((1, 8, 3, 4), 3, 2, {"strides": (2, 2)}),
        ((1, 8, 3, 4), 3, 2, {"strides": (3, 4), "bias": True}),
        ((2, 9, 7), 3, 8, {"strides": (4,), "pads": (2, 2)}),
        ((1, 8, 2, 3, 3), 2, 3, {"strides": (2, 1, 2)}),
        ((sym("n", 1), 8, 4, 4), 1, 3, {"strides": (2, 2)}),
    ],
)
def test_transposed_convolutions_become_products(shape, filters, kernel, attrs):
    graph = transposed(shape, filters, kernel, **attrs)
    after = applied(graph, Folds(dear), **({"n": 3} if shape[0] == sym("n", 1) else {}))
    assert "MatMul" in ops(after) and "aicc::Fold" in ops(after)
    assert "ConvTranspose" not in ops(after)


def windows(kernel, pad, group=1, stride=1):
    b = Build()
    w = b.weights(4, 8 // group, kernel, kernel)
    attrs = {"pads": (pad,) * 4, "group": group, "strides": (stride, stride)}
    return b.done(b("Conv", b.input("x", 1, 8, 4, 5), w, **attrs))


def test_windows_that_reach_over_the_data_become_products():
    for kernel, pad in ((3, 2), (4, 3), (4, 2)):
        assert "aicc::Fold" in ops(applied(windows(kernel, pad), Folds(dear)))


def test_windows_over_no_more_than_the_data_stay():
    for graph in (windows(3, 1), windows(3, 0), windows(3, 2, stride=2), windows(3, 2, group=4)):
        assert ops(applied(graph, Folds(dear))) == ["Conv"]


def test_what_is_no_faster_stays():
    graph = transposed((1, 8, 3, 4), 3, 4, strides=(2, 2))
    with collect() as decisions:
        after = applied(graph, Folds(lambda graph, nodes: 1.0))
    assert ops(after) == ["ConvTranspose"]
    assert [d.taken for d in decisions if d.kind == "folds"] == [False]


def test_estimates_take_the_faster_form():
    graph = transposed((1, 64, 14, 14), 2, 8, strides=(1, 1))
    graph = Simplify()(Decompose()(graph))
    (node,) = (n for n in graph.nodes if n.op == "Conv")
    assert with_folds(COST)(graph, [node]) < COST(graph, [node])
    assert "aicc::Fold" in ops(Folds(COST)(graph))


def test_few_pixels_are_rows_of_the_product():
    graph = transposed((8, 256, 2, 2), 17, 6, strides=(2, 2))
    after = applied(graph, Folds(COST))
    assert ops(after).count("Transpose") == 2 and "aicc::Fold" in ops(after)


def test_weights_that_a_run_makes_stay():
    b = Build()
    w = b.input("w", 8, 3, 4, 4)
    graph = b.done(b("ConvTranspose", b.input("x", 1, 8, 3, 3), w, strides=(2, 2)))
    assert ops(applied(graph, Folds(dear))) == ["ConvTranspose"]


def test_half_precision_stays():
    b = Build()
    x = b.input("x", 1, 8, 3, 3, dtype="f16")
    w = b.const(np.ones((8, 3, 4, 4), np.float16))
    graph = b.done(b("ConvTranspose", x, w, strides=(2, 2)))
    assert graph.types[graph.outputs[0]] == TensorType("f16", (1, 3, 8, 8))
    assert ops(Folds(dear)(graph)) == ["ConvTranspose"]


@pytest.mark.parametrize(
    "pixels, results, attrs, found",
    [
        ((8, 7), (13, 12), {}, True),
        ((8, 7), (8, 7), {}, False),
        ((8, 7), (13, 12), {"strides": (1, 2)}, False),
        ((8, 7), (13, 12), {"dilations": (2, 1)}, False),
        ((sym("h"), 7), (sym("h") + 5, 12), {}, False),
    ],
)
def test_only_what_may_be_folded_is_estimated_so(pixels, results, attrs, found):
    """Others keep the layout that their own kernels are fast in."""
    node = Node("Conv", ("x", "w"), ("y",), tuple(sorted(attrs.items())))
    x, y = (TensorType("f32", (1, 8, *p)) for p in (pixels, results))
    assert adds_up(node, x, y) == found
