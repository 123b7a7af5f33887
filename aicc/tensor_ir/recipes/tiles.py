"""Register tiles: how many rows and vectors a contraction keeps in registers, by a cost model.

One step of the reduction of a tile of R rows by V vectors takes R*V multiply-adds, V vector loads
and R broadcast loads. Two multiply-adds and two loads start per cycle; a multiply-add takes about
four cycles, so that fewer than eight independent ones leave the units idle. What a tile needs at
once, R*V accumulators, V vectors and a broadcast, has to fit the registers: a spill in the inner
loop halves the speed. A panel of the right operand is read once per tile of rows, from whichever
cache holds it: few rows are limited by that, and the two limits overlap imperfectly.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import gcd

from aicc.symbolic import Size, sym, value_range
from aicc.tensor_ir.recipes.machine import Machine
from aicc.tensor_ir.work import SHARED_CYCLES

LATENCY = 4.0
"""Cycles of one multiply-add."""
LOAD = 0.1
"""Cycles that a load costs where the multiply-adds are the limit: of two tiles that need equally
many of those, the one with fewer loads is quicker."""
STEP = 0.15
"""Cycles of a step for counting and addresses."""
VECTOR_BYTES = 64
"""Bytes that a vector counts as: narrower registers come with narrower paths to the caches."""
NEAR = 32.0
"""Bytes per cycle of a panel from the second cache."""
SPARE = 4
"""Registers for broadcasts on their way."""
FIRST = 8.0
"""Bytes per cycle of what comes from memory, for the first tile of a panel."""
NO_LONGER = range(9, int(2 * VECTOR_BYTES / FIRST) + 1)
"""Rows whose arithmetic takes no longer than memory, which is the limit then whatever the tile; but
where the last cache holds the panels, the arithmetic is. Up to eight rows go in one tile."""
PAIR = 128
"""Bytes that memory gives at a time: two lines."""
VISIT = 30.0
"""Cycles more for each run of bytes that comes from memory by itself."""
WAYS = 16
"""Lines of a set of the second cache."""
IN_PLACE = 0.4
"""The share of the second cache that a panel may fill whose rows are on pages of their own."""
REFETCHED = 2.0
"""Cycles more of a step, for each vector of a row that the second cache has lost meanwhile."""
REFETCHED_FAR = 4.0
"""As many where the last cache may have lost it as well."""
COPIED = 4.0
"""Cycles for copying a row of a panel, and of each of its vectors `COPIED_VECTOR`."""
COPIED_VECTOR = 2.0
COPIED_PAGE = 15.0
"""Cycles more where each row is on a page of its own, which no arithmetic hides."""
PAGES = 64
"""Pages whose addresses a core has at hand; of more, each visit costs `PAGE` cycles."""
PAGE = 2.0
TILE_OVERHEAD = 24.0
"""Cycles per tile for its start, write-back and loop."""
SECOND_SIZE = 1.01
"""What a second size of tiles costs: code that is longer to compile and to fetch."""
CODE = 0.005
"""What the code of a row costs of a tile for what is left over."""
OVERLAP = 4
"""The norm that joins arithmetic and transfer: the maximum of the two where one is far larger."""
THREADS = (2, 4)
"""How many threads may share the tiles, for example."""
IDLE = 0.1
"""How much the time counts that threads wait for others: the product counts by one thread's."""
FEW = 32
"""Tiles of which threads may wait long for the last."""
NOMINAL_ROWS = (8, 16, 32, 64, 128, 200)
"""Counts of rows that a tile is judged by where only a run knows how many there are."""


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
    where it is read in place; 0: it is packed. copyable: its panels may be copied instead. far: the
    right operand is too large to be in a cache near the core when the product starts. least: rows
    that there are at least, where only a run knows how many. alone: there is one such product, of
    which threads take tiles.
    """

    rows: int | None
    columns: int | None
    depth: int | None
    row_stride: int | None = None
    column_multiple: int | None = None
    right_stride: int = 0
    copyable: bool = False
    far: bool = False
    least: int = 1
    alone: bool = False


def step_cycles(rows: int, vectors: int, stream: float) -> float:
    """Cycles of one step of the reduction; `stream` bytes of the right operand arrive per cycle."""
    work = max(rows * vectors / 2, (rows + vectors) / 2, LATENCY)
    transfer = vectors * VECTOR_BYTES / stream
    both = (work**OVERLAP + transfer**OVERLAP) ** (1 / OVERLAP)
    return float(both + STEP + LOAD * (rows + vectors))


def choose_tile(machine: Machine, dtype: str, problem: Problem) -> Tile:
    """The tile of least estimated time.

    Rows at multiples of 4096 bytes fall into one set of the first cache, which holds as many of
    them as it has ways, fewer where rows of a right operand in place fall anywhere; where strides
    are not known, each row needs an address register of its own.
    """
    lanes = machine.lanes(dtype)
    most = 28
    if problem.row_stride is not None and problem.row_stride % 4096 == 0:
        most = max(1, machine.l1d // 4096)
        if problem.right_stride:
            most = max(1, most * 3 // 4)
    if problem.row_stride is None:
        most = min(most, 8)
    best: tuple[float, Tile] | None = None
    multiple = problem.column_multiple
    masked = problem.columns is None
    for vectors in range(1, machine.vector_registers):
        if multiple is not None and multiple % (vectors * lanes):
            continue
        for r in range(1, most + 1):
            if not fits(machine, r, vectors, masked):
                break
            if problem.rows is not None and r > problem.rows:
                break
            if problem.rows is not None and not whole_tiles(r, problem.rows):
                continue
            tile = Tile(r, vectors, lanes)
            cost = tile_cost(machine, tile, problem)
            if best is None or cost < best[0] * 0.999:
                best = (cost, tile)
    return best[1] if best is not None else Tile(1, 1, lanes)


def row_sizes(tile: Tile, extent: Size, even: bool = True) -> tuple[tuple[int, str], ...]:
    """The rows of the tiles that `extent` rows are split into, one after the other, and the tail
    that each split has. Tiles of R and of R - 1 rows leave none over where there are enough; what
    only a run knows to be left over after those goes by fewer and fewer rows.

    even: False for whole tiles and then single rows, where it cannot be proven where others end.
    """
    rows = tile.rows
    if rows == 1:
        return ((1, "exact"),)
    fewer = rows - 1
    if isinstance(extent, int):
        left = extent - rows * whole_tiles(rows, extent)
        return (rows, "even"), (fewer, "peel"), (left % fewer or 1, "exact")

    if not even:
        return (rows, "peel"), (1, "exact")

    least = value_range(extent)[0]
    enough = least is not None and least >= rows * fewer  # to leave none over
    left_over = [(few, "peel") for few in (() if enough else _left_over(tile))]
    return (rows, "even"), (fewer, "peel"), *left_over, (1, "exact")


@cache
def _left_over(tile: Tile) -> tuple[int, ...]:
    """The tiles for what tiles of R and of R - 1 rows may leave over, but for single rows: those
    that are quick for all counts of rows, and not much code."""
    fewer = tile.rows - 1
    cycles = [0.0, *(step_cycles(r, tile.vectors, NEAR) for r in range(1, tile.rows + 1))]
    whole, often = 0.0, [0.0] * fewer
    for rows in range(1, tile.rows * fewer):
        share = 1 / (rows + 1)  # small counts are as frequent as large ones
        if rows & (rows - 1) == 0:  # and powers of two, as batches are, more so
            share *= 2
        tiles = whole_tiles(tile.rows, rows)
        others, left = divmod(rows - tiles * tile.rows, fewer)
        whole += share * (tiles * cycles[-1] + others * cycles[-2])
        often[left] += share

    def cost(sizes: tuple[int, ...]) -> float:
        total = whole
        for rest, share in enumerate(often):
            for size in (*sizes, 1):
                total += share * (rest // size) * cycles[size]
                rest %= size
        return total * (1 + CODE * sum(sizes))

    chosen: tuple[int, ...] = ()
    while True:
        more = {tuple(sorted({*chosen, n}, reverse=True)) for n in range(2, fewer)}
        best = min((chosen, *sorted(more)), key=cost)
        if best == chosen:
            return chosen
        chosen = best


def whole_tiles(rows: int, extent: int) -> int:
    """How many tiles of `rows` rows an even split makes; the others have a row less."""
    groups = -(-extent // rows)
    return max(0, groups - (groups * rows - extent))


def fits(machine: Machine, rows: int, vectors: int, masked: bool) -> bool:
    """True where accumulators, right operand and broadcast fit the registers; without a fused
    multiply-add a product needs one more, and so do `masked` columns where masks are vectors. A
    single row multiplies straight from memory. A few are left over: LLVM loads operands of the next
    steps early, and spills for want of the last ones."""
    used = vectors + 2 if rows == 1 else rows * vectors + vectors + 1
    if masked and machine.vector_registers <= 16:
        used += 1
    if vectors == 1 and rows > 1 and machine.vector_registers <= 16:
        used += SPARE
    spare = machine.vector_registers // 10
    return used + spare + (0 if machine.has_fma else 1) <= machine.vector_registers


def tile_cost(machine: Machine, tile: Tile, problem: Problem) -> float:
    """Estimated cycles per row of the product, tails and padding included."""
    cost = _cost(machine, tile, problem, copied=False)
    return min(cost, _cost(machine, tile, problem, copied=True)) if problem.copyable else cost


def copies(machine: Machine, tile: Tile, problem: Problem) -> bool:
    """True where the panels of a right operand that could be read in place are better copied: rows
    far apart fall into few sets of the caches, which lose them until the next tile."""
    if not problem.copyable:
        return False
    costs = [_cost(machine, tile, problem, copied) for copied in (False, True)]
    return costs[1] < costs[0]


def _cost(machine: Machine, tile: Tile, problem: Problem, copied: bool) -> float:
    depth = problem.depth or 256
    columns = problem.columns or 16 * tile.columns
    panels: float = -(-columns // tile.columns)
    panel_bytes = depth * tile.vectors * VECTOR_BYTES
    in_place = problem.copyable and not copied
    stream = _stream(machine, panel_bytes)
    source = _stream(machine, depth * columns * VECTOR_BYTES // tile.lanes)
    again = _refetched(machine, tile, problem, depth) if in_place else 0.0
    walks = problem.right_stride * min(depth, PAGES + 1) > PAGES * 4096
    once = 0.0
    if copied:
        copying = COPIED + COPIED_VECTOR * tile.vectors + (COPIED_PAGE if walks else 0.0)
        once = depth * (copying + max(_visit(tile, problem), tile.vectors * VECTOR_BYTES / source))
    # Pages that are visited again and again for tiles of many rows do not show.
    walking = PAGE if walks and not problem.copyable else 0.0

    def step(rows: int) -> float:
        return step_cycles(rows, tile.vectors, stream) + walking

    def group(rows: int) -> float:
        overhead = TILE_OVERHEAD + rows * tile.vectors * 1.5
        return (step(rows) + again) * depth + overhead

    def first(rows: int, all_rows: int) -> float:
        """What the first tile takes longer, or less long, than others."""
        if in_place:
            slow = step_cycles(rows, tile.vectors, min(stream, source))
            slow = max(slow + (PAGE if walks else 0.0), _visit(tile, problem))
            return (slow - step(rows) - again) * depth
        if not problem.far or copied or all_rows in NO_LONGER:
            return 0.0
        slow = step_cycles(rows, tile.vectors, min(stream, FIRST))
        return (slow - step_cycles(rows, tile.vectors, stream)) * depth

    def each(count: int, sizes: tuple[tuple[int, str], ...]) -> float:
        cycles, left = once + first(min(count, tile.rows), count), count
        for rows, tail in sizes:
            tiles = whole_tiles(rows, left) if tail == "even" else left // rows
            cycles += tiles * group(rows)
            left -= tiles * rows
            if left and tail == "even":
                cycles *= SECOND_SIZE
        return cycles / count

    least = problem.least if problem.rows is None else problem.rows
    cost = panels * each(least, row_sizes(tile, least)) * least
    tiles = int(panels) * -(-least // tile.rows)
    if problem.alone and tiles < FEW and cost >= SHARED_CYCLES:
        panels *= 1 + IDLE * _idle(tiles)
    if problem.rows is not None:
        return panels * each(problem.rows, row_sizes(tile, problem.rows))
    sizes = row_sizes(tile, sym("rows", problem.least))
    several = problem.least, 2 * problem.least, 4 * problem.least
    counts = NOMINAL_ROWS if problem.least < NOMINAL_ROWS[0] else several
    return panels * sum(each(n, sizes) for n in counts) / len(counts)


def _stream(machine: Machine, size: int) -> float:
    """Bytes per cycle of so many that are read again and again."""
    levels = ((0.5, machine.l1d, 128.0), (0.75, machine.l2, NEAR))
    near = (rate for share, room, rate in levels if size <= share * room)
    return next(near, float(machine.l3_rate))


def _visit(tile: Tile, problem: Problem) -> float:
    """Cycles for a row of a panel that comes from memory, where other columns are in between."""
    if not problem.far:
        return 0.0
    size = tile.vectors * VECTOR_BYTES
    return VISIT + (size if size % PAIR == 0 else size // PAIR * PAIR + 2 * PAIR) / FIRST


def _refetched(machine: Machine, tile: Tile, problem: Problem, depth: int) -> float:
    """Cycles more per step of tiles after the first: of a panel whose rows are `right_stride` bytes
    apart, the second cache keeps as many as its sets for them have room for."""
    apart = gcd(problem.right_stride, max(1, machine.l2 // WAYS))
    row = tile.vectors * VECTOR_BYTES
    share = IN_PLACE if problem.right_stride >= 4096 else 1.0
    room, kept = machine.l2 / row, min(machine.l2 / apart, share * machine.l2 / row)
    lost = min(1.0, room / depth) - min(1.0, kept / depth)
    return lost * tile.vectors * (REFETCHED_FAR if problem.far else REFETCHED)


def _idle(parts: int) -> float:
    """The time that threads wait for the last of so many equal parts, over that of their work."""
    waits = [threads * -(-parts // threads) / parts - 1 for threads in THREADS]
    return sum(waits) / len(waits)
