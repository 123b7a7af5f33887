"""Schedule steps on the body of a loop: the other steps, applied to what one iteration does."""

from __future__ import annotations

from dataclasses import dataclass, replace

from aicc.errors import ScheduleError
from aicc.symbolic import symbols
from aicc.tensor_ir.analysis import enclosing, reads, stage_of, writes
from aicc.tensor_ir.dependence import loaded_by
from aicc.tensor_ir.ir import PARAM_SCOPES, Buffer, For, Kernel, Stmt
from aicc.tensor_ir.schedule import Step, replace_loop, require_loop, schedule
from aicc.tensor_ir.walk import children, walk_stmts


def focus(kernel: Kernel, loop: For) -> Kernel:
    """The body of a loop as a kernel of its own, in which the variables of the loops around are
    sizes.

    A local buffer whose contents pass from one iteration to the next, or out of the loop, is a
    result there ("out"), so that no step takes it away. Names of loops elsewhere are sizes too:
    no new loop may have them.
    """
    around = [s for s in enclosing(kernel, loop) if isinstance(s, For)]
    inside = {s.var for s in walk_stmts(loop.body) if isinstance(s, For)}
    elsewhere = [s.var for s in walk_stmts(kernel.body) if isinstance(s, For)]
    sizes = dict.fromkeys((*kernel.sizes, *(f.var for f in around), loop.var, *elsewhere))
    body = Kernel(
        kernel.name,
        tuple(s for s in sizes if s not in inside),
        kernel.buffers,
        loop.body,
    )
    shared = _touched(kernel.body, loop)
    buffers = tuple(
        replace(b, scope="out")
        if b.scope not in PARAM_SCOPES and (b.name in shared or _carried(body, b.name))
        else b
        for b in kernel.buffers
    )
    return replace(body, buffers=buffers)


def _touched(body: tuple[Stmt, ...], without: For) -> set[str]:
    """Buffers that statements touch outside of one loop."""
    found: set[str] = set()
    for s in body:
        if s is without:
            found |= loaded_by((without.lo, without.hi))
        elif any(x is without for x in walk_stmts((s,))):
            found |= set(reads(replace(s, body=()) if isinstance(s, For) else s))
            found |= _touched(children(s), without)
        else:
            found |= {*reads(s), *writes(s)}
    return found


def _carried(body: Kernel, buffer: str) -> bool:
    """Whether an iteration may read what one before it left in a buffer."""
    stage = stage_of(body, buffer)
    if stage is None:
        return True
    return any(buffer in reads(s) for s in body.body[: stage.position])


@dataclass(frozen=True)
class Within(Step):
    """for t: S   ->   for t: S', with S' what `steps` make of S as if it were a whole kernel

    steps: their text, as in `split(i, 6); unroll(i.i)`. Precondition: the loop is no vector; that
    of each step holds for one iteration, whatever the variables of the loops around; parameters
    keep their shapes and layouts, no buffer's shape depends on the iteration, and no loop becomes
    parallel (which asks for what happens outside).
    """

    loop: str
    steps: str
    name = "within"

    def apply(self, kernel: Kernel) -> Kernel:
        from aicc.tensor_ir.schedule_text import parse_steps

        loop = require_loop(self, kernel, self.loop)
        if loop.kind == "vector":
            raise self.fail(kernel, "a vector loop contains no other loop")
        before = focus(kernel, loop)
        try:
            after = schedule(before, parse_steps(self.steps))
        except ScheduleError as error:
            raise self.fail(kernel, f"in one iteration: {error}") from None
        old = {b.name: b for b in before.buffers}
        buffers: list[Buffer] = []
        for b in after.buffers:
            if b == old.get(b.name):
                b = kernel.buffer(b.name)
            elif b.name in old and old[b.name].scope in PARAM_SCOPES:
                raise self.fail(kernel, f"{b.name} would change outside of the loop")
            elif not all(symbols(d) <= set(kernel.sizes) for d in b.shape):
                raise self.fail(kernel, f"the shape of {b.name} depends on the iteration")
            buffers.append(b)
        kept = {b.name for b in buffers}
        gone = {b.name for b in kernel.buffers} - kept
        if any(kernel.buffer(n).scope in PARAM_SCOPES for n in gone):
            raise self.fail(kernel, "a parameter would go")
        if any(s.kind == "parallel" for s in walk_stmts(after.body) if isinstance(s, For)):
            raise self.fail(kernel, "a loop inside cannot become parallel")
        made = replace_loop(kernel, loop, (replace(loop, body=after.body),))
        return replace(made, buffers=tuple(buffers))
