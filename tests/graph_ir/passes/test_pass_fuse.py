import time

import numpy as np
from pass_builder import Build

from aicc.graph_ir.passes.fuse import Fuser
from aicc.kernels import Coster, Fuse
from aicc.lower import Describer
from aicc.target import Target
from aicc.tensor_ir.recipes.cost import MOST_TERMS
from aicc.tensor_ir.work import inlined_terms

TARGET = Target.from_name("x86-64-v3")


def groups(graph):
    """The operators of each group, where every kernel that can be one pays."""
    found = Fuser(Describer(), lambda graph, nodes: 0.0)(graph)
    return [[n.op for n in group] for group in found.groups]


def test_a_chain_of_maps_is_one_kernel():
    b = Build()
    x, z = b.input("x", 4, 9), b.input("z", 9)
    assert groups(b.done(b("Tanh", b("Add", b("Relu", x), z)))) == [["Relu", "Add", "Tanh"]]


def test_rows_join_maps_of_their_own_elements():
    b = Build()
    x = b.input("x", 4, 9)
    axes = b.const(np.array([1]), dtype="i64")
    graph = b.done(b("ReduceSum", b("Relu", x), axes, keepdims=0))
    assert groups(graph) == [["Relu", "ReduceSum"]]


def test_rows_do_not_join_a_movement():
    """They would be read with the strides of columns."""
    b = Build()
    x = b.input("x", 9, 4)
    axes = b.const(np.array([1]), dtype="i64")
    graph = b.done(b("ReduceSum", b("Transpose", x, perm=(1, 0)), axes, keepdims=0))
    assert groups(graph) == [["Transpose"], ["ReduceSum"]]


def test_what_a_concat_joins_is_computed_in_its_place():
    b = Build()
    x, z = b.input("x", 4, 9), b.input("z", 4, 5)
    graph = b.done(b("Concat", b("Relu", x), b("Sigmoid", z), axis=1))
    assert groups(graph) == [["Relu", "Sigmoid", "Concat"]]


def test_values_that_are_scaled_by_what_is_made_of_them():
    b = Build()
    x = b("Relu", b.input("x", 1, 4, 6, 6))
    axes = b.const(np.array([2, 3]), dtype="i64")
    scale = b("Conv", b("ReduceMean", x, axes), b.weights(4, 4, 1, 1))
    found = groups(b.done(b("Mul", x, b("Sigmoid", scale))))
    assert [group for group in found if "Mul" in group] == [["Mul"]]


def doubled(times):
    """x, added to itself again and again: written as one expression, it has 2 ** times terms."""
    b = Build()
    x = b.input("x", 4, 9)
    for _ in range(times):
        x = b("Add", x, x)
    return b.done(x)


def test_expressions_stay_short():
    module = Fuse(Coster(TARGET, Describer()))(doubled(16))
    terms = [inlined_terms(k) for k in module.kernels.values()]
    assert all(n <= MOST_TERMS for n in terms)
    assert max(terms) > 100  # which are still worth a kernel


def test_fusing_takes_no_longer_where_values_are_read_twice():
    begin = time.process_time()
    Fuse(Coster(TARGET, Describer()))(doubled(40))
    assert time.process_time() - begin < 20
