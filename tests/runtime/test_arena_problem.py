"""The bound for any order: against the planner itself, in every order of small modules."""

import itertools
import random
from dataclasses import replace

import numpy as np
import pytest
from modules import Sketch, binary, matmul_relu, unary

from aicc.graph_ir.module import Module
from aicc.graph_ir.passes.memory_problem import counts_the_arena, memory_problem
from aicc.graph_ir.types import TensorType
from aicc.memory.order_problem import Problem, live_peak
from aicc.memory.ordering import order
from aicc.memory.placement import round_up
from aicc.plan import plan
from aicc.symbolic import sym
from aicc.tensor_ir.builder import KernelBuilder

SIZES = (16, 32, 100)


def reverse(name: str, n: int):
    """y[i] = x[n - 1 - i], which cannot be in place."""
    b = KernelBuilder(name)
    x = b.input("x", "f32", (n,))
    b.mark_output(b.compute((n,), lambda i: x[n - 1 - i] + x[i], name="y"))
    return b.build()


def longer(name: str, n: int, m: int):
    """y[i] = x[0] + i: a result of another size."""
    b = KernelBuilder(name)
    x = b.input("x", "f32", (n,))
    b.mark_output(b.compute((m,), lambda i: x[0] + x[n - 1], name="y"))
    return b.build()


def random_module(rng: random.Random, joins: bool = False) -> Module:
    """A few nodes: kernels that may and that may not work in place, views, joins; outputs that no
    kernel writes over its operand."""
    s = Sketch()
    values = [(s.input("x", "f32", 16), 16)]
    for k in range(rng.randint(2, 5)):
        name, (value, n) = f"v{k}", rng.choice(values[-4:])
        kind = rng.randrange(7 if joins else 5)
        same = [v for v, m in values if m == n]
        if kind == 0:
            s.call(unary(f"k{k}", "neg", "f32", (n,)), [value], name)
        elif kind == 1:
            s.call(binary(f"k{k}", "add", "f32", (n,)), [value, rng.choice(same)], name)
        elif kind == 2:
            m = rng.choice(SIZES)
            s.call(longer(f"k{k}", n, m), [value], name)
            n = m
        elif kind == 3:
            s.call(reverse(f"k{k}", n), [value], name)
        elif kind > 4:
            parts = [rng.choice(values) for _ in range(2)]
            n = sum(m for _, m in parts)
            s.op("Concat", [v for v, _ in parts], {name: TensorType("f32", (n,))}, axis=0)
        else:
            shape = f"{name}.shape"
            s.constant(shape, np.array([n], np.int64))
            s.op("Reshape", [value, shape], {name: TensorType("f32", (n,))}, allowzero=0)
            unread = f"{name}.read"  # views that nobody reads are gone before planning
            s.call(reverse(unread, n), [name], unread)
        values.append((name, n))
    made = []
    for k, (value, n) in enumerate(rng.sample(values[1:], min(2, len(values) - 1))):
        s.call(reverse(f"last{k}", n), [value], f"y{k}")
        made.append(f"y{k}")
    return s.finish(*made)


def relaxed(module: Module) -> Problem:
    """The problem for bounds, sizes as they are placed."""
    problem = memory_problem(module, relaxed=True)
    return replace(problem, sizes=tuple(map(round_up, problem.sizes)))


def orders(module: Module):
    """Every order of the nodes in which each comes after those that it needs."""
    nodes = module.graph.nodes
    makers = module.graph.producers()
    for sequence in itertools.permutations(range(len(nodes))):
        done = set()
        for n in sequence:
            if any(v in makers and v not in done for v in nodes[n].inputs):
                break
            done |= set(nodes[n].outputs)
        else:
            yield sequence


def ordered(module: Module, sequence) -> Module:
    graph = module.graph.copy()
    graph.nodes = [module.graph.nodes[n] for n in sequence]
    return module.with_graph(graph)


@pytest.mark.parametrize("seed", range(25))
def test_the_peak_is_that_of_the_planned_program_in_every_order(seed):
    module = random_module(random.Random(seed))
    problem = relaxed(module)
    planned = [
        (sequence, plan(ordered(module, sequence)).program.least)
        for sequence in itertools.islice(orders(module), 120)
    ]
    for sequence, least in planned:
        assert live_peak(problem, sequence) == least
    found = order(problem)
    assert found.proven
    assert plan(ordered(module, found.sequence)).program.least == found.peak
    assert found.peak <= min(least for _, least in planned)
    assert plan(module, 1.0).program.bound == found.bound


@pytest.mark.parametrize("seed", range(25))
def test_with_joins_no_order_needs_less_than_the_bound(seed):
    rng = random.Random(seed)
    module = random_module(rng, joins=True)
    while not counts_the_arena(module):  # a value is joined twice
        module = random_module(rng, joins=True)
    problem, found = relaxed(module), order(relaxed(module))
    assert found.proven
    for sequence in itertools.islice(orders(module), 120):
        least = plan(ordered(module, sequence)).program.least
        assert found.bound <= live_peak(problem, sequence) <= least


def test_what_may_lie_in_an_output_counts_nothing():
    s = Sketch()
    s.input("x", "f32", 64)
    s.call(reverse("k0", 64), ["x"], "a")
    s.call(unary("k1", "neg", "f32", (64,)), ["a"], "y")
    module = s.finish("y")
    assert relaxed(module).sizes == (0, 0)
    program = plan(module).program
    assert program.arena == program.least == program.bound == 0


def test_symbols_have_no_bound():
    s = Sketch()
    n = sym("n", 1)
    s.input("x", "f32", n, 8)
    s.constant("w", np.ones((8, 8), np.float32))
    s.constant("c", np.ones(8, np.float32))
    s.call(matmul_relu("k0", n, 8, 8), ["x", "w", "c"], "h")
    s.call(matmul_relu("k1", n, 8, 8), ["h", "w", "c"], "y")
    module = s.finish("y")
    assert not counts_the_arena(module)
    assert plan(module).program.bound is None
