"""Reads the text form of the tensor IR, the inverse of `aicc.tensor_ir.text`.

`parse_kernel(print_kernel(k)) == k` for every kernel that `verify` accepts. Faults of the text
raise IRError with the place; what the text means is checked by `verify`.
"""

from __future__ import annotations

from aicc.dtypes import ALL, INTEGERS, is_float
from aicc.symbolic import Size, Sym, loop_var, sym, symbols
from aicc.tensor_ir.ir import (
    KINDS,
    LOCAL_SCOPES,
    PARAM_SCOPES,
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
from aicc.tensor_ir.scalar import result_type
from aicc.tensor_ir.text import COMPARE_PRECEDENCE, INFIX, NOT_PRECEDENCE
from aicc.text import Reader, Token

_SYMBOL_TO_OP = {symbol: (name, own) for name, (symbol, own) in INFIX.items()}
_REDUCE = {"+=": "add", "*=": "mul"}
_NAMED_REDUCE = ("max", "min", "and", "or")
_DTYPES = frozenset(ALL) - {"str"}


def parse_kernel(text: str, source: str = "") -> Kernel:
    """The kernel that `text` describes; `source` names the text in errors."""
    reader = Reader(text, source)
    kernel = KernelReader(reader).kernel()
    reader.finish()
    return kernel


class KernelReader:
    """Reads kernels out of a longer text, such as a module's."""

    def __init__(self, reader: Reader) -> None:
        self._r = reader
        self._buffers: dict[str, Buffer] = {}
        self._scope: dict[str, Size] = {}

    def kernel(self) -> Kernel:
        """One kernel, from its `kernel` line to the end of its block."""
        r = self._r
        self._buffers, self._scope = {}, {}
        r.expect("kernel")
        r.expect("@")
        name = r.name("the kernel's name")
        sizes: list[Sym] = r.listed(self._size_param, "(", ")")
        body = [s for s in r.block(self._item) if s is not None]
        return Kernel(name, tuple(sizes), tuple(self._buffers.values()), tuple(body))

    def _size_param(self) -> Sym:
        start = self._r.token
        name = self._r.name("a size's name")
        if name in self._scope:
            self._r.fail(f"the size {name!r} is declared twice", start)
        self._r.expect(":")
        lo, hi = self._r.range()
        self._scope[name] = sym(name, lo, hi)
        return Sym(name, lo, hi)

    def _item(self) -> Stmt | None:
        if self._r.at(*PARAM_SCOPES, *LOCAL_SCOPES) and self._r.ahead().kind == "name":
            self._buffer()
            return None
        return self._stmt()

    def _buffer(self) -> None:
        r = self._r
        scope = r.take().text
        start = r.token
        name = r.name("the buffer's name")
        if name in self._buffers:
            r.fail(f"the buffer {name!r} is declared twice", start)
        r.expect(":")
        dtype = self._dtype(r.expect_kind("name", "an element type"))
        shape = r.sizes(self._scope.get)
        pack = ""
        if r.accept("pack"):
            r.expect("=")
            pack = r.string()
        pitch: tuple[Size, ...] = ()
        if r.accept("pitch"):
            r.expect("=")
            pitch = r.sizes(self._scope.get)
        sparse = r.accept("sparse")
        r.newline()
        self._buffers[name] = Buffer(name, dtype, shape, scope, pack, pitch, bool(sparse))

    def _dtype(self, t: Token) -> str:
        if t.text not in _DTYPES:
            self._r.fail(f"{t.text!r} is no element type", t)
        return t.text

    # statements

    def _stmt(self) -> Stmt | None:
        r = self._r
        if r.ahead().text == "[":
            return self._simple()
        if r.at("pass"):
            r.take()
            r.newline()
            return None
        if r.at(*KINDS):
            return self._for()
        if r.accept("if"):
            cond, then = self._expr(), self._block()
            orelse = self._block() if r.accept("else") else ()
            return If(cond, then, orelse)
        if r.accept("while"):
            return While(self._expr(), self._block())
        if r.at("check"):
            return self._simple()
        r.fail(f"expected a statement, found {r.token}")

    def _block(self) -> tuple[Stmt, ...]:
        self._r.expect(":")
        if self._r.at_kind("newline"):
            return tuple(s for s in self._r.block(self._stmt) if s is not None)
        return (self._simple(),)

    def _for(self) -> For:
        r = self._r
        kind = r.take().text
        name = r.name("the loop variable")
        given = r.range() if r.accept(":") else None
        r.expect("in")
        lo = self._size()
        r.expect("..")
        hi = self._size()
        value = loop_var(name, lo, hi) if given is None else sym(name, *given)
        (var,) = symbols(value)
        outside = self._scope.get(name)
        self._scope[name] = value
        body = self._block()
        if outside is None:
            del self._scope[name]
        else:
            self._scope[name] = outside
        return For(var, lo, hi, kind, body)

    def _simple(self) -> Stmt:
        r = self._r
        made: Stmt
        if r.at("check") and r.ahead().text != "[":
            r.take()
            made = Check(self._expr(), r.string())
        else:
            t = r.token
            buffer = r.name("a buffer")
            if buffer not in self._buffers:
                r.fail(f"unknown buffer {buffer!r}", t)
            indices = self._indices()
            if r.at(*_REDUCE):
                op = _REDUCE[r.take().text]
                made = Reduce(buffer, indices, op, self._expr())
            elif r.at(*_NAMED_REDUCE):
                op = r.take().text
                r.expect("=")
                made = Reduce(buffer, indices, op, self._expr())
            else:
                r.expect("=")
                made = Store(buffer, indices, self._expr())
        r.newline()
        return made

    # sizes

    def _size(self) -> Size:
        return self._r.size(self._scope.get, self._expr)

    def _indices(self) -> tuple[Size, ...]:
        return self._r.sizes(self._scope.get, self._expr)

    # expressions

    def _expr(self, outer: int = 0) -> Expr:
        """An expression of operations that bind more tightly than `outer`."""
        left = self._prefix()
        while True:
            found = _SYMBOL_TO_OP.get(self._r.token.text) if self._infix_ahead() else None
            if found is None or found[1] <= outer:
                return left
            t = self._r.take()
            name, own = found
            left = self._op(name, (left, self._expr(own)), t)
            if own == COMPARE_PRECEDENCE and self._infix_ahead():
                after = _SYMBOL_TO_OP[self._r.token.text]
                if after[1] == COMPARE_PRECEDENCE:
                    self._r.fail("comparisons do not chain; use parentheses")

    def _infix_ahead(self) -> bool:
        return self._r.at(*_SYMBOL_TO_OP)

    def _prefix(self) -> Expr:
        r = self._r
        t = r.token
        if r.accept("("):
            inner = self._expr()
            r.expect(")")
            return inner
        if r.at("not") and r.ahead().text != "[":
            r.take()
            return self._op("not", (self._expr(NOT_PRECEDENCE - 1),), t)
        if r.at("-"):
            if r.ahead().kind in ("int", "float") or r.ahead().text in ("inf", "nan"):
                return self._const()
            r.take()
            return self._op("neg", (self._prefix(),), t)
        if t.kind in ("int", "float"):
            return self._const()
        if t.kind != "name":
            r.fail(f"expected an expression, found {t}")
        if r.ahead().text == "[":
            r.take()
            buffer = self._buffers.get(t.text)
            if buffer is None:
                r.fail(f"unknown buffer {t.text!r}", t)
            return Load(buffer.name, self._indices(), buffer.dtype)
        if r.ahead().text == "(" and not t.quoted:
            return self._call()
        if r.at("true", "false"):
            return Const(int(r.take().text == "true"), "bool")
        if r.at("inf", "nan"):
            return self._const()
        r.fail(f"expected an expression, found {t}")

    def _const(self) -> Const:
        r = self._r
        start = r.token
        value = r.number()
        dtype = "f32"
        suffixed = r.at(":") and not r.token.spaced and not r.ahead().spaced
        if suffixed and r.ahead().kind == "name":
            r.take()
            dtype = self._dtype(r.take())
        elif isinstance(value, int):
            r.fail(f"an integer needs its type, as in {value}:i64", start)
        if is_float(dtype):
            return Const(float(value), dtype)
        if dtype not in INTEGERS or isinstance(value, float):
            r.fail(f"{value} is no constant of type {dtype}", start)
        return Const(value, dtype)

    def _call(self) -> Expr:
        r = self._r
        t = r.take()
        if t.text == "index" or t.text.startswith("index."):
            dtype = t.text.partition(".")[2] or "i64"
            if dtype not in INTEGERS:
                r.fail(f"{dtype!r} is no integer type", t)
            r.expect("(")
            size = self._size()
            r.expect(")")
            return Index(size, dtype)
        return self._op(t.text, tuple(r.listed(self._expr, "(", ")")), t)

    def _op(self, name: str, args: tuple[Expr, ...], t: Token) -> Op:
        kind, _, dtype = name.partition(".")
        if kind in ("cast", "bitcast") and (dtype not in _DTYPES or len(args) != 1):
            self._r.fail(f"{name} is no conversion of {len(args)} operands", t)
        try:
            return Op(name, args, result_type(name, args))
        except TypeError as fault:
            raise self._r.error(str(fault), t) from None
