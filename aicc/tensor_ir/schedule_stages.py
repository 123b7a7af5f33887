"""Schedule steps on whole stages: where a buffer is computed, where it lives, its layout."""

from __future__ import annotations

from dataclasses import dataclass, replace

from aicc.symbolic import (
    Size,
    Sym,
    add,
    coefficient,
    maximum,
    mul,
    opaques,
    proves_le,
    recombine,
    substitute,
    symbols,
    value_range,
)
from aicc.tensor_ir.analysis import (
    Stage,
    bounds,
    enclosing,
    readers,
    reads,
    stage_of,
    surely_le,
    writes,
)
from aicc.tensor_ir.builder import identity
from aicc.tensor_ir.dependence import Ranges, accesses, loaded_by
from aicc.tensor_ir.ir import (
    LOCAL_SCOPES,
    Buffer,
    Expr,
    For,
    If,
    Index,
    Kernel,
    Load,
    Reduce,
    Stmt,
    Store,
    call,
    map_body,
    map_expr,
    map_exprs,
    substitute_body,
    walk_stmts,
)
from aicc.tensor_ir.schedule import (
    Step,
    below,
    fresh_variable,
    replace_loop,
    require_loop,
    unused_names,
)


def redirect(
    body: tuple[Stmt, ...], buffer: str, target: str, shift: tuple[Size, ...]
) -> tuple[Stmt, ...]:
    """Statements with loads of `buffer[i]` turned into loads of `target[i - shift]`."""

    def one(e: Expr) -> Expr | None:
        if isinstance(e, Load) and e.buffer == buffer:
            inner = map_expr(e, lambda x: one(x) if x is not e else None, lambda s: s)
            assert isinstance(inner, Load)
            moved = tuple(add(i, mul(s, -1)) for i, s in zip(inner.indices, shift, strict=True))
            return Load(target, moved, e.dtype)
        return None

    return map_exprs(body, one)


def drop_unread(kernel: Kernel, buffer: str) -> Kernel:
    """Without the stage of a local buffer that nothing reads any more."""
    if kernel.buffer(buffer).scope in ("in", "out", "const") or readers(kernel, buffer):
        return kernel
    stage = stage_of(kernel, buffer)
    if stage is None:
        return kernel
    body = kernel.body[: stage.position] + kernel.body[stage.position + 1 :]
    return replace(kernel, body=body, buffers=tuple(b for b in kernel.buffers if b.name != buffer))


def fresh_buffer(kernel: Kernel, name: str) -> str:
    """`name`, with a number where a buffer has that name."""
    taken = {b.name for b in kernel.buffers}
    base, n = name, 1
    while name in taken:
        n += 1
        name = f"{base}.{n}"
    return name


def require_same_sources(step: Step, kernel: Kernel, stage: Stage, last: int) -> None:
    """Raises unless every statement that follows the stage, up to position `last`, leaves what the
    stage reads as it is: only then it may be computed there instead."""
    sources = set(reads(kernel.body[stage.position]))
    for s in kernel.body[stage.position + 1 : last + 1]:
        for name in writes(s):
            if name in sources:
                raise step.fail(kernel, f"{name}, which {stage.buffer} reads, changes after it")


@dataclass(frozen=True)
class Inline(Step):
    """B[i] = f(i);  y[j] = g(B[h(j)])   ->   y[j] = g(f(h(j)))

    Precondition: B is a local buffer computed by one stage without reduction; it is read only after
    that, and what f reads does not change before.
    """

    buffer: str
    name = "inline"

    def apply(self, kernel: Kernel) -> Kernel:
        stage = stage_of(kernel, self.buffer)
        if stage is None or stage.op is not None:
            raise self.fail(kernel, f"{self.buffer} is not computed by one stage of stores")
        if kernel.buffer(self.buffer).scope == "out":
            raise self.fail(kernel, f"{self.buffer} is a result of the kernel")
        positions = readers(kernel, self.buffer)
        if any(n < stage.position for n in positions):
            raise self.fail(kernel, f"{self.buffer} is read before it is computed")
        require_same_sources(self, kernel, stage, max(positions, default=0))
        memo: dict[Load, Expr] = {}

        def one(e: Expr) -> Expr | None:
            if not (isinstance(e, Load) and e.buffer == self.buffer):
                return None
            if e not in memo:
                inner = map_expr(e, lambda x: one(x) if x is not e else None, lambda s: s)
                assert isinstance(inner, Load) and stage is not None
                mapping: dict[Sym, Size] = {
                    v: i
                    for (v, _), i in zip(stage.axes, inner.indices, strict=True)
                    if v is not None
                }
                memo[e] = stage.value.substitute_sizes(mapping)
            return memo[e]

        body = kernel.body[: stage.position] + kernel.body[stage.position + 1 :]
        buffers = tuple(b for b in kernel.buffers if b.name != self.buffer)
        return replace(kernel, body=map_exprs(body, one), buffers=buffers)


@dataclass(frozen=True)
class ComputeAt(Step):
    """Computes what one iteration of `loop` needs of `buffer`, inside that loop.

    B[i] = f(i) for all i;  for j: y[j] = g(B[..])
    ->  for j: { B'[i'] = f(lo(j) + i') for i' in 0..extent(j);  y[j] = g(B'[.. - lo(j)]) }

    lo and extent come from the indices of the loads inside the loop (region inference); halos of a
    window and rows of a reduction follow. B' has `scope`; loops of the new nest are named
    `B'.0`, `B'.1`, ... for the axes and `B'.k0`, ... for the reduction. The old stage goes once
    nothing reads it. Elements that may be outside of B, because a load runs only under a condition
    or the region is wider than what is read, are computed under a condition.
    Precondition: B is a buffer computed by one stage before the loop; what f reads does not change
    in between; the indices are monotone in the loops inside, and their ranges can be compared; the
    largest extent is known from the kernel's sizes (as a number for a register buffer); the loop is
    no vector; B' is in memory of its own for each iteration of a parallel loop.
    """

    buffer: str
    loop: str
    scope: str = "stack"
    name = "compute_at"

    def apply(self, kernel: Kernel) -> Kernel:
        stage = stage_of(kernel, self.buffer)
        loop = require_loop(self, kernel, self.loop)
        if stage is None:
            raise self.fail(kernel, f"{self.buffer} is not computed by one stage")
        around = [*(s for s in enclosing(kernel, loop) if isinstance(s, For)), loop]
        self._check_place(kernel, stage, around)
        region, unsure = self._region(kernel, around, stage)
        shape = self._shape(kernel, region, around)
        name = fresh_buffer(kernel, f"{self.buffer}.{self.loop}")
        old = kernel.buffer(self.buffer)
        kernel = kernel.with_buffer(Buffer(name, old.dtype, shape, self.scope))
        nest = self._nest(kernel, stage, name, region, unsure)
        shift = tuple(lo for lo, _ in region)
        body = redirect(loop.body, self.buffer, name, shift)
        kernel = replace_loop(kernel, loop, (replace(loop, body=(*nest, *body)),))
        return drop_unread(kernel, self.buffer)

    def _check_place(self, kernel: Kernel, stage: Stage, around: list[For]) -> None:
        position = next(
            n for n, s in enumerate(kernel.body) if any(x is around[-1] for x in walk_stmts((s,)))
        )
        if position <= stage.position:
            raise self.fail(kernel, f"{self.buffer} is computed in or after the loop")
        require_same_sources(self, kernel, stage, position)
        if self.scope not in LOCAL_SCOPES:
            raise self.fail(kernel, f"the scope is one of {', '.join(LOCAL_SCOPES)}")
        if any(f.kind == "vector" for f in around):
            raise self.fail(kernel, "a vector loop contains no other loop")
        if any(f.kind == "parallel" for f in around):
            if self.scope == "temp":
                raise self.fail(kernel, "iterations of a parallel loop would share the buffer")
            for n in reads(kernel.body[stage.position]):
                if kernel.buffer(n).scope in ("stack", "register"):
                    raise self.fail(kernel, f"{n} is not seen inside a parallel loop")

    def _region(
        self, kernel: Kernel, around: list[For], stage: Stage
    ) -> tuple[tuple[tuple[Size, Size], ...], tuple[bool, ...]]:
        """(lo, extent) of what the loop's body reads, per axis; whether that may leave B."""
        found = accesses(around[-1].body)
        loads = [a for a in found if a.buffer == self.buffer]
        if not loads:
            raise self.fail(kernel, f"nothing in the loop reads {self.buffer}")
        outer = {f.var: (f.lo, f.hi) for f in around}
        conditional = any(a.conditional for a in loads)
        exact = not conditional and all(
            proves_le(lo + 1, hi) for a in loads for lo, hi in a.ranges.values()
        )
        written = {a.buffer for a in found if a.writes}
        region: list[tuple[Size, Size]] = []
        unsure: list[bool] = []
        for axis, (_, whole) in enumerate(stage.axes):
            lo: Size | None = None
            hi: Size | None = None
            for a in loads:
                ends = bounds(a.indices[axis], a.ranges)
                if ends is None:
                    raise self.fail(kernel, f"the index {a.indices[axis]} is too complex")
                lo = ends[0] if lo is None else _least(lo, ends[0], outer)
                hi = ends[1] if hi is None else _greatest(hi, ends[1], outer)
                if lo is None or hi is None:
                    raise self.fail(kernel, f"loads of {self.buffer} at unrelated indices")
            assert lo is not None and hi is not None
            lo, hi = recombine(lo), recombine(hi)
            if opaques(lo) or opaques(hi):
                if conditional or loaded_by((lo, hi)) & written:
                    raise self.fail(kernel, f"{lo} cannot be known at the beginning of the loop")
            extent = add(add(hi, mul(lo, -1)), 1)
            linear = all(
                coefficient(a.indices[axis], v) is not None for a in loads for v in a.ranges
            )
            fits = (exact and linear) or (
                surely_le(0, lo, outer) and surely_le(add(lo, extent), whole, outer)
            )
            if not fits and isinstance(whole, int):
                top = value_range(extent)[1]
                if top is None or top >= whole:
                    lo, extent, fits = 0, whole, True
            region.append((lo, extent))
            unsure.append(not fits)
        return tuple(region), tuple(unsure)

    def _shape(
        self, kernel: Kernel, region: tuple[tuple[Size, Size], ...], around: list[For]
    ) -> tuple[Size, ...]:
        """The largest region, in sizes of the kernel."""
        outer = {f.var: (f.lo, f.hi) for f in around}
        shape: list[Size] = []
        for _, extent in region:
            ends = None if opaques(extent) else bounds(extent, outer)
            if ends is None or not symbols(ends[1]) <= set(kernel.sizes):
                raise self.fail(kernel, f"the extent {extent} has no bound in the kernel's sizes")
            if self.scope == "register" and not isinstance(ends[1], int):
                raise self.fail(kernel, f"a register buffer has a constant shape, not {ends[1]}")
            shape.append(maximum(0, ends[1]))
        return tuple(shape)

    def _nest(
        self,
        kernel: Kernel,
        stage: Stage,
        name: str,
        region: tuple[tuple[Size, Size], ...],
        unsure: tuple[bool, ...],
    ) -> tuple[Stmt, ...]:
        taken = unused_names(kernel)
        mapping: dict[Sym, Size] = {}
        index: list[Size] = []
        axes: list[tuple[Sym, Size]] = []
        guards: list[Expr] = []
        for n, ((v, whole), (lo, extent)) in enumerate(zip(stage.axes, region, strict=True)):
            position: Size = 0
            if extent != 1:
                var, position = fresh_variable(f"{name}.{n}", 0, extent, taken)
                axes.append((var, extent))
            if v is not None:
                mapping[v] = add(lo, position)
                if unsure[n]:
                    guards.append(below(add(lo, position), whole))
                    if not proves_le(0, lo):
                        guards.append(call("ge", Index(add(lo, position)), 0))
            index.append(position)
        inner: list[tuple[Sym, Size]] = []
        for n, (v, extent) in enumerate(stage.reduce):
            extent = substitute(extent, mapping)
            var, value = fresh_variable(f"{name}.k{n}", 0, extent, taken)
            mapping[v] = value
            inner.append((var, extent))
        where = tuple(index)
        if stage.op is None:
            body: tuple[Stmt, ...] = (Store(name, where, stage.value.substitute_sizes(mapping)),)
        else:
            assert stage.init is not None
            update: tuple[Stmt, ...] = (
                Reduce(name, where, stage.op, stage.value.substitute_sizes(mapping)),
            )
            for var, extent in reversed(inner):
                update = (For(var, 0, extent, "for", update),)
            body = (Store(name, where, stage.init.substitute_sizes(mapping)), *update)
        if guards:
            cond = guards[0]
            for g in guards[1:]:
                cond = call("and", cond, g)
            body = (If(cond, body),)
        for var, extent in reversed(axes):
            body = (For(var, 0, extent, "for", body),)
        return body


def _least(a: Size, b: Size, loops: Ranges) -> Size | None:
    return a if surely_le(a, b, loops) else b if surely_le(b, a, loops) else None


def _greatest(a: Size, b: Size, loops: Ranges) -> Size | None:
    return b if surely_le(a, b, loops) else a if surely_le(b, a, loops) else None


@dataclass(frozen=True)
class CacheWrite(Step):
    """y[i] = f(i)   ->   y.acc[i] = f(i);  y[i] = y.acc[i]

    Gives a stage a local buffer of its own, to be computed tile by tile with `compute_at`.
    Precondition: y is computed by one stage.
    """

    buffer: str
    name = "cache_write"

    def apply(self, kernel: Kernel) -> Kernel:
        stage = stage_of(kernel, self.buffer)
        if stage is None:
            raise self.fail(kernel, f"{self.buffer} is not computed by one stage")
        old = kernel.buffer(self.buffer)
        name = fresh_buffer(kernel, f"{self.buffer}.acc")
        kernel = kernel.with_buffer(Buffer(name, old.dtype, old.shape, "temp"))

        def retarget(s: Stmt) -> tuple[Stmt, ...]:
            if isinstance(s, Store | Reduce) and s.buffer == self.buffer:
                return (replace(s, buffer=name),)
            return (s,)

        nest = map_body((kernel.body[stage.position],), retarget)
        taken = unused_names(kernel)
        loops: list[tuple[Sym, Size]] = []
        index: list[Size] = []
        for v, extent in stage.axes:
            if v is None:
                index.append(0)
                continue
            var, value = fresh_variable(f"{v.name}.w", 0, extent, taken)
            loops.append((var, extent))
            index.append(value)
        copy: tuple[Stmt, ...] = (
            Store(self.buffer, tuple(index), Load(name, tuple(index), old.dtype)),
        )
        for var, extent in reversed(loops):
            copy = (For(var, 0, extent, "for", copy),)
        body = (*kernel.body[: stage.position], *nest, *copy, *kernel.body[stage.position + 1 :])
        return kernel.with_body(body)


@dataclass(frozen=True)
class CacheRead(Step):
    """y[j] = g(x[h(j)]) inside `loop`   ->   x.c[i] = x[i] for all i;  y[j] = g(x.c[h(j)])

    Makes a stage of the copy of x that the loop reads, its axes permuted by `order`, to be moved
    with `compute_at`. `loop` "" redirects every load of the kernel. Precondition: x is read there,
    is no stack or register buffer, and is not written from the first of those loads on.
    """

    buffer: str
    loop: str = ""
    order: tuple[int, ...] = ()
    name = "cache_read"

    def apply(self, kernel: Kernel) -> Kernel:
        old = kernel.buffer(self.buffer)
        order = self.order or tuple(range(len(old.shape)))
        if sorted(order) != list(range(len(old.shape))):
            raise self.fail(kernel, f"{order} is not a permutation of the axes")
        if old.scope in ("stack", "register"):
            raise self.fail(kernel, f"{self.buffer} is a {old.scope} buffer already")
        name = fresh_buffer(kernel, f"{self.buffer}.c")
        shape = tuple(old.shape[n] for n in order)

        def one(e: Expr) -> Expr | None:
            if isinstance(e, Load) and e.buffer == self.buffer:
                inner = map_expr(e, lambda x: one(x) if x is not e else None, lambda s: s)
                assert isinstance(inner, Load)
                return Load(name, tuple(inner.indices[n] for n in order), e.dtype)
            return None

        if self.loop:
            loop = require_loop(self, kernel, self.loop)
            (new,) = map_exprs((loop,), one)
            body = replace_loop(kernel, loop, (new,)).body
        else:
            body = map_exprs(kernel.body, one)
        taken = unused_names(kernel)
        values: list[Size] = []
        loops: list[tuple[Sym, Size]] = []
        for n, extent in enumerate(shape):
            if extent == 1:
                values.append(0)
                continue
            var, value = fresh_variable(f"{name}.{n}", 0, extent, taken)
            loops.append((var, extent))
            values.append(value)
        source = [values[order.index(n)] for n in range(len(order))]
        copy: tuple[Stmt, ...] = (
            Store(name, tuple(values), Load(self.buffer, tuple(source), old.dtype)),
        )
        for var, extent in reversed(loops):
            copy = (For(var, 0, extent, "for", copy),)
        first = next((n for n, s in enumerate(body) if name in reads(s)), None)
        if first is None:
            raise self.fail(kernel, f"nothing reads {self.buffer} there")
        if any(self.buffer in writes(s) for s in body[first:]):
            raise self.fail(kernel, f"{self.buffer} is written where the copy is read, or later")
        kernel = kernel.with_buffer(Buffer(name, old.dtype, shape, "temp"))
        return kernel.with_body((*body[:first], *copy, *body[first:]))


@dataclass(frozen=True)
class Pack(Step):
    """Lays a constant out anew at compile time: w[i, j] -> w'[parts of the indices].

    layout names the new axes, outermost first: "1/16 0 1%16" puts tiles of 16 of axis 1 outermost,
    then axis 0, then the place within the tile. What a last tile lacks is filled with zeros. The
    layout stays on the buffer (`Buffer.pack`), for whoever holds the data: `packing.pack_array`.
    Precondition: the buffer is a constant that is not packed yet.
    """

    buffer: str
    layout: str
    name = "pack"

    def apply(self, kernel: Kernel) -> Kernel:
        from aicc.tensor_ir.packing import PackError, parse_layout

        old = kernel.buffer(self.buffer)
        if old.scope != "const" or old.pack:
            raise self.fail(kernel, f"{self.buffer} is not an unpacked constant")
        try:
            parts = parse_layout(self.layout, old.shape)
        except PackError as error:
            raise self.fail(kernel, str(error)) from None
        shape = tuple(p.extent for p in parts)

        def one(e: Expr) -> Expr | None:
            if not (isinstance(e, Load) and e.buffer == self.buffer):
                return None
            inner = map_expr(e, lambda x: one(x) if x is not e else None, lambda s: s)
            assert isinstance(inner, Load)
            return Load(e.buffer, tuple(p.index(inner.indices[p.axis]) for p in parts), e.dtype)

        kernel = kernel.with_buffer(replace(old, shape=shape, pack=self.layout))
        return kernel.with_body(map_exprs(kernel.body, one))


@dataclass(frozen=True)
class Rfactor(Step):
    """for k in 0..n: B[i] op= f(k)
    ->  R[l] = identity for l;  for k.o: vector l: R[l] op= f(k.o*lanes + l);  B[i] op= R[l] for l

    Splits a reduction over `lanes` partial results in a register buffer, combined at the end: the
    form in which a reduction vectorises. The n % lanes iterations left are reduced into B directly.
    The order of the reduction changes, in a way that is fixed by the schedule.
    Precondition: the loop is serial and its body is one reduce, into an element that does not
    depend on the loop, of a value that does not read that buffer.
    """

    loop: str
    lanes: int
    name = "rfactor"

    def apply(self, kernel: Kernel) -> Kernel:
        f = require_loop(self, kernel, self.loop)
        s = f.body[0] if len(f.body) == 1 else None
        if not isinstance(s, Reduce) or f.lo != 0 or f.kind != "for" or self.lanes < 1:
            raise self.fail(kernel, "the loop's body is not one reduction")
        if s.buffer in reads(f):
            raise self.fail(kernel, f"the value reads {s.buffer}")
        if any(f.var in symbols(i) for i in s.indices):
            raise self.fail(kernel, f"the loop does not reduce into one element of {s.buffer}")
        taken = unused_names(kernel)
        n, k = f.hi, self.lanes
        partial = fresh_buffer(kernel, f"{s.buffer}.r")
        dtype = kernel.buffer(s.buffer).dtype
        kernel = kernel.with_buffer(Buffer(partial, dtype, (k,), "register"))
        whole = n // k
        start, a = fresh_variable(f"{self.loop}.s", 0, k, taken)
        outer, o = fresh_variable(f"{self.loop}.o", 0, whole, taken)
        inner, i = fresh_variable(f"{self.loop}.i", 0, k, taken)
        final, z = fresh_variable(f"{self.loop}.f", 0, k, taken)
        body = (
            For(start, 0, k, "for", (Store(partial, (a,), identity(s.op, dtype)),)),
            For(
                outer,
                0,
                whole,
                "for",
                (
                    For(
                        inner,
                        0,
                        k,
                        "for",
                        (
                            Reduce(
                                partial,
                                (i,),
                                s.op,
                                s.value.substitute_sizes({f.var: o * k + i}),
                            ),
                        ),
                    ),
                ),
            ),
            For(
                final, 0, k, "for", (Reduce(s.buffer, s.indices, s.op, Load(partial, (z,), dtype)),)
            ),
        )
        left = n % k
        if left == 0:
            return replace_loop(kernel, f, body)
        rest, t = fresh_variable(f"{self.loop}.t", 0, left, taken)
        tail = For(rest, 0, left, "for", substitute_body(f.body, {f.var: whole * k + t}))
        return replace_loop(kernel, f, (*body, tail))
