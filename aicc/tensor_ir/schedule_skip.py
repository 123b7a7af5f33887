"""The schedule step that leaves out products with what is known to be zero."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from aicc.symbolic import Size, Sym, add, mul, recombine, substitute, symbols
from aicc.tensor_ir.analysis import Stage, bounds, enclosing, stage_of, surely_le
from aicc.tensor_ir.dependence import Access, accesses
from aicc.tensor_ir.ir import (
    Expr,
    For,
    If,
    Index,
    Kernel,
    Load,
    Op,
    Reduce,
    Stmt,
    call,
    const,
)
from aicc.tensor_ir.schedule import Step, replace_loop, require_loop
from aicc.tensor_ir.walk import as_size, conjuncts, walk_stmts

Ranges = Mapping[Sym, tuple[Size, Size]]


@dataclass(frozen=True)
class SkipZeros(Step):
    """for k: { for j: A[..] += B[f(k, j)]*w }  ->  for k: if c(k): { for j: A[..] += B[f(k, j)]*w }

    where B[i] = select(C(i), x, 0), and c(k) is what C asks of `loop`'s own variable for any j:
    taps of a window that only meet the padding are left out.
    Precondition: the loop contains nothing but sums of products, all with an element of B at the
    same index, which one stage computes in that form; some comparison in C depends on k, is not
    always true, and has bounds over the loops inside. The other factors are finite: a product of
    zero and infinity is left out, too.
    """

    loop: str
    buffer: str
    name = "skip_zeros"

    def apply(self, kernel: Kernel) -> Kernel:
        f = require_loop(self, kernel, self.loop)
        stage = stage_of(kernel, self.buffer)
        inside = _inside(stage)
        if stage is None or inside is None:
            raise self.fail(kernel, f"{self.buffer} is not zero where a condition fails")
        if f.kind == "vector":
            raise self.fail(kernel, "a vector loop contains no branch")
        statements = list(walk_stmts(f.body))
        if not all(isinstance(s, For) or _is_product(s, self.buffer) for s in statements):
            raise self.fail(kernel, f"not all in the loop are products with {self.buffer}")
        around = {s.var: (s.lo, s.hi) for s in (*enclosing(kernel, f), f) if isinstance(s, For)}
        made = {
            tuple(self._conditions(stage, inside, a, f, around))
            for a in accesses(f.body)
            if a.buffer == self.buffer
        }
        found = made.pop()
        if made or not found:
            raise self.fail(kernel, f"no condition of {self.buffer} is the loop's own")
        cond = found[0]
        for c in found[1:]:
            cond = call("and", cond, c)
        return replace_loop(kernel, f, (replace(f, body=(If(cond, f.body),)),))

    def _conditions(
        self, stage: Stage, inside: list[Size], load: Access, f: For, around: Ranges
    ) -> Iterator[Expr]:
        """What has to hold for some element that one load reads in an iteration."""
        axes = zip(stage.axes, load.indices, strict=True)
        place = {v: i for (v, _), i in axes if v is not None}
        for margin in inside:
            ends = bounds(recombine(substitute(margin, place)), load.ranges)
            most = None if ends is None else recombine(ends[1])
            if most is not None and f.var in symbols(most) and not surely_le(0, most, around):
                yield call("ge", Index(most), 0)


def _inside(stage: Stage | None) -> list[Size] | None:
    """Margins that are negative only where what a map computes is zero; None where it has no such
    form."""
    if stage is None or stage.op is not None:
        return None
    e = stage.value
    if not isinstance(e, Op) or e.name != "select" or e.args[2] != const(0, e.dtype):
        return None
    return [m for c in conjuncts(e.args[0]) if (m := _margin(c)) is not None]


def _margin(cond: Expr) -> Size | None:
    """What is not negative where a comparison of indices holds."""
    if not isinstance(cond, Op) or cond.name not in ("ge", "lt"):
        return None
    a, b = (as_size(x) for x in cond.args)
    if a is None or b is None:
        return None
    return add(a, mul(b, -1)) if cond.name == "ge" else add(add(b, mul(a, -1)), -1)


def _is_product(s: Stmt, buffer: str) -> bool:
    """True for a sum of products with an element of a buffer."""
    if not isinstance(s, Reduce) or s.op != "add" or s.buffer == buffer:
        return False
    e = s.value
    factors = e.args if isinstance(e, Op) and e.name == "mul" else ()
    return any(isinstance(x, Load) and x.buffer == buffer for x in factors)
