"""What is a product or a window, and which part its axes and operands play in it."""

from __future__ import annotations

from dataclasses import dataclass

from aicc.dtypes import nbytes
from aicc.symbolic import Dim, FloorDiv, Size, Sym, coefficient, product, symbols
from aicc.tensor_ir.analysis import Stage
from aicc.tensor_ir.ir import Load, Op
from aicc.tensor_ir.recipes.common import as_number, offset_of, stride_in
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


def is_far(plan: Plan, stage: Stage, found: Roles) -> bool:
    """True for a right operand of which the first tile of a panel waits for memory, and that is not
    read again for other axes of rows: a constant that is larger than the caches near the core, or
    what has been computed and is larger than the last cache holds."""
    b = plan.kernel.buffer(found.right.buffer)
    size = as_number(product(b.shape) * nbytes(b.dtype))
    right = found.right.size_symbols()
    rows = [v for v, _ in stage.axes if v is not None and v not in right]
    holds = plan.target.l2 if b.scope == "const" else plan.target.l3 // 2
    return size is not None and size > holds and len(rows) < 2


def right_stride(plan: Plan, stage: Stage, found: Roles) -> int:
    """Bytes between the rows of a right operand that is read in place; 0 for one that is packed."""
    right, column = found.right, stage.axes[found.column][0]
    assert column is not None
    if plan.kernel.buffer(right.buffer).scope == "const":
        return 0
    if stride_in(plan.kernel, right, column) != 1:
        return 0
    steps = (stride_in(plan.kernel, right, v) for v, extent in stage.reduce if extent != 1)
    return max((s for s in steps if isinstance(s, int)), default=0) * nbytes(right.dtype)


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
