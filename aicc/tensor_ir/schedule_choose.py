"""The schedule step that gives a kernel two forms, of which a run takes one."""

from __future__ import annotations

from dataclasses import dataclass, replace

from aicc.symbolic import Size, minimum, product
from aicc.tensor_ir.choice import renamed
from aicc.tensor_ir.ir import (
    PARAM_SCOPES,
    Buffer,
    For,
    If,
    Index,
    Kernel,
    Load,
    Reduce,
    Stmt,
    Store,
    call,
    cast,
    const,
    select,
)
from aicc.tensor_ir.schedule import Step, fresh_variable, schedule, unused_names
from aicc.tensor_ir.schedule_compute_at import fresh_buffer

LANES = 16
"""Counts side by side."""
SAMPLES = (64, 12)
"""Rows that are looked at, at most, evenly spread: along the only axis of rows, along each of
several."""


@dataclass(frozen=True)
class Choose(Step):
    """S  ->  n = how many of the elements looked at in x are not zero;
    if 100*n <= percent*(how many are looked at): { S by the steps `few` } else: { by `many` }

    Both are schedules in their text form. Of many rows of x, some are looked at. What is chosen
    depends on x alone, so that results are the same for any number of threads.
    Precondition: x is an operand of numbers with a constant last dimension, a multiple of 16, no
    stage of the kernel is scheduled yet, and both schedules leave the parameters in one layout.
    """

    buffer: str
    percent: int
    few: str
    many: str
    name = "choose"

    def apply(self, kernel: Kernel) -> Kernel:
        from aicc.tensor_ir.schedule_text import parse_steps

        x = kernel.buffer(self.buffer)
        last = x.shape[-1] if x.shape else 0
        if x.scope != "in" or x.dtype == "bool" or not isinstance(last, int):
            raise self.fail(kernel, f"{self.buffer} is no operand of rows of numbers")
        if last % LANES or not last:
            raise self.fail(kernel, f"rows of {self.buffer} are no multiple of {LANES}")
        few = schedule(kernel, parse_steps(self.few))
        many = schedule(kernel, parse_steps(self.many))
        if few.params != many.params:
            raise self.fail(kernel, "the two schedules ask for parameters in different layouts")
        taken = {b.name for b in many.buffers if b.scope not in PARAM_SCOPES}
        local = [b.name for b in few.buffers if b.scope not in PARAM_SCOPES and b.name in taken]
        few = renamed(few, {name: fresh_buffer(few, f"{name}.few") for name in local})
        own = [b for b in few.buffers if b.scope not in PARAM_SCOPES]
        made = replace(many, buffers=(*many.buffers, *own))
        # Flattened inputs have other axes than those of the kernel that is given.
        made, count, nests, looked = _count(made, made.buffer(self.buffer))
        total = call("mul", cast(count, "i64"), 100)
        enough = call("le", total, Index(product([looked, self.percent])))
        return made.with_body((*nests, If(enough, few.body, many.body)))


def _count(kernel: Kernel, x: Buffer) -> tuple[Kernel, Load, tuple[Stmt, ...], Size]:
    """The kernel with buffers for it, the number of elements that are not zero, what counts them,
    and the number of those that are looked at."""
    taken = unused_names(kernel)
    parts, total = fresh_buffer(kernel, "count.p"), fresh_buffer(kernel, "count")
    kernel = kernel.with_buffer(Buffer(parts, "i32", (LANES,), "stack"))
    kernel = kernel.with_buffer(Buffer(total, "i32", (1,), "stack"))
    zero = const(0, "i32")
    lane, at = fresh_variable("count.i", 0, LANES, taken)
    index: list[Size] = []
    loops: list[For] = []
    most = SAMPLES[len(x.shape) > 2]
    for n, extent in enumerate(x.shape[:-1]):
        rows = minimum(extent, most)
        var, place = fresh_variable(f"count.{n}", 0, rows, taken)
        index.append(place if rows == extent else place * extent // rows)
        loops.append(For(var, 0, rows, "for", ()))
    last = x.shape[-1]
    assert isinstance(last, int)
    block, b = fresh_variable("count.b", 0, last // LANES, taken)
    loops.append(For(block, 0, last // LANES, "for", ()))
    element = Load(x.name, (*index, b * LANES + at), x.dtype)
    one = select(call("ne", element, 0), const(1, "i32"), zero)
    body: Stmt = For(lane, 0, LANES, "vector", (Reduce(parts, (at,), "add", one),))
    for loop in reversed(loops):
        body = replace(loop, body=(body,))
    start, s = fresh_variable("count.s", 0, LANES, taken)
    end, e = fresh_variable("count.e", 0, LANES, taken)
    nests = (
        For(start, 0, LANES, "vector", (Store(parts, (s,), zero),)),
        body,
        Store(total, (0,), zero),
        For(end, 0, LANES, "vector", (Reduce(total, (0,), "add", Load(parts, (e,), "i32")),)),
    )
    looked = product([f.hi for f in loops]) * LANES
    return kernel, Load(total, (0,), "i32"), nests, looked
