"""Polynomials over atoms, in canonical form, and the ranges of their values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Union

from aicc.symbolic.atoms import Atom, Bound, FloorDiv, Max, Min, Mod, Monomial, Opaque, Sym


class Dim:
    """A canonical, immutable polynomial over atoms; see the module's text."""

    __slots__ = ("_hash", "_opaques", "_range", "_symbols", "const", "terms")

    def __init__(self, terms: tuple[tuple[Monomial, int], ...], const: int) -> None:
        self.terms = terms
        self.const = const
        self._hash = hash((terms, const))
        self._range: tuple[Bound, Bound] | None = None
        self._symbols: frozenset[Sym] | None = None
        self._opaques: tuple[Any, ...] | None = None

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Dim):
            return False
        return self._hash == other._hash and self.const == other.const and self.terms == other.terms

    def __add__(self, other: Size) -> Size:
        return add(self, other)

    __radd__ = __add__

    def __sub__(self, other: Size) -> Size:
        return add(self, mul(other, -1))

    def __rsub__(self, other: Size) -> Size:
        return add(other, mul(self, -1))

    def __neg__(self) -> Size:
        return mul(self, -1)

    def __mul__(self, other: Size) -> Size:
        return mul(self, other)

    __rmul__ = __mul__

    def __floordiv__(self, other: Size) -> Size:
        return floordiv(self, other)

    def __rfloordiv__(self, other: Size) -> Size:
        return floordiv(other, self)

    def __mod__(self, other: Size) -> Size:
        return mod(self, other)

    def __rmod__(self, other: Size) -> Size:
        return mod(other, self)

    def __bool__(self) -> bool:
        raise TypeError(f"the truth of the symbolic size {self} is not known")

    def __index__(self) -> int:
        raise TypeError(f"the symbolic size {self} has no value yet")

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        parts: list[str] = []
        # Large steps first, as an index is usually written: i.o*16 + i.i
        for monomial, coef in sorted(self.terms, key=lambda t: (-len(t[0]), -abs(t[1]))):
            if len(monomial) == 1 and (coef == 1 or (coef == -1 and parts)):
                body = str(monomial[0])
            else:
                body = "*".join(_factor(a) for a in monomial)
            if abs(coef) != 1:
                body = f"{body}*{abs(coef)}"
            sign = "-" if coef < 0 else "+"
            parts.append(f"{sign} {body}" if parts else (f"-{body}" if coef < 0 else body))
        if self.const or not parts:
            parts.append(f"{'-' if self.const < 0 else '+'} {abs(self.const)}")
        return " ".join(parts)


Size = Union[int, Dim]  # noqa: UP007 - evaluated at run time, where `int | "Dim"` fails


def _factor(a: Atom) -> str:
    return f"({a})" if isinstance(a, FloorDiv | Mod) else str(a)


@lru_cache(maxsize=16384)
def _atom_key(a: Atom) -> tuple[int, str, str]:
    """The order of atoms: by their text, then by the ranges of their symbols."""
    used = (a,) if isinstance(a, Sym) else symbols(from_atom(a))
    ranges = " ".join(sorted(f"{s.name} {s.lo}..{s.hi}" for s in used))
    return (0 if isinstance(a, Sym) else 1, str(a), ranges)


@lru_cache(maxsize=16384)
def _monomial_key(m: Monomial) -> tuple[int, tuple[tuple[int, str, str], ...]]:
    return (-len(m), tuple(_atom_key(a) for a in m))


def _term_key(term: tuple[Monomial, int]) -> tuple[int, tuple[tuple[int, str, str], ...]]:
    return _monomial_key(term[0])


@lru_cache(maxsize=1024)
def _size_key(s: Size) -> tuple[bool, str, str]:
    return (
        isinstance(s, Dim),
        str(s),
        " ".join(sorted(f"{x.name} {x.lo}..{x.hi}" for x in symbols(s))),
    )


def build(terms: Mapping[Monomial, int], const: int) -> Size:
    """The size with these coefficients; zeros go."""
    kept = [(m, c) for m, c in terms.items() if c]
    if not kept:
        return const
    if len(kept) > 1:
        kept.sort(key=_term_key)
    return Dim(tuple(kept), const)


def from_atom(a: Atom) -> Dim:
    """The size that an atom alone is."""
    return Dim((((a,), 1),), 0)


def sym(name: str, lo: Bound = 0, hi: Bound = None) -> Dim:
    """The size named `name`, with its inclusive range."""
    return from_atom(Sym(name, lo, hi))


def loop_var(name: str, lo: Size, hi: Size) -> Size:
    """A loop variable over `lo..hi` (exclusive), with the widest range that the bounds allow."""
    rlo, rhi = value_range(lo)[0], value_range(hi)[1]
    return from_atom(Sym(name, rlo, None if rhi is None else rhi - 1))


def opaque(payload: Any, lo: Bound = None, hi: Bound = None) -> Dim:
    """An integer from outside the algebra, with its inclusive bounds; see `Opaque`."""
    return from_atom(Opaque(payload, lo, hi))


def add(a: Size, b: Size) -> Size:
    """`a + b`."""
    if isinstance(a, int):
        if isinstance(b, int):
            return a + b
        return b if a == 0 else Dim(b.terms, b.const + a)
    if isinstance(b, int):
        return a if b == 0 else Dim(a.terms, a.const + b)
    terms = dict(a.terms)
    for m, c in b.terms:
        terms[m] = terms.get(m, 0) + c
    if len(terms) > len(a.terms):
        return build(terms, a.const + b.const)
    kept = tuple([t for t in terms.items() if t[1]])  # in their order, as they were
    return Dim(kept, a.const + b.const) if kept else a.const + b.const


def mul(a: Size, b: Size) -> Size:
    """`a * b`."""
    if isinstance(a, int):
        a, b = b, a
    if isinstance(a, int):
        assert isinstance(b, int)
        return a * b
    if isinstance(b, int):
        if b == 0:
            return 0
        return a if b == 1 else Dim(tuple((m, c * b) for m, c in a.terms), a.const * b)
    terms: dict[Monomial, int] = {}
    for ma, ca in (*a.terms, ((), a.const)):
        for mb, cb in (*b.terms, ((), b.const)):
            if ca * cb:
                m = tuple(sorted(ma + mb, key=_atom_key))
                terms[m] = terms.get(m, 0) + ca * cb
    const = terms.pop((), 0)
    return build(terms, const)


def _divide_exactly(num: Size, den: Dim) -> Size | None:
    """The quotient of two polynomials, or None where there is a remainder."""
    quotient: Size = 0
    lead, lead_coef = den.terms[0]
    for _ in range(32):
        if isinstance(num, int):
            return quotient if num == 0 else None
        for m, c in num.terms:
            rest = list(m)
            if c % lead_coef == 0 and all(_take(rest, a) for a in lead):
                part = build({tuple(rest): c // lead_coef}, 0) if rest else c // lead_coef
                break
        else:
            return None
        quotient = add(quotient, part)
        num = add(num, mul(mul(part, den), -1))
    return None


def _take(rest: list[Atom], a: Atom) -> bool:
    if a in rest:
        rest.remove(a)
        return True
    return False


def floordiv(num: Size, den: Size) -> Size:
    """`num // den` with floor semantics; `den` is positive.

    Rules: (d*q + r)//d = q + r//d;  r//d = 0 where 0 <= r < d;  (g*u + s)//(g*d) = u//d where
    0 <= s < g;  polynomials divide exactly;  (a//b)//c = a//(b*c).
    """
    if isinstance(den, int):
        if den == 0:
            raise ZeroDivisionError(f"division of {num} by zero")
        if isinstance(num, int):
            return num // den
        if den == 1:
            return num
        if den < 0:
            return from_atom(FloorDiv(num, den))
        return _floordiv_const(num, den)
    exact = _divide_exactly(num, den)
    if exact is not None:
        return exact
    lo, hi = value_range(num)
    dlo = value_range(den)[0]
    if lo is not None and lo >= 0 and (lo_of(add(den, mul(num, -1))) or 0) > 0:
        return 0
    if lo is not None and hi is not None and lo >= 0 and dlo is not None and hi < dlo:
        return 0
    quotient = from_atom(FloorDiv(num, den))
    lo, hi = value_range(quotient)
    return lo if lo is not None and lo == hi else quotient


@lru_cache(maxsize=1024)
def _floordiv_const(num: Dim, den: int) -> Size:
    whole: dict[Monomial, int] = {}
    rest: dict[Monomial, int] = {}
    for m, c in num.terms:
        (whole if c % den == 0 else rest)[m] = c // den if c % den == 0 else c
    quotient = build(whole, num.const // den)
    r = build(rest, num.const % den)
    if isinstance(r, int):
        return quotient
    lo, hi = value_range(r)
    if lo is not None and hi is not None and lo // den == hi // den:
        return add(quotient, lo // den)
    for g in sorted({abs(c) for _, c in r.terms if 1 < abs(c) < den and den % abs(c) == 0}):
        big = {m: c // g for m, c in r.terms if c % g == 0}
        small = build({m: c for m, c in r.terms if c % g}, r.const % g)
        slo, shi = value_range(small)
        if slo is not None and shi is not None and slo >= 0 and shi < g:
            return add(quotient, floordiv(build(big, r.const // g), den // g))
    if len(r.terms) == 1 and r.const == 0:
        monomial, coef = r.terms[0]
        inner = monomial[0]
        if coef == 1 and len(monomial) == 1 and isinstance(inner, FloorDiv):
            return add(quotient, floordiv(inner.num, mul(inner.den, den)))
    return add(quotient, from_atom(FloorDiv(r, den)))


def mod(num: Size, den: Size) -> Size:
    """`num % den` with floor semantics; `den` is positive."""
    if isinstance(num, int) and isinstance(den, int):
        return num % den
    quotient = floordiv(num, den)
    if not _mentions(quotient, FloorDiv):
        return add(num, mul(mul(quotient, den), -1))
    if isinstance(den, int) and isinstance(num, Dim):
        # Small coefficients stay, as they do in the quotient: proofs join it with the remainder.
        terms = {m: c if 0 < abs(c) < den else c % den for m, c in num.terms}
        reduced = build({m: c for m, c in terms.items() if c}, num.const % den)
        if reduced != num:
            return mod(reduced, den)
    return from_atom(Mod(num, den))


def _mentions(s: Size, kind: type) -> bool:
    return isinstance(s, Dim) and any(isinstance(a, kind) for m, _ in s.terms for a in m)


def ceildiv(num: Size, den: Size) -> Size:
    """`num / den` rounded up; `den` is positive."""
    return floordiv(add(num, add(den, -1)), den)


def minimum(a: Size, b: Size) -> Size:
    """The smaller of two sizes; one of them where the ranges tell which."""
    if isinstance(a, int) and isinstance(b, int):
        return min(a, b)
    lo, hi = value_range(add(b, mul(a, -1)))
    if lo == hi == 0:
        return min(a, b, key=_size_key)
    if lo is not None and lo >= 0:
        return a
    if hi is not None and hi <= 0:
        return b
    return from_atom(Min(*sorted((a, b), key=_size_key)))


def maximum(a: Size, b: Size) -> Size:
    """The larger of two sizes; one of them where the ranges tell which."""
    if isinstance(a, int) and isinstance(b, int):
        return max(a, b)
    lo, hi = value_range(add(b, mul(a, -1)))
    if lo == hi == 0:
        return min(a, b, key=_size_key)
    if lo is not None and lo >= 0:
        return b
    if hi is not None and hi <= 0:
        return a
    return from_atom(Max(*sorted((a, b), key=_size_key)))


def product(sizes: Iterable[Size]) -> Size:
    """The product, 1 for none: the number of elements of a shape."""
    total: Size = 1
    for s in sizes:
        total = mul(total, s)
    return total


# --- ranges -------------------------------------------------------------------------------------


def _atom_range(a: Atom) -> tuple[Bound, Bound]:
    if isinstance(a, Sym | Opaque):
        return a.lo, a.hi
    if isinstance(a, Min | Max):
        (alo, ahi), (blo, bhi) = value_range(a.a), value_range(a.b)
        if isinstance(a, Min):
            his = [h for h in (ahi, bhi) if h is not None]
            lo = None if alo is None or blo is None else min(alo, blo)
            return lo, min(his) if his else None
        los = [x for x in (alo, blo) if x is not None]
        return max(los) if los else None, None if ahi is None or bhi is None else max(ahi, bhi)
    (nlo, nhi), (dlo, dhi) = value_range(a.num), value_range(a.den)
    if isinstance(a, Mod):
        top = None if dhi is None else dhi - 1
        if nlo is not None and nlo >= 0 and nhi is not None:
            top = nhi if top is None else min(top, nhi)
        return 0, top
    if dlo is None or dlo <= 0:
        return None, None
    lo = None if nlo is None else (nlo // dlo if nlo < 0 else (0 if dhi is None else nlo // dhi))
    hi = None if nhi is None else (nhi // dlo if nhi >= 0 else (-1 if dhi is None else nhi // dhi))
    return lo, hi


def _times(a: tuple[Bound, Bound], b: tuple[Bound, Bound]) -> tuple[Bound, Bound]:
    (alo, ahi), (blo, bhi) = a, b
    if alo is not None and blo is not None and alo >= 0 and blo >= 0:
        return alo * blo, None if ahi is None or bhi is None else ahi * bhi
    if alo is None or ahi is None or blo is None or bhi is None:
        return None, None
    corners = (alo * blo, alo * bhi, ahi * blo, ahi * bhi)
    return min(corners), max(corners)


def value_range(s: Size) -> tuple[Bound, Bound]:
    """Inclusive bounds that hold for every value of the symbols; None where unknown."""
    if isinstance(s, int):
        return s, s
    if s._range is None:
        lo: Bound = s.const
        hi: Bound = s.const
        for monomial, coef in s.terms:
            r: tuple[Bound, Bound] = (1, 1)
            for a in monomial:
                r = _times(r, _atom_range(a))
            mlo, mhi = r if coef > 0 else (r[1], r[0])
            lo = None if lo is None or mlo is None else lo + coef * mlo
            hi = None if hi is None or mhi is None else hi + coef * mhi
        s._range = (lo, hi)
    return s._range


def lo_of(s: Size) -> Bound:
    """The lower bound of `value_range`."""
    return value_range(s)[0]


def hi_of(s: Size) -> Bound:
    """The upper bound of `value_range`."""
    return value_range(s)[1]


def proves_le(a: Size, b: Size) -> bool:
    """True where `a <= b` holds for every value of the symbols (False: not proven)."""
    lo = value_range(add(b, mul(a, -1)))[0]
    return lo is not None and lo >= 0


def proves_lt(a: Size, b: Size) -> bool:
    """True where `a < b` holds for every value of the symbols (False: not proven)."""
    return proves_le(add(a, 1), b)


def divides(den: int, s: Size) -> bool:
    """True where `den` divides `s` for every value of the symbols."""
    if isinstance(s, int):
        return s % den == 0
    return s.const % den == 0 and all(c % den == 0 for _, c in s.terms)


def symbols(s: Size) -> frozenset[Sym]:
    """Every symbol that `s` depends on, also through division, min and max, and opaque parts."""
    if isinstance(s, int):
        return frozenset()
    if s._symbols is None:
        found: set[Sym] = set()
        for monomial, _ in s.terms:
            for a in monomial:
                if isinstance(a, Sym):
                    found.add(a)
                elif isinstance(a, Opaque):
                    found |= a.payload.size_symbols()
                else:
                    for part in parts_of(a):
                        found |= symbols(part)
        s._symbols = frozenset(found)
    return s._symbols


def opaques(s: Size) -> tuple[Any, ...]:
    """The payloads of all opaque atoms in `s`."""
    if isinstance(s, int):
        return ()
    if s._opaques is None:
        found: list[Any] = []
        for monomial, _ in s.terms:
            for a in monomial:
                if isinstance(a, Opaque):
                    found.append(a.payload)
                elif not isinstance(a, Sym):
                    for part in parts_of(a):
                        found.extend(opaques(part))
        s._opaques = tuple(found)
    return s._opaques


def parts_of(a: Atom) -> tuple[Size, ...]:
    """The sizes that an atom is made of."""
    if isinstance(a, FloorDiv | Mod):
        return a.num, a.den
    if isinstance(a, Min | Max):
        return a.a, a.b
    return ()
