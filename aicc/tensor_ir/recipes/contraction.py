"""Matrix products and convolutions: sums of products over tiles that stay in registers.

    for panel of columns: for tile of rows:
        acc[R, V vectors] = 0
        for k: acc += A[rows, k] * B[k, columns]       B packed, or contiguous, or copied per panel
        y = epilogue(acc)

A convolution in channels-last order is the same product: rows are output pixels, columns output
channels, and k runs over the window and the input channels. A is read in place.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from aicc.dtypes import INTEGERS, nbytes
from aicc.errors import ScheduleError
from aicc.symbolic import Size, Sym, divides, product, symbols, value_range
from aicc.tensor_ir.analysis import Stage, stage_of
from aicc.tensor_ir.ir import Load, Op
from aicc.tensor_ir.recipes.common import (
    BANDS,
    all_linear,
    as_number,
    flatten_inputs,
    is_costly,
    is_movement,
    nominal,
    order_copy,
    overlapping,
    own_axes,
    parallelise,
    rows_beside,
    skip_padding,
    split_depth,
    stride_in,
    with_epilogue,
)
from aicc.tensor_ir.recipes.copies import compute_rows, copy_loops, copy_whole
from aicc.tensor_ir.recipes.depth import order_depth, words_of
from aicc.tensor_ir.recipes.joined import joined_columns
from aicc.tensor_ir.recipes.operands import Roles, is_far, right_stride, roles
from aicc.tensor_ir.recipes.partial_sums import add_parts, split_parts
from aicc.tensor_ir.recipes.plan import Plan
from aicc.tensor_ir.recipes.tiles import Problem, Tile, choose_tile, copies, row_sizes
from aicc.tensor_ir.schedule import DecomposeReduction, Reorder, Split, Unroll, Vectorize
from aicc.tensor_ir.schedule_axes import FuseAxes, PadAxis
from aicc.tensor_ir.schedule_stages import CacheRead, ComputeAt, Pack
from aicc.tensor_ir.walk import walk_expr

UNROLLED = 128
"""Multiply-add instructions in the innermost unrolled block, about."""
OFTEN = 4
"""How often a copy would be computed anew, from which on it is made once, ahead of the product."""
FEW_ROWS = 8
"""Rows of which a tile should have as many."""
LONG = 256
"""Elements that are added one by one: of parts of fewer, the work at their ends shows."""
PART = 64
"""As many where each result goes into further sums, as in Winograd's convolution: these make errors
larger. That is taken for granted of a batch of matrices that are known."""
MANY = 64
"""Rows of which more make no better tiles."""
MAX_REDUCTIONS = 16
"""Reduction loops that a contraction may have."""


def contraction(plan: Plan, buffer: str) -> None:
    """Schedules a kernel whose one reduction is the stage of `buffer`, a sum of products."""
    buffer, out = with_epilogue(plan, buffer)
    flatten_rows(plan, buffer, out)
    flatten_inputs(plan)
    split_depth(plan, buffer)
    order_depth(plan, buffer)
    stage = plan.stage(buffer)
    found = roles(stage)
    if found is None:
        raise ScheduleError(f"{buffer} is not a matrix product", plan.kernel)
    order_copy(plan, found.left)
    stage = plan.stage(buffer)
    found = roles(stage)
    assert found is not None
    found = _best_row(plan, stage, found)
    tile, problem = _tile(plan, stage, found)
    copied = copies(plan.target, tile, problem)
    copy = right_operand(plan, stage, found, tile, copied)
    kernel, steps = plan.kernel, len(plan.steps)
    long = PART if _of_a_batch(plan, stage, found) else LONG
    try:
        Tiling(plan, buffer, out, found, tile, copy, long).run()
    except ScheduleError:
        plan.kernel = kernel
        del plan.steps[steps:]
        Tiling(plan, buffer, out, found, tile, copy, long, even=False).run()


def flatten_rows(plan: Plan, buffer: str, out: str) -> None:
    """Joins row axes that address the left operand evenly, or column axes that address the right
    one so: pixels of a 1x1 convolution."""
    axis = 0
    while axis < len(plan.stage(buffer).axes) - 1:
        stage = plan.stage(buffer)
        found = roles(stage)
        if found is None:
            return
        pair = [stage.axes[axis], stage.axes[axis + 1]]

        def is_row(v: Sym | None, a: Load = found.left, b: Load = found.right) -> bool:
            return v is None or (v in a.size_symbols() and v not in b.size_symbols())

        def is_column(v: Sym | None, a: Load = found.left, b: Load = found.right) -> bool:
            mine = v is None or (v in b.size_symbols() and v not in a.size_symbols())
            # A constant is laid out by the axes that its data have.
            return mine and plan.kernel.buffer(b.buffer).scope != "const"

        last = axis + 2 == len(stage.axes)
        place = _adjacent(plan, buffer, out, axis)
        joined = (
            place is not None
            and not any(_halo(plan, stage, x, pair[0][0]) for x in (found.left, found.right))
            and all((is_column if last else is_row)(v) for v, _ in pair)
            and plan.attempt_if(
                lambda k: all_linear(k, {buffer, out}), FuseAxes(out, place), FuseAxes(buffer, axis)
            )
        )
        if not joined:
            axis += 1


def _best_row(plan: Plan, stage: Stage, found: Roles) -> Roles:
    """The rows of a tile along another axis, where those along the innermost one are few, or so far
    apart as only a run knows: sequences of a batch, time by time."""
    a, b = found.left, found.right

    def rows(n: int) -> tuple[int, bool]:
        v, extent = stage.axes[n]
        step = None if v is None else stride_in(plan.kernel, a, v)
        count = as_number(extent)
        return min(MANY, MANY if count is None else count), isinstance(step, int)

    def plain(v: Sym | None) -> bool:
        mine = v is not None and v in a.size_symbols() and v not in b.size_symbols()
        return mine and all(symbols(i) == {v} for i in a.indices if v in symbols(i))

    if found.row is None:
        return replace(found, row=rows_beside(plan, stage, found.column, a, b))
    if not plain(stage.axes[found.row][0]):
        return found
    others = [n for n, (v, _) in enumerate(stage.axes) if n != found.row and plain(v)]
    best = max(others, key=rows, default=found.row)
    (have, steady), (more, known) = rows(found.row), rows(best)
    better = more >= have if known and not steady else known and have < FEW_ROWS <= more
    return replace(found, row=best) if better else found


def _halo(plan: Plan, stage: Stage, load: Load, v: Sym | None) -> bool:
    """True where a copy (padded data) is read in windows along `v`, or padded there: for a tile
    that goes on from one value of `v` to the next, planes around both would be copied whole."""
    made = stage_of(plan.kernel, load.buffer)
    if made is None or is_movement(made):
        return False
    inner = {w for w, extent in stage.reduce if extent != 1}
    selects = [x for x in walk_expr(made.value) if isinstance(x, Op) and x.name == "select"]
    padded = {w for x in selects for w in x.args[0].size_symbols()}
    return any(
        v in symbols(i) and (w in padded or symbols(i) & inner)
        for (w, _), i in zip(made.axes, load.indices)
    )


def _adjacent(plan: Plan, buffer: str, out: str, axis: int) -> int | None:
    """Where the result has the accumulator's axes `axis` and `axis + 1` side by side."""
    mine = own_axes(plan, out, buffer)
    theirs = [v for v, _ in plan.stage(out).axes]
    if mine[axis] is None or mine[axis + 1] is None:
        same = len(mine) == len(theirs) and [v for v in mine if v] == [v for v in theirs if v]
        return axis if same and mine == theirs else None
    place = theirs.index(mine[axis])
    return place if theirs[place + 1 : place + 2] == [mine[axis + 1]] else None


def _tile(plan: Plan, stage: Stage, found: Roles) -> tuple[Tile, Problem]:
    rows: int | None = 1
    stride, least = None, None
    if found.row is not None:
        v, extent = stage.axes[found.row]
        assert v is not None
        rows, least = as_number(extent), value_range(extent)[0]
        step = stride_in(plan.kernel, found.left, v)
        stride = step * nbytes(found.left.dtype) if isinstance(step, int) else None
    depth: int | None = 1
    for _, extent in stage.reduce:
        depth = depth * extent if depth is not None and isinstance(extent, int) else None
    v, columns = stage.axes[found.column]
    assert v is not None
    multiple = None
    mixed = [i for i in found.right.indices if v in symbols(i) and symbols(i) != {v}]
    if mixed and found.right.buffer and isinstance(columns, int):
        lanes = plan.target.lanes(found.right.dtype)
        multiple = columns if columns % lanes == 0 else None
    dtype = plan.kernel.buffer(stage.buffer).dtype
    apart = 0 if mixed else right_stride(plan, stage, found)
    problem = Problem(
        rows,
        as_number(columns),
        depth,
        stride,
        multiple,
        right_stride=apart,
        copyable=apart > 0,
        far=is_far(plan, stage, found),
        least=max(1, least or 1),
        alone=all(
            e == 1 for n, (_, e) in enumerate(stage.axes) if n not in (found.row, found.column)
        ),
    )
    return choose_tile(plan.target, dtype, problem), problem


def _of_a_batch(plan: Plan, stage: Stage, found: Roles) -> bool:
    """True for a right operand of several matrices, all known when the kernel is compiled."""
    own = {v for v, _ in stage.axes} & found.right.size_symbols()
    return plan.kernel.buffer(found.right.buffer).scope == "const" and len(own) > 1


def right_operand(
    plan: Plan, stage: Stage, found: Roles, tile: Tile, copied: bool = False
) -> str | None:
    """Lays out the right operand: the name of the stage to copy panels with, or None. copied: also
    where the panels could be read in place."""
    v, extent = stage.axes[found.column]
    assert v is not None
    right = plan.kernel.buffer(found.right.buffer)
    axis = next(n for n, i in enumerate(found.right.indices) if v in symbols(i))
    others = [n for n in range(len(right.shape)) if n != axis]
    order = {w: n for n, (w, _) in enumerate(stage.reduce)}

    def depth(n: int) -> int:
        inner = [order[w] for w in symbols(found.right.indices[n]) if w in order]
        return max(inner, default=-1)

    others.sort(key=depth)
    index = found.right.indices[axis]
    plain = symbols(index) == {v}
    if right.scope == "const" and not right.pack:
        tiled = plain or (isinstance(extent, int) and extent % tile.columns == 0)
        # Panels of one matrix of a batch follow each other, as they are read.
        batch = [str(n) for n in others if depth(n) < 0 and symbols(found.right.indices[n])]
        placed = [words_of(found.right, n, order) for n in others if str(n) not in batch]
        places = {word: place for words in placed for word, place in words.items()}
        words = sorted(places, key=lambda word: places[word])
        layout = (
            [*batch, f"{axis}/{tile.columns}", *words, f"{axis}%{tile.columns}"]
            if tiled
            else [*batch, *words, str(axis)]
        )
        plan.do(Pack(right.name, " ".join(layout)))
        return None
    if stride_in(plan.kernel, found.right, v) == 1 and not copied:
        return None
    if (copy := joined_columns(plan, stage, found, tile.columns)) is not None:
        return copy
    whole = isinstance(extent, int) and extent % tile.columns == 0
    if not plain and not whole:
        return None
    plan.do(CacheRead(right.name, "", (*others, axis)))
    copy = next(b.name for b in reversed(plan.kernel.buffers) if b.scope == "temp")
    if plain:
        plan.do(PadAxis(copy, len(others), tile.columns, "clamp"))
    return copy


@dataclass
class Tiling:
    """Tiles the epilogue's stage and computes the accumulator in each tile."""

    plan: Plan
    buffer: str
    out: str
    roles: Roles
    tile: Tile
    copy: str | None
    long: int = LONG
    """Elements that are added one by one."""
    even: bool = True
    """Whether rows that only a run counts are split evenly, see `row_sizes`."""
    row_axes: list[str] = field(default_factory=list)
    overlapping: frozenset[int] = frozenset()
    """Reductions of which one step reads what another reads for another row of the tile."""
    staged: str = ""
    """A copy of the accumulator in memory, for an epilogue too long to unroll over the tile."""

    def run(self) -> None:
        plan, tile = self.plan, self.tile
        stage = plan.stage(self.buffer)
        self.overlapping = overlapping(plan, stage, self.roles.left, self.roles.row, tile.rows)
        n_extent = stage.axes[self.roles.column][1]
        m_extent: Size = 1 if self.roles.row is None else stage.axes[self.roles.row][1]
        plan.do(PadAxis(self.buffer, self.roles.column, tile.columns))
        names = [v.name if v else "" for v in own_axes(plan, self.out, self.buffer)]
        column = names[self.roles.column]
        row = "" if self.roles.row is None else names[self.roles.row]
        outer = [n for n in names if n and n not in (row, column)]
        self.row_axes = self._row_axes(outer)
        panel, inside = f"{column}.o", f"{column}.i"
        order = self._outer_order(outer, panel)
        if is_costly(plan.stage(self.out).value):
            plan.do(CacheRead(self.buffer))
            self.staged = plan.newest_buffer()
        exact = isinstance(n_extent, int) and n_extent % tile.columns == 0
        plan.do(Split(column, tile.columns, "exact" if exact else "guard"))
        if not row:
            plan.do(Reorder((*order, inside)))
            self.compute_tile(panel, "", inside)
            self._finish(order)
        elif self._rows_first(outer, m_extent, n_extent):
            plan.do(Reorder((row, panel, inside)))
            for nest in self.row_tiles(row, panel, inside):
                self._finish(nest)
        else:
            plan.do(Reorder((*order, row, inside)))
            nests = self.row_tiles(row, "", inside)
            self._finish([*order, *nests[0]])

    def row_tiles(self, row: str, panel: str, inside: str) -> list[list[str]]:
        """Splits the loop over rows into tiles and computes them. panel: the loop over panels where
        it is inside the loop over rows, else "". The loops around each size of tiles."""
        nests: list[list[str]] = []
        extent = self.plan.loop(row).extent
        for size, tail in row_sizes(self.tile, extent, self.even):
            if not self.plan.has_loop(row):
                break
            outer, inner, rest = row, "", ""
            if size > 1:
                self.plan.do(Split(row, size, tail))
                outer, inner, rest = f"{row}.o", f"{row}.i", f"{row}.t"
            if self.plan.has_loop(outer):
                if panel:
                    order = (outer, panel, inner, inside)
                    self.plan.do(Reorder(tuple(n for n in order if n)))
                # Of what only a run knows to be left over there is one tile of a size.
                left_over = 1 < size < self.tile.rows - 1 and not isinstance(extent, int)
                most = UNROLLED // 2 if left_over else UNROLLED
                self.compute_tile(panel or outer, inner, inside, most)
                nests.append([n for n in (outer, panel) if n])
            row, panel, inside = rest, panel and f"{panel}.t", f"{inside}.t"
        return nests

    def _rows_first(self, outer: list[str], m_extent: Size, n_extent: Size) -> bool:
        """Rows outside, panels inside: where there are too few panels to share out. Rows that only
        a run can count may be few as well: then where the weights are small."""
        if outer or self.copy is not None:
            return False
        panels = as_number(n_extent)
        few = panels is not None and -(-panels // self.tile.columns) < 8
        return few and (isinstance(m_extent, int) or self._small_weights())

    def _small_weights(self) -> bool:
        """True where the right operand stays in L2."""
        weights: Size = nbytes(self.roles.right.dtype)
        for extent in self.plan.kernel.buffer(self.roles.right.buffer).shape:
            weights = weights * extent
        return isinstance(weights, int) and weights <= self.plan.target.l2 // 2

    def _row_axes(self, outer: list[str]) -> list[str]:
        """The outer loops that only the left operand depends on."""
        mine = own_axes(self.plan, self.out, self.buffer)
        acc = self.plan.stage(self.buffer)
        right = self.roles.right.size_symbols()
        return [
            v.name
            for v, (w, _) in zip(mine, acc.axes, strict=True)
            if v is not None and v.name in outer and w not in right
        ]

    def _outer_order(self, outer: list[str], panel: str) -> list[str]:
        """Batch axes, then panels and outer row axes: a panel is reused where it stays in L2, and
        copied once."""
        rows = self.row_axes
        shared = [n for n in outer if n not in rows]
        inside = self._small_weights() and self.copy is None
        return [*shared, *rows, panel] if inside else [*shared, panel, *rows]

    def compute_tile(self, at: str, row: str, column: str, most: int = UNROLLED) -> None:
        """Computes the accumulator of one tile inside the loop `at`, `most` multiply-adds unrolled,
        about."""
        plan, tile, loops = self.plan, self.tile, [(row, column)]
        if self.staged:
            plan.do(ComputeAt(self.staged, at, "stack"))
            loops.append(self._tile_loops(plan.newest_buffer()))
        plan.do(ComputeAt(self.buffer, at, "register"))
        acc = plan.newest_buffer()
        m_loop, n_loop = self._tile_loops(acc)
        rows = plan.loop(m_loop).extent if m_loop else 1
        plan.do(DecomposeReduction(m_loop or n_loop))
        depth = [f"{acc}.k{n}" for n in range(MAX_REDUCTIONS) if plan.has_loop(f"{acc}.k{n}")]
        fixed = {name for n, name in enumerate(depth) if n in self.overlapping}
        plan.do(Reorder((*depth, *filter(None, (m_loop, n_loop)))))
        depth, at_once = split_parts(plan, acc, depth, self.long)
        assert isinstance(rows, int)
        loops += [(m_loop, n_loop), (m_loop and f"{m_loop}.s", f"{n_loop}.s")]
        self._unroll_tile(loops, rolled=column if self.staged else "")  # the epilogue's
        # None whose steps read what other rows do, or LLVM keeps that in registers; and last, so
        # that the copy of the tile in a tail of the reduction is in registers too.
        kept = [n for n, name in enumerate(depth) if name.removesuffix(".i") in fixed]
        self._unroll_depth(depth[kept[-1] + 1 if kept else 0 :], rows * tile.vectors, most)
        skip_padding(plan, depth, self.roles.left.buffer)
        if at_once is not None and (part := add_parts(plan, at_once)) is not None:
            m, n = self._tile_loops(part)
            self._unroll_tile([(m, n), (m and f"{m}.s", f"{n}.s")])

    def _unroll_tile(self, loops: list[tuple[str, str]], rolled: str = "") -> None:
        """Vectors for loops over a tile's rows and columns, one after the other; but in a loop
        over rows and vectors for those over the columns `rolled`."""
        plan, tile = self.plan, self.tile
        for m, n in loops:
            if m and n != rolled:
                plan.do(Unroll(m))
            if tile.vectors == 1:
                plan.do(Vectorize(n))
            else:
                plan.do(Split(n, tile.lanes), Vectorize(f"{n}.i"))
                if n != rolled:
                    plan.do(Unroll(f"{n}.o"))

    def _tile_loops(self, buffer: str) -> tuple[str, str]:
        """The loops over a tile's rows ("" for a single row) and columns."""
        row, column = f"{buffer}.{self.roles.row}", f"{buffer}.{self.roles.column}"
        return row if self.plan.has_loop(row) else "", column

    def _unroll_depth(self, depth: list[str], block: int, most: int) -> None:
        """Unrolls the innermost reduction loops while the block stays small."""
        plan = self.plan
        for name in reversed(depth):
            extent = plan.loop(name).extent
            room = max(1, most // block)
            if isinstance(extent, int) and extent * block <= 2 * most:
                plan.do(Unroll(name))
                block *= extent
                continue
            for factor in (8, 4, 3, 2):
                if factor <= room and divides(factor, extent):
                    plan.do(Split(name, factor), Unroll(f"{name}.i"))
                    break
            else:
                end = value_range(extent)[1]
                if room >= 4 and not isinstance(extent, int) and (end is None or end >= 4):
                    plan.do(Split(name, 4, "peel"), Unroll(f"{name}.i"))
            return

    def _finish(self, leading: list[str]) -> None:
        """Computes what the product reads per tile, and shares out the outer loops."""
        plan = self.plan
        if self.copy is not None:
            self._copy_panels(leading)
        for stage in plan.stages():
            if plan.kernel.buffer(stage.buffer).scope == "temp" and stage.op is None:
                rows = [n for n in leading if n in self.row_axes]
                found = rows[-1:] or [n for n in leading if plan.has_loop(n)]
                if not found:
                    raise ScheduleError(f"no loop to compute {stage.buffer} in", plan.kernel)
                at = found[0]
                if self._often(stage, leading[: leading.index(at)]):
                    copy_whole(plan, stage, self.tile.lanes)
                else:
                    leading = compute_rows(plan, stage.buffer, at, leading)
        shared, count = 0, 1
        for name in leading:
            if shared >= 2 and count >= BANDS:
                break
            shared += 1
            count *= nominal(plan.loop(name).extent) if plan.has_loop(name) else 1
        parallelise(plan, *leading[:shared])

    def _often(self, copy: Stage, around: list[str]) -> bool:
        """True for a copy that stays in L2 as a whole, and that the loops `around` its rows would
        compute anew for each phase or panel of columns; and for positions that others copy from."""
        plan = self.plan
        if (dtype := plan.kernel.buffer(copy.buffer).dtype) in INTEGERS and len(copy.axes) == 1:
            return True
        size = as_number(product(e for _, e in copy.axes))
        again = as_number(product(plan.loop(n).extent for n in around if n not in self.row_axes))
        if size is None or again is None or not self.row_axes:
            return False
        return size * nbytes(dtype) <= plan.target.l2 // 2 and again >= OFTEN

    def _copy_panels(self, leading: list[str]) -> None:
        plan = self.plan
        assert self.copy is not None
        panel = next(n for n in leading if n.endswith(".o"))
        plan.do(ComputeAt(self.copy, panel, "stack"))
        copy_loops(plan, plan.newest_buffer(), self.tile.lanes)
