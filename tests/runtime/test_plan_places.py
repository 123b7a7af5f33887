"""Joins whose operands are computed in place, parts that are views, and copies."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from modules import Sketch, binary, random, unary

from aicc.graph_ir.evaluate_module import evaluate_module
from aicc.graph_ir.passes.reorder import memory_problem
from aicc.graph_ir.places import joined
from aicc.graph_ir.types import TensorType
from aicc.memory.order_problem import live_peak
from aicc.plan import plan
from aicc.planned import verify_planned
from aicc.planned_evaluate import evaluate_planned
from aicc.planned_text import parse_planned, print_planned
from aicc.runtime.program import Copy


def planned(module):
    """The planned module, which computes what the module does."""
    made = plan(module)
    verify_planned(made)
    assert parse_planned(print_planned(made), module.graph.constants) == made
    feed = {
        n: random("f32", *module.graph.types[n].shape, seed=k)
        for k, n in enumerate(module.graph.inputs)
    }
    expected = evaluate_module(module, feed)
    got = evaluate_planned(made, feed)
    for name, array in expected.items():
        np.testing.assert_array_equal(got[name], array)
    return made.program


def neg(s, value, name, *shape):
    kernel = "neg" + "x".join(map(str, shape))
    return s.call(unary(kernel, "neg", "f32", shape), [value], name)


def concat(s, operands, name, *shape, axis=0):
    return s.op("Concat", operands, {name: TensorType("f32", shape)}, axis=axis)


def copies(program):
    return [step for step in program.steps if isinstance(step, Copy)]


def test_what_is_joined_is_computed_in_place():
    s = Sketch()
    s.input("x", "f32", 2, 8)
    s.input("z", "f32", 3, 8)
    neg(s, "x", "a", 2, 8)
    neg(s, "z", "b", 3, 8)
    concat(s, ["a", "b"], "c", 5, 8)
    neg(s, "c", "d", 5, 8)
    neg(s, "d", "e", 5, 8)
    s.call(binary("mul", "mul", "f32", (5, 8)), ["d", "e"], "y")
    program = planned(s.finish("y"))
    assert not copies(program)
    assert {program.root(n).name for n in ("a", "b", "d")} == {"c"}
    assert [program.table[n].at for n in ("a", "b")] == [0, 2 * 8 * 4]
    assert program.root("y").name == "c"


def test_a_joined_output_is_written_straight_into_the_callers_array():
    s = Sketch()
    s.input("x", "f32", 2, 8)
    neg(s, "x", "a", 2, 8)
    neg(s, "x", "b", 2, 8)
    program = planned(_joined(s, ["a", "b"]))
    assert program.arena == 0 and len(program.steps) == 2
    assert program.table["y"].space == "output"


def _joined(s, operands, rows=4):
    concat(s, operands, "y", rows, 8)
    return s.finish("y")


def test_what_lies_elsewhere_is_copied_into_the_join():
    s = Sketch()
    s.input("x", "f32", 2, 8)
    s.constant("w", random("f32", 1, 8))
    neg(s, "x", "a", 2, 8)
    program = planned(_joined(s, ["w", "a", "x", "a"], rows=7))
    assert [c.source for c in copies(program)] == ["w", "x", "a"]
    assert program.table["a"].at == 8 * 4


def test_a_value_is_computed_into_one_join_and_copied_to_the_others():
    s = Sketch()
    s.input("x", "f32", 2, 8)
    neg(s, "x", "a", 2, 8)
    neg(s, "x", "b", 2, 8)
    concat(s, ["a", "b"], "c", 4, 8)
    concat(s, ["b", "a"], "d", 4, 8)
    program = planned(s.finish("c", "d"))
    assert [c.source for c in copies(program)] == ["b", "a"]


def test_joins_of_joins_are_one_buffer():
    s = Sketch()
    s.input("x", "f32", 2, 8)
    for name in "abc":
        neg(s, "x", name, 2, 8)
    concat(s, ["a", "b"], "ab", 4, 8)
    program = planned(_joined(s, ["ab", "c"], rows=6))
    assert not copies(program)
    assert [program.table[n].at for n in "abc"] == [0, 64, 128]


def test_joins_along_an_inner_axis_are_none():
    s = Sketch()
    s.input("x", "f32", 2, 8)
    neg(s, "x", "a", 2, 8)
    concat(s, ["a", "a"], "y", 2, 16, axis=1)
    graph = s.finish("y").graph
    assert joined(graph, graph.nodes[-1]) is None


def test_parts_are_views_and_end_with_their_last_reader():
    s = Sketch()
    s.input("x", "f32", 4, 8)
    neg(s, "x", "a", 4, 8)
    s.op("aicc::Part", ["a"], {"p": TensorType("f32", (2, 8))}, begin=16, shape=(2, 8))
    s.op("aicc::Part", ["p"], {"q": TensorType("f32", (8,))}, begin=8, shape=(8,))
    s.op("aicc::Part", ["x"], {"r": TensorType("f32", (8,))}, begin=8, shape=(8,))
    s.call(binary("mul", "mul", "f32", (8,)), ["q", "r"], "y")
    program = planned(s.finish("y"))
    assert (program.table["q"].root, program.table["q"].at) == ("a", 24 * 4)
    assert (program.table["r"].root, program.table["r"].at) == ("x", 8 * 4)
    assert program.table["a"].last == 1


def test_a_copy_ends_the_life_of_what_it_copies():
    s = Sketch()
    s.input("x", "f32", 64, 8)
    neg(s, "x", "a", 64, 8)
    s.op("aicc::Part", ["a"], {"p": TensorType("f32", (2, 8))}, begin=0, shape=(2, 8))
    s.op("aicc::Copy", ["p"], {"k": TensorType("f32", (2, 8))})
    s.op("aicc::Part", ["x"], {"z": TensorType("f32", (62, 8))}, begin=16, shape=(62, 8))
    neg(s, "z", "b", 62, 8)
    concat(s, ["k", "b"], "c", 64, 8)
    neg(s, "c", "d", 64, 8)
    s.call(binary("mul", "mul", "f32", (64, 8)), ["c", "d"], "y")
    program = planned(s.finish("y"))
    assert [c.source for c in copies(program)] == ["p", "k"]
    assert program.table["a"].last == 1
    assert program.root("y").name == "c"
    assert program.arena == 64 * 8 * 4 + 2 * 8 * 4


def test_the_order_counts_joined_values_once():
    s = Sketch()
    s.input("x", "f32", 2, 8)
    neg(s, "x", "a", 2, 8)
    neg(s, "x", "b", 2, 8)
    concat(s, ["a", "b"], "c", 4, 8)
    neg(s, "c", "y", 4, 8)
    problem = memory_problem(s.finish("y").graph)
    assert live_peak(problem, range(problem.count)) == 4 * 8 * 4


@pytest.mark.parametrize("axis", (0, 1))
@settings(max_examples=20)
@given(st.lists(st.tuples(st.sampled_from("abcxw"), st.booleans()), min_size=1, max_size=6))
def test_any_join_is_right(axis, chosen):
    s = Sketch()
    shape = (1, 2, 2) if axis else (2, 2)
    s.input("x", "f32", *shape)
    s.constant("w", random("f32", *shape))
    for name in "abc":
        neg(s, "x" if name == "a" else "a", name, *shape)
    names, rows = [], 0
    for n, (name, twice) in enumerate(chosen):
        names.append(name)
        rows += 2
        if twice:
            whole = (1, rows, 2) if axis else (rows, 2)
            names = [concat(s, names, f"j{n}", *whole, axis=axis)]
    whole = (1, rows, 2) if axis else (rows, 2)
    concat(s, names, "all", *whole, axis=axis)
    neg(s, "all", "y", *whole)
    planned(s.finish("y", "b"))
