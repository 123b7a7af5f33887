"""Random kernels that keep all invariants and never leave their buffers, for property tests."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from hypothesis import strategies as st

from aicc.dtypes import FLOATS, INTEGERS, NUMERIC, SIGNED, is_float, nbytes, to_numpy
from aicc.symbolic import (
    Size,
    Sym,
    loop_var,
    maximum,
    minimum,
    opaque,
    proves_le,
    proves_lt,
    sym,
    symbols,
)
from aicc.symbolic import evaluate as evaluate_size
from aicc.tensor_ir.ir import (
    Buffer,
    Check,
    Const,
    Expr,
    For,
    If,
    Index,
    Kernel,
    Load,
    Op,
    Reduce,
    Stmt,
    Store,
    While,
    call,
    const,
    select,
)

DTYPES = ("f32", "i64", "bool", "f64", "i32", "f16", "u8", "bf16", "i8", "u64")
UNARY_FLOAT = ("exp", "tanh", "sqrt", "floor", "round", "erf")
ARITHMETIC = ("add", "sub", "mul", "div", "max", "min", "mod", "floormod")
COMPARE = ("lt", "le", "gt", "ge", "eq", "ne")
BITS = ("bitand", "bitor", "bitxor")


def int_range(dtype: str) -> tuple[int, int]:
    info = np.iinfo(to_numpy(dtype))
    return int(info.min), int(info.max)


def constants(dtype: str) -> st.SearchStrategy[Const]:
    if dtype == "bool":
        return st.booleans().map(lambda b: const(b, "bool"))
    if is_float(dtype):
        plain = st.floats(width=16) if nbytes(dtype) == 2 else st.floats(width=8 * nbytes(dtype))
        return st.one_of(
            plain, st.sampled_from([0.0, -0.0, 1.0, math.inf, -math.inf, math.nan])
        ).map(lambda v: Const(v, dtype))
    lo, hi = int_range(dtype)
    return st.one_of(
        st.integers(max(lo, -9), 9), st.integers(lo, hi), st.sampled_from([lo, hi])
    ).map(lambda v: Const(v, dtype))


class _Maker:
    """Draws the parts of one kernel. `scope` holds the sizes and the loop variables in sight."""

    def __init__(self, draw: Any, buffers: list[Buffer], scope: list[Size]) -> None:
        self.draw = draw
        self.buffers = buffers
        self.scope = scope
        self.fresh = 0

    def pick(self, options: Any) -> Any:
        return self.draw(st.sampled_from(list(options)))

    def size(self, depth: int) -> Size:
        kind = self.draw(st.integers(0, 6)) if depth else 0
        if kind <= 1:
            return self.pick([*self.scope, 0, 1, -2])
        a, b = self.size(depth - 1), self.size(depth - 1)
        by = self.draw(st.integers(1, 5))
        if kind == 2:
            return a + b
        if kind == 3:
            return a * self.draw(st.integers(-3, 3)) - b
        if kind == 4:
            return a // by
        if kind == 5:
            return a % by
        return minimum(a, b) if by < 3 else maximum(a, b)

    def index(self, extent: Size, depth: int) -> Size:
        """An index below `extent`, which is positive."""
        inside = [v for v in self.scope if proves_le(0, v) and proves_lt(v, extent)]
        kind = self.draw(st.integers(0, 4))
        if kind <= 2 and inside:
            return self.pick(inside)
        any_size = self.size(2)
        if kind == 3 and depth:
            any_size = opaque(self.expr(self.pick(INTEGERS[:4]), depth - 1)) * 2 - any_size
        if kind == 4 and isinstance(extent, int):
            return any_size % extent
        return maximum(0, minimum(any_size, extent - 1))

    def load(self, dtype: str, depth: int) -> Expr | None:
        having = [b for b in self.buffers if b.dtype == dtype]
        if not having:
            return None
        b = self.pick(having)
        return Load(b.name, tuple(self.index(d, depth) for d in b.shape), dtype)

    def expr(self, dtype: str, depth: int) -> Expr:
        kind = self.draw(st.integers(0, 9)) if depth > 0 else self.draw(st.integers(0, 1))
        if kind <= 1:
            loaded = self.load(dtype, depth) if kind else None
            return loaded or self.draw(constants(dtype))
        if kind == 2:
            other = self.pick(DTYPES)
            if other != dtype:
                return call(f"cast.{dtype}", self.expr(other, depth - 1))
        if kind == 3:
            return select(
                self.expr("bool", depth - 1),
                self.expr(dtype, depth - 1),
                self.expr(dtype, depth - 1),
            )
        if kind == 4 and dtype in ("i64", "i32"):
            return Index(self.size(2), dtype)
        if dtype == "bool":
            return self._condition(depth)
        if is_float(dtype) and kind == 5:
            return Op(self.pick(UNARY_FLOAT), (self.expr(dtype, depth - 1),), dtype)
        if kind == 6 and dtype in SIGNED + FLOATS:
            return Op(self.pick(("neg", "abs")), (self.expr(dtype, depth - 1),), dtype)
        name = self.pick(ARITHMETIC if dtype in FLOATS else ARITHMETIC + BITS)
        return Op(name, (self.expr(dtype, depth - 1), self.expr(dtype, depth - 1)), dtype)

    def _condition(self, depth: int) -> Expr:
        kind = self.draw(st.integers(0, 3))
        if kind == 0:
            return Op("not", (self.expr("bool", depth - 1),), "bool")
        if kind == 1:
            a, b = self.expr("bool", depth - 1), self.expr("bool", depth - 1)
            return Op(self.pick(("and", "or", "xor")), (a, b), "bool")
        dtype = self.pick(DTYPES)
        a, b = self.expr(dtype, depth - 1), self.expr(dtype, depth - 1)
        return Op(self.pick(COMPARE), (a, b), "bool")

    def body(self, depth: int, loops: int, in_vector: bool = False) -> tuple[Stmt, ...]:
        count = self.draw(st.integers(0 if loops else 1, 3))
        return tuple(self.stmt(depth, loops, in_vector) for _ in range(count))

    def stmt(self, depth: int, loops: int, in_vector: bool) -> Stmt:
        kind = self.draw(st.integers(0, 8)) if depth else self.draw(st.integers(0, 4))
        if kind <= 3:
            b = self.pick([b for b in self.buffers if b.scope not in ("in", "const")])
            indices = tuple(self.index(d, 1) for d in b.shape)
            value = self.expr(b.dtype, 3)
            if kind == 3:
                ops = ("and", "or", "max") if b.dtype == "bool" else ("add", "mul", "max", "min")
                return Reduce(b.name, indices, self.pick(ops), value)
            return Store(b.name, indices, value)
        if kind == 4:
            always = call("or", const(True, "bool"), self.expr("bool", 2))
            return Check(always, self.draw(st.text(max_size=8)))
        if kind == 5:
            orelse = self.body(depth - 1, loops, in_vector) if self.draw(st.booleans()) else ()
            return If(self.expr("bool", 2), self.body(depth - 1, loops, in_vector), orelse)
        if kind == 6 and not in_vector:
            never = call("and", const(False, "bool"), self.expr("bool", 2))
            return While(never, self.body(depth - 1, loops + 1, in_vector))
        if in_vector:
            return self.stmt(0, loops, in_vector)
        return self._loop(depth, loops)

    def _loop(self, depth: int, loops: int) -> For:
        kind = self.pick(("for", "vector", "unroll", *(("parallel",) if not loops else ())))
        self.fresh += 1
        name = self.pick(("i", "j.o", "k 1")) + str(self.fresh)
        if kind == "vector":
            lo: Size = self.draw(st.integers(-1, 2))
            hi: Size = lo + self.draw(st.integers(0, 4))
        else:
            lo = self.pick([0, 0, 1, *self.scope])
            hi = minimum(self.pick([2, 3, *self.scope]), 4)
        value = loop_var(name, lo, hi)
        (var,) = symbols(value)
        if self.draw(st.integers(0, 5)) == 0 and var.hi is not None:
            var = Sym(name, None if var.lo is None else var.lo - 1, var.hi + 2)
            value = sym(name, var.lo, var.hi)
        self.scope.append(value)
        body = self.body(depth - 1, loops + 1, kind == "vector")
        self.scope.pop()
        return For(var, lo, hi, kind, body)


@st.composite
def kernels(draw: Any, locals_: bool = True) -> Kernel:
    """Kernels over the sizes n and m. Locals are stack buffers written first, and temps."""
    sizes = (Sym("n", 1, 5), Sym("m", 2, None), Sym("odd name", 0, 3))
    n, m = sym("n", 1, 5), sym("m", 2, None)
    scopes = ["in", "const", "out", "temp"] if locals_ else ["in", "const", "out"]
    dims: list[Size] = [1, 2, 3, n, m, n + 1, n * 2]
    buffers = [Buffer("y", draw(st.sampled_from(DTYPES)), (n,), "out")]
    for number in range(draw(st.integers(1, 4))):
        scope = draw(st.sampled_from(scopes))
        shape = tuple(draw(st.lists(st.sampled_from(dims), max_size=2)))
        pack = draw(st.sampled_from(["", "1/16 0 1%16"])) if scope == "const" else ""
        name = draw(st.sampled_from(["x", "t.1", "in", "max", "a b"])) + str(number)
        dtype = draw(st.sampled_from(DTYPES))
        buffers.append(Buffer(name, dtype, shape, scope, pack))
    maker = _Maker(draw, buffers, [sym(s.name, s.lo, s.hi) for s in sizes])
    return Kernel("k.1", sizes, tuple(buffers), maker.body(3, 0))


def random_arrays(
    kernel: Kernel, sizes: dict[str, int], rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Arrays for the kernel's parameters: small numbers, and a NaN or an extreme here and there."""
    arrays = {}
    for b in kernel.params:
        shape = tuple(evaluate_size(d, sizes) for d in b.shape)
        if b.dtype == "bool":
            data = rng.integers(0, 2, shape).astype(bool)
        elif is_float(b.dtype):
            data = rng.normal(size=shape) * 3
            data = np.where(rng.random(shape) < 0.1, np.nan, data).astype(to_numpy(b.dtype))
        else:
            lo, hi = int_range(b.dtype)
            data = rng.integers(max(lo, -4), 9, shape).astype(to_numpy(b.dtype))
            data = np.where(rng.random(shape) < 0.1, hi, data).astype(to_numpy(b.dtype))
        arrays[b.name] = np.asarray(data)
    return arrays


assert set(DTYPES) <= {*NUMERIC, "bool"}
