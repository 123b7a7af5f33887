"""Kernels with two bodies, of which the sizes choose one: what is fast for many elements wastes
most of its time on few.

    kernel @k(n):                      in x, const w1, w2, out y
        if index(n) < 8:               a condition on nothing but sizes
            one way to compute y       from x and w1
        else:
            another one                from x and w2

Both are kernels of their own with the same operands and results; each has its own constants, which
it may pack, and its own local buffers.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from aicc.symbolic import Size, mul, product
from aicc.tensor_ir.ir import Buffer, Expr, If, Kernel, Load, Reduce, Stmt, Store
from aicc.tensor_ir.walk import loads_of, map_body, map_expr, map_exprs, walk_stmts


@dataclass(frozen=True)
class Choice:
    """cond: which of two kernels runs, `then` where it holds."""

    cond: Expr
    then: Kernel
    orelse: Kernel


def choice_of(kernel: Kernel) -> Choice | None:
    """The two kernels between which a kernel chooses; None for any other one."""
    if len(kernel.body) != 1:
        return None
    (s,) = kernel.body
    if not isinstance(s, If) or not s.then or not s.orelse or loads_of(s.cond):
        return None
    then, orelse = (_used(body) for body in (s.then, s.orelse))
    if any(kernel.buffer(name).scope not in ("in", "out") for name in then & orelse):
        return None
    return Choice(s.cond, _side(kernel, s.then, then), _side(kernel, s.orelse, orelse))


def choose_between(cond: Expr, then: Kernel, orelse: Kernel) -> Kernel:
    """The kernel that chooses between two, whose operands and results of the same name are the
    same, but for their shapes: those of different shapes get a common one. What else of the second
    one has a name of the first one gets a new one; its constants follow those of the first."""
    forms = {b.name: (b.shape, b.pitch) for b in then.params if b.scope in ("in", "out")}
    others = {b.name: (b.shape, b.pitch) for b in orelse.params if b.name in forms}
    differ = {name for name, form in others.items() if forms[name] != form}
    then, orelse = _flat(then, differ), _flat(orelse, differ)
    mine = {b.name: b for b in then.buffers}
    taken = {*mine, *(b.name for b in orelse.buffers)}
    names: dict[str, str] = {}
    for b in orelse.buffers:
        if b.scope not in ("in", "out") and b.name in mine:
            names[b.name] = fresh_name(b.name, taken)
    other = renamed(orelse, names)
    params = {b.name: b for k in (then, other) for b in k.params}
    ordered = sorted(params.values(), key=lambda b: b.scope == "out")  # operands, then results
    local = [b for k in (then, other) for b in k.buffers if b.name not in params]
    sizes = {s.name: s for s in (*then.sizes, *orelse.sizes, *cond.size_symbols())}
    return Kernel(
        then.name,
        tuple(sizes[name] for name in sorted(sizes)),
        (*ordered, *local),
        (If(cond, then.body, other.body),),
    )


def renamed(kernel: Kernel, names: dict[str, str]) -> Kernel:
    """The kernel with other names for some buffers."""
    if not names:
        return kernel

    def load(e: Expr) -> Expr | None:
        if not isinstance(e, Load) or e.buffer not in names:
            return None
        inner = map_expr(e, lambda x: None if x is e else load(x), lambda size: size)
        assert isinstance(inner, Load)
        return Load(names[e.buffer], inner.indices, e.dtype)

    def target(s: Stmt) -> tuple[Stmt, ...]:
        if isinstance(s, Store | Reduce) and s.buffer in names:
            return (replace(s, buffer=names[s.buffer]),)
        return (s,)

    body = map_body(map_exprs(kernel.body, load), target)
    buffers = tuple(replace(b, name=names.get(b.name, b.name)) for b in kernel.buffers)
    return replace(kernel, buffers=buffers, body=body)


def _flat(kernel: Kernel, names: Collection[str]) -> Kernel:
    """The kernel with as few axes as can be for some parameters: one for what is walked evenly, so
    that equal places have equal forms."""
    if not names:
        return kernel
    runs = {b.name: _runs(b) for b in kernel.params if b.name in names}

    def at(name: str, indices: tuple[Size, ...]) -> tuple[Size, ...]:
        shape = kernel.buffer(name).shape
        made: list[Size] = []
        for run in runs[name]:
            total: Size = 0
            for axis in run:
                total = mul(total, shape[axis]) + indices[axis]
            made.append(total)
        return tuple(made)

    def load(e: Expr) -> Expr | None:
        if not isinstance(e, Load) or e.buffer not in names:
            return None
        inner = map_expr(e, lambda x: None if x is e else load(x), lambda size: size)
        assert isinstance(inner, Load)
        return Load(e.buffer, at(e.buffer, inner.indices), e.dtype)

    def target(s: Stmt) -> tuple[Stmt, ...]:
        if isinstance(s, Store | Reduce) and s.buffer in names:
            return (replace(s, indices=at(s.buffer, s.indices)),)
        return (s,)

    def flat(b: Buffer) -> Buffer:
        if b.name not in names:
            return b
        shape = tuple(product([b.shape[axis] for axis in run]) for run in runs[b.name])
        strides = [b.strides()[run[-1]] for run in runs[b.name]]
        return replace(b, shape=shape, pitch=()).with_pitch(strides)

    body = map_body(map_exprs(kernel.body, load), target)
    return replace(kernel, buffers=tuple(map(flat, kernel.buffers)), body=body)


def _runs(b: Buffer) -> list[list[int]]:
    """The axes that are walked as one (`even_runs`), outermost first; those of one element are in
    none."""
    found: list[list[int]] = []
    strides = b.strides()
    for axis, (extent, stride) in enumerate(zip(b.shape, strides, strict=True)):
        if extent == 1:
            continue
        if found and strides[found[-1][-1]] == stride * extent:
            found[-1].append(axis)
        else:
            found.append([axis])
    return found


def _used(body: tuple[Stmt, ...]) -> set[str]:
    """Names of the buffers that statements read or write."""
    found = {x.buffer for s in body for x in loads_of(s)}
    return found | {s.buffer for s in walk_stmts(body) if isinstance(s, Store | Reduce)}


def _side(kernel: Kernel, body: tuple[Stmt, ...], used: Collection[str]) -> Kernel:
    def belongs(b: Buffer) -> bool:
        return b.name in used or b.scope == "out"

    return replace(kernel, buffers=tuple(filter(belongs, kernel.buffers)), body=body)


def fresh_name(name: str, taken: set[str]) -> str:
    """A name like `name` that is not taken; it is then."""
    n = 2
    while f"{name}_{n}" in taken:
        n += 1
    taken.add(f"{name}_{n}")
    return f"{name}_{n}"
