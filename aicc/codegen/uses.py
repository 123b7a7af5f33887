"""What statements use, and which loops are better functions of their own."""

from __future__ import annotations

from collections.abc import Sequence

from aicc.tensor_ir.ir import Check, For, Op, Reduce, Stmt, Store, While
from aicc.tensor_ir.walk import loads_of, stmt_exprs, walk_expr, walk_stmts
from aicc.tensor_ir.work import EXPANSION


def stands_apart(s: For, body: Sequence[Stmt]) -> bool:
    """Whether a loop becomes a function of its own: one of long functions beside a loop of sums of
    products. Their constants would take registers from the sums, which LLVM then spills."""
    if s.kind != "for":
        return False
    inside = list(walk_stmts((s,)))
    if any(isinstance(x, Reduce | Check | While) for x in inside):
        return False
    if any(isinstance(x, For) and x.kind == "parallel" for x in inside):
        return False
    if not any(isinstance(x, For) and sums(x) for x in body if x is not s):
        return False
    return any(
        isinstance(e, Op) and EXPANSION.get(e.name, 0) >= EXPANSION["exp"]
        for x in inside
        for root in stmt_exprs(x)
        for e in walk_expr(root)
    )


def sums(s: For) -> bool:
    """True for a loop of multiply-adds."""
    return any(
        isinstance(x, Reduce) and isinstance(x.value, Op) and x.value.name == "mul"
        for x in walk_stmts((s,))
    )


def used(scope: Sequence[Stmt]) -> set[str]:
    """Names of the buffers that statements read or write."""
    found: set[str] = set()
    for s in scope:
        found |= {x.buffer for x in loads_of(s)}
        for inner in walk_stmts((s,)):
            if isinstance(inner, Store | Reduce):
                found.add(inner.buffer)
    return found
