"""Kernels without reduction: elementwise chains, broadcasts, copies, transposes.

parallel chunk: for vector: y = f(x...)
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
    atoms,
    coefficient,
    divides,
    product,
    proves_le,
    symbols,
)
from aicc.tensor_ir.analysis import stage_of
from aicc.tensor_ir.ir import Check, For, If, Index, Kernel, Load, Stmt, Store
from aicc.tensor_ir.recipes.common import (
    flatten_inputs,
    is_costly,
    lanes_of,
    linear_in,
    nominal,
    parallelise,
    stride_in,
    vector_loop,
)
from aicc.tensor_ir.recipes.copies import copy_loops
from aicc.tensor_ir.recipes.plan import Plan
from aicc.tensor_ir.recipes.recurrence import innermost, vectorise_run
from aicc.tensor_ir.schedule import Reorder, Split, Unroll, Vectorize
from aicc.tensor_ir.schedule_axes import FuseAxes
from aicc.tensor_ir.schedule_partition import Partition, breakpoints, corners
from aicc.tensor_ir.schedule_stages import CacheWrite, ComputeAt, Inline
from aicc.tensor_ir.walk import walk_expr, walk_stmts

CHUNK = 8192
"""Elements of a one-dimensional map that one thread takes at a time."""
LEAST_BLOCK = 4
"""Rows of the smallest block that is transposed in registers."""
PARTS = 8
"""Parts that one loop is cut into at most."""
LINES = 256
"""Bytes side by side that are worth going for at once."""
WAY = 4096
"""Bytes after which addresses fall into the same set of the first cache again."""
FEW_SETS = 4
"""Sets that the rows of a block are in, where those are few."""
PANEL = 8
"""Blocks side by side in a panel."""
BLOCK = 8192
"""Bytes of a row that is copied as a block, at least: below, vectors are as fast."""
TURNS = 8
"""Vectors at most after which what they read is at the same places again."""


def maps(plan: Plan) -> None:
    """Schedules a kernel whose stages are all maps."""
    for stage in plan.stages():
        if plan.kernel.buffer(stage.buffer).scope == "temp":
            plan.do(Inline(stage.buffer))
    finals = plan.stages()
    others = len(plan.kernel.body) - len(finals)
    if not finals or others != sum(1 for s in plan.kernel.body if _only_checks(s)):
        raise ScheduleError("not all nests are maps", plan.kernel)
    for stage in finals:
        _one(plan, stage.buffer)
    for nest in [s for s in plan.kernel.body if isinstance(s, For) and _only_checks(s)]:
        for name in innermost((nest,)):
            vectorise_run(plan, name)
        if plan.has_loop(nest.var.name):
            parallelise(plan, nest.var.name)


def _only_checks(nest: Stmt) -> bool:
    """Whether a nest guards what data say, and computes nothing."""
    return all(isinstance(s, Check | For | If) for s in walk_stmts((nest,)))


def _one(plan: Plan, out: str) -> None:
    axis = 0
    while axis < len(plan.stage(out).axes) - 1:
        if not plan.attempt_if(_joined_well(out, axis), FuseAxes(out, axis)):
            axis += 1
    _join_short(plan, out)
    flatten_inputs(plan)
    stage = plan.stage(out)
    names = [v.name for v, _ in stage.axes if v is not None]
    if not names:
        return
    position, count = stage.position, len(plan.kernel.body)
    lanes = lanes_of(plan, stage)
    names = _periods(plan, names, lanes)
    if sum(1 for n in names[:-1] if _points(plan, n)) > 1:
        _cut_apart(plan, position, names)
    else:
        _cut(plan, names)
    nests = plan.kernel.body[position : position + 1 + len(plan.kernel.body) - count]
    for nest in [s.var.name for s in nests if isinstance(s, For)]:
        _vectors(plan, nest, lanes)


def _joined_well(out: str, axis: int) -> Callable[[Kernel], bool]:
    """True where loads are at offsets that are linear in one axis of a result, as conditions are:
    what lies side by side is then read side by side."""

    def check(kernel: Kernel) -> bool:
        stage = stage_of(kernel, out)
        v = None if stage is None else stage.axes[axis][0]
        return v is None or linear_in(kernel, {out}, {v})

    return check


def _join_short(plan: Plan, out: str) -> None:
    """Joins rows that are shorter than a vector, where what they read (one number for each column,
    one for each row) is at known places in a few vectors: see `_in_turns`."""
    stage = plan.stage(out)
    if len(stage.axes) < 2:
        return
    lanes, (v, extent) = lanes_of(plan, stage), stage.axes[-1]
    if v is None or not isinstance(extent, int) or extent >= lanes:
        return
    turns = math.lcm(lanes, extent) // lanes
    if turns > TURNS or not proves_le(TURNS * lanes, extent * stage.axes[-2][1]):
        return
    row = stage.axes[-2][0]
    for x in walk_expr(stage.value):
        if isinstance(x, Index):
            return
        if isinstance(x, Load):
            down = 0 if row is None else stride_in(plan.kernel, x, row)
            if (stride_in(plan.kernel, x, v), down) not in ((1, extent), (1, 0), (0, 1), (0, 0)):
                return
    plan.attempt(FuseAxes(out, len(stage.axes) - 2))


def _periods(plan: Plan, names: list[str], lanes: int) -> list[str]:
    """The loops, the innermost one split where what it reads starts again (a tile that is repeated,
    a row of an array seen as flat): inside, indices are linear."""
    loop = plan.loop(names[-1])
    found: set[int] = set()
    for x in (x for s in walk_stmts((loop,)) if isinstance(s, Store) for x in walk_expr(s.value)):
        for a in (a for i in x.indices for a in atoms(i)) if isinstance(x, Load) else ():
            if isinstance(a, Mod) and isinstance(a.den, int) and coefficient(a.num, loop.var) == 1:
                found.add(a.den)
    period = min(found, default=0)
    if 2 * period <= lanes or not divides(period, loop.extent) or loop.extent == period:
        return names
    plan.do(Split(names[-1], period))
    return [*names[:-1], f"{names[-1]}.o", f"{names[-1]}.i"]


def _cut(plan: Plan, names: list[str]) -> None:
    """Cuts each loop where a condition changes, so that none is left inside, and the innermost one
    where an index turns."""
    for name in names:
        loop = plan.loop(name)
        found = breakpoints(loop, loop.var, loop.hi)
        if name == names[-1]:
            found = list(dict.fromkeys([*found, *corners(loop, loop.var, loop.hi)]))
        points = ordered(found)
        done: Size = 0
        parts: list[str] = []
        for point in points:
            if not plan.attempt(Partition(name, point - done)):
                return
            parts.append(f"{name}.a")
            done, name = point, f"{name}.p"
        if points and names.index(loop.var.name) < len(names) - 1:
            return  # inner loops have copies with other names now
        for part in filter(plan.has_loop, [*parts, name] if parts else []):
            if corners(plan.loop(part), plan.loop(part).var, plan.loop(part).hi):
                _cut(plan, [part])  # what turned was inside what turns next: both borders of a row


def _points(plan: Plan, name: str) -> list[Size]:
    """Where conditions change along a loop, in order."""
    loop = plan.loop(name)
    return ordered(breakpoints(loop, loop.var, loop.hi))


def _cut_apart(plan: Plan, at: int, names: list[str]) -> None:
    """Cuts all loops but the innermost one of the nest at a place in the kernel, where conditions
    change: each part is a nest of its own, so that the borders of what is padded along several axes
    are no part of its inside."""
    for n, name in enumerate(names[:-1]):
        points = _points(plan, name)
        count = len(plan.kernel.body)
        if not points or count + len(points) > PARTS:
            continue
        if n and not plan.attempt(Reorder((name, *names[:n]))):
            return
        done: Size = 0
        for part, point in enumerate(points):
            top = _nest(plan, at + part)[0]
            if not plan.attempt(Partition(top, point - done)):
                break
            done = point
        for part in reversed(range(1 + len(plan.kernel.body) - count)):
            chain = _nest(plan, at + part)
            if len(chain) != len(names):
                continue
            chain = [*chain[1 : n + 1], chain[0], *chain[n + 1 :]]
            if not n or plan.attempt(Reorder(tuple(chain))):
                _cut_apart(plan, at + part, chain)
        return


def _nest(plan: Plan, at: int) -> list[str]:
    """The loops of a perfect nest, outermost first."""
    found: list[str] = []
    body = plan.kernel.body[at : at + 1]
    while len(body) == 1 and isinstance(body[0], For):
        found.append(body[0].var.name)
        body = body[0].body
    return found


def ordered(points: list[Size]) -> list[Size]:
    """Points in ascending order, as far as that is provable; few enough to be worth it."""
    if len(points) >= PARTS:
        return []
    ordered: list[Size] = []
    for p in points:
        place = sum(1 for q in ordered if proves_le(q, p))
        if not all(proves_le(p, q) for q in ordered[place:]):
            return []
        ordered.insert(place, p)
    return ordered


def _vectors(plan: Plan, top: str, lanes: int) -> None:
    """Vectorises the innermost loops of one nest and shares its outermost loop out."""
    nest = plan.loop(top)
    inner = [
        s
        for s in walk_stmts((nest,))
        if isinstance(s, For) and not any(isinstance(c, For) for c in s.body)
    ]
    chain = [top]
    while len(plan.loop(chain[-1]).body) == 1 and isinstance(plan.loop(chain[-1]).body[0], For):
        (only,) = plan.loop(chain[-1]).body
        assert isinstance(only, For)
        chain.append(only.var.name)
    if len(chain) > 1 and len(inner) == 1 and _in_blocks(plan, chain, lanes):
        return
    if chain == [top] and inner == [nest]:
        extent = nest.extent
        if not isinstance(extent, int) or extent > CHUNK:
            again = _turns(nest, lanes) * lanes
            chunk = CHUNK // again * again
            exact = isinstance(extent, int) and extent % chunk == 0
            plan.do(Split(top, chunk, "exact" if exact else "peel"))
            for name in (f"{top}.i", f"{top}.t"):
                if plan.has_loop(name):
                    _innermost(plan, plan.loop(name), lanes)
            parallelise(plan, f"{top}.o")
            return
    for loop in inner:
        _innermost(plan, loop, lanes)
    parallelise(plan, *(chain[:-1] if len(chain) > 1 else chain))


def _innermost(plan: Plan, loop: For, lanes: int) -> None:
    """Vectorises an innermost loop, in turns where that makes places known."""
    if _is_block(plan, loop):
        return
    turns = _turns(loop, lanes)
    if turns > 1 and proves_le(turns * lanes, loop.extent):
        _in_turns(plan, loop.var.name, lanes, turns)
    else:
        vector_loop(plan, loop.var.name, lanes, _unroll(plan, loop))


def _is_block(plan: Plan, loop: For) -> bool:
    """True for a loop that copies elements side by side into a result that is larger than the
    caches near the core: a block, that needs no vectors."""
    (store,) = loop.body[:1]
    if len(loop.body) > 1 or not isinstance(store, Store) or not isinstance(store.value, Load):
        return False
    b = plan.kernel.buffer(store.buffer)
    size = nbytes(b.dtype)
    written = Load(store.buffer, store.indices, b.dtype)
    if b.scope != "out" or any(
        stride_in(plan.kernel, x, loop.var) != 1 for x in (written, store.value)
    ):
        return False
    return nominal(product(b.shape)) * size > plan.target.l2 // 2 and (
        nominal(loop.extent) * size >= BLOCK
    )


def _turns(loop: For, lanes: int) -> int:
    """After how many vectors quotients by numbers that do not divide them (each element three
    times, every third plane) are those of the first one and a constant; 1 where there are none."""
    period = lanes
    for x in (x for s in loop.body if isinstance(s, Store) for x in walk_expr(s.value)):
        for a in (a for i in x.indices for a in atoms(i)) if isinstance(x, Load) else ():
            if isinstance(a, FloorDiv | Mod) and isinstance(a.den, int):
                step = coefficient(a.num, loop.var)
                if isinstance(step, int) and step:
                    period = math.lcm(period, a.den // math.gcd(a.den, step))
    return period // lanes if period <= TURNS * lanes else 1


def _in_turns(plan: Plan, name: str, lanes: int, turns: int) -> None:
    """Vectors whose places are known: as many at once as it takes until they are the same again."""
    exact = divides(turns * lanes, plan.loop(name).extent)
    plan.do(Split(name, turns * lanes, "exact" if exact else "peel"))
    for part in filter(plan.has_loop, (f"{name}.i", f"{name}.t")):
        extent = plan.loop(part).extent
        if not isinstance(extent, int) or extent <= lanes:
            vector_loop(plan, part, lanes)
            continue
        plan.do(Split(part, lanes, "exact" if extent % lanes == 0 else "mask"))
        for lane in filter(plan.has_loop, (f"{part}.i", f"{part}.m")):
            plan.do(Vectorize(lane))
        plan.do(Unroll(f"{part}.o"))


def _in_blocks(plan: Plan, chain: list[str], lanes: int) -> bool:
    """Square blocks over the innermost loop and the one along which what it would gather is
    contiguous: a transpose, which then reads and writes whole cache lines. True where done."""
    last = plan.loop(chain[-1])
    other = _across(plan, chain)
    if other is None:
        return False
    extents = [plan.loop(n).extent for n in (other, last.var.name)]
    size = lanes
    while size >= LEAST_BLOCK and any(isinstance(e, int) and e < size for e in extents):
        size //= 2
    if size < LEAST_BLOCK:
        return False
    if size == lanes and _by_panels(plan, chain, other, lanes):
        return True
    rest = [n for n in chain[:-1] if n != other]
    tail = last.var.name
    # The loop that is whole blocks comes first: they can be shared out.
    rank = ("exact", "shift", "peel")
    first, second = sorted((other, tail), key=lambda n: rank.index(_block_tail(plan, n, size)))
    tails = [_block_tail(plan, n, size) for n in (first, second)]
    if tails == ["peel", "peel"]:
        return False
    if tails[0] == "shift" and proves_le(PARTS * size, plan.loop(first).extent):
        tails[0] = "peel"
    blocked = plan.attempt(
        Reorder((*rest, first, second)),
        Split(first, size, tails[0]),
        Reorder((second, f"{first}.i")),
        Split(second, size, tails[1]),
        Reorder((f"{other}.i", f"{tail}.i")),
        Unroll(f"{other}.i"),
        Vectorize(f"{tail}.i"),
    )
    if blocked:
        if tails[1] == "peel":
            _rest_of_blocks(plan, first, second, tail, lanes)
        elif plan.has_loop(f"{second}.t"):
            vector_loop(plan, f"{second}.t", lanes)
        apart = [f"{n}.o" for n, t in ((first, tails[0]), (second, tails[1])) if t != "shift"]
        parallelise(plan, *_whole_lines(plan, rest, f"{first}.o", f"{second}.o"), *apart)
    return blocked


def _rest_of_blocks(plan: Plan, first: str, second: str, tail: str, lanes: int) -> None:
    """Vectors along `tail` over what blocks leave of the loop `second`."""
    left, inside = f"{second}.t", f"{first}.i.t"
    if tail == second:
        plan.do(Reorder((inside, left)))
    vector_loop(plan, left if tail == second else inside, lanes)


def _block_tail(plan: Plan, name: str, size: int) -> str:
    """What happens to the iterations that blocks leave over: the last block may begin earlier where
    there is always a whole one."""
    extent = plan.loop(name).extent
    if divides(size, extent):
        return "exact"
    return "shift" if proves_le(size, extent) else "peel"


def _by_panels(plan: Plan, chain: list[str], other: str, lanes: int) -> bool:
    """Blocks side by side that turn into a panel in the first cache, whose rows are then written as
    runs of lines. Rows of a result that lie in the same few sets of a cache would drive each other
    out before a line of each is written. True where done."""
    *_, last = chain
    stores = [s for s in walk_stmts((plan.loop(last),)) if isinstance(s, Store)]
    if len(stores) != 1 or not isinstance(stores[0].value, Load):
        return False
    (store,) = stores
    b = plan.kernel.buffer(store.buffer)
    written = Load(store.buffer, store.indices, b.dtype)
    apart = stride_in(plan.kernel, written, plan.loop(other).var)
    if b.scope != "out" or not isinstance(apart, int):
        return False
    sets = WAY // math.gcd(apart * nbytes(b.dtype), WAY)
    size = PANEL * lanes * lanes * nbytes(b.dtype)
    if sets > FEW_SETS or not _divides(plan, last, PANEL * lanes) or size > plan.target.l1d // 2:
        return False
    place = chain.index(other)
    exact = _divides(plan, other, lanes)
    made = Plan(plan.kernel, plan.target)
    try:
        made.do(CacheWrite(store.buffer))
        acc = made.newest_buffer()
        names = [v.name for v in made.stage(store.buffer).variables]
        row, run = names[place], names[-1]
        rest = [n for n in names if n not in (row, run)]
        made.do(Reorder((*rest, run, row)), Split(run, PANEL * lanes))
        made.do(Reorder((row, f"{run}.i")), Split(row, lanes, "exact" if exact else "shift"))
        made.do(ComputeAt(acc, f"{row}.o", "stack"))
    except ScheduleError:
        return False
    copy_loops(made, made.newest_buffer(), lanes)
    vector_loop(made, f"{run}.i", lanes, 4)
    parallelise(made, *rest, f"{run}.o")
    plan.do(*made.steps)
    return True


def _whole_lines(plan: Plan, rest: list[str], *over: str) -> list[str]:
    """Where rows of a block are shorter than cache lines, what else is in those lines comes next:
    some iterations of the loop over that, the last of `rest`, go inside the loops `over` blocks.
    The loops that are left around those."""
    if not rest:
        return rest
    loop = plan.loop(rest[-1])
    stores = [s for s in walk_stmts((loop,)) if isinstance(s, Store)]
    near: list[int] = []
    for s in stores:
        written = Load(s.buffer, s.indices, plan.kernel.buffer(s.buffer).dtype)
        for x in (written, *(x for x in walk_expr(s.value) if isinstance(x, Load))):
            step = stride_in(plan.kernel, x, loop.var)
            near += [step * nbytes(x.dtype)] if isinstance(step, int) and step > 1 else []
    count = LINES // min(near, default=LINES)
    name = loop.var.name
    if len(stores) > 1 or count < 2 or not divides(count, loop.extent):
        return rest
    order = (f"{name}.o", *over, f"{name}.i")
    return [*rest[:-1], order[0]] if plan.attempt(Split(name, count), Reorder(order)) else rest


def _divides(plan: Plan, name: str, size: int) -> bool:
    return divides(size, plan.loop(name).extent)


def _across(plan: Plan, chain: list[str]) -> str | None:
    """The loop in which all loads that the innermost loop would gather are contiguous."""
    last = plan.loop(chain[-1])
    turned: set[str] = set()
    for s in last.body:
        if not isinstance(s, Store):
            return None
        for x in walk_expr(s.value):
            if not isinstance(x, Load) or stride_in(plan.kernel, x, last.var) in (0, 1):
                continue
            for name in chain[:-1]:
                if stride_in(plan.kernel, x, plan.loop(name).var) == 1:
                    turned.add(name)
                    break
            else:
                return None
    return turned.pop() if len(turned) == 1 else None


def _unroll(plan: Plan, loop: For) -> int:
    """Vectors per iteration: several where the body is short and its loads are contiguous."""
    for s in loop.body:
        if not isinstance(s, Store) or is_costly(s.value):
            return 1
        loads = [x for x in walk_expr(s.value) if isinstance(x, Load)]
        if any(
            loop.var in symbols(i) and stride_in(plan.kernel, x, loop.var) not in (0, 1)
            for x in loads
            for i in x.indices
        ):
            return 1
    return 4
