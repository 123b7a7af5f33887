"""Random kernels as operators write them, and random schedule steps for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import strategies as st

from aicc.errors import ScheduleError
from aicc.symbolic import Size, divides, sym
from aicc.tensor_ir.builder import KernelBuilder, Tensor
from aicc.tensor_ir.ir import (
    Expr,
    For,
    Index,
    Kernel,
    Reduce,
    Stmt,
    as_index,
    call,
    cast,
    const,
    select,
)
from aicc.tensor_ir.schedule import (
    TAILS,
    DecomposeReduction,
    Fuse,
    Parallel,
    Reorder,
    Split,
    Step,
    Unroll,
    Vectorize,
)
from aicc.tensor_ir.schedule_axes import FuseAxes, PadAxis, PermuteAxes, SplitAxis, Widen
from aicc.tensor_ir.schedule_partition import Decide, Partition, Unswitch
from aicc.tensor_ir.schedule_stages import (
    CacheRead,
    CacheWrite,
    ComputeAt,
    Inline,
    Outline,
    Pack,
    Rfactor,
)
from aicc.tensor_ir.schedule_text import print_steps
from aicc.tensor_ir.schedule_within import Within, focus
from aicc.tensor_ir.verify import verify
from aicc.tensor_ir.walk import map_body, substitute_body, walk_stmts

N, M = sym("n", 1), sym("m", 1, 64)


@dataclass(frozen=True)
class Drawn:
    """A kernel and values for its sizes. All its arithmetic is exact on small whole numbers."""

    kernel: Kernel
    sizes: dict[str, int]


def _inside(i: Size, extent: Size) -> Expr:
    if isinstance(i, int) and isinstance(extent, int):
        return const(0 <= i < extent, "bool")
    low = call("ge", Index(i) if not isinstance(i, int) else const(i, "i64"), 0)
    return call("and", low, call("lt", Index(i), extent))


class Maker:
    """Draws one kernel."""

    def __init__(self, draw: Any, extents: tuple[int, ...]) -> None:
        self.draw = draw
        self.extents = extents
        self.b = KernelBuilder("k")
        self.sizes = {name: draw(st.integers(1, max(extents))) for name in "nm"}

    def pick(self, *options: Any) -> Any:
        return self.draw(st.sampled_from(options))

    def extent(self) -> Size:
        kind = self.draw(st.integers(0, 5))
        return N if kind == 0 else M if kind == 1 else self.pick(*self.extents)

    def dtype(self) -> str:
        return self.pick("f32", "f32", "f64", "i32", "i64")

    def unary(self, e: Expr) -> Expr:
        kind = self.draw(st.integers(0, 4))
        if kind == 0:
            return call("max", e, 0)
        if kind == 1:
            return e * 2 - 1
        if kind == 2:
            return call("abs", e)
        if kind == 3:
            return select(call("gt", e, 1), e - 3, call("neg", e))
        return e * e

    def binary(self, x: Expr, y: Expr) -> Expr:
        return call(self.pick("add", "sub", "mul", "max", "min"), x, y)

    # kernels

    def chain(self) -> Tensor:
        dtype, shape = self.dtype(), [self.extent() for _ in range(self.draw(st.integers(1, 3)))]
        t = self.b.input("x", dtype, shape)
        for n in range(self.draw(st.integers(1, 3))):
            other = [1 if self.draw(st.booleans()) else e for e in shape]
            other = other[self.draw(st.integers(0, len(shape) - 1)) :]
            z = (self.b.constant if self.draw(st.booleans()) else self.b.input)(
                f"z{n}", dtype, [e if isinstance(e, int) else 1 for e in other]
            )
            old = t
            t = self.b.compute(
                shape,
                lambda *i, old=old, z=z: self.binary(self.unary(old[i]), z.broadcast(i)),
                name=f"t{n}",
            )
        return t

    def product(self) -> Tensor:
        dtype, n, k, m = self.dtype(), self.extent(), self.extent(), self.draw(st.integers(1, 9))
        x = self.b.input("x", dtype, (n, k))
        w = (self.b.constant if isinstance(k, int) else self.b.input)("w", dtype, (k, m))
        bias = self.b.constant("bias", dtype, (m,))
        r = self.b.reduce((n, m), (k,), lambda i, j, q: x[i, q] * w[q, j], name="r")
        return self.b.compute((n, m), lambda i, j: self.unary(r[i, j] + bias[j]), name="y")

    def _padded(self, x: Tensor, pad: int) -> Tensor:
        n, h, w, c = x.shape
        return self.b.compute(
            (n, h + 2 * pad, w + 2 * pad, c),
            lambda a, i, j, q: select(
                call("and", _inside(i - pad, h), _inside(j - pad, w)),
                x[a, i - pad, j - pad, q],
                0,
            ),
            name="p",
        )

    def convolution(self) -> Tensor:
        dtype, h, w = self.dtype(), self.draw(st.integers(1, 6)), self.extent()
        c, o, k = (self.draw(st.integers(1, 4)) for _ in range(3))
        k = min(k, 3)
        pad, stride = self.draw(st.integers(0, 1)) + k // 2, self.pick(1, 1, 2)
        x = self.b.input("x", dtype, (1, h, w, c))
        weight = self.b.constant("w", dtype, (o, c, k, k))
        p = self._padded(x, pad)
        oh = (h + 2 * pad - k) // stride + 1
        ow = (w + 2 * pad - k) // stride + 1
        r = self.b.reduce(
            (1, oh, ow, o),
            (c, k, k),
            lambda a, i, j, f, q, u, v: (
                p[a, i * stride + u, j * stride + v, q] * weight[f, q, u, v]
            ),
            name="r",
        )
        return self.b.compute(r.shape, lambda *i: call("max", r[i], 0), name="y")

    def pooling(self) -> Tensor:
        dtype, h, w, c = self.dtype(), self.extent(), self.extent(), self.draw(st.integers(1, 5))
        k, stride = self.draw(st.integers(1, 3)), self.pick(1, 2)
        x = self.b.input("x", dtype, (1, h, w, c))
        pad = self.draw(st.integers(k - 1, 2))
        p = self._padded(x, pad)
        oh, ow = ((e + 2 * pad - k) // stride + 1 for e in (h, w))
        return self.b.reduce(
            (1, oh, ow, c),
            (k, k),
            lambda a, i, j, q, u, v: p[a, i * stride + u, j * stride + v, q],
            op=self.pick("max", "add", "min"),
            name="y",
        )

    def rows(self) -> Tensor:
        dtype, n, m = self.pick("f32", "f64", "i32"), self.extent(), self.extent()
        x = self.b.input("x", dtype, (n, m))
        top = self.b.reduce((n, 1), (m,), lambda i, _, k: x[i, k], op="max", name="top")
        e = self.b.compute((n, m), lambda i, j: self.unary(x[i, j] - top[i, 0]), name="e")
        s = self.b.reduce((n, 1), (m,), lambda i, _, k: e[i, k], name="s")
        return self.b.compute((n, m), lambda i, j: e[i, j] * 3 - s[i, 0], name="y")

    def movement(self) -> Tensor:
        dtype, n, m, k = self.dtype(), self.extent(), self.extent(), self.draw(st.integers(1, 5))
        x = self.b.input("x", dtype, (n, m, k))
        t = self.b.compute((k, n, m), lambda c, i, j: x[i, j, c], name="t")
        flip = self.b.compute((k, m, n), lambda c, j, i: t[c, n - 1 - i, m - 1 - j], name="f")
        return self.b.compute(
            (k, m * n), lambda c, v: flip[c, v // n, v % n] + t[c, v % n, v // n], name="y"
        )

    def gather(self) -> Tensor:
        dtype, n, m = self.dtype(), self.extent(), self.extent()
        k = self.draw(st.integers(1, 6))
        x, at = self.b.input("x", dtype, (5, m)), self.b.input("at", "i64", (n,))
        with self.b.loop("q", 0, n) as q:
            self.b.check(call("and", call("ge", at[q], -4), call("lt", at[q], 5)), "index")
        t = self.b.compute((5, m), lambda i, j: self.unary(x[i, j]), name="t")
        g = self.b.compute(
            (n, m),
            lambda i, j: t[as_index(select(call("lt", at[i], 0), at[i] + 5, at[i]), 0, 4), j],
            name="g",
        )
        return self.b.compute((n, m), lambda i, j: g[i, j] + x[k % 5, j], name="y")

    def loops(self) -> Tensor:
        """What is neither a map nor a reduction: prefix sums, histograms, scratch values."""
        dtype, n = self.dtype(), self.extent()
        x = self.b.input("x", dtype, (n,))
        y = self.b.temp("y", dtype, (n + 2,))
        z = self.b.temp("z", dtype, (3,))
        with self.b.loop("a", 0, n + 2) as a:
            self.b.store(y, [a], 0)
        with self.b.loop("a", 0, 3) as a:
            self.b.store(z, [a], 1)
        kind = self.draw(st.integers(0, 5))
        with self.b.loop("i", 0, n) as i:
            if kind == 0:
                self.b.store(y, [i + 1], y[i] + x[i])
            elif kind == 1:
                self.b.accumulate(y, [i // 2], x[i])
            elif kind == 2:
                self.b.store(z, [0], x[i] * 2)
                self.b.store(y, [i], z[0] + 1)
            elif kind == 3:
                with self.b.loop("j", 0, i + 1) as j:
                    self.b.accumulate(y, [i - j], x[j])
            elif kind == 4:
                with self.b.when(call("gt", x[i], 0)):
                    self.b.accumulate(z, [1], x[i], self.pick("add", "max"))
                    self.b.store(y, [i + 2], x[i])
            else:
                self.b.accumulate(y, [n - i], x[i], "max")
                self.b.store(y, [n + 1 - i], x[i] - 1)
        self.b.mark_output(z)
        return y

    def rewritten(self) -> Tensor:
        """Buffers that change after a stage has read them."""
        dtype, n = self.dtype(), self.extent()
        x = self.b.input("x", dtype, (n,))
        t = self.b.compute((n,), lambda i: x[i] + 1, name="t")
        a = self.b.compute((n,), lambda i: self.unary(t[n - 1 - i]), name="a")
        with self.b.loop("q", 0, n) as q:
            if self.draw(st.booleans()):
                self.b.store(t, [q], a[q] - 2)
            else:
                self.b.accumulate(t, [n - 1 - q], a[q])
        return self.b.compute((n,), lambda i: a[i] * 3 + t[i], name="y")

    def conversions(self) -> Tensor:
        """Element types of several widths in one loop."""
        dtypes = [self.pick("f32", "i8", "i16", "i32", "i64", "u8", "bool", "f16") for _ in "abc"]
        n, m = self.extent(), self.extent()
        t = self.b.input("x", dtypes[0], (n, m))
        for k, dtype in enumerate(dtypes[1:]):
            old = t
            t = self.b.compute(
                (n, m), lambda i, j, old=old, d=dtype: cast(old[i, j], d), name=f"t{k}"
            )
        return self.b.compute((m, n), lambda j, i: cast(t[i, j], "i32"), name="y")

    def ragged(self) -> Tensor:
        """Rows whose lengths are data."""
        dtype, n, m = self.dtype(), self.extent(), self.draw(st.integers(1, 9))
        x, size = self.b.input("x", dtype, (n, m)), self.b.input("size", "i64", (n,))
        t = self.b.compute((n, m), lambda i, j: self.unary(x[i, j]), name="t")
        y = self.b.temp("y", dtype, (n,))
        with self.b.loop("i", 0, n) as i:
            self.b.store(y, [i], 0)
            length = call("max", call("min", size[i], m), 0)
            with self.b.loop("j", 0, as_index(length, 0, m)) as j:
                self.b.accumulate(y, [i], t[i, j])
        return y


KINDS = (
    *("chain", "product", "convolution", "pooling", "rows", "movement", "gather", "loops"),
    *("rewritten", "conversions", "ragged"),
)


@st.composite
def operators(
    draw: Any, kinds: tuple[str, ...] = KINDS, extents: tuple[int, ...] = tuple(range(1, 10))
) -> Drawn:
    """A kernel of one of the kinds, most of its axes of one of `extents`."""
    maker = Maker(draw, extents)
    make: Callable[[], Tensor] = getattr(maker, draw(st.sampled_from(kinds)))
    maker.b.mark_output(make())
    kernel = maker.b.build()
    return Drawn(kernel, {s.name: maker.sizes[s.name] for s in kernel.sizes})


# --- steps ---------------------------------------------------------------------------------------


def random_step(draw: Any, kernel: Kernel) -> Step:
    """A step that may or may not be legal for the kernel."""
    loops = [s.var.name for s in walk_stmts(kernel.body) if isinstance(s, For)] or ["none"]
    buffers = [b.name for b in kernel.buffers]
    local = [b.name for b in kernel.buffers if b.scope == "temp"] or buffers

    def pick(options: Any) -> Any:
        return draw(st.sampled_from(list(options)))

    kind = draw(st.integers(0, 30))
    factor = draw(st.integers(1, 5))
    if kind <= 3:
        return Split(pick(loops), factor, pick(TAILS))
    if kind == 4:
        outer = pick(loops)
        return Fuse(outer, _inner(kernel, outer) or pick(loops))
    if kind <= 6:
        nest = _nest(kernel, pick(loops))
        return Reorder(tuple(draw(st.permutations(nest[: draw(st.integers(2, 4))]))))
    if kind == 7:
        return Unroll(pick(loops))
    if kind <= 9:
        return Vectorize(pick(_leaves(kernel) or loops))
    if kind == 10:
        tops = [s.var.name for s in kernel.body if isinstance(s, For)]
        return Parallel(pick(pick([tops, loops]) or loops))
    if kind == 11:
        return DecomposeReduction(pick(loops))
    if kind == 12:
        return Inline(pick(local))
    if kind <= 15:
        return ComputeAt(pick(local), pick(loops), pick(("stack", "stack", "register", "temp")))
    if kind == 16:
        return CacheWrite(pick(buffers))
    if kind == 17:
        name = pick(buffers)
        order = tuple(draw(st.permutations(range(len(kernel.buffer(name).shape)))))
        return CacheRead(name, pick([*loops, ""]), pick([order, ()]))
    if kind == 28:
        return Outline(pick(buffers), draw(st.integers(0, 1)), pick([(), (1, 0)]))
    if kind >= 29:
        if kind == 29:
            return Decide(pick(loops))
        return Unswitch(pick(loops), pick((False, True)))
    movable = [b.name for b in kernel.buffers if b.scope != "const"]
    if kind == 18:
        return Rfactor(pick(_reductions(kernel) or loops), factor)
    if kind == 21:
        return FuseAxes(pick(movable), draw(st.integers(0, 2)))
    if kind == 22:
        name = pick(movable)
        shape = kernel.buffer(name).shape
        divided = [(a, m) for a, n in enumerate(shape) for m in (2, 3) if divides(m, n)]
        return SplitAxis(name, *pick([*divided, (draw(st.integers(0, 2)), 2)]))
    if kind == 23:
        return PadAxis(pick(local), 0, factor, pick(("zero", "clamp")), more=pick((0, 2)))
    if kind == 24:
        return Widen(pick(buffers), draw(st.integers(0, 1)), draw(st.integers(1, 12)))
    if kind == 26:
        name = pick(local)
        rank = len(kernel.buffer(name).shape)
        return PermuteAxes(name, tuple(draw(st.permutations(range(rank)))))
    if kind == 19:
        return Partition(pick(loops), factor)
    if kind in (20, 25):
        nests = [s for s in walk_stmts(kernel.body) if isinstance(s, For)]
        if nests:
            loop = pick(nests)
            inside = random_step(draw, focus(kernel, loop))
            return Within(loop.var.name, print_steps([inside]))
    constants = [b.name for b in kernel.buffers if b.scope == "const" and not b.pack]
    name = pick(constants or buffers)
    rank = len(kernel.buffer(name).shape)
    axes = [str(n) for n in range(rank)]
    if rank:
        tiled = draw(st.integers(0, rank - 1))
        axes[tiled] = f"{tiled}/{factor}"
        axes.append(f"{tiled}%{factor}")
    return Pack(name, " ".join(draw(st.permutations(axes))))


def _inner(kernel: Kernel, name: str) -> str | None:
    for s in walk_stmts(kernel.body):
        if isinstance(s, For) and s.var.name == name:
            first = s.body[0] if s.body else None
            return first.var.name if isinstance(first, For) else None
    return None


def _nest(kernel: Kernel, name: str) -> list[str]:
    names = [name]
    while (inner := _inner(kernel, names[-1])) is not None:
        names.append(inner)
    return names


def _reductions(kernel: Kernel) -> list[str]:
    loops = [s for s in walk_stmts(kernel.body) if isinstance(s, For)]
    return [f.var.name for f in loops if len(f.body) == 1 and isinstance(f.body[0], Reduce)]


def _leaves(kernel: Kernel) -> list[str]:
    loops = [s for s in walk_stmts(kernel.body) if isinstance(s, For)]
    return [
        f.var.name
        for f in loops
        if isinstance(f.extent, int) and not any(isinstance(x, For) for x in walk_stmts(f.body))
    ]


def apply_random(draw: Any, kernel: Kernel, count: int) -> tuple[Kernel, list[Step], int]:
    """The kernel after those of `count` random steps that are legal; these; how many were not."""
    done: list[Step] = []
    refused = 0
    for _ in range(count):
        step = random_step(draw, kernel)
        try:
            kernel = step.apply(kernel)
        except ScheduleError:
            refused += 1
            continue
        verify(kernel)
        done.append(step)
    return kernel, done, refused


def backwards(kernel: Kernel) -> Kernel:
    """The kernel with the iterations of parallel and vector loops in reverse order."""

    def one(s: Stmt) -> tuple[Stmt, ...]:
        if not isinstance(s, For) or s.kind not in ("parallel", "vector"):
            return (s,)
        mirrored = s.lo + s.hi - 1 - sym(s.var.name, s.var.lo, s.var.hi)
        return (replace(s, body=substitute_body(s.body, {s.var: mirrored})),)

    return kernel.with_body(map_body(kernel.body, one))
