"""Register tiles: how many rows and vectors a contraction keeps in registers, by a cost model.

One step of the reduction of a tile of R rows by V vectors takes R*V multiply-adds, V vector loads
and R broadcast loads. Two multiply-adds and two loads start per cycle; a multiply-add takes about
four cycles, so that fewer than eight independent ones leave the units idle. What a tile needs at
once, R*V accumulators, V vectors and a broadcast, has to fit the registers: a spill in the inner
loop halves the speed.
"""

from __future__ import annotations

from dataclasses import dataclass

from aicc.tensor_ir.recipes.machine import Machine

LATENCY = 4.0
"""Cycles of one multiply-add."""
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


def step_cycles(rows: int, vectors: int) -> float:
    """Cycles of one step of the reduction."""
    return max(rows * vectors / 2, (rows + vectors) / 2, LATENCY)


def choose_tile(
    machine: Machine,
    dtype: str,
    rows: int | None,
    columns: int | None,
    depth: int | None,
    row_stride: int | None = None,
    column_multiple: int | None = None,
) -> Tile:
    """The tile of least estimated time for a product of rows x depth by depth x columns.

    None: not known at compile time. row_stride: bytes between rows of the left operand; multiples
    of 4096 fall into one cache set, so that tall tiles evict themselves. column_multiple: the
    tile's columns have to divide it (groups that must not be mixed).
    """
    lanes = machine.lanes(dtype)
    best: tuple[float, Tile] | None = None
    clash = row_stride is not None and row_stride % 4096 == 0
    for vectors in range(1, machine.vector_registers):
        if column_multiple is not None and column_multiple % (vectors * lanes):
            continue
        for r in range(1, 29):
            spare = machine.vector_registers - (r * vectors + vectors + 1)
            if r == 1:
                spare = machine.vector_registers - (vectors + 2)
            if spare < 0 or (rows is not None and r > rows):
                break
            tile = Tile(r, vectors, lanes)
            cost = tile_cost(tile, rows, columns, depth)
            if r > 8 and (clash or rows is None):
                cost *= 1.5
            if best is None or cost < best[0] * 0.999:
                best = (cost, tile)
    return best[1] if best is not None else Tile(1, 1, lanes)


def tile_cost(tile: Tile, rows: int | None, columns: int | None, depth: int | None) -> float:
    """Estimated cycles per useful multiply-add vector, tails and padding included."""
    depth = depth or 256
    overhead = TILE_OVERHEAD + tile.rows * tile.vectors * 1.5
    columns = columns or 16 * tile.columns
    panels = -(-columns // tile.columns)
    full = step_cycles(tile.rows, tile.vectors) * depth + overhead
    if rows is None:
        return panels * full / tile.rows
    whole, rest = divmod(rows, tile.rows)
    total = whole * full
    if rest:
        total += step_cycles(rest, tile.vectors) * depth + TILE_OVERHEAD + rest * tile.vectors * 1.5
    return panels * total / rows
