"""Which schedule a kernel gets: from its structure, its sizes and the machine, never its name."""

from __future__ import annotations

import logging
from collections.abc import Callable

from aicc.errors import ScheduleError
from aicc.tensor_ir.choice import choice_of, choose_between
from aicc.tensor_ir.ir import For, Kernel
from aicc.tensor_ir.recipes.blocks import blocks, has_blocks, lanes_in_blocks
from aicc.tensor_ir.recipes.chained import chained, has_chain
from aicc.tensor_ir.recipes.columns import columns, has_columns
from aicc.tensor_ir.recipes.common import inline_movements, parallelise
from aicc.tensor_ir.recipes.contraction import contraction
from aicc.tensor_ir.recipes.down import down
from aicc.tensor_ir.recipes.interleaved import added, interleaved
from aicc.tensor_ir.recipes.machine import Machine
from aicc.tensor_ir.recipes.maps import maps
from aicc.tensor_ir.recipes.operands import column_axis, roles
from aicc.tensor_ir.recipes.panels import has_far_rows, panels
from aicc.tensor_ir.recipes.plan import Plan
from aicc.tensor_ir.recipes.recurrence import (
    innermost,
    recurrence,
    serial_loops,
    vectorise_run,
)
from aicc.tensor_ir.recipes.resampled import has_resampled, resampled
from aicc.tensor_ir.recipes.rows import dots, rows
from aicc.tensor_ir.recipes.sharing import share_inside
from aicc.tensor_ir.recipes.skipping import with_skipping
from aicc.tensor_ir.recipes.staged import has_staged, staged
from aicc.tensor_ir.recipes.window import window
from aicc.tensor_ir.schedule import Step
from aicc.tensor_ir.schedule_sides import Sides
from aicc.tensor_ir.schedule_text import print_steps
from aicc.tensor_ir.walk import walk_stmts

log = logging.getLogger("aicc")


def choose(kernel: Kernel, machine: Machine) -> tuple[Step, ...]:
    """The steps that schedule a kernel as lowering wrote it, for a machine."""
    return scheduled(kernel, machine)[1]


def scheduled(kernel: Kernel, machine: Machine) -> tuple[Kernel, tuple[Step, ...]]:
    """The scheduled kernel and its steps. Each recipe is tried where the structure suggests it; one
    whose precondition fails leaves the kernel to the next. Where sizes choose between two bodies,
    each is scheduled by itself."""
    choice = choice_of(kernel)
    if choice is not None:
        then, orelse = scheduled(choice.then, machine), scheduled(choice.orelse, machine)
        step = Sides(print_steps(then[1]), print_steps(orelse[1]))
        return choose_between(choice.cond, then[0], orelse[0]), (step,)
    for recipe in _candidates(kernel, machine):
        plan = Plan(kernel, machine)
        try:
            recipe(plan)
        except ScheduleError as error:
            log.debug("%s: no schedule by %s: %s", kernel.name, recipe.__name__, error)
            continue
        share_inside(plan)
        return with_skipping(kernel, plan)
    log.debug("%s: left as it is", kernel.name)
    return kernel, ()


def _candidates(kernel: Kernel, machine: Machine) -> list[Callable[[Plan], None]]:
    plan = Plan(kernel, machine)
    try:
        inline_movements(plan)
    except ScheduleError:
        return [plain]
    reductions = [s for s in plan.stages() if s.op is not None]
    found: list[Callable[[Plan], None]] = []
    if has_staged(kernel):
        found.append(staged)
    if has_chain(kernel):
        found.append(chained)
    if serial_loops(plan.kernel):
        found.append(recurrence)
    if not reductions and has_resampled(kernel) and lanes_in_blocks(kernel) is None:
        found.append(resampled)
    if not reductions:
        found += [blocks, maps] if has_blocks(plan.kernel) else [maps]
    if len(reductions) == 1:
        (stage,) = reductions
        buffer = stage.buffer
        if dots(plan.kernel, stage):
            found.append(rows)
        if has_far_rows(plan, stage):
            found.append(_applied(panels, buffer))
        if roles(stage) is not None:
            found.append(_applied(interleaved, buffer))
            found.append(_applied(contraction, buffer))
        elif added(stage) is not None:
            found.append(_applied(interleaved, buffer))
        if column_axis(plan, stage) is not None:
            found += [_applied(down, buffer), _applied(window, buffer)]
    if has_columns(plan):
        found.append(columns)
    if reductions:
        found.append(rows)
    return [*found, plain]


def _applied(recipe: Callable[[Plan, str], None], buffer: str) -> Callable[[Plan], None]:
    def run(plan: Plan) -> None:
        inline_movements(plan)
        recipe(plan, buffer)

    run.__name__ = recipe.__name__
    return run


def plain(plan: Plan) -> None:
    """Loops as they are; innermost ones in vectors and outermost ones shared out where that is
    legal."""
    for name in innermost(plan.kernel.body):
        vectorise_run(plan, name)
    for s in plan.kernel.body:
        if isinstance(s, For) and not any(
            isinstance(x, For) and x.kind == "parallel" for x in walk_stmts((s,))
        ):
            parallelise(plan, s.var.name)


__all__ = ["choose", "scheduled"]
