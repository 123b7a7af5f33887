"""Streams of constants: weights that a loop goes through once come from memory, which takes
hundreds of cycles to answer. They are asked for ahead."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from aicc.codegen.expressions import Expressions
from aicc.codegen.unrolling import few_copies
from aicc.codegen.writer import FunctionWriter
from aicc.dtypes import nbytes
from aicc.symbolic import Size, Sym, coefficient, from_atom, opaques, product, substitute
from aicc.target import Target
from aicc.tensor_ir.ir import Buffer, For, Kernel, Reduce, Stmt
from aicc.tensor_ir.walk import loads_of, walk_stmts

LINE = 64
"""Bytes that caches move at once."""
AHEAD = 16384
"""Bytes ahead that a stream of constants is asked for: what memory delivers while it answers, and
some more."""
PASSES = 8
"""How often what is asked for may be used: beyond, waiting for it once does not count."""
STAYS = 8
"""Constants of at most this part of the second cache count as still there from the run before: of
larger ones, what else a run reads drives out too much."""
ARITHMETIC = 7
"""Operations per line of a stream, at least; with fewer, a core has enough loads under way, and
asking for lines takes turns of the caches that reading them needs."""


@dataclass(frozen=True)
class Stream:
    """What one iteration of a loop reads of a constant: `size` bytes from the element `offset` on,
    behind those of the iteration before."""

    buffer: Buffer
    offset: Size
    size: int

    def ahead(self, skipped: Size = 0) -> Size:
        """The element that is asked for instead of the first one, or of that after `skipped`
        bytes."""
        return self.offset + (skipped + AHEAD) // nbytes(self.buffer.dtype)


class Streams(Expressions):
    """The state of emission with what it takes to ask for constants ahead."""

    def __init__(self, kernel: Kernel, target: Target, fn: FunctionWriter) -> None:
        super().__init__(kernel, target, fn)
        self.shared: dict[Sym, tuple[int, list[Stream]]] = {}
        """For a loop inside another: its iterations, and the streams of that one."""
        self._unrolled: dict[For, bool] = {}

    def is_unrolled(self, s: For) -> bool:
        """Whether copies of the body stand for a loop; not where data gives its first value, which
        the body may change."""
        found = self._unrolled.get(s)
        if found is None:
            extent = self.resolve(s.extent)
            found = not opaques(s.lo) and (
                extent == 1 or (s.kind == "unroll" and isinstance(extent, int)) or few_copies(s)
            )
            if isinstance(s.extent, int):
                self._unrolled[s] = found
        return found

    def ask_ahead(self, var: Sym, body: Sequence[Stmt]) -> None:
        """Asks for the constants that later iterations of an innermost loop stream through.

        Only for what comes from memory, is used a few times in all, and takes more arithmetic than
        loads: then the loads of the next few iterations, which is as far as a core looks ahead, are
        too few to hide how long memory takes.
        """
        extent, streams = self.shared.pop(var, (1, []))
        for stream in streams:
            lines = -(-stream.size // LINE)
            share = -(-lines // extent)
            at = from_atom(var) * (share * LINE)
            self._ask(stream, [at + n * LINE for n in range(share)])
        if not any(self._has_loops(s) for s in body):
            for stream in self._streams(var, body, self.target.l2 // STAYS):
                self._ask(stream, range(0, stream.size, LINE))

    def share_ahead(self, var: Sym, body: Sequence[Stmt]) -> None:
        """Leaves to the first innermost loop of a body to ask for the constants that are read
        beside it: each of its iterations for some. All at once they would be more than a core can
        wait for."""
        for s in body:
            inner = self._has_loops(s) and isinstance(s, For) and s.lo == 0
            if inner and isinstance(s, For) and not any(map(self._has_loops, s.body)):
                extent = self.resolve(s.extent)
                straight = [x for x in body if not self._has_loops(x)]
                streams = self._streams(var, straight, self.target.l2 // STAYS, self._updates(body))
                if isinstance(extent, int) and streams:
                    self.shared[s.var] = extent, streams
                return

    def _streams(
        self, var: Sym, body: Sequence[Stmt], least: int, updates: int | None = None
    ) -> list[Stream]:
        """The streams of constants of more than `least` bytes through statements without loops, of
        a loop that reduces by so many `updates`."""
        first = {s.var: s.lo for s in walk_stmts(tuple(body)) if isinstance(s, For)}
        found: list[Stream] = []
        for name in dict.fromkeys(x.buffer for s in body for x in loads_of(s)):
            b = self.kernel.buffer(name)
            whole = product(b.shape) * nbytes(b.dtype)
            if b.scope != "const" or not isinstance(whole, int) or whole <= least:
                continue
            load = next(x for s in body for x in loads_of(s) if x.buffer == name)
            offset = substitute(self.offset(b, load.indices), first)
            step = coefficient(offset, var)
            size = step * nbytes(b.dtype) if isinstance(step, int) else 0
            if size < LINE or size * self._iterations() > PASSES * whole:
                continue
            if (self._updates(body) if updates is None else updates) >= ARITHMETIC * size // LINE:
                found.append(Stream(b, offset, size))
        return found

    def _ask(self, stream: Stream, places: Iterable[Size]) -> None:
        for at in places:
            pointer = self.address(stream.buffer, stream.ahead(at))
            flags = [("i32", "0"), ("i32", "2"), ("i32", "1")]  # read, second cache, data
            self.fn.call("void", "llvm.prefetch.p0", [("ptr", pointer), *flags])

    def _has_loops(self, s: Stmt) -> bool:
        """Whether the code for a statement has loops."""
        nests = (n for n in walk_stmts((s,)) if isinstance(n, For))
        return any(n.kind != "vector" and not self.is_unrolled(n) for n in nests)

    def _iterations(self) -> float:
        """How often all the loops around run together; infinite where only a run knows."""
        count = 1.0
        for v in set(self.variables) - set(self.kernel.sizes):
            count *= math.inf if v.lo is None or v.hi is None else v.hi - v.lo + 1
        return count

    def _updates(self, body: Sequence[Stmt]) -> int:
        """Vector operations that statements reduce by, at least."""
        count = 0
        for s in body:
            if isinstance(s, For):
                extent = 1 if s.kind == "vector" else self.resolve(s.extent)
                count += self._updates(s.body) * (extent if isinstance(extent, int) else 1)
            else:
                count += isinstance(s, Reduce)
        return count
