"""The recipe for matrix products: tiles of rows for every count of them."""

from __future__ import annotations

import math

import pytest
from recipe_check import TARGET, check

from aicc.symbolic import sym
from aicc.tensor_ir.builder import KernelBuilder
from aicc.tensor_ir.ir import For, Index, as_expr, as_index, call, cast, select
from aicc.tensor_ir.recipes.tiles import (
    Problem,
    Tile,
    choose_tile,
    row_sizes,
    tile_cost,
    whole_tiles,
)
from aicc.tensor_ir.walk import walk_stmts

N = sym("n", 1)


def product(rows, depth, columns, epilogue=None):
    b = KernelBuilder("k")
    x = b.input("x", "f32", (rows, depth))
    w = b.constant("w", "f32", (depth, columns))
    y = b.reduce((rows, columns), (depth,), lambda i, j, k: x[i, k] * w[k, j])
    if epilogue:
        y = b.compute((rows, columns), lambda i, j: call(epilogue, y[i, j]))
    b.mark_output(y)
    return b.build()


def padded(length, channels, filters):
    """A convolution along one axis, with zeros at both ends."""
    b = KernelBuilder("k")
    x = b.input("x", "f32", (length, channels))
    w = b.constant("w", "f32", (3, channels, filters))

    def inside(i, c):
        return select(
            call("and", call("ge", as_expr(i), 1), call("lt", as_expr(i), as_expr(length) + 1)),
            x[i - 1, c],
            0.0,
        )

    p = b.compute((length + 2, channels), inside)
    y = b.reduce((length, filters), (3, channels), lambda i, f, k, c: p[i + k, c] * w[k, c, f])
    b.mark_output(y)
    return b.build()


def parallel_loops(kernel):
    return [s for s in walk_stmts(kernel.body) if isinstance(s, For) and s.kind == "parallel"]


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 7, 8, 11, 13, 20, 32, 49])
@pytest.mark.parametrize("columns", [16, 40])
def test_rows_of_any_count(rows, columns):
    _, static = check(product(rows, 24, columns))
    assert any(b.scope == "register" for b in static.buffers)
    _, dynamic = check(product(N, 24, columns), {"n": rows})
    assert any(b.scope == "register" for b in dynamic.buffers)


@pytest.mark.parametrize("rows", [1, 9, 30])
def test_long_epilogues_are_computed_from_memory(rows):
    check(product(rows, 24, 48, "erf"))
    check(product(N, 24, 48, "erf"), {"n": rows})


@pytest.mark.parametrize("length", [1, 2, 9, 37])
def test_inputs_padded_for_tiles_of_every_size(length):
    check(padded(length, 16, 32))
    check(padded(N, 16, 32), {"n": length})


@pytest.mark.parametrize("rows", range(1, 200))
def test_tiles_of_two_sizes_cover_all_rows(rows):
    for height in range(1, min(rows, 16) + 1):
        left = rows
        for size, tail in row_sizes(Tile(height, 2, 16), rows):
            tiles = whole_tiles(size, left) if tail == "even" else left // size
            left -= tiles * size
        assert left == 0
        groups = -(-rows // height)
        if height > 1 and groups * height - rows <= groups:
            assert len({s for s, t in row_sizes(Tile(height, 2, 16), rows)[:2]}) == 2
            whole = whole_tiles(height, rows)
            assert (rows - whole * height) % (height - 1) == 0


def test_rows_leave_none_over():
    """Two rows over would read each panel once more: a tile of two in the time of half a dozen."""
    kernel = check(product(32, 64, 64))[1]
    shapes = [b.shape[-2] for b in kernel.buffers if b.scope == "register"]
    assert shapes and min(shapes) > 2


@pytest.mark.parametrize("rows", [None, 1, 4, 32, 49, 128, 197, 3136])
@pytest.mark.parametrize("depth", [64, 768, 3072])
def test_a_tile_fits_and_no_other_is_cheaper(rows, depth):
    problem = Problem(rows, 768, depth, 4 * depth)
    best = choose_tile(TARGET, "f32", problem)
    right = best.vectors if best.rows > 1 else 1  # a single row multiplies straight from memory
    assert best.rows * best.vectors + right + 1 <= TARGET.vector_registers
    for other in (Tile(6, 4, 16), Tile(8, 3, 16), Tile(4, 4, 16)):
        if rows is None or (other.rows <= rows and whole_tiles(other.rows, rows)):
            cost = tile_cost(TARGET, best, problem)
            assert cost <= tile_cost(TARGET, other, problem) * 1.001


def test_one_row_goes_by_as_many_panels_as_keep_threads_busy():
    def panels(depth, columns, alone):
        tile = choose_tile(TARGET, "f32", Problem(1, columns, depth, far=True, alone=alone))
        return -(-columns // tile.columns)

    assert panels(1536, 384, alone=False) < 4
    assert panels(1536, 384, alone=True) % 4 == 0
    assert panels(1280, 1000, alone=True) > 4 > panels(1280, 1000, alone=False)
    assert panels(64, 128, alone=True) == panels(64, 128, alone=False)  # one thread does it


def test_small_products_stay_on_one_thread():
    assert not parallel_loops(check(product(1, 64, 64))[1])
    assert parallel_loops(check(product(64, 128, 256))[1])


def test_single_rows_are_shared_too():
    """One row for a few panels: what a step of decoding computes."""
    (*_, last) = parallel_loops(check(product(N, 256, 128), {"n": 1})[1])
    assert "*" in str(last.hi) or not isinstance(last.hi, int)


def valid(length, channels, filters):
    """A convolution along one axis, without zeros at its ends, and a bias."""
    b = KernelBuilder("k")
    x = b.input("x", "f32", (length, channels))
    w = b.constant("w", "f32", (3, channels, filters))
    c = b.constant("c", "f32", (filters,))
    y = b.reduce((length - 2, filters), (3, channels), lambda i, f, k, c: x[i + k, c] * w[k, c, f])
    b.mark_output(b.compute((length - 2, filters), lambda i, f: y[i, f] + c[f]))
    return b.build()


@pytest.mark.parametrize("length", [2, 3, 12, 13])
def test_rows_that_a_window_leaves_are_tiles(length):
    """There are n - 2 rows: some of the columns of a tile may be missing, but no row."""
    _, made = check(valid(N, 16, 100), {"n": length})
    assert made.buffer("w").pack


@pytest.mark.parametrize("length", [4, 9, 40])
def test_rows_of_two_axes_one_of_them_a_difference_are_tiles(length):
    b = KernelBuilder("k")
    batch = sym("batch", 1)
    steps = N // 4 - 1
    x = b.input("x", "f32", (steps, batch, 16))
    w = b.constant("w", "f32", (16, 100))
    c = b.constant("c", "f32", (100,))
    y = b.reduce((steps, batch, 100), (16,), lambda t, n, f, k: x[t, n, k] * w[k, f])
    b.mark_output(b.compute((steps, batch, 100), lambda t, n, f: y[t, n, f] + c[f]))
    _, made = check(b.build(), {"n": length, "batch": 3})
    assert made.buffer("w").pack


def planes(padded_axis):
    """A window of 3 along one of two axes of rows, with zeros at its ends."""
    b = KernelBuilder("k")
    x = b.input("x", "f32", (4, 32, 24))
    w = b.constant("w", "f32", (3, 24, 32))
    extents = [4, 32]
    extents[padded_axis] += 2

    def inside(*i):
        at = list(i[:2])
        at[padded_axis] -= 1
        low = call("ge", as_expr(at[padded_axis]), 0)
        high = call("lt", as_expr(at[padded_axis]), as_expr((4, 32)[padded_axis]))
        return select(call("and", low, high), x[*at, i[2]], 0.0)

    p = b.compute((*extents, 24), inside)

    def term(t, i, f, k, c):
        at = [t, i]
        at[padded_axis] += k
        return p[*at, c] * w[k, c, f]

    b.mark_output(b.reduce((4, 32, 32), (3, 24), term))
    return b.build()


def test_a_tile_does_not_go_on_into_the_next_plane_of_a_window():
    """Whole planes around both would be copied for it."""
    _, made = check(planes(0))
    copies = [b for b in made.buffers if b.scope == "stack"]
    assert copies
    assert all(math.prod(b.shape) <= 3 * 32 * 24 for b in copies)
    check(planes(1))


@pytest.mark.parametrize("columns", [32, 40])
def test_columns_of_groups_that_lie_apart_are_copied(columns):
    """The right operand comes at run time, in groups, its depth last."""
    b = KernelBuilder("k")
    x = b.input("x", "f32", (30, 2, 24))
    w = b.input("w", "f32", (2 * columns, 24))
    y = b.reduce((30, 2, columns), (24,), lambda i, g, f, k: x[i, g, k] * w[g * columns + f, k])
    b.mark_output(b.compute((30, 2, columns), lambda i, g, f: y[i, g, f] + 1.0))
    _, made = check(b.build())
    if columns % 32 == 0:
        assert any(b.scope == "stack" and b.shape[-1] == 32 for b in made.buffers)


@pytest.mark.parametrize("length", [N, 40], ids=str)
def test_a_padded_copy_keeps_the_order_of_axes_of_its_source(length):
    """Data with channels outermost: rows of one channel are copied whole."""
    b = KernelBuilder("k")
    x = b.input("x", "f32", (3, length))
    w = b.constant("w", "f32", (32, 3, 3))
    p = b.compute(
        (length + 2, 3),
        lambda i, c: select(
            call("and", call("ge", as_expr(i), as_expr(1)), call("le", as_expr(i), length)),
            x[c, i - 1],
            0.0,
        ),
    )
    y = b.reduce((length, 32), (3, 3), lambda i, o, t, c: p[i + t, c] * w[o, c, t])
    b.mark_output(y)
    steps, _ = check(b.build(), {"n": 21})
    assert "permute" in str(steps)


@pytest.mark.parametrize("rows", [1, 6, 15, 29])
def test_windows_of_sizes_that_a_run_knows_leave_few_rows_over(rows):
    n = sym("n", lo=1)
    b = KernelBuilder("k")
    x, w = b.input("x", "f32", (n, 32)), b.constant("w", "f32", (5, 32, 40))
    y = b.reduce((n - 4, 40), (5, 32), lambda i, o, k, c: x[i + k, c] * w[k, c, o])
    b.mark_output(y)
    steps, _ = check(b.build(), {"n": rows + 4})
    assert "even" in steps


def transposed(batch, time):
    b = KernelBuilder("k")
    x, w = b.input("x", "f32", (batch, time, 32)), b.constant("w", "f32", (32, 48))
    t = b.compute((time, batch, 32), lambda i, n, c: x[n, i, c])
    y = b.reduce((time, batch, 48), (32,), lambda i, n, o, c: t[i, n, c] * w[c, o])
    b.mark_output(y)
    return b.build()


@pytest.mark.parametrize("length", [1, 5, 40])
def test_positions_that_a_copy_picks_its_elements_by_are_computed_once(length):
    """A convolution of rows that were made longer by a factor that no whole number tells."""
    b = KernelBuilder("k")
    x = b.input("x", "f32", (2, 16, N))
    w = b.constant("w", "f32", (3, 16, 3))
    long = N * 5 // 2
    near = b.compute((long,), lambda i: cast(cast(Index(i), "f32") / 2.5, "i32"), "i32")
    tall = b.compute((2, 16, long), lambda n, c, i: x[n, c, as_index(near[i], 0, None)])

    def inside(n, c, i):
        low, high = call("ge", as_expr(i), 1), call("lt", as_expr(i), as_expr(long) + 1)
        return select(call("and", low, high), tall[n, c, i - 1], 0.0)

    p = b.compute((2, 16, long + 2), inside)
    y = b.reduce((2, 3, long), (3, 16), lambda n, f, i, k, c: p[n, c, i + k] * w[f, c, k])
    b.mark_output(y)
    steps, made = check(b.build(), {"n": length})
    assert "register" in steps and made.buffer(near.name).scope == "temp"


@pytest.mark.parametrize("batch, time", [(1, 20), (3, 17), (9, 2)])
def test_rows_run_along_the_axis_whose_steps_are_known(batch, time):
    sizes = {"batch": batch, "time": time}
    _, made = check(transposed(sym("batch", lo=1), sym("time", lo=1)), sizes)
    tiles = [b.shape for b in made.buffers if b.scope == "register"]
    assert max(shape[0] for shape in tiles) > 4 and {shape[1] for shape in tiles} == {1}


def test_few_rows_are_taken_along_a_longer_axis():
    _, made = check(transposed(2, 40))
    assert max(b.shape[0] for b in made.buffers if b.scope == "register") > 4
    _, made = check(transposed(16, 40))
    assert {b.shape[0] for b in made.buffers if b.scope == "register"} == {1}


@pytest.mark.parametrize("width, several", [(14, True), (40, True), (50, False)])
def test_one_filter_over_short_rows_has_sums_of_several(width, several):
    b = KernelBuilder("k")
    x, w = b.input("x", "f32", (8, 11, width + 2)), b.constant("w", "f32", (8, 3, 3))
    y = b.reduce(
        (1, 9, width),
        (8, 3, 3),
        lambda f, i, j, c, p, q: x[c, i + p, j + q] * w[c, p, q],
    )
    b.mark_output(y)
    _, made = check(b.build())
    tile = max((b.shape for b in made.buffers if b.scope == "register"), key=math.prod)
    assert (tile[1] > 1) == several and math.prod(tile) >= 4 * TARGET.lanes("f32")


@pytest.mark.parametrize("gap", [1, 6])
def test_rows_between_those_of_a_dilated_window_are_not_copied(gap):
    b = KernelBuilder("k")
    x, w = b.input("x", "f32", (24, 20, 8)), b.constant("w", "f32", (3, 3, 8, 32))
    size = 24 + 2 * gap, 20 + 2 * gap

    def padded(i, j, c):
        inside = call("and", call("ge", Index(i - gap), 0), call("lt", Index(i - gap), 24))
        inside = call("and", inside, call("ge", Index(j - gap), 0))
        inside = call("and", inside, call("lt", Index(j - gap), 20))
        return select(inside, x[i - gap, j - gap, c], 0.0)

    p = b.compute((*size, 8), padded)
    b.mark_output(
        b.reduce(
            (24, 20, 32),
            (3, 3, 8),
            lambda i, j, o, k, m, c: p[i + k * gap, j + m * gap, c] * w[k, m, c, o],
        )
    )
    _, made = check(b.build())
    rows = [x.shape[0] for x in made.buffers if x.scope == "stack"]
    assert rows == ([4] if gap == 1 else [3]), made


@pytest.mark.parametrize("height, width", [(1, 1), (3, 6), (9, 5)])
def test_pixels_join_where_each_side_is_a_part_of_a_size(height, width):
    h, w = sym("h", 1) // 2 + 1, (sym("w", 1) + 3) // 4
    b = KernelBuilder("k")
    x, c = b.input("x", "f32", (sym("batch", 1), h, w, 24)), b.constant("c", "f32", (24, 32))
    y = b.reduce((sym("batch", 1), h, w, 32), (24,), lambda n, i, j, o, k: x[n, i, j, k] * c[k, o])
    b.mark_output(y)
    _, made = check(b.build(), {"batch": 2, "h": height, "w": width})
    assert len(made.buffer(y.name).shape) == 2


@pytest.mark.parametrize("rows", [1, 2, 10])
def test_single_rows_with_long_epilogues_stay_in_registers(rows):
    _, made = check(product(N, 24, 48, "erf"), {"n": rows})
    registers = {b.name for b in made.buffers if b.scope == "register"}
    kinds = {
        f.kind
        for f in walk_stmts(made.body)
        if isinstance(f, For) and any(f.var.name.startswith(f"{b}.1") for b in registers)
    }
    assert kinds == {"unroll", "vector"}


@pytest.mark.parametrize("batch", [1, 3])
def test_rows_of_which_there_are_many_at_least_leave_none_over(batch):
    """Rows of each example of a batch: as many as its own tiles are best for."""
    _, made = check(product(N * 197, 24, 64), {"n": batch})
    tiles = sorted({b.shape[0] for b in made.buffers if b.scope == "register"})
    assert tiles[0] == 1 and len(tiles) == 3  # single rows: not known not to be there
    assert tiles[2] == tiles[1] + 1 > 4


@pytest.mark.parametrize("batch", [N, 2], ids=str)
def test_channels_and_pixels_that_are_one_index_are_several_loops(batch):
    b = KernelBuilder("k")
    x, w = b.input("x", "f32", (batch, 3, 5, 16)), b.constant("w", "f32", (240, 32))
    turned = b.compute((batch, 16, 3, 5), lambda n, c, i, j: x[n, i, j, c])
    flat = b.compute((batch, 240), lambda n, k: turned[n, k // 15, k // 5 % 3, k % 5])
    b.mark_output(b.reduce((batch, 32), (240,), lambda n, o, k: flat[n, k] * w[k, o]))
    _, made = check(b.build(), {"n": 2})
    read = str(made).split("x[")[1].split("*w[")[0]
    assert "//" not in read and "%" not in read


@pytest.mark.parametrize("rows", [N, 20], ids=str)
def test_panels_of_a_matrix_of_a_batch_follow_each_other(rows):
    b = KernelBuilder("k")
    x, w = b.input("x", "f32", (4, rows, 24)), b.constant("w", "f32", (4, 24, 96))
    y = b.reduce((4, rows, 96), (24,), lambda m, i, o, k: x[m, i, k] * w[m, k, o])
    b.mark_output(y)
    _, made = check(b.build(), {"n": 13})
    assert made.buffer("w").shape[0] == 4 and made.buffer("w").pack.startswith("0 2/")


@pytest.mark.parametrize("height, width", [(1, 1), (3, 7), (16, 5), (4, 40)])
def test_pixels_that_are_columns_join(height, width):
    """A 1x1 convolution of channels before pixels: vectors go on in the next row of pixels, where
    rows may be far shorter than a vector."""
    h, w = sym("h", 1), sym("w", 1)
    b = KernelBuilder("k")
    x = b.input("x", "f32", (N, 12, h, w))
    u = b.constant("u", "f32", (20, 12))
    y = b.reduce((N, 20, h, w), (12,), lambda n, f, i, j, k: u[f, k] * x[n, k, i, j])
    b.mark_output(y)
    _, made = check(b.build(), {"n": 2, "h": height, "w": width})
    assert len(made.buffer(y.name).shape) == 3
