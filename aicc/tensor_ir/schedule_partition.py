"""Index sets: a loop cut where conditions inside it change, and conditions that are known then."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from aicc.symbolic import (
    Max,
    Min,
    Size,
    Sym,
    atoms,
    ceildiv,
    coefficient,
    proves_le,
    proves_lt,
    substitute,
    symbols,
    value_range,
)
from aicc.tensor_ir.analysis import bounds
from aicc.tensor_ir.ir import Const, Expr, For, If, Kernel, Load, Op, Reduce, Stmt, Store, While
from aicc.tensor_ir.schedule import (
    Step,
    fresh_variable,
    rename_loops,
    replace_loop,
    require_loop,
    unused_names,
)
from aicc.tensor_ir.walk import as_size, map_expr, substitute_body, walk_expr, walk_stmts

Ranges = Mapping[Sym, tuple[Size, Size]]
_COMPARISONS = ("lt", "le", "gt", "ge", "eq", "ne")


@dataclass(frozen=True)
class Partition(Step):
    """for i in 0..n: S   ->   for i in 0..m: S;  for i.p in 0..n-m: S[i := m + i.p]

    and conditions that hold, or fail, in all of one part are decided there: a concatenation becomes
    one copy per operand, a padded read a border and an interior. Names inside the second part get
    the suffix ".p". Precondition: the loop starts at 0, and 0 <= m <= n is provable.
    """

    loop: str
    at: Size
    name = "partition"

    def apply(self, kernel: Kernel) -> Kernel:
        f = require_loop(self, kernel, self.loop)
        m, n = self.at, f.hi
        if f.lo != 0 or not (proves_le(0, m) and proves_le(m, n)):
            raise self.fail(kernel, f"{m} is not provably inside 0..{n}")
        taken = unused_names(kernel)
        first, value = fresh_variable(f"{self.loop}.a", 0, m, taken)
        one = For(first, 0, m, f.kind, substitute_body(f.body, {f.var: value}))
        second, value = fresh_variable(f"{self.loop}.p", 0, n - m, taken)
        moved = substitute_body(f.body, {f.var: m + value})
        two = For(second, 0, n - m, f.kind, rename_loops(moved, ".p", taken))
        parts = tuple(p for p in (one, two) if p.hi != 0)
        return decide(replace_loop(kernel, f, parts))


def decide(kernel: Kernel) -> Kernel:
    """The kernel with every condition that its loops decide replaced by what it is."""
    return kernel.with_body(_decided_body(kernel.body, {}))


def _decided_body(body: tuple[Stmt, ...], ranges: Ranges) -> tuple[Stmt, ...]:
    out: list[Stmt] = []
    for s in body:
        if isinstance(s, For):
            inner = {**ranges, s.var: (s.lo, s.hi)}
            out.append(replace(s, body=_decided_body(s.body, inner)))
        elif isinstance(s, While):
            out.append(replace(s, body=_decided_body(s.body, ranges)))
        elif isinstance(s, If):
            known = truth(s.cond, ranges)
            if known is not None:
                out.extend(_decided_body(s.then if known else s.orelse, ranges))
            else:
                out.append(
                    If(s.cond, _decided_body(s.then, ranges), _decided_body(s.orelse, ranges))
                )
        elif isinstance(s, Store | Reduce):
            out.append(replace(s, value=_decided(s.value, ranges)))
        else:
            out.append(s)
    return tuple(out)


def _decided(e: Expr, ranges: Ranges) -> Expr:
    def one(x: Expr) -> Expr | None:
        if isinstance(x, Op) and x.name == "select":
            known = truth(x.args[0], ranges)
            if known is not None:
                return _decided(x.args[1 if known else 2], ranges)
        return None

    return map_expr(e, one, lambda s: s)


def truth(cond: Expr, ranges: Ranges) -> bool | None:
    """What a condition is for all values of the loops' variables; None where that is not known."""
    if isinstance(cond, Const):
        return bool(cond.value)
    if not isinstance(cond, Op):
        return None
    if cond.name in ("and", "or"):
        parts = [truth(a, ranges) for a in cond.args]
        decisive = cond.name == "or"
        if decisive in parts:
            return decisive
        return None if None in parts else not decisive
    if cond.name == "not":
        inner = truth(cond.args[0], ranges)
        return None if inner is None else not inner
    if cond.name not in _COMPARISONS:
        return None
    a, b = (as_size(x) for x in cond.args)
    if a is None or b is None:
        return None
    found = bounds(b - a, ranges)
    if found is None:
        return None
    low, high = found
    if cond.name in ("eq", "ne"):
        if low == high == 0:
            return cond.name == "eq"
        return cond.name == "ne" if proves_lt(0, low) or proves_lt(high, 0) else None
    if cond.name in ("gt", "ge"):
        low, high = -high, -low
    least = 1 if cond.name in ("lt", "gt") else 0
    if proves_le(least, low):
        return True
    return False if proves_le(high, least - 1) else None


def breakpoints(nest: Stmt, v: Sym, extent: Size) -> list[Size]:
    """Where inside 0..extent the conditions of a nest change with `v`, in no order: the first index
    after each change."""
    found: dict[Size, None] = {}
    for s in walk_stmts((nest,)):
        if not isinstance(s, Store):
            continue
        for e in walk_expr(s.value):
            if not isinstance(e, Op) or e.name not in ("lt", "le", "gt", "ge"):
                continue
            a, b = (as_size(x) for x in e.args)
            if a is None or b is None:
                continue
            gap = a - b if e.name in ("gt", "ge") else b - a
            point = _turn(gap - (1 if e.name in ("lt", "gt") else 0), v, extent, _inner(nest))
            if point is not None:
                found[point] = None
    return list(found)


def corners(nest: Stmt, v: Sym, extent: Size) -> list[Size]:
    """Where inside 0..extent a minimum or maximum in an index that a nest loads from becomes its
    other operand as `v` grows, in no order: what reflects or clamps is linear between them."""
    found: dict[Size, None] = {}
    for s in walk_stmts((nest,)):
        if not isinstance(s, Store):
            continue
        for e in walk_expr(s.value):
            for index in e.indices if isinstance(e, Load) else ():
                for a in atoms(index):
                    if isinstance(a, Min | Max):
                        point = _turn(a.a - a.b, v, extent, _inner(nest))
                        if point is not None:
                            found[point] = None
    return list(found)


def _inner(nest: Stmt) -> set[Sym]:
    return {s.var for s in walk_stmts((nest,)) if isinstance(s, For)}


def _turn(gap: Size, v: Sym, extent: Size, inner: set[Sym]) -> Size | None:
    """The first value of `v` for which `gap >= 0` is not what it is for 0; None where that is not
    inside 0..extent."""
    coef = coefficient(gap, v)
    if not isinstance(coef, int) or coef == 0 or (symbols(gap) - {v}) & inner:
        return None
    base = substitute(gap, {v: 0})
    if abs(coef) != 1 and not isinstance(base, int):
        return None
    point = ceildiv(-base, coef) if coef > 0 else base // -coef + 1
    inside = proves_lt(0, point) and proves_le(point, extent) and point != extent
    return point if inside and value_range(point)[0] is not None else None
