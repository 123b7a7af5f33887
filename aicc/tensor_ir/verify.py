"""Checks that a kernel keeps the invariants that `aicc.tensor_ir.ir` lists."""

from __future__ import annotations

from typing import NoReturn

from aicc.dtypes import FLOATS, INTEGERS, NUMERIC, is_float, is_signed, nbytes
from aicc.errors import IRError
from aicc.symbolic import Size, Sym, hi_of, opaques, proves_le, proves_lt, symbols
from aicc.tensor_ir.ir import (
    KINDS,
    LOCAL_SCOPES,
    PARAM_SCOPES,
    REDUCTIONS,
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
from aicc.tensor_ir.scalar import COMPARISONS, OPS, result_type
from aicc.tensor_ir.strides import normal_pitch
from aicc.tensor_ir.text import print_buffer, print_expr, print_kernel
from aicc.tensor_ir.walk import loads_of, walk_stmts, word_of

_BOOL = ("bool",)
_ANY = (*NUMERIC, "bool")
# The operand types of each operation; an operation not listed takes floats only.
_OPERANDS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("neg", "abs", "add", "sub", "mul", "div", "mod", "floormod"), NUMERIC),
    "fma": NUMERIC,
    **dict.fromkeys(("bitnot", "bitand", "bitor", "bitxor", "shl", "shr"), INTEGERS),
    **dict.fromkeys(("and", "or", "xor", "not"), _BOOL),
    **dict.fromkeys(("max", "min", *COMPARISONS, "select"), _ANY),
}


def _written(body: tuple[Stmt, ...]) -> set[str]:
    return {s.buffer for s in walk_stmts(body) if isinstance(s, Store | Reduce)}


def verify(kernel: Kernel) -> None:
    """Raises IRError, with the text of the kernel and the faulty statement marked."""
    if "_valid" not in kernel.__dict__:  # a kernel does not change
        _Verifier(kernel).check()
        kernel.__dict__["_valid"] = True


class _Verifier:
    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._buffers: dict[str, Buffer] = {}
        self._bound: set[Sym] = set()
        self._names: set[str] = set()
        self._at: Stmt | None = None
        # The number of parallel loops around the first use of each per-thread buffer.
        self._in_parallel: dict[str, int] = {}
        self._parallel = 0
        self._serial = True  # whether all loops around are `for` or `parallel`

    def _fail(self, message: str) -> NoReturn:
        raise IRError(f"{message}, in\n{print_kernel(self._kernel, self._at)}")

    def check(self) -> None:
        for s in self._kernel.sizes:
            if s.name in self._names:
                self._fail(f"the size {s} is declared twice")
            if s.lo is not None and s.hi is not None and s.hi < s.lo:
                self._fail(f"the size {s} has no value in {s.lo}..{s.hi}")
            self._names.add(s.name)
            self._bound.add(s)
        for b in self._kernel.buffers:
            self._buffer(b)
        self._body(self._kernel.body, sure=True)

    def _buffer(self, b: Buffer) -> None:
        if b.name in self._buffers:
            self._fail(f"the buffer {b.name} is declared twice")
        self._buffers[b.name] = b
        text = print_buffer(b)
        if b.scope not in (*PARAM_SCOPES, *LOCAL_SCOPES):
            self._fail(f"{text}: no scope is called {b.scope!r}")
        if b.dtype not in _ANY:
            self._fail(f"{text}: no element type is called {b.dtype!r}")
        if b.sparse and b.scope != "in":
            self._fail(f"{text}: only an operand is sparse")
        if b.pack and b.scope != "const":
            self._fail(f"{text}: only a constant is packed")
        for d in b.shape:
            if not symbols(d) <= self._bound or opaques(d):
                self._fail(f"{text}: the shape depends on what is no size of the kernel")
            if b.scope == "register" and not isinstance(d, int):
                self._fail(f"{text}: a register buffer has a constant shape")
            hi = hi_of(d)
            if hi is not None and hi < 0:
                self._fail(f"{text}: a dimension is negative")
        if b.pitch:
            self._pitch(b, text)

    def _pitch(self, b: Buffer, text: str) -> None:
        if b.scope not in ("in", "out"):
            self._fail(f"{text}: only an operand or a result is a part of a larger array")
        if len(b.pitch) != len(b.shape):
            self._fail(f"{text}: {len(b.pitch)} strides for {len(b.shape)} dimensions")
        if normal_pitch(b.shape, b.pitch) != b.pitch:
            self._fail(f"{text}: the pitch is not in its normal form")
        for s in b.pitch:
            if not symbols(s) <= self._bound or opaques(s):
                self._fail(f"{text}: the pitch depends on what is no size of the kernel")
        inner: Size = 1
        for extent, s in zip(reversed(b.shape), reversed(b.pitch)):
            if extent != 1 and not proves_le(inner, s):
                self._fail(f"{text}: elements {s} apart may be in one place")
            inner = s * extent

    # statements; `sure`: executed whenever the kernel runs

    def _body(self, body: tuple[Stmt, ...], sure: bool, vector: bool = False) -> None:
        for s in body:
            self._at = s
            if isinstance(s, For):
                self._for(s, sure, vector)
            elif isinstance(s, Store | Reduce):
                self._store(s, sure)
            elif isinstance(s, If | While | Check):
                self._expr(s.cond, sure)
                if s.cond.dtype != "bool":
                    self._fail(f"the condition has type {s.cond.dtype}, not bool")
                if isinstance(s, If):
                    self._body(s.then, False, vector)
                    self._body(s.orelse, False, vector)
                elif isinstance(s, While):
                    if vector:
                        self._fail("a loop inside a vector loop")
                    outside, self._serial = self._serial, False
                    self._body(s.body, False)
                    self._serial = outside
            else:
                self._fail(f"{type(s).__name__} is no statement of the tensor IR")

    def _for(self, s: For, sure: bool, vector: bool) -> None:
        if s.kind not in KINDS:
            self._fail(f"no kind of loop is called {s.kind!r}")
        if vector:
            self._fail("a loop inside a vector loop")
        if s.kind == "parallel" and not self._serial:
            self._fail("a parallel loop inside a loop that is not serial")
        if s.kind == "vector" and not isinstance(s.extent, int):
            self._fail(f"the vector loop has the extent {s.extent}, which is no constant")
        if s.kind == "bits":
            word = word_of(s)
            if word is None:
                self._fail(f"the loop over {s.var} is not over the bits of a word")
            if {x.buffer for x in loads_of(word)} & _written(s.body):
                self._fail(f"the loop over {s.var} changes the word whose bits it goes through")
        self._size(s.lo, sure)
        self._size(s.hi, sure)
        if s.var.name in self._names:
            self._fail(f"the loop variable {s.var} hides a size or another loop's variable")
        if s.var.lo is not None and not proves_le(s.var.lo, s.lo):
            self._fail(f"{s.var} may fall below its range, which begins at {s.var.lo}")
        if s.var.hi is not None and not proves_le(s.hi, s.var.hi + 1):
            self._fail(f"{s.var} may rise above its range, which ends at {s.var.hi}")
        self._names.add(s.var.name)
        self._bound.add(s.var)
        outside = self._parallel, self._serial
        self._parallel += s.kind == "parallel"
        self._serial = self._serial and s.kind in ("for", "parallel")
        self._body(s.body, sure and proves_lt(s.lo, s.hi), s.kind == "vector")
        self._parallel, self._serial = outside
        self._bound.remove(s.var)
        self._names.remove(s.var.name)

    def _store(self, s: Store | Reduce, sure: bool) -> None:
        b = self._access(s.buffer, s.indices, sure)
        if b.scope in ("in", "const"):
            self._fail(f"{b.name} is {b.scope}: it cannot be written")
        self._expr(s.value, sure)
        if s.value.dtype != b.dtype:
            self._fail(f"a value of type {s.value.dtype} goes into {b.name}, which has {b.dtype}")
        if isinstance(s, Reduce):
            if s.op not in REDUCTIONS:
                self._fail(f"no reduction is called {s.op!r}")
            if b.dtype not in _OPERANDS[s.op]:
                self._fail(f"the reduction {s.op} does not take {b.dtype}")

    def _access(self, name: str, indices: tuple[Size, ...], sure: bool) -> Buffer:
        b = self._buffers.get(name)
        if b is None:
            self._fail(f"the buffer {name!r} is not declared")
        if len(indices) != len(b.shape):
            self._fail(f"{name} has {len(b.shape)} dimensions, not {len(indices)}")
        if b.scope in ("stack", "register"):
            depth = self._in_parallel.setdefault(name, self._parallel)
            shared = b.scope == "stack" and depth and self._parallel
            if depth != self._parallel and not shared:
                self._fail(
                    f"{name} is used inside a parallel loop and outside; each thread has its own"
                )
        for i, d in zip(indices, b.shape):
            self._size(i, sure)
            hi = hi_of(i)
            if sure and (proves_le(d, i) or (hi is not None and hi < 0)):
                self._fail(f"the index {i} is outside {name}, whose dimension is {d}")
        return b

    # expressions

    def _size(self, s: Size, sure: bool) -> None:
        if isinstance(s, int):
            return
        for used in symbols(s) - self._bound:
            known = next((b for b in self._bound if b.name == used.name), None)
            if known is None:
                self._fail(
                    f"{used}, in {s}, is no size of the kernel and no variable of a loop around"
                )
            self._fail(
                f"{used}, in {s}, has the range {used.lo}..{used.hi}, "
                f"but is declared with {known.lo}..{known.hi}"
            )
        for payload in opaques(s):
            self._expr(payload, sure)
            if payload.dtype not in INTEGERS:
                self._fail(f"the index {print_expr(payload)} has type {payload.dtype}")

    def _expr(self, e: Expr, sure: bool) -> None:
        if isinstance(e, Const):
            self._const(e)
        elif isinstance(e, Load):
            b = self._access(e.buffer, e.indices, sure)
            if e.dtype != b.dtype:
                self._fail(f"{print_expr(e)} is loaded as {e.dtype}, but {b.name} has {b.dtype}")
        elif isinstance(e, Index):
            self._size(e.size, sure)
            if e.dtype not in INTEGERS:
                self._fail(f"{print_expr(e)} has type {e.dtype}")
        elif isinstance(e, Op):
            for n, a in enumerate(e.args):
                self._expr(a, sure and (e.name != "select" or n == 0))
            self._op(e)
        else:
            self._fail(f"{type(e).__name__} is no expression of the tensor IR")

    def _op(self, e: Op) -> None:
        try:
            dtype = result_type(e.name, e.args)
        except TypeError as fault:
            self._fail(str(fault))
        if e.dtype != dtype or dtype not in _ANY:
            self._fail(f"{e.name} has a result of type {dtype}, not {e.dtype}")
        operand = e.args[-1].dtype if e.args else ""
        if e.name not in OPS:  # cast and bitcast
            if len(e.args) != 1:
                self._fail(f"{e.name} takes 1 operand, not {len(e.args)}")
            if e.name.startswith("bitcast.") and nbytes(operand) != nbytes(dtype):
                self._fail(f"{e.name} of {operand}, which has another width")
            return
        if operand not in _OPERANDS.get(e.name, FLOATS):
            self._fail(f"{e.name} does not take {operand}: {print_expr(e)}")
        if e.name == "select" and e.args[0].dtype != "bool":
            self._fail(f"select takes a bool first, not {e.args[0].dtype}")

    def _const(self, e: Const) -> None:
        if is_float(e.dtype):
            fits = type(e.value) is float
        elif e.dtype == "bool":
            fits = type(e.value) is int and e.value in (0, 1)
        elif e.dtype in INTEGERS and type(e.value) is int:
            bits = 8 * nbytes(e.dtype)
            lo = -(2 ** (bits - 1)) if is_signed(e.dtype) else 0
            fits = lo <= e.value < lo + 2**bits
        else:
            fits = False
        if not fits:
            self._fail(f"{e.value!r} is no constant of type {e.dtype}")
