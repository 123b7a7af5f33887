"""Maps of maps over blocks: every block of the result is made of values that its elements share, so
each is computed once per block, in registers.

    parallel block: for vector of channels:
        t[..] = f(x..);  u[..] = g(t..)      unrolled, one vector each
        y[block] = h(u..)

The result's stage reads the last of the shared values at `v // m` and `v % m`: blocks of m along
the axis v; or at indices that no operand is read at. Lanes run along the last axis of the shared
values, wherever the result has it.
"""

from __future__ import annotations

from aicc.errors import ScheduleError
from aicc.symbolic import Dim, FloorDiv, Mod, Sym, symbols
from aicc.tensor_ir.analysis import Stage
from aicc.tensor_ir.ir import Expr, Load, Op
from aicc.tensor_ir.recipes.common import as_number, lanes_of, parallelise, stride_in
from aicc.tensor_ir.recipes.plan import Plan
from aicc.tensor_ir.schedule import Reorder, Split, Unroll, Vectorize
from aicc.tensor_ir.schedule_axes import PadAxis
from aicc.tensor_ir.schedule_stages import ComputeAt, Inline
from aicc.tensor_ir.walk import loads_of, walk_expr

REGISTER_VALUES = 256
"""Vectors that one stage may hold per block."""


def shared(plan: Plan, stage: Stage) -> bool:
    """True for a local map that computes something, of which one reader reads several elements or
    a block: inlined, it would be computed again and again."""
    if stage.op is not None or plan.kernel.buffer(stage.buffer).scope != "temp":
        return False
    if not isinstance(stage.value, Op):
        return False
    for reader in plan.stages():
        loads = _loads(reader.value, stage.buffer)
        if len(loads) > 1 or any(_quotients(x) for x in loads):
            return True
    return False


def _loads(e: Expr, buffer: str) -> list[Load]:
    return [x for x in walk_expr(e) if isinstance(x, Load) and x.buffer == buffer]


def _quotients(load: Load) -> dict[Sym, int]:
    """Variables that a load is indexed by as `v // m` or `v % m`, with m."""
    found: dict[Sym, int] = {}
    for index in load.indices:
        if not isinstance(index, Dim) or index.const or len(index.terms) != 1:
            continue
        (monomial, factor) = index.terms[0]
        a = monomial[0]
        if factor == 1 and len(monomial) == 1 and isinstance(a, FloorDiv | Mod):
            v = next(iter(symbols(a.num)), None)
            if v is not None and a.num == Dim((((v,), 1),), 0) and isinstance(a.den, int):
                found[v] = a.den
    return found


def has_blocks(plan: Plan) -> bool:
    """True where a kernel of maps has values that the elements of a block share."""
    return any(shared(plan, s) for s in plan.stages())


def blocks(plan: Plan) -> None:
    """Schedules a kernel of maps, of which some are shared by the elements of a block."""
    for stage in reversed(plan.stages()):
        local = plan.kernel.buffer(stage.buffer).scope == "temp"
        if local and not shared(plan, plan.stage(stage.buffer)):
            plan.do(Inline(stage.buffer))
    *chain, final = plan.stages()
    if len(plan.stages()) != len(plan.kernel.body) or not chain:
        raise ScheduleError(f"not one chain of maps\n{plan.kernel}")
    if any(s.op is not None for s in (*chain, final)):
        raise ScheduleError(f"not all nests are maps\n{plan.kernel}")
    last = chain[-1]
    loads = _loads(final.value, last.buffer)
    if len(loads) != 1 or plan.kernel.buffer(final.buffer).scope != "out":
        raise ScheduleError(f"{last.buffer} is not read once\n{plan.kernel}")
    lanes = lanes_of(plan, final)
    lane = _lane(final, loads[0])
    if lane is None:
        raise ScheduleError(f"the last axis has no lanes\n{plan.kernel}")
    for stage in chain:
        _check_lanes(plan, stage)
        plan.do(PadAxis(stage.buffer, len(stage.axes) - 1, lanes))
    over, within = _axes(final, lane, loads[0], _addressing(plan, chain))
    outer, inner = _split(plan, final.buffer, over, within, lane, lanes)
    at = outer[-1]
    for stage in reversed(chain):
        _compute(plan, stage.buffer, at)
    for name in inner[:-1]:
        plan.do(Unroll(name))
    plan.do(Vectorize(inner[-1]))
    parallelise(plan, *outer[:-1])


def _lane(final: Stage, load: Load) -> Sym | None:
    """The result's variable that runs along the last axis of the shared values."""
    for v, _ in final.axes:
        if v is not None and load.indices[-1] == Dim((((v,), 1),), 0):
            return v
    return None


def _check_lanes(plan: Plan, stage: Stage) -> None:
    """Lanes along the last axis read neighbouring elements, or one."""
    v = stage.axes[-1][0]
    for load in (x for x in walk_expr(stage.value) if isinstance(x, Load)):
        if v is not None and stride_in(plan.kernel, load, v) not in (0, 1):
            raise ScheduleError(f"{load} is not contiguous\n{plan.kernel}")


def _addressing(plan: Plan, chain: list[Stage]) -> list[bool]:
    """For each axis of the last shared value: whether operands are read at indices that depend on
    it. The others number the values of one block."""
    known: dict[str, list[bool]] = {}
    for stage in chain:
        used: set[Sym] = set()
        for load in (x for x in walk_expr(stage.value) if isinstance(x, Load)):
            counts = known.get(load.buffer, [True] * len(load.indices))
            for index, counted in zip(load.indices, counts, strict=True):
                used |= symbols(index) if counted else set()
        known[stage.buffer] = [v in used for v, _ in stage.axes]
    return known[chain[-1].buffer]


def _axes(
    final: Stage, lane: Sym, load: Load, addressing: list[bool]
) -> tuple[list[tuple[str, int]], list[str]]:
    """The result's loops: (name, extent of its blocks) of those that go over blocks, and the names
    of those that go over what is in one. `lane` is in neither."""
    quotients = _quotients(load)
    moving: set[Sym] = set()
    for index, counted in zip(load.indices, addressing, strict=True):
        moving |= symbols(index) if counted else set()
    outer: list[tuple[str, int]] = []
    inner: list[str] = []
    for v, extent in final.axes:
        if v is None or v == lane:
            continue
        if v in quotients and v in moving:
            outer.append((v.name, quotients[v]))
        elif v in moving or not isinstance(extent, int):
            outer.append((v.name, 1))
        else:
            inner.append(v.name)
    return outer, inner


def _split(
    plan: Plan,
    out: str,
    outer: list[tuple[str, int]],
    inner: list[str],
    lane: Sym,
    lanes: int,
) -> tuple[list[str], list[str]]:
    """Splits the result's loops and puts those over blocks outside: the names of both kinds."""
    quotients = {
        v.name: m
        for load in walk_expr(plan.stage(out).value)
        if isinstance(load, Load)
        for v, m in _quotients(load).items()
    }
    order = [v.name for v, _ in plan.stage(out).axes if v is not None]
    splits = [(n, m) for n, m in outer if m > 1]
    splits += [(n, quotients[n]) for n in inner if n in quotients]
    splits.append((lane.name, lanes))
    parts: dict[str, list[str]] = {n: [n] for n in order}
    for name, factor in splits:
        extent = plan.loop(name).extent
        order.remove(name)
        plan.do(Reorder((*order, name)))
        exact = isinstance(extent, int) and extent % factor == 0
        plan.do(Split(name, factor, "exact" if exact else "guard"))
        parts[name] = [f"{name}.o", f"{name}.i"]
        order += parts[name]
    over = [parts[n][0] for n, _ in outer] + [parts[lane.name][0]]
    within = [parts[n][-1] for n, m in outer if m > 1]
    within += [x for n in inner for x in parts[n]] + [parts[lane.name][-1]]
    plan.do(Reorder((*over, *within)))
    return over, within


def _compute(plan: Plan, buffer: str, at: str) -> None:
    """Computes the values of one block; what depends on the same loads is computed together."""
    plan.do(ComputeAt(buffer, at, "register"))
    name = plan.newest_buffer()
    count = 1
    for d in plan.kernel.buffer(name).shape[:-1]:
        count *= as_number(d) or 1
    if count > REGISTER_VALUES:
        raise ScheduleError(f"{count} values of {buffer} per block\n{plan.kernel}")
    loops = [f"{name}.{n}" for n in range(len(plan.kernel.buffer(name).shape))]
    loops = [n for n in loops if plan.has_loop(n)]
    read: set[str] = set()
    for load in loads_of(plan.loop(loops[0])):
        for index in load.indices:
            read |= {v.name for v in symbols(index)}
    order = [n for n in loops[:-1] if n in read] + [n for n in loops[:-1] if n not in read]
    if order:
        plan.do(Reorder((*order, loops[-1])))
    for n in order:
        plan.do(Unroll(n))
    plan.do(Vectorize(loops[-1]))


__all__ = ["blocks", "has_blocks"]
