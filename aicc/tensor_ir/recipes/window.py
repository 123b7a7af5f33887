"""Reductions whose contiguous axis is no reduction axis: depthwise convolution, pooling, sums over
pixels in channels-last order. Lanes are channels, rows of a tile are neighbouring outputs.

    for band of rows: for vector of channels: for row: for tile of R outputs:
        acc[R, lanes] = init;  for window: acc op= f(x[...]);  y = epilogue(acc)

Where neighbouring windows overlap and no weights tell their elements apart, what they share is
reduced first, in registers: `separate`.

Data are read where they are: what lies beyond a border is left out of each load. Where the lines of
a vector of channels would fall into few sets of the first cache, wide windows read a copy of the
rows of a band, with its padding: `rows_copied`. The weights of a vector of channels stay in
registers for all rows of a band, which stays in the second cache from one vector of channels to the
next. Where only a run knows how long a row is, results whose windows are inside are tiles of their
own without conditions, and those near the borders come one by one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from aicc.dtypes import nbytes
from aicc.errors import ScheduleError
from aicc.symbolic import (
    Size,
    ceildiv,
    coefficient,
    maximum,
    minimum,
    product,
    proves_le,
    substitute,
    symbols,
)
from aicc.tensor_ir.analysis import Stage, bounds, stage_of
from aicc.tensor_ir.ir import Const, Kernel, Load, Op
from aicc.tensor_ir.recipes.beside import rows_copied, vectors_beside
from aicc.tensor_ir.recipes.common import (
    BANDS,
    as_number,
    lanes_of,
    nominal,
    own_axes,
    parallelise,
    skip_padding,
    stride_in,
    with_epilogue,
)
from aicc.tensor_ir.recipes.copies import compute_rows, vectorise_stage
from aicc.tensor_ir.recipes.operands import column_axis
from aicc.tensor_ir.recipes.partial_sums import LONG, add_parts, split_parts
from aicc.tensor_ir.recipes.plan import Plan
from aicc.tensor_ir.schedule import DecomposeReduction, Reorder, Split, Unroll, Vectorize
from aicc.tensor_ir.schedule_axes import PadAxis
from aicc.tensor_ir.schedule_partition import Decide, Partition, Unswitch, conditions
from aicc.tensor_ir.schedule_separate import Separate
from aicc.tensor_ir.schedule_stages import ComputeAt, Inline, Pack
from aicc.tensor_ir.walk import loads_of, stmt_exprs, walk_expr, walk_stmts

ROWS = 8
"""Outputs per tile: enough independent chains to hide the latency of the reduction."""
BAND = 0.5
"""The share of the second cache that the rows of a band may fill, with their results."""
SPARE = 4
"""Registers left for what is on its way, beside those that hold what windows share."""
SHARED = 0.9
"""Of its steps, what a reduction may be left with for it to pay to do axis by axis."""
MOST = 8
"""Rows that a band has at most where only a run knows how many there are."""
UNROLLED = 32
"""Reduction steps unrolled in one block, about."""
ALONG = 128
"""As many along the results of a tile, whose windows share most of what they load."""


def window(plan: Plan, buffer: str) -> None:
    """Schedules a kernel whose one reduction is the stage of `buffer`."""
    buffer, out = with_epilogue(plan, buffer)
    stage = plan.stage(buffer)
    column = column_axis(plan, stage)
    copied = None if column is None else rows_copied(plan, stage, column, lanes_of(plan, stage))
    if copied is None:
        _inline_borders(plan, buffer)
        stage = plan.stage(buffer)
        column = column_axis(plan, stage)
    theirs = [v for v, _ in plan.stage(out).axes]
    if column is None or own_axes(plan, out, buffer) != theirs:
        raise ScheduleError(f"{buffer} has no contiguous column", plan.kernel)
    extent = stage.axes[column][1]
    lanes = lanes_of(plan, stage)
    if isinstance(extent, int) and extent < lanes and extent & (extent - 1) == 0:
        lanes = extent  # a vector without masks
    beside = 1 if copied else vectors_beside(plan, stage, column, lanes)
    _pack_constants(plan, stage, column)
    part = _separate(plan, stage, column)
    if part is not None:
        plan.do(PadAxis(part.buffer, column, lanes))
    plan.do(PadAxis(buffer, column, lanes))
    _tile(plan, buffer, out, column, lanes, part, beside, copied)


@dataclass(frozen=True)
class Part:
    """The stage of what windows share, and how many results of a row a tile has then."""

    buffer: str
    rows: int


def _separate(plan: Plan, stage: Stage, column: int) -> Part | None:
    """Reduces along the other axes of a window first, where windows along the innermost axis of
    pixels overlap: what they share is reduced once, and stays in registers."""
    pixels = [n for n, (v, _) in enumerate(stage.axes) if v is not None and n != column]
    if not pixels or len(stage.reduce) < 2:
        return None
    axis, (k, extent) = pixels[-1], stage.reduce[-1]
    depth = as_number(product(e for _, e in stage.reduce[:-1]))
    rows = 0

    def pays(kernel: Kernel) -> bool:
        nonlocal rows
        made = stage_of(kernel, stage.buffer)
        assert made is not None and isinstance(made.value, Load) and isinstance(extent, int)
        v = made.axes[axis][0]
        step = None if v is None else coefficient(made.value.indices[axis], v)
        if not isinstance(step, int) or depth is None:
            return False
        room = plan.target.vector_registers - SPARE
        rows = min(ROWS, (room - extent + step) // (step + 1))
        apart = (rows - 1) * step + extent
        return rows > 1 and apart * depth + rows * extent < SHARED * rows * depth * extent

    found = plan.attempt_if(pays, Separate(stage.buffer, axis, k.name))
    return Part(plan.newest_buffer(), rows) if found else None


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


def _tile(
    plan: Plan,
    buffer: str,
    out: str,
    column: int,
    lanes: int,
    part: Part | None,
    beside: int,
    rows_of: tuple[str, int] | None,
) -> None:
    final = plan.stage(out)
    names = [v.name if v else "" for v, _ in final.axes]
    c = names[column]
    rows = [n for k, n in enumerate(names) if n and k != column]
    made = plan.stage(buffer)
    inner = {v for _, extent in made.reduce for v in symbols(extent)}
    uneven = {n for n, (v, _) in zip(names, made.axes, strict=True) if v in inner}
    rows.sort(key=lambda n: n not in uneven)  # the rows of a tile have windows of one extent
    extent = final.axes[column][1]
    exact = isinstance(extent, int) and extent % lanes == 0
    local, band = rows_of or ("", None)
    copied = [s.buffer for s in plan.stages() if s.op is None and s.buffer not in (out, local)]
    inside = _inside(plan, buffer, names.index(rows[-1]), part) if rows else None
    plan.do(Split(c, lanes, "exact" if exact else "guard"))
    at = f"{c}.o"
    several = [f"{at}.i"] if beside > 1 and exact and not copied else []
    if several:
        plan.do(Split(at, beside))
        at = f"{at}.o"
    tiles = _Tiles(plan, buffer, column, part, "".join(several), local)
    leading = [*rows[:-1], at] if copied else _bands(plan, rows[:-1], at, band)
    if rows:
        plan.do(Reorder((*leading, rows[-1], *several, f"{c}.i")))
        leading.append(tiles.row(rows[-1], f"{c}.i", names.index(rows[-1]), inside))
    else:
        tiles.compute(at, "", f"{c}.i")
    for name in copied:
        outer = [n for n in leading if n in rows and plan.has_loop(n)]
        at = outer[-1] if outer else next(n for n in leading if plan.has_loop(n))
        leading = compute_rows(plan, name, at, leading)
    if local:
        plan.do(ComputeAt(local, at, "stack"))
        vectorise_stage(plan, plan.newest_buffer())
    counted = all(isinstance(e, int) for _, e in final.axes)
    parallelise(plan, *leading[: 2 if counted else 3])


def _bands(plan: Plan, rows: list[str], column: str, most: int | None) -> list[str]:
    """The loops around those of one row of outputs, `column` over vectors of channels among them:
    outside of as many rows as fit in the second cache, `most` where that is given."""
    if not rows:
        return [column]
    *outer, last = rows
    extent = plan.loop(last).extent
    count = nominal(product([plan.loop(n).extent for n in outer]))
    room = BAND * plan.target.l2 * nominal(extent) * count / max(1, nominal(_moved(plan.kernel)))
    if not isinstance(extent, int):
        band = min(MOST, int(room))
        if band < 2:
            return [*outer, last, column]
        plan.do(Split(last, band, "short"))
        return [*outer, f"{last}.o", column, f"{last}.i"]
    vectors = as_number(plan.loop(column).extent) or 1
    fitting = [n for n in range(1, extent + 1) if extent % n == 0 and n <= (most or room)]
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


def _inside(plan: Plan, buffer: str, axis: int, part: Part | None) -> tuple[Size, Size] | None:
    """From where to where along an axis whose extent only a run knows no window goes beyond a
    border: conditions are left to what is before and behind. None where the extent is a number."""
    stage = plan.stage(buffer)
    v, extent = stage.axes[axis]
    if v is None or isinstance(extent, int):
        return None
    values = [stage.value]
    ranges = {k: (0, e) for k, e in stage.reduce}
    if part is not None:
        shared = plan.stage(part.buffer)
        ranges |= {k: (0, e) for k, e in shared.reduce}
        assert isinstance(stage.value, Load)
        t = shared.axes[axis][0]
        values.append(shared.value.substitute_sizes({t: stage.value.indices[axis]} if t else {}))
    begin: Size = 0
    end: Size = extent
    for gap in (g for value in values for g in conditions(value) if v in symbols(g)):
        found = bounds(gap, ranges)
        coef = None if found is None else coefficient(found[0], v)
        if found is None or not isinstance(coef, int) or coef == 0:
            return None
        rest = substitute(found[0], {v: 0})
        if not symbols(rest) <= set(plan.kernel.sizes):
            return None
        if coef > 0:
            begin = maximum(begin, ceildiv(-rest, coef))
        else:
            end = minimum(end, rest // -coef + 1)
    return begin, end


class _Tiles:
    """Computes windows in registers, tile by tile of neighbouring results."""

    def __init__(
        self,
        plan: Plan,
        buffer: str,
        column: int,
        part: Part | None,
        vectors: str = "",
        data: str = "",
    ) -> None:
        """vectors: the loop over those of channels that each tile goes through, where there is one;
        copies of loops have the endings that the loops over lanes in them have. data: padded data
        that are no part of the windows' stage."""
        self.plan, self.buffer, self.column, self.part = plan, buffer, column, part
        self.vectors, self.data = vectors, data
        loads = loads_of(plan.stage(buffer).value)
        self.weighted = any(plan.kernel.buffer(x.buffer).scope == "const" for x in loads)

    def row(self, name: str, lane: str, axis: int, inside: tuple[Size, Size] | None) -> str:
        """The tiles of a loop over results side by side, lanes inside. The loop over most tiles."""
        plan = self.plan
        extent = plan.loop(name).extent
        most = ROWS if self.part is None else self.part.rows
        if isinstance(extent, int):
            return self._counted(name, lane, extent, most)
        if inside is None:
            plan.do(Split(name, most, "peel"))
            self.compute(f"{name}.o", f"{name}.i", lane)
            self.compute(f"{name}.t", "", f"{lane}.t")
            return f"{name}.o"
        begin, end = inside
        last = self._widened(axis, begin, extent - end)
        if last is not None and begin != 0:
            plan.do(Partition(name, begin))
            at = f"{name}.a"
            assert isinstance(begin, int)
            plan.do(Split(at, begin, "guard"))
            self.compute(f"{at}.o", f"{at}.i" if begin > 1 else "", lane)
            name, lane = f"{name}.p", f"{lane}.p"
        elif begin != 0:
            plan.do(Partition(name, begin))
            self.compute(f"{name}.a", "", lane)
            name, lane = f"{name}.p", f"{lane}.p"
        count = maximum(0, end - begin)
        done: Size = 0
        first = ""
        for size in (most, most // 2):
            until = count // size * size
            plan.do(Partition(name, until - done))
            done = until
            at = f"{name}.a"
            plan.do(Split(at, size))
            self.compute(f"{at}.o", f"{at}.i", lane)
            plan.do(Decide(f"{at}.o"))
            first = first or f"{at}.o"
            name, lane = f"{name}.p", f"{lane}.p"
        if last is not None:
            plan.do(Split(name, last, "guard"))
            self.compute(f"{name}.o", f"{name}.i", lane)
            return first
        if isinstance(begin, int) and begin > 1:
            # Wide windows leave many at the border.
            plan.do(Split(name, most // 2, "peel"))
            self.compute(f"{name}.o", f"{name}.i", lane)
            name, lane = f"{name}.t", f"{lane}.t"
        self.compute(name, "", lane)
        return first

    def _widened(self, axis: int, begin: Size, behind: Size) -> int | None:
        """How many results a tile at the end of a row has, of which there may be fewer: what is
        read for others is beyond the border, and so nothing is. None where that cannot be told."""
        if self.part is not None or not isinstance(begin, int) or begin > ROWS:
            return None
        last = ROWS // 2
        if isinstance(behind, int):
            last = min(ROWS, max(2, last - 1 + behind))
        selects = _selects(self.plan.kernel)
        step = PadAxis(self.buffer, axis, 1, more=begin + last)
        return last if self.plan.attempt_if(lambda k: _selects(k) == selects, step) else None

    def _counted(self, name: str, lane: str, extent: int, most: int) -> str:
        plan, factor = self.plan, _rows(extent, most)
        if factor < 2:
            self.compute(name, "", lane)
            return name
        plan.do(Split(name, factor, "peel"))
        self.compute(f"{name}.o", f"{name}.i", lane)
        rest = f"{name}.t"
        if plan.has_loop(rest):
            plan.do(Split(rest, extent % factor, "exact"))
            self.compute(f"{rest}.o", f"{rest}.i", f"{lane}.t")
        return f"{name}.o"

    def compute(self, at: str, row: str, lane: str) -> None:
        """A tile and what its windows share, inside the loop `at`. row: the loop over its results,
        "" for one."""
        if self.vectors:
            _, _, ending = lane.removeprefix(self.vectors.removesuffix(".o.i")).partition(".i")
            at = self.vectors + ending
            if row and not self.plan.attempt(Reorder((at, row))):
                row = ""  # Those at the end of a row, of which there may be fewer, come one by one.
        self._stage(self.buffer, at, row, lane)
        if self.part is not None:
            self._stage(self.part.buffer, at, "", "")

    def _stage(self, buffer: str, at: str, row: str, lane: str) -> None:
        plan = self.plan
        plan.do(ComputeAt(buffer, at, "register"))
        acc = plan.newest_buffer()
        stage_loops = [f"{acc}.{n}" for n in range(len(plan.kernel.buffer(acc).shape))]
        loops = [n for n in stage_loops if plan.has_loop(n)]
        depth = [f"{acc}.k{n}" for n in range(16) if plan.has_loop(f"{acc}.k{n}")]
        plan.do(DecomposeReduction(loops[0]), Reorder((*depth, *loops)))
        # A window whose elements have weights is no longer than a filter.
        at_once = None
        if not self.weighted:
            depth, at_once = split_parts(plan, acc, depth, LONG)
        self._unroll_depth(depth, loops[:-1])
        rest = [f"{x}.t" for x in loops if plan.has_loop(f"{x}.t")]
        for n in [*loops[:-1], *(f"{x}.s" for x in loops[:-1]), *rest[:-1], row]:
            if n and plan.has_loop(n):
                plan.do(Unroll(n))
        for n in (f"{loops[-1]}.s", loops[-1], *rest[-1:], lane):
            if n:
                plan.do(Vectorize(n))
        if at_once is not None and (sums := add_parts(plan, at_once)) is not None:
            *several, last = (x.replace(acc, sums, 1) for x in loops)
            for n in several:
                plan.do(Unroll(f"{n}.s"), Unroll(n))
            plan.do(Vectorize(f"{last}.s"), Vectorize(last))
            return
        if self.data:
            skip_padding(plan, depth, self.data)
        rolled = [n for n in depth[:-1] if plan.loop(n).kind == "for"]
        if rolled:
            alike = (Unswitch(rolled[-1], skip) for skip in (True, False))
            next((step for step in alike if plan.attempt(step)), None)

    def _unroll_depth(self, depth: list[str], rows: list[str]) -> None:
        """Unrolls the innermost reductions while the code stays short. The one along the loops over
        a tile's results, `rows`, goes further, at least in parts, where registers hold what its
        steps share."""
        plan, block = self.plan, 1
        for n in rows:
            block *= as_number(plan.loop(n).extent) or 1
        most = UNROLLED
        if rows and depth and self._held(depth[-1], rows[-1]) + block <= self._room():
            most = ALONG
        for n in reversed(depth):
            e = plan.loop(n).extent
            if not isinstance(e, int):
                return
            if e * block > most:
                if most == ALONG:
                    parts = -(-e * block // most)
                    plan.do(Split(n, -(-e // parts), "peel"), Unroll(f"{n}.i"))
                    if plan.has_loop(f"{n}.t"):
                        plan.do(Unroll(f"{n}.t"))
                return
            plan.do(Unroll(n))
            block *= e
            most = UNROLLED

    def _room(self) -> int:
        return self.plan.target.vector_registers - SPARE

    def _held(self, depth: str, row: str) -> int:
        """Vectors that later steps of a reduction read again, for other results of a tile."""
        kernel, taps, results = self.plan.kernel, self.plan.loop(depth), self.plan.loop(row)
        many, held = as_number(results.extent) or 1, 0
        for load in (x for s in taps.body for x in loads_of(s)):
            step, apart = stride_in(kernel, load, taps.var), stride_in(kernel, load, results.var)
            if isinstance(step, int) and isinstance(apart, int) and step and apart:
                runs = abs(apart) // math.gcd(step, apart)
                if not proves_le(taps.extent, runs):
                    held += runs * many
        return held


def _selects(kernel: Kernel) -> int:
    exprs = [e for s in walk_stmts(kernel.body) for e in stmt_exprs(s)]
    return sum(isinstance(x, Op) and x.name == "select" for e in exprs for x in walk_expr(e))


def _rows(size: int, most: int) -> int:
    """Outputs per tile for an axis of `size`: a divisor near `most` where there is one."""
    for r in range(most, max(1, most // 2 - 1), -1):
        if size % r == 0:
            return r
    return min(size, most)
