"""Indices that come from data: checked before use, negative ones counted from the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

from aicc.ops.registry import Array, OpContext
from aicc.symbolic import Size, proves_le, proves_lt
from aicc.tensor_ir.builder import KernelBuilder
from aicc.tensor_ir.ir import Expr, as_expr, as_index, call, cast, select


def loops(b: KernelBuilder, stack: ExitStack, prefix: str, shape: Sequence[Size]) -> list[Size]:
    """Opens one loop per axis; returns the loop variables."""
    return [
        0 if d == 1 else stack.enter_context(b.loop(f"{prefix}{n}", 0, d))
        for n, d in enumerate(shape)
    ]


def bounds(data: Array | None) -> tuple[int, int] | None:
    """The least and the largest of constant indices; None where not known, or where none are."""
    if data is None or data.size == 0:
        return None
    return int(data.min()), int(data.max())


def require_range(ctx: OpContext, data: Array | None, extent: Size) -> None:
    """Raises OperatorError where a constant index can never be inside an axis."""
    known = bounds(data)
    if known is None:
        return
    lo, hi = known
    if proves_lt(lo, -extent if isinstance(extent, int) else -1 * extent) or proves_le(extent, hi):
        ctx.fail(f"index {hi if proves_le(extent, hi) else lo} is out of range for size {extent}")


def check_indices(
    ctx: OpContext,
    b: KernelBuilder,
    shape: Sequence[Size],
    index: Callable[[Sequence[Size]], Expr],
    extent: Size,
    data: Array | None,
) -> None:
    """Ends the run where an index over `shape` is outside [-extent, extent).

    A nest of its own, before any element is read; nothing where constants show that all is well.
    """
    message = f"{ctx.node}: {ctx.op}: index out of range for size {extent}"
    known = bounds(data)
    if known is not None:
        lo, hi = known
        if not (proves_le(-extent, lo) and proves_lt(hi, extent)):
            lower = call("ge", as_expr(lo, "i64"), as_expr(-extent))
            b.check(call("and", lower, call("lt", as_expr(hi, "i64"), as_expr(extent))), message)
        return
    with ExitStack() as stack:
        i = loops(b, stack, "c", shape)
        value = cast(index(i), "i64")
        lower = call("ge", value, as_expr(-extent, "i64"))
        b.check(call("and", lower, call("lt", value, as_expr(extent, "i64"))), message)


def position(value: Expr, extent: Size, data: Array | None) -> Size:
    """A checked index as a position in an axis of `extent`."""
    value = cast(value, "i64")
    known = bounds(data)
    top = extent - 1 if isinstance(extent, int) else None
    if known is not None and known[0] >= 0:
        return as_index(value, *known)
    if known is not None and known[1] < 0:
        return as_index(value, *known) + extent
    return as_index(select(call("lt", value, 0), value + as_expr(extent, "i64"), value), 0, top)
