import numpy as np
import pytest
from modules import Sketch, binary, matmul_relu, random, unary

from aicc.errors import IRError, UnsupportedError
from aicc.graph_ir.types import TensorType
from aicc.pages import aligned_bytes
from aicc.plan import plan
from aicc.planned import verify_planned
from aicc.planned_text import parse_planned, print_planned
from aicc.runtime.program import Call, Copy
from aicc.runtime.program_text import parse_program, print_program
from aicc.symbolic import sym
from aicc.tensor_ir.builder import KernelBuilder
from aicc.tensor_ir.packing import pack_array
from aicc.tensor_ir.schedule_stages import Pack

N = sym("n", 1)


def planned(module):
    made = plan(module)
    verify_planned(made)
    assert parse_program(print_program(made.program)) == made.program
    assert parse_planned(print_planned(made), module.graph.constants) == made
    return made


def lines(program):
    return [line.split("  #")[0].strip() for line in str(program).splitlines()]


def stencil(name, n):
    """y[i] = x[i] + x[n - 1 - i]: reads elements after it has written them elsewhere."""
    b = KernelBuilder(name)
    x = b.input("x", "f32", (n,))
    b.mark_output(b.compute((n,), lambda i: x[i] + x[n - 1 - i], name="y"))
    return b.build()


def test_the_text_of_a_program():
    s = Sketch()
    s.input("x", "f32", 4, 8)
    s.constant("w", random("f32", 8, 16))
    s.constant("c", random("f32", 16))
    s.call(matmul_relu("k0", 4, 8, 16), ["x", "w", "c"], "h")
    s.constant("shape", np.array([64], np.int64))
    s.op("Reshape", ["h", "shape"], {"v": TensorType("f32", (64,))}, allowzero=0)
    s.call(stencil("k1", 64), ["v"], "y")
    program = planned(s.finish("y")).program
    assert str(program) == (
        "program @sketch\n"
        "  input x: f32[4, 8]\n"
        "  const w: f32[8, 16] at 0\n"
        "  const c: f32[16] at 512\n"
        "  arena h: f32[4, 16] at 0 live 0..1\n"
        "  view v: f32[64] of h + 0\n"
        "  output y: f32[64]\n"
        '  call @k0 (x, w, c) -> (h) at "node_h"  # (x, const+0, const+512) -> arena+0\n'
        '  call @k1 (v) -> (y) at "node_y"  # (arena+0) -> y\n'
        "  return (y = y)\n"
        "  arena 256 least 256 bound 256\n"
        "  constants 576\n"
    )


def chain(*kernels, n=64, outputs=("y",)):
    s = Sketch()
    s.input("x", "f32", n)
    value = "x"
    for number, make in enumerate(kernels):
        name = "y" if number == len(kernels) - 1 else f"v{number}"
        value = s.call(make(f"k{number}"), [value], name)
    return s.finish(*outputs)


def elementwise(name, n=64):
    return unary(name, "neg", "f32", (n,))


def test_elementwise_chains_share_the_memory_of_the_output():
    program = planned(chain(elementwise, elementwise, elementwise)).program
    assert program.arena == 0
    assert {program.root(r).name for s in program.steps for r in s.results} == {"v0"}
    assert program.table["v0"].space == "output"


def test_inputs_are_never_written():
    program = planned(chain(elementwise)).program
    assert lines(program)[1:4] == [
        "input x: f32[64]",
        "output y: f32[64]",
        'call @k0 (x) -> (y) at "node_y"',
    ]


def test_a_kernel_that_reads_elsewhere_gets_memory_of_its_own():
    program = planned(chain(elementwise, lambda n: stencil(n, 64), elementwise)).program
    assert program.root("v1").name != program.root("v0").name
    assert program.root("y").name == program.root("v1").name


def test_a_value_that_is_read_later_keeps_its_memory():
    s = Sketch()
    s.input("x", "f32", 64)
    s.call(elementwise("a"), ["x"], "a")
    s.call(elementwise("b"), ["a"], "b")
    s.call(binary("c", "mul", "f32", (64,)), ["a", "b"], "y")
    program = planned(s.finish("y")).program
    assert program.root("a").name != program.root("b").name
    assert program.root("y").name in (program.root("a").name, program.root("b").name)
    assert program.root("y").space == "output"


def test_a_view_that_is_read_later_keeps_its_memory():
    s = Sketch()
    s.input("x", "f32", 64)
    s.constant("shape", np.array([8, 8], np.int64))
    s.call(elementwise("a"), ["x"], "a")
    s.op("Reshape", ["a", "shape"], {"v": TensorType("f32", (8, 8))}, allowzero=0)
    s.call(elementwise("b"), ["a"], "b")
    s.call(unary("c", "neg", "f32", (8, 8)), ["v"], "y")
    program = planned(s.finish("y", "b")).program
    assert program.root("b").name != program.root("a").name
    assert program.root("y").name == program.root("a").name


def test_an_operand_used_twice_is_in_place_where_both_uses_are():
    s = Sketch()
    s.input("x", "f32", 64)
    s.call(elementwise("a"), ["x"], "a")
    s.call(binary("b", "mul", "f32", (64,)), ["a", "a"], "b")
    b = KernelBuilder("c")
    p, q = b.input("p", "f32", (64,)), b.input("q", "f32", (64,))
    b.mark_output(b.compute((64,), lambda i: p[i] + q[63 - i], name="y"))
    s.call(b.build(), ["b", "b"], "y")
    program = planned(s.finish("y")).program
    assert program.root("b").name == program.root("a").name
    assert program.root("y").name != program.root("b").name


def test_an_operand_lends_its_memory_once():
    b = KernelBuilder("two")
    x = b.input("x", "f32", (64,))
    b.mark_output(b.compute((64,), lambda i: x[i] * 2.0, name="p"))
    b.mark_output(b.compute((64,), lambda i: x[i] * 3.0, name="q"))
    s = Sketch()
    s.input("x", "f32", 64)
    s.call(elementwise("a"), ["x"], "a")
    s.call(b.build(), ["a"], "p", "q")
    s.call(binary("c", "mul", "f32", (64,)), ["p", "q"], "y")
    program = planned(s.finish("y")).program
    assert len({program.root(n).name for n in ("a", "p", "q")}) == 3


def test_outputs_are_copied_only_where_they_must_be():
    s = Sketch()
    s.input("x", "f32", 64)
    s.call(elementwise("a"), ["x"], "a")
    s.call(elementwise("b"), ["a"], "b")
    program = planned(s.finish("a", "b", "x", "b")).program
    copies = [s for s in program.steps if isinstance(s, Copy)]
    assert [c.source for c in copies] == ["x", "b"]
    assert program.arena == 0


def test_symbolic_offsets_are_left_to_the_run():
    module = chain(
        lambda n: elementwise(n, N), lambda n: stencil(n, N), lambda n: stencil(n, N), n=N
    )
    program = planned(module).program
    assert program.arena is None
    assert program.table["v0"].at is None
    assert "size n: 1.. = x[0]" in str(program)
    assert [s.sizes for s in program.steps if isinstance(s, Call)] == [("n",)] * 3


def packed(name):
    b = KernelBuilder(name)
    x = b.input("x", "f32", (6,))
    w = b.constant("w", "f32", (6, 10))
    b.mark_output(b.reduce((10,), (6,), lambda j, k: x[k] * w[k, j], name="y"))
    return Pack("w", "1/4 0 1%4").apply(b.build())


class TestConstants:
    def module(self):
        s = Sketch()
        s.input("x", "f32", 6)
        s.constant("w", random("f32", 6, 10))
        s.constant("unused", random("f32", 1000))
        s.call(packed("k"), ["x", "w"], "y")
        s.call(packed("k"), ["x", "w"], "z")
        b = KernelBuilder("plain")
        v = b.input("v", "f32", (6, 10))
        b.mark_output(b.compute((6, 10), lambda i, j: v[i, j] * 2.0, name="u"))
        s.call(b.build(), ["w"], "u")
        return s.finish("y", "z", "u")

    def test_packed_once_for_each_layout(self):
        module = self.module()
        made = planned(module)
        table = made.program.table
        assert [b.name for b in made.program.buffers if b.space == "const"] == ["w.packed0", "w"]
        assert table["w.packed0"].shape == (3, 6, 4)
        assert made.program.constant_bytes == 3 * 6 * 4 * 4 + 32 + 6 * 10 * 4 + 16
        block, _ = made.fill()
        assert block.ctypes.data % 64 == 0
        w = module.graph.constants["w"]
        got = block[:288].view(np.float32).reshape(3, 6, 4)
        np.testing.assert_array_equal(got, pack_array(w, "1/4 0 1%4"))
        start = table["w"].at
        np.testing.assert_array_equal(block[start : start + 240].view(np.float32).reshape(6, 10), w)

    def test_release(self):
        made = planned(self.module())
        assert set(made.graph.constants) == {"w"}
        block, _ = made.fill()
        again, _ = made.fill(release=True)
        np.testing.assert_array_equal(again[:288], block[:288])
        assert not made.graph.constants

    def test_all_element_types(self):
        s = Sketch()
        s.input("x", "f32", 1)
        names = []
        for dtype in ("f64", "f16", "bf16", "i64", "i8", "u16", "bool"):
            s.constant(dtype, random(dtype, 3))
            names.append(dtype)
        module = s.finish("x", *names)
        made = planned(module)
        block, _ = made.fill()
        for name in names:
            b = made.program.table[name]
            data = module.graph.constants[name]
            got = block[b.at : b.at + data.nbytes].view(data.dtype)
            np.testing.assert_array_equal(got, data)
            assert b.at % 64 == 0


def test_aligned_bytes():
    for size in (1, 63, 64, 1000):
        block = aligned_bytes(size)
        assert block.size == size and block.ctypes.data % 64 == 0


class TestRefusals:
    def test_a_size_that_nothing_tells(self):
        s = Sketch()
        s.input("x", "f32", N * 2)
        with pytest.raises(UnsupportedError, match=r"input 'x' has the type f32\[n\*2\].*size n"):
            plan(s.finish("x"))

    def test_a_result_of_unknown_size(self):
        s = Sketch()
        s.input("x", "f32", 4)
        s.call(unary("k", "neg", "f32", (sym("m"),)), ["x"], "y")
        with pytest.raises((UnsupportedError, IRError)):
            plan(s.finish("y"))

    def test_an_operand_that_does_not_fit_its_parameter(self):
        s = Sketch()
        s.input("x", "f32", 4)
        s.call(elementwise("k"), ["x"], "y")
        with pytest.raises(IRError, match=r"'x' is f32\[4\] in memory, @k takes f32\[64\]"):
            plan(s.finish("y"))

    def test_a_packed_parameter_needs_a_constant(self):
        s = Sketch()
        s.input("x", "f32", 6)
        s.input("w", "f32", 6, 10)
        s.call(packed("k"), ["x", "w"], "y")
        with pytest.raises(IRError, match="'w' is packed, but is no constant"):
            plan(s.finish("y"))

    def test_an_undefined_value(self):
        s = Sketch()
        s.input("x", "f32", 64)
        s.call(elementwise("k"), ["z"], "y")
        with pytest.raises(IRError, match="'z' is used before it is defined"):
            plan(s.finish("y"))
