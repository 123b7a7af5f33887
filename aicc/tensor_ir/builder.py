"""How an operator writes its loop nests: stages over tensors, appended to one kernel.

A stage computes one whole tensor. `compute` gives every element by an expression of its indices;
`reduce` combines an expression over reduction axes. Stages of several operators in one builder are
a fused kernel before scheduling: intermediates are `temp` buffers that the schedule inlines or
computes tile by tile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from aicc.dtypes import is_float, nbytes
from aicc.symbolic import Size, Sym, loop_var, symbols
from aicc.tensor_ir.ir import (
    Buffer,
    Check,
    Expr,
    ExprLike,
    For,
    If,
    Kernel,
    Load,
    Reduce,
    Stmt,
    Store,
    While,
    as_expr,
    as_index,
    const,
)


@dataclass(frozen=True)
class Tensor:
    """A buffer as an operator sees it: `t[i, j]` is the expression that loads an element.

    `literal` is set for a constant whose elements are all equal: it needs no buffer.
    """

    name: str
    dtype: str
    shape: tuple[Size, ...]
    literal: int | float | None = None

    @property
    def rank(self) -> int:
        return len(self.shape)

    def __getitem__(self, indices: Size | Expr | Sequence[Size | Expr]) -> Expr:
        items = indices if isinstance(indices, tuple | list) else (indices,)
        if len(items) != len(self.shape):
            raise IndexError(f"{self.name} has {len(self.shape)} dimensions, not {len(items)}")
        if self.literal is not None:
            return const(self.literal, self.dtype)
        return Load(
            self.name,
            tuple(as_index(i) if isinstance(i, Expr) else i for i in items),
            self.dtype,
        )

    def broadcast(self, indices: Sequence[Size]) -> Expr:
        """The element for an index of a larger shape, by numpy's rule: trailing axes, 1 repeats."""
        own = indices[len(indices) - self.rank :]
        return self[tuple(0 if d == 1 else i for i, d in zip(own, self.shape, strict=True))]


def identity(op: str, dtype: str) -> Expr:
    """The neutral element of a reduction."""
    if op in ("max", "min"):
        if is_float(dtype):
            return const(float("-inf") if op == "max" else float("inf"), dtype)
        if dtype == "bool":
            return const(op == "min", "bool")
        bits = 8 * nbytes(dtype)
        if dtype.startswith("u"):
            return const(0 if op == "max" else 2**bits - 1, dtype)
        return const(-(2 ** (bits - 1)) if op == "max" else 2 ** (bits - 1) - 1, dtype)
    return const({"add": 0, "or": 0, "mul": 1, "and": 1}[op], dtype)


class KernelBuilder:
    """Collects buffers and stages. Names of buffers and loop variables are unique in the kernel."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._buffers: list[Buffer] = []
        self._names: set[str] = set()
        self._stack: list[list[Stmt]] = [[]]

    # buffers

    def _unique(self, name: str) -> str:
        base, n = name, 1
        while name in self._names:
            name, n = f"{base}_{n}", n + 1
        self._names.add(name)
        return name

    def _reserve(self, sizes: Iterable[Size]) -> None:
        """Keeps the names of symbols from loop variables, which would hide them."""
        for s in sizes:
            self._names.update(symbol.name for symbol in symbols(s))

    def _declare(self, name: str, dtype: str, shape: Sequence[Size], scope: str) -> Tensor:
        self._reserve(shape)
        buffer = Buffer(self._unique(name), dtype, tuple(shape), scope)
        self._buffers.append(buffer)
        return Tensor(buffer.name, dtype, buffer.shape)

    def input(self, name: str, dtype: str, shape: Sequence[Size]) -> Tensor:
        return self._declare(name, dtype, shape, "in")

    def constant(self, name: str, dtype: str, shape: Sequence[Size]) -> Tensor:
        """A parameter whose data are known at compile time, so that its layout may be packed."""
        return self._declare(name, dtype, shape, "const")

    def temp(self, name: str, dtype: str, shape: Sequence[Size]) -> Tensor:
        """An intermediate that `store`/`accumulate` fill; `compute` and `reduce` make their own."""
        return self._declare(name, dtype, shape, "temp")

    def mark_output(self, tensor: Tensor) -> Tensor:
        """Makes a stage's tensor an output parameter of the kernel."""
        for n, b in enumerate(self._buffers):
            if b.name == tensor.name:
                if b.scope != "temp":
                    raise ValueError(f"{tensor.name} is a parameter of the kernel already")
                self._buffers[n] = Buffer(b.name, b.dtype, b.shape, "out")
        return tensor

    # stages

    def compute(
        self,
        shape: Sequence[Size],
        fn: Callable[..., ExprLike],
        dtype: str | None = None,
        name: str = "t",
    ) -> Tensor:
        """The tensor with element `fn(i, j, ...)` at index (i, j, ...)."""
        axes = self._axes("i", shape)
        value = as_expr(fn(*(v for _, v in axes)), dtype)
        out = self.temp(name, value.dtype, shape)
        store = Store(out.name, tuple(v for _, v in axes), value)
        self._stack[-1].extend(_nest(axes, (store,)))
        return out

    def reduce(
        self,
        shape: Sequence[Size],
        extents: Sequence[Size] | Callable[..., Sequence[Size]],
        fn: Callable[..., Expr],
        op: str = "add",
        init: ExprLike | None = None,
        name: str = "r",
    ) -> Tensor:
        """`out[i...] = op over k... of fn(i..., k...)`, starting from `init` (default: identity).

        `fn` takes the indices of `shape`, then those of `extents`, which may be a function of the
        indices of `shape`.
        """
        axes = self._axes("i", shape)
        index = tuple(v for _, v in axes)
        inner = self._axes("k", extents(*index) if callable(extents) else extents)
        value = fn(*index, *(v for _, v in inner))
        out = self.temp(name, value.dtype, shape)
        start = identity(op, value.dtype) if init is None else as_expr(init, value.dtype)
        update = _nest(inner, (Reduce(out.name, index, op, value),))
        nest = _nest(axes, (Store(out.name, index, start), *update))
        if len(nest) > 1:  # a single result: one nest all the same, so that it is a stage
            nest = (For(Sym(self._unique("i"), 0, 0), 0, 1, "for", nest),)
        self._stack[-1].extend(nest)
        return out

    # free-form loops, for operators that are no map and no reduction

    def loop(self, name: str, lo: Size, hi: Size) -> _Loop:
        """`with b.loop("i", 0, n) as i:` - statements inside go into the loop."""
        self._reserve((lo, hi))
        return _Loop(self, Sym(self._unique(name)), lo, hi)

    def when(self, cond: Expr) -> _When:
        """`with b.when(cond):` - statements inside run where `cond` holds."""
        return _When(self, cond)

    def repeat(self, cond: Expr) -> _Repeat:
        """`with b.repeat(cond):` - statements inside run while `cond` holds."""
        return _Repeat(self, cond)

    def store(self, out: Tensor, indices: Sequence[Size | Expr], value: ExprLike) -> None:
        index = tuple(as_index(i) if isinstance(i, Expr) else i for i in indices)
        self._stack[-1].append(Store(out.name, index, as_expr(value, out.dtype)))

    def accumulate(
        self, out: Tensor, indices: Sequence[Size | Expr], value: Expr, op: str = "add"
    ) -> None:
        index = tuple(as_index(i) if isinstance(i, Expr) else i for i in indices)
        self._stack[-1].append(Reduce(out.name, index, op, value))

    def check(self, cond: Expr, message: str) -> None:
        """Ends a run with `message` where `cond` is false."""
        self._stack[-1].append(Check(cond, message))

    # result

    def build(self) -> Kernel:
        """The kernel of all stages so far, its sizes those that they name."""
        sizes: set[Sym] = set()
        for b in self._buffers:
            for d in b.shape:
                sizes |= symbols(d)
        body = tuple(self._stack[0])
        bound = _free_symbols(body)
        ordered = tuple(sorted(sizes | bound, key=lambda s: s.name))
        return Kernel(self.name, ordered, tuple(self._buffers), body)

    def _axes(self, prefix: str, extents: Sequence[Size]) -> list[tuple[Size, Size]]:
        """(extent, variable) pairs with fresh names; an axis of extent 1 has variable 0."""
        self._reserve(extents)
        return [
            (e, 0 if e == 1 else loop_var(self._unique(f"{prefix}{n}"), 0, e))
            for n, e in enumerate(extents)
        ]


def _nest(axes: list[tuple[Size, Size]], body: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
    for extent, var in reversed(axes):
        if not isinstance(var, int):
            (symbol,) = symbols(var)
            body = (For(symbol, 0, extent, "for", body),)
    return body


def _free_symbols(body: tuple[Stmt, ...], bound: frozenset[Sym] = frozenset()) -> frozenset[Sym]:
    """Symbols used by statements that no loop around them binds."""
    from aicc.tensor_ir.walk import children, stmt_exprs

    free: frozenset[Sym] = frozenset()
    for s in body:
        inner = bound
        if isinstance(s, For):
            free |= (symbols(s.lo) | symbols(s.hi)) - bound
            inner = bound | {s.var}
        if isinstance(s, Store | Reduce):
            for i in s.indices:
                free |= symbols(i) - bound
        for e in stmt_exprs(s):
            free |= e.size_symbols() - bound
        free |= _free_symbols(children(s), inner)
    return free


class _Block:
    def __init__(self, builder: KernelBuilder) -> None:
        self._builder = builder

    def _open(self) -> None:
        self._builder._stack.append([])

    def _close(self) -> tuple[Stmt, ...]:
        return tuple(self._builder._stack.pop())

    def _emit(self, s: Stmt) -> None:
        self._builder._stack[-1].append(s)


class _Loop(_Block):
    def __init__(self, builder: KernelBuilder, var: Sym, lo: Size, hi: Size) -> None:
        super().__init__(builder)
        value = loop_var(var.name, lo, hi)
        (self.var,) = symbols(value)
        self.value, self.lo, self.hi = value, lo, hi

    def __enter__(self) -> Size:
        self._open()
        return self.value

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        body = self._close()
        if kind is None:
            self._emit(For(self.var, self.lo, self.hi, "for", body))


class _When(_Block):
    def __init__(self, builder: KernelBuilder, cond: Expr) -> None:
        super().__init__(builder)
        self.cond = cond

    def __enter__(self) -> None:
        self._open()

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        body = self._close()
        if kind is None:
            self._emit(If(self.cond, body))


class _Repeat(_When):
    def __exit__(self, kind: object, error: object, trace: object) -> None:
        body = self._close()
        if kind is None:
            self._emit(While(self.cond, body))
