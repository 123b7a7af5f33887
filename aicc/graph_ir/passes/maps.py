"""Which nodes are elementwise, derived from what they lower to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aicc.graph_ir.passes.bodies import body
from aicc.ops import registry
from aicc.ops.registry import OpContext
from aicc.symbolic import Dim, Size, Sym, minimum, symbols
from aicc.tensor_ir.ir import Check, For, Kernel, Load, Stmt, Store
from aicc.tensor_ir.walk import expr_sizes, loads_of, walk_expr, walk_stmts

_BY_AXIS = frozenset({"axis", "axes", "perm", "equation", "channels_last"})
"""Attributes that tell axes apart, even where sizes of 1 hide that."""

_known: dict[tuple[Any, ...], bool] = {}


def is_elementwise(ctx: OpContext) -> bool:
    """True where each element of each result is made of the operands' elements at the same index,
    aligned at the last axis as in broadcasting, and does not depend on the index itself.

    Such a node may be computed with its axes in any other order.
    """
    key = (
        ctx.op,
        tuple(sorted(ctx.attrs.items(), key=lambda a: a[0])),
        tuple(None if t is None else t.without_value() for t in ctx.types),
        tuple(t.without_value() for t in ctx.outputs),
    )
    try:
        found = _known.get(key)
    except TypeError:  # an attribute that has no hash
        return _derive(ctx)
    if found is None:
        if len(_known) > 10000:
            _known.clear()
        found = _known[key] = _derive(ctx)
    return found


def _derive(ctx: OpContext) -> bool:
    op = registry.find(ctx.op)
    if op is None or not _BY_AXIS.isdisjoint(op.attributes):
        return False
    alone = body(ctx)
    if alone is None or [r.shape for r in alone.results] != [t.shape for t in ctx.outputs]:
        return False
    kernel = alone.kernel
    # An operand that is not read says where to read, as axes do, though it may not show here.
    read = {e.buffer for s in walk_stmts(kernel.body) for e in loads_of(s)}
    if any(t is not None and t.name not in read for t in alone.operands):
        return False
    return all(_aligned(kernel, s, ()) for s in kernel.body)


def _aligned(kernel: Kernel, s: Stmt, loops: tuple[Sym, ...]) -> bool:
    """Whether loads below `s` are at the store's own index."""
    if isinstance(s, For):
        return all(_aligned(kernel, inner, (*loops, s.var)) for inner in s.body)
    if isinstance(s, Check):
        return not loops and not any(isinstance(e, Load) for e in walk_expr(s.cond))
    if not isinstance(s, Store):
        return False
    return all(_variable(i, loops) for i in s.indices) and _same_index(kernel, s, loops)


def _variable(i: Size, loops: Sequence[Sym]) -> bool:
    if not isinstance(i, Dim):
        return i == 0
    return i.const == 0 and any(i.terms == (((v,), 1),) for v in loops)


def _same_index(kernel: Kernel, s: Store, loops: Sequence[Sym]) -> bool:
    bound = frozenset(loops)
    for e in walk_expr(s.value):
        if isinstance(e, Load):
            if not _broadcast(kernel.buffer(e.buffer).shape, e.indices, s.indices):
                return False
        elif any(symbols(size) & bound for size in expr_sizes(e)):
            return False
    return True


def _broadcast(shape: Sequence[Size], indices: Sequence[Size], store: Sequence[Size]) -> bool:
    if len(indices) > len(store):
        return False
    own = store[len(store) - len(indices) :]
    return all(
        i == j
        or (i == 0 and d == 1)
        or i == minimum(j, d - 1)  # broadcast where d is 1 at run time
        for i, j, d in zip(indices, own, shape, strict=True)
    )
