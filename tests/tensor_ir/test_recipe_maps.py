"""The recipe for maps: chains over joined axes read their operands in order."""

from __future__ import annotations

import functools

import pytest
from recipe_check import TARGET, check

from aicc.symbolic import maximum, minimum, sym
from aicc.tensor_ir.builder import KernelBuilder
from aicc.tensor_ir.ir import Check, For, Op, Store, as_expr, as_index, call, select
from aicc.tensor_ir.recipes import scheduled
from aicc.tensor_ir.walk import walk_expr, walk_stmts


@pytest.mark.parametrize("shape", [(6, 26), (1, 7, 5, 13), (3, 4, 5, 6), (2, 1, 5, 2, 3)])
def test_all_axes_of_a_chain_join(shape):
    b = KernelBuilder("k")
    x, w = b.input("x", "f32", shape), b.input("w", "f32", shape)
    t = b.compute(shape, lambda *i: x[i] * 0.5 + w[i])
    b.mark_output(b.compute(shape, lambda *i: call("max", t[i], 0.0)))
    _, made = check(b.build())
    assert "//" not in str(made) and "%" not in str(made)


@pytest.mark.parametrize(("rows", "columns"), [(333, 3), (5000, 3), (5000, 4), (700, 7), (90, 15)])
def test_rows_shorter_than_a_vector_are_joined(rows, columns):
    """One number for each column and one for each row come from known places; 15 vectors after
    which the places are the same again are too many, and a transpose's are far from each other."""
    b = KernelBuilder("k")
    x, w = b.input("x", "f32", (rows, columns)), b.input("w", "f32", (columns,))
    r = b.input("r", "f32", (rows, 1))
    b.mark_output(b.compute((rows, columns), lambda i, j: x[i, j] * w[j] + r[i, 0]))
    steps, made = check(b.build())
    assert ("fuse_axes(t, 0)" in steps) == (columns < 8)
    assert [v.shape for v in made.buffers if v.scope == "out"] == [
        (rows * columns,) if columns < 8 else (rows, columns)
    ]
    b = KernelBuilder("k")
    x = b.input("x", "f32", (columns, rows))
    b.mark_output(b.compute((rows, columns), lambda i, j: x[j, i]))
    assert "fuse_axes" not in check(b.build())[0]


@pytest.mark.parametrize("rows", [16, 49, sym("r", 16)])
@pytest.mark.parametrize(("columns", "panels"), [(256, True), (1024, True), (1040, False)])
@pytest.mark.parametrize("images", [1, 2])
def test_rows_in_few_sets_of_the_cache_are_written_in_runs(images, columns, panels, rows):
    """A transpose whose result's rows are a power of two apart goes by panels of blocks."""
    b = KernelBuilder("k")
    x = b.input("x", "f32", (images, columns, rows))
    b.mark_output(b.compute((images, rows, columns), lambda n, i, j: x[n, j, i]))
    _, made = check(b.build(), {} if isinstance(rows, int) else {"r": 37})
    stacks = [c.shape[-2:] for c in made.buffers if c.scope == "stack"]
    assert stacks == ([(16, 128)] if panels else [])
    shared = [s for s in walk_stmts(made.body) if isinstance(s, For) and s.kind == "parallel"]
    assert shared or images * columns * 16 < 2**15


@pytest.mark.parametrize(("rows", "inner"), [(64, 4), (16, 16), (10, 4), (32, 2)])
@pytest.mark.parametrize("reads", [True, False], ids=["reads", "writes"])
def test_rows_of_blocks_that_are_less_than_a_line_come_together(rows, inner, reads):
    """Rows of a transpose that lie side by side are computed one after the other."""
    b = KernelBuilder("k")
    if reads:
        x = b.input("x", "f32", (32, rows, inner))
        b.mark_output(b.compute((inner, rows, 32), lambda i, j, k: x[k, j, i]))
    else:
        x = b.input("x", "f32", (inner, rows, 32))
        b.mark_output(b.compute((32, rows, inner), lambda i, j, k: x[k, j, i]))
    steps, _ = check(b.build())
    whole = 256 // (4 * inner)
    assert (f"split(i1, {whole}" in steps) == (rows % whole == 0 and inner >= 4), steps


def test_reads_that_reflect_are_cut_where_they_turn():
    """Between the turns every index is linear: rows come in vectors, not lane by lane."""
    b = KernelBuilder("k")
    x = b.input("x", "f32", (4, 112))

    def reflected(i, j):
        away = maximum(2 - j, j - 2)  # |j - 2|, and back from the last element
        return x[i, minimum(away, 222 - away)]

    b.mark_output(b.compute((4, 116), reflected))
    steps, made = check(b.build())
    assert "partition(i1, 2); partition(i1.p, 112)" in steps, steps
    assert "max(" not in str(made) and "min(" not in str(made)


def test_reads_that_repeat_are_split_at_their_period():
    b = KernelBuilder("k")
    x = b.input("x", "f32", (4, 56))
    b.mark_output(b.compute((4, 168), lambda i, j: x[i, j % 56]))
    steps, made = check(b.build())
    assert "split(i1, 56)" in steps and "%" not in str(made)


def test_checks_of_indices_leave_a_gather_in_vectors():
    b = KernelBuilder("k")
    x, at = b.input("x", "f32", (20, 64)), b.input("at", "i64", (6,))
    with b.loop("c", 0, 6) as c:
        b.check(call("lt", at[c], 20), "index out of range")

    def element(i, j):
        row = select(call("lt", at[i], 0), at[i] + 20, at[i])
        return x[as_index(row, 0, 19), j]

    b.mark_output(b.compute((6, 64), element))
    made, _ = scheduled(b.build(), TARGET)
    assert "vector " in str(made) and "check " in str(made)
    assert all(f.kind == "vector" for f in inner_loops(made) if any_check(f)), made


def any_check(s):
    return any(isinstance(x, Check) for x in walk_stmts((s,)))


def inner_loops(made):
    loops = [s for s in walk_stmts(made.body) if isinstance(s, For)]
    return [f for f in loops if not any(isinstance(x, For) for x in walk_stmts(f.body))]


def test_axes_behind_one_that_data_choose_are_one_row():
    b = KernelBuilder("k")
    x, at = b.input("x", "f32", (20, 7, 11)), b.input("at", "i64", (6,))

    def element(i, j, k):
        return x[as_index(at[i], 0, 19), j, k]

    b.mark_output(b.compute((6, 7, 11), element))
    made, _ = scheduled(b.build(), TARGET)
    assert made.buffer("x").shape == (20, 77), made
    assert all(f.kind == "vector" for f in inner_loops(made)), made


def test_reads_that_start_again_are_cut_there():
    b = KernelBuilder("k")
    x = b.input("x", "f32", (4, 100))
    b.mark_output(b.compute((4, 104), lambda i, j: x[i, (j + 98) % 100]))
    steps, made = check(b.build())
    assert "partition(i1, 2); partition(i1.p, 100)" in steps, steps
    assert "%" not in str(made)


def test_quotients_that_are_clamped_are_cut_where_they_turn():
    """Linear in between: every element twice, but for the ends."""
    b = KernelBuilder("k")
    x = b.input("x", "f32", (40,))
    b.mark_output(
        b.compute((80,), lambda i: x[maximum((i + 1) // 2 - 1, 0)] + x[minimum((i + 1) // 2, 39)])
    )
    _, made = check(b.build())
    assert "max" not in str(made) and "min" not in str(made)


@pytest.mark.parametrize("times", [3, 5])
def test_quotients_that_no_vector_has_whole_come_in_groups_of_vectors(times):
    """Each element `times` times: in a group of vectors all places are known, none is gathered."""
    b = KernelBuilder("k")
    x = b.input("x", "f32", (4, 50))
    b.mark_output(b.compute((4, 50 * times), lambda i, j: x[i, j // times]))
    steps, made = check(b.build())
    assert f"split(i1, {16 * times}, peel)" in steps, steps
    assert f"unroll i1.i.o in 0..{times}" in str(made), made


def test_the_inside_of_what_is_padded_along_several_axes_is_a_nest_of_its_own():
    b = KernelBuilder("k")
    x = b.input("x", "f32", (2, 5, 6, 20))

    def element(*i):
        inside = [f for v, d in zip(i, (2, 5, 6, 20), strict=True) for f in within(v - 1, d)]
        return select(functools.reduce(lambda p, q: call("and", p, q), inside), x[moved(i)], 7.0)

    def within(v, d):
        return call("ge", as_expr(v), 0), call("lt", as_expr(v), d)

    def moved(i):
        return tuple(v - 1 for v in i)

    b.mark_output(b.compute((4, 7, 8, 22), element))
    _, made = check(b.build())
    reading = [nest for nest in made.body if "x[" in str(nest)]
    assert len(reading) == 1, made
    stores = [s for s in walk_stmts(tuple(reading)) if isinstance(s, Store)]
    conditions = [e for s in stores for e in walk_expr(s.value) if isinstance(e, Op)]
    compared = [e for e in conditions if e.name in ("ge", "lt")]
    assert compared and all("i3" in str(e.args[0]) for e in compared), made


@pytest.mark.parametrize("to_channels", [False, True])
@pytest.mark.parametrize("height, width", [(1, 1), (3, 5), (4, 8), (6, 11)])
@pytest.mark.parametrize("channels", [4, 32, 40])
def test_transposes_of_sizes_that_a_run_knows_go_by_blocks(to_channels, height, width, channels):
    """Whole blocks, however many there are, and vectors over what they leave."""
    n, h, w = sym("n", 1), sym("h", 1), sym("w", 1)
    b = KernelBuilder("k")
    before, after = (n, channels, h, w), (n, h, w, channels)
    if to_channels:
        x = b.input("x", "f32", after)
        b.mark_output(b.compute(before, lambda i, c, j, k: x[i, j, k, c]))
    else:
        x = b.input("x", "f32", before)
        b.mark_output(b.compute(after, lambda i, j, k, c: x[i, c, j, k]))
    _, made = check(b.build(), {"n": 2, "h": height, "w": width})
    unrolled = [s for s in walk_stmts(made.body) if isinstance(s, For) and s.kind == "unroll"]
    assert [s.extent for s in unrolled] == [min(channels // 4 * 4, 16)]


@pytest.mark.parametrize(
    ("rows", "columns", "block"),
    [(100, 5000, True), (sym("n", 1), 5000, True), (10, 5000, False), (2000, 500, False)],
)
def test_long_rows_of_large_results_are_copied_as_blocks(rows, columns, block):
    b = KernelBuilder("k")
    x = b.input("x", "f32", (rows, columns + 3))
    b.mark_output(b.compute((rows, columns), lambda i, j: x[i, j + 3]))
    made, _ = scheduled(b.build(), TARGET)
    kinds = {s.kind for s in walk_stmts(made.body) if isinstance(s, For)}
    assert ("vector" not in kinds) == block
    assert "parallel" in kinds
