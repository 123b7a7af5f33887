"""Schedule steps on loops. A schedule is a tuple of steps; each rewrites a kernel and keeps what
it means.

Loops are named by their variable, buffers by their name. A step whose precondition does not hold
raises `ScheduleError`, which shows the kernel. Steps print as they are built and replay anywhere:

    split(i, 6, peel) ; reorder(i.o, k, i.i) ; vectorize(j.i)

Steps on whole stages (inline, compute_at, cache_read, cache_write, pack) are in `schedule_stages`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from aicc.errors import ScheduleError
from aicc.symbolic import (
    Size,
    Sym,
    divides,
    loop_var,
    maximum,
    minimum,
    opaques,
    proves_le,
    recombine,
    substitute,
    sym,
    symbols,
)
from aicc.tensor_ir.analysis import bound_variables, enclosing, find_loop
from aicc.tensor_ir.dependence import (
    first_accesses,
    loaded_by,
    used_across,
    why_not_distributed,
    why_not_lanes,
    why_not_permuted,
    why_not_threads,
    written_by,
)
from aicc.tensor_ir.ir import Check, For, If, Index, Kernel, Stmt, Store, While, call
from aicc.tensor_ir.walk import loads_of, map_body, map_exprs, substitute_body, walk_stmts


class Step:
    """One rewrite Kernel -> Kernel."""

    name = ""

    def apply(self, kernel: Kernel) -> Kernel:
        raise NotImplementedError

    def fail(self, kernel: Kernel, why: str) -> ScheduleError:
        return ScheduleError(f"{self}: {why}", kernel)

    def __str__(self) -> str:
        from aicc.tensor_ir.schedule_text import print_step

        return print_step(self)


def schedule(kernel: Kernel, steps: Iterable[Step]) -> Kernel:
    """The kernel after all steps, in order."""
    for step in steps:
        kernel = step.apply(kernel)
    return kernel


# --- shared tools -------------------------------------------------------------------------------


def require_loop(step: Step, kernel: Kernel, name: str) -> For:
    """The loop over a variable; raises where there is none."""
    loop = find_loop(kernel, name)
    if loop is None:
        raise step.fail(kernel, f"there is no loop over {name}")
    return loop


def replace_loop(kernel: Kernel, old: For, new: Sequence[Stmt]) -> Kernel:
    """The kernel with one loop, the first that is this object, replaced by statements."""
    done = False

    def visit(s: Stmt) -> tuple[Stmt, ...]:
        nonlocal done
        if s is not old or done:
            return (s,)
        done = True
        return tuple(new)

    return kernel.with_body(map_body(kernel.body, visit))


def unused_names(kernel: Kernel) -> set[str]:
    """Names that loops and sizes of the kernel use already."""
    names = {v.name for v in bound_variables(kernel.body)}
    return names | {v.name for v in kernel.sizes}


def require_steady(step: Step, kernel: Kernel, loop: For, sizes: Iterable[Size]) -> None:
    """Raises where sizes that move into the loop depend on data that the loop changes."""
    if loaded_by(sizes) & written_by(loop.body):
        raise step.fail(kernel, f"a bound of {loop.var} depends on what the loop writes")


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
    """A copy of statements whose loops have fresh names, so that steps tell the copies apart."""

    def fresh(v: Sym, lo: Size, hi: Size) -> tuple[Sym, Size]:
        return fresh_variable(v.name + suffix, lo, hi, taken)

    return tuple(_copy(s, {}, fresh) for s in body)


def moved_body(body: Sequence[Stmt], mapping: Mapping[Sym, Size]) -> tuple[Stmt, ...]:
    """Statements with variables replaced. A loop whose bounds depend on them may get a variable of
    the same name with a wider range."""

    def fitting(v: Sym, lo: Size, hi: Size) -> tuple[Sym, Size]:
        if (v.lo is None or proves_le(v.lo, lo)) and (v.hi is None or proves_le(hi, v.hi + 1)):
            return v, sym(v.name, v.lo, v.hi)
        return fresh_variable(v.name, lo, hi, set())

    return tuple(_copy(s, mapping, fitting) for s in body)


def _copy(
    s: Stmt,
    mapping: Mapping[Sym, Size],
    variable: Callable[[Sym, Size, Size], tuple[Sym, Size]],
) -> Stmt:
    """`s` with variables replaced, and those of its loops as `variable(old, lo, hi)` says."""
    if isinstance(s, For):
        (lo, hi) = (substitute(s.lo, mapping), substitute(s.hi, mapping))
        var, value = variable(s.var, lo, hi)
        inner = {**mapping, s.var: value}
        return For(var, lo, hi, s.kind, tuple(_copy(c, inner, variable) for c in s.body))
    if isinstance(s, If):
        then, orelse = (tuple(_copy(c, mapping, variable) for c in b) for b in (s.then, s.orelse))
        return If(s.cond.substitute_sizes(mapping), then, orelse)
    if isinstance(s, While):
        inside = tuple(_copy(c, mapping, variable) for c in s.body)
        return While(s.cond.substitute_sizes(mapping), inside)
    (done,) = substitute_body((s,), mapping)
    return done


def below(value: Size, bound: Size) -> Any:
    """The condition `value < bound` as an expression."""
    return call("lt", Index(value), Index(bound) if not isinstance(bound, int) else bound)


# --- steps on loops -----------------------------------------------------------------------------

TAILS = ("exact", "guard", "peel", "even", "mask", "shift", "short")


@dataclass(frozen=True)
class Split(Step):
    """for i in 0..n: S   ->   for i.o in 0..n//f: for i.i in 0..f: S[i := i.o*f + i.i]

    tail says what happens to the n % f iterations that are left:
    exact: there are none (an error where that is not provable). guard: n is rounded up and S runs
    under `if i < n`. peel: a second loop `i.t` over them follows. even: as peel, with fewer groups,
    so that `i.t` runs over a multiple of f - 1 where n is large enough. mask: one more full-width
    group `i.m` under `if i < n` follows, for loops that are vectorised. Names inside the tail's
    copy of S get the suffix ".t" or ".m". shift: n is rounded up and the last group starts at
    n - f, so that some iterations run twice: S[i := min(i.o*f, n - f) + i.i]. short: n is rounded
    up and the inner loop of the last group is shorter: it runs over min(f, n - i.o*f).
    Precondition: the loop starts at 0, is neither a vector nor unrolled, and does not write what
    its extent depends on. A parallel loop stays parallel, also its tail, which is not "mask". To
    shift, f <= n, and S stores what it does not read, so that storing it again changes nothing.
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
        if f.kind in ("vector", "unroll", "bits"):
            raise self.fail(kernel, f"the kind of the loop is {f.kind} already")
        require_steady(self, kernel, f, (n,))
        taken = unused_names(kernel)
        exact = divides(k, n)
        if self.tail == "exact" and not exact:
            raise self.fail(kernel, f"{k} does not always divide {n}")
        rounds_up = self.tail in ("guard", "shift", "even", "short") and not exact
        whole = (n + (k - 1)) // k if rounds_up else n // k
        if self.tail == "even" and not exact:
            # The minimum is always the second; with it, proofs see that the groups are whole ones.
            whole = minimum(n // k, maximum(0, whole - (whole * k - n)))
        outer, o = fresh_variable(f"{self.loop}.o", 0, whole, taken)
        start = o * k
        each = minimum(k, n - start) if self.tail == "short" and not exact else k
        inner, i = fresh_variable(f"{self.loop}.i", 0, each, taken)
        if self.tail == "shift" and not exact:
            self._require_repeatable(kernel, f)
            start = minimum(start, n - k)
        body = moved_body(f.body, {f.var: start + i})
        if self.tail == "guard" and not exact:
            body = (If(below(o * k + i, n), body),)
        main = For(outer, 0, whole, f.kind, (For(inner, 0, each, "for", body),))
        if exact or self.tail in ("exact", "guard", "shift", "short"):
            return replace_loop(kernel, f, (main,))
        if self.tail == "mask" and f.kind == "parallel":
            raise self.fail(kernel, "lanes of a parallel loop cannot be masked")
        if self.tail in ("peel", "even"):
            left = n % k if self.tail == "peel" else n - whole * k
            rest, t = fresh_variable(f"{self.loop}.t", 0, left, taken)
            copy = rename_loops(substitute_body(f.body, {f.var: whole * k + t}), ".t", taken)
            tail: Stmt = For(rest, 0, left, f.kind, copy)
        else:
            rest, t = fresh_variable(f"{self.loop}.m", 0, k, taken)
            copy = rename_loops(substitute_body(f.body, {f.var: whole * k + t}), ".m", taken)
            tail = For(rest, 0, k, "for", (If(below(whole * k + t, n), copy),))
            if not isinstance(n, int):
                tail = If(below(whole * k, n), (tail,))
        if isinstance(whole, int) and whole == 0:
            return replace_loop(kernel, f, (tail,))
        return replace_loop(kernel, f, (main, tail))

    def _require_repeatable(self, kernel: Kernel, f: For) -> None:
        if not proves_le(self.factor, f.hi):
            raise self.fail(kernel, f"{self.factor} may be more than {f.hi}")
        inside = list(walk_stmts(f.body))
        written = {s.buffer for s in inside if isinstance(s, Store)}
        read = {x.buffer for s in f.body for x in loads_of(s)}
        if written & read or f.kind == "parallel":
            raise self.fail(kernel, "what runs twice reads what it writes, or runs at once")
        if not all(isinstance(s, Store | For | If | Check) for s in inside):
            raise self.fail(kernel, "only stores can run twice")


@dataclass(frozen=True)
class Fuse(Step):
    """for i in 0..n: for j in 0..m: S   ->   for i.j in 0..n*m: S[i := i.j // m, j := i.j % m]

    An index i*m + j is i.j then. Precondition: the loops are perfectly nested, start at 0, and m is
    not 0 and depends neither on i nor on what S writes; the outer loop is serial.
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
        if b.hi == 0:
            raise self.fail(kernel, f"{self.inner} has no iterations")
        if a.kind != "for":
            raise self.fail(kernel, f"the kind of {self.outer} is {a.kind} already")
        require_steady(self, kernel, a, (a.hi, b.hi))
        var, v = fresh_variable(f"{self.outer}.{self.inner}", 0, a.hi * b.hi, unused_names(kernel))
        body = moved_body(b.body, {a.var: v // b.hi, b.var: v % b.hi})
        body = map_exprs(body, lambda e: None, recombine)
        return replace_loop(kernel, a, (For(var, 0, a.hi * b.hi, "for", body),))


@dataclass(frozen=True)
class Reorder(Step):
    """Puts perfectly nested loops into the given order, outermost first.

    Loops of the nest that are not named keep their places. Precondition: the loops form one perfect
    nest, in any order; a loop whose extent depends on another of them stays inside that one; every
    iteration may run at any time: what one writes, no other touches, but for reductions of one
    operation (`dependence`). A parallel loop stays outermost and a vector loop innermost.
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
        by_name = {f.var.name: f for f in nest}
        names = iter(self.order)
        new = [by_name[next(names)] if f.var.name in wanted else f for f in nest]
        if new == nest:
            return kernel
        for n, f in enumerate(new):
            if (symbols(f.lo) | symbols(f.hi)) & {g.var for g in new[n:]}:
                raise self.fail(kernel, f"the extent of {f.var} depends on a loop inside it")
        if any(f.kind == "parallel" for f in new[1:]) or any(f.kind == "vector" for f in new[:-1]):
            raise self.fail(kernel, "a parallel loop is outermost, a vector loop innermost")
        why = why_not_permuted(nest, body)
        if why:
            raise self.fail(kernel, why)
        for f in reversed(new):
            body = (replace(f, body=body),)
        return replace_loop(kernel, first, body)


@dataclass(frozen=True)
class Unroll(Step):
    """for i in 0..n: S   ->   unroll i in 0..n: S, one copy of S per iteration in the code.

    Precondition: n is a number, in each iteration of unrolled loops around, and no loop inside is
    parallel.
    """

    loop: str
    name = "unroll"

    def apply(self, kernel: Kernel) -> Kernel:
        f = require_loop(self, kernel, self.loop)
        around = enclosing(kernel, f)
        known = {s.var for s in around if isinstance(s, For) and s.kind == "unroll"}
        if opaques(f.extent) or not symbols(f.extent) <= known:
            raise self.fail(kernel, f"the extent {f.extent} is not a number")
        if any(isinstance(s, For) and s.kind == "parallel" for s in walk_stmts(f.body)):
            raise self.fail(kernel, "only serial loops are around a parallel loop")
        return replace_loop(kernel, f, (replace(f, kind="unroll"),))


@dataclass(frozen=True)
class Vectorize(Step):
    """for i in 0..n: S   ->   vector i in 0..n: S, all iterations at once, one lane each.

    Precondition: n is a number, S contains no loop, and no iteration touches what another writes. A
    reduce into one element is combined across lanes, where nothing else in S touches that element.
    """

    loop: str
    name = "vectorize"

    def apply(self, kernel: Kernel) -> Kernel:
        f = require_loop(self, kernel, self.loop)
        if not isinstance(f.extent, int) or f.lo != 0:
            raise self.fail(kernel, f"the extent {f.extent} is not a number from 0")
        if any(isinstance(s, For | While) for s in walk_stmts(f.body)):
            raise self.fail(kernel, "the body contains a loop")
        why = why_not_lanes(f)
        if why:
            raise self.fail(kernel, why)
        return replace_loop(kernel, f, (replace(f, kind="vector"),))


@dataclass(frozen=True)
class Parallel(Step):
    """for i in 0..n: S   ->   parallel i in 0..n: S, iterations shared out between threads.

    Stack and register buffers that iterations store to before they read from them belong to one
    iteration from then on, but for a stack buffer that an iteration of a parallel loop around also
    uses elsewhere: those of this one share it. Precondition: all loops around are serial or
    parallel, and none inside is parallel already; no iteration touches what another writes, not
    even to reduce into it (so that results do not depend on the number of threads); no stack or
    register buffer is used outside of all parallel loops too, and no register buffer is shared.
    """

    loop: str
    name = "parallel"

    def apply(self, kernel: Kernel) -> Kernel:
        f = require_loop(self, kernel, self.loop)
        around = [s for s in enclosing(kernel, f) if isinstance(s, For)]
        inside = [s for s in walk_stmts(f.body) if isinstance(s, For)]
        serial = all(s.kind in ("for", "parallel") for s in around)
        if not serial or any(s.kind == "parallel" for s in inside):
            raise self.fail(kernel, "a loop around it is not serial, or one inside is parallel")
        first = first_accesses(f.body)
        outside = used_across(kernel.body, f)
        shared: set[str] = set()
        for s in around:
            if s.kind == "parallel":
                shared |= used_across(s.body, f)
        private: set[str] = set()
        for b in kernel.buffers:
            if b.scope not in ("stack", "register") or b.name not in first:
                continue
            if b.name in outside or (b.scope == "register" and b.name in shared):
                raise self.fail(kernel, f"{b.name} is used outside of the loop too")
            if first[b.name] == "store" and b.name not in shared:
                private.add(b.name)
            elif b.scope == "register" or all(s.kind == "for" for s in around):
                raise self.fail(kernel, f"{b.name} is read before the iteration stores to it")
        why = why_not_threads(f, frozenset(private))
        if why:
            raise self.fail(kernel, why)
        return replace_loop(kernel, f, (replace(f, kind="parallel"),))


@dataclass(frozen=True)
class DecomposeReduction(Step):
    """for i: { B[i] = init; for k: B[i] op= e }
    ->  for i: B[i] = init;  for i: for k: B[i] op= e

    `loop` is the outermost of the loops to distribute over the two halves. The first half's loops
    get the suffix ".s". Precondition: the nest down to the two halves is perfect, and the start of
    one iteration touches nothing that the rest of another does.
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
        private = {b.name for b in kernel.buffers if b.scope in ("stack", "register")}
        if any(g.kind == "parallel" for g in nest) and written_by(body) & private:
            raise self.fail(kernel, "a buffer of one iteration of a parallel loop joins the halves")
        why = why_not_distributed(nest, body[:1], body[1:])
        if why:
            raise self.fail(kernel, why)

        def wrap(inner: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
            for g in reversed(nest):
                inner = (replace(g, body=inner),)
            return inner

        first = rename_loops(wrap(body[:1]), ".s", unused_names(kernel))
        return replace_loop(kernel, f, (*first, *wrap(tuple(body[1:]))))
