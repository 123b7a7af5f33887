"""What is a product or a window, and which part its axes and operands play in it."""

from __future__ import annotations

from dataclasses import dataclass

from aicc.symbolic import Dim, FloorDiv, Size, Sym, coefficient, symbols
from aicc.tensor_ir.analysis import Stage
from aicc.tensor_ir.ir import Load, Op
from aicc.tensor_ir.recipes.common import offset_of, stride_in
from aicc.tensor_ir.recipes.plan import Plan
from aicc.tensor_ir.walk import walk_expr


@dataclass(frozen=True)
class Roles:
    """What a contraction's parts are: axis numbers of the accumulator, and the operands."""

    column: int
    row: int | None
    left: Load
    right: Load


def product_of(stage: Stage) -> tuple[Load, Load] | None:
    """The two loads of a sum of products."""
    e = stage.value
    if stage.op != "add" or not isinstance(e, Op) or e.name != "mul":
        return None
    a, b = e.args
    return (a, b) if isinstance(a, Load) and isinstance(b, Load) else None


def roles(stage: Stage) -> Roles | None:
    """None where the stage has no shape of a matrix product: no axis that only one operand has."""
    operands = product_of(stage)
    if operands is None:
        return None
    column = next((n for n in reversed(range(len(stage.axes))) if stage.axes[n][0]), None)
    if column is None:
        return None
    v = stage.axes[column][0]
    assert v is not None
    a, b = operands
    if v in a.size_symbols():
        a, b = b, a
    if v in a.size_symbols() or v not in b.size_symbols():
        return None
    row = None
    for n, (w, _) in enumerate(stage.axes):
        if w is not None and n != column:
            if w in a.size_symbols() and w not in b.size_symbols():
                row = n
    return Roles(column, row, a, b)


def column_axis(plan: Plan, stage: Stage) -> int | None:
    """The axis whose lanes are contiguous in every load that depends on it."""
    column = next((n for n in reversed(range(len(stage.axes))) if stage.axes[n][0]), None)
    if column is None:
        return None
    v = stage.axes[column][0]
    assert v is not None
    loads = [x for x in walk_expr(stage.value) if isinstance(x, Load)]
    data = [x for x in loads if plan.kernel.buffer(x.buffer).scope != "const"]
    strides = [
        1 if repeated(offset_of(plan.kernel, x), v) else stride_in(plan.kernel, x, v) for x in data
    ]
    return column if 1 in strides and all(s in (0, 1) for s in strides) else None


def repeated(offset: Size, v: Sym) -> bool:
    """True for the offset of elements that are read several times each, one after the other: of
    channels with several filters of their own."""
    if not isinstance(offset, Dim):
        return False
    own = [Dim((term,), 0) for term in offset.terms]
    own = [term for term in own if v in symbols(term)]
    if len(own) != 1:
        return False
    ((atoms, coef),) = own[0].terms
    quotient = atoms[0]
    if coef != 1 or len(atoms) > 1 or not isinstance(quotient, FloorDiv):
        return False
    return coefficient(quotient.num, v) == 1 and symbols(quotient.num) == {v}
