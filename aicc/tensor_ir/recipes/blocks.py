"""Maps of maps over blocks: every block of the result is made of values that its elements share, so
each is computed once per block, in registers.

    parallel block: for vector of channels:
        t[..] = f(x..);  u[..] = g(t..)      unrolled, one vector each
        y[block] = h(u..)

The result's stage reads the last of the shared values at `v // m` and `v % m`: blocks of m along
the axis v; or at `v // (m*d) * d + v % d` and `v // d % m`: blocks of m that are d apart; or at
indices that no operand is read at. Lanes run along the last axis of the shared
values, wherever the result has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from aicc.errors import ScheduleError
from aicc.symbolic import Atom, Dim, FloorDiv, Mod, Sym, from_atom, symbols
from aicc.tensor_ir.analysis import Stage, stages
from aicc.tensor_ir.ir import Expr, Kernel, Load, Op
from aicc.tensor_ir.recipes.common import as_number, lanes_of, parallelise, stride_in
from aicc.tensor_ir.recipes.plan import Plan
from aicc.tensor_ir.schedule import Fuse, Reorder, Split, Unroll, Vectorize
from aicc.tensor_ir.schedule_axes import PadAxis
from aicc.tensor_ir.schedule_stages import ComputeAt, Inline
from aicc.tensor_ir.walk import loads_of, walk_expr

REGISTER_VALUES = 256
"""Vectors that one stage may hold per block."""


def shared(kernel: Kernel, stage: Stage) -> bool:
    """True for a local map that computes something, of which one reader reads several elements or
    a block: inlined, it would be computed again and again."""
    if stage.op is not None or kernel.buffer(stage.buffer).scope != "temp":
        return False
    if not isinstance(stage.value, Op):
        return False
    for reader in stages(kernel):
        loads = loads_from(reader.value, stage.buffer)
        if len(loads) > 1 or any(quotients_of(x) for x in loads):
            return True
    return False


def loads_from(e: Expr, buffer: str) -> list[Load]:
    """The loads of a buffer in an expression."""
    return [x for x in walk_expr(e) if isinstance(x, Load) and x.buffer == buffer]


def quotients_of(load: Load) -> dict[Sym, tuple[int, int]]:
    """Variables that a load is indexed by as `v // m` or `v % m`, with m and 1; or as `v // d % m`,
    with m and d."""
    found: dict[Sym, tuple[int, int]] = {}
    for index in load.indices:
        a = _atom(index)
        if not isinstance(a, FloorDiv | Mod) or not isinstance(a.den, int):
            continue
        inner = _atom(a.num)
        if isinstance(inner, Sym):
            found.setdefault(inner, (a.den, 1))
        elif isinstance(a, Mod) and isinstance(inner, FloorDiv) and isinstance(inner.den, int):
            v = _atom(inner.num)
            if isinstance(v, Sym):
                found[v] = a.den, inner.den
    return found


def _atom(index: object) -> Atom | None:
    """What an index is, where it is nothing but one symbol, quotient or remainder."""
    if not isinstance(index, Dim) or index.const or len(index.terms) != 1:
        return None
    monomial, factor = index.terms[0]
    return monomial[0] if factor == 1 and len(monomial) == 1 else None


def has_blocks(kernel: Kernel) -> bool:
    """True where a kernel of maps has values that the elements of a block share."""
    return any(shared(kernel, s) for s in stages(kernel))


def lanes_in_blocks(kernel: Kernel) -> tuple[Stage, Sym] | None:
    """The result's stage and the variable that lanes run along, where `blocks` finds the shape it
    takes: one chain of maps, whose shared values the result reads once."""
    made = stages(kernel)
    kept = [s for s in made if shared(kernel, s)]
    if not kept or len(made) != len(kernel.body) or any(s.op is not None for s in made):
        return None
    for s in reversed(made[:-1]):
        if s not in kept:
            kernel = Inline(s.buffer).apply(kernel)
    *chain, final = stages(kernel)
    loads = loads_from(final.value, kept[-1].buffer)
    lane = lane_of(final, loads[0]) if len(loads) == 1 else None
    names = [s.buffer for s in kept]
    inner = [x for s in chain for n in names for x in loads_from(s.value, n)]
    if any(quotients_of(x) for x in inner):
        return None  # a block of blocks: the inner ones would be computed for each of its elements
    return None if lane is None else (final, lane)


def blocks(plan: Plan) -> None:
    """Schedules a kernel of maps, of which some are shared by the elements of a block."""
    for stage in reversed(plan.stages()):
        local = plan.kernel.buffer(stage.buffer).scope == "temp"
        if local and not shared(plan.kernel, plan.stage(stage.buffer)):
            plan.do(Inline(stage.buffer))
    *chain, final = plan.stages()
    if len(plan.stages()) != len(plan.kernel.body) or not chain:
        raise ScheduleError("not one chain of maps", plan.kernel)
    if any(s.op is not None for s in (*chain, final)):
        raise ScheduleError("not all nests are maps", plan.kernel)
    last = chain[-1]
    loads = loads_from(final.value, last.buffer)
    if len(loads) != 1 or plan.kernel.buffer(final.buffer).scope != "out":
        raise ScheduleError(f"{last.buffer} is not read once", plan.kernel)
    lanes = lanes_of(plan, final)
    for stage in chain:
        check_lanes(plan, stage)
        plan.do(PadAxis(stage.buffer, len(stage.axes) - 1, lanes))
    loops = {v: v.name for v in final.variables}
    nest = tiled(plan, final, [plan.stage(s.buffer) for s in chain], loops, lanes)
    for stage in reversed(chain):
        compute_block(plan, stage.buffer, nest.over[-1])
    nest.finish(plan)
    parallelise(plan, *nest.over[:-1])


def lane_of(final: Stage, load: Load) -> Sym | None:
    """The result's variable that runs along the last axis of the shared values."""
    for v, _ in final.axes:
        if v is not None and load.indices[-1] == from_atom(v):
            return v
    return None


def check_lanes(plan: Plan, stage: Stage) -> None:
    """Lanes along the last axis read neighbouring elements, or one."""
    v = stage.axes[-1][0]
    for load in (x for x in walk_expr(stage.value) if isinstance(x, Load)):
        if v is not None and stride_in(plan.kernel, load, v) not in (0, 1):
            raise ScheduleError(f"{load} is not contiguous", plan.kernel)


def _addressing(chain: list[Stage]) -> list[bool]:
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
) -> tuple[list[tuple[Sym, int, int]], list[tuple[Sym, int, int]]]:
    """The result's variables, with how many of them are in a block and how far these are apart:
    those that go over blocks, and those that go over what is in one. `lane` is in neither."""
    quotients = quotients_of(load)
    moving: set[Sym] = set()
    still: set[Sym] = set()
    for index, counted in zip(load.indices, addressing, strict=True):
        if counted:
            moving |= symbols(index)
        else:
            still |= symbols(index)
    outer: list[tuple[Sym, int, int]] = []
    inner: list[tuple[Sym, int, int]] = []
    for v, extent in final.axes:
        if v is None or v == lane:
            continue
        if v in moving:
            outer.append((v, *(quotients.get(v, (1, 1)) if v in still else (1, 1))))
        elif isinstance(extent, int):
            inner.append((v, *quotients.get(v, (1, 1))))
        else:
            outer.append((v, 1, 1))
    return outer, inner


@dataclass(frozen=True)
class Nest:
    """Names of the loops of a stage that is computed by blocks: `over` blocks, the vectors of one
    last, and `within` one, the lanes last."""

    over: tuple[str, ...]
    within: tuple[str, ...]

    def copied(self, suffix: str) -> Nest:
        """The names of a copy of the nest that a split has made."""
        over, within = (tuple(f"{n}{suffix}" for n in names) for names in (self.over, self.within))
        return Nest(over, within)

    def finish(self, plan: Plan) -> None:
        """Unrolls what is within a block."""
        for name in self.within[:-1]:
            plan.do(Unroll(name))
        plan.do(Vectorize(self.within[-1]))


def tiled(
    plan: Plan, final: Stage, chain: list[Stage], loops: Mapping[Sym, str], lanes: int
) -> Nest:
    """Splits the loops of a stage, which are perfectly nested, for blocks of the last of `chain`,
    which it reads. loops: the name of the loop that stands for each of the stage's variables."""
    load = loads_from(final.value, chain[-1].buffer)[0]
    lane = lane_of(final, load)
    if lane is None:
        raise ScheduleError("the last axis has no lanes", plan.kernel)
    outer, inner = _axes(final, lane, load, _addressing(chain))
    order = [loops[v] for v, _ in final.axes if v is not None and v in loops]
    parts = {n: [n] for n in order}
    for v, factor, step in (*outer, *inner, (lane, lanes, 1)):
        name = loops.get(v)
        if name is None or (factor == 1 and v != lane):
            continue
        extent = plan.loop(name).extent
        order.remove(name)
        plan.do(Reorder((*order, name)))
        exact = isinstance(extent, int) and extent % (factor * step) == 0
        plan.do(Split(name, factor * step, "exact" if exact else "guard"))
        parts[name] = [f"{name}.o", f"{name}.i"]
        if step > 1:
            block, begin, place = f"{name}.o", f"{name}.i.i", f"{name}.i.o"
            plan.do(Split(f"{name}.i", step, "exact"), Reorder((*order, block, begin, place)))
            plan.do(Fuse(block, begin))
            parts[name] = [f"{block}.{begin}", place]
        order += parts[name]
    named = [(loops[v], m) for v, m, _ in outer if v in loops]
    over = [parts[n][0] for n, _ in named] + [parts[loops[lane]][0]]
    within = [parts[n][-1] for n, m in named if m > 1]
    within += [x for v, *_ in inner if v in loops for x in parts[loops[v]]]
    within.append(parts[loops[lane]][-1])
    plan.do(Reorder((*over, *within)))
    return Nest(tuple(over), tuple(within))


def compute_block(plan: Plan, buffer: str, at: str) -> None:
    """Computes the values of one block; what depends on the same loads is computed together."""
    plan.do(ComputeAt(buffer, at, "register"))
    name = plan.newest_buffer()
    count = 1
    for d in plan.kernel.buffer(name).shape[:-1]:
        count *= as_number(d) or 1
    if count > REGISTER_VALUES:
        raise ScheduleError(f"{count} values of {buffer} per block", plan.kernel)
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


__all__ = ["blocks", "has_blocks", "lanes_in_blocks"]
