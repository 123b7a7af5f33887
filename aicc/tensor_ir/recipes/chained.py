"""Two matrix products with maps and reductions over rows between them: what lies between the
products stays in the cache.

    parallel matrix of the batch:
        kt[panels, k, columns] = right operand of the first product, panels of its columns
        for block of rows:
            a[rows, k] = left operand[block]
            for panel: for tile of rows:
                acc = 0;  for k: acc += a[rows, k] * kt[k, columns];  s[rows, columns] = acc
            p[rows] = maps and reductions of s[rows]
            for panel of columns: for tile of rows:
                acc = 0;  for j: acc += p[rows, j] * v[j, columns];  y[rows, columns] = acc

The result of the first product is consumed row by row, and what comes of that is the left operand
of the second one. A block is so many rows that their scores stay in the cache, where a whole matrix
of them would not; how long a row is need not be known.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from aicc.dtypes import nbytes
from aicc.errors import ScheduleError
from aicc.symbolic import Size, Sym, divides, product, proves_le, symbols
from aicc.tensor_ir.analysis import Stage
from aicc.tensor_ir.ir import Kernel, Load, Op
from aicc.tensor_ir.recipes.chain_parts import (
    Parts,
    check_products,
    check_rows,
    has_chain,
    parts_of,
)
from aicc.tensor_ir.recipes.common import (
    as_number,
    own_axes,
    parallelise,
    stride_in,
    value_of,
    vector_loop,
)
from aicc.tensor_ir.recipes.contraction import Tiling
from aicc.tensor_ir.recipes.copies import copy_loops
from aicc.tensor_ir.recipes.machine import Machine
from aicc.tensor_ir.recipes.operands import Roles
from aicc.tensor_ir.recipes.plan import Plan
from aicc.tensor_ir.recipes.rows import vectorise_rows
from aicc.tensor_ir.recipes.tiles import NEAR, TILE_OVERHEAD, Tile, step_cycles
from aicc.tensor_ir.schedule import Reorder, Split
from aicc.tensor_ir.schedule_axes import PadAxis, SplitAxis, Widen
from aicc.tensor_ir.schedule_stages import CacheRead, CacheWrite, ComputeAt, Inline, Outline, Pack
from aicc.tensor_ir.schedule_text import print_steps
from aicc.tensor_ir.schedule_within import Within
from aicc.tensor_ir.walk import walk_expr

L1 = 128.0
"""Bytes per cycle of operands that stay in the first cache."""
L2, BEYOND = 48.0, 20.0
"""As above, for operands that the second cache holds, or does not: they come in order."""
SETS = 1024
"""Bytes: rows a multiple of these apart crowd a few sets of the first cache."""
LARGE_BLOCK = 12
"""Rows of a block at most."""
SMALL_BLOCK = 8
"""Rows of a block at most where it is not known how many there are."""
LENGTH = 200
"""Columns that a row counts as where its length is not known: not a multiple of what tiles have."""
BLOCK_CYCLES = 150.0
"""Cycles that a block costs beside its tiles."""
TRIPS = 1.0
"""How often rows that do not fit the first cache come from the second one, not hidden."""
UNEVEN = 1.03
"""How much longer blocks take that are not whole: their rows are stored under conditions."""
LEAST = 8
"""Matrices that there should be at least, for threads to share."""


@dataclass(frozen=True)
class Block:
    """The register tiles of the two products: both have all rows of a block, so that each block
    reads the right operands once. total: rows of a matrix, where that is a number. stream: how many
    times longer the products take where the second cache does not hold what each block reads."""

    first: Tile
    second: Tile
    total: int | None = None
    stream: float = 1.0

    @property
    def rows(self) -> int:
        return self.first.rows

    @property
    def many(self) -> bool:
        """Whether there are more than two blocks, as far as that is known."""
        return self.total is not None and self.total > 2 * self.rows

    @property
    def waste(self) -> float:
        """How many times the rows of a matrix are computed, those of whole blocks counted."""
        return 1.0 if self.total is None else -(-self.total // self.rows) * self.rows / self.total


def _block(plan: Plan, parts: Parts) -> Block:
    """The block of least estimated cycles per row."""
    first, second = plan.stage(parts.first), plan.stage(parts.second)
    dtype = plan.kernel.buffer(parts.first).dtype
    total = as_number(first.axes[-2][1])
    depth = as_number(first.reduce[0][1]) or LENGTH
    columns = as_number(first.axes[-1][1]) or LENGTH
    width = as_number(second.axes[-1][1]) or LENGTH
    again = columns * (depth + width) * nbytes(dtype)
    far = again > plan.target.l2 * 3 // 4
    rate = L1 if again <= plan.target.l1d * 3 // 4 else BEYOND if far else L2
    best: tuple[float, Block] | None = None
    for rows in range(2, (SMALL_BLOCK if total is None else LARGE_BLOCK) + 1):
        one = _tile(plan.target, dtype, rows, columns, depth, rate)
        two = _tile(plan.target, dtype, rows, width, columns, rate)
        if one is None or two is None:
            break
        block = Block(one[1], two[1], total)
        if far:
            steps = [step_cycles(rows, one[1].vectors, r) for r in (BEYOND, L2)]
            block = replace(block, stream=steps[0] / steps[1])
        cost = (one[0] + two[0] + BLOCK_CYCLES) / rows
        if 3 * rows * columns * nbytes(dtype) > plan.target.l1d * 3 // 4:
            cost += TRIPS * columns * nbytes(dtype) / NEAR
        cost *= block.waste * (UNEVEN if block.waste > 1.0 else 1.0)
        if best is None or cost < best[0] * 0.999:
            best = cost, block
    assert best is not None
    return best[1]


def _tile(
    machine: Machine, dtype: str, rows: int, columns: int, depth: int, rate: float
) -> tuple[float, Tile] | None:
    """The tile of so many rows that computes them for all columns in the least cycles, and those;
    the right operand arrives at `rate` bytes per cycle."""
    lanes = machine.lanes(dtype)
    room = machine.vector_registers - (1 if machine.has_fma else 2)
    best: tuple[float, Tile] | None = None
    for vectors in range(1, room // (rows + 1) + 1):
        tile = Tile(rows, vectors, lanes)
        each = step_cycles(rows, vectors, rate) * depth + TILE_OVERHEAD + 1.5 * rows * vectors
        cost = -(-columns // tile.columns) * each
        if best is None or cost < best[0] * 0.999:
            best = cost, tile
    return best


def block_of(kernel: Kernel, machine: Machine) -> Block | None:
    """The blocks of a kernel that `has_chain`; None where the recipe does not fit it."""
    plan = Plan(kernel, machine)
    try:
        chained(plan)
    except ScheduleError:
        return None
    plan = Plan(kernel, machine)
    return _block(plan, parts_of(plan))


def chained(plan: Plan) -> None:
    """Schedules a kernel of a product, maps and reductions of its rows, and a product of those."""
    parts = parts_of(plan)
    check_rows(plan, parts)
    one, two = check_products(plan, parts)
    _Chain(plan, parts, one, two, _block(plan, parts)).run()


class _Chain:
    """The steps, from the operands to the result, then loops from the result back."""

    def __init__(self, plan: Plan, parts: Parts, one: Roles, two: Roles, block: Block) -> None:
        self.plan, self.parts, self.block = plan, parts, block
        self.one, self.two = one, two
        self.acc = parts.first
        if parts.scores == parts.first:
            plan.do(CacheWrite(parts.first))
            self.acc = plan.newest_buffer()

    def run(self) -> None:
        plan, block, parts = self.plan, self.block, self.parts
        left, right, values = self._operands()
        panels = [self._panels(right), *([values] if values else [])]
        outer, row, column = self._nest()
        at = f"{row}.o"
        # The second product, a tile in registers.
        tiling = Tiling(plan, parts.second, parts.out, self.two, block.second, None)
        tiling.compute_tile(f"{column}.o", f"{row}.i", f"{column}.i")
        self._first(at, self._rows(at))
        plan.do(ComputeAt(left, at, "stack"))
        copy_loops(plan, plan.newest_buffer(), block.first.lanes)
        if outer and proves_le(LEAST, product(plan.loop(n).extent for n in outer)):
            for name in panels:
                plan.do(ComputeAt(name, outer[-1], "stack"))
                copy_loops(plan, plan.newest_buffer(), block.first.lanes)
            parallelise(plan, *outer, at)
            return
        # Few matrices: threads share the blocks of each, and the panels are there before.
        for name in panels:
            copy_loops(plan, name, block.first.lanes)
            parallelise(plan, *(n for n in self._loops_of(name) if plan.has_loop(n)))
        parallelise(plan, *outer, at)

    # operands

    def _operands(self) -> tuple[str, str, str]:
        """Copies of operands, whole blocks and panels of them: of the left one, of the right one,
        and of the second product's right one where its columns are apart, or its rows for many
        blocks ("" for none). Those beyond the last repeat it, and are zero where they lie side by
        side."""
        plan, block = self.plan, self.block
        first, second = plan.stage(self.acc), plan.stage(self.parts.second)
        row, depth, column = first.axes[-2][0], first.reduce[0][0], first.axes[-1][0]
        one, two, width = self.one, self.two, second.axes[-1][0]
        assert row is not None and column is not None and width is not None
        upright = self._step(one.left, row) == 1 != self._step(one.left, depth)
        beside = self._step(one.right, column) == 1
        left = self._copy(self.acc, one.left, *((depth, row) if upright else (row, depth)))
        right = self._copy(self.acc, one.right, depth, column)
        values = ""
        apart = self._step(two.right, second.reduce[0][0]) != second.axes[-1][1]
        if self._step(two.right, width) != 1 or (apart and block.many):
            values = self._copy(self.parts.second, two.right, second.reduce[0][0], width)
            self._pad(values, -1, block.second.columns)
        self._pack_scores()
        self._pad(right, -1, block.first.columns, "zero" if beside else "clamp")
        self._pad(self.acc, -1, block.first.columns, "zero")
        self._pad(left, -1 if upright else -2, block.rows, "zero" if upright else "clamp")
        for name in (self.acc, self.parts.scores, *self.parts.rows):
            self._pad(name, -2, block.rows)
        assert two.row is not None
        self._pad(self.parts.second, two.row, block.rows)
        self._pad(self.parts.second, two.column, block.second.columns, "zero")
        return left, right, values

    def _pack_scores(self) -> None:
        """Lays out constants that are added to the scores tile by tile: they are read once, from
        memory, which is fast in order only."""
        plan, tile, name = self.plan, self.block.first, self.parts.scores
        (row, _), (column, _) = plan.stage(name).axes[-2:]
        loads = [x for x in walk_expr(plan.stage(name).value) if isinstance(x, Load)]
        for load in loads if name != self.acc else ():
            b = plan.kernel.buffer(load.buffer)
            axes = [
                [n for n, i in enumerate(load.indices) if i == value_of(v)] for v in (row, column)
            ]
            if b.scope != "const" or b.pack or row is None or column is None or [] in axes:
                continue
            (i, j), rest = (n[0] for n in axes), range(len(b.shape))
            layout = [str(n) for n in rest if n not in (i, j)]
            layout += [f"{i}/{tile.rows}", f"{j}/{tile.columns}"]
            layout += [f"{i}%{tile.rows}", f"{j}%{tile.columns}"]
            plan.attempt(Pack(b.name, " ".join(layout)))

    def _step(self, load: Load, v: Sym) -> Size | None:
        return stride_in(self.plan.kernel, load, v)

    def _copy(self, stage: str, load: Load, *last: Sym) -> str:
        """Makes a copy of an operand of a product, with the axes of two variables at the end."""
        plan = self.plan
        reads = [x for s in plan.stages() for x in walk_expr(s.value) if isinstance(x, Load)]
        order = self._order(load, *last)
        if order is not None and sum(x.buffer == load.buffer for x in reads) == 1:
            plan.do(CacheRead(load.buffer, "", order))
            return next(b.name for b in reversed(plan.kernel.buffers) if b.scope == "temp")
        found = plan.stage(stage)
        assert isinstance(found.value, Op)
        loops = [v for v, _ in (*found.axes, *found.reduce) if v in load.size_symbols()]
        places = [loops.index(v) for v in last]
        rest = (n for n in range(len(loops)) if n not in places)
        plan.do(Outline(stage, found.value.args.index(load), (*rest, *places)))
        return plan.kernel.buffers[-1].name

    def _order(self, load: Load, *last: Sym) -> tuple[int, ...] | None:
        """The axes of an operand with those of two variables at the end; None where it is not read
        at the plain values of those."""
        places: list[int] = []
        for v in last:
            found = [n for n, i in enumerate(load.indices) if v in symbols(i)]
            if len(found) != 1 or load.indices[found[0]] != value_of(v):
                return None
            places += found
        return (*(n for n in range(len(load.indices)) if n not in places), *places)

    def _pad(self, name: str, axis: int, multiple: int, how: str = "clamp") -> None:
        """Makes an axis, a negative one counted from the end, a whole number of tiles."""
        rank = len(self.plan.kernel.buffer(name).shape)
        self.plan.do(PadAxis(name, axis % rank, multiple, how))

    def _panels(self, right: str) -> str:
        """Panels of the first product's right operand, one after the other."""
        plan = self.plan
        last = len(plan.kernel.buffer(right).shape) - 1
        plan.do(SplitAxis(right, last, self.block.first.columns))
        order = (*range(last - 1), last, last - 1, last + 1)
        plan.do(CacheRead(right, "", order))
        made = next(b.name for b in reversed(plan.kernel.buffers) if b.scope == "temp")
        plan.do(Inline(right))
        return made

    # loops

    def _nest(self) -> tuple[list[str], str, str]:
        """Blocks, panels and tiles of the result: (loops over matrices, rows, columns)."""
        plan, block = self.plan, self.block
        names = [v.name if v else "" for v in own_axes(plan, self.parts.out, self.parts.second)]
        assert self.two.row is not None
        column, row = names.pop(), names.pop(self.two.row)
        outer = [n for n in names if n]
        if not row or not column:
            raise ScheduleError(f"{self.parts.out} is one row", plan.kernel)
        extent = plan.loop(column).extent
        plan.do(Reorder((*outer, row, column)))
        exact = isinstance(extent, int) and divides(block.second.columns, extent)
        plan.do(Split(column, block.second.columns, "exact" if exact else "guard"))
        inner = (f"{column}.o", f"{column}.i")
        plan.do(Reorder((*outer, *inner, row)))
        exact = divides(block.rows, plan.loop(row).extent)
        plan.do(Split(row, block.rows, "exact" if exact else "guard"))
        plan.do(Reorder((*outer, f"{row}.o", inner[0], f"{row}.i", inner[1])))
        return outer, row, column

    def _loops_of(self, buffer: str) -> list[str]:
        rank = len(self.plan.kernel.buffer(buffer).shape)
        return [f"{buffer}.{n}" for n in range(rank - 2)]

    def _rows(self, at: str) -> str:
        """What is between the products, one stage after the other for all rows of a block: the ends
        of their reductions, which wait for each other, overlap. The name of the scores."""
        plan = self.plan
        *names, left = self.parts.rows
        plan.do(ComputeAt(left, at, "stack"))
        made = plan.newest_buffer()
        done: list[tuple[str, Stage]] = []
        for name in reversed(names):
            stage = plan.stage(name)
            plan.do(ComputeAt(name, at, "stack"))
            done.append((plan.newest_buffer(), stage))
        plan.do(ComputeAt(self.parts.scores, at, "stack"))
        scores = plan.newest_buffer()
        for name in (made, *(n for n, stage in done if stage.op is None)):
            self._spread(name)
        for name, stage in done:
            vectorise_rows(plan, name, stage)
        vectorise_last(plan, made, self.block.first.lanes)
        return scores

    def _spread(self, name: str) -> None:
        """Moves rows that would crowd a few sets of the first cache apart."""
        b = self.plan.kernel.buffer(name)
        width = as_number(b.shape[-1])
        if width is not None and width * nbytes(b.dtype) % SETS == 0:
            plan, lanes = self.plan, self.block.first.lanes
            plan.do(Widen(name, len(b.shape) - 1, width + lanes))

    def _first(self, at: str, made: str) -> None:
        """The first product for one block, in register tiles."""
        plan, tile, name = self.plan, self.block.first, self.parts.scores
        rank = len(plan.kernel.buffer(made).shape)
        m, n = f"{made}.{rank - 2}", f"{made}.{rank - 1}"
        if not divides(tile.columns, plan.loop(n).extent):
            plan.do(Within(at, print_steps([PadAxis(made, rank - 1, tile.columns)])))
            n = f"{n}.p"
        plan.do(Split(n, tile.columns))
        plan.do(Reorder((f"{n}.o", m, f"{n}.i")))
        tiling = Tiling(plan, self.acc, name, self.one, tile, None)
        tiling.compute_tile(f"{n}.o", m, f"{n}.i")
        self._spread(made)


def vectorise_last(plan: Plan, name: str, lanes: int, unroll: int = 1) -> None:
    """Vectorises the innermost loop of the nest that computes a local map."""
    vector_loop(plan, f"{name}.{len(plan.kernel.buffer(name).shape) - 1}", lanes, unroll)


__all__ = ["Block", "block_of", "chained", "has_chain"]
