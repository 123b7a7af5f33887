"""Several reductions along an outer axis, one after the other: the extreme elements of columns and
where they are. Every stage is computed for a vector of columns, and runs down the rows.

    parallel columns: for k: vector s op= x[k];  for k: vector t op= f(x[k], s);  y[columns] = t
"""

from __future__ import annotations

from aicc.errors import ScheduleError
from aicc.tensor_ir.analysis import Stage
from aicc.tensor_ir.ir import Load
from aicc.tensor_ir.recipes.common import inline_movements, parallelise, stride_in
from aicc.tensor_ir.recipes.operands import column_axis
from aicc.tensor_ir.recipes.plan import Plan
from aicc.tensor_ir.schedule import DecomposeReduction, Reorder, Split, Vectorize
from aicc.tensor_ir.schedule_axes import PadAxis
from aicc.tensor_ir.schedule_stages import CacheWrite, ComputeAt
from aicc.tensor_ir.walk import walk_expr


def has_columns(plan: Plan) -> bool:
    """True for reductions over the same axes, along none of which elements are contiguous."""
    stages = plan.stages()
    if len(stages) != len(plan.kernel.body) or any(s.op is None for s in stages):
        return False
    extents = {tuple(e for _, e in s.axes) for s in stages}
    return len(stages) > 1 and len(extents) == 1 and all(_down(plan, s) for s in stages)


def _down(plan: Plan, stage: Stage) -> bool:
    loads = [x for x in walk_expr(stage.value) if isinstance(x, Load)]
    apart = all(stride_in(plan.kernel, x, k) != 1 for x in loads for k, _ in stage.reduce)
    return apart and column_axis(plan, stage) is not None


def columns(plan: Plan) -> None:
    """Schedules a kernel of such stages."""
    inline_movements(plan)
    stages = plan.stages()
    column = column_axis(plan, stages[0])
    outs = [s.buffer for s in stages if plan.kernel.buffer(s.buffer).scope == "out"]
    if column is None or len(outs) != 1 or outs != [stages[-1].buffer]:
        raise ScheduleError("not one result, or no columns", plan.kernel)
    (out,) = outs
    plan.do(CacheWrite(out))
    made = [s for s in plan.stages() if s.buffer != out]
    lanes = max(plan.target.lanes(plan.kernel.buffer(s.buffer).dtype) for s in made)
    for stage in made:
        plan.do(PadAxis(stage.buffer, column, lanes))
    final = plan.stage(out)
    names = [v.name for v, _ in final.axes if v is not None]
    c, extent = names[-1], final.axes[column][1]
    exact = isinstance(extent, int) and extent % lanes == 0
    plan.do(Split(c, lanes, "exact" if exact else "guard"))
    for stage in reversed(made):
        plan.do(ComputeAt(stage.buffer, f"{c}.o", "register"))
        name = plan.newest_buffer()
        own = f"{name}.{column}"
        plan.do(DecomposeReduction(own))
        depth = [f"{name}.k{n}" for n in range(len(stage.reduce)) if plan.has_loop(f"{name}.k{n}")]
        plan.do(Reorder((*depth, own)), Vectorize(f"{own}.s"), Vectorize(own))
    plan.do(Vectorize(f"{c}.i"))
    parallelise(plan, *names[:-1], f"{c}.o")
