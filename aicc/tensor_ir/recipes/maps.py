"""Kernels without reduction: elementwise chains, broadcasts, copies, transposes.

parallel chunk: for vector: y = f(x...)
"""

from __future__ import annotations

from aicc.errors import ScheduleError
from aicc.tensor_ir.ir import Load, walk_expr
from aicc.tensor_ir.recipes.common import (
    all_linear,
    is_costly,
    lanes_of,
    parallelise,
    stride_in,
    vector_loop,
)
from aicc.tensor_ir.recipes.plan import Plan
from aicc.tensor_ir.schedule import Split
from aicc.tensor_ir.schedule_axes import FuseAxes
from aicc.tensor_ir.schedule_stages import Inline

CHUNK = 8192
"""Elements of a one-dimensional map that one thread takes at a time."""


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
    stage = plan.stage(out)
    names = [v.name for v, _ in stage.axes if v is not None]
    if not names:
        return
    last = stage.variables[-1]
    lanes = lanes_of(plan, stage)
    loads = [x for x in walk_expr(stage.value) if isinstance(x, Load)]
    unroll = 1 if is_costly(stage.value) else 4
    if any(stride_in(plan.kernel, x, last) not in (0, 1) for x in loads):
        unroll = 1
    extent = plan.loop(names[-1]).extent
    if len(names) == 1 and (not isinstance(extent, int) or extent > CHUNK):
        plan.do(Split(names[0], CHUNK, "peel" if not _exact(extent) else "exact"))
        inner = [f"{names[0]}.i", f"{names[0]}.t"]
        for name in inner:
            if plan.has_loop(name):
                vector_loop(plan, name, lanes, unroll)
        parallelise(plan, f"{names[0]}.o")
        return
    vector_loop(plan, names[-1], lanes, unroll)
    parallelise(plan, *names[:-1])


def _exact(extent: object) -> bool:
    return isinstance(extent, int) and extent % CHUNK == 0
