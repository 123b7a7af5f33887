"""The schedule step that computes a stage inside a loop, and what steps on stages share."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from aicc.symbolic import (
    Dim,
    FloorDiv,
    Size,
    Sym,
    add,
    coefficient,
    floordiv,
    maximum,
    mul,
    opaques,
    proves_le,
    recombine,
    substitute,
    sym,
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
    upper_bounds,
    writes,
)
from aicc.tensor_ir.dependence import Ranges, accesses, loaded_by
from aicc.tensor_ir.ir import (
    LOCAL_SCOPES,
    PARAM_SCOPES,
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
)
from aicc.tensor_ir.schedule import (
    Step,
    below,
    fresh_variable,
    replace_loop,
    require_loop,
    unused_names,
)
from aicc.tensor_ir.walk import map_expr, map_exprs, walk_stmts


@dataclass(frozen=True)
class Range:
    """What is read of an axis: `extent` elements from `lo` on, every `step`-th."""

    lo: Size
    extent: Size
    step: int = 1

    def element(self, position: Size) -> Size:
        return add(self.lo, mul(position, self.step))

    def position(self, index: Size) -> Size:
        if self.lo == 0 and self.step == 1:
            return index
        return floordiv(add(recombine(index), mul(self.lo, -1)), self.step)

    def spaced(self, step: int) -> Range:
        """The same, of which only every `step`-th element is read."""
        return Range(self.lo, add(floordiv(add(self.extent, -1), step), 1), step)


def redirect(
    body: tuple[Stmt, ...], buffer: str, target: str, region: tuple[Range, ...]
) -> tuple[Stmt, ...]:
    """Statements with loads of elements of `buffer` turned into loads of `target`, which holds
    `region` of it."""

    def one(e: Expr) -> Expr | None:
        if isinstance(e, Load) and e.buffer == buffer:
            inner = map_expr(e, lambda x: one(x) if x is not e else None, lambda s: s)
            assert isinstance(inner, Load)
            moved = tuple(r.position(i) for i, r in zip(inner.indices, region, strict=True))
            return Load(target, moved, e.dtype)
        return None

    return map_exprs(body, one)


def drop_unread(kernel: Kernel, buffer: str) -> Kernel:
    """Without the stage of a local buffer that nothing reads any more."""
    if kernel.buffer(buffer).scope in PARAM_SCOPES or readers(kernel, buffer):
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
class ComputeAt(Step):
    """Computes what one iteration of `loop` needs of `buffer`, inside that loop.

    B[i] = f(i) for all i;  for j: y[j] = g(B[..])
    ->  for j: { B'[i'] = f(lo(j) + i') for i' in 0..extent(j);  y[j] = g(B'[.. - lo(j)]) }

    Where only every s-th element along an axis other than the last is read (the rows of a dilated
    window), B' has no others: B'[i'] = f(lo(j) + s*i').
    lo and extent come from the indices of the loads inside the loop (region inference); halos of a
    window and rows of a reduction follow; an axis in which loads are at unrelated indices, or at
    indices from data, is computed as a whole, unless that were all of B. B' has `scope`; loops of
    the new nest are named `B'.0`, `B'.1`, ... for the axes and `B'.k0`, ... for the reduction. The
    old stage goes once nothing reads it. Elements that may be outside of B, because a load runs
    only under a condition or the region is wider than what is read, are computed under a condition.
    Precondition: B is a buffer computed by one stage before the loop; what f reads does not change
    in between; the indices are monotone in the loops inside, and their ranges can be compared; the
    largest extent is known from the kernel's sizes (as a number for a register buffer); the loop is
    no vector; B' is in memory of its own for each iteration of a parallel loop (a "temp" is not),
    and seen by all that read it (a stack or register buffer is not inside a parallel loop).
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
        body = redirect(loop.body, self.buffer, name, region)
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
        if self.scope != "temp":
            for s in walk_stmts(around[-1].body):
                if isinstance(s, For) and s.kind == "parallel" and self.buffer in reads(s):
                    raise self.fail(kernel, f"a {self.scope} buffer is not seen inside {s.var}")
        if any(f.kind == "parallel" for f in around):
            if self.scope == "temp":
                raise self.fail(kernel, "iterations of a parallel loop would share the buffer")
            for n in reads(kernel.body[stage.position]):
                if kernel.buffer(n).scope in ("stack", "register"):
                    raise self.fail(kernel, f"{n} is not seen inside a parallel loop")

    def _region(
        self, kernel: Kernel, around: list[For], stage: Stage
    ) -> tuple[tuple[Range, ...], tuple[bool, ...]]:
        """What the loop's body reads, per axis; whether that may leave B."""
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
        inner = {v: ends for a in loads for v, ends in a.ranges.items()}
        region: list[Range] = []
        unsure: list[bool] = []
        unrelated = False
        for axis, (_, whole) in enumerate(stage.axes):
            lo: Size | None = None
            hi: Size | None = None
            for a in loads:
                ends = bounds(recombine(a.indices[axis]), a.ranges)
                if ends is None and opaques(a.indices[axis]):
                    lo = hi = None  # a table of positions: they may be anywhere
                    break
                if ends is None:
                    raise self.fail(kernel, f"the index {a.indices[axis]} is too complex")
                lo = ends[0] if lo is None else _least(lo, ends[0], outer)
                hi = ends[1] if hi is None else _greatest(hi, ends[1], outer)
                if lo is None or hi is None:
                    break
            if lo is None or hi is None:
                unrelated = True
                region.append(Range(0, whole))
                unsure.append(False)
                continue
            lo, hi = recombine(lo), recombine(hi)
            if opaques(lo) or opaques(hi):
                if conditional or loaded_by((lo, hi)) & written:
                    raise self.fail(kernel, f"{lo} cannot be known at the beginning of the loop")
            extent = add(add(hi, mul(lo, -1)), 1)
            linear = all(
                coefficient(recombine(a.indices[axis]), v) is not None
                for a in loads
                for v in a.ranges
            )
            fits = (exact and linear) or (
                _not_negative(lo, whole, outer) and surely_le(add(lo, extent), whole, outer)
            )
            if not fits and isinstance(whole, int):
                top = value_range(extent)[1]
                if top is None or top >= whole:
                    lo, extent, fits = 0, whole, True
            found_ = Range(lo, extent)
            last = axis == len(stage.axes) - 1  # stays side by side
            step = 1 if last else _step([a.indices[axis] for a in loads], inner, lo)
            region.append(found_.spaced(step) if step > 1 else found_)
            unsure.append(not fits)
        if unrelated and all(r.extent == w for r, (_, w) in zip(region, stage.axes)):
            raise self.fail(kernel, f"loads of {self.buffer} at unrelated indices")
        return tuple(region), tuple(unsure)

    def _shape(
        self, kernel: Kernel, region: tuple[Range, ...], around: list[For]
    ) -> tuple[Size, ...]:
        """The largest region, in sizes of the kernel."""
        outer = {f.var: (f.lo, f.hi) for f in around}
        shape: list[Size] = []
        for extent in (r.extent for r in region):
            ends = [bounds(e, outer) for e in ([] if opaques(extent) else upper_bounds(extent))]
            tops = [e[1] for e in ends if e is not None and symbols(e[1]) <= set(kernel.sizes)]
            if not tops:
                raise self.fail(kernel, f"the extent {extent} has no bound in the kernel's sizes")
            top = min((t for t in tops if isinstance(t, int)), default=tops[0])
            if self.scope == "register" and not isinstance(top, int):
                raise self.fail(kernel, f"a register buffer has a constant shape, not {top}")
            shape.append(maximum(0, top))
        return tuple(shape)

    def _nest(
        self,
        kernel: Kernel,
        stage: Stage,
        name: str,
        region: tuple[Range, ...],
        unsure: tuple[bool, ...],
    ) -> tuple[Stmt, ...]:
        taken = unused_names(kernel)
        mapping: dict[Sym, Size] = {}
        index: list[Size] = []
        axes: list[tuple[Sym, Size]] = []
        guards: list[Expr] = []
        for n, ((v, whole), part) in enumerate(zip(stage.axes, region, strict=True)):
            position: Size = 0
            if part.extent != 1:
                var, position = fresh_variable(f"{name}.{n}", 0, part.extent, taken)
                axes.append((var, part.extent))
            if v is not None:
                mapping[v] = part.element(position)
                if unsure[n]:
                    guards.append(below(mapping[v], whole))
                    if not _not_negative(part.lo, whole, {}):
                        guards.append(call("ge", Index(mapping[v]), 0))
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


def _step(indices: list[Size], inner: Ranges, lo: Size) -> int:
    """The largest step between any two of the elements that are read from `lo` on: where a window
    has gaps, rows in between are left out."""
    step = 0
    for index in indices:
        rest = add(index, mul(lo, -1))
        if isinstance(rest, Dim) and any(m != (m[0],) or m[0] not in inner for m, _ in rest.terms):
            return 1
        parts = [rest] if isinstance(rest, int) else [rest.const, *(c for _, c in rest.terms)]
        step = math.gcd(step, *parts)
    return max(1, step)


def _not_negative(index: Size, extent: Size, loops: Ranges) -> bool:
    """True where an index is 0 or more, since the extent that it is in is, and its quotients."""
    if surely_le(0, index, loops):
        return True
    if isinstance(index, int):
        return False
    least = _least_symbol(extent, 0)
    if least is not None:
        s, low = least
        if s.lo is None or s.lo < low:
            narrow = {s: sym(s.name, low, s.hi)}
            ranges = {
                v: (substitute(x, narrow), substitute(y, narrow)) for v, (x, y) in loops.items()
            }
            if surely_le(0, substitute(index, narrow), ranges):
                return True
    for monomial, c in index.terms:
        a = monomial[0]
        if c > 0 and len(monomial) == 1 and isinstance(a, FloorDiv) and proves_le(1, a.den):
            quotient = floordiv(extent, a.den)
            if isinstance(quotient, Dim) and (monomial, 1) in quotient.terms:
                return surely_le(0, add(index, mul(quotient, -c)), loops)
    return False


def _least_symbol(s: Size, least: int) -> tuple[Sym, int] | None:
    """The symbol that `s` grows with and the least value for which `s >= least`, where it grows
    with one."""
    if isinstance(s, int) or len(s.terms) != 1:
        return None
    (monomial, c) = s.terms[0]
    a, bound = monomial[0], -((s.const - least) // c) if c > 0 else 0
    if c < 1 or len(monomial) != 1:
        return None
    if isinstance(a, FloorDiv) and isinstance(a.den, int):
        return _least_symbol(a.num, bound * a.den)
    return (a, bound) if isinstance(a, Sym) else None


def _least(a: Size, b: Size, loops: Ranges) -> Size | None:
    return a if surely_le(a, b, loops) else b if surely_le(b, a, loops) else None


def _greatest(a: Size, b: Size, loops: Ranges) -> Size | None:
    return b if surely_le(a, b, loops) else a if surely_le(b, a, loops) else None
