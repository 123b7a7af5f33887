"""The recipe for windows whose contiguous axis is not summed: depthwise convolution, pooling."""

from __future__ import annotations

import re

import pytest
from recipe_check import TARGET, check

from aicc.symbolic import sym
from aicc.tensor_ir.builder import KernelBuilder
from aicc.tensor_ir.ir import For, If, Index, Op, call, const, select
from aicc.tensor_ir.walk import stmt_exprs, walk_expr, walk_stmts


def padded(b, x, pad, fill=0.0, prologue=False):
    batch, height, width, channels = x.shape

    def element(n, h, w, c):
        inside = const(True, "bool")
        for i, size in ((h - pad, height), (w - pad, width)):
            inside = call("and", inside, call("ge", Index(i), 0))
            inside = call("and", inside, call("lt", Index(i), as_index(size)))
        value = x[n, h - pad, w - pad, c]
        return select(inside, call("exp", value) if prologue else value, const(fill, "f32"))

    return b.compute((batch, height + 2 * pad, width + 2 * pad, channels), element, name="padded")


def as_index(size):
    return size if isinstance(size, int) else Index(size)


def depthwise(shape, window, stride=1, bias=True, prologue=False, filters=1):
    """[N, H, W, C] with zeros around, windows of `filters` filters for each channel."""
    b = KernelBuilder("k")
    x = b.input("x", "f32", shape)
    batch, height, width, channels = shape
    channels *= filters
    w = b.constant("w", "f32", (channels, window, window))
    data = padded(b, x, window // 2, prologue=prologue)
    out = (batch, (height - 1) // stride + 1, (width - 1) // stride + 1, channels)

    def term(n, h, v, c, p, q):
        return data[n, h * stride + p, v * stride + q, c // filters] * w[c, p, q]

    y = b.reduce(out, (window, window), term)
    if bias:
        shift = b.constant("b", "f32", (channels,))
        y = b.compute(out, lambda n, h, v, c: call("max", y[n, h, v, c] + shift[c], 0.0))
    b.mark_output(y)
    return b.build()


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("window", [3, 5])
@pytest.mark.parametrize("shape", [(1, 6, 8, 16), (2, 7, 9, 21), (1, 1, 5, 32), (1, 4, 1, 5)])
def test_borders_are_left_out_of_loads(shape, window, stride):
    _, made = check(depthwise(shape, window, stride))
    assert {b.scope for b in made.buffers if b not in made.params} <= {"register"}


@pytest.mark.parametrize("channels", [16, 20])
@pytest.mark.parametrize("window", [7, 19])
def test_wide_windows_share_what_results_side_by_side_load(window, channels):
    _, made = check(depthwise((1, 4, 16, channels), window))
    loops = [s for s in walk_stmts(made.body) if isinstance(s, For)]
    along = [s for s in loops if "k1" in s.var.name and s.kind == "unroll"]
    assert [s.extent for s in along] == ([window] if window == 7 else [10, 9])
    rows = next(s for s in loops if s.var.name.endswith("k0"))
    (choice,) = rows.body  # what is beyond the first or last row is decided once for a row
    assert isinstance(choice, If) and not choice.orelse


@pytest.mark.parametrize("width", [17, sym("w", 1, 400)])
@pytest.mark.parametrize(("channels", "window", "vectors"), [(256, 3, 8), (256, 5, 4), (80, 3, 0)])
def test_pixels_in_few_sets_of_the_cache(channels, window, vectors, width):
    """Tiles go through several vectors of channels where the next one would not find its data in
    the first cache."""
    counted = isinstance(width, int)
    vectors = vectors if counted or vectors == 8 else 0
    for stride in (1, 2) if counted else (1,):
        kernel = depthwise((1, 4, width, channels), window, stride)
        _, made = check(kernel, {} if counted else {"w": 17})
        loops = [s for s in walk_stmts(made.body) if isinstance(s, For)]
        through = [s for s in loops if re.match(r"i3_\d+\.o\.i[.pt]*$", s.var.name)]
        assert {s.extent for s in through} == ({vectors} if vectors else set())
        inside = [c for s in through for c in walk_stmts(s.body) if isinstance(c, For)]
        assert not any(c.kind == "for" and "k" not in c.var.name for c in inside)


@pytest.mark.parametrize(("size", "window", "band"), [((8, 9, 512), 5, 8), ((8, 40, 256), 7, 4)])
@pytest.mark.parametrize("prologue", [False, True])
def test_wide_windows_over_pixels_in_few_sets_read_a_copy(size, window, band, prologue):
    """Of as many rows as stay in the first cache, with their padding; rows that are nothing but
    padding are left out."""
    kernel = depthwise((1, *size), window, prologue=prologue)
    _, made = check(kernel)
    (copy,) = (b for b in made.buffers if b.scope == "stack")
    assert copy.shape == (1, band + window - 1, size[1] + window - 1, 16)
    loops = [s for s in walk_stmts(made.body) if isinstance(s, For) and s.kind == "for"]
    taps = [s for s in loops if s.var.name.endswith(".k0")]
    assert taps
    for s in taps:
        (choice,) = s.body
        assert isinstance(choice, If) and not choice.orelse
        assert not any(e.name == "select" for e in all_ops(choice))


def test_copies_larger_than_the_cache_are_not_made():
    _, made = check(depthwise((1, 2, 200, 256), 5))
    assert {b.scope for b in made.buffers if b not in made.params} == {"register"}


def all_ops(s):
    exprs = [e for x in walk_stmts((s,)) for e in stmt_exprs(x)]
    return [x for e in exprs for x in walk_expr(e) if isinstance(x, Op)]


@pytest.mark.parametrize("prologue", [False, True])
def test_what_is_computed_is_copied_once_per_band(prologue):
    steps, made = check(depthwise((1, 48, 8, 16), 3, prologue=prologue))
    assert ("stack" in {b.scope for b in made.buffers}) == prologue
    assert "parallel" in steps


def test_weights_stay_for_the_rows_of_a_band():
    rows, channels = 32, 96
    _, made = check(depthwise((1, rows, 32, channels), 3))
    outer, inner = made.body[0], made.body[0].body[0]
    assert outer.kind == "parallel"
    bands = outer.extent // (channels // 16)
    assert bands * inner.extent == rows
    assert inner.extent * 2 * 4 * 32 * channels <= TARGET.l2 // 2


@pytest.mark.parametrize("height, width", [(5, 11), (1, 1), (2, 3), (9, 26)])
@pytest.mark.parametrize("window, stride", [(3, 1), (3, 2), (5, 2)])
def test_sizes_that_a_run_knows(window, stride, height, width):
    n, h, w = sym("n", lo=1), sym("h", lo=1), sym("w", lo=1)
    sizes = {"n": 2, "h": height, "w": width}
    steps, made = check(depthwise((n, h, w, 16), window, stride), sizes)
    assert "register" in steps and "stack" not in steps
    tiles = str(made).split("for i2_2.p.a.o in ")[1].split("for i2_2.p.p.p")[0]
    assert "select" not in tiles  # of the borders, only rows are looked at, once for each


@pytest.mark.parametrize("height, width", [(5, 11), (1, 1), (40, 70)])
@pytest.mark.parametrize("window, stride", [(3, 1), (3, 2), (7, 1)])
def test_channels_that_fill_no_vector_where_a_run_knows_the_sizes(window, stride, height, width):
    n, h, w = sym("n", lo=1), sym("h", lo=1), sym("w", lo=1)
    kernel = depthwise((n, ((h + 1) // 2 + 1) // 2, (w + 3) // 4, 24), window, stride)
    steps, made = check(kernel, {"n": 1, "h": height, "w": width})
    assert "register" in steps and "stack" not in steps
    conditions = [str(s).splitlines()[0] for s in walk_stmts(made.body) if isinstance(s, If)]
    channels = [c for c in conditions if "< 24" in c]  # of them alone: rows are inside
    assert channels and all(" and " not in c for c in channels)


@pytest.mark.parametrize("width", range(1, 20))
@pytest.mark.parametrize("window", [5, 7])
def test_results_at_the_ends_of_a_row_are_tiles(window, width):
    n, h, w = sym("n", lo=1), sym("h", lo=1), sym("w", lo=1)
    sizes = {"n": 1, "h": 3, "w": width}
    steps, made = check(depthwise((n, h, w // 2 + 1, 16), window), sizes)
    pad = window // 2
    tiles = {b.shape[2] for b in made.buffers if b.scope == "register"}
    assert min(tiles) == pad  # before the first window inside; none of a single result
    assert steps.count("guard") == 2


def test_maximum_over_windows():
    b = KernelBuilder("k")
    x = b.input("x", "f32", (1, 7, 7, 24))
    data = padded(b, x, 1, fill=float("-inf"))
    y = b.reduce(
        (1, 4, 4, 24), (3, 3), lambda n, h, w, c, p, q: data[n, h * 2 + p, w * 2 + q, c], op="max"
    )
    b.mark_output(y)
    _, made = check(b.build())
    assert "stack" not in {b.scope for b in made.buffers}


@pytest.mark.parametrize("filters", [2, 4, 3])
@pytest.mark.parametrize("channels", [2, 8, 16, 21])
def test_channels_with_several_filters(filters, channels):
    _, made = check(depthwise((1, 5, 6, channels), 3, filters=filters))
    assert {b.scope for b in made.buffers if b not in made.params} <= {"register"}
    columns = {n.extent for n in walk_stmts(made.body) if isinstance(n, For) and n.kind == "vector"}
    width = channels * filters
    assert columns == {width if width in (4, 8) else 16}  # few channels fill a vector of their own


@pytest.mark.parametrize("height, width", [(5, 5), (7, 23), (40, 70)])
def test_rows_of_which_there_may_be_less_than_none(height, width):
    """A window without zeros around: of a single pixel there is less than no result."""
    h, w = (sym("h", lo=1) + 1) // 2, (sym("w", lo=1) + 1) // 2
    b = KernelBuilder("k")
    x = b.input("x", "f32", (h, w, 16))
    out = (h // 2 - 1, w // 2 - 1, 16)
    y = b.reduce(out, (3, 3), lambda i, j, c, p, q: x[i * 2 + p, j * 2 + q, c], op="max")
    b.mark_output(y)
    _, made = check(b.build(), {"h": height, "w": width})
    assert "register" in {v.scope for v in made.buffers}
