"""Axes, sizes that have to agree, and accumulator types: what many operators' rules share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from aicc.ops.registry import OpContext
from aicc.symbolic import Size, proves_le
from aicc.tensor_ir.builder import KernelBuilder
from aicc.tensor_ir.ir import Const, Expr, as_expr, call


def axis_in(ctx: OpContext, axis: int, rank: int) -> int:
    """`axis` counted from the front. Raises OperatorError outside [-rank, rank)."""
    if not -rank <= axis < rank:
        ctx.fail(f"axis {axis} is outside [{-rank}, {rank})")
    return axis % rank


def axes_in(ctx: OpContext, axes: Sequence[int], rank: int) -> tuple[int, ...]:
    """Sorted axes counted from the front. Raises OperatorError for one outside, or named twice."""
    found = sorted(axis_in(ctx, int(a), rank) for a in axes)
    if len(set(found)) != len(found):
        ctx.fail(f"an axis is named twice in {list(axes)}")
    return tuple(found)


def agree(ctx: OpContext, a: Size, b: Size, what: str) -> Size:
    """The size that `a` and `b` both stand for: a number where either is one.

    Raises OperatorError where they are different numbers.
    """
    if isinstance(a, int) and isinstance(b, int) and a != b:
        ctx.fail(f"{what}: {a} is not {b}")
    return b if isinstance(b, int) else a


def check_agree(ctx: OpContext, b: KernelBuilder, x: Size, y: Size, what: str) -> None:
    """Ends the run where sizes differ that are equal only if the symbols have the right values."""
    if x != y:
        b.check(call("eq", as_expr(x), as_expr(y)), f"{ctx.node}: {ctx.op}: {what}: {x} is not {y}")


def accumulator(dtype: str) -> str:
    """The type that sums of `dtype` are held in: f32 for the 16-bit floats."""
    return "f32" if dtype in ("f16", "bf16") else dtype


def within(*bounds: tuple[Size, Size, Size]) -> Expr:
    """The condition `lo <= x < hi` for every (x, lo, hi), without the parts that always hold."""
    cond: Expr = Const(1, "bool")
    for x, lo, hi in bounds:
        for holds, part in (
            (proves_le(lo, x), ("ge", x, lo)),
            (proves_le(x + 1, hi), ("lt", x, hi)),
        ):
            if not holds:
                one = call(part[0], as_expr(part[1]), as_expr(part[2]))
                cond = one if isinstance(cond, Const) else call("and", cond, one)
    return cond


def always(cond: Expr) -> bool:
    """True for the condition that `within` gives where nothing is left to test."""
    return isinstance(cond, Const) and bool(cond.value)


def upgrade_axes(attrs: dict[str, Any], inputs: list[str], graph: Any) -> None:
    """Moves an `axes` attribute of older opsets to operand 1."""
    axes = attrs.pop("axes", None)
    if axes is not None:
        inputs.append(graph.add_constant("axes", np.asarray(axes, np.int64)))
