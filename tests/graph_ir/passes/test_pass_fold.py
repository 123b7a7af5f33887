import numpy as np
from pass_builder import Build, applied, count, ops

from aicc.graph_ir.passes.decompose import Decompose
from aicc.graph_ir.passes.fold import Fold
from aicc.ops import registry
from aicc.symbolic import sym
from aicc.uniform import is_uniform

N = sym("n", 1)


def test_nodes_over_constants_become_constants():
    b = Build()
    x = b.input("x", 2, 3)
    w = b("Mul", b.weights(3), b.const([2.0]))
    y = b("Add", x, b("Transpose", b("Unsqueeze", w, b.const([0], dtype="i64")), perm=(0, 1)))
    after = applied(b.done(y), Fold())
    assert ops(after) == ["Add"]
    assert len(after.constants) == 1


def test_known_contents_become_constants():
    b = Build()
    x = b.input("x", 2, 3, 4)
    shape = b("Shape", x)
    rows = b("Gather", shape, b.const([0], dtype="i64"))
    target = b("Concat", rows, b.const([-1], dtype="i64"), axis=0)
    after = applied(b.done(b("Reshape", x, target)), Fold())
    assert ops(after) == ["Reshape"]
    (data,) = after.constants.values()
    assert data.tolist() == [2, -1]


def test_symbolic_contents_stay():
    b = Build()
    x = b.input("x", N, 3)
    target = b("Concat", b("Shape", x, end=1), b.const([3, 1], dtype="i64"), axis=0)
    after = applied(b.done(b("Reshape", x, target)), Fold())
    assert ops(after) == ["Shape", "Concat", "Reshape"]


def test_weights_of_one_value_are_folded_however_large():
    b = Build()
    x = b.input("x", 1, 2048)
    w = b("ConstantOfShape", b.const([2048, 4096], dtype="i64"), value=0.5)
    after = Fold()(b.done(b("MatMul", x, w)))
    assert ops(after) == ["MatMul"]
    (data,) = after.constants.values()
    assert data.shape == (2048, 4096) and data[7, 7] == 0.5
    assert is_uniform(data)


def test_an_element_that_is_expanded_is_one_element():
    b = Build()
    x = b.input("x", 1, 2048)
    w = b("Expand", b.const([[0.5]]), b.const([2048, 64], dtype="i64"))
    w = b("Transpose", b("Mul", w, b.const([2.0])), perm=(0, 1))
    after = Fold()(b.done(b("MatMul", x, w)))
    assert ops(after) == ["MatMul"]
    (data,) = after.constants.values()
    assert is_uniform(data) and data.shape == (2048, 64) and data[3, 3] == 1.0


def test_large_broadcasts_stay_where_they_are_free():
    b = Build()
    x = b.input("x", 8, 1024)
    ones = b("ConstantOfShape", b.const([8, 1024], dtype="i64"), value=2.0)
    graph = b.done(b("Mul", x, ones))
    assert ops(applied(graph, Fold(expansion=1024))) == ["ConstantOfShape", "Mul"]
    assert ops(applied(graph, Fold())) == ["Mul"]


def test_a_fault_of_the_data_is_left_for_the_run(monkeypatch):
    def refuse(ctx, *inputs):
        raise ValueError("no")

    monkeypatch.setattr(registry.get("Exp"), "reference", refuse)
    b = Build()
    x = b.input("x", 2)
    after = Fold()(b.done(b("Add", x, b("Exp", b.weights(2)))))
    assert ops(after) == ["Exp", "Add"]


def test_dead_nodes_and_constants_go_and_outputs_keep_their_names():
    b = Build()
    x = b.input("x", 2)
    b("Exp", b("Add", x, b.weights(2)))
    c = b("Add", b.weights(2, name="a"), b.weights(2, name="b"))
    graph = b.done(b("Relu", x), c)
    after = applied(graph, Fold())
    assert ops(after) == ["Relu", "Identity"]
    assert len(after.constants) == 1


def test_random_nodes_are_not_folded(monkeypatch):
    monkeypatch.setattr(registry.get("Exp"), "deterministic", False)
    b = Build()
    x = b.input("x", 2)
    assert ops(Fold()(b.done(b("Add", x, b("Exp", b.weights(2)))))) == ["Exp", "Add"]


def test_decomposition_reaches_primitives(golden):
    b = Build("composite")
    x = b.input("x", N, 8)
    s = b("Softmax", x, axis=-1)
    n = b("LayerNormalization", s, b.weights(8), b.weights(8, name="b"), axis=-1, epsilon=1e-5)
    y = b("Gemm", n, b.weights(4, 8), b.weights(4), alpha=1.0, beta=1.0, transA=0, transB=1)
    after = applied(b.done(b("Gelu", y, approximate="none")), Decompose())
    assert not {"Softmax", "LayerNormalization", "Gemm", "Gelu"} & set(count(after))
    golden("decompose", str(after))


def test_decomposition_can_leave_an_operator():
    b = Build()
    x = b.input("x", 2, 8)
    after = applied(b.done(b("Softmax", x, axis=-1)), Decompose(keep=frozenset({"Softmax"})))
    assert ops(after) == ["Softmax"]


def test_f16_constants_keep_their_type():
    b = Build()
    x = b.input("x", 3, dtype="f16")
    c = b("Add", b.const(np.ones(3, np.float16)), b.const(np.ones(3, np.float16)))
    after = applied(b.done(b("Mul", x, c)), Fold())
    (data,) = after.constants.values()
    assert data.dtype == np.float16


def test_shared_weights_stay_one_constant():
    b = Build()
    x, w = b.input("x", 4, 4), b.weights(4, 4)
    for _ in range(3):
        x = b("MatMul", x, b("Transpose", b("Identity", w), perm=(1, 0)))
        x = b("Add", x, b("ReduceSum", b("Identity", w), keepdims=1))
    after = applied(b.done(x), Fold())
    assert ops(after) == ["MatMul", "Add"] * 3
    assert len(after.constants) == 2


def test_a_constant_may_be_a_result():
    b = Build()
    w = b.weights(4)
    after = applied(b.done(b("Identity", w), b("Neg", w), b("Neg", w)), Fold())
    assert len(set(after.outputs)) == 3
