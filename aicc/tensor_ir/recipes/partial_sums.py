"""Long sums in parts. The error of a sum of n elements, one by one, grows with n; that of sums of
parts with the length and the number of these, see `Subtotals`. Sums along rows, which have as many
parts as lanes, need no others."""

from __future__ import annotations

import math

from aicc.dtypes import FLOATS
from aicc.symbolic import Size
from aicc.tensor_ir.ir import For, Reduce
from aicc.tensor_ir.recipes.plan import Plan
from aicc.tensor_ir.schedule import Split
from aicc.tensor_ir.schedule_subtotals import Subtotals
from aicc.tensor_ir.walk import walk_stmts

LONG = 64
"""Elements of a column that are added one by one."""
SHORT = 16
"""Elements of a part, at least: and no fewer than a quarter of what it might have."""


def split_parts(
    plan: Plan, total: str, depth: list[str], long: int
) -> tuple[list[str], str | None]:
    """Where the tile `total` has sums of more than `long` elements: loops for parts of about as
    many, or of the square root of their number where that is more; of those along the innermost
    loop where only a run knows the number.

    depth: the loops over what is added, outermost first, around loops over the tile alone. Returns
    what they are then, and the outermost over a part, for `add_parts`; None where there are none.
    """
    dtype = plan.kernel.buffer(total).dtype
    if dtype not in FLOATS or not _adds(plan.loop(depth[0])):
        return depth, None
    at = _boundary(depth, [plan.loop(n).extent for n in depth], long)
    if at is None:
        return depth, None
    name, part = at
    if not part:
        return depth, name
    plan.do(Split(name, part))
    n = depth.index(name)
    return [*depth[:n], f"{name}.o", f"{name}.i", *depth[n + 1 :]], f"{name}.i"


def add_parts(plan: Plan, loop: str) -> str | None:
    """Adds up in parts: what `loop` does is one of each. The buffer of the parts, whose loops are
    those of the tile; None where the loop's steps are not all in one loop any more."""
    name = loop if plan.has_loop(loop) else f"{loop}.o"
    whole = plan.has_loop(name) and not plan.has_loop(f"{loop}.t")
    return plan.newest_buffer() if whole and plan.attempt(Subtotals(name)) else None


def _adds(nest: For) -> bool:
    return all(s.op == "add" for s in walk_stmts((nest,)) if isinstance(s, Reduce))


def _boundary(depth: list[str], extents: list[Size], long: int) -> tuple[str, int] | None:
    """The outermost loop over a part, and how many of its iterations are one: 0 for all."""
    known = [e for e in extents if isinstance(e, int)]
    if len(known) < len(extents):
        last = extents[-1]
        short = isinstance(last, int) and last < SHORT
        return (depth[-1], 0) if len(depth) > 1 and not short else None
    elements = math.prod(known)
    if elements <= long:
        return None
    most, taken = max(long, int(2 * math.sqrt(elements))), 1
    least = max(SHORT, most // 4)
    for name, extent in zip(reversed(depth), reversed(known), strict=True):
        if taken * extent <= most:
            taken *= extent
            continue
        if taken < least:
            parts = [n for n in range(2, extent) if extent % n == 0 and n * taken <= most]
            return (name, parts[-1]) if parts and taken * parts[-1] >= least else None
        return depth[depth.index(name) + 1], 0
    return None
