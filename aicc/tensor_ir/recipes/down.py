"""One reduction down columns, over windows that share nothing: the mean, the sum or the extreme of
whole images whose channels are last, of sequences along their steps, of a matrix along its rows.

    parallel rows, tiles: acc[W] = init;  for k: for vector: acc op= x[k, W];  y[W] = epilogue(acc)

A tile has many vectors side by side: a step reads a run of memory that the machine asks for ahead,
and no element waits for the one before. Where windows overlap, or each column has its own weights,
results side by side share what they read: `window`.
"""

from __future__ import annotations

from aicc.errors import ScheduleError
from aicc.symbolic import product, substitute, symbols
from aicc.tensor_ir.analysis import Stage
from aicc.tensor_ir.ir import Kernel
from aicc.tensor_ir.recipes.common import (
    BANDS,
    as_number,
    is_costly,
    lanes_of,
    own_axes,
    parallelise,
    with_epilogue,
)
from aicc.tensor_ir.recipes.operands import column_axis
from aicc.tensor_ir.recipes.partial_sums import LONG, add_parts, split_parts
from aicc.tensor_ir.recipes.plan import Plan
from aicc.tensor_ir.schedule import DecomposeReduction, Reorder, Split, Unroll, Vectorize
from aicc.tensor_ir.schedule_stages import ComputeAt
from aicc.tensor_ir.walk import loads_of
from aicc.tensor_ir.work import SHARED_CYCLES, loop_cycles

COSTLY_VECTORS = 4
"""Vectors of a tile for each of which there is much code."""
STEP = 16
"""Vectors that a step of the loop down the columns should have, at least."""


def down(plan: Plan, buffer: str) -> None:
    """Schedules a kernel whose one reduction is the stage of `buffer`."""
    buffer, out = with_epilogue(plan, buffer)
    stage = plan.stage(buffer)
    column = column_axis(plan, stage)
    theirs = [v for v, _ in plan.stage(out).axes]
    if column is None or own_axes(plan, out, buffer) != theirs:
        raise ScheduleError(f"{buffer} has no contiguous column", plan.kernel)
    extent = as_number(stage.axes[column][1])
    lanes = lanes_of(plan, stage)
    if extent is None or extent < 2 * lanes or not _apart(plan.kernel, stage):
        raise ScheduleError(f"{buffer} has few columns, or windows that overlap", plan.kernel)
    c, *rows = [theirs[column], *(v for n, v in enumerate(theirs) if n != column)]
    assert c is not None
    name, others = c.name, [v.name for v in rows if v is not None]
    width = _width(plan, stage, plan.stage(out), column, lanes)
    rest = extent % width
    count = as_number(product([plan.loop(n).extent for n in others]))
    # Where rows are too few to share out, tiles are: those of another width by themselves.
    first = bool(rest) and (count is None or (count < BANDS and count % 2 == 1))
    if first:
        plan.do(Reorder((name, *others)))
    plan.do(Split(name, width, "peel" if rest else "exact"))
    tiles = [(name, others)]
    if rest:
        plan.do(Split(f"{name}.t", rest))
        tiles.append((f"{name}.t", [f"{n}.t" for n in others] if first else others))
    for n, around in tiles:
        if first:
            plan.do(Reorder((f"{n}.o", *around, f"{n}.i")))
        at = around[-1] if first and around else f"{n}.o"
        plan.do(ComputeAt(buffer, at, "register"))
        _compute(plan, column, lanes)
        vectors_of(plan, f"{n}.i", lanes)
    for n, around in tiles if first else tiles[:1]:
        loops = [f"{n}.o", *around] if first else [*around, f"{n}.o"]
        loops = [x for x in loops if plan.has_loop(x) and plan.loop(x).extent != 1]
        parallelise(plan, *loops[: 3 if count is None else 2])


def _apart(kernel: Kernel, stage: Stage) -> bool:
    """True where no index moves both with the results and within their windows, whose extents are
    the same for all, and each column has no constants of its own."""
    own = {v for v, _ in stage.axes if v is not None}
    inner = {v for v, _ in stage.reduce}
    if any(own & symbols(e) for _, e in stage.reduce):
        return False
    loads = loads_of(stage.value)
    if any(kernel.buffer(x.buffer).scope == "const" for x in loads):
        return False
    return not any(own & symbols(i) and inner & symbols(i) for x in loads for i in x.indices)


def _width(plan: Plan, stage: Stage, final: Stage, column: int, lanes: int) -> int:
    """Columns of a tile: many, but equally many in each, and tiles for two threads to share."""
    extent = stage.axes[column][1]
    assert isinstance(extent, int)
    vectors = -(-extent // lanes)
    most = plan.target.vector_registers // 2
    if is_costly(stage.value) or is_costly(final.value):
        most = min(most, COSTLY_VECTORS)
    tiles = -(-vectors // most)
    others = [e for n, (v, e) in enumerate(final.axes) if v is not None and n != column]
    rows = as_number(product(others)) or 1
    loop = plan.loop(stage.variables[0].name)
    cycles = loop_cycles(plan.kernel, loop, plan.target.lanes("f32"))
    # What only a run knows may be a batch of one.
    cycles = substitute(cycles, {v: 1 for e in others for v in symbols(e)})
    shared = not isinstance(cycles, int) or cycles >= SHARED_CYCLES
    while shared and 2 * tiles <= vectors:
        alike = rows * (extent // (-(-vectors // tiles) * lanes))
        if alike >= BANDS or alike % 2 == 0:
            break
        tiles += 1
    return min(extent, -(-vectors // tiles) * lanes)


def _compute(plan: Plan, column: int, lanes: int) -> None:
    """The newest buffer's reductions, step by step down the columns of a tile."""
    acc = plan.newest_buffer()
    own = f"{acc}.{column}"
    plan.do(DecomposeReduction(own))
    depth = [n for k in range(16) if plan.has_loop(n := f"{acc}.k{k}")]
    plan.do(Reorder((*depth, own)))
    depth, at_once = split_parts(plan, acc, depth, LONG)
    for n in (f"{own}.s", own):
        vectors_of(plan, n, lanes)
    _unroll(plan, acc, depth[-1], column, lanes, whole=depth[-1] == at_once)
    if at_once is not None and (part := add_parts(plan, at_once)) is not None:
        for n in (f"{part}.{column}.s", f"{part}.{column}"):
            vectors_of(plan, n, lanes)


def _unroll(plan: Plan, acc: str, loop: str, column: int, lanes: int, whole: bool) -> None:
    """Several steps at once of a narrow tile, where their number is known. whole: none are left."""
    width, extent = plan.kernel.buffer(acc).shape[column], plan.loop(loop).extent
    assert isinstance(width, int)
    if not isinstance(extent, int):
        return
    steps = min(extent, -(-STEP * lanes // width))
    while whole and extent % steps:
        steps -= 1
    if steps == 1:
        return
    if steps == extent and not whole:
        plan.do(Unroll(loop))
        return
    plan.do(Split(loop, steps, "peel"), Unroll(f"{loop}.i"))
    if plan.has_loop(f"{loop}.t"):
        plan.do(Unroll(f"{loop}.t"))


def vectors_of(plan: Plan, name: str, lanes: int) -> None:
    """All vectors of a loop, one after the other; what is left over in a shorter one."""
    extent = plan.loop(name).extent
    if isinstance(extent, int) and extent < lanes:
        plan.do(Vectorize(name))
        return
    plan.do(Split(name, lanes, "peel"), Vectorize(f"{name}.i"), Unroll(f"{name}.o"))
    if plan.has_loop(f"{name}.t"):
        plan.do(Vectorize(f"{name}.t"))
