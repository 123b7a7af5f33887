"""Reductions whose contiguous axis is no reduction axis: depthwise convolution, pooling, sums over
pixels in channels-last order. Lanes are channels, rows of a tile are neighbouring outputs.

    for band of rows: for vector of channels: for row: for tile of R outputs:
        acc[R, lanes] = init;  for window: acc op= f(x[...]);  y = epilogue(acc)

Data are read where they are: what lies beyond a border is left out of each load. The weights of a
vector of channels stay in registers for all rows of a band, which stays in the second cache from
one vector of channels to the next.
"""

from __future__ import annotations

from aicc.dtypes import nbytes
from aicc.errors import ScheduleError
from aicc.symbolic import Size, product
from aicc.tensor_ir.analysis import Stage
from aicc.tensor_ir.ir import Const, Kernel, Load, Op
from aicc.tensor_ir.recipes.common import (
    BANDS,
    as_number,
    compute_rows,
    lanes_of,
    own_axes,
    parallelise,
    stride_in,
    with_epilogue,
)
from aicc.tensor_ir.recipes.plan import Plan
from aicc.tensor_ir.schedule import DecomposeReduction, Reorder, Split, Unroll, Vectorize
from aicc.tensor_ir.schedule_axes import PadAxis
from aicc.tensor_ir.schedule_stages import ComputeAt, Inline, Pack
from aicc.tensor_ir.walk import walk_expr

ROWS = 8
"""Outputs per tile: enough independent chains to hide the latency of the reduction."""
BAND = 0.5
"""The share of the second cache that the rows of a band may fill, with their results."""
UNROLLED = 60
"""Reduction steps unrolled in one block, about."""


def column_axis(plan: Plan, stage: Stage) -> int | None:
    """The axis whose lanes are contiguous in every load that depends on it."""
    column = next((n for n in reversed(range(len(stage.axes))) if stage.axes[n][0]), None)
    if column is None:
        return None
    v = stage.axes[column][0]
    assert v is not None
    loads = [x for x in walk_expr(stage.value) if isinstance(x, Load)]
    strides = [
        stride_in(plan.kernel, x, v) for x in loads if plan.kernel.buffer(x.buffer).scope != "const"
    ]
    return column if 1 in strides and all(s in (0, 1) for s in strides) else None


def window(plan: Plan, buffer: str) -> None:
    """Schedules a kernel whose one reduction is the stage of `buffer`."""
    buffer, out = with_epilogue(plan, buffer)
    _inline_borders(plan, buffer)
    stage = plan.stage(buffer)
    column = column_axis(plan, stage)
    theirs = [v for v, _ in plan.stage(out).axes]
    if column is None or own_axes(plan, out, buffer) != theirs:
        raise ScheduleError(f"{buffer} has no contiguous column\n{plan.kernel}")
    lanes = lanes_of(plan, stage)
    _pack_constants(plan, stage, column)
    plan.do(PadAxis(buffer, column, lanes))
    _tile(plan, buffer, out, column, lanes)


def _inline_borders(plan: Plan, buffer: str) -> None:
    """Inlines stages that give elements, or a number beyond a border: the padding of an input."""
    for stage in plan.stages():
        if stage.position < plan.stage(buffer).position and _is_border(stage):
            plan.attempt(Inline(stage.buffer))


def _is_border(stage: Stage) -> bool:
    e = stage.value
    if stage.op is not None or not isinstance(e, Op) or e.name != "select":
        return False
    condition, inside, beyond = e.args
    by_index = not any(isinstance(x, Load) for x in walk_expr(condition))
    return by_index and isinstance(inside, Load) and isinstance(beyond, Const)


def _pack_constants(plan: Plan, stage: Stage, column: int) -> None:
    """Puts the column axis of constants innermost."""
    v = stage.axes[column][0]
    assert v is not None
    for load in (x for x in walk_expr(stage.value) if isinstance(x, Load)):
        b = plan.kernel.buffer(load.buffer)
        if b.scope != "const" or b.pack or v not in load.size_symbols():
            continue
        axes = [n for n, i in enumerate(load.indices) if v in Load("", (i,), "i64").size_symbols()]
        others = [str(n) for n in range(len(b.shape)) if n not in axes]
        if len(axes) == 1:
            lanes = plan.target.lanes(b.dtype)
            plan.attempt(Pack(b.name, f"{axes[0]}/{lanes} {' '.join(others)} {axes[0]}%{lanes}"))


def _tile(plan: Plan, buffer: str, out: str, column: int, lanes: int) -> None:
    final = plan.stage(out)
    names = [v.name if v else "" for v, _ in final.axes]
    c = names[column]
    rows = [n for k, n in enumerate(names) if n and k != column]
    extent = final.axes[column][1]
    exact = isinstance(extent, int) and extent % lanes == 0
    copied = [s.buffer for s in plan.stages() if s.op is None and s.buffer != out]
    plan.do(Split(c, lanes, "exact" if exact else "guard"))
    at = f"{c}.o"
    leading = [*rows[:-1], at] if copied else _bands(plan, rows[:-1], at)
    row_axis: int | None = None
    row, tail = "", False
    if rows:
        w = rows[-1]
        row_axis = names.index(w)
        factor = _rows(as_number(final.axes[row_axis][1]))
        plan.do(Reorder((*leading, w, f"{c}.i")))
        if factor > 1:
            plan.do(Split(w, factor, "peel"))
            tail = plan.has_loop(f"{w}.t")
            row, w = f"{w}.i", f"{w}.o"
        leading.append(w)
    _compute(plan, buffer, leading[-1], row, f"{c}.i", row_axis, column)
    if tail:
        rest = f"{rows[-1]}.t"
        left = plan.loop(rest).extent
        if isinstance(left, int):
            plan.do(Split(rest, left, "exact"))
            _compute(plan, buffer, f"{rest}.o", f"{rest}.i", f"{c}.i.t", row_axis, column)
        else:
            _compute(plan, buffer, rest, "", f"{c}.i.t", row_axis, column)
    for name in copied:
        outer = [n for n in leading if n in rows and plan.has_loop(n)]
        at = outer[-1] if outer else next(n for n in leading if plan.has_loop(n))
        leading = compute_rows(plan, name, at, leading)
    parallelise(plan, *leading[:2])


def _bands(plan: Plan, rows: list[str], column: str) -> list[str]:
    """The loops around those of one row of outputs, `column` over vectors of channels among them:
    outside of as many rows as fit in the second cache."""
    if not rows:
        return [column]
    *outer, last = rows
    extent = as_number(plan.loop(last).extent)
    size = as_number(_moved(plan.kernel))
    count = as_number(product([plan.loop(n).extent for n in outer]))
    vectors = as_number(plan.loop(column).extent) or 1
    if extent is None or size is None or count is None:
        return [*outer, column, last]
    room = BAND * plan.target.l2 * extent * count / size
    fitting = [n for n in range(1, extent + 1) if extent % n == 0 and n <= room]
    shared = [n for n in fitting if count * vectors * (extent // n) >= BANDS]
    band = max(shared or fitting, default=1)
    if band == 1:
        return [*outer, last, column]
    if band == extent:
        return [*outer, column, last]
    plan.do(Split(last, band))
    return [*outer, f"{last}.o", column, f"{last}.i"]


def _moved(kernel: Kernel) -> Size:
    """Bytes of the parameters that are no constants."""
    sizes = [product(b.shape) * nbytes(b.dtype) for b in kernel.params if b.scope != "const"]
    return sum(sizes[1:], sizes[0])


def _rows(size: int | None) -> int:
    """Outputs per tile for an axis of `size`: a divisor near ROWS where there is one."""
    if size is None:
        return 4
    for r in (8, 7, 6, 5, 4):
        if size % r == 0:
            return r
    return min(size, ROWS)


def _compute(
    plan: Plan, buffer: str, at: str, row: str, lane: str, row_axis: int | None, column: int
) -> None:
    plan.do(ComputeAt(buffer, at, "register"))
    acc = plan.newest_buffer()
    stage_loops = [f"{acc}.{n}" for n in range(len(plan.kernel.buffer(acc).shape))]
    loops = [n for n in stage_loops if plan.has_loop(n)]
    depth = [f"{acc}.k{n}" for n in range(16) if plan.has_loop(f"{acc}.k{n}")]
    plan.do(DecomposeReduction(loops[0]), Reorder((*depth, *loops)))
    block = 1
    for n in loops[:-1]:
        e = plan.loop(n).extent
        block *= e if isinstance(e, int) else 1
    for n in reversed(depth):
        e = plan.loop(n).extent
        if isinstance(e, int) and e * block <= UNROLLED:
            plan.do(Unroll(n))
            block *= e
        else:
            break
    for n in [*loops[:-1], *(f"{x}.s" for x in loops[:-1]), row]:
        if n and plan.has_loop(n):
            plan.do(Unroll(n))
    for n in (f"{loops[-1]}.s", loops[-1], lane):
        plan.do(Vectorize(n))
