import numpy as np
import pytest

from aicc.graph_ir.graph import Graph, make_node
from aicc.graph_ir.infer import constant_type, context, infer_node
from aicc.graph_ir.passes.maps import is_elementwise
from aicc.graph_ir.types import TensorType
from aicc.ops import registry
from aicc.symbolic import sym

N, M = sym("n", 1), sym("m", 1)


def elementwise(op, *operands, **attrs):
    """operands: shapes of f32 inputs, or arrays of constants."""
    g = Graph("g")
    for i, t in enumerate(operands):
        if isinstance(t, tuple):
            g.types[f"x{i}"] = TensorType("f32", t)
        else:
            g.constants[f"x{i}"], g.types[f"x{i}"] = t, constant_type(t)
    defaults = {k: v for k, v in registry.get(op).attributes.items() if v is not None}
    node = make_node(op, [f"x{i}" for i in range(len(operands))], ["y"], {**defaults, **attrs})
    infer_node(g, node)
    return is_elementwise(context(g, node))


@pytest.mark.parametrize(
    "op, shapes",
    [
        ("Relu", [(2, 3)]),
        ("Softplus", [(2, 3)]),
        ("Add", [(2, 3), (3,)]),
        ("Mul", [(2, 3), (2, 1)]),
        ("Mul", [(N, 3), (1, 3)]),
        ("PRelu", [(2, 3, 4), (3, 1)]),
        ("Sum", [(2, 3), (3,), ()]),
        ("Add", [(N, 4), (M, 4)]),  # equal, or one of them 1 when it runs
    ],
)
def test_maps(op, shapes):
    assert elementwise(op, *shapes)


def ints(*values):
    return np.array(values, np.int64)


@pytest.mark.parametrize(
    "op, operands, attrs",
    [
        ("MatMul", [(3, 3), (3, 3)], {}),
        ("ReduceSum", [(2, 1), ints(1)], {}),
        ("ReduceSum", [(2, 3), ints(1)], {}),
        ("Transpose", [(1, 1)], {"perm": (1, 0)}),
        ("Softmax", [(2, 1)], {"axis": 1}),
        ("CumSum", [(2, 1), np.array(1, np.int64)], {}),
        ("Slice", [(2, 3), ints(0), ints(9), ints(1)], {}),
        ("Reshape", [(2, 3), ints(2, 3)], {}),
        ("Concat", [(2, 3)], {"axis": 1}),
        ("Trilu", [(3, 3)], {}),
        ("Expand", [(2, 3), ints(2, 3)], {}),
    ],
)
def test_no_maps(op, operands, attrs):
    assert not elementwise(op, *operands, **attrs)
