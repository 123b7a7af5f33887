"""Which loops the code generator writes as copies of their body, though no schedule asks for it.

A few iterations of a short body take less time as straight code: what depends on the loop's
variable becomes a number, conditions on it are decided, and what the copies share is computed once.
Sums of products have as many copies as the schedule found registers for: what more of them share
would take the registers of the sums. They are copied where that decides conditions only.
"""

from __future__ import annotations

from collections.abc import Sequence

from aicc.codegen.uses import sums
from aicc.tensor_ir.ir import Expr, For, If, Op, Reduce, Stmt, Store
from aicc.tensor_ir.scalar import COMPARISONS
from aicc.tensor_ir.walk import stmt_exprs, walk_expr, walk_stmts
from aicc.tensor_ir.work import EXPANSION

MOST_COPIES = 8
MOST_INSTRUCTIONS = 300
"""Of all copies together, about."""
_MANY = MOST_INSTRUCTIONS + 1


def few_copies(s: For) -> bool:
    """Whether a loop has few iterations and a short body, and copies are of use."""
    extent = s.extent
    if s.kind != "for" or not isinstance(extent, int) or extent > MOST_COPIES:
        return False
    if extent * _instructions(s.body) > MOST_INSTRUCTIONS:
        return False
    return not sums(s) or _decides(s)


def _decides(s: For) -> bool:
    """Whether conditions depend on a loop's variable."""
    for inner in walk_stmts(s.body):
        for e in (x for root in stmt_exprs(inner) for x in walk_expr(root)):
            if isinstance(e, Op) and e.name in COMPARISONS and s.var in e.size_symbols():
                return True
    return False


def may_be_cut(s: For) -> bool:
    """Whether a loop's body is short enough for three copies."""
    return s.kind == "for" and 3 * _instructions(s.body) <= MOST_INSTRUCTIONS


def _instructions(body: Sequence[Stmt]) -> int:
    """About how many instructions statements become; _MANY where loops remain."""
    total = 0
    for s in body:
        if isinstance(s, For):
            if s.kind == "vector":
                times = 1
            elif isinstance(s.extent, int) and (s.kind == "unroll" or few_copies(s)):
                times = s.extent
            else:
                return _MANY
            total += times * _instructions(s.body)
        elif isinstance(s, Store | Reduce):
            total += 2 + sum(_operations(e) for e in stmt_exprs(s))
        elif isinstance(s, If):
            total += 2 + _instructions(s.then) + _instructions(s.orelse)
        else:
            return _MANY
        if total > MOST_INSTRUCTIONS:
            return _MANY
    return total


def _operations(e: Expr) -> int:
    return sum(EXPANSION.get(x.name, 1) if isinstance(x, Op) else 1 for x in walk_expr(e))
