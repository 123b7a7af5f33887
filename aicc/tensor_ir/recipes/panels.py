"""One reduction down the columns of a large matrix whose rows lie in pages of their own: a vector,
or a few, times a matrix that is given in each run; the sum of many long rows.

    parallel panel: T[rows, panel] = 0
        for block of k: for tile of the panel:
            acc[rows, tile] = 0;  for k in block: acc += a[rows, k] * b[k, tile]
            T[rows, tile] += acc
        y[rows, panel] = epilogue(T)

A tile of all k would need more pages than the processor knows the addresses of, and lines that are
in the way of each other in the caches: rows are read in blocks, and each row of a block on and on.
"""

from __future__ import annotations

from aicc.dtypes import nbytes
from aicc.errors import ScheduleError
from aicc.symbolic import product
from aicc.tensor_ir.analysis import Stage
from aicc.tensor_ir.recipes.common import (
    as_number,
    is_costly,
    lanes_of,
    own_axes,
    parallelise,
    stride_in,
    vector_loop,
    with_epilogue,
)
from aicc.tensor_ir.recipes.down import vectors_of
from aicc.tensor_ir.recipes.operands import column_axis, roles
from aicc.tensor_ir.recipes.plan import Plan
from aicc.tensor_ir.schedule import DecomposeReduction, Reorder, Split, Unroll
from aicc.tensor_ir.schedule_stages import ComputeAt
from aicc.tensor_ir.schedule_subtotals import Subtotals
from aicc.tensor_ir.walk import loads_of

PANEL = 4096
"""Columns whose sums stay near the core, about."""
BLOCK = 16
"""Rows of a block: few enough for the processor to fetch each ahead."""
FAR = 2048
"""Bytes between rows, from which on each is in a page of its own, or nearly."""
FEW = 16
"""Rows of results that a tile has at most."""
UNROLL = 4
"""Steps of the loop down a block that are made at once."""
COSTLY_VECTORS = 4
"""Vectors of a tile for each of which there is much code."""


def has_far_rows(plan: Plan, stage: Stage) -> bool:
    """True for sums down the columns of a matrix that comes from memory, from one row to the next
    over half a page or more. (Extremes take longer to compute than to fetch.)"""
    column = column_axis(plan, stage)
    if column is None or len(stage.reduce) != 1 or stage.op != "add":
        return False
    v, k = stage.axes[column][0], stage.reduce[0][0]
    assert v is not None
    for load in loads_of(stage.value):
        b = plan.kernel.buffer(load.buffer)
        if b.scope == "const" or v not in load.size_symbols():
            continue
        size, step = as_number(product(b.shape)), stride_in(plan.kernel, load, k)
        width = nbytes(b.dtype)
        if size is None or not isinstance(step, int):
            continue
        if size * width > plan.target.l3 // 2 and step * width >= FAR:
            return True
    return False


def panels(plan: Plan, buffer: str) -> None:
    """Schedules a kernel whose one reduction is the stage of `buffer`."""
    buffer, out = with_epilogue(plan, buffer)
    stage = plan.stage(buffer)
    column = column_axis(plan, stage)
    theirs = [v for v, _ in plan.stage(out).axes]
    if column is None or own_axes(plan, out, buffer) != theirs or not has_far_rows(plan, stage):
        raise ScheduleError(f"{buffer} has no far rows", plan.kernel)
    found = roles(stage)
    row = found.row if found is not None else None
    rows = as_number(stage.axes[row][1]) if row is not None else 1
    extent = as_number(stage.axes[column][1])
    lanes = lanes_of(plan, stage)
    if extent is None or extent < lanes or rows is None or rows > FEW:
        raise ScheduleError(f"{buffer} has many rows, or few columns", plan.kernel)
    c, *others = [theirs[column], *(v for n, v in enumerate(theirs) if n not in (column, row))]
    assert c is not None
    name, around = c.name, [v.name for v in others if v is not None]
    inside = [v.name for n, v in enumerate(theirs) if n == row and v is not None]
    vectors = plan.target.vector_registers // 2 // rows
    if is_costly(stage.value):
        vectors = min(vectors, COSTLY_VECTORS)
    kept = plan.target.l2 // 8 // (rows * nbytes(plan.kernel.buffer(buffer).dtype))
    most = max(1, vectors)
    panel = _panel(extent, lanes, most, min(PANEL, kept), not around)
    rest = extent % panel
    plan.do(Reorder((*around, name, *inside)), Split(name, panel, "peel" if rest else "exact"))
    tiles = [(name, panel, around, inside)]
    if rest:
        plan.do(Split(f"{name}.t", rest))
        own = [f"{n}.t" for n in inside]
        tiles.append((f"{name}.t", rest, [f"{n}.t" for n in around], own))
    for n, width, _, own in tiles:
        plan.do(Reorder((f"{n}.o", *own, f"{n}.i")))
        plan.do(ComputeAt(buffer, f"{n}.o", "stack"))
        each = -(-width // lanes)
        tile = min(width, -(-each // -(-each // most)) * lanes)
        _compute(plan, column, row, lanes, tile)
        vector_loop(plan, f"{n}.i", lanes)
    parallelise(plan, *around, f"{name}.o")


def _panel(extent: int, lanes: int, most: int, wide: int, alone: bool) -> int:
    """Columns of a panel, whole vectors of `lanes` and about as `wide` at most: panels leave over a
    vector for each of them at most. An even number of panels where no other loop is there to share
    out, unless all columns are one tile of `most` vectors."""
    vectors = extent // lanes
    count = -(-extent // wide)
    if alone and vectors > most:
        count += count % 2
    return vectors // count * lanes if count > 1 else extent


def _compute(plan: Plan, column: int, row: int | None, lanes: int, tile: int) -> None:
    """The newest buffer, a panel of results: block by block of what is reduced."""
    acc = plan.newest_buffer()
    own, k = f"{acc}.{column}", f"{acc}.k0"
    rows = [n for n in [f"{acc}.{row}"] if plan.has_loop(n)]
    plan.do(DecomposeReduction(rows[0] if rows else own))
    vector_loop(plan, f"{own}.s", lanes)
    known = isinstance(plan.loop(k).extent, int) and plan.loop(k).extent % BLOCK == 0
    plan.do(Reorder((k, own, *rows)), Split(k, BLOCK, "exact" if known else "short"))
    step = f"{k}.i"
    plan.do(Reorder((own, step, *rows)), Split(own, tile, "peel"))
    plan.do(Reorder((f"{own}.o", step, *rows, f"{own}.i")))
    _tile(plan, acc, column, step, rows, f"{own}.i", lanes)
    if plan.has_loop(f"{own}.t"):
        rows = [f"{n}.t" for n in rows]
        plan.do(Reorder((f"{step}.t", *rows, f"{own}.t")))
        _tile(plan, acc, column, f"{step}.t", rows, f"{own}.t", lanes)


def _tile(
    plan: Plan, acc: str, axis: int, step: str, rows: list[str], columns: str, lanes: int
) -> None:
    """A tile of one block, in registers: its loop over what is reduced is `step`."""
    plan.do(Subtotals(step))
    part = plan.newest_buffer()
    for n in range(len(plan.kernel.buffer(acc).shape)):
        for name in (f"{part}.{n}.s", f"{part}.{n}"):
            if not plan.has_loop(name):
                continue
            if n == axis:
                vectors_of(plan, name, lanes)
            else:
                plan.do(Unroll(name))
    for name in rows:
        plan.do(Unroll(name))
    vectors_of(plan, columns, lanes)
    plan.do(Split(step, UNROLL, "peel"), Unroll(f"{step}.i"))
