"""The schedule step that adds up in parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from aicc.symbolic import Size, Sym
from aicc.tensor_ir.analysis import reads
from aicc.tensor_ir.builder import identity
from aicc.tensor_ir.ir import Buffer, For, If, Kernel, Load, Reduce, Stmt, Store
from aicc.tensor_ir.schedule import Step, fresh_variable, replace_loop, require_loop, unused_names
from aicc.tensor_ir.schedule_compute_at import fresh_buffer
from aicc.tensor_ir.walk import map_body, walk_stmts


@dataclass(frozen=True)
class Subtotals(Step):
    """for k: B[i] op= f   ->   P[all] = identity;  for k: P[i] op= f;  B[all] op= P[all]

    A tile in registers is reduced over the loop by itself, and what comes out goes into the total.
    The error of a sum of n elements one by one grows with n (with its square root on average), that
    of m subtotals with m + n / m (Higham 1993, The accuracy of floating point summation). Loops
    over P are named P.0.s, P.1.s, ... where it starts, and P.0, P.1, ... where it is added.
    The order of the reduction changes, in a way that is fixed by the schedule.
    Precondition: the loop is serial, and all that it does is to reduce by one operation into one
    register buffer, which no value reads.
    """

    loop: str
    name = "subtotals"

    def apply(self, kernel: Kernel) -> Kernel:
        f = require_loop(self, kernel, self.loop)
        done = [s for s in walk_stmts(f.body) if not isinstance(s, (For, If))]
        sums = [s for s in done if isinstance(s, Reduce)]
        if (
            f.kind not in ("for", "unroll")
            or len(sums) < len(done)
            or len({(s.buffer, s.op) for s in sums}) != 1
        ):
            raise self.fail(kernel, "the loop is not one reduction")
        total, op = sums[0].buffer, sums[0].op
        buffer = kernel.buffer(total)
        if buffer.scope != "register":
            raise self.fail(kernel, f"{total} is not in registers")
        if total in reads(f):
            raise self.fail(kernel, f"a value reads {total}")
        part = fresh_buffer(kernel, f"{total}.p")
        taken = unused_names(kernel)

        def nest(suffix: str, element: Callable[[tuple[Size, ...]], Stmt]) -> Stmt:
            """Loops over all elements of the part."""
            loops: list[tuple[Sym, Size]] = []
            index: list[Size] = []
            for n, extent in enumerate(buffer.shape):
                if extent == 1:
                    index.append(0)
                    continue
                var, at = fresh_variable(f"{part}.{n}{suffix}", 0, extent, taken)
                loops.append((var, extent))
                index.append(at)
            made = element(tuple(index))
            for var, extent in reversed(loops):
                made = For(var, 0, extent, "for", (made,))
            return made

        nothing = identity(op, buffer.dtype)
        start = nest(".s", lambda at: Store(part, at, nothing))
        end = nest("", lambda at: Reduce(total, at, op, Load(part, at, buffer.dtype)))
        kernel = kernel.with_buffer(Buffer(part, buffer.dtype, buffer.shape, "register"))

        def moved(s: Stmt) -> tuple[Stmt, ...]:
            return (replace(s, buffer=part) if isinstance(s, Reduce) else s,)

        body = replace(f, body=map_body(f.body, moved))
        return replace_loop(kernel, f, (start, body, end))
