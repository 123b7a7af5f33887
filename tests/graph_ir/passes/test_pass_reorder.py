from pass_builder import Build, applied, ops

from aicc.graph_ir.module import Module
from aicc.graph_ir.passes.reorder import Reorder, memory_problem
from aicc.memory.order_problem import live_peak
from aicc.symbolic import sym


def branches(rows=8):
    b = Build()
    x = b.input("x", rows, 16)
    wide = [b("Concat", x, x, x, x, axis=1) for _ in range(4)]
    means = [b("ReduceMax", w, b.const([1], dtype="i64")) for w in wide]
    return b.done(b("Sum", *means))


def test_branches_end_before_others_begin():
    graph = branches()
    before = live_peak(memory_problem(graph), range(len(graph.nodes)))
    after = applied(graph, Reorder())
    assert ops(after) == ["Concat", "ReduceMax"] * 4 + ["Sum"]
    peak = live_peak(memory_problem(after), range(len(after.nodes)))
    wide, mean = 8 * 64 * 4, 8 * 4
    assert before == 4 * wide + mean
    assert peak == wide + 4 * mean


def test_symbolic_sizes_and_modules():
    after = Reorder()(Module(branches(sym("n", 1)))).graph
    assert ops(after) == ["Concat", "ReduceMax"] * 4 + ["Sum"]


def test_a_good_order_stays():
    b = Build()
    x = b.input("x", 4)
    y = b("Exp", b("Neg", x))
    graph = b.done(b("Add", y, b("Relu", x)))
    assert Reorder()(graph).nodes == graph.nodes


def test_views_hold_the_memory_that_they_view():
    b = Build()
    x = b("Exp", b.input("x", 4, 4))
    flat = b("Reshape", x, b.const([16], dtype="i64"))
    row = b("Reshape", flat, b.const([1, 16], dtype="i64"))
    graph = b.done(b("Neg", b("Sqrt", row)))
    p = memory_problem(graph)
    assert p.sizes == (64, 0, 0, 64, 0)
    assert p.reads == ((), (0,), (1, 0), (2, 1, 0), (3,))
    assert live_peak(p, range(5)) == 64 + 64


def test_outputs_need_no_memory_nor_what_they_view():
    b = Build()
    x = b("Exp", b.input("x", 4, 4))
    flat = b("Reshape", x, b.const([16], dtype="i64"))
    small = b("ReduceMax", x)
    graph = b.done(b("Neg", small), flat)
    p = memory_problem(graph)
    assert p.sizes == (0, 0, 4, 0)
    assert p.kept == {0, 1, 3}
