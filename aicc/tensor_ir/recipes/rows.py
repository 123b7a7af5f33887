"""Reductions along rows that are contiguous in memory, and what is computed from them: softmax,
normalisations, means. Every stage is computed for one row, while the row is in L1.

    parallel row: s = reduce(x[row]);  t = map(x[row], s);  ...;  y[row] = map(...)

Of few long rows, or one, the parts are shared out: s = reduce(p), p[i] = reduce(x[row, part i]).
"""

from __future__ import annotations

from aicc.errors import ScheduleError
from aicc.symbolic import Size, product, substitute, symbols
from aicc.tensor_ir.analysis import Stage, readers, stage_of
from aicc.tensor_ir.ir import For, Kernel, Reduce
from aicc.tensor_ir.recipes.common import (
    all_linear,
    inline_movements,
    is_costly,
    nominal,
    one_of_a_row,
    parallelise,
    stride_in,
    vector_loop,
)
from aicc.tensor_ir.recipes.operands import roles
from aicc.tensor_ir.recipes.plan import Plan
from aicc.tensor_ir.schedule import Fuse, Split, Unroll, Vectorize
from aicc.tensor_ir.schedule_parts import Parts
from aicc.tensor_ir.schedule_stages import CacheWrite, ComputeAt, Inline, Rfactor
from aicc.tensor_ir.walk import walk_stmts

PART = 8192
"""Elements of a part of a long row, about."""
LONG = 8 * PART
"""Elements of a row, from which on its reductions are worth sharing out."""
FEW = 8
"""Rows that threads can share in about equal parts, at least, unless they are even in number."""
UNROLL = 4
"""Vectors of partial results: enough independent chains to hide the latency of an addition."""


def rows(plan: Plan) -> None:
    """Schedules a kernel of maps and reductions that share their outer axes."""
    inline_movements(plan)
    for stage in plan.stages():
        b = plan.kernel.buffer(stage.buffer)
        if b.scope == "out" and stage.op is not None:
            plan.do(CacheWrite(stage.buffer))
    _inline_cheap(plan)
    finals = [s for s in plan.stages() if plan.kernel.buffer(s.buffer).scope == "out"]
    if len(plan.stages()) != len(plan.kernel.body) or len(finals) != 1:
        raise ScheduleError("not one chain of stages", plan.kernel)
    (final,) = finals
    at = _row_loop(plan, final)
    # Of several rows, a row's map that two stages read stays near the core.
    if _few(final, at) and (at is None or not _long_maps(plan)):
        kernel, done = plan.kernel, len(plan.steps)
        try:
            _in_parts(plan)
            _chain(plan, final.buffer, at, True)
            return
        except ScheduleError:
            plan.kernel = kernel
            del plan.steps[done:]
    _chain(plan, final.buffer, at, False)


def _chain(plan: Plan, out: str, at: str | None, few: bool) -> None:
    """Schedules stages that share the axes down to the loop `at`, if any, of the last one, that of
    `out`; of few rows, what is done for one is shared out as well."""
    if at is None:
        _whole(plan)
        return
    final = plan.stage(out)
    order = [s.buffer for s in plan.stages() if s.buffer != final.buffer]
    made: list[tuple[str, Stage]] = []
    for buffer in reversed(order):
        stage = plan.stage(buffer)
        plan.do(ComputeAt(buffer, at, "stack"))
        made.append((plan.newest_buffer(), stage))
    names = [v.name for v, _ in final.axes if v is not None]
    for name, stage in made:
        vectorise_rows(plan, name, stage)
    inner = names[names.index(at) + 1 :]
    if inner:
        vector_loop(plan, inner[-1], _lanes(plan, final.buffer), 1 if is_costly(final.value) else 2)
    parallelise(plan, *names[: names.index(at) + 1])
    if few and isinstance(final.axes[names.index(at)][1], int):
        _share_row(plan)


def _share_row(plan: Plan) -> None:
    """Shares out what is done for each row, too."""
    for f in walk_stmts(plan.kernel.body):
        if isinstance(f, For) and f.kind == "parallel":
            for s in f.body:
                if isinstance(s, For) and s.kind == "for":
                    parallelise(plan, s.var.name)


def dots(kernel: Kernel, stage: Stage) -> bool:
    """True for products of one row with each column of a matrix where columns are what lies side by
    side in memory, but for constants, which are packed: one query, and the keys before it."""
    found = roles(stage)
    if found is None or found.row is not None or len(stage.reduce) != 1:
        return False
    ((depth, _),) = stage.reduce
    sides = (found.left, found.right)
    return all(kernel.buffer(x.buffer).scope != "const" for x in sides) and all(
        stride_in(kernel, x, depth) == 1 for x in sides
    )


def _lanes(plan: Plan, buffer: str) -> int:
    return plan.target.lanes(plan.kernel.buffer(buffer).dtype)


def _inline_cheap(plan: Plan) -> None:
    """Inlines maps that are cheap, or read once; costly ones stay stages that are read twice, or
    by each element of a row."""
    for stage in reversed(plan.stages()):
        if stage.op is not None or plan.kernel.buffer(stage.buffer).scope != "temp":
            continue
        uses = len(readers(plan.kernel, stage.buffer))
        reduction = any(
            stage_of(plan.kernel, b.name) is not None
            for b in plan.kernel.buffers
            if b.scope == "temp"
        )
        often = uses > 1 or one_of_a_row(plan, stage)
        if not is_costly(stage.value) or not often or not reduction:
            plan.do(Inline(stage.buffer))


def _row_loop(plan: Plan, final: Stage) -> str | None:
    """The innermost loop of the last stage that every reduction shares: its row."""
    shared = len(final.axes)
    for stage in plan.stages():
        if stage.op is None:
            continue
        shape = [e for _, e in stage.axes]
        own = 0
        for axis, (_, extent) in enumerate(final.axes):
            if axis < len(shape) and shape[axis] == extent:
                own = axis + 1
            else:
                break
        shared = min(shared, own)
    names = [v.name for v, _ in final.axes[:shared] if v is not None]
    return names[-1] if names else None


def _whole(plan: Plan) -> None:
    """No axis is shared: each stage runs over its whole buffer, with vectors inside."""
    for stage in plan.stages():
        if stage.op is None:
            _map(plan, stage)
        elif stage.reduce:
            depth = [v.name for v, _ in stage.reduce]
            _vector_reduction(plan, _joined(plan, depth, stage.buffer), stage.buffer)
            parallelise(plan, *(v.name for v in stage.variables))


def _in_parts(plan: Plan) -> None:
    """Long reductions in parts, which threads share. Maps of as many elements that two others read
    are computed twice, rather than written to memory and read again."""
    for buffer in reversed(_long_maps(plan)):
        if len(readers(plan.kernel, buffer)) <= 2:
            plan.do(Inline(buffer))
    for stage in plan.stages():
        if stage.op is None or nominal(product([e for _, e in stage.reduce])) < LONG:
            continue
        _joined(plan, [v.name for v, _ in stage.reduce], stage.buffer)
        (_, extent), *inner = plan.stage(stage.buffer).reduce
        size = max(1, PART // max(1, nominal(product([e for _, e in inner]))))
        plan.attempt(Parts(stage.buffer, _divisor(extent, size)))


def _long_maps(plan: Plan) -> list[str]:
    """Local maps of as many elements as a long row."""
    return [
        s.buffer
        for s in plan.stages()
        if s.op is None
        and plan.kernel.buffer(s.buffer).scope == "temp"
        and nominal(product([e for _, e in s.axes])) >= LONG
    ]


def _divisor(extent: Size, size: int) -> int:
    """About `size`: of a number, so that there is no shorter part, if that can be."""
    if isinstance(extent, int):
        for step in (64, 16, 1):  # whole vectors, where parts have as many
            for n in range(size - size % step, size // 2, -step):
                if extent % n == 0:
                    return n
    return size


def _few(final: Stage, at: str | None) -> bool:
    """True for rows that threads cannot share, or may not be able to where only a run counts
    them."""
    count: Size = 1
    for v, extent in final.axes if at is not None else ():
        count = count * substitute(extent, dict.fromkeys(symbols(extent), 1))
        if v is not None and v.name == at:
            break
    return isinstance(count, int) and count < FEW and count % 2 == 1


def _map(plan: Plan, stage: Stage) -> None:
    """Vectors along the last axis of a map, shared out."""
    names = [v.name for v in stage.variables]
    if names:
        vector_loop(plan, names[-1], _lanes(plan, stage.buffer))
        blocks = f"{names[-1]}.o"
        parallelise(plan, *names[:-1], *([blocks] if plan.has_loop(blocks) else ()))


def _joined(plan: Plan, depth: list[str], buffer: str) -> str:
    """The innermost loop of a reduction into `buffer`, the ones around it joined to it where its
    loads stay linear: what lies side by side is one row."""
    (*outer, last) = depth
    for name in reversed(outer):
        if not plan.attempt_if(lambda k: all_linear(k, {buffer}), Fuse(name, last)):
            break
        last = f"{name}.{last}"
    return last


def vectorise_rows(plan: Plan, name: str, stage: Stage) -> None:
    """Vectorises the nest `name` that computes some rows of a stage."""
    if stage.op is None:
        last = f"{name}.{len(stage.axes) - 1}"
        if plan.has_loop(last):
            vector_loop(plan, last, _lanes(plan, name), 1)
        return
    depth = [f"{name}.k{n}" for n in range(len(stage.reduce)) if plan.has_loop(f"{name}.k{n}")]
    if depth:
        _vector_reduction(plan, _joined(plan, depth, name), name)


def _vector_reduction(plan: Plan, loop: str, buffer: str) -> None:
    """Reduces with vectors of partial results; what is left over joins them under a mask."""
    lanes = _lanes(plan, buffer)
    extent: Size = plan.loop(loop).extent
    unroll = UNROLL
    if isinstance(extent, int):
        if extent < 2 * lanes:
            if not _single_reduce(plan, loop):
                return
            if extent <= lanes:
                plan.attempt(Vectorize(loop))
                return
        while unroll > 1 and extent < lanes * unroll:
            unroll //= 2
    if not plan.attempt(Rfactor(loop, lanes * unroll, "mask")):
        return
    final = f"{loop}.f"
    if unroll > 1:  # vector with vector first, so that lanes are combined only once
        plan.do(Rfactor(final, lanes))
        for part in (f"{final}.s", f"{final}.i", f"{final}.f"):
            plan.do(Vectorize(part))
        plan.do(Unroll(f"{final}.o"))
    else:
        plan.do(Vectorize(final))
    for name in (f"{loop}.s", f"{loop}.i", f"{loop}.t"):
        if not plan.has_loop(name):
            continue
        if unroll == 1:
            plan.do(Vectorize(name))
        else:
            plan.do(Split(name, lanes), Vectorize(f"{name}.i"), Unroll(f"{name}.o"))


def _single_reduce(plan: Plan, loop: str) -> bool:
    body = plan.loop(loop).body
    return len(body) == 1 and isinstance(body[0], Reduce)
