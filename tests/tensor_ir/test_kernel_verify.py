"""One kernel for each invariant that breaks it, and the error that says so."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from kernel_strategies import kernels

from aicc.errors import IRError
from aicc.symbolic import Size, Sym, loop_var, opaque, sym, symbols
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
    const,
)
from aicc.tensor_ir.parse import parse_kernel
from aicc.tensor_ir.verify import verify

N = sym("n", 1, 9)
BUFFERS = (
    Buffer("x", "f32", (N,), "in"),
    Buffer("c", "i64", (4,), "const"),
    Buffer("y", "f32", (N,), "out"),
    Buffer("z", "i64", (4,), "out"),
    Buffer("b", "bool", (), "out"),
    Buffer("a", "f32", (4,), "stack"),
)
X0, C0 = Load("x", (0,), "f32"), Load("c", (0,), "i64")
ONE, YES = const(1.0, "f32"), const(True, "bool")
Y0 = Store("y", (0,), ONE)


def kernel(*body: Stmt, buffers: tuple[Buffer, ...] = BUFFERS) -> Kernel:
    return Kernel("k", (Sym("n", 1, 9),), buffers, body)


def loop(name: str, lo: Size, hi: Size, *body: Stmt, kind: str = "for") -> For:
    (var,) = symbols(loop_var(name, lo, hi))
    return For(var, lo, hi, kind, body)


def store(value: Expr, buffer: str = "y", *indices: Size) -> Store:
    return Store(buffer, indices or (0,), value)


def op(name: str, *args: Expr, dtype: str = "f32") -> Expr:
    return Op(name, args, dtype)


def part(pitch: tuple[Size, ...], shape: tuple[Size, ...] = (N, 3), scope: str = "in") -> Buffer:
    return Buffer("x", "f32", shape, scope, pitch=pitch)


I = sym("i", 0, 8)  # noqa: E741 - the variable of loop("i", 0, N)
A0 = Store("a", (0,), ONE)

BROKEN: list[tuple[str, Kernel, str]] = [
    (
        "size twice",
        replace(kernel(Y0), sizes=(Sym("n", 1, 9),) * 2),
        "the size n is declared twice",
    ),
    ("empty size", replace(kernel(), sizes=(Sym("n", 3, 2),)), "the size n has no value in 3..2"),
    ("buffer twice", kernel(buffers=BUFFERS + BUFFERS[:1]), "the buffer x is declared twice"),
    ("scope", kernel(buffers=(Buffer("x", "f32", (), "l1"),)), "no scope is called 'l1'"),
    ("dtype", kernel(buffers=(Buffer("x", "str", (), "in"),)), "no element type is called 'str'"),
    ("pack", kernel(buffers=(Buffer("x", "f32", (), "in", "k n"),)), "only a constant is packed"),
    ("pitch of a local", kernel(buffers=(part((8, 1), scope="stack"),)), "only an operand or a"),
    ("pitch's rank", kernel(buffers=(part((8,)),)), "1 strides for 2 dimensions"),
    ("pitch that is dense", kernel(buffers=(part((3, 1)),)), "not in its normal form"),
    ("pitch of a unit", kernel(buffers=(part((9, 7, 1), (2, 1, 3)),)), "not in its normal form"),
    ("pitch symbol", kernel(buffers=(part((sym("m") + 3, 1)),)), "the pitch depends on what is no"),
    ("pitch within", kernel(buffers=(part((2, 1)),)), "elements 2 apart may be in one place"),
    ("pitch of 0", kernel(buffers=(part((8, 0)),)), "elements 0 apart may be in one place"),
    ("shape symbol", kernel(buffers=(Buffer("x", "f32", (sym("m"),), "in"),)), "no size of the"),
    ("shape range", kernel(buffers=(Buffer("x", "f32", (sym("n"),), "in"),)), "no size of the"),
    ("shape opaque", kernel(buffers=(Buffer("x", "f32", (opaque(C0),), "in"),)), "no size of the"),
    ("shape negative", kernel(buffers=(Buffer("x", "f32", (-N,), "in"),)), "is negative"),
    ("register", kernel(buffers=(Buffer("x", "f32", (N,), "register"),)), "constant shape"),
    ("no buffer", kernel(Store("q", (0,), ONE)), "the buffer 'q' is not declared"),
    ("no buffer to load", kernel(store(Load("q", (0,), "f32"))), "'q' is not declared"),
    ("rank of store", kernel(Store("y", (0, 0), ONE)), "y has 1 dimensions, not 2"),
    ("rank of load", kernel(store(Load("x", (), "f32"))), "x has 1 dimensions, not 0"),
    ("store to in", kernel(Store("x", (0,), ONE)), "x is in: it cannot be written"),
    ("reduce to const", kernel(Reduce("c", (0,), "add", C0)), "c is const: it cannot be written"),
    ("stored type", kernel(store(C0)), "a value of type i64 goes into y, which has f32"),
    ("loaded type", kernel(store(Load("c", (0,), "f32"))), "loaded as f32, but c has i64"),
    ("reduction", kernel(Reduce("y", (0,), "sub", ONE)), "no reduction is called 'sub'"),
    ("reduced type", kernel(Reduce("b", (), "add", YES)), "the reduction add does not take bool"),
    ("and of floats", kernel(Reduce("y", (0,), "and", ONE)), "and does not take f32"),
    ("index below", kernel(Store("y", (-1,), ONE)), "the index -1 is outside y"),
    (
        "index above",
        kernel(Store("y", (N,), ONE)),
        "the index n is outside y, whose dimension is n",
    ),
    ("load above", kernel(store(Load("x", (N + 1,), "f32"))), "the index n + 1 is outside x"),
    ("index in sure loop", kernel(loop("i", 0, N, Store("y", (I + N,), ONE))), "is outside y"),
    ("unknown size", kernel(Store("y", (sym("m"),), ONE)), "m, in m, is no size"),
    ("unknown in expr", kernel(store(Index(sym("m")), "z")), "m, in m, is no size"),
    ("after the loop", kernel(loop("i", 0, N, Y0), Store("y", (I,), ONE)), "i, in i, is no size"),
    (
        "other range",
        kernel(loop("i", 0, N, Store("y", (sym("i", 0, 3),), ONE))),
        "i, in i, has the range 0..3, but is declared with 0..8",
    ),
    ("opaque float", kernel(store(Load("x", (opaque(X0),), "f32"))), "the index x[0] has type f32"),
    ("opaque content", kernel(store(Index(opaque(Load("q", (0,), "i64"))), "z")), "'q' is not"),
    ("loop kind", kernel(loop("i", 0, N, Y0, kind="fast")), "no kind of loop is called 'fast'"),
    ("hides a size", kernel(loop("n", 0, 3, Y0)), "the loop variable n hides"),
    ("hides a loop", kernel(loop("i", 0, N, loop("i", 0, 3, Y0))), "the loop variable i hides"),
    ("range below", kernel(For(Sym("i", 1, 9), 0, N, "for", (Y0,))), "i may fall below its range"),
    ("range above", kernel(For(Sym("i", 0, 7), 0, N, "for", (Y0,))), "i may rise above its range"),
    ("bound unknown", kernel(loop("i", 0, sym("m"), Y0)), "m, in m, is no size"),
    (
        "parallel inside",
        kernel(loop("i", 0, 4, loop("j", 0, N, Y0, kind="parallel"), kind="unroll")),
        "a parallel loop inside a loop that is not serial",
    ),
    (
        "parallel in while",
        kernel(While(YES, (loop("j", 0, N, Y0, kind="parallel"),))),
        "a parallel loop inside a loop that is not serial",
    ),
    ("vector extent", kernel(loop("i", 0, N, Y0, kind="vector")), "has the extent n"),
    (
        "loop in vector",
        kernel(loop("i", 0, 4, If(YES, (loop("j", 0, 4, Y0),)), kind="vector")),
        "a loop inside a vector loop",
    ),
    (
        "while in vector",
        kernel(loop("i", 0, 4, While(YES, (Y0,)), kind="vector")),
        "a loop inside a vector loop",
    ),
    (
        "private crosses",
        kernel(A0, loop("i", 0, N, store(Load("a", (0,), "f32")), kind="parallel")),
        "a is used inside a parallel loop and outside; each thread has its own",
    ),
    ("if condition", kernel(If(ONE, (Y0,))), "the condition has type f32, not bool"),
    ("while condition", kernel(While(C0, (Y0,))), "the condition has type i64, not bool"),
    ("check condition", kernel(Check(ONE, "")), "the condition has type f32, not bool"),
    ("in then", kernel(If(YES, (store(C0),))), "a value of type i64 goes into y"),
    ("in else", kernel(If(YES, (Y0,), (store(C0),))), "a value of type i64 goes into y"),
    ("unknown op", kernel(store(op("foo", ONE))), "unknown scalar operation 'foo'"),
    ("arity", kernel(store(op("add", ONE))), "add takes 2 operands, not 1"),
    ("mixed types", kernel(store(op("add", ONE, C0))), "operands of different types"),
    ("result type", kernel(store(op("lt", ONE, ONE))), "lt has a result of type bool, not f32"),
    ("exp of int", kernel(store(op("exp", C0, dtype="i64"), "z")), "exp does not take i64"),
    ("bits of float", kernel(store(op("bitand", ONE, ONE))), "bitand does not take f32"),
    ("and of ints", kernel(store(op("and", C0, C0, dtype="i64"), "z")), "and does not take i64"),
    ("not of float", kernel(If(op("not", ONE, dtype="bool"), ())), "not does not take f32"),
    ("select by int", kernel(store(op("select", C0, ONE, ONE))), "select takes a bool first"),
    ("cast to str", kernel(store(op("cast.str", ONE, dtype="str"))), "cast.str"),
    ("cast of two", kernel(store(op("cast.f32", C0, C0))), "cast.f32 takes 1 operand, not 2"),
    ("bitcast width", kernel(store(op("bitcast.f32", C0))), "of i64, which has another width"),
    ("deep inside", kernel(store(op("exp", op("add", ONE, C0)))), "operands of different types"),
    ("index type", kernel(store(Index(N, "f32"))), "index.f32(n) has type f32"),
    ("int in f32", kernel(store(Const(1, "f32"))), "1 is no constant of type f32"),
    ("float in i64", kernel(store(Const(1.0, "i64"), "z")), "1.0 is no constant of type i64"),
    ("too large", kernel(store(op("cast.f32", Const(256, "u8")))), "256 is no constant of type u8"),
    ("too small", kernel(store(op("cast.f32", Const(-129, "i8")))), "-129 is no constant of type"),
    ("bool of 2", kernel(If(Const(2, "bool"), (Y0,))), "2 is no constant of type bool"),
    ("True in bool", kernel(If(Const(True, "bool"), (Y0,))), "True is no constant of type bool"),
]


@pytest.mark.parametrize(("made", "message"), [b[1:] for b in BROKEN], ids=[b[0] for b in BROKEN])
def test_a_broken_invariant_is_named(made: Kernel, message: str) -> None:
    with pytest.raises(IRError) as caught:
        verify(made)
    assert message in str(caught.value).split(", in\n")[0]
    assert "kernel @k(n" in str(caught.value)


def test_the_faulty_statement_is_marked() -> None:
    bad = store(C0)
    with pytest.raises(IRError) as caught:
        verify(kernel(Y0, If(YES, (loop("i", 0, N, bad),))))
    (line,) = [t for t in str(caught.value).split("\n") if t.startswith(">>")]
    assert line == ">>    y[0] = c[0]"


@given(kernels())
def test_sound_kernels_are_accepted(made: Kernel) -> None:
    verify(made)


def test_what_is_only_conditionally_wrong_is_accepted() -> None:
    beyond = Load("x", (N,), "f32")
    never = const(False, "bool")
    verify(kernel(store(Op("select", (never, beyond, ONE), "f32"))))
    verify(kernel(If(never, (store(beyond),))))
    verify(kernel(loop("i", 0, sym("n", 1, 9) - 1, store(beyond))))
    with pytest.raises(IRError, match="is outside x"):
        verify(kernel(store(Op("select", (Op("lt", (beyond, ONE), "bool"), ONE, ONE), "f32"))))


def test_private_buffers_serve_several_parallel_loops() -> None:
    verify(
        parse_kernel("""\
kernel @k(n: 1..)
  out y: f32[n]
  register a: f32[4]
  parallel i in 0..n:
    a[0] = 1.0
    y[i] = a[0]
  parallel i in 0..n:
    a[0] = 2.0
    y[i] += a[0]
  for i in 0..n: y[i] *= 2.0
""")
    )
