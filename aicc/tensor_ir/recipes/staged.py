"""Matrix products between maps over blocks: what goes in and what comes out stays in the cache.

    parallel band of blocks:
        v[..] = f(x[band])                 each block in registers, into a local array
        for panel of columns: for tile of rows:
            acc = 0;  for k: acc += v[rows, k] * w[k, columns];  m[rows, columns] = acc
        y[band] = g(m[..])                 each block in registers, epilogue included

The product's left operand is computed by maps of which the elements of a block share values, and
its result is read by such maps (`blocks`). A band is as many rows of the product as fit into half
of the second cache, with their results: whole rows of blocks, or where only a run knows how long
these are, so many blocks one after the other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from aicc.dtypes import nbytes
from aicc.errors import ScheduleError
from aicc.symbolic import Sym, symbols
from aicc.tensor_ir.analysis import Stage, stages, writes
from aicc.tensor_ir.ir import Kernel
from aicc.tensor_ir.recipes.blocks import (
    Nest,
    check_lanes,
    compute_block,
    loads_from,
    shared,
    tiled,
)
from aicc.tensor_ir.recipes.common import as_number, lanes_of, nominal, parallelise, value_of
from aicc.tensor_ir.recipes.contraction import PART, Tiling, right_operand
from aicc.tensor_ir.recipes.machine import Machine
from aicc.tensor_ir.recipes.operands import Roles, roles
from aicc.tensor_ir.recipes.plan import Plan
from aicc.tensor_ir.recipes.tiles import Problem, choose_tile
from aicc.tensor_ir.schedule import Fuse, Reorder, Split
from aicc.tensor_ir.schedule_axes import PadAxis, Widen
from aicc.tensor_ir.schedule_compute_at import ComputeAt
from aicc.tensor_ir.schedule_stages import CacheWrite, Inline
from aicc.tensor_ir.walk import loads_of

SETS = 4096
"""Bytes after which the sets of the first cache repeat, on common machines."""
CROWD = 6
"""Lines of one set that may be written to in turn: it holds 8 to 16."""
BANDS = 8
"""Bands that there should be at least, for threads to share."""
LEAST = 12
"""Rows of a band at least where only a run knows how many there are, and what they are a multiple
of: of the rows of most tiles."""
MOST = 96
"""Rows of a band at most where only a run knows how many there are."""


def has_staged(kernel: Kernel) -> bool:
    """True for one product whose left operand is computed by blocks, as what reads its result."""
    found = stages(kernel)
    reductions = [n for n, s in enumerate(found) if s.op is not None]
    if len(reductions) != 1:
        return False
    (n,) = reductions
    parts = found[:n], found[n + 1 :]
    if not all(any(shared(kernel, s) for s in part) for part in parts):
        return False
    operands = roles(found[n])
    made = {s.buffer for s in parts[0]}
    return operands is not None and operands.row is not None and operands.left.buffer in made


@dataclass(frozen=True)
class Band:
    """blocks: along the outermost axis that numbers rows; 0 where only a run knows how many rows
    there are, and a band goes on in the next block. rows: of the product. count: of bands."""

    blocks: int
    rows: int
    count: int


@dataclass(frozen=True)
class Parts:
    """The stages: `before` make the `left` operand of the `product`; `after` lead to `out`."""

    before: tuple[str, ...]
    left: str
    product: str
    after: tuple[str, ...]
    out: str


def _parts(plan: Plan) -> Parts:
    """Inlines what elements of a block do not share, and names what is left."""
    product = next(s for s in plan.stages() if s.op is not None).buffer
    operands = roles(plan.stage(product))
    if operands is None or operands.row is None:
        raise ScheduleError(f"{product} is not a matrix product", plan.kernel)
    left = operands.left.buffer
    for stage in reversed(plan.stages()):
        local = plan.kernel.buffer(stage.buffer).scope == "temp"
        if local and stage.buffer not in (product, left) and not shared(plan.kernel, stage):
            plan.do(Inline(stage.buffer))
    names = [s.buffer for s in plan.stages()]
    if len(names) != len([s for s in plan.kernel.body if writes(s)]):
        raise ScheduleError("not all nests are stages", plan.kernel)
    n = names.index(product)
    found = Parts(
        tuple(names[: names.index(left)]), left, product, tuple(names[n + 1 : -1]), names[-1]
    )
    whole = [*found.before, left, product, *found.after, found.out]
    if names != whole or not found.before or not found.after:
        raise ScheduleError("not maps, a product and maps", plan.kernel)
    last = loads_from(plan.stage(found.out).value, found.after[-1])
    if len(last) != 1 or plan.kernel.buffer(found.out).scope != "out":
        raise ScheduleError(f"{found.out} is not the result", plan.kernel)
    for name in (*found.before, left, *found.after):
        check_lanes(plan, plan.stage(name))
    return found


def band_of(kernel: Kernel, machine: Machine) -> Band | None:
    """The bands of a kernel that `has_staged`; None where the recipe does not fit it."""
    plan = Plan(kernel, machine)
    try:
        band = _band(plan, _parts(plan))
        if not band.blocks:
            staged(Plan(kernel, machine))  # not all of its steps are provable for all sizes
        return band
    except ScheduleError:
        return None


def _band(plan: Plan, parts: Parts) -> Band:
    product, reader = plan.stage(parts.product), plan.stage(parts.after[0])
    operands = roles(product)
    assert operands is not None and operands.row is not None
    total = product.axes[operands.row][1]
    loads = loads_from(reader.value, product.buffer)
    inside = symbols(loads[0].indices[operands.row]) if loads else frozenset()
    extents = [as_number(e) for v, e in reader.axes if v in inside]
    room = plan.target.l2 // 2 // max(1, _row_bytes(plan, product, operands))
    if not isinstance(total, int) and room >= LEAST:
        rows = min(room, MOST) // LEAST * LEAST
        return Band(0, rows, max(1, nominal(total) // rows))
    if not extents or extents[0] is None or not isinstance(total, int):
        raise ScheduleError(f"rows of {product.buffer} are no number of blocks", plan.kernel)
    each = total // extents[0]
    most = max(1, min(room // each, extents[0] // BANDS))
    blocks = max(d for d in range(1, most + 1) if extents[0] % d == 0)
    if blocks * each < 2:
        raise ScheduleError(f"a band of {product.buffer} has one row", plan.kernel)
    return Band(blocks, blocks * each, extents[0] // blocks)


def staged(plan: Plan) -> None:
    """Schedules a kernel of maps, one product, and maps."""
    parts = _parts(plan)
    _Bands(plan, parts, _band(plan, parts)).run()


class _Bands:
    """The steps, from the result back to the operands."""

    def __init__(self, plan: Plan, parts: Parts, band: Band) -> None:
        self.plan, self.band = plan, band
        self.before, self.left, self.product = parts.before, parts.left, parts.product
        self.after, self.out = parts.after, parts.out
        self.lanes = lanes_of(plan, plan.stage(parts.out))
        plan.do(CacheWrite(parts.product))
        self.acc = plan.newest_buffer()

    def run(self) -> None:
        plan = self.plan
        stage = plan.stage(self.acc)
        operands = roles(stage)
        assert operands is not None and operands.row is not None
        row = operands.row
        final = plan.stage(self.out)
        self.row = next(
            n for n, i in enumerate(operands.left.indices) if symbols(i) == {stage.axes[row][0]}
        )
        self.operands = operands
        columns, depth = stage.axes[operands.column][1], _depth(stage)
        stride = None if depth is None else depth * nbytes(operands.left.dtype)
        problem = Problem(self.band.rows, as_number(columns), depth, stride)
        self.tile = choose_tile(plan.target, operands.left.dtype, problem)
        if right_operand(plan, stage, operands, self.tile) is not None:
            raise ScheduleError(f"the right operand of {self.product} is no constant", plan.kernel)
        self._pad(operands.column, row)
        loops = {v: v.name for v in final.variables}
        chain = [plan.stage(b) for b in self.after]
        nest = tiled(plan, plan.stage(self.out), chain, loops, self.lanes)
        numbering = self._band_loops(nest, row)
        leading = nest.over[: nest.over.index(numbering[0])]
        bands = self._split(numbering)
        for n in range(len(bands)):
            part = nest.copied(".t" * n)
            for b in reversed(self.after):
                compute_block(plan, b, part.over[-1])
            part.finish(plan)
        for band in bands:
            self._product(band, row)
        for band in bands:
            self._left(band)
        parallelise(plan, *leading, bands[0])
        if not leading:
            for band in bands[1:]:
                parallelise(plan, band)

    def _split(self, numbering: list[str]) -> list[str]:
        """Splits the loops that rows of the product are numbered by: the loops over bands. Where
        only a run knows how many rows there are, what whole bands leave over, which may be all
        there is, goes by single tiles."""
        plan, (band, *inside) = self.plan, numbering
        if self.band.blocks == 0:
            for inner in inside:
                plan.do(Fuse(band, inner))
                band = f"{band}.{inner}"
            few = max(n for n in range(1, self.tile.rows + 1) if self.band.rows % n == 0)
            plan.do(Split(band, self.band.rows, "peel"), Split(f"{band}.t", few, "guard"))
            return [f"{band}.o", f"{band}.t.o"]
        if self.band.blocks > 1:
            plan.do(Split(band, self.band.blocks, "exact"))
            return [f"{band}.o"]
        return [band]

    def _pad(self, column: int, row: int) -> None:
        plan = self.plan
        if self.band.blocks == 0:
            # Rows beyond the last are computed from the last, and read by nobody.
            rows = self.band.rows
            for b, axis in ((self.left, self.row), (self.acc, row), (self.product, row)):
                plan.do(PadAxis(b, axis, rows, "clamp", rows - 1, 1))
        for b in (*self.before, self.left):
            plan.do(PadAxis(b, len(plan.kernel.buffer(b).shape) - 1, self.lanes))
        plan.do(PadAxis(self.acc, column, self.tile.columns))
        plan.do(PadAxis(self.product, column, self.lanes))
        for b in self.after:
            plan.do(PadAxis(b, len(plan.kernel.buffer(b).shape) - 1, self.lanes))

    def _band_loops(self, nest: Nest, row: int) -> list[str]:
        """The loops that rows of the product are numbered by, outermost first."""
        plan = Plan(self.plan.kernel, self.plan.target)
        for b in reversed(self.after):
            compute_block(plan, b, nest.over[-1])
        inside: set[str] = set()
        for load in loads_of(plan.loop(nest.over[-1])):
            if load.buffer == self.product:
                inside |= {v.name for v in symbols(load.indices[row])}
        found = [n for n in nest.over[:-1] if n in inside]
        if not found:
            raise ScheduleError(f"{self.product} has one row", plan.kernel)
        return found

    def _product(self, band: str, row: int) -> None:
        """The rows of the product for one band, in register tiles."""
        plan, tile = self.plan, self.tile
        plan.do(ComputeAt(self.product, band, "stack"))
        name = plan.newest_buffer()
        _spread(plan, name, row)
        m, n = f"{name}.{row}", f"{name}.{self.operands.column}"
        axes = range(len(plan.kernel.buffer(name).shape))
        outer = [x for a in axes if (x := f"{name}.{a}") not in (m, n) and plan.has_loop(x)]
        extent = plan.loop(n).extent
        exact = isinstance(extent, int) and extent % tile.columns == 0
        plan.do(Split(n, tile.columns, "exact" if exact else "guard"))
        plan.do(Reorder((*outer, f"{n}.o", m, f"{n}.i")))
        tiling = Tiling(plan, self.acc, self.product, self.operands, tile, None, long=PART)
        tiling.row_tiles(m, "", f"{n}.i")

    def _left(self, band: str) -> None:
        """The left operand for one band, by blocks."""
        plan = self.plan
        stage = plan.stage(self.left)
        chain = [plan.stage(b) for b in self.before]
        plan.do(ComputeAt(self.left, band, "stack"))
        name = plan.newest_buffer()
        _spread(plan, name, self.row)
        loops: dict[Sym, str] = {}
        for n, (v, _) in enumerate(stage.axes):
            if v is not None and plan.has_loop(f"{name}.{n}"):
                loops[v] = f"{name}.{n}"
        nest = tiled(plan, stage, chain, loops, self.lanes)
        for b in reversed(self.before):
            compute_block(plan, b, nest.over[-1])
        nest.finish(plan)


def _spread(plan: Plan, buffer: str, row: int) -> None:
    """Room for a few rows more, where the matrices of a batch would be so far apart that what a
    block writes to each of them falls into one set of the first cache."""
    b = plan.kernel.buffer(buffer)
    shape = [e for e in b.shape if isinstance(e, int)]
    if len(shape) < len(b.shape):
        return
    count, rows = math.prod(shape[:row]), shape[row]
    each = nbytes(b.dtype) * math.prod(shape[row + 1 :])

    def crowd(n: int) -> int:
        return count * math.gcd(n * each, SETS) // SETS

    best = min(range(rows, rows + 4), key=lambda n: (max(crowd(n), CROWD), n))
    if best > rows:
        plan.do(Widen(buffer, row, best))


def _row_bytes(plan: Plan, stage: Stage, operands: Roles) -> int:
    """Bytes of one row of a product's left operand and result, for all matrices of a batch that the
    right operand tells apart."""
    left, right = operands.left, operands.right.size_symbols()
    rows = {v for v in left.size_symbols() - right if v in stage.variables}
    total = 0
    for buffer, indices in (
        (plan.kernel.buffer(left.buffer), left.indices),
        (plan.kernel.buffer(stage.buffer), [value_of(v) for v, _ in stage.axes]),
    ):
        size = nbytes(buffer.dtype)
        for index, extent in zip(indices, buffer.shape, strict=True):
            if not symbols(index) & rows:
                size *= extent if isinstance(extent, int) else 1
        total += size
    return total


def _depth(stage: Stage) -> int | None:
    total = 1
    for _, extent in stage.reduce:
        if not isinstance(extent, int):
            return None
        total *= extent
    return total


__all__ = ["Band", "band_of", "has_staged", "staged"]
