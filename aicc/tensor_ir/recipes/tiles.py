"""Register tiles: how many rows and vectors a contraction keeps in registers, by a cost model.

One step of the reduction of a tile of R rows by V vectors takes R*V multiply-adds, V vector loads
and R broadcast loads. Two multiply-adds and two loads start per cycle; a multiply-add takes about
four cycles, so that fewer than eight independent ones leave the units idle. What a tile needs at
once, R*V accumulators, V vectors and a broadcast, has to fit the registers: a spill in the inner
loop halves the speed. A panel of the right operand is read once per tile of rows, from whichever
cache holds it: few rows are limited by that.
"""

from __future__ import annotations

from dataclasses import dataclass

from aicc.tensor_ir.recipes.machine import Machine

LATENCY = 4.0
"""Cycles of one multiply-add."""
LOAD = 0.03
"""Cycles that a load costs where the multiply-adds are the limit: of two tiles that need equally
many of those, the one with fewer loads is quicker."""
VECTOR_BYTES = 64
"""Bytes that a vector counts as: narrower registers come with narrower paths to the caches."""
FAR = 12.0
"""Bytes per cycle of a panel that is read anew from the last cache for each tile."""
NEAR = 28.0
"""Bytes per cycle of a panel from the second cache."""
PAGES = 64
"""Pages whose addresses a core has at hand; of more, each visit costs `PAGE` cycles."""
PAGE = 2.0
TILE_OVERHEAD = 24.0
"""Cycles per tile for its start, write-back and loop."""


@dataclass(frozen=True)
class Tile:
    """rows: of the left operand. vectors: of the right operand, `vectors * lanes` columns."""

    rows: int
    vectors: int
    lanes: int

    @property
    def columns(self) -> int:
        return self.vectors * self.lanes


@dataclass(frozen=True)
class Problem:
    """A product of rows x depth by depth x columns; None: not known at compile time.

    row_stride: bytes between rows of the left operand. column_multiple: the tile's columns have to
    divide it (groups that must not be mixed). right_stride: bytes between rows of the right operand
    where it is read in place; 0: it is packed.
    """

    rows: int | None
    columns: int | None
    depth: int | None
    row_stride: int | None = None
    column_multiple: int | None = None
    right_stride: int = 0


def step_cycles(rows: int, vectors: int, stream: float) -> float:
    """Cycles of one step of the reduction; `stream` bytes of the right operand arrive per cycle."""
    work = max(rows * vectors / 2, (rows + vectors) / 2, LATENCY)
    return max(work, vectors * VECTOR_BYTES / stream) + LOAD * (rows + vectors)


def choose_tile(machine: Machine, dtype: str, problem: Problem) -> Tile:
    """The tile of least estimated time.

    Rows at multiples of 4096 bytes fall into one set of the first cache, which holds as many of
    them as it has ways; where strides are not known, each row needs an address register of its own.
    """
    lanes = machine.lanes(dtype)
    most = 28
    if problem.row_stride is not None and problem.row_stride % 4096 == 0:
        most = max(1, machine.l1d // 4096)
    if problem.row_stride is None:
        most = min(most, 8)
    best: tuple[float, Tile] | None = None
    multiple = problem.column_multiple
    for vectors in range(1, machine.vector_registers):
        if multiple is not None and multiple % (vectors * lanes):
            continue
        for r in range(1, most + 1):
            if not _fits(machine, r, vectors) or (problem.rows is not None and r > problem.rows):
                break
            tile = Tile(r, vectors, lanes)
            cost = tile_cost(machine, tile, problem)
            if best is None or cost < best[0] * 0.999:
                best = (cost, tile)
    return best[1] if best is not None else Tile(1, 1, lanes)


def rest_rows(tile: Tile, rows: int) -> int:
    """The rows of a second tile for what tiles of `rows` rows leave, where only a run knows how
    many: the cheapest on average, with single rows for what that leaves in turn."""

    def passes(most: int) -> float:
        each, one = (step_cycles(r, tile.vectors, NEAR) for r in (most, 1))
        return sum(each * (left // most) + one * (left % most) for left in range(1, rows))

    return min(range(1, max(2, rows)), key=passes)


def _fits(machine: Machine, rows: int, vectors: int) -> bool:
    """True where accumulators, right operand and broadcast fit the registers; without a fused
    multiply-add a product needs one more. A single row multiplies straight from memory."""
    used = vectors + 2 if rows == 1 else rows * vectors + vectors + 1
    return used + (0 if machine.has_fma else 1) <= machine.vector_registers


def tile_cost(machine: Machine, tile: Tile, problem: Problem) -> float:
    """Estimated cycles per row of the product, tails and padding included."""
    depth = problem.depth or 256
    columns = problem.columns or 16 * tile.columns
    panels = -(-columns // tile.columns)
    panel_bytes = depth * tile.vectors * VECTOR_BYTES
    stream = next(
        (rate for share, size, rate in _levels(machine) if panel_bytes <= share * size), FAR
    )

    walks = PAGE if problem.right_stride * min(depth, PAGES + 1) > PAGES * 4096 else 0.0

    def group(rows: int) -> float:
        overhead = TILE_OVERHEAD + rows * tile.vectors * 1.5
        return (step_cycles(rows, tile.vectors, stream) + walks) * depth + overhead

    if problem.rows is None:
        return panels * group(tile.rows) / tile.rows
    whole, rest = divmod(problem.rows, tile.rows)
    return panels * (whole * group(tile.rows) + (group(rest) if rest else 0.0)) / problem.rows


def _levels(machine: Machine) -> tuple[tuple[float, int, float], ...]:
    """(share that a panel may fill, bytes, bytes per cycle) of the caches near the core."""
    return ((0.5, machine.l1d, 128.0), (0.75, machine.l2, NEAR))
