"""Products of an operand with many zeros: the terms with a zero are left out.

    for rows, 32 at a time: for panel of 16 vectors of columns:
        acc[32 rows, panel] = 0
        for k, 32 at a time: for row: for each k where A[row, k] != 0:
            acc[row] += A[row, k] * B[k, panel]

What is left of B for 32 terms stays in the first cache for all rows; one row of sums is in
registers. A term takes one load for each multiply-add, so that nothing is gained where most of A is
not zero: a run counts, and takes the usual form of the product then (`Choose`).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from aicc.errors import ScheduleError
from aicc.tensor_ir.analysis import stages
from aicc.tensor_ir.ir import Kernel
from aicc.tensor_ir.recipes.common import (
    flatten_inputs,
    inline_movements,
    own_axes,
    parallelise,
    with_epilogue,
)
from aicc.tensor_ir.recipes.contraction import flatten_rows
from aicc.tensor_ir.recipes.machine import Machine
from aicc.tensor_ir.recipes.operands import roles
from aicc.tensor_ir.recipes.plan import Plan
from aicc.tensor_ir.schedule import DecomposeReduction, Reorder, Split, Step, Unroll, Vectorize
from aicc.tensor_ir.schedule_choose import Choose
from aicc.tensor_ir.schedule_stages import ComputeAt, Pack
from aicc.tensor_ir.schedule_terms import SkipTerms
from aicc.tensor_ir.schedule_text import print_steps

log = logging.getLogger("aicc")

ROWS = 32
"""Rows that go through one part of the right operand: it is in the first cache from the second."""
VECTORS = (16, 8)
"""Vectors of sums in registers: half of the registers at most, and enough that no multiply-add
waits for another one."""
FEW_ROWS = 8
"""Rows of which fewer gain nothing: what they read of the right operand is the limit, and that is
nearly all of it."""
TERMS = 32
"""Terms whose right operands are in the first cache together."""


PERCENT = 60
"""Elements of a hundred that are not zero, up to which leaving out the others is faster."""


HALF = 0.78
"""The time where half of the elements are zero, in that of the usual form: measured."""


def can_skip(kernel: Kernel, machine: Machine) -> bool:
    """Whether an unscheduled kernel with a sparse operand gets a form that leaves out terms."""
    return _leaving_out(Plan(kernel, machine), ()) is not None


def _leaving_out(plan: Plan, packs: Sequence[Pack]) -> Plan | None:
    """The plan with the kernel scheduled so; None where it is no such product."""
    reductions = [s.buffer for s in stages(plan.kernel) if s.op is not None]
    if len(reductions) != 1:
        return None
    try:
        inline_movements(plan)
        skipping(plan, reductions[0], packs)
    except ScheduleError as error:
        log.debug("%s: no terms are left out: %s", plan.kernel.name, error)
        return None
    return plan


def with_skipping(kernel: Kernel, dense: Plan) -> tuple[Kernel, tuple[Step, ...]]:
    """The scheduled kernel and its steps: as `dense` has it, and where an operand is sparse, in a
    second form that a run chooses."""
    operand = next((b.name for b in kernel.buffers if b.sparse), None)
    packs = [s for s in dense.steps if isinstance(s, Pack)]
    plan = None if operand is None else _leaving_out(Plan(kernel, dense.target), packs)
    if operand is None or plan is None:
        return dense.kernel, tuple(dense.steps)
    both = Choose(operand, PERCENT, print_steps(plan.steps), print_steps(dense.steps))
    try:
        return both.apply(kernel), (both,)
    except ScheduleError as error:
        log.debug("%s: no choice: %s", kernel.name, error)
        return dense.kernel, tuple(dense.steps)


def skipping(plan: Plan, buffer: str, packs: Sequence[Pack]) -> None:
    """Schedules a product whose left operand is sparse; `packs` lay out its constants."""
    buffer, out = with_epilogue(plan, buffer)
    flatten_rows(plan, buffer, out)
    flatten_inputs(plan)
    stage = plan.stage(buffer)
    found = roles(stage)
    if found is None or found.row is None or not plan.kernel.buffer(found.left.buffer).sparse:
        raise ScheduleError(f"{buffer} is no product of a sparse operand\n{plan.kernel}")
    others = [e for n, (_, e) in enumerate(stage.axes) if n not in (found.row, found.column)]
    others += [e for _, e in stage.reduce[:-1]]
    rows = stage.axes[found.row][1]
    if isinstance(rows, int) and rows < FEW_ROWS:
        raise ScheduleError(f"{buffer} has too few rows\n{plan.kernel}")
    depth, columns = stage.reduce[-1][1], stage.axes[found.column][1]
    lanes = plan.target.lanes(found.left.dtype)
    if any(e != 1 for e in others) or plan.kernel.buffer(found.right.buffer).scope != "const":
        raise ScheduleError(f"{buffer} is no product of two matrices\n{plan.kernel}")
    if not isinstance(depth, int) or depth % TERMS or not isinstance(columns, int):
        raise ScheduleError(f"{buffer} is no sum of a multiple of {TERMS} terms\n{plan.kernel}")
    fitting = [v * lanes for v in VECTORS if 2 * v <= plan.target.vector_registers]
    width = next((w for w in fitting if columns % w == 0), None)
    if width is None:
        raise ScheduleError(f"{buffer} has no multiple of {fitting} columns\n{plan.kernel}")
    plan.do(*packs)
    names = [v.name if v else "" for v in own_axes(plan, out, buffer)]
    row, column = names[found.row], names[found.column]
    plan.do(Split(row, ROWS, "short"), Split(column, width))
    plan.do(Reorder((f"{row}.o", f"{column}.o", f"{row}.i", f"{column}.i")))
    plan.do(ComputeAt(buffer, f"{column}.o", "stack"))
    acc = plan.newest_buffer()
    m, n = f"{acc}.{found.row}", f"{acc}.{found.column}"
    k = f"{acc}.k{len(stage.reduce) - 1}"
    plan.do(DecomposeReduction(m), Split(k, TERMS))
    plan.do(Reorder((f"{k}.o", m, f"{k}.i", n)))
    for loop in (n, f"{n}.s", f"{column}.i"):
        plan.do(Split(loop, lanes), Vectorize(f"{loop}.i"), Unroll(f"{loop}.o"))
    plan.do(SkipTerms(m, f"{k}.i"))
    parallelise(plan, f"{row}.o", f"{column}.o")
