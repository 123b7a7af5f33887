"""Schedule steps on the axes of a buffer: how a stage's index space is shaped."""

from __future__ import annotations

from dataclasses import dataclass, replace

from aicc.symbolic import (
    Size,
    Sym,
    add,
    ceildiv,
    divides,
    from_atom,
    minimum,
    mul,
    proves_le,
    recombine,
    substitute,
    symbols,
)
from aicc.tensor_ir.analysis import Stage, bounds, stage_of
from aicc.tensor_ir.ir import (
    PARAM_SCOPES,
    Expr,
    For,
    Kernel,
    Load,
    Op,
    Reduce,
    Stmt,
    Store,
    const,
    select,
)
from aicc.tensor_ir.schedule import Step, below, fresh_variable, unused_names
from aicc.tensor_ir.schedule_partition import holding
from aicc.tensor_ir.walk import map_expr, map_exprs


def stage_nest(stage: Stage) -> Stmt:
    """The canonical nest of a stage."""
    index = tuple(0 if v is None else from_atom(v) for v, _ in stage.axes)
    if stage.op is None:
        body: tuple[Stmt, ...] = (Store(stage.buffer, index, stage.value),)
    else:
        assert stage.init is not None
        update: Stmt = Reduce(stage.buffer, index, stage.op, stage.value)
        for k, extent in reversed(stage.reduce):
            update = For(k, 0, extent, "for", (update,))
        body = (Store(stage.buffer, index, stage.init), update)
    for v, extent in reversed(stage.axes):
        if v is not None:
            body = (For(v, 0, extent, "for", body),)
    if len(body) > 1:  # what has no axes has a loop that runs once
        body = (For(Sym(f"{stage.buffer}.i", 0, 0), 0, 1, "for", body),)
    return body[0]


def replace_stage(kernel: Kernel, position: int, stage: Stage) -> Kernel:
    """The kernel with the nest at `position` replaced by a stage's canonical nest."""
    body = (*kernel.body[:position], stage_nest(stage), *kernel.body[position + 1 :])
    return kernel.with_body(body)


@dataclass(frozen=True)
class FuseAxes(Step):
    """B[.., i, j, ..] of shape [.., n, m, ..]   ->   B[.., i*m + j, ..] of shape [.., n*m, ..]

    The memory is the same. The stage that computes B runs over the joined axis: i := v // m,
    j := v % m. Precondition: B is an input, or is computed by one canonical stage; m is not 0; in a
    part of a larger array, the elements of an i go on where those of the one before end.
    """

    buffer: str
    axis: int
    name = "fuse_axes"

    def apply(self, kernel: Kernel) -> Kernel:
        old = kernel.buffer(self.buffer)
        a = self.axis
        if not 0 <= a < len(old.shape) - 1:
            raise self.fail(kernel, f"{self.buffer} has no axes {a} and {a + 1}")
        n, m = old.shape[a], old.shape[a + 1]
        if m == 0:
            raise self.fail(kernel, f"axis {a + 1} of {self.buffer} is empty")
        pitch = old.pitch
        if pitch and n != 1 and m != 1 and pitch[a] != pitch[a + 1] * m:
            raise self.fail(kernel, f"axis {a} of {self.buffer} does not go on in the next one")
        if old.scope not in ("in", "const"):
            stage = stage_of(kernel, self.buffer)
            if stage is None:
                raise self.fail(kernel, f"{self.buffer} is not computed by one stage")
            kernel = replace_stage(kernel, stage.position, self._joined(kernel, stage, n, m))
        if old.pack:
            raise self.fail(kernel, f"{self.buffer} has a layout already")

        def one(e: Expr) -> Expr | None:
            if isinstance(e, Load) and e.buffer == self.buffer:
                inner = map_expr(e, lambda x: one(x) if x is not e else None, lambda s: s)
                assert isinstance(inner, Load)
                i = inner.indices
                joined = recombine(i[a] * m + i[a + 1])
                return replace(inner, indices=(*i[:a], joined, *i[a + 2 :]))
            return None

        shape = (*old.shape[:a], n * m, *old.shape[a + 2 :])
        made = replace(old, shape=shape, pitch=())
        if pitch:
            left = a + 1 if m == 1 else a  # whose stride nobody asks for any more
            made = made.with_pitch((*pitch[:left], *pitch[left + 1 :]))
        kernel = kernel.with_buffer(made)
        return kernel.with_body(map_exprs(kernel.body, one))

    def _joined(self, kernel: Kernel, stage: Stage, n: Size, m: Size) -> Stage:
        (vi, _), (vj, _) = stage.axes[self.axis : self.axis + 2]
        if vi is None or vj is None:
            joined: tuple[Sym | None, Size] = (vi or vj, n * m)
            mapping: dict[Sym, Size] = {}
        else:
            v, value = fresh_variable(f"{vi.name}.{vj.name}", 0, n * m, unused_names(kernel))
            joined = (v, n * m)
            mapping = {vi: value // m, vj: value % m}
        return Stage(
            stage.buffer,
            (*stage.axes[: self.axis], joined, *stage.axes[self.axis + 2 :]),
            tuple((v, substitute(e, mapping)) for v, e in stage.reduce),
            stage.op,
            stage.init and _simplify(stage.init.substitute_sizes(mapping)),
            _simplify(stage.value.substitute_sizes(mapping)),
            stage.position,
        )


def _simplify(e: Expr) -> Expr:
    return map_expr(e, lambda x: None, recombine)


_HOW = ("zero", "clamp")


@dataclass(frozen=True)
class PadAxis(Step):
    """B[i] for i in 0..n   ->   B[i] for i in 0..ceil(n/m)*m, so that tiles of m are always whole

    What is computed beyond n is read by nobody. A load of the stage that might leave its buffer for
    i >= n becomes zero there (how = "zero"), or repeats the last element (how = "clamp"). `halo`
    elements are what n has more than it has tiles: n := ceil((n - halo)/m)*m + halo, for what
    windows in whole tiles read. `more` elements are added to that, for tiles that start anywhere.
    Precondition: B is a local buffer computed by one canonical stage, whose reduction has the same
    extents all along the axis; neither halo nor `more` is negative.
    """

    buffer: str
    axis: int
    multiple: int
    how: str = "zero"
    halo: int = 0
    more: int = 0
    name = "pad_axis"

    def apply(self, kernel: Kernel) -> Kernel:
        old = kernel.buffer(self.buffer)
        stage = stage_of(kernel, self.buffer)
        if stage is None or old.scope in PARAM_SCOPES:
            raise self.fail(kernel, f"{self.buffer} is not a local buffer computed by one stage")
        if not 0 <= self.axis < len(stage.axes) or self.multiple < 1 or self.how not in _HOW:
            raise self.fail(kernel, f"no axis, no positive multiple, or not one of {_HOW}")
        if self.halo < 0 or self.more < 0:
            raise self.fail(kernel, "the halo, or what is added, is negative")
        v, n = stage.axes[self.axis]
        if any(v in symbols(extent) for _, extent in stage.reduce):
            raise self.fail(kernel, f"the extents of the reduction depend on {v}")
        padded = ceildiv(n - self.halo, self.multiple) * self.multiple + self.halo + self.more
        if padded == n:
            return kernel
        axes = list(stage.axes)
        value, init = stage.value, stage.init
        if v is None:
            v, _ = fresh_variable(f"{self.buffer}.{self.axis}", 0, padded, unused_names(kernel))
        else:
            wide, index = fresh_variable(f"{v.name}.p", 0, padded, unused_names(kernel))
            value = self._guarded(kernel, stage, value, v, wide, index, n, padded)
            if init is not None:
                init = self._guarded(kernel, stage, init, v, wide, index, n, padded)
            v = wide
        axes[self.axis] = (v, padded)
        made = replace(stage, axes=tuple(axes), value=value, init=init)
        shape = (*old.shape[: self.axis], padded, *old.shape[self.axis + 1 :])
        kernel = kernel.with_buffer(replace(old, shape=shape))
        return replace_stage(kernel, stage.position, made)

    def _guarded(
        self,
        kernel: Kernel,
        stage: Stage,
        whole: Expr,
        v: Sym,
        wide: Sym,
        index: Size,
        n: Size,
        padded: Size,
    ) -> Expr:
        """`whole`, an expression of the stage, over the wider axis, with loads that stay inside
        their buffers."""
        ranges: dict[Sym, tuple[Size, Size]] = {w: (0, e) for w, e in stage.axes if w is not None}
        ranges |= {w: (0, e) for w, e in stage.reduce}
        ranges[wide] = (0, padded)

        def one(e: Expr, held: set[Size]) -> Expr | None:
            if isinstance(e, Op) and e.name == "select":
                cond, yes, no = e.args
                more = held | holding(cond)
                return select(guarded(cond, held), guarded(yes, more), guarded(no, held))
            if not isinstance(e, Load) or v not in e.size_symbols():
                return None
            moved = e.substitute_sizes({v: index})
            assert isinstance(moved, Load)
            buffer = kernel.buffer(e.buffer)
            inside = True
            for old, i, extent in zip(e.indices, moved.indices, buffer.shape, strict=True):
                if {old, add(add(extent, -1), mul(old, -1))} <= held:
                    continue
                found = bounds(i, ranges) if wide in symbols(i) else (0, 0)
                if found is None or not (
                    proves_le(0, found[0]) and proves_le(found[1] + 1, extent)
                ):
                    inside = inside and wide not in symbols(i)
            if inside:
                return moved
            if self.how == "clamp":
                return e.substitute_sizes({v: minimum(index, n - 1)})
            return select(below(index, n), moved, const(0, e.dtype))

        def guarded(e: Expr, held: set[Size]) -> Expr:
            return map_expr(e, lambda x: one(x, held), lambda s: substitute(s, {v: index}))

        return guarded(whole, set())


@dataclass(frozen=True)
class SplitAxis(Step):
    """B[.., i, ..] of shape [.., n*m, ..]   ->   B[.., i // m, i % m, ..] of shape [.., n, m, ..]

    The inverse of `fuse_axes`: the stage that computes B runs over two axes, i := o*m + p.
    Precondition: m divides the extent; B is an input, or is computed by one canonical stage.
    """

    buffer: str
    axis: int
    factor: int
    name = "split_axis"

    def apply(self, kernel: Kernel) -> Kernel:
        old = kernel.buffer(self.buffer)
        a, m = self.axis, self.factor
        if not 0 <= a < len(old.shape) or m < 1 or not divides(m, old.shape[a]):
            raise self.fail(kernel, f"{m} does not divide axis {a} of {self.buffer}")
        if old.pack:
            raise self.fail(kernel, f"{self.buffer} has a layout already")
        if old.scope not in ("in", "const"):
            stage = stage_of(kernel, self.buffer)
            if stage is None:
                raise self.fail(kernel, f"{self.buffer} is not computed by one stage")
            kernel = replace_stage(kernel, stage.position, self._divided(kernel, stage))

        def one(e: Expr) -> Expr | None:
            if isinstance(e, Load) and e.buffer == self.buffer:
                inner = map_expr(e, lambda x: one(x) if x is not e else None, lambda s: s)
                assert isinstance(inner, Load)
                i = inner.indices
                return replace(inner, indices=(*i[:a], i[a] // m, i[a] % m, *i[a + 1 :]))
            return None

        shape = (*old.shape[:a], old.shape[a] // m, m, *old.shape[a + 1 :])
        made = replace(old, shape=shape, pitch=())
        if old.pitch:
            step = old.pitch[a]
            made = made.with_pitch((*old.pitch[:a], step * m, step, *old.pitch[a + 1 :]))
        kernel = kernel.with_buffer(made)
        return kernel.with_body(map_exprs(kernel.body, one))

    def _divided(self, kernel: Kernel, stage: Stage) -> Stage:
        v, extent = stage.axes[self.axis]
        m = self.factor
        taken = unused_names(kernel)
        parts: list[tuple[Sym | None, Size]] = []
        values: list[Size] = []
        for suffix, e in (("q", extent // m), ("r", m)):
            if e == 1 or v is None:
                parts.append((None, 1))
                values.append(0)
            else:
                var, value = fresh_variable(f"{v.name}.{suffix}", 0, e, taken)
                parts.append((var, e))
                values.append(value)
        mapping: dict[Sym, Size] = {} if v is None else {v: values[0] * m + values[1]}
        return replace(
            stage,
            axes=(*stage.axes[: self.axis], *parts, *stage.axes[self.axis + 1 :]),
            reduce=tuple((k, substitute(e, mapping)) for k, e in stage.reduce),
            init=stage.init and stage.init.substitute_sizes(mapping),
            value=stage.value.substitute_sizes(mapping),
        )


@dataclass(frozen=True)
class PermuteAxes(Step):
    """B[i, j, k] for i, j, k   ->   B[k, i, j] for k, i, j

    The new axes are the old ones in `order`, in memory and in the loops that compute B.
    Precondition: B is a local buffer computed by one canonical stage.
    """

    buffer: str
    order: tuple[int, ...]
    name = "permute_axes"

    def apply(self, kernel: Kernel) -> Kernel:
        old = kernel.buffer(self.buffer)
        stage = stage_of(kernel, self.buffer)
        if stage is None or old.scope in PARAM_SCOPES:
            raise self.fail(kernel, f"{self.buffer} is not a local buffer computed by one stage")
        if sorted(self.order) != list(range(len(old.shape))):
            raise self.fail(kernel, f"{list(self.order)} are not the axes of {self.buffer}")

        def one(e: Expr) -> Expr | None:
            if isinstance(e, Load) and e.buffer == self.buffer:
                inner = map_expr(e, lambda x: one(x) if x is not e else None, lambda s: s)
                assert isinstance(inner, Load)
                return replace(inner, indices=tuple(inner.indices[a] for a in self.order))
            return None

        axes = tuple(stage.axes[a] for a in self.order)
        kernel = replace_stage(kernel, stage.position, replace(stage, axes=axes))
        kernel = kernel.with_buffer(replace(old, shape=tuple(old.shape[a] for a in self.order)))
        return kernel.with_body(map_exprs(kernel.body, one))


@dataclass(frozen=True)
class Widen(Step):
    """B of shape [.., n, ..]   ->   B of shape [.., m, ..], of which the last m - n are not used

    Changes the distance of elements that would fall into one set of a cache. Precondition: B is a
    stack or register buffer, and m is a number not less than n.
    """

    buffer: str
    axis: int
    extent: int
    name = "widen"

    def apply(self, kernel: Kernel) -> Kernel:
        old = kernel.buffer(self.buffer)
        if old.scope not in ("stack", "register") or not 0 <= self.axis < len(old.shape):
            raise self.fail(kernel, f"{self.buffer} is no local array with an axis {self.axis}")
        if not proves_le(old.shape[self.axis], self.extent):
            raise self.fail(kernel, f"{self.extent} is less than {old.shape[self.axis]}")
        shape = (*old.shape[: self.axis], self.extent, *old.shape[self.axis + 1 :])
        return kernel.with_buffer(replace(old, shape=shape))
