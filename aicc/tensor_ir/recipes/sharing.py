"""Loops inside parallel ones, shared out too: where a run finds a single image in a batch, threads
share what is done for it.

    parallel n in 0..N: for t: ...; for i: ...   ->   parallel n: parallel t: ...; parallel i: ...
"""

from __future__ import annotations

from aicc.symbolic import Size, Sym, opaques, symbols
from aicc.tensor_ir.ir import For
from aicc.tensor_ir.recipes.common import NOMINAL, nominal
from aicc.tensor_ir.recipes.plan import Plan
from aicc.tensor_ir.schedule import Fuse, Parallel
from aicc.tensor_ir.walk import walk_stmts
from aicc.tensor_ir.work import SHARED_CYCLES, loop_cycles

FEW = 8
"""Iterations of which a loop that is shared out should have as many."""
AMPLE = 4 * SHARED_CYCLES
"""Cycles from which on a loop is shared out again and again, rather than joined to the few
iterations around it, which costs divisions."""


def share_inside(plan: Plan) -> None:
    """Shares out loops with enough work inside parallel loops that a size makes short where it is
    small, the others being as usual."""
    for s in walk_stmts(plan.kernel.body):
        if isinstance(s, For) and s.kind == "parallel":
            for v in sorted(symbols(s.extent), key=str):
                if _count(s.extent, v) < FEW:
                    _share_body(plan, s.var.name, v)
                    break


def _count(size: Size, small: Sym) -> int:
    """A size where one symbol is as small as can be, and the others, or what data say, are as
    usual."""
    if isinstance(size, int):
        return size
    if opaques(size):
        return NOMINAL
    return nominal(size, small)


def _share_body(plan: Plan, name: str, small: Sym) -> bool:
    """Shares out what is inside a loop; False where nothing is."""
    found = False
    for s in plan.loop(name).body:
        if isinstance(s, For) and s.kind == "for":
            if _cycles(plan, s, small) >= SHARED_CYCLES:
                found = _share(plan, s.var.name, small) or found
    return found


def _cycles(plan: Plan, loop: For, small: Sym) -> int:
    return _count(loop_cycles(plan.kernel, loop, plan.target.lanes("f32")), small)


def _share(plan: Plan, name: str, small: Sym) -> bool:
    """Shares out a loop, or where its iterations are few those of the loops inside."""
    loop = plan.loop(name)
    few = _count(loop.extent, small) < FEW
    while few and len(loop.body) == 1 and isinstance(loop.body[0], For):
        inner = loop.body[0]
        ample = _cycles(plan, inner, small) >= AMPLE and _count(inner.extent, small) >= FEW
        if ample or inner.kind != "for" or not plan.attempt(Fuse(name, inner.var.name)):
            break
        name = f"{name}.{inner.var.name}"
        loop = plan.loop(name)
        few = _count(loop.extent, small) < FEW
    if not few and plan.attempt(Parallel(name)):
        return True
    return _share_body(plan, name, small) or (loop.extent != 1 and plan.attempt(Parallel(name)))
