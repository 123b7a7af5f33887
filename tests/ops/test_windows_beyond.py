"""A pooling window larger than its input, as ceil_mode allows; and single known elements."""

import numpy as np
import pytest

from aicc.errors import OperatorError
from aicc.graph_ir.evaluate import evaluate
from aicc.graph_ir.graph import Graph, make_node
from aicc.graph_ir.infer import infer
from aicc.graph_ir.types import TensorType
from aicc.symbolic import sym


def pooled(size, kernel, ceil_mode):
    g = Graph("g", ["x"], ["y"])
    g.types["x"] = TensorType("f32", (1, 2, size, size))
    attrs = {"kernel_shape": (kernel,) * 2, "strides": (kernel,) * 2, "ceil_mode": ceil_mode}
    attrs["count_include_pad"] = 1
    g.nodes.append(make_node("AveragePool", ["x"], ["y"], attrs))
    infer(g)
    return g


def test_a_window_larger_than_the_input():
    g = pooled(7, 1280, 1)
    assert g.types["y"].shape == (1, 2, 1, 1)
    x = np.arange(98, dtype=np.float32).reshape(1, 2, 7, 7)
    assert np.allclose(evaluate(g, {"x": x})["y"], x.mean((2, 3), keepdims=True))
    with pytest.raises(OperatorError, match="does not fit"):
        pooled(7, 1280, 0)


def test_one_element_of_a_shape():
    n = sym("n", 1)
    g = Graph("g", ["x"], ["d"])
    g.types["x"] = TensorType("f32", (n, 3))
    zero = g.add_constant("zero", np.array(0))
    g.nodes += [make_node("Shape", ["x"], ["s"]), make_node("Gather", ["s", zero], ["d"])]
    infer(g)
    assert g.types["d"] == TensorType("i64", (), (n,))
