"""The text and the verifier of programs."""

import pytest

from aicc.errors import IRError
from aicc.runtime.program_text import parse_program, print_program
from aicc.runtime.verify import verify_program

GOOD = """\
program @p
  size n: 1..64 = x[0]
  size k: 0.. = nz[1]
  input x: f32[n, 4]
  const w: f32[4] at 64
  const names: str[2]
  host nz: i64[2, k]
  arena `a b`: f32[n, 4] live 0..2
  arena b: f32[n, 4] live 1..3
  view v: f32[n*4] of b + 0
  view half: f32[n, 2] pitch=[4, 1] of b + 8
  output y: f32[n*2, 2]
  output z: i64[2, k]
  call @mul (x, w) -> (`a b`) sizes (n) at "m1", "m\\"2"  # (x, const+64) -> `a b`
  call @neg (`a b`) -> (b) sizes (n)  # (`a b`) -> b
  host NonZero $0 (`a b`, _) -> (nz) at "nz"
  call @view (v, half) -> (y) sizes (n)  # (b, b+8) -> y
  copy nz -> z  # (nz) -> z
  return (y = y, second = z, names = names)
  constants 128
"""

STATIC = """\
program @s
  input x: f32[64]
  arena a: f32[64] at 0 live 0..1
  arena b: f32[64] at 256 live 1..2
  output y: f32[64]
  call @k (x) -> (a)  # (x) -> arena+0
  call @k (a) -> (b)  # (arena+0) -> arena+256
  call @k (b) -> (y)  # (arena+256) -> y
  return (y = y)
  arena 512 least 512
  constants 0
"""


READ = """\
program @r
  size n: 1..64 = x[0]
  size k: 0.. = c
  input x: f32[n]
  arena a: i64[n] live 0..2
  arena c: i64[1] live 0..1
  view v: i64[k] of a + 0
  output y: i64[k]
  call @places (x) -> (a, c) sizes (n)  # (x) -> a, c
  read c most n at "nz"
  copy v -> y  # (a) -> y
  return (y = y)
  constants 0
"""


@pytest.mark.parametrize("text", [GOOD, STATIC, READ])
def test_text(text):
    program = parse_program(text)
    assert print_program(program) == text
    verify_program(program)
    assert parse_program(print_program(program)) == program


def test_phases_and_segments():
    program = parse_program(GOOD)
    assert program.phases == (0, 3)
    assert program.segments() == ((0, 2), (2, 3), (3, 5))
    assert program.phase_of_size == {"n": 0, "k": 1}
    assert not program.native
    assert program.steps[0].nodes == ("m1", 'm"2')
    assert program.root("v").name == "b"


def test_a_size_that_is_read():
    program = parse_program(READ)
    assert program.phases == (0, 2)
    assert program.segments() == ((0, 1), (1, 2), (2, 3))
    assert program.phase_of_size == {"n": 0, "k": 1}
    assert not program.native


FAULTS = [
    (READ, "read c most n", "read a most n", r"sizes are read from \['c'\], by steps from \['a'\]"),
    (
        READ,
        "arena c: i64[1]",
        "arena c: i32[1]",
        r"step 1 \(read\) takes i32\[1\], which is no size",
    ),
    (READ, "arena c: i64[1]", "arena c: i64[2]", r"takes i64\[2\], which is no size"),
    (READ, "read c most n", "read c most k", "needs the size k, which is not known there"),
    (READ, "places (x) -> (a, c) sizes (n)", "places (v) -> (a, c)", "needs the size k, which is"),
    (READ, "size k: 0.. = c", "size k: 0.. = x[0]", "sizes are read from .., by steps from"),
    (GOOD, "(x, w)", "(x, b)", r"step 0 \(call @mul\) is outside the life of b"),
    (GOOD, "live 1..3", "live 1..2", r"step 3 .* outside the life of b"),
    (GOOD, "live 0..2", "live 0..9", "lives from step 0 to 9"),
    (GOOD, "-> (b) sizes (n)", "-> (b) sizes (k)", "needs the size k, which is not known there"),
    (GOOD, "-> (`a b`) sizes", "-> (x) sizes", "writes the input x"),
    (GOOD, "-> (nz)", "-> (b)", "writes the arena buffer b"),
    (GOOD, "copy nz -> z", "copy nz -> y", r"copies 16\*k bytes to 16\*n|copies k\*16 .* n\*16"),
    (GOOD, "copy nz -> z", "copy z -> z", "reads z before it is written"),
    (GOOD, "second = z", "second = b", "lies in the arena buffer b"),
    (GOOD, "size k: 0.. = nz[1]", "size k: 0.. = nz[2]", r"the size k is read from nz\[2\]"),
    (GOOD, "size k: 0.. = nz[1]", "size k: 0.. = b[1]", r"the size k is read from b\[1\]"),
    (GOOD, "view v: f32[n*4] of b + 0", "view v: f32[n*4] of b + 4", "v is not inside b"),
    (GOOD, "of b + 8", "of b + 12", "half is not inside b"),
    (GOOD, "pitch=[4, 1]", "pitch=[4]", r"half: strides \[4\] for view \[n, 2\]"),
    (GOOD, "(`a b`, _) ->", "(half, _) ->", "takes half, whose elements do not lie side by side"),
    (GOOD, "names = names", "names = half", "output names takes half, whose elements do not lie"),
    (GOOD, "const w: f32[4] at 64", "const w: f32[4] at 128", "w at 128 is not inside its 128"),
    (GOOD, "const w: f32[4] at 64", "const w: f32[4] at 4", "w at 4 is not inside"),
    (GOOD, "arena b:", "arena v:", "unknown buffer 'b'"),
    (STATIC, "at 256", "at 64", "overlap"),
    (STATIC, "at 256", "at 100", "not aligned"),
    (STATIC, "arena 512", "arena 256", "b at 256 is not inside its 256"),
    (STATIC, "b: f32[64] at 256", "b: f32[64]", "either all arena offsets are known or none"),
    (STATIC, "call @k (b) -> (y)  # (arena+256) -> y", "call @k (b) -> (b)", "y is never written"),
    (STATIC, "arena b: f32[64]", "arena a: f32[64]", "unknown buffer 'b'"),
    (STATIC, "output y: f32[64]", "output y: str[64]", "strings, which native code has none of"),
    (STATIC, "input x: f32[64]", "input x: f31[64]", "'f31' is no element type"),
    (STATIC, "f32[64] at 0 live", "f32[m] at 0 live", "unknown size 'm'"),
    (STATIC, "constants 0", "something 0", "expected a size, a buffer or a step"),
]


@pytest.mark.parametrize(("text", "old", "new", "message"), FAULTS)
def test_faults(text, old, new, message):
    assert old in text
    with pytest.raises(IRError, match=message):
        verify_program(parse_program(text.replace(old, new, 1)))
