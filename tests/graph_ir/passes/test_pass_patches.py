import logging
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pass_builder import Build, agree, ops

from aicc.errors import MemoryBudgetError
from aicc.graph_ir.graph import Graph
from aicc.graph_ir.passes.locality import Locality
from aicc.graph_ir.passes.patches import Patches
from aicc.graph_ir.passes.streams import Segment, Streams, escaping, patched
from aicc.symbolic import sym


def streams(graph, begin, end, patches):
    locality = Locality()
    local = [locality(graph, n) for n in graph.nodes]
    return Streams(graph, local, Segment(begin, end, patches), escaping(graph, begin, end))


def conv(b, x, filters, k=3, stride=1, pads=None, group=1, **attrs):
    channels = b.ed.type_of(x).shape[3]
    w = b.weights(filters, channels // group, k, k)
    pads = (k // 2,) * 4 if pads is None else pads
    attrs = {"strides": (stride, stride), "group": group, "pads": pads, **attrs}
    return b("Conv", x, w, channels_last=1, **attrs)


def network(rows=24):
    """A stem, two inverted bottlenecks, the second with a shortcut, and a head over all rows."""
    b = Build("network")
    x = b("Transpose", b.input("x", 1, 3, rows, 16), perm=(0, 2, 3, 1))
    x = b("Relu", conv(b, x, 4, stride=2))
    x = conv(b, b("Relu", conv(b, conv(b, x, 8, 1), 8, group=8, stride=2)), 4, 1)
    y = conv(b, b("Relu", conv(b, conv(b, x, 8, 1), 8, group=8)), 4, 1)
    x = b("Add", x, y)
    y = b("ReduceMean", x, b.const([1, 2], dtype="i64"))
    return b.done(b("Mul", x, y))


def local_end(graph):
    return next(n for n, node in enumerate(graph.nodes) if node.op == "ReduceMean")


# --- rows -----------------------------------------------------------------------------------------


def test_a_patch_is_slices_and_shorter_padding():
    b = Build()
    x = b.input("x", 1, 8, 4, 2)
    graph = b.done(conv(b, conv(b, x, 2), 2))
    made = patched(graph, [streams(graph, 0, 2, 2)])
    agree(graph, made)
    assert ops(made) == [
        *("aicc::Part", "Conv", "Conv", "aicc::Part", "aicc::Copy"),
        *("aicc::Part", "Conv", "Concat", "Conv", "Concat"),
    ]
    pads = [n.attr("pads") for n in made.nodes if n.op == "Conv"]
    assert pads == [(1, 1, 0, 1), (1, 1, 0, 1), (0, 1, 1, 1), (0, 1, 1, 1)]


def test_every_row_is_computed_once():
    graph = network()
    for patches in (2, 3, 6):
        s = streams(graph, 0, local_end(graph), patches)
        for v, rows in s.rows.items():
            assert rows[0].new == 0 and rows[-1].end <= s.extents[v]
            for before, after in pairwise(rows):
                assert after.new == before.end and after.first == before.kept
        (result,) = s.results
        assert s.rows[result][-1].end == s.extents[result]


def test_patches_between_the_first_and_the_last_are_alike():
    graph = network(64)
    made = patched(graph, [streams(graph, 0, local_end(graph), 8)])
    agree(graph, made)
    shapes = {(n.attrs, made.types[n.outputs[0]].shape) for n in made.nodes if n.op == "Conv"}
    convolutions = sum(n.op == "Conv" for n in graph.nodes)
    assert len(shapes) <= 3 * convolutions


@pytest.mark.parametrize("patches", (1, 2, 3, 5, 6))
def test_patches_compute_the_same(patches):
    graph = network()
    agree(graph, patched(graph, [streams(graph, 0, local_end(graph), patches)]))


def test_a_segment_in_the_middle_reads_what_is_there():
    graph = network()
    agree(graph, patched(graph, [streams(graph, 3, 7, 3)]))
    agree(graph, patched(graph, [streams(graph, 1, 3, 2), streams(graph, 5, 9, 3)]))


def test_results_that_the_segment_reads_too_are_whole():
    b = Build()
    x = b("Relu", conv(b, b.input("x", 1, 12, 4, 2), 2))
    y = conv(b, conv(b, x, 2, stride=2), 2)
    graph = b.done(y, b("Neg", x))
    s = streams(graph, 0, 4, 3)
    assert s.results == {x, y}
    made = patched(graph, [s])
    agree(graph, made)


@settings(max_examples=40)
@given(st.data())
def test_any_chain_computes_the_same_in_any_patches(data):
    draw = data.draw
    b = Build()
    rows = draw(st.integers(6, 20))
    values = [b.input("x", draw(st.sampled_from((1, 1, 2))), rows, 4, 2)]
    for _ in range(draw(st.integers(2, 6))):
        x = draw(st.sampled_from(values[-2:]))
        _, height, width, _ = b.ed.type_of(x).shape
        kind = draw(st.sampled_from(("conv", "conv", "pool", "average", "map", "add")))
        if kind == "map" or min(height, width) < 3:
            made = b("Sigmoid", x)
        elif kind == "add":
            same = [v for v in values if b.ed.type_of(v).shape == b.ed.type_of(x).shape]
            made = b("Add", x, draw(st.sampled_from(same)))
        else:
            k = draw(st.integers(1, 3))
            stride = draw(st.integers(1, 2))
            pads = tuple(draw(st.integers(0, k - 1)) for _ in range(4))
            if kind == "conv":
                gaps = draw(st.sampled_from((1, 1, 2))) if height > 4 < width else 1
                made = conv(b, x, 2, k, stride, pads, dilations=(gaps, gaps))
            else:
                attrs = {"kernel_shape": (k, k), "strides": (stride, stride), "pads": pads}
                attrs["ceil_mode"] = draw(st.integers(0, 1))
                name = "MaxPool" if kind == "pool" else "AveragePool"
                made = b(name, x, channels_last=1, **attrs)
        values.append(made)
    graph = b.done(values[-1], *draw(st.sets(st.sampled_from(values[1:]), max_size=1)))
    graph.outputs = list(dict.fromkeys(graph.outputs))
    begin = draw(st.integers(0, len(graph.nodes) - 1))
    end = draw(st.integers(begin + 1, len(graph.nodes)))
    locality = Locality()
    results = escaping(graph, begin, end)
    alive = all(
        o in results or any(o in n.inputs for n in graph.nodes[begin:end])
        for m in graph.nodes[begin:end]
        for o in m.outputs
    )
    if not alive or any(locality(graph, n) is None for n in graph.nodes[begin:end]):
        return
    agree(graph, patched(graph, [streams(graph, begin, end, draw(st.integers(1, 5)))]))


# --- the pass -------------------------------------------------------------------------------------


def largest(graph: Graph) -> int:
    """A stand-in for an arena: the largest value that is neither an input nor a result."""
    made = {o for n in graph.nodes for o in n.outputs if n.op != "aicc::Part"}
    return max(graph.types[v].nbytes for v in made - set(graph.outputs))


def test_a_graph_that_fits_stays_as_it_is():
    graph = network()
    assert Patches(largest(graph), largest, largest)(graph) is graph


def test_patches_meet_the_budget(caplog):
    graph = network(64)
    budget = largest(graph) // 2
    with caplog.at_level(logging.DEBUG, "aicc"):
        made = Patches(budget, largest, largest)(graph)
    agree(graph, made)
    assert largest(made) <= budget < largest(graph)
    assert "nodes 0.." in caplog.text


def test_the_least_reachable_is_told_and_can_be_reached():
    graph = network(64)
    with pytest.raises(MemoryBudgetError) as refused:
        Patches(1, largest, largest)(graph)
    least = refused.value.least
    assert 1 < least < largest(graph) and refused.value.budget == 1
    assert f"({least} bytes)" in str(refused.value) and "1 bytes" in str(refused.value)
    made = Patches(least, largest, largest)(graph)
    assert largest(made) == least
    with pytest.raises(MemoryBudgetError) as again:
        Patches(least - 1, largest, largest)(graph)
    assert again.value.least == least


def test_splits_do_not_end_a_segment():
    b = Build()
    x = b("Relu", conv(b, b.input("x", 1, 32, 8, 2), 6))
    left, right = b("Split", x, b.const(np.array([2, 4])), n=2, axis=-1)
    y = conv(b, b("Concat", conv(b, left, 2), right, axis=3), 2, stride=2)
    graph = b.done(b("ReduceMean", y, b.const([1, 2], dtype="i64")))
    made = Patches(largest(graph) // 2, largest, largest)(graph)
    agree(graph, made)
    assert "Split" not in ops(made) and largest(made) <= largest(graph) // 2


def test_symbols_have_to_be_pinned():
    b = Build()
    graph = b.done(b("Relu", b.input("x", sym("batch"), 4)))
    with pytest.raises(MemoryBudgetError, match=r'leaves open: batch; pin them: dims={"batch"'):
        Patches(100, lambda g: None, lambda g: None)(graph)


def test_what_is_not_local_is_refused_with_what_it_takes():
    b = Build()
    x = b("ReduceMean", b("Exp", b.input("x", 64, 64)), b.const([0], dtype="i64"))
    graph = b.done(b("Exp", x))
    with pytest.raises(MemoryBudgetError) as refused:
        Patches(100, largest, largest)(graph)
    assert refused.value.least == 64 * 64 * 4


def test_estimates_follow_the_sizes():
    graph = network(64)
    held = {o for n in graph.nodes for o in n.outputs}
    at = {n.outputs[0]: k for k, n in enumerate(graph.nodes)}
    end = local_end(graph)
    peaks = [streams(graph, 0, end, p).peak(held, at, 0) for p in (1, 2, 4, 8, 16)]
    assert peaks == sorted(peaks, reverse=True)
    whole = np.prod((1, 32, 8, 8)) * 4
    assert peaks[0] > whole > peaks[-1]
