"""Maps of maps that read elements again and again: interpolation along several axes.

    parallel plane or band of rows:
        t[..] = table of an axis               positions and weights, once
        s[rows, ..] = f(x[.., t[..]])          along one axis: what the rows of the result share
        for row: for vector: y[row, ..] = g(s[row's positions, ..])

A table is a map along one axis that is read at every turn of the loops around. A shared map is read
several times by what other axes interpolate, at lanes side by side, while its own lanes pick
elements from several vectors.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from aicc.dtypes import nbytes
from aicc.errors import ScheduleError
from aicc.symbolic import (
    FloorDiv,
    Mod,
    Size,
    Sym,
    atoms,
    coefficient,
    divides,
    from_atom,
    opaques,
    product,
    proves_le,
    symbols,
)
from aicc.tensor_ir.analysis import Stage, reads, stages
from aicc.tensor_ir.ir import Expr, For, Index, Kernel, Load, Op
from aicc.tensor_ir.recipes.blocks import loads_from, quotients_of
from aicc.tensor_ir.recipes.common import (
    BANDS,
    as_number,
    lanes_of,
    nominal,
    parallelise,
    stride_in,
    vector_loop,
)
from aicc.tensor_ir.recipes.maps import ordered
from aicc.tensor_ir.recipes.plan import Plan
from aicc.tensor_ir.schedule import Split, Unroll, Vectorize
from aicc.tensor_ir.schedule_partition import Partition, breakpoints, corners
from aicc.tensor_ir.schedule_stages import ComputeAt, Inline
from aicc.tensor_ir.walk import loads_of, stmt_exprs, walk_expr, walk_stmts

SHARE = 0.5
"""The share of the second cache that shared values may fill."""
LEAST_BAND = 8
"""Rows of the smallest band that is worth the rows it shares with its neighbours."""
PICKED = 3
"""Instructions for lanes at known places in a few vectors."""
GATHERED = 26
"""Instructions for lanes at any places."""
PAYS = 0.8
"""Of the instructions of maps inlined, what shared ones may take at most."""
MOST_VECTORS = 8
"""Vectors after which positions repeat, at most, for each to have positions known beforehand."""
MOST_AXES = 8
UNROLLED = 2
"""Vectors at once of what is read in order."""
TABLED = 256
"""Turns that one set of tables serves, at most."""


def is_table(kernel: Kernel, stage: Stage) -> bool:
    """True for a local map along one axis that is computed from positions, for each of which a
    reader has several loops around: inlined, it would be computed again and again."""
    if stage.op is not None or kernel.buffer(stage.buffer).scope != "temp":
        return False
    if len(stage.axes) != 1 or stage.variables == () or not isinstance(stage.value, Op):
        return False
    if any(isinstance(x, Load) for x in walk_expr(stage.value)):
        return False
    for reader in stages(kernel):
        near = reader.variables[-2:]
        for x in loads_from(reader.value, stage.buffer):
            if symbols(x.indices[0]) & set(near) and len(reader.variables) > 1:
                return True
    return False


def is_shared(kernel: Kernel, stage: Stage) -> bool:
    """True for a local map of which one reader reads several elements, where that takes less when
    the map is computed first: by instructions for the loads of a vector."""
    if stage.op is not None or kernel.buffer(stage.buffer).scope != "temp":
        return False
    if len(stage.variables) < 2 or not isinstance(stage.value, Op) or stage.axes[-1][0] is None:
        return False
    lane = stage.axes[-1][0]
    own = [_picked(kernel, x, lane) for x in _loads(stage)]
    if not own:
        return False
    for reader in stages(kernel):
        loads = loads_from(reader.value, stage.buffer)
        if len(loads) < 2 or not reader.variables:
            continue
        last = reader.variables[-1]
        theirs = [_picked(kernel, x, last) for x in loads]
        inline = sum(_both(a, b) for a in theirs for b in own)
        share = _count(stage) / _count(reader)
        if sum(theirs) + share * (sum(own) + 1) < PAYS * inline:
            return True
    return False


def _loads(stage: Stage) -> list[Load]:
    """What a stage reads, other than tables."""
    return [x for x in walk_expr(stage.value) if isinstance(x, Load) and len(x.indices) > 1]


def _picked(kernel: Kernel, load: Load, lane: Sym) -> int:
    """Instructions of a load whose lanes run along `lane`."""
    if stride_in(kernel, load, lane) in (0, 1):
        return 1
    return GATHERED if any(lane in e.size_symbols() for e in _from_data(load)) else PICKED


def _from_data(load: Load) -> list[Expr]:
    return [e for i in load.indices for e in opaques(i)]


def _both(a: int, b: int) -> int:
    """Instructions of a load at the positions that another has."""
    return a if b == 1 else b if a == 1 else GATHERED


def _count(stage: Stage) -> float:
    return float(math.prod(max(1, nominal(e)) for _, e in stage.axes))


def has_resampled(kernel: Kernel) -> bool:
    """True for a kernel of maps that has tables or shared values, and no blocks of which the
    elements would be computed again and again."""
    made = stages(kernel)
    if len(made) != len(kernel.body) or any(s.op is not None for s in made):
        return False
    kept = [s for s in made if is_table(kernel, s) or is_shared(kernel, s)]
    return bool(kept) and not any(_is_block(kernel, s) for s in made if s not in kept)


def _is_block(kernel: Kernel, stage: Stage) -> bool:
    """True for a map of several elements that is read in blocks."""
    if kernel.buffer(stage.buffer).scope != "temp" or len(_loads(stage)) < 2:
        return False
    loads = [x for s in stages(kernel) for x in loads_from(s.value, stage.buffer)]
    return any(quotients_of(x) for x in loads)


def resampled(plan: Plan) -> None:
    """Schedules a kernel of maps that has tables or shared values."""
    kernel = plan.kernel
    try:
        _run(plan, sharing=True)
    except ScheduleError:
        plan.kernel = kernel
        plan.steps.clear()
        _run(plan, sharing=False)


def _run(plan: Plan, sharing: bool) -> None:
    tables, shared = _kept(plan, sharing)
    final = plan.stages()[-1]
    if len(plan.stages()) != len(plan.kernel.body) or not (tables or shared):
        raise ScheduleError("no tables, and nothing shared", plan.kernel)
    others = [s.buffer for s in plan.stages() if s.buffer not in (*tables, *shared)]
    if others != [final.buffer] or plan.kernel.buffer(final.buffer).scope != "out":
        raise ScheduleError("not one result", plan.kernel)
    lanes = lanes_of(plan, final)
    before = len(plan.kernel.body) - 1
    _cut(plan, [v.name for v in final.variables[:-1]])
    for name in [s.var.name for s in plan.kernel.body[before:] if isinstance(s, For)]:
        _nest(plan, name, tables, shared, lanes)


def _kept(plan: Plan, sharing: bool) -> tuple[list[str], list[str]]:
    """Inlines the other local maps; the names of tables and of shared values, in order."""
    tables: list[str] = []
    shared: list[str] = []
    for stage in reversed(plan.stages()[:-1]):
        now = plan.stage(stage.buffer)
        if is_table(plan.kernel, now):
            tables.insert(0, stage.buffer)
        elif sharing and is_shared(plan.kernel, now):
            shared.insert(0, stage.buffer)
        elif plan.kernel.buffer(stage.buffer).scope == "temp":
            plan.do(Inline(stage.buffer))
    return tables, shared


def _cut(plan: Plan, names: list[str]) -> None:
    """Cuts the first of the loops in which a condition changes where it does."""
    for name in names:
        loop = plan.loop(name)
        points = ordered(breakpoints(loop, loop.var, loop.hi))
        done: Size = 0
        for point in points:
            if plan.attempt(Partition(name, point - done)):
                done, name = point, f"{name}.p"
        if points:
            return  # inner loops have copies with other names now


def _nest(plan: Plan, top: str, tables: list[str], shared: list[str], lanes: int) -> None:
    """Schedules one nest of the result."""
    chain = _chain(plan, top)
    innermost, inside = [chain[-1]], ""
    around: list[str] = []
    for buffer in reversed(shared):
        if buffer not in reads(plan.loop(top)):
            continue
        before = _share(plan, buffer, chain, inside)
        around = around or before
        inside, name = before[-1], plan.newest_buffer()
        chain = [n for a in range(MOST_AXES) if plan.has_loop(n := f"{name}.{a}")]
        innermost += chain[-1:]
    around = _group(plan, around or _chain(plan, top), tables, bool(around))
    for buffer in reversed(tables):
        if buffer in reads(plan.loop(around[-1])):
            plan.do(ComputeAt(buffer, around[-1], "stack"))
            name = f"{plan.newest_buffer()}.0"
            # Positions by division of whole numbers, which vectors have no instruction for.
            if plan.has_loop(name) and not _divides(plan.loop(name)):
                vector_loop(plan, name, lanes)
    for name in innermost:
        _vectors(plan, name, lanes)
    parallelise(plan, *around)


def _chain(plan: Plan, top: str) -> list[str]:
    """The loops of a nest from `top` on that are perfectly nested."""
    loop = plan.loop(top)
    names = [top]
    while len(loop.body) == 1 and isinstance(loop.body[0], For):
        loop = loop.body[0]
        names.append(loop.var.name)
    return names


def _share(plan: Plan, buffer: str, chain: list[str], inside: str) -> list[str]:
    """Computes a shared map for what the nest of its reader, the loops of `chain`, reads in one
    iteration of the loops around the first along which elements are shared; in bands of that where
    the others are few, or all of it is too large. inside: the loop around the chain, if any.

    The loops up to the one that it is computed in.
    """
    loads = [x for x in loads_of(plan.loop(chain[0])) if x.buffer == buffer]
    moving = {v.name for x in loads for i in x.indices for v in symbols(i) if i != from_atom(v)}
    first = next((n for n, name in enumerate(chain) if name in moving), None)
    if first is None:
        raise ScheduleError(f"{buffer} is read at the element written", plan.kernel)
    outer = chain[:first] or ([inside] if inside else [])
    count = as_number(product([plan.loop(n).extent for n in outer])) if outer else 1
    row, whole = chain[first], plan.loop(chain[first]).extent
    if isinstance(whole, int) and row != chain[-1]:
        rows = [d for d in range(whole // 2, LEAST_BAND - 1, -1) if whole % d == 0]
        enough = [d for d in rows if count is None or count * (whole // d) >= BANDS]
        if not outer or (count is not None and count < BANDS):
            for d in enough or rows:
                if plan.attempt_if(_near(plan), Split(row, d), _at(buffer, f"{row}.o")):
                    return [*outer, f"{row}.o"]
        elif not plan.attempt_if(_near(plan), _at(buffer, outer[-1])):
            for d in enough:
                if plan.attempt_if(_near(plan), Split(row, d), _at(buffer, f"{row}.o")):
                    return [*outer, f"{row}.o"]
        else:
            return outer
    if not outer:
        raise ScheduleError(f"no loop to compute {buffer} in", plan.kernel)
    plan.do(_at(buffer, outer[-1]))
    return outer


def _at(buffer: str, loop: str) -> ComputeAt:
    return ComputeAt(buffer, loop, "stack")


def _near(plan: Plan) -> Callable[[Kernel], bool]:
    def near(kernel: Kernel) -> bool:
        """Whether the newest buffer stays in the second cache."""
        made = kernel.buffers[-1]
        size = as_number(product(made.shape))
        return size is None or size * nbytes(made.dtype) <= SHARE * plan.target.l2

    return near


def _group(plan: Plan, chain: list[str], tables: list[str], fixed: bool) -> list[str]:
    """The loops around what a set of tables serves: several iterations of the last of `chain`, or
    of that before those that tables are read along, but enough groups are left to be shared out.

    fixed: whether the shared values are computed in the last of the chain.
    """
    used = [b for b in tables if b in reads(plan.loop(chain[0]))]
    if not used:
        return chain if fixed else chain[:-1] or chain
    if not fixed:
        along = {
            v.name
            for x in loads_of(plan.loop(chain[0]))
            if x.buffer in used
            for v in symbols(x.indices[0])
        }
        first = next(n for n, name in enumerate(chain) if name in along)
        chain = chain[:first]
        if not chain:
            raise ScheduleError("no loop to compute tables in", plan.kernel)
    room = TABLED
    while len(chain) > 1:
        extent = plan.loop(chain[-1]).extent
        count = as_number(product([plan.loop(n).extent for n in chain[:-1]]))
        if not isinstance(extent, int) or extent > room or (count is not None and count < BANDS):
            break
        room, chain = room // extent, chain[:-1]
    *outer, name = chain
    extent = plan.loop(name).extent
    count = as_number(product([plan.loop(n).extent for n in outer])) if outer else 1
    for factor in range(room, 1, -1):
        if divides(factor, extent) and proves_le(BANDS, (count or 1) * (extent // factor)):
            plan.do(Split(name, factor))
            return [*outer, f"{name}.o"]
    return chain


def _divides(loop: For) -> bool:
    """Whether indices inside a loop have quotients or remainders."""
    sizes = [
        x.size
        for s in walk_stmts((loop,))
        for e in stmt_exprs(s)
        for x in walk_expr(e)
        if isinstance(x, Index)
    ]
    return any(isinstance(a, FloorDiv | Mod) for s in sizes for a in atoms(s))


def _vectors(plan: Plan, name: str, lanes: int) -> None:
    """Vectorises an innermost loop, cut where clamped positions turn: as many vectors at once as
    positions take to repeat, so that each vector picks its elements from known places."""
    loop = plan.loop(name)
    points = ordered(corners(loop, loop.var, loop.hi))
    done: Size = 0
    for point in points:
        if not plan.attempt(Partition(name, point - done)):
            break
        _in_periods(plan, f"{name}.a", lanes)
        done, name = point, f"{name}.p"
        rest = plan.loop(name)
        if corners(rest, rest.var, rest.hi):
            return _vectors(plan, name, lanes)
    _in_periods(plan, name, lanes)


def _in_periods(plan: Plan, name: str, lanes: int) -> None:
    loop = plan.loop(name)
    if loop.extent == 1:
        return
    period = _period(loop)
    count = math.lcm(period, lanes) // lanes
    if period == 1 or count > MOST_VECTORS:
        vector_loop(plan, name, lanes, 1 if period > 1 else UNROLLED)
        return
    if not isinstance(loop.extent, int):
        vector_loop(plan, name, lanes, count)
        return
    if loop.extent >= count * lanes and count > 1:
        plan.do(Split(name, count * lanes, "peel"))
        _whole(plan, f"{name}.i", lanes)
        name = f"{name}.t"
        if not plan.has_loop(name):
            return
    _whole(plan, name, lanes, unroll=count > 1)


def _whole(plan: Plan, name: str, lanes: int, unroll: bool = True) -> None:
    """Vectors without a mask, the last one shorter; all in one block with `unroll`."""
    if not proves_le(plan.loop(name).extent, lanes):
        plan.do(Split(name, lanes, "peel"), Vectorize(f"{name}.i"))
        if unroll:
            plan.do(Unroll(f"{name}.o"))
        name = f"{name}.t"
    if plan.has_loop(name):
        plan.do(Vectorize(name))


def _period(loop: For) -> int:
    """The iterations after which what positions are divided by comes again."""
    period = 1
    for s in loop.body:
        for e in stmt_exprs(s):
            for x in walk_expr(e):
                indices = x.indices if isinstance(x, Load) else ()
                for index in (x.size,) if isinstance(x, Index) else indices:
                    for a in atoms(index):
                        if isinstance(a, FloorDiv | Mod) and loop.var in symbols(a.num):
                            step = coefficient(a.num, loop.var)
                            if isinstance(step, int) and isinstance(a.den, int):
                                period = math.lcm(period, a.den // math.gcd(step, a.den))
    return period
