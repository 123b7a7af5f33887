"""Streams of constants: weights that a loop goes through once come from memory, which takes
hundreds of cycles to answer. They are asked for ahead."""

from __future__ import annotations

import math
from collections.abc import Sequence

from aicc.codegen.expressions import Expressions
from aicc.dtypes import nbytes
from aicc.symbolic import Sym, coefficient, opaques, product, substitute
from aicc.tensor_ir.ir import For, Reduce, Stmt
from aicc.tensor_ir.walk import loads_of, walk_stmts

LINE = 64
"""Bytes that caches move at once."""
AHEAD = 16384
"""Bytes ahead that a stream of constants is asked for: what memory delivers while it answers, and
some more."""
PASSES = 8
"""How often what is asked for may be used: beyond, waiting for it once does not count."""
ARITHMETIC = 4
"""Operations per line of a stream, at least; with fewer, a core has enough loads under way."""


class Streams(Expressions):
    """The state of emission with what it takes to ask for constants ahead."""

    def is_unrolled(self, s: For) -> bool:
        """Whether copies of the body stand for a loop; not where data gives its first value, which
        the body may change."""
        extent = self.resolve(s.extent)
        return not opaques(s.lo) and (
            extent == 1 or (s.kind == "unroll" and isinstance(extent, int))
        )

    def ask_ahead(self, var: Sym, body: Sequence[Stmt]) -> None:
        """Asks for the constants that later iterations of an innermost loop stream through.

        Only for what comes from memory, is used a few times in all, and takes more arithmetic than
        loads: then the loads of the next few iterations, which is as far as a core looks ahead, are
        too few to hide how long memory takes.
        """
        nests = [s for s in walk_stmts(tuple(body)) if isinstance(s, For)]
        if any(s.kind != "vector" and not self.is_unrolled(s) for s in nests):
            return
        first = {s.var: s.lo for s in nests}
        for name in dict.fromkeys(x.buffer for s in body for x in loads_of(s)):
            b = self.kernel.buffer(name)
            whole = product(b.shape) * nbytes(b.dtype)
            if b.scope != "const" or not isinstance(whole, int) or whole <= self.target.l2:
                continue
            load = next(x for s in body for x in loads_of(s) if x.buffer == name)
            offset = substitute(self.offset(b, load.indices), first)
            step = coefficient(offset, var)
            size = step * nbytes(b.dtype) if isinstance(step, int) else 0
            if size < LINE or size * self._iterations() > PASSES * whole:
                continue
            if self._updates(body) < ARITHMETIC * size // LINE:
                continue
            for at in range(0, size, LINE):
                pointer = self.address(b, offset + (at + AHEAD) // nbytes(b.dtype))
                flags = [("i32", "0"), ("i32", "2"), ("i32", "1")]  # read, second cache, data
                self.fn.call("void", "llvm.prefetch.p0", [("ptr", pointer), *flags])

    def _iterations(self) -> float:
        """How often all the loops around run together; infinite where only a run knows."""
        count = 1.0
        for v in set(self.variables) - set(self.kernel.sizes):
            count *= math.inf if v.lo is None or v.hi is None else v.hi - v.lo + 1
        return count

    def _updates(self, body: Sequence[Stmt]) -> int:
        """Vector operations that unrolled statements reduce by."""
        count = 0
        for s in body:
            if isinstance(s, For):
                extent = self.resolve(s.extent)
                assert isinstance(extent, int)
                count += self._updates(s.body) * (1 if s.kind == "vector" else extent)
            else:
                count += isinstance(s, Reduce)
        return count
