"""A kernel's text says all of it: printing and parsing are inverse."""

from __future__ import annotations

import pytest
from hypothesis import given
from kernel_strategies import constants, kernels

from aicc.dtypes import NUMERIC
from aicc.errors import IRError
from aicc.symbolic import sym
from aicc.tensor_ir.builder import KernelBuilder
from aicc.tensor_ir.ir import (
    Buffer,
    Const,
    Expr,
    For,
    Index,
    Kernel,
    Load,
    Op,
    Store,
    as_index,
    call,
    const,
)
from aicc.tensor_ir.parse import parse_kernel
from aicc.tensor_ir.text import print_expr, print_kernel, print_stmt
from aicc.tensor_ir.walk import walk_stmts

CONV = """\
kernel @conv_relu_0(n: 1.., m: 1..64)
  in x: f32[n, 56, 64]
  const w: f32[4, 64, 16] pack="n/16 k n%16"
  out y: f32[n, 56, 64] pitch=[m*7168, 128, 1]
  register acc: f32[6, 64]
  parallel i.o in 0..n//6:
    unroll i.i in 0..6:
      vector j.i in 0..16: acc[i.i, j.i] = 0.0
      for k in 0..m:
        vector j.i in 0..16: acc[i.i, j.i] += x[i.o*6 + i.i, 0, k]*w[0, k, j.i]
    if index(i.o) < 3:i64 and not x[0, 0, 0] == nan:
      y[i.o*6, 0, 0] max= (x[0, 0, 0] - 1.5)*2.0
    else:
      while y[0, 0, 0] > -inf:
        y[0, 0, 0] = select(true, exp(x[0, 0, 0]), neg(x[0, 0, 0]))
      check cast.i32(x[0, 0, 0]) >= -3:i32 "too \\"small\\""
  for j: 0..7 in 0..m - 1:
    pass"""


def wrap(value: Expr, *buffers: Buffer) -> Kernel:
    return Kernel(
        "k", (), (*buffers, Buffer("y", value.dtype, (), "out")), (Store("y", (), value),)
    )


def round_trip(value: Expr, *buffers: Buffer) -> str:
    kernel = wrap(value, *buffers)
    text = print_kernel(kernel)
    assert parse_kernel(text) == kernel
    return print_expr(value)


def test_text_is_what_the_documentation_shows() -> None:
    assert print_kernel(parse_kernel(CONV)) == CONV


@given(kernels())
def test_parsing_inverts_printing(kernel: Kernel) -> None:
    text = print_kernel(kernel)
    again = parse_kernel(text)
    assert again == kernel
    assert hash(again) == hash(kernel)
    assert print_kernel(again) == text


@pytest.mark.parametrize("dtype", [*NUMERIC, "bool"])
def test_constants(dtype: str) -> None:
    @given(constants(dtype))
    def check(c: Const) -> None:
        round_trip(c)

    check()


def test_constant_texts() -> None:
    assert print_expr(const(0.5, "f32")) == "0.5"
    assert print_expr(const(-0.0, "f32")) == "-0.0"
    assert print_expr(const(float("-inf"), "f16")) == "-inf:f16"
    assert print_expr(const(1e-5, "f32")) == "1e-05"
    assert print_expr(const(-3, "i64")) == "-3:i64"
    assert print_expr(const(1, "bool")) == "true"


def test_nans_are_one_constant() -> None:
    a, b = const(float("nan"), "f32"), const(-float("nan"), "f32")
    assert a == b
    assert hash(a) == hash(b)
    assert const(0.0, "f32") != const(-0.0, "f32")


def test_parentheses_are_minimal_and_keep_the_tree() -> None:
    x = Buffer("x", "f32", (), "in")
    a = Load("x", (), "f32")
    lt = call("lt", a, 1.0)
    for value, text in [
        (a + a + a, "x[] + x[] + x[]"),
        (a + (a + a), "x[] + (x[] + x[])"),
        (a - (a - a), "x[] - (x[] - x[])"),
        ((a + a) * a / a, "(x[] + x[])*x[]/x[]"),
        (a / (a * a), "x[]/(x[]*x[])"),
        (a - -1.5, "x[] - -1.5"),
        (-a, "neg(x[])"),
        (call("and", lt, call("or", lt, lt)), "x[] < 1.0 and (x[] < 1.0 or x[] < 1.0)"),
        (call("not", call("and", lt, lt)), "not (x[] < 1.0 and x[] < 1.0)"),
        (call("and", call("not", lt), lt), "not x[] < 1.0 and x[] < 1.0"),
        (call("not", call("not", lt)), "not not x[] < 1.0"),
        (Op("eq", (lt, lt), "bool"), "(x[] < 1.0) == (x[] < 1.0)"),
        (Op("eq", (call("not", lt), lt), "bool"), "(not x[] < 1.0) == (x[] < 1.0)"),
        (call("lt", a + a, a), "x[] + x[] < x[]"),
    ]:
        assert round_trip(value, x) == text


def test_data_dependent_indices() -> None:
    x, ix = Buffer("x", "f32", (9,), "in"), Buffer("ix", "i32", (2,), "in")
    at = as_index(Load("ix", (1,), "i32"), 0, 8)
    assert round_trip(Load("x", (at,), "f32"), x, ix) == "x[int(ix[1], 0..8)]"
    free = as_index(Load("ix", (as_index(Load("ix", (0,), "i32")),), "i32"), None, 8) * 2 + 1
    assert round_trip(Load("x", (free,), "f32"), x, ix) == "x[int(ix[int(ix[0])], ..8)*2 + 1]"
    assert round_trip(Index(at, "i32"), x, ix) == "index.i32(int(ix[1], 0..8))"


def test_names_may_be_words_of_the_language() -> None:
    buffers = tuple(
        Buffer(name, "f32", (1,), "out") for name in ("if", "for", "in", "not", "max", "inf", "a b")
    )
    body = tuple(
        Store(b.name, (0,), Load(b.name, (0,), "f32") + Load("inf", (0,), "f32")) for b in buffers
    )
    kernel = Kernel("while", (), buffers, body)
    assert parse_kernel(str(kernel)) == kernel


def test_an_empty_kernel() -> None:
    kernel = Kernel("k", (), (), ())
    assert str(kernel) == "kernel @k()\n  pass"
    assert parse_kernel(str(kernel)) == kernel


def test_a_loop_variable_takes_its_range_from_the_loop() -> None:
    kernel = parse_kernel("kernel @k(n: 1..9)\n  out y: f32[n]\n  for i in 0..n: y[i] = 1.0")
    b = KernelBuilder("k")
    y = b.compute((sym("n", 1, 9),), lambda i: const(1.0, "f32"), name="y")
    b.mark_output(y)
    (loop,) = [s for s in walk_stmts(kernel.body) if isinstance(s, For)]
    (built,) = [s for s in walk_stmts(b.build().body) if isinstance(s, For)]
    assert (loop.var.lo, loop.var.hi) == (built.var.lo, built.var.hi) == (0, 8)


def test_comments_and_blank_lines_are_skipped() -> None:
    text = CONV.replace("\n  parallel", "\n\n# a comment\n      # another\n  parallel", 1)
    assert parse_kernel(text.replace("0.0\n", "0.0   # zero\n", 1)) == parse_kernel(CONV)


def test_a_statement_is_marked() -> None:
    kernel = parse_kernel(CONV)
    marked = print_kernel(kernel, kernel.body[0].body[1])
    (line,) = [t for t in marked.split("\n") if t.startswith(">>")]
    assert line == ">>  if index(i.o) < 3:i64 and not x[0, 0, 0] == nan:"
    inner = kernel.body[0].body[0].body[0].body[0]
    assert print_stmt(inner) == "acc[i.i, j.i] = 0.0"
    (line,) = [t for t in print_kernel(kernel, inner).split("\n") if t.startswith(">>")]
    assert line == ">>      acc[i.i, j.i] = 0.0"


HEAD = "kernel @k(n: 1..)\n  in x: f32[n]\n  in c: i64[n]\n  out y: f32[n]\n"


@pytest.mark.parametrize(
    ("text", "message", "place"),
    [
        (HEAD + "  y[0] = 3", "an integer needs its type", (5, 10)),
        (HEAD + "  y[0] = 3.5:i64", "no constant of type i64", (5, 10)),
        (HEAD + "  y[0] = 3:f33", "'f33' is no element type", (5, 12)),
        (HEAD + "  y[m] = 3.0", "unknown size 'm'", (5, 5)),
        (HEAD + "  z[0] = 3.0", "unknown buffer 'z'", (5, 3)),
        (HEAD + "  y[0] = z[0]", "unknown buffer 'z'", (5, 10)),
        (HEAD + "  y[0] = x[0", "expected ',' or ']'", (5, 13)),
        (HEAD + "  y[0] = exp(1.0, 2.0)", "exp takes 1 operands, not 2", (5, 10)),
        (HEAD + "  y[0] = foo(1.0)", "unknown scalar operation 'foo'", (5, 10)),
        (HEAD + "  y[0] = cast.f33(1.0)", "cast.f33 is no conversion", (5, 10)),
        (HEAD + "  y[0] = x[0] + c[0]", "operands of different types", (5, 15)),
        (HEAD + "  y[0] = 1.0 < 2.0 < 3.0", "comparisons do not chain", (5, 20)),
        (HEAD + "  y[0] = 1.0 2.0", "expected the end of the line", (5, 14)),
        (HEAD + "  y[n//0] = 1.0", "division by zero", (5, 6)),
        (HEAD + "  for i in 0..n:\n  y[i] = 1.0", "expected an indented block", (6, 3)),
        (HEAD + "    y[0] = 1.0", "expected a statement, found indent", (5, 5)),
        (HEAD + "  for i in 0..n:\n      pass\n    pass", "fits no block", (7, 5)),
        (HEAD + "  for i in 0..n: y[i] = 1.0\n  y[i] = 1.0", "unknown size 'i'", (6, 5)),
        (HEAD + "  in x: f32[2]", "the buffer 'x' is declared twice", (5, 6)),
        (HEAD + '  check true "abc', "does not end", (5, 14)),
        (HEAD + "  y[0] = \\", "means nothing here", (5, 10)),
        (HEAD + "  y[0] = 1.0\nkernel", "expected the end of the text", (6, 1)),
        ("kernel @k(n: 1.., n: 2..)\n  pass", "the size 'n' is declared twice", (1, 19)),
        ("kernel k()\n  pass", "expected '@'", (1, 8)),
        ("", "expected 'kernel', found the end of the text", (1, 1)),
    ],
)
def test_faults_are_located(text: str, message: str, place: tuple[int, int]) -> None:
    with pytest.raises(IRError) as caught:
        parse_kernel(text, "k.txt")
    shown = str(caught.value).split("\n")
    assert message in shown[0]
    assert shown[0].startswith(f"k.txt: line {place[0]}, column {place[1]}: ")
    assert shown[1] == f"  {text.split(chr(10))[place[0] - 1] if text else ''}"
    assert shown[2] == "  " + " " * (place[1] - 1) + "^"
