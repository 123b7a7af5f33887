"""Index sets: a loop cut where conditions inside it change, and conditions that are known then."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from aicc.symbolic import (
    FloorDiv,
    Max,
    Min,
    Mod,
    Size,
    Sym,
    add,
    atoms,
    ceildiv,
    coefficient,
    exchange,
    maximum,
    minimum,
    proves_le,
    proves_lt,
    substitute,
    symbols,
    value_range,
)
from aicc.tensor_ir.analysis import bound_variables, bounds, enclosing, surely_le
from aicc.tensor_ir.ir import (
    Const,
    Expr,
    For,
    If,
    Kernel,
    Load,
    Op,
    Reduce,
    Stmt,
    Store,
    While,
    call,
    const,
)
from aicc.tensor_ir.scalar import COMPARISONS, ORDERINGS
from aicc.tensor_ir.schedule import (
    Step,
    fresh_variable,
    rename_loops,
    replace_loop,
    require_loop,
    unused_names,
)
from aicc.tensor_ir.walk import (
    as_size,
    conjuncts,
    map_expr,
    map_exprs,
    substitute_body,
    walk_expr,
    walk_stmts,
)

Ranges = Mapping[Sym, tuple[Size, Size]]
STARTS = 4
"""How often a remainder may start again in a loop that is cut there."""


@dataclass(frozen=True)
class Partition(Step):
    """for i in 0..n: S   ->   for i in 0..m: S;  for i.p in 0..n-m: S[i := m + i.p]

    and conditions that hold, or fail, in all of one part are decided there: a concatenation becomes
    one copy per operand, a padded read a border and an interior. Names inside the second part get
    the suffix ".p". Where n may be less than m, the first loop runs over min(m, n) and the second
    over max(0, n-m). Precondition: the loop starts at 0, and 0 <= m is provable.
    """

    loop: str
    at: Size
    name = "partition"

    def apply(self, kernel: Kernel) -> Kernel:
        f = require_loop(self, kernel, self.loop)
        m, n = self.at, f.hi
        if f.lo != 0 or not surely_le(0, m, {}):
            raise self.fail(kernel, f"{m} is not provably inside 0..{n}")
        taken = unused_names(kernel)
        until, left = minimum(m, n), maximum(0, n - m)
        for whole in (n, maximum(0, n)):  # a loop whose extent is negative is empty
            if surely_le(m, whole, {}):
                until, left = m, whole - m
                break
        first, value = fresh_variable(f"{self.loop}.a", 0, until, taken)
        one = For(first, 0, until, f.kind, substitute_body(f.body, {f.var: value}))
        second, value = fresh_variable(f"{self.loop}.p", 0, left, taken)
        moved = substitute_body(f.body, {f.var: m + value})
        two = For(second, 0, left, f.kind, rename_loops(moved, ".p", taken))
        parts = tuple(p for p in (one, two) if p.hi != 0)
        return decide(replace_loop(kernel, f, parts))


@dataclass(frozen=True)
class Decide(Step):
    """for i: S[select(c, a, b)]   ->   for i: S[a]   where c holds in all iterations

    and S[b] where it never does, for all conditions inside the loop. Of a condition that is known
    in part, the rest is left.
    """

    loop: str
    name = "decide"

    def apply(self, kernel: Kernel) -> Kernel:
        f = require_loop(self, kernel, self.loop)
        place = _Place()
        for s in enclosing(kernel, f):
            place = place.inside(s) if isinstance(s, For) else place
        return replace_loop(kernel, f, _decided_body((f,), place))


@dataclass(frozen=True)
class Unswitch(Step):
    """for i: S[select(c and d, a, b)]   ->   for i: if c: S[select(d, a, b)] else: S[b]

    where c, comparisons of indices, is the same for all that runs in one iteration. Names inside
    the second copy of S get the suffix ".e". `skip`: there is no second copy, as it adds products
    with zero, of factors that are finite. Precondition: all conditions inside the loop that have
    any such comparisons have those; the loop is no vector; with `skip`, b is 0 and S contains
    nothing but sums of products with such a selection.
    """

    loop: str
    skip: bool = False
    name = "unswitch"

    def apply(self, kernel: Kernel) -> Kernel:
        f = require_loop(self, kernel, self.loop)
        if f.kind == "vector":
            raise self.fail(kernel, "a vector loop contains no branch")
        inner = frozenset(bound_variables(f.body))
        values = [s.value for s in walk_stmts(f.body) if isinstance(s, Store | Reduce)]
        selects = [x for e in values for x in walk_expr(e) if isinstance(x, Op)]
        selects = [x for x in selects if x.name == "select"]
        selects = [x for x in selects if _steady(x.args[0], inner)]
        parts = {frozenset(_steady(x.args[0], inner)) for x in selects}
        same = next(iter(parts), frozenset())
        if len(parts) != 1:
            raise self.fail(kernel, f"no condition is the same for all in an iteration of {f.var}")
        inside = [s for s in walk_stmts(f.body) if not isinstance(s, For)]
        if self.skip and not all(_vanishes(s, selects) for s in inside):
            raise self.fail(kernel, "not all in the loop are products with zero where it fails")

        def chosen(yes: bool) -> tuple[Stmt, ...]:
            def one(x: Expr) -> Expr | None:
                if x not in selects:
                    return None
                assert isinstance(x, Op)
                rest = [c for c in conjuncts(x.args[0]) if c not in same]
                if not yes or not rest:
                    return x.args[1 if yes else 2]
                cond = rest[0]
                for c in rest[1:]:
                    cond = call("and", cond, c)
                return Op(x.name, (cond, *x.args[1:]), x.dtype)

            return map_exprs(f.body, one)

        cond, *others = [c for c in conjuncts(selects[0].args[0]) if c in same]
        for c in others:
            cond = call("and", cond, c)
        orelse: tuple[Stmt, ...] = ()
        if not self.skip:
            orelse = rename_loops(chosen(False), ".e", unused_names(kernel))
        return replace_loop(kernel, f, (replace(f, body=(If(cond, chosen(True), orelse),)),))


def _vanishes(s: Stmt, selects: list[Op]) -> bool:
    """True for a sum of products with one of some selections, whose other value is zero."""
    if not isinstance(s, Reduce) or s.op != "add":
        return False
    e = s.value
    factors = e.args if isinstance(e, Op) and e.name == "mul" else ()
    chosen = [x for x in factors if isinstance(x, Op) and x in selects]
    return any(x.args[2] == const(0, x.dtype) for x in chosen)


def _steady(cond: Expr, inner: frozenset[Sym]) -> list[Expr]:
    """The comparisons of indices in a conjunction that no variable of `inner` changes."""
    return [
        c
        for c in conjuncts(cond)
        if isinstance(c, Op)
        and c.name in COMPARISONS
        and all(as_size(a) is not None for a in c.args)
        and not c.size_symbols() & inner
        and not any(isinstance(x, Load) for x in walk_expr(c))
    ]


def decide(kernel: Kernel) -> Kernel:
    """The kernel with every condition that its loops decide replaced by what it is."""
    return kernel.with_body(_decided_body(kernel.body, _Place()))


@dataclass(frozen=True)
class _Place:
    """What is known where a statement runs: the ranges of the loops' variables, and of some maxima
    which operand they are."""

    ranges: Ranges = field(default_factory=dict)
    maxima: tuple[tuple[Max, Size], ...] = ()

    def inside(self, s: For) -> _Place:
        """In the body of a loop. It is not empty there, and so an extent of max(0, n) is n."""
        maxima = self.maxima
        for a in atoms(s.hi):
            if isinstance(a, Max) and 0 in (a.a, a.b) and proves_le(exchange(s.hi, a, 0), s.lo):
                maxima = (*maxima, (a, add(a.a, a.b)))
        return _Place({**self.ranges, s.var: (s.lo, s.hi)}, maxima)

    def truth(self, cond: Expr) -> bool | None:
        """What a condition is whenever the statement runs; None where that is not known."""
        if isinstance(cond, Op) and cond.name in ("and", "or"):
            return _joined([self.truth(a) for a in cond.args], cond.name == "or")
        found = truth(cond, self.ranges)
        if found is None and self.maxima:
            ranges = {v: (self._known(lo), self._known(hi)) for v, (lo, hi) in self.ranges.items()}
            found = truth(map_expr(cond, lambda e: None, self._known), ranges)
        return found

    def _known(self, size: Size) -> Size:
        for a, value in self.maxima:
            size = exchange(size, a, value)
        return size


def _decided_body(body: tuple[Stmt, ...], place: _Place) -> tuple[Stmt, ...]:
    out: list[Stmt] = []
    for s in body:
        if isinstance(s, For):
            out.append(replace(s, body=_decided_body(s.body, place.inside(s))))
        elif isinstance(s, While):
            out.append(replace(s, body=_decided_body(s.body, place)))
        elif isinstance(s, If):
            known = place.truth(s.cond)
            if known is not None:
                out.extend(_decided_body(s.then if known else s.orelse, place))
            else:
                out.append(If(s.cond, _decided_body(s.then, place), _decided_body(s.orelse, place)))
        elif isinstance(s, Store | Reduce):
            out.append(replace(s, value=_decided(s.value, place)))
        else:
            out.append(s)
    return tuple(out)


def _decided(e: Expr, place: _Place) -> Expr:
    def one(x: Expr) -> Expr | None:
        if not isinstance(x, Op) or x.name != "select":
            return None
        cond, yes, no = x.args
        known = place.truth(cond)
        if known is not None:
            return _decided(yes if known else no, place)
        rest = _undecided(cond, place)
        if rest == cond:
            return None
        return Op(x.name, (rest, _decided(yes, place), _decided(no, place)), x.dtype)

    return map_expr(e, one, lambda s: s)


def _undecided(cond: Expr, place: _Place) -> Expr:
    """What is left of a condition that is not known as a whole."""
    if not isinstance(cond, Op) or cond.name not in ("and", "or"):
        return cond
    left = [_undecided(a, place) for a in cond.args if place.truth(a) is None]
    return left[0] if len(left) == 1 else replace(cond, args=tuple(left))


def truth(cond: Expr, ranges: Ranges) -> bool | None:
    """What a condition is for all values of the loops' variables; None where that is not known."""
    if isinstance(cond, Const):
        return bool(cond.value)
    if not isinstance(cond, Op):
        return None
    if cond.name in ("and", "or"):
        return _joined([truth(a, ranges) for a in cond.args], cond.name == "or")
    if cond.name == "not":
        inner = truth(cond.args[0], ranges)
        return None if inner is None else not inner
    if cond.name not in COMPARISONS:
        return None
    a, b = (as_size(x) for x in cond.args)
    if a is None or b is None:
        return None
    if cond.name in ("eq", "ne"):
        found = bounds(b - a, ranges)
        if found is None:
            return None
        low, high = found
        if low == high == 0:
            return cond.name == "eq"
        return cond.name == "ne" if proves_lt(0, low) or proves_lt(high, 0) else None
    if cond.name in ("gt", "ge"):
        a, b = b, a
    least = 1 if cond.name in ("lt", "gt") else 0
    if surely_le(a + least, b, ranges):
        return True
    return False if surely_le(b, a + (least - 1), ranges) else None


def _joined(parts: list[bool | None], decisive: bool) -> bool | None:
    """What a condition is of whose parts one that is `decisive` makes it so."""
    if decisive in parts:
        return decisive
    return None if None in parts else not decisive


def conditions(e: Expr) -> list[Size]:
    """What the comparisons of indices in an expression compare: each holds where its size is 0 or
    more."""
    found: list[Size] = []
    for x in walk_expr(e):
        if isinstance(x, Op) and x.name in ORDERINGS:
            a, b = (as_size(y) for y in x.args)
            if a is not None and b is not None:
                gap = a - b if x.name in ("gt", "ge") else b - a
                found.append(gap - (1 if x.name in ("lt", "gt") else 0))
    return found


def holding(cond: Expr) -> set[Size]:
    """What is 0 or more wherever a condition holds: of its conjuncts that compare indices."""
    plain = [
        c
        for c in conjuncts(cond)
        if isinstance(c, Op) and c.name in ORDERINGS and None not in map(as_size, c.args)
    ]
    return {gap for c in plain for gap in conditions(c)}


def breakpoints(nest: Stmt, v: Sym, extent: Size) -> list[Size]:
    """Where inside 0..extent the conditions of a nest change with `v`, in no order: the first index
    after each change."""
    found: dict[Size, None] = {}
    for s in walk_stmts((nest,)):
        if not isinstance(s, Store):
            continue
        for gap in conditions(s.value):
            point = _turn(gap, v, extent, _inner(nest))
            if point is not None:
                found[point] = None
    return list(found)


def corners(nest: Stmt, v: Sym, extent: Size) -> list[Size]:
    """Where inside 0..extent an index that a nest loads from turns as `v` grows, in no order: where
    a minimum or maximum becomes its other operand, or a remainder starts again. What reflects,
    clamps or wraps is linear between them."""
    found: dict[Size, None] = {}
    for s in walk_stmts((nest,)):
        if not isinstance(s, Store):
            continue
        for e in walk_expr(s.value):
            for index in e.indices if isinstance(e, Load) else ():
                for a in atoms(index):
                    if isinstance(a, Mod):
                        found.update(dict.fromkeys(_starts(a, v, extent)))
                    if not isinstance(a, Min | Max):
                        continue
                    # Where both are equal either will do: the part that is clamped is short.
                    gaps = (a.a - a.b, a.b - a.a)
                    ends = [p for g in gaps if (p := _turn(g, v, extent, _inner(nest))) is not None]
                    if ends:
                        low = ends[0] if proves_le(ends[0], ends[-1]) else ends[-1]
                        high = ends[0] if low is ends[-1] else ends[-1]
                        found[low if isinstance(a, Max) else high] = None
    return list(found)


def _starts(a: Mod, v: Sym, extent: Size) -> list[Size]:
    """Where inside 0..extent a remainder is 0; none where these are many."""
    base = substitute(a.num, {v: 0})
    if not (isinstance(base, int) and isinstance(a.den, int) and isinstance(extent, int)):
        return []
    if coefficient(a.num, v) != 1 or extent // a.den > STARTS:
        return []
    return [n for n in range(-base % a.den, extent, a.den) if n]


def _inner(nest: Stmt) -> set[Sym]:
    return {s.var for s in walk_stmts((nest,)) if isinstance(s, For)}


def _turn(gap: Size, v: Sym, extent: Size, inner: set[Sym]) -> Size | None:
    """The first value of `v` for which `gap >= 0` is not what it is for 0; None where that is not
    inside 0..extent."""
    gap = _undivided(gap)
    coef = coefficient(gap, v)
    if not isinstance(coef, int) or coef == 0 or (symbols(gap) - {v}) & inner:
        return None
    base = substitute(gap, {v: 0})
    if abs(coef) != 1 and not isinstance(base, int):
        return None
    point = ceildiv(-base, coef) if coef > 0 else base // -coef + 1
    inside = proves_lt(0, point) and proves_le(point, extent) and point != extent
    return point if inside and value_range(point)[0] is not None else None


def _undivided(gap: Size) -> Size:
    """What is not negative where `gap` is: for c + n // d with whole d, n + c*d, and for
    c - n // d, c*d + d - 1 - n."""
    if isinstance(gap, int) or len(gap.terms) != 1:
        return gap
    ((monomial, coef),) = gap.terms
    a = monomial[0]
    if len(monomial) != 1 or not isinstance(a, FloorDiv) or not isinstance(a.den, int):
        return gap
    if a.den < 1 or abs(coef) != 1:
        return gap
    rest = gap.const * a.den
    return a.num + rest if coef == 1 else (a.den - 1 + rest) - a.num
