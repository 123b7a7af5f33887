"""Small graphs for tests of passes, and the comparison of what they compute before and after."""

from __future__ import annotations

import zlib
from collections import Counter

import numpy as np

from aicc import symbolic
from aicc.dtypes import to_numpy
from aicc.graph_ir.evaluate import evaluate
from aicc.graph_ir.graph import Graph
from aicc.graph_ir.infer import constant_type
from aicc.graph_ir.passes.rewrite import Editor
from aicc.graph_ir.text import all_constants, parse_graph, print_graph
from aicc.graph_ir.types import TensorType
from aicc.graph_ir.verify import verify
from aicc.passes import disagreement


class Build:
    """`b = Build(); x = b.input("x", 2, 3); y = b("Relu", x); graph = b.done(y)`."""

    def __init__(self, name="g"):
        self.ed = Editor(Graph(name))

    def input(self, name, *shape, dtype="f32"):
        self.ed.new.inputs.append(name)
        self.ed.new.types[name] = TensorType(dtype, shape)
        return name

    def const(self, data, name="c", dtype=None):
        array = np.asarray(data, None if dtype is None else to_numpy(dtype))
        if array.dtype == np.float64 and dtype is None:
            array = array.astype(np.float32)
        name = self.ed.names.fresh(name)
        self.ed.new.constants[name] = array
        self.ed.new.types[name] = constant_type(array)
        return name

    def weights(self, *shape, name="w"):
        """Normal numbers that depend on shape and name only."""
        rng = np.random.default_rng(zlib.crc32(f"{shape}{name}".encode()))
        return self.const(rng.standard_normal(shape).astype(np.float32), name)

    def __call__(self, op, *inputs, name="", n=1, **attrs):
        node = self.ed.make(op, *inputs, n_outputs=n, **attrs)
        self.ed.add(node)
        return node.outputs[0] if n == 1 else node.outputs

    def done(self, *outputs):
        graph = self.ed.new
        graph.outputs = list(outputs)
        verify(graph)
        return graph


def random_feed(graph, seed=0, **sizes):
    """Normal floats, integers 0..2; symbols take `sizes`, or small distinct numbers."""
    rng = np.random.default_rng(seed)
    known = dict(sizes)
    feed = {}
    for name in graph.inputs:
        t = graph.types[name]
        for d in t.shape:
            for s in symbolic.symbols(d):
                known.setdefault(s.name, 3 + 2 * len(known))
        shape = [symbolic.evaluate(d, known) for d in t.shape]
        if t.dtype.startswith(("f", "bf")):
            feed[name] = rng.standard_normal(shape).astype(to_numpy(t.dtype))
        else:
            feed[name] = rng.integers(0, 2, shape).astype(to_numpy(t.dtype))
    return feed


def agree(before, after, rtol=1e-4, atol=1e-5, **sizes):
    """Both graphs are valid, have the same interface, and compute the same."""
    verify(after)
    assert parse_graph(print_graph(after), all_constants(after)) == after
    assert after.inputs == before.inputs and after.outputs == before.outputs
    for seed in (0, 1):
        feed = random_feed(before, seed, **sizes)
        a, b = evaluate(before, feed), evaluate(after, feed)
        for name in before.outputs:
            fault = disagreement(a[name], b[name], rtol, atol)
            assert not fault, f"{name}: {fault}\n{print_graph(after)}"


def applied(graph, *passes, rtol=1e-4, atol=1e-5, **sizes):
    """The graph after `passes`, which changed nothing that it computes, and not the one given."""
    text = print_graph(graph)
    after = graph
    for p in passes:
        after = p(after)
    assert print_graph(graph) == text
    agree(graph, after, rtol, atol, **sizes)
    return after


def ops(graph):
    """Operator names in order."""
    return [n.op for n in graph.nodes]


def count(graph):
    return Counter(ops(graph))
