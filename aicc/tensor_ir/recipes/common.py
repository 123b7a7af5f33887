"""What several recipes do: shapes of kernels, vector loops, sharing out iterations."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache

from aicc.errors import ScheduleError
from aicc.symbolic import (
    Dim,
    FloorDiv,
    Mod,
    Size,
    Sym,
    coefficient,
    divides,
    evaluate,
    from_atom,
    recombine,
    symbols,
)
from aicc.tensor_ir.analysis import Stage, stage_of, writes
from aicc.tensor_ir.ir import Expr, Index, Kernel, Load, Op
from aicc.tensor_ir.recipes.plan import Plan
from aicc.tensor_ir.schedule import Fuse, Parallel, Split, Unroll, Vectorize
from aicc.tensor_ir.schedule_axes import FuseAxes, PermuteAxes, SplitAxis
from aicc.tensor_ir.schedule_skip import SkipZeros
from aicc.tensor_ir.schedule_stages import CacheWrite, Inline
from aicc.tensor_ir.walk import loads_of, stmt_exprs, walk_expr, walk_stmts
from aicc.tensor_ir.work import SHARED_CYCLES, loop_cycles

COSTLY = frozenset(
    {"exp", "log", "tanh", "erf", "sin", "cos", "tan", "pow", "div", "sqrt", "mod", "floormod"}
    | {"asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh"}
)
"""Operations worth computing once rather than at each use."""


NOMINAL = 64
"""What a symbol counts as."""
MEANS = 64
"""Values of symbols that a mean goes over, at most."""


def is_movement(stage: Stage) -> bool:
    """True where a stage only moves elements."""
    return stage.op is None and isinstance(stage.value, Load)


def is_costly(e: Expr) -> bool:
    """True where an expression has a costly operation."""
    return any(isinstance(x, Op) and x.name in COSTLY for x in walk_expr(e))


def one_of_a_row(plan: Plan, stage: Stage) -> bool:
    """True for a value that elements along the innermost axis of a later stage share."""
    own = [v for v, _ in stage.axes]
    later = [s for s in plan.stages() if stage.buffer in {x.buffer for x in loads_of(s.value)}]
    return bool(own) and own[-1] is None and any(s.axes[-1][0] is not None for s in later if s.axes)


def inline_movements(plan: Plan) -> None:
    """Inlines every local stage that only moves elements."""
    for stage in plan.stages():
        if is_movement(stage) and plan.kernel.buffer(stage.buffer).scope == "temp":
            plan.do(Inline(stage.buffer))


def with_epilogue(plan: Plan, buffer: str, whole: bool = False) -> tuple[str, str]:
    """Makes the reduction's buffer local and what follows it one stage: (accumulator, result).

    The result's stage reads the accumulator at the element it writes, its axes in any order; where
    it splits an index (`acc[i // 2, i % 2]`), its axis is split alike; not the last one where that
    is to stay `whole`.
    """
    if plan.kernel.buffer(buffer).scope == "out":
        plan.do(CacheWrite(buffer))
        return plan.newest_buffer(), buffer
    position = plan.stage(buffer).position
    for s in plan.stages():
        if s.position > position and plan.kernel.buffer(s.buffer).scope == "temp":
            plan.do(Inline(s.buffer))
    after = [s for s in plan.stages() if s.position > plan.stage(buffer).position]
    if len(after) != 1:
        raise ScheduleError(f"{buffer} has {len(after)} stages after it", plan.kernel)
    out = after[0].buffer
    while True:
        found = _split_index(plan, out, buffer, whole)
        if found is None:
            break
        plan.do(SplitAxis(out, *found))
    if not whole:
        own_axes(plan, out, buffer)
    return buffer, out


def accumulator_load(plan: Plan, out: str, buffer: str) -> Load:
    """The one way in which the result's stage reads the accumulator."""
    value = plan.stage(out).value
    loads = [x for x in walk_expr(value) if isinstance(x, Load) and x.buffer == buffer]
    if len(loads) != 1:
        raise ScheduleError(f"{buffer} is read at {len(loads)} indices", plan.kernel)
    return loads[0]


def _split_index(plan: Plan, out: str, buffer: str, whole: bool) -> tuple[int, int] | None:
    """An axis of the result, and the factor to split it by, so that an index becomes plain."""
    load = accumulator_load(plan, out, buffer)
    axes = {v: n for n, (v, _) in enumerate(plan.stage(out).axes) if v is not None}
    if whole:
        axes.pop(plan.stage(out).axes[-1][0] or Sym(""), None)
    for index in load.indices:
        if isinstance(index, Dim) and index.const == 0 and len(index.terms) == 1:
            (monomial, coef) = index.terms[0]
            a = monomial[0]
            if coef == 1 and len(monomial) == 1 and isinstance(a, FloorDiv | Mod):
                (v, *rest) = symbols(a.num)
                plain = isinstance(a.num, Dim) and a.num == from_atom(v)
                if not rest and plain and v in axes and isinstance(a.den, int):
                    return axes[v], a.den
    return None


def own_axes(plan: Plan, out: str, buffer: str) -> list[Sym | None]:
    """For each axis of the accumulator, the loop variable of the result that runs over it."""
    load = accumulator_load(plan, out, buffer)
    axes = {v: e for v, e in plan.stage(out).axes if v is not None}
    found: list[Sym | None] = []
    for index, extent in zip(load.indices, plan.kernel.buffer(buffer).shape, strict=True):
        if index == 0 and extent == 1:
            found.append(None)
            continue
        mine = symbols(index)
        v = next(iter(mine)) if len(mine) == 1 else None
        if v is None or index != from_atom(v) or axes.pop(v, None) is None:
            raise ScheduleError(f"{buffer} is not read at the element written", plan.kernel)
        found.append(v)
    if axes:
        raise ScheduleError(f"{buffer} is read for several results", plan.kernel)
    return found


def offset_of(kernel: Kernel, load: Load) -> Size:
    """The row-major offset that a load reads at."""
    return _offset(load.indices, kernel.buffer(load.buffer).strides())


@lru_cache(maxsize=1024)
def _offset(indices: tuple[Size, ...], strides: tuple[Size, ...]) -> Size:
    total: Size = 0
    for i, s in zip(indices, strides, strict=True):
        total = total + i * s
    return recombine(total)


def stride_in(kernel: Kernel, load: Load, v: Sym) -> Size | None:
    """Elements between what neighbouring values of `v` load; None where that varies."""
    return coefficient(offset_of(kernel, load), v)


def all_linear(kernel: Kernel, names: set[str]) -> bool:
    """True where every load inside nests writing `names` is at an offset linear in all loops, and
    every condition compares such indices."""
    return linear_in(kernel, names, None)


def linear_in(kernel: Kernel, names: set[str], variables: set[Sym] | None) -> bool:
    """As `all_linear`, in some variables."""
    for s in kernel.body:
        if not names & set(writes(s)):
            continue
        for inner in walk_stmts((s,)):
            for e in stmt_exprs(inner):
                for x in walk_expr(e):
                    if not isinstance(x, Load | Index):
                        continue
                    offset = x.size if isinstance(x, Index) else offset_of(kernel, x)
                    used = _loops_in(kernel, offset)
                    used = used if variables is None else used & variables
                    if any(coefficient(offset, v) is None for v in used):
                        return False
    return True


def flatten_inputs(plan: Plan) -> None:
    """Joins axes of inputs that are read at the quotient and the remainder of one index, which is
    what joining a result's axes leaves: the joined index is plain and stays so when loops split. An
    axis that is summed along (channels ahead of pixels) joins others only where nothing else helps:
    tiles of columns then end within a row."""
    summed = {v for s in plan.stages() for v, _ in s.reduce}
    for b, apart in ((b, apart) for b in plan.kernel.params for apart in (True, False)):
        if b.scope == "out" or b.pack:
            continue
        axis = 0
        while (rest := len(plan.kernel.buffer(b.name).shape) - 1 - axis) > 0:
            loads = [x for s in plan.kernel.body for x in loads_of(s) if x.buffer == b.name]
            plain = apart and any(
                symbols(i) & summed and not _divided(plan.kernel, i)
                for i in (x.indices[axis] for x in loads)
            )
            divided = not plain and any(
                _divided(plan.kernel, i) for x in loads for i in x.indices[axis : axis + 2]
            )
            join = FuseAxes(b.name, axis)
            # The quotient of a quotient is plain only when all the axes in between have joined.
            if not (
                divided
                and any(
                    plan.attempt_if(_plain(b.name, axis), *[join] * n) for n in range(1, rest + 1)
                )
            ):
                axis += 1


FEW_SUMS = 4
"""Vectors of sums of which a tile of one row should have as many."""


def rows_beside(plan: Plan, stage: Stage, column: int, weights: Load, data: Load) -> int | None:
    """The axis that a product of one row (the only filter over short rows of pixels) takes the rows
    of a tile from: too few sums would not hide how long each step takes, and other rows of pixels
    share the weights."""
    columns = as_number(stage.axes[column][1])
    lanes = plan.target.lanes(plan.kernel.buffer(stage.buffer).dtype)
    if columns is None or -(-columns // lanes) >= FEW_SUMS:
        return None
    own = data.size_symbols() - weights.size_symbols()
    free = [n for n, (v, _) in enumerate(stage.axes) if v in own and n != column]
    return free[-1] if free else None


def order_copy(plan: Plan, left: Load) -> None:
    """Gives a copy that a product reads by `left` (padded data) the order of axes that its source
    has: its elements are read one by one anyway, and so it is written in vectors, not scattered."""
    made = stage_of(plan.kernel, left.buffer)
    if made is None or made.op is not None or plan.kernel.buffer(made.buffer).scope != "temp":
        return
    loads = [x for x in walk_expr(made.value) if isinstance(x, Load)]

    def place(v: Sym | None) -> int | None:
        """The one axis of the source along which `v` steps: the earlier, the further apart."""
        if v is None or len(loads) != 1 or stride_in(plan.kernel, loads[0], v) is None:
            return None
        found = [n for n, i in enumerate(loads[0].indices) if v in symbols(i)]
        return found[0] if len(found) == 1 else None

    places = [place(v) for v, _ in made.axes]
    moving = [n for n, (v, _) in enumerate(made.axes) if v is not None]
    if any(places[n] is None for n in moving):
        return
    sorted_ = sorted(moving, key=lambda n: places[n] or 0)
    if sorted_ != moving:
        still = [n for n in range(len(made.axes)) if n not in moving]
        plan.attempt(PermuteAxes(made.buffer, (*still, *sorted_)))


def divisors(index: Size, v: Sym) -> set[int]:
    """The numbers that an index divides the plain variable `v` by."""
    if isinstance(index, int):
        return set()
    found: set[int] = set()
    plain = from_atom(v)
    for monomial, _ in index.terms:
        for a in monomial:
            if isinstance(a, FloorDiv | Mod) and isinstance(a.den, int):
                if a.num == plain:
                    found.add(a.den)
                else:
                    found |= divisors(a.num, v)
    return found


def split_depth(plan: Plan, buffer: str) -> None:
    """Splits a reduction that reads at quotients and remainders of its index (joined heads, or
    channels and pixels), so that every load is linear in the loops."""
    left = [v for v, _ in plan.stage(buffer).reduce]
    while left:
        v = left.pop()
        stage = plan.stage(buffer)
        loads = [x for x in walk_expr(stage.value) if isinstance(x, Load)]
        factors = {d for x in loads for i in x.indices for d in divisors(i, v)}
        extent = dict(stage.reduce)[v]
        least = min(factors, default=0)
        if least and all(divides(least, n) for n in (extent, *factors)):
            if not plan.attempt(Split(v.name, least)):
                continue
            # What is left of the others divides the quotient.
            left += [w for w, _ in plan.stage(buffer).reduce if w.name == f"{v.name}.o"]


def _loops_in(kernel: Kernel, index: Size) -> frozenset[Sym]:
    """The loop variables in an index: what it has beside sizes."""
    return symbols(index) - set(kernel.sizes)


def _divided(kernel: Kernel, index: Size) -> bool:
    return any(coefficient(index, v) is None for v in _loops_in(kernel, index))


def _plain(buffer: str, axis: int) -> Callable[[Kernel], bool]:
    """True where all loads of a buffer have a linear index at an axis."""

    def check(kernel: Kernel) -> bool:
        loads = [x for s in kernel.body for x in loads_of(s) if x.buffer == buffer]
        return not any(_divided(kernel, x.indices[axis]) for x in loads)

    return check


def value_of(v: Sym | None) -> Size:
    """The value of a variable; 0 for an axis without one."""
    return 0 if v is None else from_atom(v)


def as_number(s: Size) -> int | None:
    """A size that is known, else None."""
    return s if isinstance(s, int) else None


def nominal(s: Size, small: Sym | None = None) -> int:
    """A size where symbols count as `NOMINAL`, or as many as they are at most, and `small` as few
    as it can be; where nothing is left then of what windows take from the borders, or no run has
    such sizes, they count as twice and four times as many. What data say counts as `NOMINAL`."""
    if isinstance(s, int):
        return s
    found = 0
    for usual in (NOMINAL, 2 * NOMINAL, 4 * NOMINAL):
        values = {v: usual if v.hi is None else min(usual, v.hi) for v in symbols(s)}
        for chosen in _smallest_first(values, small):
            try:
                found = evaluate(s, {v.name: n for v, n in chosen.items()}, lambda _: NOMINAL)
            except ZeroDivisionError:  # sizes that are too small for this kernel: no run has them
                continue
            break
        if found > 0:
            break
    return max(0, found)


def _smallest_first(values: Mapping[Sym, int], small: Sym | None) -> Iterator[Mapping[Sym, int]]:
    """Values of symbols with ever larger ones of `small`, up to its own."""
    if small is not None and small in values:
        least = small.lo or 0
        while least < values[small]:
            yield {**values, small: least}
            least = 2 * least or 1
    yield values


def expected(s: Size) -> float:
    """As `nominal`, but the mean over all values of a few symbols whose range is short: taps of the
    phases of a transposed convolution."""
    ranges = [range(v.hi + 1) for v in symbols(s) if v.hi is not None and v.lo == 0]
    values = math.prod(len(r) for r in ranges)
    if isinstance(s, int) or len(ranges) != len(symbols(s)) or not 0 < values <= MEANS:
        return nominal(s)
    names = [v.name for v in symbols(s)]
    return sum(evaluate(s, dict(zip(names, at))) for at in itertools.product(*ranges)) / values


def vector_loop(plan: Plan, name: str, lanes: int, unroll: int = 1, tail: str = "mask") -> None:
    """Splits a loop into vectors, `unroll` of them per iteration; `tail` says what of the rest."""
    loop = plan.loop(name)
    extent = loop.extent
    if isinstance(extent, int) and extent <= lanes:
        plan.do(Vectorize(name))
        return
    if unroll > 1 and isinstance(extent, int):
        while unroll > 1 and extent < lanes * unroll:
            unroll //= 2
    if unroll > 1:
        plan.do(
            Split(name, lanes * unroll, "peel" if not _exact(extent, lanes * unroll) else "exact")
        )
        if plan.has_loop(f"{name}.i"):
            plan.do(Split(f"{name}.i", lanes), Vectorize(f"{name}.i.i"), Unroll(f"{name}.i.o"))
        if plan.has_loop(f"{name}.t"):
            vector_loop(plan, f"{name}.t", lanes, 1, tail)
        return
    plan.do(Split(name, lanes, tail if not _exact(extent, lanes) else "exact"))
    for part in (f"{name}.i", f"{name}.m"):
        if plan.has_loop(part):
            plan.do(Vectorize(part))


BANDS = 12
"""Bands of rows that a loop is cut into at least, so that threads have equal shares."""


def _exact(extent: Size, factor: int) -> bool:
    return divides(factor, extent)


def parallelise(plan: Plan, *fusable: str) -> None:
    """Shares the outermost of `fusable` (fused with the next ones where they are perfectly nested)
    between threads, where there is enough work, or where only a run can tell."""
    top = [n for n in fusable if plan.has_loop(n)]
    if not top:
        return
    cycles = loop_cycles(plan.kernel, plan.loop(top[0]), plan.target.lanes("f32"))
    if isinstance(cycles, int) and cycles < SHARED_CYCLES:
        return
    name = top[0]
    for inner in top[1:]:
        extent = plan.loop(name).extent
        if isinstance(extent, int) and extent >= 64:
            break
        if not plan.attempt(Fuse(name, inner)):
            break
        name = f"{name}.{inner}"
        if not plan.has_loop(name):
            raise ScheduleError(f"fusing made no loop {name}", plan.kernel)
    plan.attempt(Parallel(name))


def skip_padding(plan: Plan, depth: list[str], data: str) -> None:
    """Leaves out the steps of the reductions `depth` in which all rows of a tile meet padding."""
    for name in depth:
        if plan.has_loop(name) and plan.loop(name).kind == "for":
            plan.attempt(SkipZeros(name, data))


def overlapping(plan: Plan, stage: Stage, left: Load, row: int | None, rows: int) -> frozenset[int]:
    """The reduction loops whose steps read of `left` what other rows of a tile read: rows are
    neighbours along the axis `row`."""
    v = None if row is None else stage.axes[row][0]
    if v is None:
        return frozenset()
    apart = stride_in(plan.kernel, left, v)
    found: set[int] = set()
    for n, (k, extent) in enumerate(stage.reduce):
        step = stride_in(plan.kernel, left, k)
        if isinstance(extent, int) and isinstance(step, int) and isinstance(apart, int) and apart:
            moves = (divmod(m * step, apart) for m in range(1, min(extent, rows * apart)))
            if step and any(rest == 0 and 0 < by < rows for by, rest in moves):
                found.add(n)
    return frozenset(found)


def lanes_of(plan: Plan, stage: Stage) -> int:
    """Lanes of the widest element type of which a stage handles neighbours: every vector fits a
    register."""
    last = next((v for v, _ in reversed(stage.axes) if v is not None), None)
    loads = loads_of(plan.kernel.body[stage.position])
    dtypes = {plan.kernel.buffer(stage.buffer).dtype}
    dtypes |= {x.dtype for x in loads if last in x.size_symbols()}
    return min(plan.target.lanes(d) for d in dtypes - {"bool"} or {"u8"})
