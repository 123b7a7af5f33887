"""Kernels without reduction: elementwise chains, broadcasts, copies, transposes.

parallel chunk: for vector: y = f(x...)
"""

from __future__ import annotations

from aicc.errors import ScheduleError
from aicc.symbolic import Size, proves_le, symbols
from aicc.tensor_ir.ir import For, Load, Store
from aicc.tensor_ir.recipes.common import (
    all_linear,
    flatten_inputs,
    is_costly,
    lanes_of,
    parallelise,
    stride_in,
    vector_loop,
)
from aicc.tensor_ir.recipes.plan import Plan
from aicc.tensor_ir.schedule import Split
from aicc.tensor_ir.schedule_axes import FuseAxes
from aicc.tensor_ir.schedule_partition import Partition, breakpoints
from aicc.tensor_ir.schedule_stages import Inline
from aicc.tensor_ir.walk import walk_expr, walk_stmts

CHUNK = 8192
"""Elements of a one-dimensional map that one thread takes at a time."""
PARTS = 8
"""Parts that one loop is cut into at most."""


def maps(plan: Plan) -> None:
    """Schedules a kernel whose stages are all maps."""
    for stage in plan.stages():
        if plan.kernel.buffer(stage.buffer).scope == "temp":
            plan.do(Inline(stage.buffer))
    finals = plan.stages()
    if not finals or len(finals) != len(plan.kernel.body):
        raise ScheduleError(f"not all nests are maps\n{plan.kernel}")
    for stage in finals:
        _one(plan, stage.buffer)


def _one(plan: Plan, out: str) -> None:
    axis = 0
    while axis < len(plan.stage(out).axes) - 1:
        fused = plan.attempt_if(lambda k: all_linear(k, {out}), FuseAxes(out, axis))
        if not fused:
            axis += 1
    flatten_inputs(plan)
    stage = plan.stage(out)
    names = [v.name for v, _ in stage.axes if v is not None]
    if not names:
        return
    position, count = stage.position, len(plan.kernel.body)
    lanes = lanes_of(plan, stage)
    _cut(plan, names)
    nests = plan.kernel.body[position : position + 1 + len(plan.kernel.body) - count]
    for nest in [s.var.name for s in nests if isinstance(s, For)]:
        _vectors(plan, nest, lanes)


def _cut(plan: Plan, names: list[str]) -> None:
    """Cuts each loop where a condition changes, so that none is left inside."""
    for name in names:
        loop = plan.loop(name)
        points = _ordered(breakpoints(loop, loop.var, loop.hi))
        done: Size = 0
        for point in points:
            if not plan.attempt(Partition(name, point - done)):
                return
            done, name = point, f"{name}.p"
        if points and names.index(loop.var.name) < len(names) - 1:
            return  # inner loops have copies with other names now


def _ordered(points: list[Size]) -> list[Size]:
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
    if chain == [top] and inner == [nest]:
        extent = nest.extent
        if not isinstance(extent, int) or extent > CHUNK:
            exact = isinstance(extent, int) and extent % CHUNK == 0
            plan.do(Split(top, CHUNK, "exact" if exact else "peel"))
            for name in (f"{top}.i", f"{top}.t"):
                if plan.has_loop(name):
                    vector_loop(plan, name, lanes, _unroll(plan, plan.loop(name)))
            parallelise(plan, f"{top}.o")
            return
    for loop in inner:
        vector_loop(plan, loop.var.name, lanes, _unroll(plan, loop))
    parallelise(plan, *(chain[:-1] if len(chain) > 1 else chain))


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
