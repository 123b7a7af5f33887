"""What is joined or parted along an inner axis, in place: which nodes, and when not."""

import numpy as np
import pytest
from pass_builder import Build, applied, ops

from aicc.decisions import collect
from aicc.graph_ir.graph import Graph
from aicc.graph_ir.passes.fuse import Description
from aicc.graph_ir.passes.join import JOIN, SECTION, TRANSFER, Join
from aicc.graph_ir.passes.memory_problem import memory_problem
from aicc.kernels import Coster, Fuse
from aicc.lower import Describer
from aicc.memory.joint import plan_memory
from aicc.symbolic import sym
from aicc.target import Target

N = sym("n", 1)


def describe(graph, node):
    if node.op in ("Relu", "Neg"):
        return Description("map", {0: "same"})
    return Description("window" if node.op == "ReduceMax" else "map")


def seconds(graph, nodes):
    """A kernel takes its results' elements; a map that follows a join takes its place."""
    ends = [n for n in nodes if not any(o in m.inputs for m in nodes for o in n.outputs)]
    return sum(np.prod([int(d) if isinstance(d, int) else 8 for d in graph.types[o].shape])
               for n in ends for o in n.outputs)  # fmt: skip


def join(cached=1 << 30, cost=seconds):
    target = Target.from_name("x86-64-v3")
    return Join(describe, cost, Fuse(Coster(target, Describer())), cached)


def two(b, x=None, rows=N):
    x = b.input("x", rows, 6, 32) if x is None else x
    return b("Neg", x), b("Sqrt", b("Abs", x))


def joined(b, *operands, axis=2):
    """A concatenation with two readers, so that it fuses with neither."""
    y = b("Concat", *operands, axis=axis)
    return b("Exp", y), b("Neg", y)


def node(graph, op):
    (found,) = (n for n in graph.nodes if n.op == op)
    return found


def test_what_is_computed_is_joined_in_place(golden):
    b = Build()
    golden("join", str(applied(b.done(*joined(b, *two(b))), join())))


def test_inputs_and_parts_of_other_joins_are_transferred():
    b = Build()
    x = b.input("x", N, 6, 32)
    a, c = two(b, x)
    graph = applied(b.done(*joined(b, a, x, c), *joined(b, a, c)), join())
    assert ops(graph)[3:] == [TRANSFER, JOIN, "Exp", "Neg", "Concat", "Exp", "Neg"]
    first = node(graph, JOIN)
    assert (first.inputs[0], first.inputs[2]) == (a, c)
    assert node(graph, TRANSFER).outputs == first.inputs[1:2]


def test_joins_that_begin_as_an_earlier_one_have_that_in_place():
    b = Build()
    a, c = two(b)
    d = b("Neg", b("Abs", a))
    results = *joined(b, a, c), *joined(b, a, c, d), *joined(b, a, c, axis=1)
    graph = applied(b.done(*results), join())
    first, second = (n for n in graph.nodes if n.op == JOIN)
    assert first.inputs == (a, c)
    assert second.inputs == (first.outputs[0], d)
    (other,) = (n for n in graph.nodes if n.op == "Concat")
    assert other.inputs == (a, c)  # along another axis


def test_joins_that_begin_as_a_part_of_an_earlier_one_stay_apart():
    b = Build()
    a, c = two(b)
    d = b("Neg", b("Abs", a))
    graph = applied(b.done(*joined(b, a, c, d), *joined(b, a, c)), join())
    (whole,) = (n for n in graph.nodes if n.op == JOIN)
    assert whole.inputs == (a, c, d)
    (other,) = (n for n in graph.nodes if n.op == "Concat")
    assert other.inputs == (a, c)


def test_one_operand_twice_is_transferred():
    b = Build()
    a, c = two(b)
    assert ops(applied(b.done(*joined(b, a, a)), join()))[-3:] == ["Concat", "Exp", "Neg"]
    b = Build()
    a, c = two(b)
    wide = b("Concat", c, c, c, axis=2)
    after = applied(b.done(*joined(b, wide, a, wide)), join(cost=lambda g, n: float(len(n))))
    assert ops(after).count(TRANSFER) == 0  # two transfers take longer than one join


def test_joins_of_joins():
    b = Build()
    a, c = two(b)
    inner = b("Concat", a, c, axis=2)
    d = b("Exp", inner)
    graph = applied(b.done(*joined(b, inner, d)), join())
    assert [n.inputs for n in graph.nodes if n.op == JOIN] == [(a, c), (inner, d)]


def test_a_kernel_that_joins_on_the_way_stays():
    b = Build()
    y = b("Concat", *two(b), axis=2)
    with collect() as found:
        assert "Concat" in ops(applied(b.done(b("Relu", y)), join()))
    assert [d.taken for d in found if d.kind == "join"] == []  # noted where something is taken
    b = Build()
    assert JOIN in ops(applied(b.done(b("Exp", b("Concat", *two(b), axis=2))), join()))


@pytest.mark.parametrize(
    ("shapes", "axis"),
    [
        (((4, 6, 3), (4, 6, 3)), 2),  # runs of three numbers
        (((4, 6, 32), (4, N, 32)), 1),  # where the second begins is known, not where it ends
        (((4, 6, 32), (4, 6, 32)), 0),  # one after the other, which a Concat is in any case
    ],
)
def test_parts_that_stay(shapes, axis):
    b = Build()
    values = [b("Neg", b.input(f"x{n}", *s)) for n, s in enumerate(shapes)]
    after = applied(b.done(*joined(b, *values, axis=axis)), join())
    assert JOIN not in ops(after)


def test_along_the_outermost_axis_memory_is_one_run_anyway():
    b = Build()
    values = [b("Neg", b.input(f"x{n}", 1, 6, 32)) for n in range(2)]
    assert JOIN not in ops(applied(b.done(*joined(b, *values, axis=1)), join()))


def test_values_that_others_than_kernels_read_are_transferred():
    b = Build()
    a, c = two(b, rows=4)
    y = joined(b, a, c)
    graph = applied(b.done(a, *y), join())
    assert node(graph, TRANSFER).inputs == (a,)
    b = Build()
    a, c = two(b, rows=4)
    flat = b("Reshape", a, b.const([-1], dtype="i64"))
    graph = applied(b.done(flat, *joined(b, a, c)), join())
    assert node(graph, TRANSFER).inputs == (a,)
    b = Build()
    a, c = two(b, rows=4)
    y = joined(b, a, c)
    unique = b("NonZero", a)
    graph = applied(b.done(unique, *y), join())
    assert node(graph, TRANSFER).inputs == (a,)


def test_views_of_parts_are_parts():
    b = Build()
    a, c = two(b, rows=4)
    flat = b("Reshape", a, b.const([4, 6, 8, 4], dtype="i64"))
    graph = applied(b.done(b("Exp", flat), *joined(b, a, c)), join())
    assert TRANSFER not in ops(graph)


def test_what_has_left_the_caches_is_transferred():
    b = Build()
    x = b.input("x", 4, 6, 32)
    a = b("Neg", x)
    c = b("Sqrt", b("Abs", x))
    graph = b.done(*joined(b, a, c))
    size = 4 * 6 * 32 * 4
    assert TRANSFER not in ops(applied(graph, join(cached=2 * size)))
    assert node(applied(graph, join(cached=size)), TRANSFER).inputs == (a,)


def through_a_wide_one(b, x):
    """What a value becomes by way of two that take most of the memory."""
    wide = b("MatMul", b("MatMul", x, b.weights(32, 512)), b.weights(512, 512))
    return b("MatMul", wide, b.weights(512, 32))


def arena(graph):
    module = Fuse(Coster(Target.from_name("x86-64-v3"), Describer()))(graph)
    return plan_memory(memory_problem(module)).size


def test_parts_that_wait_too_long_are_transferred():
    """Where most memory is needed, there must be none that is kept for parts to come."""
    b = Build()
    early = b("Neg", b.input("x", 4, 6, 32))
    late = through_a_wide_one(b, early)
    graph = b.done(*joined(b, early, late))
    after = applied(graph, join())
    assert node(after, TRANSFER).inputs == (early,)
    assert node(after, JOIN).inputs[1] == late
    assert arena(after) <= arena(graph)


def test_joins_whose_parts_all_wait_too_long_stay():
    b = Build()
    first, second = (b("Neg", b.input(n, 4, 6, 32)) for n in "xy")
    third = through_a_wide_one(b, b("Add", first, second))
    graph = b.done(*joined(b, first, second, b("Concat", third, third, third, third, axis=2)))
    after = applied(graph, join(cost=lambda g, n: 1.2 if n[0].op == TRANSFER else 2.5))
    assert arena(after) <= arena(graph)
    assert JOIN not in ops(after)


def test_parts_that_outlive_others_by_far_are_copied():
    b = Build()
    x = b("Neg", b.input("x", 4, 6, 64))
    early, late = split(b, x, 32, 32)
    y = b("Add", through_a_wide_one(b, early), late)
    assert SECTION not in ops(applied(b.done(y), join()))
    b = Build()
    x = b("Neg", b.input("x", 4, 6, 64))
    early, late = split(b, x, 32, 32)
    y = b("Add", through_a_wide_one(b, b("Add", early, late)), b("Add", early, late))
    assert SECTION in ops(applied(b.done(y), join()))


def split(b, x, *sizes, axis=2):
    return b("Split", x, b.const(list(sizes), dtype="i64"), axis=axis, n=len(sizes))


def test_parts_are_read_where_they_are(golden):
    b = Build()
    a, c = split(b, b("Neg", b.input("x", N, 6, 64)), 24, 40)
    golden("split", str(applied(b.done(b("Exp", a), b("Sqrt", b("Abs", c))), join())))


def test_parts_that_others_read_are_transferred():
    b = Build()
    a, c = split(b, b.input("x", 4, 6, 64), 24, 40)
    graph = applied(b.done(b("Exp", a), c), join())
    assert ops(graph) == [SECTION, SECTION, TRANSFER, "Exp"]
    b = Build()
    assert ops(applied(b.done(*split(b, b.input("x", 4, 6, 64), 24, 40)), join())) == ["Split"]
    b = Build()
    a, c = split(b, b.input("x", 4, 6, 8), 4, 4)
    assert "Split" in ops(applied(b.done(b("Exp", a), b("Exp", c)), join()))  # short runs


def test_all_parts_joined_again_are_the_whole():
    b = Build()
    y = b("Neg", b.input("x", N, 6, 64))
    a, c = split(b, y, 24, 40)
    d = b("Exp", c)
    graph = applied(b.done(*joined(b, a, c, d)), join())
    assert node(graph, JOIN).inputs == (y, d)
    b = Build()
    y = b("Neg", b.input("x", N, 6, 64))
    a, c = split(b, y, 24, 40)
    d = b("Exp", c)
    graph = applied(b.done(*joined(b, c, a, d)), join())
    assert node(graph, JOIN).inputs[2] == d and y not in node(graph, JOIN).inputs


def cut(b, x, starts, ends, axes, steps=None):
    rest = () if steps is None else (b.const(steps, dtype="i64"),)
    return b("Slice", x, *(b.const(v, dtype="i64") for v in (starts, ends, axes)), *rest)


def two_ways(b, y):
    """Two readers, so that what they read fuses with neither."""
    return b("Exp", y), b("Sqrt", b("Abs", y))


def test_slices_are_read_where_they_are(golden):
    b = Build()
    x = b("Neg", b.input("x", N, 6, 64))
    y = cut(b, x, [1, 16], [5, -8], [1, 2])
    golden("slice", str(applied(b.done(*two_ways(b, y), b("Abs", x)), join())))


@pytest.mark.parametrize(
    ("shape", "starts", "ends", "axes"),
    [
        ((8, 6, 64), [2], [7], [0]),  # outermost, one run
        ((8, 6, 64), [-3], [2**31], [0]),
        ((N, 6, 64), [1], [4], [1]),
        ((N, 6, 64), [16], [48], [-1]),
        ((4, 6, 8, 64), [0, 1, 32], [2, 3, 64], [0, 1, 3]),
    ],
)
def test_slices_of_any_axes(shape, starts, ends, axes):
    b = Build()
    x = b("Neg", b.input("x", *shape))
    graph = b.done(*two_ways(b, cut(b, x, starts, ends, axes)), b("Abs", x))
    after = ops(applied(graph, join()))
    assert after.count(SECTION) == len(axes) and "Slice" not in after


@pytest.mark.parametrize(
    ("shape", "starts", "ends", "axes", "steps"),
    [
        ((4, 6, 64), [0], [64], [2], [2]),  # gaps
        ((4, 6, 64), [40], [8], [2], [-1]),  # backwards
        ((4, 6, 64), [8], [16], [2], [1]),  # short runs
        ((4, N, 64), [0], [1], [1], [1]),  # the rows of which there is a part are not known
        ((4, N, 64), [0], [-1], [1], [1]),
    ],
)
def test_slices_that_stay(shape, starts, ends, axes, steps):
    b = Build()
    x = b("Neg", b.input("x", *shape))
    graph = b.done(*two_ways(b, cut(b, x, starts, ends, axes, steps)), b("Abs", x))
    assert "Slice" in ops(applied(graph, join()))


def test_slices_that_fuse_stay():
    """With their reader, or with a map of which only they are needed."""
    b = Build()
    x = b("Sqrt", b("Abs", b.input("x", 4, 6, 64)))
    y = b("Relu", cut(b, x, [0], [32], [2]))
    assert "Slice" in ops(applied(b.done(y, b("Abs", x)), join()))
    b = Build()
    x = b("Neg", b.input("x", 4, 6, 64))
    graph = b.done(*two_ways(b, cut(b, x, [0], [32], [2])))
    assert "Slice" in ops(applied(graph, join()))


def test_slices_that_are_results_or_of_constants_stay():
    b = Build()
    x = b("Neg", b.input("x", 4, 6, 64))
    graph = b.done(cut(b, x, [0], [32], [2]), b("Abs", x))
    assert "Slice" in ops(applied(graph, join()))
    b = Build()
    graph = b.done(*two_ways(b, cut(b, b.weights(4, 6, 64), [0], [32], [2])))
    assert "Slice" in ops(applied(graph, join()))


def test_slices_that_are_all_of_a_value_are_it_again():
    b = Build()
    x = b("Neg", b.input("x", N, 6, 64))
    first, second = cut(b, x, [0], [24], [2]), cut(b, x, [24], [64], [2])
    c = b("Sqrt", b("Abs", second))
    graph = b.done(*joined(b, first, second, c), b("Exp", first), b("Abs", second))
    assert node(applied(graph, join()), JOIN).inputs == (x, c)


def test_slices_for_which_a_larger_value_waits_are_copied():
    b = Build()
    x = b("Neg", b.input("x", 4, 6, 64))
    few = cut(b, x, [0], [16], [2])
    late = through_a_wide_one(b, b("MatMul", x, b.weights(64, 32)))
    y = b("MatMul", late, b.weights(32, 16))
    graph = b.done(b("Add", y, few), b("Sub", y, few))
    after = applied(graph, join())
    assert SECTION not in ops(after)
    assert arena(after) <= arena(graph)
    b = Build()
    x = b("Neg", b.input("x", 4, 6, 64))
    few = cut(b, x, [0], [16], [2])
    late = through_a_wide_one(b, b("MatMul", x, b.weights(64, 32)))
    y = b("Add", b("MatMul", late, b.weights(32, 64)), x)  # there in any case
    graph = b.done(b("Exp", few), b("Sqrt", b("Abs", few)), y)
    assert SECTION in ops(applied(graph, join()))


def test_the_report_tells_of_slices():
    b = Build()
    x = b("Neg", b.input("x", 4, 6, 64))
    graph = b.done(*two_ways(b, cut(b, x, [0], [32], [2])), b("Abs", x))
    with collect() as found:
        join()(graph)
    (decision,) = (d for d in found if d.kind == "join")
    assert decision.taken and "Slice" in decision.what
    assert decision.seconds == 0 < decision.otherwise


def test_graphs_without_joins_stay():
    graph = Graph("g")
    assert join()(graph) is graph


def test_the_report_tells_of_joins():
    b = Build()
    graph = b.done(*joined(b, *two(b)))
    with collect() as found:
        join()(graph)
    (decision,) = (d for d in found if d.kind == "join")
    assert decision.kind == "join" and decision.taken
    assert decision.seconds < decision.otherwise
