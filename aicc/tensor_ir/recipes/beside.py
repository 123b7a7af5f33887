"""Windows whose pixels fall into few sets of the first cache: how many vectors of channels a tile
goes through, one after the other, or the rows that are copied."""

from __future__ import annotations

import math

from aicc.dtypes import nbytes
from aicc.symbolic import Sym, product, symbols
from aicc.tensor_ir.analysis import Stage, stage_of
from aicc.tensor_ir.ir import Load
from aicc.tensor_ir.recipes.common import as_number, nominal
from aicc.tensor_ir.recipes.plan import Plan
from aicc.tensor_ir.walk import walk_expr

WAY = 4096
"""Bytes after which addresses fall into the same set of the first cache again."""
FEW_SETS = 8
"""Sets that the lines of one vector of channels fall into, where those are few."""
CROWDED = 16
"""Lines of a set from which on they do not stay in the first cache."""
BAND = 8
"""Rows of results that one vector of channels runs over before the next one, about."""
MOST = 8
"""Vectors that a tile goes through at most."""
PILED = 64
"""Lines of a set from which on a copy of them pays."""
WIDE = 5
"""Rows that a window has at least for the copy to pay."""
COPIED = 0.75
"""The share of the first cache that copied rows may fill."""


def few_sets(plan: Plan, stage: Stage, column: int, crowded: int) -> int | None:
    """The sets of the first cache that the lines of one vector of channels fall into, where they
    are few and those of a band fill each with more than `crowded`; None otherwise."""
    c, columns = stage.axes[column]
    data = [x for x in _loads(stage) if plan.kernel.buffer(x.buffer).scope != "const"]
    pixels = [(v, e) for v, e in stage.axes if v is not None and v != c]
    if not pixels or not data or not isinstance(columns, int):
        return None
    b = plan.kernel.buffer(data[0].buffer)
    pixel, _ = pixels[-1]
    along = [n for n, i in enumerate(data[0].indices) if pixel in symbols(i)]
    apart = as_number(b.strides()[along[-1]]) if along else None
    if apart is None:
        return None
    lines = (_above(stage, data[0], pixel) + BAND) * nominal(b.shape[along[-1]])
    sets = WAY // math.gcd(apart * nbytes(b.dtype), WAY)
    fallen = min(lines, nominal(product(b.shape)) // columns)
    return sets if sets <= FEW_SETS and fallen > crowded * sets else None


def _loads(stage: Stage) -> list[Load]:
    return [x for x in walk_expr(stage.value) if isinstance(x, Load)]


def _above(stage: Stage, data: Load, pixel: Sym) -> int:
    """Rows of pixels that a window reads."""
    along = next(i for i in reversed(data.indices) if pixel in symbols(i))
    return nominal(product([e for v, e in stage.reduce if v not in symbols(along)]))


def vectors_beside(plan: Plan, stage: Stage, column: int, lanes: int) -> int:
    """Vectors of channels that each tile goes through, one after the other. Where pixels are so far
    apart that they fall into few sets of the first cache, those of a band do not stay there until
    the next vector; but what is next in memory is on its way already. As many as leave room for
    their weights."""
    sets = few_sets(plan, stage, column, CROWDED)
    if sets is None:
        return 1
    c, columns = stage.axes[column]
    row = [e for v, e in stage.axes if v is not None and v != c][-1]
    loads = _loads(stage)
    data = [x for x in loads if plan.kernel.buffer(x.buffer).scope != "const"]
    b = plan.kernel.buffer(data[0].buffer)
    assert isinstance(columns, int)
    weights = nominal(product([e for _, e in stage.reduce])) * lanes * nbytes(b.dtype)
    room = MOST if len(data) == len(loads) else plan.target.l1d // 4 // weights
    some = (n for n in (8, 4, 2) if n <= min(room, MOST) and columns % (n * lanes) == 0)
    found = next(some, 1)
    # Few gain little, and the end of a row that only a run knows takes longer than they save.
    return found if found >= (sets / 2 if isinstance(row, int) else MOST) else 1


def rows_copied(plan: Plan, stage: Stage, column: int, lanes: int) -> tuple[str, int] | None:
    """The padded data of windows with weights, of which a vector of channels is copied, its pixels
    side by side, for so many rows of results; None where they are read in place. A window reads
    an element as often as it has rows: from a copy that stays in the first cache, where in place
    its lines do not. The copy has its padding, too."""
    loads = _loads(stage)
    data = [x for x in loads if plan.kernel.buffer(x.buffer).scope != "const"]
    source = stage_of(plan.kernel, data[0].buffer) if len(data) == 1 else None
    numbers = all(isinstance(e, int) for _, e in stage.axes)
    if source is None or source.op is not None or len(loads) == 1 or not numbers:
        return None
    b = plan.kernel.buffer(source.buffer)
    pixels = [(v, e) for n, (v, e) in enumerate(stage.axes) if v is not None and n != column]
    if len(pixels) < 2 or few_sets(plan, stage, column, PILED) is None:
        return None
    (_, rows), (pixel, _) = pixels[-2:]
    assert pixel is not None and isinstance(rows, int)
    above = _above(stage, data[0], pixel)
    along = next(n for n, i in reversed([*enumerate(data[0].indices)]) if pixel in symbols(i))
    line = nominal(b.shape[along]) * lanes * nbytes(b.dtype)
    room = int(COPIED * plan.target.l1d) // line - above
    band = max((n for n in range(1, rows + 1) if rows % n == 0 and n <= room), default=0)
    return (b.name, band) if above >= WIDE and 2 * band >= min(rows, above) else None
