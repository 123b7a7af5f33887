"""The schedule step that adds up in parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from aicc.symbolic import Size, Sym, substitute, symbols, value_range
from aicc.tensor_ir.analysis import reads
from aicc.tensor_ir.builder import identity
from aicc.tensor_ir.ir import Buffer, For, If, Kernel, Load, Reduce, Stmt, Store
from aicc.tensor_ir.schedule import Step, fresh_variable, replace_loop, require_loop, unused_names
from aicc.tensor_ir.schedule_compute_at import fresh_buffer
from aicc.tensor_ir.walk import map_body, walk_stmts


@dataclass(frozen=True)
class Subtotals(Step):
    """for k: B[b+i] op= f   ->   P[all] = identity;  for k: P[i] op= f;  B[b+all] op= P[all]

    A tile in registers is reduced over the loop by itself, and what comes out goes into the total.
    The error of a sum of n elements one by one grows with n (with its square root on average), that
    of m subtotals with m + n / m (Higham 1993, The accuracy of floating point summation). A total
    in memory is read and written once for each part. Loops over P are named P.0.s, P.1.s, ... where
    it starts, and P.0, P.1, ... where it is added.
    The order of the reduction changes, in a way that is fixed by the schedule.
    Precondition: the loop is serial, and all that it does is to reduce by one operation into one
    register or stack buffer, which no value reads, in a part of known shape that begins at the same
    place in all iterations.
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
        if buffer.scope not in ("register", "stack"):
            raise self.fail(kernel, f"{total} is not in registers, nor on the stack")
        if total in reads(f):
            raise self.fail(kernel, f"a value reads {total}")
        bound = {g.var for g in walk_stmts((f,)) if isinstance(g, For)}
        start_at, shape = _part(sums, bound, buffer)
        if shape is None:
            raise self.fail(kernel, "the part that the loop reduces into has no known shape")
        part = fresh_buffer(kernel, f"{total}.p")
        taken = unused_names(kernel)

        def nest(suffix: str, element: Callable[[tuple[Size, ...]], Stmt]) -> Stmt:
            """Loops over all elements of the part."""
            loops: list[tuple[Sym, int]] = []
            index: list[Size] = []
            for n, extent in enumerate(shape):
                if extent == 1:
                    index.append(0)
                    continue
                var, at = fresh_variable(f"{part}.{n}{suffix}", 0, extent, taken)
                loops.append((var, extent))
                index.append(at)
            made = element(tuple(index))
            for var, count in reversed(loops):
                made = For(var, 0, count, "for", (made,))
            return made

        nothing = identity(op, buffer.dtype)
        start = nest(".s", lambda at: Store(part, at, nothing))
        end = nest(
            "", lambda at: Reduce(total, _sum(start_at, at), op, Load(part, at, buffer.dtype))
        )
        kernel = kernel.with_buffer(Buffer(part, buffer.dtype, shape, "register"))

        def moved(s: Stmt) -> tuple[Stmt, ...]:
            if not isinstance(s, Reduce):
                return (s,)
            return (replace(s, buffer=part, indices=_difference(s.indices, start_at)),)

        body = replace(f, body=map_body(f.body, moved))
        return replace_loop(kernel, f, (start, body, end))


def _part(
    sums: list[Reduce], bound: set[Sym], whole: Buffer
) -> tuple[tuple[Size, ...], tuple[int, ...] | None]:
    """Where a loop reduces into a buffer: the first element of a part, and the shape of that, None
    where it is not known. Where iterations differ, and in registers, that is the whole buffer.

    bound: the variables of the loop and of those inside.
    """
    starts = {
        tuple(substitute(i, dict.fromkeys(bound & symbols(i), 0)) for i in s.indices) for s in sums
    }
    start = starts.pop() if len(starts) == 1 else (0,) * len(whole.shape)
    shape: list[int] = []
    for n, extent in enumerate(whole.shape):
        places = [s.indices[n] - start[n] for s in sums]
        ends = [value_range(p) for p in places]
        if start[n] == 0 and whole.scope == "register" and isinstance(extent, int):
            shape.append(extent)
        elif any(symbols(p) - bound for p in places) or any(
            lo != 0 or hi is None for lo, hi in ends
        ):
            return start, None
        else:
            shape.append(max(hi for _, hi in ends if hi is not None) + 1)
    return start, tuple(shape)


def _sum(start: tuple[Size, ...], at: tuple[Size, ...]) -> tuple[Size, ...]:
    return tuple(a + b for a, b in zip(start, at, strict=True))


def _difference(indices: tuple[Size, ...], start: tuple[Size, ...]) -> tuple[Size, ...]:
    return tuple(a - b for a, b in zip(indices, start, strict=True))
