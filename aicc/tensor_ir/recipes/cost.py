"""How long a kernel should take: the roofline, before any schedule.

    seconds = max(operations / peak, bytes / bandwidth) + overhead of a call

Operations are counted from the loops, with those that the vector units have no instruction for
weighted by what their expansion takes; bytes are those of the parameters, each moved once, from the
cache level that holds them all. Symbols count as `NOMINAL`. Only ratios of estimates matter.
"""

from __future__ import annotations

from aicc.dtypes import nbytes
from aicc.symbolic import Size, evaluate, symbols
from aicc.tensor_ir.analysis import readers, stage_of, stages
from aicc.tensor_ir.ir import For, If, Kernel, Load, Op, Reduce, Stmt, Store, While, walk_expr
from aicc.tensor_ir.recipes.common import COSTLY, is_costly
from aicc.tensor_ir.recipes.machine import Machine
from aicc.tensor_ir.schedule_stages import Inline

NOMINAL = 64
"""What a symbol counts as."""
CYCLE = 0.25e-9
"""Seconds, of a core at 4 GHz."""
CALL = 300.0
"""Cycles of a kernel call: its arguments, its first misses, handing out its loop."""
EXPANDED = 12.0
"""Instructions that a costly operation expands to."""
BYTES_PER_CYCLE = ((0.5, "l1d", 64.0), (0.5, "l2", 24.0), (0.5, "l3", 12.0))
"""(share of a cache that data may fill, cache, bytes it delivers per cycle)."""
MEMORY_BYTES_PER_CYCLE = 6.0


def estimate(kernel: Kernel, machine: Machine) -> float:
    """Seconds for one run of an unscheduled kernel on one core."""
    for stage in reversed(stages(kernel)):
        if stage.op is not None or kernel.buffer(stage.buffer).scope != "temp":
            continue
        value = stage_of(kernel, stage.buffer)
        again = len(readers(kernel, stage.buffer)) > 1
        if value is not None and not (again and is_costly(value.value)):
            kernel = Inline(stage.buffer).apply(kernel)
    lanes = machine.lanes("f32")
    cycles = sum(_cycles(s, 1.0) for s in kernel.body) / lanes
    moved = float(sum(_count(b.shape) * nbytes(b.dtype) for b in kernel.params))
    rate = MEMORY_BYTES_PER_CYCLE
    for share, cache, bytes_per_cycle in BYTES_PER_CYCLE:
        if moved <= share * int(getattr(machine, cache)):
            rate = bytes_per_cycle
            break
    return CYCLE * (max(cycles, moved / rate) + CALL)


def _number(s: Size) -> int:
    return s if isinstance(s, int) else evaluate(s, {v.name: NOMINAL for v in symbols(s)})


def _count(shape: tuple[Size, ...]) -> int:
    total = 1
    for d in shape:
        total *= max(0, _number(d))
    return total


def _cycles(s: Stmt, times: float) -> float:
    """Cycles of one lane, two instructions a cycle; sizes of inner loops may vary with outer ones."""
    if isinstance(s, For):
        inner = times * max(0, _number(s.extent))
        return sum(_cycles(c, inner) for c in s.body)
    if isinstance(s, If):
        return sum(_cycles(c, times) for c in (*s.then, *s.orelse))
    if isinstance(s, While):
        return sum(_cycles(c, times * NOMINAL) for c in s.body)
    if not isinstance(s, Store | Reduce):
        return times
    work = 1.0
    for e in walk_expr(s.value):
        if isinstance(e, Op):
            work += EXPANDED if e.name in COSTLY else 1.0
        elif isinstance(e, Load):
            work += 0.5
    if isinstance(s, Reduce) and isinstance(s.value, Op) and s.value.name == "mul":
        work -= 1.0  # multiplied and added by one instruction
    return times * work / 2
