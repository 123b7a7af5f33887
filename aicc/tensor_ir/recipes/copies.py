"""Local copies of what a kernel reads (padded inputs, panels): for which rows they are computed,
and how their own nests become vectors."""

from __future__ import annotations

from aicc.dtypes import nbytes
from aicc.symbolic import divides, product, proves_le
from aicc.tensor_ir.analysis import Stage
from aicc.tensor_ir.ir import Kernel, Op
from aicc.tensor_ir.recipes.common import BANDS, nominal, parallelise, stride_in, vector_loop
from aicc.tensor_ir.recipes.plan import Plan
from aicc.tensor_ir.schedule import Reorder, Split, Unroll, Vectorize
from aicc.tensor_ir.schedule_stages import ComputeAt
from aicc.tensor_ir.walk import loads_of, stmt_exprs, walk_expr

FEW = 4
"""Rows of a band at most where only a run knows how many rows there are."""


def compute_rows(plan: Plan, buffer: str, at: str, leading: list[str]) -> list[str]:
    """Computes a copy with a halo (a padded input) for the rows that iterations of `at` read: for
    several iterations together where the copy stays in cache, since their halos overlap.

    The loops around a tile, `at` replaced by the two that it was split into.
    """
    extent = plan.loop(at).extent
    alone = Plan(plan.kernel, plan.target)
    alone.do(ComputeAt(buffer, at, "stack"))
    once = nominal(product(alone.kernel.buffers[-1].shape))

    def near(kernel: Kernel) -> bool:
        made = kernel.buffers[-1]
        size = nominal(product(made.shape))
        # Rows of a window with gaps have few in common: together, they may copy more.
        return size * nbytes(made.dtype) <= plan.target.l2 // 4 and size < factor * once

    for factor in (8, 4, 2):
        even = isinstance(extent, int) and extent % factor == 0 and extent // factor >= BANDS
        if even or (factor <= FEW and not isinstance(extent, int)):
            split = Split(at, factor, "exact" if even else "short")
            steps = (split, ComputeAt(buffer, f"{at}.o", "stack"))
            if plan.attempt_if(near, *steps):
                vectorise_stage(plan, plan.newest_buffer())
                place = leading.index(at)
                return [*leading[:place], f"{at}.o", f"{at}.i", *leading[place + 1 :]]
    plan.do(ComputeAt(buffer, at, "stack"))
    vectorise_stage(plan, plan.newest_buffer())
    return leading


def copy_whole(plan: Plan, stage: Stage, lanes: int) -> None:
    """Vectorises the nest of a local map where it stands, ahead of what reads it."""
    names = [v.name for v in stage.variables]
    vector_loop(plan, names[-1], lanes, 2)
    parallelise(plan, *names[:-1][:2])


def vectorise_stage(plan: Plan, buffer: str, unroll: int = 2) -> None:
    """Vectorises the nest that computes a local map at some loop: over its last axis, or where that
    is shorter than a vector over one in which the loads are contiguous."""
    rank = len(plan.kernel.buffer(buffer).shape)
    loops = [f"{buffer}.{n}" for n in range(rank) if plan.has_loop(f"{buffer}.{n}")]
    if not loops:
        return
    lanes = plan.target.lanes(plan.kernel.buffer(buffer).dtype)
    last = plan.loop(loops[-1])
    if isinstance(last.extent, int) and last.extent < lanes:
        for name in loops[:-1]:
            loop = plan.loop(name)
            loads = [x for s in last.body for x in loads_of(s)]
            even = all(stride_in(plan.kernel, x, loop.var) in (0, 1) for x in loads)
            wide = not isinstance(loop.extent, int) or loop.extent >= lanes
            others = [n for n in loops if n != name]
            if even and wide and plan.attempt(Reorder((*others, name))):
                vector_loop(plan, name, lanes)
                return
    if isinstance(last.extent, int):
        vector_loop(plan, loops[-1], lanes, unroll)
        return
    _masked_rows(plan, loops, lanes)


def _masked_rows(plan: Plan, loops: list[str], lanes: int) -> None:
    """Vectors along rows that may be short, all of them masked. What is masked out is worked out
    once for all channels, which come inside."""
    last = plan.loop(loops[-1])
    tested = {
        v
        for s in last.body
        for e in stmt_exprs(s)
        for x in walk_expr(e)
        if isinstance(x, Op) and x.name == "select"
        for v in x.args[0].size_symbols()
    }
    vector_loop(plan, loops[-1], lanes, tail="guard")
    free = [n for n in loops[:-1] if plan.loop(n).var not in tested]
    bound = [n for n in loops[:-1] if n not in free]
    if free:
        plan.attempt(Reorder((*bound, f"{loops[-1]}.o", *free, f"{loops[-1]}.i")))


def copy_loops(plan: Plan, buffer: str, lanes: int) -> None:
    """Vectorises the nest that computes a copy over its last axis: in square blocks, which turn in
    registers, where the copy reads along another axis."""
    rank = len(plan.kernel.buffer(buffer).shape)
    *others, last = [n for a in range(rank) if plan.has_loop(n := f"{buffer}.{a}")]
    loop = plan.loop(last)
    (load,) = {x for s in loop.body for x in loads_of(s)}
    for name in others:
        along = plan.loop(name)
        if stride_in(plan.kernel, load, along.var) == 1 and lanes > 1:
            if proves_le(lanes, along.extent) and divides(lanes, loop.extent):
                plan.do(Split(last, lanes), Split(name, lanes, "peel"))
                plan.do(Reorder((f"{name}.o", f"{last}.o", f"{name}.i", f"{last}.i")))
                plan.do(Unroll(f"{name}.i"), Vectorize(f"{last}.i"))
                if plan.has_loop(f"{last}.i.t"):
                    plan.do(Vectorize(f"{last}.i.t"))
                return
    vector_loop(plan, last, lanes)
