"""What a kernel of two matrix products with rows between them consists of: see `chained`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from aicc.errors import ScheduleError
from aicc.tensor_ir.analysis import Stage, readers, stages
from aicc.tensor_ir.ir import Kernel, Load
from aicc.tensor_ir.recipes.common import (
    inline_movements,
    is_costly,
    one_of_a_row,
    value_of,
    with_epilogue,
)
from aicc.tensor_ir.recipes.operands import Roles, product_of, roles
from aicc.tensor_ir.recipes.plan import Plan
from aicc.tensor_ir.schedule_axes import FuseAxes
from aicc.tensor_ir.schedule_stages import Inline
from aicc.tensor_ir.walk import walk_expr


def has_chain(kernel: Kernel) -> bool:
    """True where the first and the last reduction are matrix products of operands in memory, with
    reductions between them that are none."""
    found = [s for s in stages(kernel) if s.op is not None]
    if len(found) < 3:
        return False
    products = [product_of(s) is not None for s in found]
    return products[0] and products[-1] and not any(products[1:-1])


@dataclass(frozen=True)
class Parts:
    """Names of stages: the `first` product; `scores`, a map of it that the others read instead (or
    the product itself); `rows`, what is made of those, of which the last is the left operand of the
    `second` product; the result `out`."""

    first: str
    scores: str
    rows: tuple[str, ...]
    second: str
    out: str

    @property
    def left(self) -> str:
        return self.rows[-1]


def parts_of(plan: Plan) -> Parts:
    """Inlines what is cheap, and names what is left."""
    inline_movements(plan)
    reductions = [s.buffer for s in plan.stages() if s.op is not None]
    first, second = reductions[0], reductions[-1]
    found = roles(plan.stage(second))
    if found is None or found.row is None:
        raise ScheduleError(f"{second} is not a matrix product", plan.kernel)
    second, out = with_epilogue(plan, second)
    found = roles(plan.stage(second))
    assert found is not None
    left = found.left.buffer
    _inline_maps(plan, left, lambda s: len(readers(plan.kernel, s.buffer)) == 1)
    scores = _scores(plan, first, left)
    _inline_maps(plan, left, lambda s: s.buffer != scores and not is_costly(s.value))
    names = [s.buffer for s in plan.stages()]
    if len(names) != len(plan.kernel.body) or names[0] != first or names[-2:] != [second, out]:
        raise ScheduleError("not a product, rows and a product", plan.kernel)
    if left not in names[1:-2]:
        raise ScheduleError(f"{second} is no product of rows", plan.kernel)
    names = [n for n in names[1:-2] if n not in (left, scores)]
    return Parts(first, scores, (*names, left), second, out)


def _inline_maps(plan: Plan, left: str, wanted: Callable[[Stage], bool]) -> None:
    """Inlines local maps that are wanted so; what is costly stays one value for each row."""
    for stage in reversed(plan.stages()):
        local = plan.kernel.buffer(stage.buffer).scope == "temp"
        if stage.op is not None or not local or stage.buffer == left or not wanted(stage):
            continue
        if not (is_costly(stage.value) and one_of_a_row(plan, stage)):
            plan.do(Inline(stage.buffer))


def _scores(plan: Plan, first: str, left: str) -> str:
    """The map of the first product that is cheap and all that reads it, or else the product."""
    found = [s for s in plan.stages() if s.position in readers(plan.kernel, first)]
    if len(found) != 1 or found[0].op is not None or found[0].buffer == left:
        return first
    (stage,) = found
    if is_costly(stage.value) or not _join_axes(plan, stage.buffer, first):
        return first
    return stage.buffer


def _join_axes(plan: Plan, buffer: str, like: str) -> bool:
    """Joins axes of a stage until it has the shape of another: windows that a mask tells apart are
    one axis of the products. Whether that is possible."""
    wanted = plan.kernel.buffer(like).shape
    while (shape := plan.kernel.buffer(buffer).shape) != wanted:
        a = next((n for n, (d, e) in enumerate(zip(shape, wanted, strict=False)) if d != e), 0)
        joins = len(shape) > len(wanted) and shape[a] * shape[a + 1] == wanted[a]
        if not joins or not plan.attempt(FuseAxes(buffer, a)):
            return False
    return True


def check_rows(plan: Plan, parts: Parts) -> None:
    """Raises unless each stage between the products is made of its own row of the one before."""
    local = {parts.first, parts.scores, *parts.rows}
    for name in dict.fromkeys((parts.scores, *parts.rows)):
        if name == parts.first:
            continue
        stage = plan.stage(name)
        own = [value_of(v) for v, _ in stage.axes[:-1]]
        shape = plan.kernel.buffer(parts.first).shape
        if plan.kernel.buffer(name).shape[:-1] != shape[:-1]:
            raise ScheduleError(f"{name} has other rows", plan.kernel)
        for load in (x for x in walk_expr(stage.value) if isinstance(x, Load)):
            if load.buffer in local and list(load.indices[:-1]) != own:
                raise ScheduleError(f"{name} reads another row: {load}", plan.kernel)


def check_products(plan: Plan, parts: Parts) -> tuple[Roles, Roles]:
    """The roles of the products: [batch.., row, column] for the first, for the second any order
    with the column last. Raises where they are not as the recipe needs them."""
    made: list[Roles] = []
    for name in (parts.first, parts.second):
        stage = plan.stage(name)
        found = roles(stage)
        if found is None or found.row is None or len(stage.reduce) != 1:
            raise ScheduleError(f"{name} is not a product of matrices", plan.kernel)
        if found.column != len(stage.axes) - 1:
            raise ScheduleError(f"{name} has its columns apart", plan.kernel)
        made.append(found)
    one, two = made
    if one.row != len(plan.stage(parts.first).axes) - 2 or two.row is None:
        raise ScheduleError(f"{parts.first} has its rows apart", plan.kernel)
    second = plan.stage(parts.second)
    own = [value_of(v) for n, (v, _) in enumerate(second.axes[:-1]) if n != two.row]
    *batch, row, depth = two.left.indices
    last = [value_of(second.axes[two.row][0]), value_of(second.reduce[0][0])]
    if sorted(map(str, batch)) != sorted(map(str, own)) or [row, depth] != last:
        raise ScheduleError(f"{parts.left} is not read row by row", plan.kernel)
    operands = [one.left.buffer, one.right.buffer, two.right.buffer]
    # Weights are packed, and read once for all rows: their products have a recipe of their own.
    if any(plan.kernel.buffer(n).scope != "in" for n in operands):
        raise ScheduleError("the operands are not inputs", plan.kernel)
    return one, two
