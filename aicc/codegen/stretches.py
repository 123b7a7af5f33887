"""Cutting a loop where conditions on its variable change, so that they are decided in each part.

    for i in 0..321: t[i] = select(index(i - 1) >= 0 and index(i - 1) < 320, x[i - 1], 0.0)

is a loop over 1..321 that copies, and an iteration before it that does not.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass

from aicc.symbolic import (
    Size,
    Sym,
    coefficient,
    from_atom,
    maximum,
    minimum,
    opaques,
    proves_le,
    substitute,
    symbols,
)
from aicc.tensor_ir.ir import For, Op, Stmt
from aicc.tensor_ir.scalar import ORDERINGS
from aicc.tensor_ir.walk import as_size, stmt_exprs, walk_expr, walk_stmts

Condition = tuple[str, Size]
"""A comparison of a size with 0: "lt", "le", "gt" or "ge"."""
MOST_CUTS = 2


@dataclass(frozen=True)
class Stretch:
    """Some of a loop's iterations, and what holds in all of them."""

    lo: Size
    hi: Size
    facts: Mapping[Condition, bool]


def stretches(var: Sym, lo: Size, hi: Size, conditions: Iterable[Condition]) -> list[Stretch]:
    """The iterations lo..hi of a loop in parts, in order, that decide the conditions which are
    linear in its variable; some may be empty. Two places at most are cut, and only where their
    order is known."""
    changes = {c: found for c in conditions if (found := _change(var, *c)) is not None}
    cuts: list[Size] = []
    for place, _ in changes.values():
        if place not in cuts and len(cuts) < MOST_CUTS:
            at = sum(proves_le(other, place) for other in cuts)
            if all(proves_le(place, other) for other in cuts[at:]):
                cuts.insert(at, place)
    ends = [lo, *(minimum(maximum(cut, lo), hi) for cut in cuts), hi]
    parts = []
    for n, (first, end) in enumerate(itertools.pairwise(ends)):
        if first != end:
            facts = {
                c: before == (n <= cuts.index(place))
                for c, (place, before) in changes.items()
                if place in cuts
            }
            parts.append(Stretch(first, end, facts))
    return parts


def _change(var: Sym, name: str, gap: Size) -> tuple[Size, bool] | None:
    """Where a condition changes, and what it is before; None where that is not known."""
    coef = coefficient(gap, var)
    if not isinstance(coef, int) or not coef:
        return None
    rest = gap - coef * from_atom(var)
    if coef > 0:  # the first that makes it 0 or more, or more than 0
        return -((rest - (name in ("le", "gt"))) // coef), name in ("lt", "le")
    return -((-rest - (name in ("lt", "ge"))) // -coef), name in ("gt", "ge")


def conditions(
    body: Sequence[Stmt], known: Set[Sym], resolve: Callable[[Size], Size]
) -> dict[Condition, None]:
    """The comparisons of indices in statements, on nothing but `known` symbols: where loops inside
    count too, what makes them true in all their iterations. resolve: what sizes are here."""
    found: dict[Condition, None] = {}
    inside = {s.var: (s.lo, s.hi) for s in walk_stmts(tuple(body)) if isinstance(s, For)}
    for e in (x for s in walk_stmts(tuple(body)) for r in stmt_exprs(s) for x in walk_expr(r)):
        if isinstance(e, Op) and e.name in ORDERINGS:
            a, b = (as_size(x) for x in e.args)
            if a is not None and b is not None:
                gap = _worst(resolve(a) - resolve(b), e.name, inside)
                if gap is not None and not opaques(gap) and symbols(gap) <= known:
                    found[e.name, gap] = None
    return found


def _worst(gap: Size, name: str, inside: Mapping[Sym, tuple[Size, Size]]) -> Size | None:
    """The gap in that iteration of the loops inside where the comparison holds last."""
    for v in symbols(gap) & inside.keys():
        lo, hi = inside[v]
        coef = coefficient(gap, v)
        if not isinstance(coef, int):
            return None
        last = (coef > 0) == (name in ("lt", "le"))
        gap = substitute(gap, {v: hi - 1 if last else lo})
    return gap
