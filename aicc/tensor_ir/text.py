"""The text form of the tensor IR: printing. `aicc.tensor_ir.parse` reads it back.

    kernel @conv_relu_0(n: 1.., m: 1..64)             sizes, each with its inclusive range
      in x: f32[n, 56, 64]                            buffers: scope name: dtype[shape]
      const w: f32[4, 64, 16] pack="n/16 k n%16"
      out y: f32[n, 56, 64] pitch=[7168, 128, 1]      a part of a larger array: its strides
      in z: f32[n, 64] sparse                         many elements are expected to be zero
      register acc: f32[6, 64]
      parallel i.o in 0..n//6:                        kind variable in lo..hi, hi exclusive
        vector j.i in 0..16: acc[0, j.i] = 0.0
        y[i.o*6, 0] max= x[i.o*6, 0, 0]*2.0           reductions: += *= max= min= and= or=
        if index(i.o) < 3:i64:
          check x[0, 0, 0] > 0.0 "not positive"

Expressions: `+ - * /`, comparisons, `and`, `or`, `not` infix; every other operation as a call,
`exp(x)`, `cast.f32(x)`, `select(c, a, b)`; `index(size)` is a size as an i64; `int(expr)` inside a
size is an opaque index, `int(expr, 0..9)` one with bounds. A constant of f32 is plain (`0.5`,
`1e-05`, `-inf`, `nan`), of bool `true` or `false`, any other carries its type: `3:i64`, `1.0:f16`.

A loop variable's range follows from the bounds of its loop (`symbolic.loop_var`); where it differs
it is written out: `for i: 0..7 in 0..n`. A name that is no identifier stands in backquotes.
"""

from __future__ import annotations

import json

from aicc.dtypes import is_float
from aicc.symbolic import Dim, Size, Sym, loop_var, print_name, print_range
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

# Binary operations written infix: symbol and how tightly it binds. Comparisons do not chain.
INFIX: dict[str, tuple[str, int]] = {
    "or": ("or", 1),
    "and": ("and", 2),
    "lt": ("<", 4),
    "le": ("<=", 4),
    "gt": (">", 4),
    "ge": (">=", 4),
    "eq": ("==", 4),
    "ne": ("!=", 4),
    "add": ("+", 5),
    "sub": ("-", 5),
    "mul": ("*", 6),
    "div": ("/", 6),
}
NOT_PRECEDENCE = 3
COMPARE_PRECEDENCE = 4
REDUCE_SYMBOLS = {
    "add": "+=",
    "mul": "*=",
    "max": "max=",
    "min": "min=",
    "and": "and=",
    "or": "or=",
}
_LINE = 100


def print_expr(e: Expr) -> str:
    """The expression on one line."""
    return _expr(e, 0)


def _expr(e: Expr, outer: int) -> str:
    """`e`, in parentheses where it binds less tightly than `outer`."""
    if isinstance(e, Const):
        return print_const(e)
    if isinstance(e, Load):
        return f"{print_name(e.buffer)}{_indices(e.indices)}"
    if isinstance(e, Index):
        return f"index{'' if e.dtype == 'i64' else '.' + e.dtype}({e.size})"
    assert isinstance(e, Op)
    if e.name in INFIX and len(e.args) == 2:
        symbol, own = INFIX[e.name]
        # Left-associative, so only the right operand needs more; a comparison on either side does.
        left = _expr(e.args[0], own + (own == COMPARE_PRECEDENCE))
        right = _expr(e.args[1], own + 1)
        text = f"{left}{symbol}{right}" if own == 6 else f"{left} {symbol} {right}"
        return f"({text})" if outer > own else text
    if e.name == "not" and len(e.args) == 1:
        text = f"not {_expr(e.args[0], NOT_PRECEDENCE)}"
        return f"({text})" if outer > NOT_PRECEDENCE else text
    return f"{e.name}({', '.join(_expr(a, 0) for a in e.args)})"


def print_const(c: Const) -> str:
    """The constant with its type, which f32 and bool need not write."""
    if c.dtype == "bool":
        return "true" if c.value else "false"
    text = repr(float(c.value)) if is_float(c.dtype) else str(c.value)
    return text if c.dtype == "f32" else f"{text}:{c.dtype}"


def _indices(indices: tuple[Size, ...]) -> str:
    return f"[{', '.join(map(str, indices))}]"


def print_stmt(s: Stmt) -> str:
    """The statement with everything inside it, several lines."""
    return "\n".join(_stmt(s, "", None))


def _body(body: tuple[Stmt, ...], indent: str, mark: Stmt | None) -> list[str]:
    if not body:
        return [f"{indent}pass"]
    return [line for s in body for line in _stmt(s, indent, mark)]


def _stmt(s: Stmt, indent: str, mark: Stmt | None) -> list[str]:
    inner = indent + "  "
    if isinstance(s, For):
        head = f"{indent}{s.kind} {_loop_var(s)} in {s.lo}..{s.hi}:"
        lines = _body(s.body, inner, mark)
        short = f"{head} {lines[0].lstrip()}"
        simple = len(s.body) == 1 and isinstance(s.body[0], Store | Reduce)
        if simple and s.body[0] is not mark and len(short) <= _LINE:
            lines = [short]
        else:
            lines = [head, *lines]
    elif isinstance(s, Store):
        lines = [f"{indent}{print_name(s.buffer)}{_indices(s.indices)} = {print_expr(s.value)}"]
    elif isinstance(s, Reduce):
        symbol = REDUCE_SYMBOLS.get(s.op, f"{s.op}=")
        lines = [
            f"{indent}{print_name(s.buffer)}{_indices(s.indices)} {symbol} {print_expr(s.value)}"
        ]
    elif isinstance(s, If):
        lines = [f"{indent}if {print_expr(s.cond)}:", *_body(s.then, inner, mark)]
        if s.orelse:
            lines += [f"{indent}else:", *_body(s.orelse, inner, mark)]
    elif isinstance(s, While):
        lines = [f"{indent}while {print_expr(s.cond)}:", *_body(s.body, inner, mark)]
    else:
        assert isinstance(s, Check), s
        message = json.dumps(s.message, ensure_ascii=False)
        lines = [f"{indent}check {print_expr(s.cond)} {message}"]
    if s is mark:
        lines[0] = f">>{lines[0][2:]}" if lines[0].startswith("  ") else f">> {lines[0]}"
    return lines


def _loop_var(s: For) -> str:
    usual = loop_var(s.var.name, s.lo, s.hi)
    if isinstance(usual, Dim) and usual.terms[0][0] == (s.var,):
        return str(s.var)
    return f"{s.var}: {print_range(s.var.lo, s.var.hi)}"


def print_buffer(b: Buffer) -> str:
    """The buffer's declaration on one line."""
    pack = f" pack={json.dumps(b.pack, ensure_ascii=False)}" if b.pack else ""
    pitch = f" pitch={_indices(b.pitch)}" if b.pitch else ""
    sparse = " sparse" if b.sparse else ""
    return f"{b.scope} {print_name(b.name)}: {b.dtype}{_indices(b.shape)}{pack}{pitch}{sparse}"


def print_size_param(s: Sym) -> str:
    """A size parameter with its range, `n: 1..`."""
    return f"{s}: {print_range(s.lo, s.hi)}"


def print_kernel(k: Kernel, mark: Stmt | None = None) -> str:
    """The kernel's text; the line where `mark`, one of its statements, begins starts with `>>`."""
    lines = [f"kernel @{print_name(k.name)}({', '.join(map(print_size_param, k.sizes))})"]
    lines += [f"  {print_buffer(b)}" for b in k.buffers]
    return "\n".join(lines + _body(k.body, "  ", mark))
