"""The order in which a product goes through its depth, where that is free.

A known right operand can be laid out in any order, so the left one decides: features of images that
lie channels last, and that a reshape lists channel by channel, are read pixel by pixel.

    for c: for p: acc += x[row, p, c] * w[c*P + p, column]
    ->  for p: for c: acc += x[row, p, c] * w'[p, c, column]
"""

from __future__ import annotations

from aicc.symbolic import Size, Sym, coefficient, symbols
from aicc.tensor_ir.ir import Load
from aicc.tensor_ir.recipes.common import all_linear, stride_in
from aicc.tensor_ir.recipes.operands import roles
from aicc.tensor_ir.recipes.plan import Plan
from aicc.tensor_ir.schedule import Fuse, Reorder
from aicc.tensor_ir.schedule_axes import FuseAxes


def order_depth(plan: Plan, buffer: str) -> None:
    """Puts the reduction loops of the product into the order of the left operand's strides, where
    the right operand is a constant with one axis for two of them; see `words_of`, which lays out
    that axis."""
    found = roles(plan.stage(buffer))
    if found is None:
        return
    right = plan.kernel.buffer(found.right.buffer)
    if right.scope != "const" or right.pack:
        return
    while _join(plan, buffer):
        pass
    found = roles(plan.stage(buffer))
    loops = plan.stage(buffer).reduce
    if found is None or len(loops) != 2:
        return
    (outer, _), (inner, _) = loops
    far, near = (stride_in(plan.kernel, found.left, v) for v in (outer, inner))
    mixed = any({outer, inner} <= symbols(i) for i in found.right.indices)
    if mixed and isinstance(far, int) and isinstance(near, int) and 0 < far < near:
        plan.attempt(Reorder((inner.name, outer.name)))


def _join(plan: Plan, buffer: str) -> bool:
    """Joins two neighbouring reduction loops that both operands go through evenly."""
    stage = plan.stage(buffer)
    found = roles(stage)
    assert found is not None
    left, right = found.left, found.right
    for (outer, _), (inner, extent) in zip(stage.reduce, stage.reduce[1:]):
        axis = next((n for n, i in enumerate(left.indices) if symbols(i) == {outer}), None)
        even = all(_even(plan, x, outer, inner, extent) for x in (left, right))
        together = any({outer, inner} <= symbols(i) for i in right.indices)
        if axis is None or not even or not together:
            continue
        join = FuseAxes(left.buffer, axis), Fuse(outer.name, inner.name)
        if plan.attempt_if(lambda k: all_linear(k, {buffer}), *join):
            return True
    return False


def _even(plan: Plan, load: Load, outer: Sym, inner: Sym, extent: Size) -> bool:
    """True where the next step of the loop `outer` is the one after the last of `inner`."""
    far, near = (stride_in(plan.kernel, load, v) for v in (outer, inner))
    return far is not None and near is not None and far == near * extent


def words_of(right: Load, axis: int, order: dict[Sym, int]) -> dict[str, int]:
    """The words of a layout (`Pack`) for an axis of the right operand, with the place of each: the
    innermost reduction loop that it varies with, -1 for none. order: the places of these loops."""
    mine = [v for v in symbols(right.indices[axis]) if v in order]
    if len(mine) == 2:
        steps = {v: coefficient(right.indices[axis], v) for v in mine}
        inner = next((v for v in mine if steps[v] == 1), None)
        outer = next((v for v in mine if v is not inner), None)
        if inner is not None and outer is not None and order[inner] < order[outer]:
            tile = steps[outer]
            if isinstance(tile, int) and tile > 1:
                return {f"{axis}%{tile}": order[inner], f"{axis}/{tile}": order[outer]}
    return {str(axis): max((order[v] for v in mine), default=-1)}
