import math

import numpy as np
import pytest
from pass_builder import Build, applied, ops

from aicc.graph_ir.passes import winograd
from aicc.graph_ir.passes.winograd import Form, Winograd, within
from aicc.kernels import Coster
from aicc.lower import Describer
from aicc.symbolic import sym
from aicc.target import Target

THREE = ["aicc::WinogradInput", "MatMul", "aicc::WinogradOutput"]


ONE = ["aicc::WinogradConv"]


def by_tile(best, whole=False):
    """A cost that makes tiles of `best` the fastest; 0 for the direct sum."""

    def cost(graph, nodes):
        (node,) = nodes
        if node.op == "Conv":
            return 3.0
        if node.op == "aicc::WinogradFilters":
            return 30.0
        if node.op == "aicc::WinogradConv":
            return 0.5 if whole and node.attr("tile") == best else 20.0
        tile = {16: 2, 36: 4}[graph.types[node.inputs[0]].shape[0]] if node.op == "MatMul" else 0
        return 0.0 if not tile else 1.0 if tile == best else 10.0

    return cost


EACH = ["aicc::WinogradFilters", "aicc::Section", "MatMul"]
LATE = ["aicc::WinogradInput", *EACH, *EACH, "Concat", "aicc::WinogradOutput"]


def convolution(height=9, width=6, pads=(1, 1, 1, 1), **attrs):
    b = Build("conv")
    x = b.input("x", 2, height, width, 5)
    return b, b("Conv", x, b.weights(7, 5, 3, 3), pads=pads, channels_last=1, **attrs)


@pytest.mark.parametrize("tile", [2, 4])
@pytest.mark.parametrize("pads", [(1, 1, 1, 1), (0, 0, 0, 0), (2, 0, 1, 3)])
def test_a_convolution_becomes_transforms_and_products(tile, pads, golden):
    b, y = convolution(pads=pads)
    after = applied(b.done(b("Relu", y)), Winograd(by_tile(tile)))
    assert ops(after) == [*THREE, "Relu"]
    assert after.nodes[0].attr("tile") == tile
    (weights,) = after.constants.values()
    assert weights.shape == ((tile + 2) ** 2, 5, 7) and weights.dtype == np.float32
    if tile == 4 and pads == (1, 1, 1, 1):
        golden("winograd", str(after))


@pytest.mark.parametrize("tile", [2, 4])
def test_one_kernel_where_that_is_faster(tile):
    b, y = convolution()
    after = applied(b.done(b("Relu", y)), Winograd(by_tile(tile, whole=True)))
    assert ops(after) == [*ONE, "Relu"]
    assert after.nodes[0].attr("tile") == tile


@pytest.mark.parametrize(("size", "free"), [(sym("n", 3), True), (14, False)])
def test_weights_stay_beside_transformed_ones_where_a_run_chooses(size, free):
    b, y = convolution(height=size, width=size)
    after = applied(b.done(y), Winograd(by_tile(4, whole=True)))
    assert ops(after) == ONE
    (node,) = after.nodes
    assert len(node.inputs) == (3 if free else 2) and bool(node.attr("worth", ())) == free
    if free:
        assert after.constants[node.inputs[2]].shape == (7, 5, 3, 3)
        # A tile takes a sixth of the seconds of all outputs, and is of 1/56 of a row.
        each, direct, rows = node.attr("worth")
        assert each / direct == pytest.approx(0.5 / 3 * 224**2 / 56**2 / 1.25, rel=1e-3)
        assert rows == 24


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("gaps", [(2, 2), (1, 3)])
def test_windows_with_gaps(gaps, whole):
    b, y = convolution(pads=(), auto_pad="SAME_UPPER", dilations=gaps)
    after = applied(b.done(y), Winograd(by_tile(4, whole)))
    assert ops(after) == (ONE if whole else THREE)
    assert after.nodes[0].attr("dilations") == gaps
    assert after.nodes[0].attr("pads") == (*gaps, *gaps)
    assert after.types[after.outputs[0]].shape == (2, 9, 6, 7)


@pytest.mark.parametrize(
    ("size", "gap", "form"), [(65, 2, THREE), (65, 4, THREE), (33, 12, ["Conv"])]
)
def test_estimates_decide_for_windows_with_gaps(size, gap, form):
    """With gaps that are large for the image, the direct sum leaves out most of the window, and
    tiles are mostly overhang."""
    b = Build()
    x = b.input("x", 1, size, size, 256)
    w = b.const(np.zeros((256, 256, 3, 3), np.float32))
    attrs = {"pads": (gap,) * 4, "dilations": (gap, gap), "channels_last": 1}
    target = Target.from_name("x86-64-v4")
    graph = Winograd(Coster(target, Describer()))(b.done(b("Conv", x, w, **attrs)))
    assert ops(graph) == form


@pytest.mark.parametrize("mode", ["VALID", "SAME_UPPER", "SAME_LOWER"])
def test_automatic_pads(mode):
    b, y = convolution(auto_pad=mode, pads=())
    assert ops(applied(b.done(y), Winograd(by_tile(4)))) == THREE


@pytest.mark.parametrize(("size", "channels", "rows"), [(60, 64, 225), (64, 64, 257), (8, 512, 5)])
def test_matrices_are_not_a_power_of_two_apart(size, channels, rows, monkeypatch):
    monkeypatch.setattr(winograd, "ROOM", 1 << 26)
    b = Build()
    x = b.input("x", 1, size, size, channels)
    w = b.const(np.zeros((channels, channels, 3, 3), np.float32))
    y = b("Conv", x, w, pads=(1, 1, 1, 1), channels_last=1)
    after = Winograd(by_tile(4))(b.done(y))
    assert ops(after) == THREE
    assert after.types[after.nodes[1].outputs[0]].shape == (36, rows, channels)


def test_sizes_that_a_run_tells():
    from aicc.symbolic import sym

    b = Build()
    x = b.input("x", sym("n"), sym("h", lo=1), sym("w", lo=1), 4)
    y = b("Conv", x, b.weights(4, 4, 3, 3), pads=(1, 1, 1, 1), channels_last=1)
    assert ops(applied(b.done(y), Winograd(by_tile(4)))) == THREE


@pytest.mark.parametrize(
    "attrs",
    [
        {"strides": (2, 2)},
        {"strides": (1, 2)},
    ],
)
def test_other_windows_stay(attrs):
    b, y = convolution(**attrs)
    assert ops(applied(b.done(y), Winograd(by_tile(4)))) == ["Conv"]


def test_what_is_no_3x3_convolution_of_constant_weights_stays():
    b = Build()
    x = b.input("x", 1, 8, 8, 4)
    grouped = b("Conv", x, b.weights(4, 1, 3, 3), group=4, channels_last=1)
    larger = b("Conv", x, b.weights(4, 4, 5, 5), channels_last=1)
    biased = b("Conv", x, b.weights(4, 4, 3, 3), b.weights(4), channels_last=1)
    free = b("Conv", x, b.input("w", 4, 4, 3, 3), channels_last=1)
    first = b("Conv", b.input("z", 1, 4, 8, 8), b.weights(4, 4, 3, 3))
    picture = b("Conv", b.input("p", 1, 8, 8, 3), b.weights(4, 3, 3, 3), channels_last=1)
    graph = b.done(grouped, larger, biased, free, first, picture)
    assert ops(applied(graph, Winograd(by_tile(4)))) == ["Conv"] * 6


def test_the_direct_sum_stays_where_it_is_faster_and_where_no_tile_is_allowed():
    b, y = convolution()
    graph = b.done(y)
    assert ops(applied(graph, Winograd(by_tile(0)))) == ["Conv"]
    assert Winograd(by_tile(4), tiles=())(graph) is graph


@pytest.mark.parametrize(
    ("size", "channels", "tile", "form"),
    [
        (256, 32, 4, ONE),
        (160, 64, 4, ONE),
        (14, 256, 4, THREE),
        (7, 512, 2, THREE),
        (1, 512, 0, ["Conv"]),
    ],
)
def test_estimates_of_kernels_decide(size, channels, tile, form):
    """Tiles that are mostly overhang do not pay for the transforms, nor do weights that are
    too large for the caches. What is between the transforms should not go through
    memory; but weights that outgrow the cache should not be read for each band of tiles."""
    target = Target.from_name("x86-64-v4")
    b = Build()
    x = b.input("x", 1, size, size, channels)
    w = b.const(np.zeros((channels, channels, 3, 3), np.float32))
    y = b("Conv", x, w, pads=(1, 1, 1, 1), channels_last=1)
    after = Winograd(Coster(target, Describer()))(b.done(y))
    assert ops(after) == form
    if tile:
        assert after.nodes[0].attr("tile") == tile


@pytest.mark.parametrize("channels", [64, 200])
def test_one_kernel_only_where_it_can_be_computed_in_blocks(channels):
    """The caches have room for some rows of 36 matrices with few channels alone, and where only a
    run tells how many rows there are, no number of blocks divides them."""
    from aicc.symbolic import sym

    coster = Coster(Target.from_name("x86-64-v4"), Describer())
    b = Build()
    x = b.input("x", sym("n"), sym("h", lo=1), sym("w", lo=1), channels)
    y = b("Conv", x, b.weights(channels, channels, 3, 3), pads=(1, 1, 1, 1), channels_last=1)
    after = Winograd(coster)(b.done(y))
    assert ops(after) == (ONE if channels == 64 else THREE)
    assert all(coster(after, [node]) < math.inf for node in after.nodes)


@pytest.mark.parametrize("tile", [2, 4])
def test_weights_transformed_in_each_run(tile, monkeypatch, golden):
    """Where transformed weights would take more memory than there is, each run transforms them, a
    panel of filters at a time; a row more keeps the matrices from being a power of two apart."""
    b = Build("late")
    x = b.input("x", 1, 9, 6, 64)
    data = np.random.default_rng(0).standard_normal((80, 64, 3, 3)).astype(np.float32)
    graph = b.done(b("Conv", x, b.const(data), pads=(1, 1, 1, 1), channels_last=1))
    assert ops(applied(graph, Winograd(late_cost(tile)))) == THREE
    monkeypatch.setattr(winograd, "ROOM", 0)
    after = applied(graph, Winograd(late_cost(tile)))
    assert ops(after) == LATE
    assert sorted(w.shape for w in after.constants.values()) == [(3, 3, 64, 16), (3, 3, 64, 64)]
    assert ops(Winograd(late_cost(tile), late=False)(graph)) == ["Conv"]
    types = Winograd(late_cost(tile), sketch=True)(graph).types
    assert {t.shape for t in types.values()} == {t.shape for t in after.types.values()}
    if tile == 4:
        golden("winograd_late", str(after))


def late_cost(best):
    """A cost that makes tiles of `best` the fastest, and transforming weights in each run slow."""

    def cost(graph, nodes):
        (node,) = nodes
        square = graph.types[node.inputs[0]].shape[0] if node.op == "MatMul" else 0
        slow = {"Conv": 30.0, "aicc::WinogradConv": 90.0, "aicc::WinogradFilters": 2.0}
        return slow.get(node.op, 0.0) + (1.0 if square in (0, (best + 2) ** 2) else 20.0)

    return cost


def test_few_filters_are_not_transformed_in_each_run(monkeypatch):
    monkeypatch.setattr(winograd, "ROOM", 0)
    b, y = convolution()
    assert ops(Winograd(late_cost(4))(b.done(y))) == ["Conv"]


def by_pixels(graph, nodes):
    """A cost that makes tiles of 2 twice and tiles of 4 three times as fast as the direct sum."""
    (node,) = nodes
    if node.op != "Conv":
        if node.op != "MatMul":
            return 1e9 if node.op in ("aicc::WinogradConv", "aicc::WinogradFilters") else 0.0
        v, u = (graph.types[i].shape for i in node.inputs)
        tiles = np.prod(v[1:-1])
        return float(tiles * u[-1] * u[-2]) * {16: 4 / 2, 36: 16 / 3}[v[0]]
    y, w = graph.types[node.outputs[0]].shape, graph.constants[node.inputs[1]].shape
    return float(np.prod(y[1:3]) * w[0] * w[1])


def layers(*sizes, shared=False):
    """Convolutions of 64 channels over pictures of some sizes."""
    b = Build()
    rng = np.random.default_rng(0)
    w = b.const(rng.standard_normal((64, 64, 3, 3)).astype(np.float32))
    outs = []
    for n, size in enumerate(sizes):
        if n and not shared:
            w = b.const(rng.standard_normal((64, 64, 3, 3)).astype(np.float32))
        x = b.input(f"x{n}", 1, size, size, 64)
        outs.append(b("Conv", x, w, pads=(1, 1, 1, 1), channels_last=1))
    return b.done(*outs)


def tiles(graph):
    return [n.attr("tile") for n in graph.nodes if n.op == "aicc::WinogradInput"]


def test_weights_grow_where_most_time_is_saved_per_byte(monkeypatch):
    monkeypatch.setattr(winograd, "ROOM", 800_000)
    graph = layers(16, 32, 64, 128)
    after = Winograd(by_pixels)(graph)
    assert tiles(after) == [2, 2, 2, 4]
    before, now = (sum(a.nbytes for a in g.constants.values()) for g in (graph, after))
    assert before * 2 < now <= before * 7 / 3
    monkeypatch.setattr(winograd, "ROOM", 1 << 30)
    assert tiles(Winograd(by_pixels)(graph)) == [4, 4, 4, 4]


@pytest.mark.parametrize(("room", "sizes"), [(100_000, []), (250_000, [64, 128])])
def test_weights_grow_by_no_more_than_a_process_has_room_for(room, sizes, monkeypatch):
    """However large the model: two layers' weights grow by 115 KB each."""
    monkeypatch.setattr(winograd, "ROOM", room)
    after = Winograd(by_pixels)(layers(16, 32, 64, 128))
    transformed = [n for n in after.nodes if n.op == "aicc::WinogradInput"]
    assert [after.types[n.inputs[0]].shape[1] for n in transformed] == sizes
    assert tiles(after) == [2] * len(sizes)


def test_convolutions_that_share_weights_are_transformed_alike(monkeypatch):
    monkeypatch.setattr(winograd, "ROOM", 200_000)
    after = Winograd(by_pixels)(layers(16, 64, 128, shared=True))
    assert tiles(after) == [2, 2, 2]
    assert len(after.constants) == 1


def test_what_more_bytes_buy():
    first = [Form(0, 10.0, 9), Form(2, 5.0, 16), Form(4, 4.0, 36)]
    second = [Form(0, 40.0, 9), Form(2, 20.0, 16), Form(4, 16.0, 36)]
    assert within([first, second], 6) == [0, 0]
    assert within([first, second], 13) == [0, 1]
    assert within([first, second], 14) == [1, 1]
    assert within([first, second], 33) == [1, 1]
    assert within([first, second], 34) == [1, 2]
    assert within([first, second], 54) == [2, 2]
    assert within([], 0) == []


def test_weights_of_one_value_count_as_the_memory_that_they_take(monkeypatch):
    """Transformed ones take all of theirs: only up to what small models may have."""
    monkeypatch.setattr(winograd, "ROOM", 1 << 16)
    for channels, expected in ((8, THREE), (64, ["Conv"])):
        b = Build("conv")
        x = b.input("x", 2, 9, 6, channels)
        w = b.const(np.broadcast_to(np.float32(0.5), (channels, channels, 3, 3)))
        after = Winograd(by_tile(2))(b.done(b("Conv", x, w, pads=(1, 1, 1, 1), channels_last=1)))
        assert ops(after) == expected
