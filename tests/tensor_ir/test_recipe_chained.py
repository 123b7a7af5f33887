"""The recipe for two products with rows between them, on attention in the forms of exporters."""

from __future__ import annotations

import numpy as np
import pytest
import recipe_check

from aicc.symbolic import evaluate, sym
from aicc.target import Target
from aicc.tensor_ir.builder import KernelBuilder
from aicc.tensor_ir.interp import run
from aicc.tensor_ir.ir import For, Kernel, Store, call, select
from aicc.tensor_ir.recipes import scheduled
from aicc.tensor_ir.recipes.chained import block_of, has_chain
from aicc.tensor_ir.recipes.common import stride_in
from aicc.tensor_ir.recipes.cost import estimate
from aicc.tensor_ir.schedule_text import parse_steps, print_steps
from aicc.tensor_ir.verify import verify
from aicc.tensor_ir.walk import loads_of, walk_expr, walk_stmts

TARGET = Target.from_name("x86-64-v4")
SYMBOLS = sym("b", 1), sym("n", 1), sym("m", 1)


def attention(
    heads=2,
    rows=9,
    keys=20,
    depth=16,
    width=16,
    batch=1,
    group=1,
    masked=True,
    scaled=True,
    capped=False,
    windows=0,
    merged=False,
) -> Kernel:
    """softmax(q k^T * scale + mask) v for [batch, position, head, depth] operands; `group` heads
    share keys and values; capped: scores go through tanh; windows: a mask tells so many matrices of
    the batch apart; merged: the result is [batch, position, head, depth]."""
    b = KernelBuilder("k")
    q = b.input("q", "f32", (batch, rows, heads, depth))
    k = b.input("k", "f32", (batch, keys, heads // group, depth))
    v = b.input("v", "f32", (batch, heads // group, keys, width))
    shape = (batch, heads, rows, keys)
    qt = b.compute((batch, heads, rows, depth), lambda n, h, i, d: q[n, i, h, d])
    kt = b.compute((batch, heads, depth, keys), lambda n, h, d, j: k[n, j, h // group, d])
    s = b.reduce(shape, (depth,), lambda n, h, i, j, d: qt[n, h, i, d] * kt[n, h, d, j])
    if scaled:
        s = b.compute(shape, lambda *i, s=s: s[i] * 0.25)
    if capped:
        s = b.compute(shape, lambda *i, s=s: call("tanh", s[i]) * 5.0)
    if masked:
        mask = b.input("mask", "f32", (batch, 1, rows, keys))
        s = b.compute(shape, lambda n, h, i, j, s=s: s[n, h, i, j] + mask[n, 0, i, j])
    if windows:
        apart = b.input("mask", "f32", (windows, 1, rows, keys))
        wide = (batch // windows, windows, *shape[1:])
        s = b.compute(
            wide,
            lambda o, w, h, i, j, s=s: s[o * windows + w, h, i, j] + apart[w, 0, i, j],
        )
        s = b.compute(shape, lambda n, h, i, j, s=s: s[n // windows, n % windows, h, i, j])
    top = b.reduce((*shape[:3], 1), (keys,), lambda n, h, i, o, j: s[n, h, i, j], op="max")
    e = b.compute(shape, lambda n, h, i, j: call("exp", s[n, h, i, j] - top[n, h, i, 0]))
    total = b.reduce((*shape[:3], 1), (keys,), lambda n, h, i, o, j: e[n, h, i, j])
    part = b.compute((*shape[:3], 1), lambda *i: 1.0 / total[i])
    p = b.compute(shape, lambda n, h, i, j: e[n, h, i, j] * part[n, h, i, 0])
    p = b.compute(shape, lambda *i, p=p: select(call("isnan", p[i]), 0.0, p[i]))
    if merged:
        y = b.reduce(
            (batch, rows, heads, width),
            (keys,),
            lambda n, i, h, d, j: p[n, h, i, j] * v[n, h // group, j, d],
        )
    else:
        y = b.reduce(
            (batch, heads, rows, width),
            (keys,),
            lambda n, h, i, d, j: p[n, h, i, j] * v[n, h // group, j, d],
        )
    b.mark_output(y)
    return b.build()


@pytest.fixture(autouse=True)
def small_loops_are_shared(monkeypatch):
    monkeypatch.setattr("aicc.tensor_ir.recipes.common.SHARED_CYCLES", 1000)


def results(kernel: Kernel, sizes) -> np.ndarray:
    """What the interpreter computes, with a mask of which whole rows are -inf."""
    rng = np.random.default_rng(0)
    arrays = {}
    for p in kernel.params:
        shape = tuple(evaluate(d, sizes) for d in p.shape)
        a = rng.standard_normal(shape).astype(np.float32)
        if p.name == "mask":
            hidden = rng.random(shape) < 0.4
            hidden[:, :, 1 % shape[2]] = True
            a = np.where(hidden, np.float32(-np.inf), a)
        arrays[p.name] = a if p.scope != "out" else np.full(shape, np.nan, np.float32)
    with np.errstate(invalid="ignore"):
        run(kernel, arrays, sizes)
    return next(arrays[p.name] for p in kernel.params if p.scope == "out")


def check(kernel: Kernel, sizes=None) -> tuple[Kernel, str]:
    """The schedule of a kernel, which changes nothing but rounding, and its steps."""
    made, steps = scheduled(kernel, TARGET)
    verify(made)
    text = print_steps(steps)
    assert parse_steps(text) == steps
    got = results(made, sizes or {})
    assert np.isfinite(got).all()
    np.testing.assert_allclose(got, results(kernel, sizes or {}), rtol=1e-5, atol=1e-6)
    return made, text


def parallel_loops(kernel: Kernel) -> list[For]:
    found = [s for s in walk_stmts(kernel.body) if isinstance(s, For)]
    return [f for f in found if f.kind == "parallel"]


def in_memory(kernel: Kernel) -> set[str]:
    return {b.name for b in kernel.buffers if b.scope == "temp"}


@pytest.mark.parametrize("rows", [8, 9, 25])
@pytest.mark.parametrize("keys", [16, 20, 37])
def test_blocks_of_rows(rows, keys):
    kernel = attention(heads=8, rows=rows, keys=keys)
    assert has_chain(kernel)
    block = block_of(kernel, TARGET)
    assert block is not None and rows <= block.waste * rows < rows + block.rows
    made, text = check(kernel)
    assert "within" in text or keys % block.first.columns == 0
    assert not in_memory(made)
    (loop,) = parallel_loops(made)
    assert loop.extent == 8


@pytest.mark.parametrize(
    "options",
    [
        {"masked": False},
        {"scaled": False, "masked": False},
        {"capped": True},
        {"depth": 20},
        {"merged": True},
        {"masked": False, "batch": 4, "windows": 2},
        {"width": 24},
        {"group": 4, "heads": 8},
        {"group": 8, "heads": 8, "batch": 2},
    ],
    ids=str,
)
def test_forms(options):
    made, _ = check(attention(**{"heads": 8, **options}))
    assert not in_memory(made)


def test_what_a_row_shares_and_is_costly_is_computed_once_for_it():
    made, _ = check(attention(heads=8, rows=16, keys=32))
    stores = [s for s in walk_stmts(made.body) if isinstance(s, Store)]
    (divides,) = [
        s for s in stores if any(getattr(e, "name", "") == "div" for e in walk_expr(s.value))
    ]
    assert made.buffer(divides.buffer).shape[-1] == 1


def side_by_side(heads=8, rows=20, depth=16, columns_first=True, one=True) -> Kernel:
    """softmax(q^T k) v^T where positions are side by side in memory, or only those of v are; q, k
    and v are parts of one tensor, or tensors of their own."""
    b = KernelBuilder("k")
    shape = (heads, 3 * depth, rows) if columns_first else (heads, rows, 3 * depth)
    names = ["x"] * 3 if one else ["q", "k", "v"]
    made = {n: b.input(n, "f32", shape) for n in dict.fromkeys(names)}
    q, k, v = (made[n] for n in names)

    def at(x, h, i, d):
        return x[h, d, i] if columns_first else x[h, i, d]

    s = b.reduce(
        (heads, rows, rows), (depth,), lambda h, i, j, d: at(q, h, i, d) * at(k, h, j, d + depth)
    )
    top = b.reduce((heads, rows, 1), (rows,), lambda h, i, o, j: s[h, i, j], op="max")
    e = b.compute((heads, rows, rows), lambda h, i, j: call("exp", s[h, i, j] - top[h, i, 0]))
    total = b.reduce((heads, rows, 1), (rows,), lambda h, i, o, j: e[h, i, j])
    p = b.compute((heads, rows, rows), lambda h, i, j: e[h, i, j] * (1.0 / total[h, i, 0]))
    b.mark_output(
        b.reduce(
            (heads, rows, depth),
            (rows,),
            lambda h, i, d, j: p[h, i, j] * at(v, h, j, d + 2 * depth),
        )
    )
    return b.build()


@pytest.mark.parametrize("heads", [2, 8])
@pytest.mark.parametrize("rows", [16, 20, 37])
@pytest.mark.parametrize("columns_first", [True, False])
@pytest.mark.parametrize("one", [True, False])
def test_parts_of_one_tensor_in_any_order(heads, rows, columns_first, one):
    made, text = check(side_by_side(heads, rows, columns_first=columns_first, one=one))
    assert "outline" in text
    assert bool(in_memory(made)) == (heads < 8)


@pytest.mark.parametrize(("rows", "copied"), [(16, False), (64, True)])
def test_rows_apart_are_copied_for_many_blocks(rows, copied):
    _, text = check(side_by_side(rows=rows, columns_first=False))
    assert ("outline(r_3.acc, 1" in text) == copied


@pytest.mark.parametrize("rows", [20, 37])
def test_constants_that_are_added_lie_in_the_order_of_tiles(rows):
    b = KernelBuilder("k")
    q, k, v = (b.input(n, "f32", (8, rows, 16)) for n in "qkv")
    shape = (8, rows, rows)
    bias = b.constant("w", "f32", shape)
    s = b.reduce(shape, (16,), lambda h, i, j, d: q[h, i, d] * k[h, j, d])
    s = b.compute(shape, lambda *i, s=s: s[i] * 0.25 + bias[i])
    top = b.reduce((8, rows, 1), (rows,), lambda h, i, o, j: s[h, i, j], op="max")
    p = b.compute(shape, lambda h, i, j: call("exp", s[h, i, j] - top[h, i, 0]))
    b.mark_output(b.reduce((8, rows, 16), (rows,), lambda h, i, d, j: p[h, i, j] * v[h, j, d]))
    steps, made = recipe_check.check(b.build())
    assert "pack(w, " in steps
    (vectors,) = (
        s
        for s in walk_stmts(made.body)
        if isinstance(s, For) and s.kind == "vector" and "w" in {x.buffer for x in loads_of(s)}
    )
    assert "select" not in str(vectors)


@pytest.mark.parametrize("rows", [32, 37])
def test_columns_apart_are_turned_once_for_all_blocks(rows):
    """Products read vectors: what is gathered is copied in blocks, outside the loop over rows."""
    made, _ = check(side_by_side(rows=rows))
    (loop,) = parallel_loops(made)
    gathering = [
        place
        for place, nest in enumerate(loop.body)
        for s in walk_stmts((nest,))
        if isinstance(s, For) and s.kind == "vector"
        for x in (x for inner in s.body for x in loads_of(inner))
        if stride_in(made, x, s.var) not in (0, 1)
    ]
    assert gathering and len(loop.body) - 1 not in gathering


@pytest.mark.parametrize("sizes", [{"b": 1, "n": 1, "m": 1}, {"b": 2, "n": 14, "m": 35}])
def test_lengths_that_only_a_run_knows(sizes):
    b, n, m = SYMBOLS
    made, _ = check(attention(heads=8, batch=b, rows=n, keys=m, group=2), sizes)
    assert not in_memory(made)
    assert len(parallel_loops(made)) == 1


def test_few_matrices_share_the_blocks_of_each():
    """The panels of the first product are made before, since all blocks read them."""
    made, _ = check(attention(heads=2, rows=64, keys=32))
    assert len(in_memory(made)) == 1
    assert any(loop.extent > 2 for loop in parallel_loops(made))


def test_threads_write_apart():
    made, _ = check(attention(heads=8))
    (loop,) = parallel_loops(made)
    private = {b.name for b in made.buffers if b.scope in ("stack", "register")}
    written = {s.buffer for s in walk_stmts(loop.body) if hasattr(s, "indices")}
    assert written - private == {b.name for b in made.params if b.scope == "out"}


def one_product_more() -> Kernel:
    b = KernelBuilder("k")
    x, y = b.input("x", "f32", (16, 16)), b.input("y", "f32", (16, 16))
    w = b.input("w", "f32", (16, 16))
    s = b.reduce((16, 16), (16,), lambda i, j, k: x[i, k] * y[k, j])
    t = b.reduce((16, 16), (16,), lambda i, j, k: s[i, k] * w[k, j])
    b.mark_output(t)
    return b.build()


def columns_reduced() -> Kernel:
    """What is between the products reads other rows."""
    b = KernelBuilder("k")
    x, y = b.input("x", "f32", (16, 16)), b.input("y", "f32", (16, 16))
    w = b.input("w", "f32", (16, 16))
    s = b.reduce((16, 16), (16,), lambda i, j, k: x[i, k] * y[k, j])
    top = b.reduce((16, 1), (16,), lambda j, o, i: s[i, j], op="max")
    p = b.compute((16, 16), lambda i, j: s[i, j] - top[j, 0])
    b.mark_output(b.reduce((16, 16), (16,), lambda i, j, k: p[i, k] * w[k, j]))
    return b.build()


def weights() -> Kernel:
    """A perceptron with a softmax inside: each block of rows would read all weights anew."""
    b = KernelBuilder("k")
    x = b.input("x", "f32", (64, 16))
    u, w = b.constant("u", "f32", (16, 48)), b.constant("w", "f32", (48, 16))
    s = b.reduce((64, 48), (16,), lambda i, j, k: x[i, k] * u[k, j])
    top = b.reduce((64, 1), (48,), lambda i, o, j: s[i, j], op="max")
    p = b.compute((64, 48), lambda i, j: s[i, j] - top[i, 0])
    b.mark_output(b.reduce((64, 16), (48,), lambda i, j, k: p[i, k] * w[k, j]))
    return b.build()


@pytest.mark.parametrize(
    "kernel",
    [attention(rows=1), one_product_more(), columns_reduced(), weights()],
    ids=["row", "two", "columns", "weights"],
)
def test_what_does_not_fit_is_never_fused(kernel):
    assert not has_chain(kernel) or block_of(kernel, TARGET) is None
    assert estimate(kernel, TARGET) == float("inf")


def test_rows_of_whole_blocks_are_counted():
    """One row more than a block takes as long as two blocks."""
    few, more = (estimate(attention(heads=8, rows=r, keys=64, depth=64), TARGET) for r in (8, 9))
    assert more > 1.2 * few


def test_rows_that_would_crowd_the_cache_are_moved_apart():
    _, text = check(attention(heads=1, rows=8, keys=256, depth=8, width=8))
    assert "widen" in text
    _, text = check(attention(heads=1, rows=8, keys=40, depth=8, width=8))
    assert "widen" not in text


def test_operands_beyond_the_second_cache_take_longer():
    """Each block of rows reads them anew."""
    near, far = (attention(heads=8, rows=512, keys=n, depth=64, width=64) for n in (512, 8192))
    blocks = [block_of(kernel, TARGET) for kernel in (near, far)]
    assert blocks[0] is not None and blocks[0].stream == 1.0
    assert blocks[1] is not None and blocks[1].stream > 1.0
