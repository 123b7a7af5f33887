"""Right operands whose columns are two axes that a reshape joins: a copy of them joined.

y[i, j] += a[i, k] * b[j // m, k, j % m]   ->   c[k, j] = b[j // m, k, j % m];  a[i, k] * c[k, j]
"""

from __future__ import annotations

from aicc.errors import ScheduleError
from aicc.symbolic import symbols
from aicc.tensor_ir.analysis import Stage
from aicc.tensor_ir.recipes.common import all_linear
from aicc.tensor_ir.recipes.operands import Roles
from aicc.tensor_ir.recipes.plan import Plan
from aicc.tensor_ir.schedule_axes import FuseAxes, PadAxis
from aicc.tensor_ir.schedule_stages import CacheRead


def joined_columns(plan: Plan, stage: Stage, found: Roles, columns: int) -> str | None:
    """Copies a right operand that is read at the quotient and the remainder of the column, with
    these two axes as one, padded to tiles of `columns`. The name of the copy; None where there are
    no such axes, and nothing is done."""
    v, right = stage.axes[found.column][0], found.right
    split = [n for n, i in enumerate(right.indices) if v in symbols(i)]
    if len(split) != 2:
        return None
    others = [n for n in range(len(right.indices)) if n not in split]
    for pair in (split, split[::-1]):
        copy = CacheRead(right.buffer, "", (*others, *pair))
        try:
            made = copy.apply(plan.kernel).buffers[-1].name
        except ScheduleError:
            return None
        join = FuseAxes(made, len(others))
        pad = PadAxis(made, len(others), columns, "clamp")
        if plan.attempt_if(lambda k: all_linear(k, {stage.buffer}), copy, join, pad):
            return made
    return None
