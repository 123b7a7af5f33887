"""Walks over expressions and statements, and rebuilding them.

Expressions share parts and keep most of them through a schedule: walks visit a part once, and what
is often asked of a node is remembered with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from aicc.dtypes import nbytes
from aicc.symbolic import Size, Sym, from_atom, map_opaque, opaques, substitute
from aicc.tensor_ir.ir import (
    Check,
    Const,
    Expr,
    For,
    If,
    Index,
    Load,
    Op,
    Reduce,
    Stmt,
    Store,
    While,
    as_index,
    call,
    cast,
)

T = TypeVar("T")


def expr_sizes(e: Expr) -> tuple[Size, ...]:
    """The sizes directly inside one expression node."""
    if isinstance(e, Load):
        return e.indices
    if isinstance(e, Index):
        return (e.size,)
    return ()


def walk_expr(e: Expr) -> tuple[Expr, ...]:
    """`e` and all expressions inside it, also those inside opaque indices, each once, parents
    first.

    Expressions share parts: a walk that visited a part once per use would take exponential time.
    """
    return remembered(e, "_inside", _walk_expr)


def _walk_expr(e: Expr) -> tuple[Expr, ...]:
    found: dict[Expr, None] = {}

    def visit(x: Expr) -> None:
        if x in found:
            return
        found[x] = None
        if isinstance(x, Op):
            for a in x.args:
                visit(a)
        else:
            for s in expr_sizes(x):
                for payload in opaques(s):
                    visit(payload)

    visit(e)
    return tuple(found)


ExprMap = Callable[[Expr], Expr | None]
SizeMap = Callable[[Size], Size]


def map_expr(e: Expr, fn: ExprMap, size: SizeMap, memo: dict[Expr, Expr] | None = None) -> Expr:
    """Rebuilds `e`: `fn` may replace a node (its result is final), `size` maps every size.

    `memo` remembers what shared parts became; pass one to several calls with equal functions.
    """
    memo = {} if memo is None else memo
    done = memo.get(e)
    if done is None:
        done = memo[e] = _mapped(e, fn, size, memo)
    return done


def _mapped(e: Expr, fn: ExprMap, size: SizeMap, memo: dict[Expr, Expr]) -> Expr:
    new = fn(e)
    if new is not None:
        return new
    if isinstance(e, Op):
        args = tuple([map_expr(a, fn, size, memo) for a in e.args])
        return e if args == e.args else Op(e.name, args, e.dtype)
    if isinstance(e, Load):
        indices = tuple([map_size(s, fn, size) for s in e.indices])
        return e if indices == e.indices else Load(e.buffer, indices, e.dtype)
    if isinstance(e, Index):
        mapped = map_size(e.size, fn, size)
        return e if mapped == e.size else Index(mapped, e.dtype)
    return e


def map_size(s: Size, fn: ExprMap, size: SizeMap) -> Size:
    """`size(s)`, after `fn` has replaced expressions inside opaque atoms."""
    if not isinstance(s, int) and opaques(s):

        def payload(p: Expr) -> Expr | Size:
            new = map_expr(p, fn, lambda x: x)
            return as_index(new) if isinstance(new, Index | Const) else new

        s = map_opaque(s, payload)
    return size(s)


def stmt_exprs(s: Stmt) -> tuple[Expr, ...]:
    """The expressions directly inside one statement."""
    if isinstance(s, Store | Reduce):
        return (s.value,)
    if isinstance(s, If | While | Check):
        return (s.cond,)
    return ()


def children(s: Stmt) -> tuple[Stmt, ...]:
    """The statements directly inside one statement."""
    if isinstance(s, For | While):
        return s.body
    if isinstance(s, If):
        return (*s.then, *s.orelse)
    return ()


def walk_stmts(body: tuple[Stmt, ...]) -> list[Stmt]:
    """Every statement, parents first, in program order."""
    found: list[Stmt] = []
    _walk_stmts(body, found)
    return found


def _walk_stmts(body: tuple[Stmt, ...], found: list[Stmt]) -> None:
    for s in body:
        found.append(s)
        inside = children(s)
        if inside:
            _walk_stmts(inside, found)


def map_body(body: tuple[Stmt, ...], fn: Callable[[Stmt], tuple[Stmt, ...]]) -> tuple[Stmt, ...]:
    """Rebuilds statements bottom-up: `fn` maps each rebuilt statement to its replacement."""
    out: list[Stmt] = []
    for s in body:
        if isinstance(s, For | While):
            inner = map_body(s.body, fn)
            if inner != s.body:
                if isinstance(s, For):
                    s = For(s.var, s.lo, s.hi, s.kind, inner)
                else:
                    s = While(s.cond, inner)
        elif isinstance(s, If):
            then, orelse = map_body(s.then, fn), map_body(s.orelse, fn)
            if then != s.then or orelse != s.orelse:
                s = If(s.cond, then, orelse)
        out.extend(fn(s))
    return tuple(out)


def map_exprs(
    body: tuple[Stmt, ...],
    fn: ExprMap,
    size: SizeMap = lambda s: s,
) -> tuple[Stmt, ...]:
    """Rebuilds all expressions and sizes of statements; see `map_expr`."""
    memo: dict[Expr, Expr] = {}

    def one(s: Stmt) -> tuple[Stmt, ...]:
        # What does not change stays as it is, with what is remembered of it.
        if isinstance(s, Store | Reduce):
            indices = tuple([map_size(i, fn, size) for i in s.indices])
            value = map_expr(s.value, fn, size, memo)
            if value is s.value and indices == s.indices:
                return (s,)
            if isinstance(s, Store):
                return (Store(s.buffer, indices, value),)
            return (Reduce(s.buffer, indices, s.op, value),)
        if isinstance(s, For):
            lo, hi = map_size(s.lo, fn, size), map_size(s.hi, fn, size)
            same = lo == s.lo and hi == s.hi
            return (s if same else For(s.var, lo, hi, s.kind, s.body),)
        if isinstance(s, If | While | Check):
            cond = map_expr(s.cond, fn, size, memo)
            return (s if cond is s.cond else replace(s, cond=cond),)
        return (s,)

    return map_body(body, one)


def substitute_body(body: tuple[Stmt, ...], mapping: Mapping[Sym, Size]) -> tuple[Stmt, ...]:
    """Statements with symbols replaced in all sizes."""
    return map_exprs(body, lambda e: None, lambda s: substitute(s, mapping))


def as_size(e: Expr) -> Size | None:
    """An index that an expression is; None for other values, and for other integers than i64, which
    may have wrapped."""
    if isinstance(e, Index):
        return e.size if e.dtype == "i64" else None
    return int(e.value) if isinstance(e, Const) and e.dtype == "i64" else None


def conjuncts(cond: Expr) -> list[Expr]:
    """The conditions that all have to hold for one to hold."""
    if isinstance(cond, Op) and cond.name == "and":
        return [c for a in cond.args for c in conjuncts(a)]
    return [cond]


def loads_of(s: Stmt | Expr) -> tuple[Load, ...]:
    """All loads in a statement and below it, also those inside opaque indices."""
    return remembered(s, "_loads", _loads_of)


def _loads_of(s: Any) -> tuple[Load, ...]:
    if isinstance(s, Expr):
        return tuple(e for e in walk_expr(s) if isinstance(e, Load))
    found: list[Load] = []
    for e in stmt_exprs(s):
        found.extend(loads_of(e))
    sizes = s.indices if isinstance(s, Store | Reduce) else ()
    if isinstance(s, For):
        sizes = (s.lo, s.hi)
    for size in sizes:
        if not isinstance(size, int) and opaques(size):
            found.extend(loads_of(Index(size)))
    for inner in children(s):
        found.extend(loads_of(inner))
    return tuple(found)


def remembered(x: Any, name: str, compute: Callable[[Any], T]) -> T:
    """`compute(x)`, once for each node: nodes do not change, and schedules keep most of them."""
    found: T | None = x.__dict__.get(name)
    if found is None:
        found = compute(x)
        object.__setattr__(x, name, found)
    return found


def bit_of(word: Expr, place: Size) -> Expr:
    """Whether a bit of an unsigned integer is set."""
    shifted = call("shr", word, cast(Index(place), word.dtype))
    return call("ne", call("bitand", shifted, 1), 0)


def word_of(loop: For) -> Expr | None:
    """The word whose set bits a `bits` loop goes through; None where it has not that form."""
    branch = loop.body[0] if len(loop.body) == 1 else None
    if not isinstance(branch, If) or branch.orelse or loop.lo != 0 or not isinstance(loop.hi, int):
        return None
    word: Expr = branch.cond
    for name in ("ne", "bitand", "shr"):
        if not isinstance(word, Op) or word.name != name:
            return None
        word = word.args[0]
    if word.dtype not in ("u32", "u64") or loop.hi > 8 * nbytes(word.dtype):
        return None
    if loop.var in word.size_symbols() or branch.cond != bit_of(word, from_atom(loop.var)):
        return None
    return word
