"""Kernels as bytes, for another process of the same compiler: an order of magnitude quicker to read
than their text, which is for people.

The bytes are JSON: a list of rows, each of which describes one object by numbers of rows before it.
A size or an expression that occurs often has one row; statements have one each, as schedule steps
tell them apart by identity. The last row is the kernel.

    ["sym", name, lo, hi]       ["floordiv" | "mod" | "min" | "max", size, size]
    ["opaque", expr, lo, hi]    ["int", n]    ["dim", const, coefficient, [atom, ...], ...]
    ["const", value, dtype]     ["load", buffer, dtype, size...]
    ["index", size, dtype]      ["op", name, dtype, expr...]
    ["for", sym, lo, hi, kind, stmt...]     ["store", buffer, expr, size...]
    ["reduce", buffer, op, expr, size...]   ["if", expr, [stmt, ...], [stmt, ...]]
    ["while", expr, stmt...]    ["check", expr, message]
    ["buffer", name, dtype, scope, pack, [size, ...], [size, ...]]
    ["kernel", name, [sym, ...], [buffer, ...], [stmt, ...]]
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from aicc.symbolic import Atom, Dim, FloorDiv, Max, Min, Mod, Opaque, Size, Sym
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
)

Row = list[Any]
_PAIRS: dict[str, type[FloorDiv | Mod | Min | Max]] = {
    "floordiv": FloorDiv,
    "mod": Mod,
    "min": Min,
    "max": Max,
}
_WORDS = {kind: word for word, kind in _PAIRS.items()}


def to_bytes(kernel: Kernel) -> bytes:
    """What `from_bytes` makes an equal kernel of."""
    out = _Writer()
    row: Row = ["kernel", kernel.name]
    row.append(out.all(out.atom, kernel.sizes))
    row.append(out.all(out.buffer, kernel.buffers))
    row.append(out.all(out.stmt, kernel.body))
    out.rows.append(row)
    return json.dumps(out.rows, separators=(",", ":")).encode()


class _Writer:
    def __init__(self) -> None:
        self.rows: list[Row] = []
        self._known: dict[Any, int] = {}

    def all(self, one: Callable[[Any], int], items: Iterable[Any]) -> list[int]:
        return [one(x) for x in items]

    def _row(self, row: Row) -> int:
        self.rows.append(row)
        return len(self.rows) - 1

    def size(self, s: Size) -> int:
        found = self._known.get(s)
        if found is None:
            if isinstance(s, int):
                found = self._row(["int", s])
            else:
                row: Row = ["dim", s.const]
                for monomial, coef in s.terms:
                    row += (coef, self.all(self.atom, monomial))
                found = self._row(row)
            self._known[s] = found
        return found

    def atom(self, a: Atom) -> int:
        found = self._known.get(a)
        if found is None:
            if isinstance(a, Sym):
                found = self._row(["sym", a.name, a.lo, a.hi])
            elif isinstance(a, Opaque):
                found = self._row(["opaque", self.expr(a.payload), a.lo, a.hi])
            elif isinstance(a, FloorDiv | Mod):
                found = self._row([_WORDS[type(a)], self.size(a.num), self.size(a.den)])
            else:
                found = self._row([_WORDS[type(a)], self.size(a.a), self.size(a.b)])
            self._known[a] = found
        return found

    def expr(self, e: Expr) -> int:
        found = self._known.get(e)
        if found is None:
            if isinstance(e, Const):
                found = self._row(["const", e.value, e.dtype])
            elif isinstance(e, Load):
                found = self._row(["load", e.buffer, e.dtype, *self.all(self.size, e.indices)])
            elif isinstance(e, Index):
                found = self._row(["index", self.size(e.size), e.dtype])
            else:
                assert isinstance(e, Op)
                found = self._row(["op", e.name, e.dtype, *self.all(self.expr, e.args)])
            self._known[e] = found
        return found

    def stmt(self, s: Stmt) -> int:
        if isinstance(s, For):
            ends = self.atom(s.var), self.size(s.lo), self.size(s.hi)
            return self._row(["for", *ends, s.kind, *self.all(self.stmt, s.body)])
        if isinstance(s, Store):
            value = self.expr(s.value)
            return self._row(["store", s.buffer, value, *self.all(self.size, s.indices)])
        if isinstance(s, Reduce):
            value = self.expr(s.value)
            return self._row(["reduce", s.buffer, s.op, value, *self.all(self.size, s.indices)])
        if isinstance(s, If):
            branches = self.all(self.stmt, s.then), self.all(self.stmt, s.orelse)
            return self._row(["if", self.expr(s.cond), *branches])
        if isinstance(s, While):
            return self._row(["while", self.expr(s.cond), *self.all(self.stmt, s.body)])
        assert isinstance(s, Check)
        return self._row(["check", self.expr(s.cond), s.message])

    def buffer(self, b: Buffer) -> int:
        sizes = self.all(self.size, b.shape), self.all(self.size, b.pitch)
        return self._row(["buffer", b.name, b.dtype, b.scope, b.pack, *sizes, b.sparse])


def from_bytes(data: bytes) -> Kernel:
    """The kernel that `to_bytes` wrote. Raises ValueError for what it did not write."""
    made: list[Any] = []

    def some(numbers: Iterable[int]) -> tuple[Any, ...]:
        return tuple([made[n] for n in numbers])

    def dim(const: int, *terms: Any) -> Dim:
        pairs = zip(terms[::2], terms[1::2], strict=True)
        return Dim(tuple([(some(atoms), coef) for coef, atoms in pairs]), const)

    def pair(kind: type[FloorDiv | Mod | Min | Max]) -> Callable[[int, int], Atom]:
        return lambda a, b: kind(made[a], made[b])

    makers: dict[str, Callable[..., Any]] = {
        "int": int,
        "sym": Sym,
        **{word: pair(kind) for word, kind in _PAIRS.items()},
        "opaque": lambda payload, lo, hi: Opaque(made[payload], lo, hi),
        "dim": dim,
        "const": Const,
        "load": lambda buffer, dtype, *indices: Load(buffer, some(indices), dtype),
        "index": lambda size, dtype: Index(made[size], dtype),
        "op": lambda name, dtype, *args: Op(name, some(args), dtype),
        "for": lambda var, lo, hi, kind, *body: For(
            made[var], made[lo], made[hi], kind, some(body)
        ),
        "store": lambda buffer, value, *indices: Store(buffer, some(indices), made[value]),
        "reduce": lambda buffer, op, value, *indices: Reduce(
            buffer, some(indices), op, made[value]
        ),
        "if": lambda cond, then, orelse: If(made[cond], some(then), some(orelse)),
        "while": lambda cond, *body: While(made[cond], some(body)),
        "check": lambda cond, message: Check(made[cond], message),
        "buffer": lambda name, dtype, scope, pack, shape, pitch, sparse: Buffer(
            name, dtype, some(shape), scope, pack, some(pitch), sparse
        ),
        "kernel": lambda name, sizes, buffers, body: Kernel(
            name, some(sizes), some(buffers), some(body)
        ),
    }
    try:
        for word, *fields in json.loads(data):
            made.append(makers[word](*fields))
        kernel = made[-1]
    except (LookupError, TypeError) as error:
        raise ValueError(f"no kernel: {error!r}") from error
    if not isinstance(kernel, Kernel):
        raise ValueError("no kernel: its row is missing")
    return kernel
