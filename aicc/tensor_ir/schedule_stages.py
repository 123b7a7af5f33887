"""Schedule steps on whole stages: where a buffer is computed, where it lives, its layout."""

from __future__ import annotations

from dataclasses import dataclass, replace

from aicc.symbolic import Size, Sym, from_atom, symbols
from aicc.tensor_ir.analysis import (
    readers,
    reads,
    stage_of,
    writes,
)
from aicc.tensor_ir.builder import identity
from aicc.tensor_ir.ir import Buffer, Expr, For, If, Kernel, Load, Op, Reduce, Stmt, Store
from aicc.tensor_ir.schedule import (
    Step,
    below,
    fresh_variable,
    replace_loop,
    require_loop,
    unused_names,
)
from aicc.tensor_ir.schedule_axes import stage_nest
from aicc.tensor_ir.schedule_compute_at import (
    ComputeAt,
    fresh_buffer,
    require_same_sources,
)
from aicc.tensor_ir.walk import loads_of, map_body, map_expr, map_exprs, substitute_body

__all__ = [
    "CacheRead",
    "CacheWrite",
    "ComputeAt",
    "Inline",
    "Outline",
    "Pack",
    "Rfactor",
    "fresh_buffer",
]


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
class Outline(Step):
    """y[i, j] op= f(g(j), ..)   ->   t[j] = g(j);  y[i, j] op= f(t[j], ..)

    Makes a stage of an argument of what a stage computes, over the variables that it depends on, as
    they stand in `order`; the inverse of `inline`. Precondition: y is computed by one stage, by an
    operation that has such an argument, the extents of those variables depend on no others, and
    the argument is no branch of a selection that reads memory: it may do so where it is taken only.
    """

    buffer: str
    argument: int
    order: tuple[int, ...] = ()
    name = "outline"

    def apply(self, kernel: Kernel) -> Kernel:
        stage = stage_of(kernel, self.buffer)
        if stage is None:
            raise self.fail(kernel, f"{self.buffer} is not computed by one stage")
        e = stage.value
        if not isinstance(e, Op) or not 0 <= self.argument < len(e.args):
            raise self.fail(kernel, f"{self.buffer} is no operation of {self.argument + 1} values")
        part = e.args[self.argument]
        if e.name == "select" and self.argument > 0 and loads_of(part):
            raise self.fail(kernel, f"branch {self.argument} of a selection reads memory")
        loops = [*((v, n) for v, n in stage.axes if v is not None), *stage.reduce]
        own = [(v, n) for v, n in loops if v in part.size_symbols()]
        order = self.order or tuple(range(len(own)))
        if sorted(order) != list(range(len(own))):
            raise self.fail(kernel, f"{order} is not a permutation of the variables")
        name = fresh_buffer(kernel, f"{self.buffer}.{self.argument}")
        taken = unused_names(kernel)
        made: list[Sym] = []
        mapping: dict[Sym, Size] = {}
        for v, extent in (own[n] for n in order):
            if symbols(extent) & {w for w, _ in loops}:
                raise self.fail(kernel, f"the extent of {v} depends on other loops")
            var, mapping[v] = fresh_variable(f"{name}.{len(made)}", 0, extent, taken)
            made.append(var)
        shape = tuple(own[n][1] for n in order)
        nest: Stmt = Store(name, tuple(mapping.values()), part.substitute_sizes(mapping))
        for var, extent in reversed(list(zip(made, shape, strict=True))):
            nest = For(var, 0, extent, "for", (nest,))
        load = Load(name, tuple(from_atom(v) for v in mapping), part.dtype)
        args = (*e.args[: self.argument], load, *e.args[self.argument + 1 :])
        rest = stage_nest(replace(stage, value=replace(e, args=args)))
        at = stage.position
        body = (*kernel.body[:at], nest, rest, *kernel.body[at + 1 :])
        return kernel.with_buffer(Buffer(name, part.dtype, shape, "temp")).with_body(body)


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
    form in which a reduction vectorises. tail says what happens to the n % lanes iterations that
    are left. peel: they are reduced into B directly. mask: they join the partial results, in a loop
    over all of these under `if k.o*lanes + l < n`.
    The order of the reduction changes, in a way that is fixed by the schedule.
    Precondition: the loop is serial and its body is one reduce, into an element that does not
    depend on the loop, of a value that does not read that buffer.
    """

    loop: str
    lanes: int
    tail: str = "peel"
    name = "rfactor"

    def apply(self, kernel: Kernel) -> Kernel:
        f = require_loop(self, kernel, self.loop)
        if self.tail not in ("peel", "mask"):
            raise self.fail(kernel, "the tail is peel or mask")
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
        value = s.value.substitute_sizes({f.var: o * k + i})
        main = For(inner, 0, k, "for", (Reduce(partial, (i,), s.op, value),))
        body: list[Stmt] = [
            For(start, 0, k, "for", (Store(partial, (a,), identity(s.op, dtype)),)),
            For(outer, 0, whole, "for", (main,)),
        ]
        combine = Reduce(s.buffer, s.indices, s.op, Load(partial, (z,), dtype))
        ends = For(final, 0, k, "for", (combine,))
        left = n % k
        if left == 0:
            return replace_loop(kernel, f, (*body, ends))
        masked = self.tail == "mask"
        rest, t = fresh_variable(f"{self.loop}.t", 0, k if masked else left, taken)
        at = whole * k + t
        if not masked:
            tail = For(rest, 0, left, "for", substitute_body(f.body, {f.var: at}))
            return replace_loop(kernel, f, (*body, ends, tail))
        one = Reduce(partial, (t,), s.op, s.value.substitute_sizes({f.var: at}))
        some: Stmt = For(rest, 0, k, "for", (If(below(at, n), (one,)),))
        if not isinstance(n, int):
            some = If(below(whole * k, n), (some,))
        return replace_loop(kernel, f, (*body, some, ends))
