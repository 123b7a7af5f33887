"""The text, the verifier and the meaning of modules."""

from dataclasses import replace

import numpy as np
import pytest
from modules import Sketch, gather, matmul_relu, random, unary

from aicc.build import build
from aicc.errors import ExecutionError, InputError, IRError
from aicc.graph_ir.evaluate_module import evaluate_module
from aicc.graph_ir.module_text import parse_module, print_module
from aicc.graph_ir.types import TensorType
from aicc.graph_ir.verify_module import verify_module
from aicc.plan import plan
from aicc.symbolic import sym
from aicc.target import Target
from aicc.tensor_ir.schedule_axes import FuseAxes
from aicc.tensor_ir.schedule_stages import Pack

N = sym("n", 1)


def sample(n=N):
    s = Sketch()
    s.input("x", "f32", n, 8)
    s.input("index", "i64", n)
    s.constant("w", random("f32", 8, 6, seed=1))
    s.constant("c", random("f32", 6, seed=2))
    s.constant("table", random("f32", 5, 6, seed=3))
    s.call(matmul_relu("k0", n, 8, 6), ["x", "w", "c"], "h", origin="fc")
    s.call(gather("k1", 5, 6, n), ["table", "index"], "e", origin="emb")
    s.constant("shape", np.array([-1], np.int64))
    s.op("Reshape", ["h", "shape"], {"v": TensorType("f32", (n * 6,))}, allowzero=0)
    s.call(unary("k2", "neg", "f32", (n * 6,)), ["v"], "y")
    return s.finish("y", "e")


def scheduled():
    """`sample` with a packed constant and a parameter under another shape."""
    module = sample()
    kernels = dict(module.kernels)
    kernels["k0"] = FuseAxes("y", 0).apply(Pack("w", "1/4 0 1%4").apply(kernels["k0"]))
    return replace(module, kernels=kernels)


FEED = {"x": random("f32", 3, 8), "index": np.array([4, 0, 2])}


@pytest.mark.parametrize("make", [sample, scheduled])
def test_text_and_meaning(make):
    module = make()
    verify_module(module)
    text = print_module(module)
    again = parse_module(text, module.graph.constants)
    assert again == module
    assert print_module(again) == text
    verify_module(again)
    c = module.graph.constants
    made = evaluate_module(again, FEED)
    want = -np.maximum(FEED["x"] @ c["w"] + c["c"], 0).reshape(-1)
    np.testing.assert_allclose(made["y"], want, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(made["e"], c["table"][[4, 0, 2]])
    native = build(plan(module), Target.host(), 1).run(None, FEED)
    np.testing.assert_allclose(native[0], made["y"], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(native[1], made["e"])


def test_modules_that_differ():
    module = sample()
    other = sample()
    assert module == other
    other.graph.constants["w"] = other.graph.constants["w"] + 1
    assert module != other
    assert module != scheduled()


def test_a_failed_check_names_the_node():
    with pytest.raises(ExecutionError, match=r"^node 'emb': index out of range$"):
        evaluate_module(sample(), {**FEED, "index": np.array([0, 9, 1])})


def test_a_feed_that_does_not_fit():
    with pytest.raises(InputError):
        evaluate_module(sample(), {**FEED, "index": np.array([0, 1])})


def test_a_kernel_twice():
    text = print_module(sample())
    first = text[: text.index("\nkernel")]
    with pytest.raises(IRError, match="the kernel 'k0' is there twice"):
        parse_module(first + "\n" + text, sample().graph.constants)


def change(old, new):
    module = sample()
    text = print_module(module)
    assert old in text
    return parse_module(text.replace(old, new), module.graph.constants)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('kernel="k2"', 'kernel="k3"', "there is no kernel 'k3'"),
        ("call(%x, @w, @c)", "call(%x, @w)", "2 operands and 1 results, where the kernel has 3"),
        ("call(%x, @w, @c)", "call(%x, @c, @w)", r"'c' is f32\[6\], but w is f32\[8, 6\]"),
        ("%e: f32[n, 6]", "%e: f32[n, 7]", r"'e' is f32\[n, 7\], but y is f32\[n, 6\]"),
        ("call(%v)", "call(%e)", None),
        ("call(%v)", "call(%y)", "operand 'y' is not defined before it"),
        ("%v: f32[n*6] =", "%v: f32[n*5] =", "but Reshape gives"),
        ("kernel @k0(n: 1..)", "kernel @k0(n: 2..)", "the graph has no size n"),
        ("const w: f32[8, 6]", "out w: f32[8, 6]", "operands and"),
        ("call(@table, %index)", "call(%h, %index)", "is f32"),
    ],
)
def test_the_verifier(old, new, message):
    module = change(old, new)
    if message is None:
        verify_module(module)  # as many elements, so the same memory
        return
    with pytest.raises(IRError, match=message):
        verify_module(module)


def test_a_constant_parameter_takes_a_constant():
    module = change("call(%x, @w, @c)", "call(%x, @w, %b)")
    module.graph.inputs.append("b")
    module.graph.types["b"] = TensorType("f32", (6,))
    with pytest.raises(IRError, match="'b' is no constant, as c has to be"):
        verify_module(module)


def test_a_layout_that_does_not_fit():
    module = scheduled()
    kernel = module.kernels["k0"]
    packed = kernel.buffer("w")
    wrong = replace(packed, pack="0/4 1 0%4")
    module.kernels["k0"] = kernel.with_buffer(wrong)
    with pytest.raises(IRError, match=r"'w' is packed as f32\[2, 6, 4\], but w is f32\[2, 8, 4\]"):
        verify_module(module)
