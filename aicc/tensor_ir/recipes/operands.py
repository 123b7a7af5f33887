"""What is a product, and which part its axes and operands play in it."""

from __future__ import annotations

from dataclasses import dataclass

from aicc.tensor_ir.analysis import Stage
from aicc.tensor_ir.ir import Load, Op


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
