"""Schedule steps on loops. A schedule is a tuple of steps; each rewrites a kernel and keeps its meaning.

Loops are named by their variable, buffers by their name. A step whose precondition does not hold
raises `ScheduleError`, which shows the kernel. Steps print as they are built and replay anywhere:

    split(i, 6, peel) ; reorder(i.o, k, i.i) ; vectorize(j.i)

Steps on whole stages (inline, compute_at, cache_read, cache_write, pack) are in `schedule_stages`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from aicc.errors import ScheduleError
from aicc.symbolic import Size, Sym, divides, loop_var, proves_le, substitute, symbols
from aicc.tensor_ir.analysis import bound_variables, find_loop
from aicc.tensor_ir.ir import (
    For,
    If,
    Index,
    Kernel,
    Load,
    Reduce,
    Stmt,
    Store,
    While,
    call,
    children,
    loads_of,
    map_body,
    substitute_body,
    walk_stmts,
)


class Step:
    """One rewrite Kernel -> Kernel."""

    name = ""

    def apply(self, kernel: Kernel) -> Kernel:
        raise NotImplementedError

    def fail(self, kernel: Kernel, why: str) -> ScheduleError:
        return ScheduleError(f"{self}: {why}\n{kernel}")

    def __str__(self) -> str:
        parts = [_text(getattr(self, f.name)) for f in fields(self)]  # type: ignore[arg-type]
        return f"{self.name}({', '.join(p for p in parts if p)})"


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(str(v) for v in value)
    return str(value)


def schedule(kernel: Kernel, steps: Iterable[Step]) -> Kernel:
    """The kernel after all steps, in order."""
    for step in steps:
        kernel = step.apply(kernel)
    return kernel


# --- shared tools -------------------------------------------------------------------------------


def require_loop(step: Step, kernel: Kernel, name: str) -> For:
    loop = find_loop(kernel, name)
    if loop is None:
        raise step.fail(kernel, f"there is no loop over {name}")
    return loop


def replace_loop(kernel: Kernel, old: For, new: Sequence[Stmt]) -> Kernel:
    """The kernel with one loop, found by its variable, replaced by statements."""

    def visit(s: Stmt) -> tuple[Stmt, ...]:
        return tuple(new) if isinstance(s, For) and s.var == old.var else (s,)

    return kernel.with_body(map_body(kernel.body, visit))


def unused_names(kernel: Kernel) -> set[str]:
    """Names that loops of the kernel use already."""
    return {v.name for v in bound_variables(kernel.body)}


def fresh_variable(name: str, lo: Size, hi: Size, taken: set[str]) -> tuple[Sym, Size]:
    """A loop variable with a new name: the symbol, and the expression of its value."""
    base, n = name, 1
    while name in taken:
        n += 1
        name = f"{base}{n}"
    taken.add(name)
    value = loop_var(name, lo, hi)
    (symbol,) = symbols(value)
    return symbol, value


def rename_loops(body: Sequence[Stmt], suffix: str, taken: set[str]) -> tuple[Stmt, ...]:
    """A copy of statements whose loops have fresh names, so that steps can tell the copies apart."""

    def copy(s: Stmt, mapping: Mapping[Sym, Size]) -> Stmt:
        if isinstance(s, For):
            (lo, hi) = (substitute(s.lo, mapping), substitute(s.hi, mapping))
            var, value = fresh_variable(s.var.name + suffix, lo, hi, taken)
            inner = {**mapping, s.var: value}
            return For(var, lo, hi, s.kind, tuple(copy(c, inner) for c in s.body))
        if isinstance(s, If):
            (cond,) = substitute_body((replace(s, then=(), orelse=()),), mapping)
            assert isinstance(cond, If)
            return If(
                cond.cond,
                tuple(copy(c, mapping) for c in s.then),
                tuple(copy(c, mapping) for c in s.orelse),
            )
        if isinstance(s, While):
            (head,) = substitute_body((replace(s, body=()),), mapping)
            assert isinstance(head, While)
            return While(head.cond, tuple(copy(c, mapping) for c in s.body))
        (done,) = substitute_body((s,), mapping)
        return done

    return tuple(copy(s, {}) for s in body)


def below(value: Size, bound: Size) -> Any:
    """The condition `value < bound` as an expression."""
    return call("lt", Index(value), Index(bound) if not isinstance(bound, int) else bound)


# --- steps on loops -----------------------------------------------------------------------------

TAILS = ("exact", "guard", "peel", "mask")


@dataclass(frozen=True)
class Split(Step):
    """for i in 0..n: S   ->   for i.o in 0..n//f: for i.i in 0..f: S[i := i.o*f + i.i]

    tail says what happens to the n % f iterations that are left:
    exact: there are none (an error where that is not provable). guard: n is rounded up and S runs
    under `if i < n`. peel: a second loop `i.t` over them follows. mask: one more full-width group
    `i.m` under `if i < n` follows, for loops that are vectorised. Names inside the tail's copy of S
    get the suffix ".t" or ".m".
    Precondition: the loop starts at 0.
    """

    loop: str
    factor: int
    tail: str = "exact"
    name = "split"

    def apply(self, kernel: Kernel) -> Kernel:
        f = require_loop(self, kernel, self.loop)
        n, k = f.hi, self.factor
        if self.tail not in TAILS:
            raise self.fail(kernel, f"the tail is one of {', '.join(TAILS)}")
        if f.lo != 0 or k < 1:
            raise self.fail(kernel, "the loop starts at 0 and the factor is positive")
        taken = unused_names(kernel)
        exact = divides(k, n)
        if self.tail == "exact" and not exact:
            raise self.fail(kernel, f"{k} does not always divide {n}")
        whole = (n + (k - 1)) // k if self.tail == "guard" and not exact else n // k
        outer, o = fresh_variable(f"{self.loop}.o", 0, whole, taken)
        inner, i = fresh_variable(f"{self.loop}.i", 0, k, taken)
        body = substitute_body(f.body, {f.var: o * k + i})
        if self.tail == "guard" and not exact:
            body = (If(below(o * k + i, n), body),)
        main = For(outer, 0, whole, f.kind, (For(inner, 0, k, "for", body),))
        if exact or self.tail in ("exact", "guard"):
            return replace_loop(kernel, f, (main,))
        if self.tail == "peel":
            rest, t = fresh_variable(f"{self.loop}.t", 0, n - whole * k, taken)
            copy = rename_loops(substitute_body(f.body, {f.var: whole * k + t}), ".t", taken)
            tail: Stmt = For(rest, 0, n - whole * k, "for", copy)
        else:
            rest, t = fresh_variable(f"{self.loop}.m", 0, k, taken)
            copy = rename_loops(substitute_body(f.body, {f.var: whole * k + t}), ".m", taken)
            tail = For(rest, 0, k, "for", (If(below(whole * k + t, n), copy),))
            if not isinstance(n, int):
                tail = If(below(whole * k, n), (tail,))
        if isinstance(whole, int) and whole == 0:
            return replace_loop(kernel, f, (tail,))
        return replace_loop(kernel, f, (main, tail))


@dataclass(frozen=True)
class Fuse(Step):
    """for i in 0..n: for j in 0..m: S   ->   for i.j in 0..n*m: S[i := i.j // m, j := i.j % m]

    Precondition: the loops are perfectly nested, start at 0, and m does not depend on i.
    """

    outer: str
    inner: str
    name = "fuse"

    def apply(self, kernel: Kernel) -> Kernel:
        a = require_loop(self, kernel, self.outer)
        b = a.body[0] if len(a.body) == 1 else None
        if not isinstance(b, For) or b.var.name != self.inner:
            raise self.fail(kernel, f"{self.inner} is not perfectly nested in {self.outer}")
        if a.lo != 0 or b.lo != 0 or a.var in symbols(b.hi):
            raise self.fail(kernel, "both loops start at 0 and the inner extent is constant")
        var, v = fresh_variable(f"{self.outer}.{self.inner}", 0, a.hi * b.hi, unused_names(kernel))
        body = substitute_body(b.body, {a.var: v // b.hi, b.var: v % b.hi})
        return replace_loop(kernel, a, (For(var, 0, a.hi * b.hi, a.kind, body),))


@dataclass(frozen=True)
class Reorder(Step):
    """Puts perfectly nested loops into the given order, outermost first.

    Precondition: the loops form one perfect nest, in any order; their extents do not depend on each
    other; every iteration may run at any time: each statement of the body stores an element of its
    own or reduces, and reads no other element of what the nest writes.
    """

    order: tuple[str, ...]
    name = "reorder"

    def apply(self, kernel: Kernel) -> Kernel:
        wanted = set(self.order)
        first = next(
            (s for s in walk_stmts(kernel.body) if isinstance(s, For) and s.var.name in wanted),
            None,
        )
        if first is None or len(wanted) != len(self.order):
            raise self.fail(kernel, "no such loops")
        nest: list[For] = []
        body: tuple[Stmt, ...] = (first,)
        left = set(wanted)
        while left and len(body) == 1 and isinstance(body[0], For):
            nest.append(body[0])
            left.discard(body[0].var.name)
            body = body[0].body
        if left:
            raise self.fail(kernel, f"{', '.join(sorted(left))}: not in one perfect nest")
        variables = {f.var for f in nest}
        if any((symbols(f.lo) | symbols(f.hi)) & variables for f in nest):
            raise self.fail(kernel, "an extent depends on another of the loops")
        why = order_matters(body, variables)
        if why:
            raise self.fail(kernel, why)
        by_name = {f.var.name: f for f in nest}
        names = iter(self.order)
        new = [by_name[next(names)] if f.var.name in wanted else f for f in nest]
        for f in reversed(new):
            body = (replace(f, body=body),)
        return replace_loop(kernel, first, body)


def order_matters(body: Sequence[Stmt], variables: set[Sym]) -> str:
    """Why the iterations of loops over `variables` around `body` may not be permuted; "" if they may."""
    written: dict[str, tuple[Size, ...]] = {}
    for s in walk_stmts(tuple(body)):
        if isinstance(s, While):
            return "a while loop runs in order"
        if not isinstance(s, Store | Reduce):
            continue
        if written.setdefault(s.buffer, s.indices) != s.indices:
            return f"{s.buffer} is written at different elements"
        inner = set(bound_variables(body))
        moving = variables | inner
        used = {v for i in s.indices for v in symbols(i)}
        if isinstance(s, Store) and not (variables <= used):
            return f"{s.buffer} is stored more than once per element"
        if isinstance(s, Store) and not _injective(s.indices, moving & used):
            return f"different iterations may store the same element of {s.buffer}"
    for s in body:
        for load in loads_of(s):
            if load.buffer in written and load.indices != written[load.buffer]:
                return f"{load.buffer} is read at another element than it is written at"
    kinds = {(s.buffer, type(s)) for s in walk_stmts(tuple(body)) if isinstance(s, Store | Reduce)}
    if len({b for b, _ in kinds}) != len(kinds):
        return "a buffer is both started and accumulated here: decompose the reduction first"
    return ""


def _injective(indices: Sequence[Size], variables: set[Sym]) -> bool:
    """True where distinct values of the variables give distinct indices, provably.

    Mixed-radix rule: within each index the variables' strides step over each other's ranges, and
    every variable occurs in exactly one index.
    """
    from aicc.symbolic import coefficient, value_range

    seen: set[Sym] = set()
    for index in indices:
        mine = [v for v in symbols(index) if v in variables]
        if seen & set(mine):
            return False
        seen |= set(mine)
        if len(mine) == 1:
            c = coefficient(index, mine[0])
            if c is None or c == 0 or (value_range(c)[0] or 0) <= 0:
                return False
            continue
        parts = []
        for v in mine:
            c = coefficient(index, v)
            if not isinstance(c, int) or v.lo is None:
                return False
            parts.append((abs(c), None if v.hi is None else v.hi - v.lo))
        parts.sort(key=lambda p: p[0])
        reach = 0
        for stride, extent in parts:
            if stride <= reach:
                return False
            if extent is None:
                reach = 1 << 62
            else:
                reach += stride * extent
    return True


@dataclass(frozen=True)
class Unroll(Step):
    """for i in 0..n: S   ->   unroll i in 0..n: S, one copy of S per iteration in the code.

    Precondition: n is a number.
    """

    loop: str
    name = "unroll"

    def apply(self, kernel: Kernel) -> Kernel:
        f = require_loop(self, kernel, self.loop)
        if not isinstance(f.extent, int):
            raise self.fail(kernel, f"the extent {f.extent} is not a number")
        return replace_loop(kernel, f, (replace(f, kind="unroll"),))


@dataclass(frozen=True)
class Vectorize(Step):
    """for i in 0..n: S   ->   vector i in 0..n: S, all iterations at once, one lane each.

    Precondition: n is a number, S contains no loop, and the iterations are independent (a reduce
    into one element is combined across lanes).
    """

    loop: str
    name = "vectorize"

    def apply(self, kernel: Kernel) -> Kernel:
        f = require_loop(self, kernel, self.loop)
        if not isinstance(f.extent, int) or f.lo != 0:
            raise self.fail(kernel, f"the extent {f.extent} is not a number from 0")
        if any(isinstance(s, For | While) for s in walk_stmts(f.body)):
            raise self.fail(kernel, "the body contains a loop")
        why = dependence(f)
        if why:
            raise self.fail(kernel, why)
        return replace_loop(kernel, f, (replace(f, kind="vector"),))


@dataclass(frozen=True)
class Parallel(Step):
    """for i in 0..n: S   ->   parallel i in 0..n: S, iterations shared out between threads.

    Precondition: no other loop is around it, the iterations write different elements, and nothing is
    reduced across them (so that results do not depend on the number of threads).
    """

    loop: str
    name = "parallel"

    def apply(self, kernel: Kernel) -> Kernel:
        f = require_loop(self, kernel, self.loop)
        if not any(s is f for s in kernel.body):
            raise self.fail(kernel, "a loop inside another cannot be parallel")
        private = {b.name for b in kernel.buffers if b.scope in ("stack", "register")}
        why = dependence(f, private)
        if why:
            raise self.fail(kernel, why)
        for s in walk_stmts(f.body):
            if isinstance(s, Reduce) and s.buffer not in private:
                if not any(f.var in symbols(i) for i in s.indices):
                    raise self.fail(kernel, f"{s.buffer} is reduced across the iterations")
        return replace_loop(kernel, f, (replace(f, kind="parallel"),))


def dependence(f: For, private: set[str] = frozenset()) -> str:  # type: ignore[assignment]
    """Why the iterations of a loop depend on each other; "" where they do not.

    Buffers in `private` belong to one iteration.
    """
    for s in walk_stmts(f.body):
        if not isinstance(s, Store | Reduce) or s.buffer in private:
            continue
        mentions = any(f.var in symbols(i) for i in s.indices)
        if isinstance(s, Store) and not mentions:
            return f"{s.buffer} is stored by every iteration"
        for other in walk_stmts(f.body):
            loads: list[Load] = loads_of(other) if not children(other) else []
            for load in loads:
                if load.buffer == s.buffer and mentions and load.indices != s.indices:
                    if not _same_slice(f.var, load.indices, s.indices):
                        return f"{s.buffer} is read and written by different iterations"
    return ""


def _same_slice(v: Sym, a: Sequence[Size], b: Sequence[Size]) -> bool:
    """True where some axis has the same index in both, and that index tells the iterations apart."""
    from aicc.symbolic import coefficient

    return any(
        x == y and v in symbols(x) and coefficient(x, v) not in (None, 0)
        for x, y in zip(a, b, strict=True)
    )


@dataclass(frozen=True)
class DecomposeReduction(Step):
    """for i: { B[i] = init; for k: B[i] op= e }   ->   for i: B[i] = init;  for i: for k: B[i] op= e

    `loop` is the outermost of the loops to distribute over the two halves. The first half's loops
    get the suffix ".s". Precondition: the nest down to the two halves is perfect.
    """

    loop: str
    name = "decompose_reduction"

    def apply(self, kernel: Kernel) -> Kernel:
        f = require_loop(self, kernel, self.loop)
        nest = [f]
        body = f.body
        while len(body) == 1 and isinstance(body[0], For):
            nest.append(body[0])
            body = body[0].body
        if len(body) < 2 or not isinstance(body[0], Store):
            raise self.fail(kernel, "the body is not a start value and a reduction")
        start = body[0]
        variables = {g.var for g in nest}
        if not all(
            any(v in symbols(i) for i in start.indices) for v in variables
        ) or not _injective(start.indices, variables):
            raise self.fail(kernel, f"{start.buffer} is started more than once per element")
        for s in body[1:]:
            for inner in walk_stmts((s,)):
                if isinstance(inner, Store) or (
                    isinstance(inner, Reduce) and inner.indices != start.indices
                ):
                    raise self.fail(kernel, "the second half is not a reduction of that element")
        if any(x.buffer == start.buffer for x in loads_of(start)):
            raise self.fail(kernel, "the start value reads the buffer itself")

        def wrap(inner: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
            for g in reversed(nest):
                inner = (replace(g, body=inner),)
            return inner

        first = rename_loops(wrap((start,)), ".s", unused_names(kernel))
        return replace_loop(kernel, f, (*first, *wrap(tuple(body[1:]))))


def provably_inside(index: Size, extent: Size) -> bool:
    """True where 0 <= index < extent always holds."""
    return proves_le(0, index) and proves_le(index + 1, extent)
