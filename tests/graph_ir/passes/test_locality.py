import pytest
from pass_builder import Build

from aicc.graph_ir.infer import context
from aicc.graph_ir.passes.locality import Locality, Reads, outermost, part_attributes
from aicc.graph_ir.types import TensorType
from aicc.symbolic import sym

LAST = {"channels_last": 1}


def local(b, value):
    """What the node that makes a value reads."""
    graph = b.done(value)
    return Locality()(graph, graph.nodes[-1])


def conv(b, x, k=3, filters=2, channels=2, **attrs):
    w = b.weights(filters, channels, k, k)
    return b("Conv", x, w, **{"channels_last": 1, **attrs})


def test_rows_are_counted_by_the_first_axis_that_counts_anything():
    assert outermost(TensorType("f32", (1, 7, 5, 3))) == 1
    assert outermost(TensorType("f32", (2, 7))) == 0
    assert outermost(TensorType("f32", (1, 1))) is None
    assert outermost(TensorType("f32", (1, sym("n"), 2))) is None


@pytest.mark.parametrize(
    ("attrs", "stride", "low", "high"),
    (
        ({}, 1, 0, 2),
        ({"pads": (1, 1, 1, 1)}, 1, -1, 1),
        ({"pads": (2, 0, 1, 0), "strides": (2, 1)}, 2, -2, 0),
        ({"pads": (2, 2, 2, 2), "dilations": (2, 2)}, 1, -2, 2),
        ({"auto_pad": "SAME_UPPER", "strides": (2, 2)}, 2, 0, 2),
        ({"auto_pad": "VALID", "strides": (3, 3)}, 3, 0, 2),
    ),
)
def test_windows_read_the_rows_around(attrs, stride, low, high):
    b = Build()
    y = conv(b, b.input("x", 1, 8, 9, 2), **attrs)
    assert local(b, y) == (Reads(1, stride, low, high), None)


def test_pooling_reads_the_rows_of_its_window():
    b = Build()
    y = b("MaxPool", b.input("x", 1, 8, 9, 2), kernel_shape=(3, 2), strides=(2, 2), **LAST)
    assert local(b, y) == (Reads(1, 2, 0, 2),)


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
def test_windows_that_hang_over_read_rows_beyond(op):
    b = Build()
    x = b.input("x", 1, 8, 9, 2)
    y = b(op, x, kernel_shape=(3, 3), strides=(2, 2), pads=(1, 1, 1, 1), **LAST)
    assert local(b, y) == (Reads(1, 2, -1, 1),)


def test_borders_that_are_repeated_are_not_rows_beyond():
    b = Build()
    pads = b.const([0, 0, 0, 0, 2, 0], dtype="i64")
    y = b("Pad", b.input("x", 1, 8, 2), pads, mode="edge")
    assert local(b, y) is None


def test_maps_read_their_own_row_and_scales_whole():
    b = Build()
    x = b.input("x", 1, 8, 9, 2)
    assert local(b, b("Relu", x)) == (Reads(1),)
    assert local(b, b("Add", x, b("Relu", x))) == (Reads(1), Reads(1))
    assert local(b, b("Mul", x, b.input("s", 1, 1, 1, 2))) == (Reads(1), None)
    channels = b.const([3], dtype="i64")
    assert local(b, b("ReduceMax", x, channels)) == (Reads(1), None)
    assert local(b, b("Concat", x, x, axis=3)) == (Reads(1), Reads(1))


def test_transposes_read_rows_from_another_axis():
    b = Build()
    y = b("Transpose", b.input("x", 1, 3, 8, 9), perm=(0, 2, 3, 1))
    assert local(b, y) == (Reads(2),)


def test_samples_of_a_batch_are_rows():
    b = Build()
    y = conv(b, b.input("x", 4, 8, 9, 2), pads=(1, 1, 1, 1))
    assert local(b, y) == (Reads(0), None)


def test_nodes_that_read_all_rows_or_other_ones_are_not_local():
    b = Build()
    x = b.input("x", 1, 8, 9, 2)
    assert local(b, b("CumSum", x, b.const(1, dtype="i64"))) is None
    assert local(b, b("Concat", x, x, axis=1)) is None
    assert local(b, b("Reshape", x, b.const([1, 72, 2], dtype="i64"))) is None
    flipped = [b.const(v, dtype="i64") for v in ([-1], [-99], [1], [-1])]
    assert local(b, b("Slice", x, *flipped)) is None
    mean = local(b, b("ReduceMean", x, b.const([1, 2], dtype="i64")))
    assert mean is None or mean[0].axis != 1


def test_sizes_that_a_run_tells_are_not_local():
    b = Build()
    assert local(b, b("Relu", b.input("x", 1, sym("h"), 9, 2))) is None


@pytest.mark.parametrize(
    ("attrs", "rows", "pads"),
    (
        ({"pads": (1, 2, 1, 2)}, (0, 3), (1, 2, 0, 2)),
        ({"pads": (1, 2, 1, 2)}, (2, 5), (0, 2, 0, 2)),
        ({"pads": (1, 2, 1, 2)}, (5, 8), (0, 2, 1, 2)),
        ({"auto_pad": "SAME_UPPER", "strides": (2, 2)}, (0, 2), (0, 1, 0, 1)),
        ({"auto_pad": "SAME_UPPER", "strides": (2, 2)}, (2, 4), (0, 1, 1, 1)),
        ({"auto_pad": "VALID"}, (0, 2), (0, 0, 0, 0)),
    ),
)
def test_parts_are_padded_where_the_whole_is(attrs, rows, pads):
    b = Build()
    graph = b.done(conv(b, b.input("x", 1, 8, 9, 2), **attrs))
    (node,) = graph.nodes
    found = Locality()(graph, node)
    assert part_attributes(context(graph, node), found, rows)["pads"] == pads


@pytest.mark.parametrize(
    ("mode", "pads"), [("SAME_UPPER", (0, 2, 0, 3)), ("SAME_LOWER", (0, 3, 0, 2))]
)
def test_parts_of_one_window_across_are_padded_by_what_it_has_too_many(mode, pads):
    b = Build()
    x = b.input("x", 1, 8, 2, 2)
    graph = b.done(conv(b, x, k=4, auto_pad=mode, strides=(1, 3), dilations=(1, 2)))
    (node,) = graph.nodes
    found = Locality()(graph, node)
    assert part_attributes(context(graph, node), found, (2, 5))["pads"] == pads
