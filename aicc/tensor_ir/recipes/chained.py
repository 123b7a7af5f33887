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

from collections.abc import Callable
from dataclasses import dataclass, replace

from aicc.dtypes import nbytes
from aicc.errors import ScheduleError
from aicc.symbolic import Dim, Size, Sym, divides, product, proves_le, symbols
from aicc.tensor_ir.analysis import Stage, readers, stages
from aicc.tensor_ir.ir import Kernel, Load, Op
from aicc.tensor_ir.recipes.common import (
    as_number,
    copy_loops,
    inline_movements,
    is_costly,
    own_axes,
    parallelise,
    stride_in,
    vector_loop,
    with_epilogue,
)
from aicc.tensor_ir.recipes.contraction import Roles, Tiling, product_of, roles
from aicc.tensor_ir.recipes.machine import Machine
from aicc.tensor_ir.recipes.plan import Plan
from aicc.tensor_ir.recipes.rows import vectorise_rows
from aicc.tensor_ir.recipes.tiles import NEAR, TILE_OVERHEAD, Tile, step_cycles
from aicc.tensor_ir.schedule import Reorder, Split
from aicc.tensor_ir.schedule_axes import FuseAxes, PadAxis, SplitAxis, Widen
from aicc.tensor_ir.schedule_stages import CacheRead, CacheWrite, ComputeAt, Inline, Outline
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


def has_chain(kernel: Kernel) -> bool:
    """True where the first and the last reduction are matrix products of operands in memory, with
    reductions between them that are none."""
    found = [s for s in stages(kernel) if s.op is not None]
    if len(found) < 3:
        return False
    products = [product_of(s) is not None for s in found]
    return products[0] and products[-1] and not any(products[1:-1])


@dataclass(frozen=True)
class Parts:
    """Names of stages: the `first` product; `scores`, a map of it that the others read instead (or
    the product itself); `rows`, what is made of those, of which the last is the left operand of the
    `second` product; the result `out`."""

    first: str
    scores: str
    rows: tuple[str, ...]
    second: str
    out: str

    @property
    def left(self) -> str:
        return self.rows[-1]


def _parts(plan: Plan) -> Parts:
    """Inlines what is cheap, and names what is left."""
    inline_movements(plan)
    reductions = [s.buffer for s in plan.stages() if s.op is not None]
    first, second = reductions[0], reductions[-1]
    found = roles(plan.stage(second))
    if found is None or found.row is None:
        raise ScheduleError(f"{second} is not a matrix product\n{plan.kernel}")
    second, out = with_epilogue(plan, second)
    found = roles(plan.stage(second))
    assert found is not None
    left = found.left.buffer
    _inline_maps(plan, left, lambda n: len(readers(plan.kernel, n)) == 1)
    scores = _scores(plan, first, left)
    _inline_maps(plan, left, lambda n: n != scores and not is_costly(plan.stage(n).value))
    names = [s.buffer for s in plan.stages()]
    if len(names) != len(plan.kernel.body) or names[0] != first or names[-2:] != [second, out]:
        raise ScheduleError(f"not a product, rows and a product\n{plan.kernel}")
    if left not in names[1:-2]:
        raise ScheduleError(f"{second} is no product of rows\n{plan.kernel}")
    names = [n for n in names[1:-2] if n not in (left, scores)]
    return Parts(first, scores, (*names, left), second, out)


def _inline_maps(plan: Plan, left: str, wanted: Callable[[str], bool]) -> None:
    for stage in reversed(plan.stages()):
        local = plan.kernel.buffer(stage.buffer).scope == "temp"
        if stage.op is None and local and stage.buffer != left and wanted(stage.buffer):
            plan.do(Inline(stage.buffer))


def _scores(plan: Plan, first: str, left: str) -> str:
    """The map of the first product that is cheap and all that reads it, or else the product."""
    found = [s for s in plan.stages() if s.position in readers(plan.kernel, first)]
    if len(found) != 1 or found[0].op is not None or found[0].buffer == left:
        return first
    (stage,) = found
    if is_costly(stage.value) or not _join_axes(plan, stage.buffer, first):
        return first
    return stage.buffer


def _join_axes(plan: Plan, buffer: str, like: str) -> bool:
    """Joins axes of a stage until it has the shape of another: windows that a mask tells apart are
    one axis of the products. Whether that is possible."""
    wanted = plan.kernel.buffer(like).shape
    while (shape := plan.kernel.buffer(buffer).shape) != wanted:
        a = next((n for n, (d, e) in enumerate(zip(shape, wanted, strict=False)) if d != e), 0)
        joins = len(shape) > len(wanted) and shape[a] * shape[a + 1] == wanted[a]
        if not joins or not plan.attempt(FuseAxes(buffer, a)):
            return False
    return True


def _value(v: Sym | None) -> Size:
    return 0 if v is None else Dim((((v,), 1),), 0)


def _check_rows(plan: Plan, parts: Parts) -> None:
    """Raises unless each stage between the products is made of its own row of the one before."""
    local = {parts.first, parts.scores, *parts.rows}
    for name in dict.fromkeys((parts.scores, *parts.rows)):
        if name == parts.first:
            continue
        stage = plan.stage(name)
        own = [_value(v) for v, _ in stage.axes[:-1]]
        shape = plan.kernel.buffer(parts.first).shape
        if plan.kernel.buffer(name).shape[:-1] != shape[:-1]:
            raise ScheduleError(f"{name} has other rows\n{plan.kernel}")
        for load in (x for x in walk_expr(stage.value) if isinstance(x, Load)):
            if load.buffer in local and list(load.indices[:-1]) != own:
                raise ScheduleError(f"{name} reads another row: {load}\n{plan.kernel}")


def _check_products(plan: Plan, parts: Parts) -> tuple[Roles, Roles]:
    """The roles of the products: [batch.., row, column] for the first, for the second any order
    with the column last. Raises where they are not as the recipe needs them."""
    made: list[Roles] = []
    for name in (parts.first, parts.second):
        stage = plan.stage(name)
        found = roles(stage)
        if found is None or found.row is None or len(stage.reduce) != 1:
            raise ScheduleError(f"{name} is not a product of matrices\n{plan.kernel}")
        if found.column != len(stage.axes) - 1:
            raise ScheduleError(f"{name} has its columns apart\n{plan.kernel}")
        made.append(found)
    one, two = made
    if one.row != len(plan.stage(parts.first).axes) - 2 or two.row is None:
        raise ScheduleError(f"{parts.first} has its rows apart\n{plan.kernel}")
    second = plan.stage(parts.second)
    own = [_value(v) for n, (v, _) in enumerate(second.axes[:-1]) if n != two.row]
    *batch, row, depth = two.left.indices
    last = [_value(second.axes[two.row][0]), _value(second.reduce[0][0])]
    if sorted(map(str, batch)) != sorted(map(str, own)) or [row, depth] != last:
        raise ScheduleError(f"{parts.left} is not read row by row\n{plan.kernel}")
    operands = [one.left.buffer, one.right.buffer, two.right.buffer]
    # Weights are packed, and read once for all rows: their products have a recipe of their own.
    if any(plan.kernel.buffer(n).scope != "in" for n in operands):
        raise ScheduleError(f"the operands are not inputs\n{plan.kernel}")
    return one, two


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
    return _block(plan, _parts(plan))


def chained(plan: Plan) -> None:
    """Schedules a kernel of a product, maps and reductions of its rows, and a product of those."""
    parts = _parts(plan)
    _check_rows(plan, parts)
    one, two = _check_products(plan, parts)
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
        self._operands()
        panels = [self._panels(self.right)]
        panels += [self.values] if self.values else []
        outer, row, column = self._nest()
        at = f"{row}.o"
        # The second product, a tile in registers.
        tiling = Tiling(plan, parts.second, parts.out, self.two, block.second, None)
        tiling.compute_tile(f"{column}.o", f"{row}.i", f"{column}.i")
        self._first(at, self._rows(at))
        plan.do(ComputeAt(self.left, at, "stack"))
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

    def _operands(self) -> None:
        """Copies of operands, whole blocks and panels of them: of the left one, of the right one,
        and of the second product's right one where its columns are apart. Those beyond the last
        repeat it where that is no detour, and are zero where they are side by side in memory."""
        plan, block = self.plan, self.block
        first, second = plan.stage(self.acc), plan.stage(self.parts.second)
        row, depth, column = first.axes[-2][0], first.reduce[0][0], first.axes[-1][0]
        one, two, width = self.one, self.two, second.axes[-1][0]
        assert row is not None and column is not None and width is not None
        upright = self._step(one.left, row) == 1 != self._step(one.left, depth)
        beside = self._step(one.right, column) == 1
        self.left = self._copy(self.acc, one.left, *((depth, row) if upright else (row, depth)))
        self.right = self._copy(self.acc, one.right, depth, column)
        self.values = ""
        if self._step(two.right, width) != 1:
            self.values = self._copy(self.parts.second, two.right, second.reduce[0][0], width)
            self._pad(self.values, -1, block.second.columns)
        self._pad(self.right, -1, block.first.columns, "zero" if beside else "clamp")
        self._pad(self.acc, -1, block.first.columns, "zero")
        self._pad(self.left, -1 if upright else -2, block.rows, "zero" if upright else "clamp")
        for name in (self.acc, self.parts.scores, *self.parts.rows):
            self._pad(name, -2, block.rows)
        assert two.row is not None
        self._pad(self.parts.second, two.row, block.rows)
        self._pad(self.parts.second, two.column, block.second.columns, "zero")

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
            if len(found) != 1 or load.indices[found[0]] != _value(v):
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
            raise ScheduleError(f"{self.parts.out} is one row\n{plan.kernel}")
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
