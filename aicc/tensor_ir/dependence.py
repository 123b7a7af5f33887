"""Which iterations of loops touch the same element: what decides whether loops may be permuted, run
as lanes of a vector, or shared out between threads.

Two accesses of one buffer are compared index by index. An index is a sum of fixed parts and of
`coefficient * part`, where a part depends on a variable that differs between the iterations. By the
mixed-radix rule, two such sums are equal only if the parts of the largest coefficients are, as long
as a coefficient is larger than all that the smaller ones can contribute together:

    x[16*i + j], j in 0..16:    16*i + j = 16*i' + j'   only if   i = i' and j = j'

What equal indices say about the parts then leads to the variables, also through the // and % that
fused loops leave behind. Conditions around an access are not looked at: they only make it rarer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from aicc.symbolic import (
    Atom,
    Dim,
    Mod,
    Size,
    Sym,
    add,
    floordiv,
    from_atom,
    maximum,
    minimum,
    mul,
    opaques,
    proves_lt,
    substitute,
    symbols,
    value_range,
)
from aicc.tensor_ir.analysis import bounds
from aicc.tensor_ir.ir import For, If, Load, Reduce, Stmt, Store, While
from aicc.tensor_ir.walk import children, loads_of, stmt_exprs, walk_expr

Ranges = Mapping[Sym, tuple[Size, Size]]


@dataclass(frozen=True)
class Access:
    """One place that touches a buffer.

    kind: "load", "store", or the operation of a reduce. loops: around it, inside the statements
    that were looked at, outermost first. conditional: whether it is skipped in some iterations.
    """

    buffer: str
    indices: tuple[Size, ...]
    kind: str
    loops: tuple[For, ...] = ()
    conditional: bool = False

    @property
    def writes(self) -> bool:
        return self.kind != "load"

    @property
    def reduces(self) -> bool:
        return self.kind not in ("load", "store")

    @property
    def ranges(self) -> dict[Sym, tuple[Size, Size]]:
        return {f.var: (f.lo, f.hi) for f in self.loops}


def accesses(body: Iterable[Stmt]) -> list[Access]:
    """Every access of statements and what is inside them, once, in program order.

    A reduce is one access; the loads of a statement come before its write.
    """
    found: dict[Access, None] = {}

    def load(x: Load, loops: tuple[For, ...], conditional: bool) -> None:
        found[Access(x.buffer, x.indices, "load", loops, conditional)] = None

    def visit(s: Stmt, loops: tuple[For, ...], conditional: bool) -> None:
        exprs = [x for e in stmt_exprs(s) for x in walk_expr(e)]
        lazy = conditional or any(getattr(x, "name", "") == "select" for x in exprs)
        for x in exprs:
            if isinstance(x, Load):
                load(x, loops, lazy)
        if isinstance(s, Store | Reduce):
            for size in s.indices:
                for x in _size_loads(size):
                    load(x, loops, conditional)
            kind = s.op if isinstance(s, Reduce) else "store"
            found[Access(s.buffer, s.indices, kind, loops, conditional)] = None
        elif isinstance(s, For):
            for size in (s.lo, s.hi):
                for x in _size_loads(size):
                    load(x, loops, conditional)
            for c in s.body:
                visit(c, (*loops, s), conditional)
        elif isinstance(s, If):
            for c in (*s.then, *s.orelse):
                visit(c, loops, True)
        elif isinstance(s, While):
            for c in s.body:
                visit(c, loops, True)

    for s in body:
        visit(s, (), False)
    return list(found)


def _size_loads(size: Size) -> list[Load]:
    return [x for p in opaques(size) for x in loads_of(p)]


def loaded_by(sizes: Iterable[Size]) -> set[str]:
    """Buffers whose contents sizes depend on."""
    return {x.buffer for size in sizes for x in _size_loads(size)}


def written_by(body: Iterable[Stmt]) -> set[str]:
    """Buffers that statements write."""
    return {a.buffer for a in accesses(body) if a.writes}


def first_accesses(body: Iterable[Stmt]) -> dict[str, str]:
    """The kind of the first access of each buffer that statements touch."""
    found: dict[str, str] = {}
    for a in accesses(body):
        found.setdefault(a.buffer, a.kind)
    return found


def used_across(body: Iterable[Stmt], loop: For | None = None) -> set[str]:
    """The buffers that statements use outside of `loop` and of parallel loops, or that such a
    parallel loop reads before it stores to them: iterations of parallel loops do not have those for
    themselves."""
    found: set[str] = set()
    for s in body:
        if isinstance(s, For):
            found |= loaded_by((s.lo, s.hi))
        if isinstance(s, For) and (s is loop or s.kind == "parallel"):
            first = {} if s is loop else first_accesses(s.body)
            found |= {name for name, kind in first.items() if kind != "store"}
        elif children(s):
            found |= {x.buffer for e in stmt_exprs(s) for x in loads_of(e)}
            found |= used_across(children(s), loop)
        else:
            found |= set(first_accesses((s,)))
    return found


def conflicts(body: Sequence[Stmt]) -> list[tuple[Access, Access]]:
    """Pairs of accesses of one buffer of which one at least writes; an access also with itself."""
    found = accesses(body)
    pairs = []
    for n, a in enumerate(found):
        for b in found[n:]:
            if a.buffer == b.buffer and (a.writes or b.writes):
                pairs.append((a, b))
    return pairs


# --- loops ---------------------------------------------------------------------------------------


def why_not_permuted(nest: Sequence[For], body: Sequence[Stmt]) -> str:
    """Why iterations of a perfect nest around `body` may not run in any order; "" if they may."""
    written = written_by(body)
    if loaded_by(size for f in nest for size in (f.lo, f.hi)) & written:
        return "the loops' bounds depend on what the body writes"
    variables = frozenset(f.var for f in nest)
    outer = {f.var: (f.lo, f.hi) for f in nest}
    for a, b in conflicts(body):
        if a.reduces and a.kind == b.kind:
            continue
        if not variables <= shared(a, b, variables, outer):
            return _clash(a, b, variables)
    return ""


def why_not_lanes(f: For) -> str:
    """Why iterations of a loop may not run as the lanes of a vector; "" if they may.

    Lanes run each statement together. A reduce into one element for all lanes combines them.
    """
    variables = frozenset((f.var,))
    for a, b in conflicts(f.body):
        if a.reduces and a.kind == b.kind:
            if a is not b:
                continue
            if not any(f.var in symbols(i) for i in a.indices):
                continue
        if not variables <= shared(a, b, variables, {f.var: (f.lo, f.hi)}):
            return _clash(a, b, variables)
    return ""


def why_not_threads(f: For, private: frozenset[str]) -> str:
    """Why iterations of a loop may not run at the same time; "" if they may.

    Buffers in `private` exist once per iteration.
    """
    variables = frozenset((f.var,))
    for a, b in conflicts(f.body):
        if a.buffer in private:
            continue
        if not variables <= shared(a, b, variables, {f.var: (f.lo, f.hi)}):
            return _clash(a, b, variables)
    return ""


def why_not_distributed(nest: Sequence[For], first: Sequence[Stmt], second: Sequence[Stmt]) -> str:
    """Why `for: {first; second}` may not become `for: first; for: second`; "" if it may."""
    bounds_read = loaded_by(size for f in nest for size in (f.lo, f.hi))
    if bounds_read & written_by((*first, *second)):
        return "the loops' bounds depend on what the body writes"
    variables = frozenset(f.var for f in nest)
    outer = {f.var: (f.lo, f.hi) for f in nest}
    for a in accesses(first):
        for b in accesses(second):
            if a.buffer == b.buffer and (a.writes or b.writes):
                if not variables <= shared(a, b, variables, outer):
                    return _clash(a, b, variables)
    return ""


def _clash(a: Access, b: Access, variables: Iterable[Sym]) -> str:
    names = ", ".join(sorted(str(v) for v in variables))
    at = f"{a.buffer}[{', '.join(map(str, a.indices))}]"
    if a is b:
        return f"different iterations of {names} may write the same element at {at}"
    other = f"{b.buffer}[{', '.join(map(str, b.indices))}]"
    return f"different iterations of {names} may touch the same element at {at} and {other}"


# --- two accesses --------------------------------------------------------------------------------


def shared(a: Access, b: Access, variables: frozenset[Sym], outer: Ranges) -> frozenset[Sym]:
    """The variables that must be equal where `a` in one iteration and `b` in another touch the same
    element; all of them where that is impossible. `outer` are the bounds of the variables.
    """
    inside_a, inside_b = {**outer, **a.ranges}, {**outer, **b.ranges}
    known: dict[tuple[Size, Size], None] = {}
    todo = list(zip(_indices(a), _indices(b), strict=True))
    while todo:
        pair = todo.pop()
        if pair in known:
            continue
        known[pair] = None
        parts = _equal_parts(*pair, inside_a, inside_b)
        if parts is None:
            return variables
        todo.extend(parts)
        for x, y in list(known):
            todo.extend(_joined(x, y, known))
    return frozenset(v for v in variables if (from_atom(v), from_atom(v)) in known)


def _indices(a: Access) -> Sequence[Size]:
    """The indices, where variables that have but one value are that."""
    single: dict[Sym, Size] = {}
    for f in a.loops:
        if add(f.hi, mul(f.lo, -1)) == 1:
            single[f.var] = substitute(f.lo, single)
    return [substitute(i, single) for i in a.indices] if single else a.indices


def _joined(x: Size, y: Size, known: Mapping[tuple[Size, Size], None]) -> list[tuple[Size, Size]]:
    """Equal remainders and equal quotients come from equal numbers."""
    p, q = _atom(x), _atom(y)
    if not isinstance(p, Mod) or not isinstance(q, Mod) or p.den != q.den:
        return []
    whole = (floordiv(p.num, p.den), floordiv(q.num, q.den))
    same_number = isinstance(whole[0], int) and whole[0] == whole[1]
    return [(p.num, q.num)] if same_number or whole in known else []


def _atom(s: Size) -> object:
    if isinstance(s, Dim) and s.const == 0 and len(s.terms) == 1:
        monomial, c = s.terms[0]
        if c == 1 and len(monomial) == 1:
            return monomial[0]
    return None


def _equal_parts(
    x: Size, y: Size, inside_a: Ranges, inside_b: Ranges
) -> list[tuple[Size, Size]] | None:
    """Pairs of parts that are equal where `x` and `y` are; None where x and y never are."""
    left, right = _parts(x, inside_a), _parts(y, inside_b)
    if left is None or right is None:
        return []
    gap = add(left[0], mul(right[0], -1))
    if not isinstance(gap, int):
        return []
    rows: list[tuple[Size, list[Size], list[Size], bool]] = []
    for c in dict.fromkeys((*left[1], *right[1])):
        lo, hi = value_range(c)
        if lo is not None and lo > 0:
            size, negative = c, False
        elif hi is not None and hi < 0:
            size, negative = mul(c, -1), True
        else:
            return []
        rows.append((size, left[1].get(c, []), right[1].get(c, []), negative))
    rows.sort(key=lambda r: _magnitude(r[0]))
    equal: list[tuple[Size, Size]] = []
    for n in reversed(range(len(rows))):
        reaches = _reaches(rows[:n], inside_a, inside_b)
        if not any(proves_lt(add(abs(gap), reach), rows[n][0]) for reach in reaches):
            return equal
        _, a, b, _ = rows[n]
        if len(a) == 1 and len(b) == 1:
            equal.append((a[0], b[0]))
    return equal if gap == 0 else None


def _reaches(
    rows: Sequence[tuple[Size, list[Size], list[Size], bool]], inside_a: Ranges, inside_b: Ranges
) -> list[Size]:
    """How far two sums of multiples of parts may be apart at most: by parts, and by whole sums."""
    by_parts: Size = 0
    a: tuple[Size, Size] = (0, 0)
    b: tuple[Size, Size] = (0, 0)
    for size, left, right, negative in rows:
        ends = _ends(left, inside_a), _ends(right, inside_b)
        if ends[0] is None or ends[1] is None:
            return []
        (alo, ahi), (blo, bhi) = ends[0], ends[1]
        by_parts = add(by_parts, mul(size, _apart((alo, ahi), (blo, bhi))))
        a = _plus(a, mul(size, alo), mul(size, ahi), negative)
        b = _plus(b, mul(size, blo), mul(size, bhi), negative)
    return [by_parts, maximum(add(a[1], mul(b[0], -1)), add(b[1], mul(a[0], -1)))]


def _apart(a: tuple[Size, Size], b: tuple[Size, Size]) -> Size:
    return add(maximum(a[1], b[1]), mul(minimum(a[0], b[0]), -1))


def _plus(total: tuple[Size, Size], lo: Size, hi: Size, negative: bool) -> tuple[Size, Size]:
    if negative:
        lo, hi = mul(hi, -1), mul(lo, -1)
    return add(total[0], lo), add(total[1], hi)


def _magnitude(size: Size) -> tuple[int, int]:
    if isinstance(size, int):
        return 0, size
    return max(len(m) for m, _ in size.terms), max(abs(c) for _, c in size.terms)


def _parts(s: Size, moving: Ranges) -> tuple[Size, dict[Size, list[Size]]] | None:
    """The fixed part of an index, and its moving parts by coefficient. None: too complex."""
    if isinstance(s, int):
        return s, {}
    fixed: Size = s.const
    parts: dict[Size, list[Size]] = {}
    for monomial, c in s.terms:
        moves = [a for a in monomial if _moves(a, moving)]
        rest = tuple(a for a in monomial if a not in moves)
        cofactor: Size = Dim(((rest, c),), 0) if rest else c
        if not moves:
            fixed = add(fixed, cofactor)
        elif len(moves) == 1 and monomial.count(moves[0]) == 1:
            parts.setdefault(cofactor, []).append(from_atom(moves[0]))
        else:
            return None
    return fixed, parts


def _moves(a: Atom, moving: Ranges) -> bool:
    if isinstance(a, Sym):
        return a in moving
    s = from_atom(a)
    return bool(opaques(s)) or not moving.keys().isdisjoint(symbols(s))


def _ends(parts: list[Size], inside: Ranges) -> tuple[Size, Size] | None:
    total: tuple[Size, Size] = (0, 0)
    for p in parts:
        found = None if opaques(p) else bounds(p, inside)
        if found is None or any(opaques(e) for e in found):
            lo, hi = value_range(p)
            if lo is None or hi is None:
                return None
            found = (lo, hi)
        total = (add(total[0], found[0]), add(total[1], found[1]))
    return total
