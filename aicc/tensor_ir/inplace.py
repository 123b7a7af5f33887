"""Which result of a kernel may take the memory of which operand.

A result may lie in an operand's memory if every element is read for the last time before, or in the
very statement that, writes the result's element in its place. That is derived here, for kernels
before or after scheduling, by sufficient conditions:

1. Every load of the operand is inside the value of a store to the result, at the store's own
   row-major position.
2. No element of the result is stored twice: each store's index tells all iterations of the loops
   around it apart, different stores write disjoint ranges, and no reduction updates the result.

Parts of larger arrays neither lend nor borrow: their place is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from aicc.dtypes import nbytes
from aicc.symbolic import (
    Atom,
    Dim,
    FloorDiv,
    Mod,
    Size,
    Sym,
    floordiv,
    from_atom,
    mul,
    product,
    proves_lt,
    recombine,
    symbols,
    value_range,
)
from aicc.tensor_ir.analysis import bounds
from aicc.tensor_ir.choice import choice_of
from aicc.tensor_ir.ir import Buffer, For, Index, Kernel, Load, Reduce, Stmt, Store
from aicc.tensor_ir.walk import children, loads_of, stmt_exprs, walk_stmts

Loops = tuple[For, ...]


def inplace_pairs(kernel: Kernel) -> frozenset[tuple[str, str]]:
    """All (in parameter, out parameter) whose memory may be the same.

    The pairs hold one by one: an operand lends its memory to at most one result. Where sizes choose
    between two bodies, they hold for both.
    """
    choice = choice_of(kernel)
    if choice is not None:
        return inplace_pairs(choice.then) & inplace_pairs(choice.orelse)
    found = set()
    stores, reduced = _stores(kernel)
    for out in kernel.buffers:
        if out.scope != "out" or out.pitch or out.name in reduced or not stores.get(out.name):
            continue
        if not _written_once(stores[out.name]):
            continue
        for operand in kernel.buffers:
            if operand.scope == "in" and _same_size(operand, out):
                if _read_in_place(kernel, operand, out):
                    found.add((operand.name, out.name))
    return frozenset(found)


def _same_size(a: Buffer, b: Buffer) -> bool:
    same = nbytes(a.dtype) == nbytes(b.dtype) and product(a.shape) == product(b.shape)
    return same and not a.pitch


def _stores(kernel: Kernel) -> tuple[dict[str, list[tuple[Store, Loops]]], set[str]]:
    """The stores to each buffer with the loops around them, and the buffers that are reduced to."""
    stores: dict[str, list[tuple[Store, Loops]]] = {}
    reduced: set[str] = set()

    def visit(body: Sequence[Stmt], loops: Loops) -> None:
        for s in body:
            if isinstance(s, Store):
                stores.setdefault(s.buffer, []).append((s, loops))
            elif isinstance(s, Reduce):
                reduced.add(s.buffer)
            visit(children(s), (*loops, s) if isinstance(s, For) else loops)

    visit(kernel.body, ())
    return stores, reduced


# --- reading --------------------------------------------------------------------------------------


def _read_in_place(kernel: Kernel, operand: Buffer, out: Buffer) -> bool:
    """Condition 1."""
    for s in walk_stmts(kernel.body):
        if isinstance(s, Store) and s.buffer == out.name:
            position = _flat(out, s.indices)
            for load in loads_of(s):
                if load.buffer != operand.name:
                    continue
                same = operand.shape == out.shape and load.indices == s.indices
                if not same and _flat(operand, load.indices) != position:
                    return False
        elif any(load.buffer == operand.name for load in _direct_loads(s)):
            return False
    return True


def _direct_loads(s: Stmt) -> list[Load]:
    """Loads in a statement, but not in those inside it."""
    sizes: tuple[Size, ...] = ()
    if isinstance(s, Store | Reduce):
        sizes = s.indices
    elif isinstance(s, For):
        sizes = (s.lo, s.hi)
    exprs = [*stmt_exprs(s), *(Index(i) for i in sizes)]
    return [load for e in exprs for load in loads_of(e)]


def _flat(b: Buffer, indices: Sequence[Size]) -> Size:
    total: Size = 0
    for i, stride in zip(indices, b.strides(), strict=True):
        total = total + mul(i, stride)
    return recombine(total)


# --- writing --------------------------------------------------------------------------------------


def _written_once(stores: Sequence[tuple[Store, Loops]]) -> bool:
    """Condition 2."""
    if not all(_injective(s.indices, loops) for s, loops in stores):
        return False
    return all(_disjoint(a, b) for a, b in combinations(stores, 2))


def _injective(indices: Sequence[Size], loops: Loops) -> bool:
    """Whether different iterations of the loops give different indices.

    Each index is a number in a mixed radix whose digits, variables or quotients and remainders of
    them, can be read off it; all digits of all indices together must tell every variable.
    """
    variables = frozenset(f.var for f in loops)
    if len({v.name for v in variables}) < len(loops):
        return False
    known: set[Atom] = set()
    for index in indices:
        found = _digits(index, variables)
        if found is None:
            return False
        known |= found
    while True:
        more: set[Atom] = set()
        for a in known:
            if isinstance(a, Mod):  # with its quotient, a remainder tells the number
                quotient = _digits(floordiv(a.num, a.den), variables)
                if quotient is not None and quotient <= known:
                    more |= _digits(a.num, variables) or set()
        if more <= known:
            break
        known |= more
    return all(f.var in known or f.extent == 1 for f in loops)


def _digits(s: Size, variables: frozenset[Sym]) -> set[Atom] | None:
    """The digits of `s`, in whose place values no two of its values meet; None where that is not
    sure. Terms without `variables` do not matter."""
    if isinstance(s, int):
        return set()
    digits: list[tuple[int, Atom]] = []
    for monomial, coefficient in s.terms:
        if symbols(Dim(((monomial, 1),), 0)).isdisjoint(variables):
            continue
        if len(monomial) != 1 or not isinstance(monomial[0], Sym | FloorDiv | Mod):
            return None
        digits.append((coefficient, monomial[0]))
    reach: int | None = 0  # how far all smaller digits together can move the number
    for coefficient, a in sorted(digits, key=lambda d: d[0]):
        if reach is None or coefficient <= reach:
            return None
        lo, hi = value_range(from_atom(a))
        reach = None if lo is None or hi is None else reach + coefficient * max(0, hi - lo)
    return {a for _, a in digits}


def _disjoint(a: tuple[Store, Loops], b: tuple[Store, Loops]) -> bool:
    """Whether two stores' index ranges are apart in some dimension."""
    first, second = ({f.var: (f.lo, f.hi) for f in loops} for _, loops in (a, b))
    for i, j in zip(a[0].indices, b[0].indices, strict=True):
        x, y = bounds(i, first), bounds(j, second)
        if x is not None and y is not None:
            if proves_lt(x[1], y[0]) or proves_lt(y[1], x[0]):
                return True
    return False
