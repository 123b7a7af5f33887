"""Loops whose iterations build on each other, with products inside: recurrent cells.

    for step:                                  serial: what follows is one iteration
        for panel of columns:
            for tile of rows: for vectors of the panel:
                acc[R, G, V vectors] = 0
                for k: acc += h[rows, k] * w[k, G, columns]
                states = f(acc, ...)

A product inside reads states of the iteration before, [rows, k], and weights [k, G, columns] with G
sums (gates) for each column. A panel has all gates of its columns, so that what follows the product
needs no other panel; its weights, packed, are one contiguous piece of memory that all rows read
while it is in the cache. Rows are taken as many at a time as other products take them
(`recipes.tiles`); a single row is the matrix-vector product that runs at the speed of
the memory that holds the weights. Where no outer loop is shared out between threads, panels are, in
each iteration anew.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from aicc.dtypes import nbytes
from aicc.errors import ScheduleError
from aicc.symbolic import Size, Sym, divides, product, symbols
from aicc.tensor_ir.analysis import Stage, reads, stages, writes
from aicc.tensor_ir.ir import For, If, Kernel, Load, Stmt, While
from aicc.tensor_ir.recipes.common import as_number, parallelise, stride_in, vector_loop
from aicc.tensor_ir.recipes.operands import product_of
from aicc.tensor_ir.recipes.plan import Plan
from aicc.tensor_ir.recipes.tiles import Problem, Tile, fits, row_sizes, tile_cost, whole_tiles
from aicc.tensor_ir.schedule import DecomposeReduction, Parallel, Reorder, Split, Unroll, Vectorize
from aicc.tensor_ir.schedule_axes import PadAxis
from aicc.tensor_ir.schedule_stages import CacheRead, ComputeAt, Pack
from aicc.tensor_ir.schedule_text import print_steps
from aicc.tensor_ir.schedule_within import Within, focus
from aicc.tensor_ir.walk import children, loads_of, walk_stmts

CHAINS = 8
"""Independent sums of a tile of one row: what hides the latency of a multiply-add."""
ROWS = 12
"""Rows of a tile, at most."""
UNROLLED = 64
"""Multiply-adds in the innermost unrolled block, about."""
SHARED_WORK = 100_000
"""Multiply-adds of one iteration of the serial loop from which on threads share its panels."""


def serial_loops(kernel: Kernel) -> list[For]:
    """The loops, outermost first, whose body is several nests of which one is a product."""
    found: list[For] = []
    for s in walk_stmts(kernel.body):
        if not isinstance(s, For) or s.kind != "for":
            continue
        if sum(isinstance(c, For) for c in s.body) < 2:
            continue
        if any(_product(stage) is not None for stage in stages(focus(kernel, s))):
            found.append(s)
    return found


def recurrence(plan: Plan) -> None:
    """Schedules a kernel with products inside serial loops."""
    loops = [f.var.name for f in serial_loops(plan.kernel)]
    if not loops:
        raise ScheduleError("no loop has a product inside", plan.kernel)
    shared: list[str] = []
    for name in loops:
        inner = Plan(focus(plan.kernel, plan.loop(name)), plan.target)
        found = [p for s in inner.stages() if (p := _product(s)) is not None]
        for p in found:
            p.choose(inner)
            _pack(plan, p)
        inner = Plan(focus(plan.kernel, plan.loop(name)), plan.target)
        products = {p.buffer for p in found}
        others = tuple(s for s in inner.kernel.body if not products & {*reads(s), *writes(s)})
        panels: list[str] = []
        for p in found:
            panel = _scheduled(inner, p)
            if p.work >= SHARED_WORK:
                panels.append(panel)
        for nest in innermost(others):
            vectorise_run(inner, nest)
        plan.do(Within(name, print_steps(inner.steps)))
        shared += panels
    heads = [
        s.var.name
        for s in plan.kernel.body
        if isinstance(s, For) and any(plan.loop(n) in walk_stmts((s,)) for n in loops)
    ]
    for nest in innermost(plan.kernel.body, set(loops)):
        vectorise_run(plan, nest)
    for name in heads:
        if plan.has_loop(name):
            parallelise(plan, name)
    for panel in shared:
        plan.attempt(Parallel(panel))


@dataclass
class _Product:
    """stage: B[.., g, .., j] = sum over k of left * right. column: the axis j, which the right
    operand has contiguous. gates: the axes that only the right operand has; row: the one, or none,
    that only the left one has."""

    stage: Stage
    column: int
    gates: tuple[int, ...]
    row: int | None
    left: Load
    right: Load
    sums: int
    vectors: int = 1
    lanes: int = 1
    tile: Tile = field(default_factory=lambda: Tile(1, 1, 1))

    @property
    def buffer(self) -> str:
        return self.stage.buffer

    @property
    def work(self) -> int:
        """Multiply-adds for one row, as far as sizes are numbers."""
        total = self.sums
        for extent in (self.stage.axes[self.column][1], *(e for _, e in self.stage.reduce)):
            total *= extent if isinstance(extent, int) else 1
        return total

    @property
    def rows(self) -> Size:
        """How many rows there are."""
        return 1 if self.row is None else self.stage.axes[self.row][1]

    def choose(self, plan: Plan) -> None:
        """Picks the width of a panel, and the rows and columns of the tiles in it."""
        machine, columns = plan.target, as_number(self.stage.axes[self.column][1])
        lanes = self.lanes = machine.lanes(plan.kernel.buffer(self.buffer).dtype)
        most = max(1, CHAINS // self.sums)
        if columns is not None:
            most = min(most, -(-columns // lanes))
        rows, depth = as_number(self.rows), as_number(product(e for _, e in self.stage.reduce))
        step = None
        if self.row is not None:
            v = self.stage.axes[self.row][0]
            step = None if v is None else stride_in(plan.kernel, self.left, v)
        size = nbytes(self.right.dtype)
        weights = None if columns is None or depth is None else columns * depth * self.sums * size
        problem = Problem(
            rows,
            None if columns is None else columns * self.sums,
            depth,
            step * size if isinstance(step, int) else None,
            far=weights is not None and weights > machine.l2,
        )
        tiles = [
            tile
            for vectors in range(1, most + 1)
            for count in range(2, ROWS + 1)
            # Single rows, of which there may be some where only a run counts, take whole panels.
            if (count <= rows if rows is not None else most % vectors == 0)
            and fits(machine, count, self.sums * vectors, False)
            and (rows is None or whole_tiles(count, rows))
            and (tile := Tile(count, self.sums * vectors, lanes))
        ]
        self.tile = Tile(1, self.sums * most, lanes)
        if tiles:
            self.tile = min(tiles, key=lambda t: tile_cost(machine, t, problem))
        self.vectors = most if rows is None else self.tile.vectors // self.sums

    @property
    def columns(self) -> int:
        """Columns of a panel."""
        return self.lanes * self.vectors


def _product(stage: Stage) -> _Product | None:
    """The parts of a stage that is a sum of products, None for others."""
    operands = product_of(stage)
    column = next((n for n in reversed(range(len(stage.axes))) if stage.axes[n][0]), None)
    if operands is None or column is None or column != len(stage.axes) - 1:
        return None
    left, right = operands
    v = stage.axes[column][0]
    assert v is not None
    if v in left.size_symbols():
        left, right = right, left
    if v in left.size_symbols() or v not in right.size_symbols():
        return None
    rows: list[int] = []
    gates: list[int] = []
    sums = 1
    for n, (w, extent) in enumerate(stage.axes[:column]):
        if w is None:
            continue
        in_left, in_right = w in left.size_symbols(), w in right.size_symbols()
        if in_left and not in_right:
            rows.append(n)
        elif in_right and not in_left and isinstance(extent, int):
            gates.append(n)
            sums *= extent
        else:
            return None
    if len(rows) > 1 or sums > 16:
        return None
    row = rows[0] if rows else None
    return _Product(stage, column, tuple(gates), row, left, right, sums)


def _pack(plan: Plan, p: _Product) -> None:
    """Lays constant weights out as panels: [.., columns/T, k, gates, T]."""
    b = plan.kernel.buffer(p.right.buffer)
    if b.scope != "const" or b.pack:
        return
    v = p.stage.axes[p.column][0]
    place = {w: 1 for w, _ in p.stage.reduce}
    place |= {w: 2 for n in p.gates if (w := p.stage.axes[n][0]) is not None}
    axis = next(n for n, i in enumerate(p.right.indices) if v in symbols(i))
    if symbols(p.right.indices[axis]) != {v}:
        return

    def depth(n: int) -> int:
        return max((place.get(w, 0) for w in symbols(p.right.indices[n])), default=0)

    others = sorted((n for n in range(len(b.shape)) if n != axis), key=depth)
    ahead = [str(n) for n in others if depth(n) == 0]
    inside = [str(n) for n in others if depth(n) > 0]
    words = [*ahead, f"{axis}/{p.columns}", *inside, f"{axis}%{p.columns}"]
    plan.do(Pack(b.name, " ".join(words)))


def _scheduled(plan: Plan, p: _Product) -> str:
    """Schedules a product; the name of the loop over panels."""
    kernel, steps = plan.kernel, len(plan.steps)
    try:
        return _Cell(plan, p).run()
    except ScheduleError:
        plan.kernel = kernel
        del plan.steps[steps:]
        return _Cell(plan, p, even=False).run()


class _Cell:
    """One product and the nest that reads it, inside one iteration. even: see `row_sizes`."""

    def __init__(self, plan: Plan, product: _Product, even: bool = True) -> None:
        self.plan, self.p, self.even = plan, product, even

    def run(self) -> str:
        """The name of the loop over panels, whose iterations may run at the same time."""
        plan, p = self.plan, self.p
        nest = self._reader()
        row, column = self._loops(nest)
        extent = p.stage.axes[p.column][1]
        exact = divides(p.columns, extent)
        plan.do(PadAxis(p.buffer, p.column, p.columns))
        plan.do(CacheRead(p.buffer))
        staged = plan.newest_buffer()
        panel, inside = f"{column}.o", f"{column}.i"
        plan.do(Split(column, p.columns, "exact" if exact else "guard"))
        if not row:
            self._compute(staged, panel, "", inside, 1)
            return panel
        plan.do(Reorder((panel, row, inside)))
        for rows, tail in row_sizes(p.tile, plan.loop(row).extent, self.even):
            if not plan.has_loop(row):
                break
            if rows == 1:
                self._compute(staged, row, "", inside, 1)
                break
            plan.do(Split(row, rows, tail))
            if plan.has_loop(f"{row}.o"):
                self._compute(staged, f"{row}.o", f"{row}.i", inside, rows)
            row, inside = f"{row}.t", f"{inside}.t"
        return panel

    def _reader(self) -> For:
        """The one nest that reads the product."""
        body = self.plan.kernel.body
        found = [s for s in body if self.p.buffer in reads(s)]
        if len(found) != 1 or not isinstance(found[0], For):
            raise ScheduleError(f"{len(found)} nests read {self.p.buffer}", self.plan.kernel)
        return found[0]

    def _loops(self, nest: For) -> tuple[str, str]:
        """The reader's loops over the product's rows ("" for none) and columns."""
        p = self.p
        loads = {x for x in loads_of(nest) if x.buffer == p.buffer}
        chain: list[For] = [nest]
        while len(chain[-1].body) == 1 and isinstance(chain[-1].body[0], For):
            chain.append(chain[-1].body[0])
        names = []
        for axis in (p.row, p.column):
            at = set() if axis is None else {v for x in loads for v in symbols(x.indices[axis])}
            names.append([f for f in chain if f.var in at])
        rows, columns = names
        if len(columns) != 1 or len(rows) > 1 or len(chain) != len(rows) + 1:
            raise ScheduleError(f"{p.buffer} is not read column by column", self.plan.kernel)
        return rows[0].var.name if rows else "", columns[0].var.name

    def _compute(self, staged: str, at: str, row: str, column: str, rows: int) -> None:
        """Computes the product of a tile in registers inside the loop `at`, and leaves it in memory
        for the nest that goes over the tile's rows and columns."""
        plan, p = self.plan, self.p
        vectors = p.vectors if rows == 1 else p.tile.vectors // p.sums
        if vectors < p.vectors:
            plan.do(Split(column, p.lanes * vectors))
            at, column = f"{column}.o", f"{column}.i"
            if row:
                plan.do(Reorder((at, row, column)))
        plan.do(ComputeAt(staged, at, "stack"))
        copy = plan.newest_buffer()
        plan.do(ComputeAt(p.buffer, at, "register"))
        acc = plan.newest_buffer()
        axes = sorted([*p.gates, p.column, *([] if p.row is None else [p.row])])
        loops = [n for a in axes if plan.has_loop(n := f"{acc}.{a}")]
        depth = [f"{acc}.k{n}" for n in range(len(p.stage.reduce)) if plan.has_loop(f"{acc}.k{n}")]
        plan.do(DecomposeReduction(loops[0]), Reorder((*depth, *loops)))
        room = max(1, UNROLLED // (p.sums * vectors * rows))
        extent = plan.loop(depth[-1]).extent
        for factor in (8, 4, 2):
            if factor <= room and divides(factor, extent):
                plan.do(Split(depth[-1], factor), Unroll(f"{depth[-1]}.i"))
                depth[-1:] = [f"{depth[-1]}.o", f"{depth[-1]}.i"]
                break
        self._tile(acc, "", vectors, depth)
        self._tile(acc, ".s", vectors, [])
        self._tile(copy, "", vectors, [])
        vector_loop(plan, column, p.lanes)

    def _tile(self, buffer: str, suffix: str, vectors: int, depth: list[str]) -> None:
        """Reduction, rows, gates, vectors, lanes: weights stay in registers for all rows."""
        plan, p = self.plan, self.p
        gates, rows = (
            [n for a in axes if plan.has_loop(n := f"{buffer}.{a}{suffix}")]
            for axes in (p.gates, () if p.row is None else (p.row,))
        )
        lane = f"{buffer}.{p.column}{suffix}"
        several: list[str] = []
        if vectors > 1:
            plan.do(Split(lane, p.lanes))
            several, lane = [f"{lane}.o"], f"{lane}.i"
        plan.do(Reorder((*depth, *rows, *gates, *several, lane)))
        for n in (*rows, *gates, *several):
            plan.do(Unroll(n))
        plan.do(Vectorize(lane))


def innermost(body: tuple[Stmt, ...], without: set[str] = frozenset()) -> list[str]:  # type: ignore[assignment]
    """Names of the serial loops that contain no loop, those inside `without` left out."""
    found: list[str] = []
    for s in body:
        if isinstance(s, If | While):
            found += innermost(children(s), without)
        if not isinstance(s, For) or s.var.name in without or s.kind != "for":
            continue
        if any(isinstance(x, For | While) for x in walk_stmts(s.body)):
            found += innermost(s.body, without)
        else:
            found.append(s.var.name)
    return found


def vectorise_run(plan: Plan, name: str) -> None:
    """Vectorises a loop over contiguous elements, where that is legal."""
    loop = plan.loop(name)
    v: Sym = loop.var
    loads = [x for s in loop.body for x in loads_of(s) if v in x.size_symbols()]
    if any(stride_in(plan.kernel, x, v) != 1 for x in loads):
        return
    dtypes = {plan.kernel.buffer(x.buffer).dtype for x in loads} or {"f32"}
    lanes = min(plan.target.lanes(d) for d in dtypes - {"bool"} or {"u8"})
    kernel, n = plan.kernel, len(plan.steps)
    try:
        vector_loop(plan, name, lanes, 2)
    except ScheduleError:
        plan.kernel = kernel
        del plan.steps[n:]
