"""How many vectors of channels a tile of windows goes through, one after the other."""

from __future__ import annotations

import math

from aicc.dtypes import nbytes
from aicc.symbolic import product, symbols
from aicc.tensor_ir.analysis import Stage
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


def vectors_beside(plan: Plan, stage: Stage, column: int, lanes: int) -> int:
    """Vectors of channels that each tile goes through, one after the other. Where pixels are so far
    apart that they fall into few sets of the first cache, those of a band do not stay there until
    the next vector; but what is next in memory is on its way already. As many as leave room for
    their weights."""
    c, columns = stage.axes[column]
    loads = [x for x in walk_expr(stage.value) if isinstance(x, Load)]
    data = [x for x in loads if plan.kernel.buffer(x.buffer).scope != "const"]
    pixels = [(v, e) for v, e in stage.axes if v is not None and v != c]
    if not pixels or not data or not isinstance(columns, int):
        return 1
    b = plan.kernel.buffer(data[0].buffer)
    pixel, row = pixels[-1]
    along = [n for n, i in enumerate(data[0].indices) if pixel in symbols(i)]
    apart = as_number(b.strides()[along[-1]]) if along else None
    if apart is None:
        return 1
    within = symbols(data[0].indices[along[-1]])
    above = nominal(product([e for v, e in stage.reduce if v not in within]))
    lines = (above + BAND) * nominal(b.shape[along[-1]])
    sets = WAY // math.gcd(apart * nbytes(b.dtype), WAY)
    if sets > FEW_SETS or min(lines, nominal(product(b.shape)) // columns) <= CROWDED * sets:
        return 1
    weights = nominal(product([e for _, e in stage.reduce])) * lanes * nbytes(b.dtype)
    room = MOST if len(data) == len(loads) else plan.target.l1d // 4 // weights
    some = (n for n in (8, 4, 2) if n <= min(room, MOST) and columns % (n * lanes) == 0)
    found = next(some, 1)
    # Few gain little, and the end of a row that only a run knows takes longer than they save.
    return found if found >= (sets / 2 if isinstance(row, int) else MOST) else 1
