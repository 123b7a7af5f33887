"""Looking inside sizes: substitution, evaluation, parts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from aicc.symbolic.algebra import (
    Dim,
    Size,
    add,
    build,
    divides,
    floordiv,
    from_atom,
    maximum,
    minimum,
    mod,
    mul,
    opaque,
    opaques,
    parts_of,
    symbols,
)
from aicc.symbolic.atoms import Atom, FloorDiv, Max, Min, Mod, Monomial, Opaque, Sym


def coefficient(s: Size, var: Sym) -> Size | None:
    """The factor of `var` where `s` is linear in it; 0 where absent, None where not linear."""
    if isinstance(s, int) or var not in symbols(s):
        return 0
    terms: dict[Monomial, int] = {}
    const = 0
    for m, c in s.terms:
        if len(m) == 1 and m[0] == var:
            const = c
        elif var in m:
            rest = list(m)
            rest.remove(var)
            if any(var in symbols(from_atom(a)) for a in rest):
                return None
            terms[tuple(rest)] = c
        else:
            for a in m:
                if not isinstance(a, Sym) and var in symbols(from_atom(a)):
                    return None
    return build(terms, const)


def atoms(s: Size) -> list[Atom]:
    """The atoms of `s`, and those inside them."""
    if isinstance(s, int):
        return []
    own = [a for m, _ in s.terms for a in m]
    return own + [inner for a in own for part in parts_of(a) for inner in atoms(part)]


def substitute(s: Size, mapping: Mapping[Sym, Size]) -> Size:
    """`s` with symbols replaced, simplified again."""
    if isinstance(s, int) or mapping.keys().isdisjoint(symbols(s)):
        return s
    const = s.const
    kept: list[tuple[Monomial, int]] = []
    changed: list[Size] = []
    for term in s.terms:
        m, c = term
        if len(m) == 1 and isinstance(m[0], Sym):
            replacement = mapping.get(m[0])
            if replacement is None:
                kept.append(term)
            elif isinstance(replacement, int):
                const += replacement * c
            else:
                changed.append(mul(replacement, c))
        else:
            for a in m:
                if _mentions(a, mapping):
                    break
            else:
                kept.append(term)
                continue
            part: Size = c
            for a in m:
                part = mul(part, _substitute_atom(a, mapping))
            changed.append(part)
    total: Size = Dim(tuple(kept), const) if kept else const  # in their order, as they were
    for part in changed:
        total = add(total, part)
    return total


def _mentions(a: Atom, mapping: Mapping[Sym, Size]) -> bool:
    """Whether an atom depends on a symbol of a mapping."""
    if isinstance(a, Sym):
        return a in mapping
    if isinstance(a, Opaque):
        return not mapping.keys().isdisjoint(a.payload.size_symbols())
    one, other = parts_of(a)
    names = mapping.keys()
    return not (names.isdisjoint(symbols(one)) and names.isdisjoint(symbols(other)))


def _substitute_atom(a: Atom, mapping: Mapping[Sym, Size]) -> Size:
    if isinstance(a, Sym):
        return mapping.get(a, from_atom(a))
    if isinstance(a, Opaque):
        if mapping.keys().isdisjoint(a.payload.size_symbols()):
            return from_atom(a)
        return opaque(a.payload.substitute_sizes(mapping), a.lo, a.hi)
    return _rebuilt(a, lambda p: substitute(p, mapping))


def exchange(s: Size, old: Atom, new: Size) -> Size:
    """`s` with an atom replaced wherever it occurs, simplified again; not inside opaque parts."""
    if isinstance(s, int) or old not in atoms(s):
        return s
    total: Size = s.const
    for m, c in s.terms:
        part: Size = c
        for a in m:
            part = mul(part, new if a == old else _rebuilt(a, lambda p: exchange(p, old, new)))
        total = add(total, part)
    return total


def _rebuilt(a: Atom, fn: Callable[[Size], Size]) -> Size:
    """The atom with its parts replaced."""
    if isinstance(a, FloorDiv | Mod):
        num, den = fn(a.num), fn(a.den)
        return floordiv(num, den) if isinstance(a, FloorDiv) else mod(num, den)
    if isinstance(a, Min | Max):
        x, y = fn(a.a), fn(a.b)
        return minimum(x, y) if isinstance(a, Min) else maximum(x, y)
    return from_atom(a)


def map_opaque(s: Size, fn: Callable[[Any], Any]) -> Size:
    """`s` with every opaque payload replaced by `fn(payload)`, which may be a payload or a Size."""
    if isinstance(s, int) or not opaques(s):
        return s
    total: Size = s.const
    for m, c in s.terms:
        part: Size = c
        for a in m:
            part = mul(part, _map_opaque_atom(a, fn))
        total = add(total, part)
    return total


def _map_opaque_atom(a: Atom, fn: Callable[[Any], Any]) -> Size:
    if isinstance(a, Opaque):
        new = fn(a.payload)
        return new if isinstance(new, int | Dim) else opaque(new, a.lo, a.hi)
    return _rebuilt(a, lambda p: map_opaque(p, fn))


def evaluate(
    s: Size, values: Mapping[str, int], payload: Callable[[Any], int] | None = None
) -> int:
    """The value of `s` where each symbol's name has a value.

    Raises KeyError with the name of a symbol that has none.
    """
    if isinstance(s, int):
        return s
    total = s.const
    for monomial, coef in s.terms:
        part = coef
        for a in monomial:
            part *= _evaluate_atom(a, values, payload)
        total += part
    return total


def _evaluate_atom(a: Atom, values: Mapping[str, int], payload: Callable[[Any], int] | None) -> int:
    if isinstance(a, Sym):
        return values[a.name]
    if isinstance(a, Opaque):
        if payload is None:
            raise KeyError(str(a))
        return payload(a.payload)
    x, y = (evaluate(p, values, payload) for p in parts_of(a))
    if isinstance(a, FloorDiv):
        return x // y
    if isinstance(a, Mod):
        return x % y
    return min(x, y) if isinstance(a, Min) else max(x, y)


def gcd_of(s: Size) -> int:
    """The largest integer known to divide `s`."""
    if isinstance(s, int):
        return abs(s)
    return math.gcd(s.const, *(c for _, c in s.terms))


@lru_cache(maxsize=1024)
def recombine(s: Size) -> Size:
    """`c*a*(x//a) + c*(y%a)` joined to `c*x` where x and y differ by a multiple of a, wherever it
    occurs: undoes the split of an index that addresses a dense array."""
    if isinstance(s, int):
        return s
    for m, c in s.terms:
        for n, a in enumerate(m):
            if not isinstance(a, Mod):
                continue
            cofactor = build({m[:n] + m[n + 1 :]: c}, 0) if len(m) > 1 else c
            for num in _dividends(s, a, m[:n] + m[n + 1 :], c):
                whole = mul(mul(cofactor, a.den), floordiv(num, a.den))
                if not isinstance(whole, Dim) or not _within(whole, dict(s.terms)):
                    continue
                rest = add(add(s, mul(whole, -1)), build({m: -c}, 0))
                return recombine(add(rest, mul(cofactor, num)))
    return s


def _within(part: Dim, terms: Mapping[Monomial, int]) -> bool:
    """True where a sum with some terms has those of `part`: of the products of a sum, where terms
    of several are one, no less of each."""
    if len(part.terms) == 1:
        ((m, c),) = part.terms
        return terms.get(m) == c
    found = [(terms.get(m, 0), c) for m, c in part.terms]
    return all(have * c > 0 and abs(have) >= abs(c) for have, c in found)


def _dividends(s: Dim, a: Mod, others: tuple[Atom, ...], c: int) -> Iterator[Size]:
    """Numbers whose remainder `a` is, of those that `s` has quotients of beside `others`."""
    yield a.num
    if isinstance(a.den, int):
        for m, factor in s.terms:
            for n, q in enumerate(m):
                if isinstance(q, FloorDiv) and q.den == a.den and factor == c * a.den:
                    same = m[:n] + m[n + 1 :] == others
                    if same and divides(a.den, add(q.num, mul(a.num, -1))):
                        yield q.num
