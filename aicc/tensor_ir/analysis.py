"""What loop nests do: stages, reads and writes, bounds of indices.

A stage is a top-level nest in canonical form that computes one whole buffer: loops over the axes of
the buffer (none for an axis of extent 1; one that runs once where a reduction has no other), then
either one store, or a start value and reduction loops around one reduce:

    for i in 0..n: for j in 0..m: B[i, j] = value
    for i in 0..n: for j in 0..m: { B[i, j] = init;  for k in 0..p: B[i, j] op= value }
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from aicc.symbolic import (
    Atom,
    Dim,
    FloorDiv,
    Max,
    Min,
    Mod,
    Size,
    Sym,
    add,
    atoms,
    coefficient,
    divides,
    exchange,
    floordiv,
    from_atom,
    mod,
    mul,
    proves_le,
    substitute,
    symbols,
    value_range,
)
from aicc.tensor_ir.ir import Expr, For, Kernel, Reduce, Stmt, Store
from aicc.tensor_ir.walk import children, loads_of, remembered, walk_stmts

CASES = 3
"""Maxima and minima that a proof goes through case by case."""


@dataclass(frozen=True)
class Stage:
    """A canonical nest; see the module's text.

    axes: one (variable, extent) per dimension of the buffer; the variable is None for extent 1.
    reduce: (variable, extent) of the reduction loops, outermost first. op, init: None for a map.
    position: the nest's place in the kernel's body.
    """

    buffer: str
    axes: tuple[tuple[Sym | None, Size], ...]
    reduce: tuple[tuple[Sym, Size], ...]
    op: str | None
    init: Expr | None
    value: Expr
    position: int

    @property
    def variables(self) -> tuple[Sym, ...]:
        return tuple(v for v, _ in self.axes if v is not None)


def stage_of(kernel: Kernel, buffer: str) -> Stage | None:
    """The one canonical nest that computes `buffer` from others; None where there is no such."""
    known: dict[str, Stage | None] = remembered(kernel, "_stage_of", lambda k: {})
    if buffer not in known:
        known[buffer] = _stage_of(kernel, buffer)
    return known[buffer]


def _stage_of(kernel: Kernel, buffer: str) -> Stage | None:
    found: Stage | None = None
    for position, s in enumerate(kernel.body):
        if buffer in writes(s):
            if found is not None:
                return None
            found = _match(kernel, buffer, s, position)
            if found is None:
                return None
    return found


def stages(kernel: Kernel) -> list[Stage]:
    """The stages of a kernel in order; nests in other forms are left out."""
    return list(remembered(kernel, "_stages", _stages))


def _stages(kernel: Kernel) -> tuple[Stage, ...]:
    names = dict.fromkeys(b for s in kernel.body for b in writes(s))
    made = [stage_of(kernel, b) for b in names]
    return tuple(sorted((s for s in made if s is not None), key=lambda s: s.position))


def _match(kernel: Kernel, buffer: str, s: Stmt, position: int) -> Stage | None:
    loops: list[For] = []
    while isinstance(s, For) and len(s.body) == 1 and s.lo == 0:
        loops.append(s)
        s = s.body[0]
    inner: list[For] = []
    store: Stmt = s
    update: Reduce | None = None
    if isinstance(s, For) and len(s.body) == 2 and s.lo == 0:
        loops.append(s)
        store, rest = s.body
        while isinstance(rest, For) and len(rest.body) == 1 and rest.lo == 0:
            inner.append(rest)
            rest = rest.body[0]
        if not isinstance(rest, Reduce) or not inner:
            return None
        update = rest
    if not isinstance(store, Store) or store.buffer != buffer:
        return None
    if update is not None and (update.buffer != buffer or update.indices != store.indices):
        return None
    shape = kernel.buffer(buffer).shape
    by_value = {from_atom(f.var): f for f in loops}
    axes: list[tuple[Sym | None, Size]] = []
    for index, extent in zip(store.indices, shape, strict=True):
        loop = by_value.pop(index, None) if isinstance(index, Dim) else None
        if loop is not None and loop.hi == extent:
            axes.append((loop.var, extent))
        elif index == 0 and extent == 1:
            axes.append((None, 1))
        else:
            return None
    if any(f.hi != 1 for f in by_value.values()) or buffer in reads(kernel.body[position]):
        return None
    return Stage(
        buffer,
        tuple(axes),
        tuple((f.var, f.hi) for f in inner),
        update.op if update else None,
        store.value if update else None,
        update.value if update else store.value,
        position,
    )


# --- reads and writes ---------------------------------------------------------------------------


def writes(s: Stmt) -> tuple[str, ...]:
    """Buffers that a statement or what is inside it stores to, each once, in order."""
    return remembered(s, "_writes", _writes)


def _writes(s: Stmt) -> tuple[str, ...]:
    own = (s.buffer,) if isinstance(s, Store | Reduce) else ()
    return tuple(dict.fromkeys([*own, *(b for c in children(s) for b in writes(c))]))


def reads(s: Stmt) -> tuple[str, ...]:
    """Buffers that a statement or what is inside it loads from, each once, in order."""
    return remembered(s, "_reads", lambda x: tuple(dict.fromkeys(e.buffer for e in loads_of(x))))


def readers(kernel: Kernel, buffer: str) -> list[int]:
    """Positions of the top-level statements that load from `buffer`."""
    return [n for n, s in enumerate(kernel.body) if buffer in reads(s)]


def bound_variables(body: Iterable[Stmt]) -> dict[Sym, For]:
    """Every loop below some statements, by its variable."""
    return {s.var: s for s in walk_stmts(tuple(body)) if isinstance(s, For)}


def find_loop(kernel: Kernel, name: str) -> For | None:
    """The first loop whose variable has a name."""

    def search(body: Sequence[Stmt]) -> For | None:
        for s in body:
            if isinstance(s, For) and s.var.name == name:
                return s
            found = search(children(s))
            if found is not None:
                return found
        return None

    return search(kernel.body)


def enclosing(kernel: Kernel, target: Stmt) -> list[Stmt]:
    """The statements around `target` (compared by identity), outermost first."""

    def search(body: Sequence[Stmt], path: list[Stmt]) -> list[Stmt] | None:
        for s in body:
            if s is target:
                return path
            found = search(children(s), [*path, s])
            if found is not None:
                return found
        return None

    return search(kernel.body, []) or []


# --- bounds -------------------------------------------------------------------------------------


def bounds(s: Size, loops: Mapping[Sym, tuple[Size, Size]]) -> tuple[Size, Size] | None:
    """Inclusive bounds of `s` while each variable runs over `lo..hi` (exclusive) of `loops`.

    The bounds are expressions of what is not in `loops`. None where the index is too complex.
    """
    for found in _narrowed(s, loops):
        if not any(v in loops for x in found for v in symbols(x)):
            return found
    return None


def _narrowed(s: Size, loops: Mapping[Sym, tuple[Size, Size]]) -> Iterator[tuple[Size, Size]]:
    """Inclusive bounds of `s` with fewer and fewer of the variables of `loops` in them."""
    lo: Size = s
    hi: Size = s
    for _ in range(64):
        yield lo, hi
        inner = [v for v in (*symbols(lo), *symbols(hi)) if v in loops]
        if not inner:
            return
        # An inner loop's bounds may use outer variables: replace those that no other bound uses.
        v = next(
            (
                v
                for v in inner
                if not any(v in symbols(b) for w in inner if w is not v for b in loops[w])
            ),
            inner[0],
        )
        low, high = loops[v][0], add(loops[v][1], -1)
        new_lo, new_hi = _extreme(lo, v, low, high, False), _extreme(hi, v, low, high, True)
        if new_lo is None or new_hi is None:
            return
        lo, hi = new_lo, new_hi


def _extreme(s: Size, v: Sym, low: Size, high: Size, largest: bool) -> Size | None:
    """`s` with `v` set to whichever end of its range makes `s` largest (or smallest)."""
    if isinstance(s, int) or v not in symbols(s):
        return s
    coef = coefficient(s, v)
    if coef is not None:
        clo, chi = value_range(coef)
        if clo is not None and clo >= 0:
            return substitute(s, {v: high if largest else low})
        if chi is not None and chi <= 0:
            return substitute(s, {v: low if largest else high})
        return None
    total: Size = s.const
    for monomial, c in s.terms:
        term = Dim(((monomial, c),), 0)
        if v not in symbols(term):
            total = add(total, term)
            continue
        if len(monomial) != 1:
            return None
        a = monomial[0]
        up = largest == (c > 0)
        if isinstance(a, FloorDiv):
            num = _extreme(a.num, v, low, high, up)
            if num is None or v in symbols(a.den):
                return None
            total = add(total, mul(num // a.den, c))
        elif isinstance(a, Mod):
            if v in symbols(a.den):
                return None
            total = add(total, mul(add(a.den, -1) if up else 0, c))
        elif isinstance(a, Min | Max):
            x, y = _extreme(a.a, v, low, high, up), _extreme(a.b, v, low, high, up)
            if x is None or y is None:
                return None
            from aicc.symbolic import maximum, minimum

            total = add(total, mul((minimum if isinstance(a, Min) else maximum)(x, y), c))
        else:
            return None
    return total


def surely_le(a: Size, b: Size, loops: Mapping[Sym, tuple[Size, Size]]) -> bool:
    """True where `a <= b` for all variables of `loops` in their bounds (False: not proven)."""
    gap = add(b, mul(a, -1))
    if _proven(gap, loops):
        return True
    known = _while_running(gap, loops)
    if known is not None and surely_le(0, *known):
        return True
    either = _either(gap, Min, Max)
    return either is not None and all(surely_le(0, g, loops) for g in either)


def _proven(s: Size, loops: Mapping[Sym, tuple[Size, Size]]) -> bool:
    """True where `s >= 0` is provable with some of the variables at their ends."""
    return any(_never_negative(least, CASES) for least, _ in _narrowed(s, loops))


def _while_running(
    s: Size, loops: Mapping[Sym, tuple[Size, Size]]
) -> tuple[Size, Mapping[Sym, tuple[Size, Size]]] | None:
    """A size and loops as the body of the loops finds them: a maximum in the end of one of them is
    not the operand with which there were no iteration. None where there is no such maximum."""
    for lo, hi in loops.values():
        for a in atoms(hi):
            for none, other in ((a.a, a.b), (a.b, a.a)) if isinstance(a, Max) else ():
                if proves_le(exchange(hi, a, none), lo):
                    known = {v: (x, exchange(y, a, other)) for v, (x, y) in loops.items()}
                    return exchange(s, a, other), known
    return None


@lru_cache(maxsize=1024)
def _never_negative(s: Size, cases: int) -> bool:
    """True where `s >= 0` is provable, with so many distinctions of cases at most."""
    for x in (y for t in _at_least(s) for y in (t, *_at_least(_remainders(t)))):
        if proves_le(0, x) or proves_le(0, _without_finer(_remainders(x))):
            return True
        for monomial, c in x.terms if cases and isinstance(x, Dim) else ():
            a = monomial[0]
            if len(monomial) == 1 and isinstance(a, Max if c < 0 else Min):
                rest = add(x, mul(Dim(((monomial, c),), 0), -1))
                if all(_never_negative(add(rest, mul(p, c)), cases - 1) for p in (a.a, a.b)):
                    return True
                break
    return False


def _either(s: Size, positive: type[Min | Max], negative: type[Min | Max]) -> list[Size] | None:
    """The two sizes of which `s` is one: with one of the operands for a minimum or maximum that is
    added, of type `positive`, or subtracted. None where there is none."""
    for monomial, c in s.terms if isinstance(s, Dim) else ():
        a = monomial[0]
        if len(monomial) == 1 and isinstance(a, positive if c > 0 else negative):
            assert isinstance(a, Min | Max)
            rest = add(s, mul(Dim(((monomial, c),), 0), -1))
            return [add(rest, mul(part, c)) for part in (a.a, a.b)]
    return None


def upper_bounds(s: Size) -> list[Size]:
    """Sizes that `s` is not more than: with either operand for a minimum, and without what two
    quotients by one number have in common, which `bounds` would take apart."""
    either = _either(s, Min, Max)
    if either is not None:
        return [x for part in either for x in upper_bounds(part)]
    if isinstance(s, int):
        return [s]
    for plus, c in s.terms:
        for minus, d in s.terms:
            a, b = plus[0], minus[0]
            if (c, d) != (1, -1) or len(plus) != 1 or len(minus) != 1:
                continue
            if isinstance(a, FloorDiv) and isinstance(b, FloorDiv) and a.den == b.den:
                gap = add(a.num, mul(b.num, -1))
                if isinstance(gap, int) and isinstance(a.den, int) and gap >= 0:
                    rest = add(s, Dim(((minus, 1),), 0))
                    rest = add(rest, mul(Dim(((plus, 1),), 0), -1))
                    return [s, *upper_bounds(add(rest, -(-gap // a.den)))]
    return [s]


def _at_least(s: Size) -> Iterator[Size]:
    """`s`, and what it is not less than: `-min(a, b)` is neither less than -a nor than -b."""
    yield s
    if isinstance(s, int):
        return
    for monomial, c in s.terms:
        a = monomial[0]
        if len(monomial) != 1:
            continue
        rest = add(s, mul(Dim(((monomial, c),), 0), -1))
        if isinstance(a, Min if c < 0 else Max):
            for part in (a.a, a.b):
                yield from _at_least(add(rest, mul(part, c)))
            return
        if isinstance(a, FloorDiv) and c > 0 and isinstance(a.den, int):
            for num in _at_least(a.num):
                if num != a.num:
                    yield add(rest, mul(_remainders(num) // a.den, c))


@lru_cache(maxsize=1024)
def _remainders(s: Size) -> Size:
    """`c*d*(x // d)` as `c*x - c*(x % d)`, whose range is known better. Where only a part of the
    divisor is in the factor, or x // e is there too, x is the quotient by the other part:
    x // (d*e) is x // e // d."""
    if isinstance(s, int):
        return s
    least: dict[Size, int] = {}
    for monomial, _ in s.terms:
        a = monomial[0]
        if len(monomial) == 1 and isinstance(a, FloorDiv) and isinstance(a.den, int):
            least[a.num] = min(a.den, least.get(a.num, a.den))
    total: Size = s.const
    for monomial, c in s.terms:
        part: Size = Dim(((monomial, c),), 0)
        a = monomial[0]
        if len(monomial) == 1 and isinstance(a, FloorDiv) and isinstance(a.den, int):
            other, shared = least[a.num], math.gcd(c, a.den)
            if other < a.den and a.den % other == 0 and c % (a.den // other) == 0:
                shared = a.den // other
            elif other == a.den and sum(_divides_more(b, a) for m, _ in s.terms for b in m):
                shared = 1
            if shared > 1:
                x = floordiv(a.num, a.den // shared)
                part = mul(add(x, mul(mod(x, shared), -1)), c // shared)
        elif len(monomial) == 1 and isinstance(a, Mod):
            part = mul(_reduced(a), c)
        total = add(total, part)
    return total


def _without_finer(s: Size) -> Size:
    """What `s` is not less than: `x % (d*e)` is no less than `y % d` where x and y differ by a
    multiple of d."""
    terms = s.terms if isinstance(s, Dim) else ()
    for plus, c in terms:
        for minus, k in terms:
            a, b = plus[0], minus[0]
            if c <= 0 or k >= 0 or len(plus) != 1 or len(minus) != 1:
                continue
            if not isinstance(a, Mod) or not isinstance(b, Mod) or not isinstance(b.den, int):
                continue
            if divides(b.den, a.den) and divides(b.den, add(a.num, mul(b.num, -1))):
                both = min(c, -k)
                rest = add(s, Dim(((plus, -both),), 0))
                return _without_finer(add(rest, Dim(((minus, both),), 0)))
    return s


def _reduced(a: Mod) -> Size:
    """`(f*x) % (f*d)` as `f*(x % d)`."""
    if not isinstance(a.den, int) or isinstance(a.num, int):
        return mod(a.num, a.den)
    factor = math.gcd(a.den, a.num.const, *(c for _, c in a.num.terms))
    return mul(mod(floordiv(a.num, factor), a.den // factor), factor)


def _divides_more(b: Atom, a: FloorDiv) -> bool:
    """True for a quotient of the same number by a multiple of the divisor."""
    if not isinstance(b, FloorDiv) or b == a or b.num != a.num:
        return False
    return isinstance(b.den, int) and isinstance(a.den, int) and b.den % a.den == 0
