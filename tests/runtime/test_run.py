import numpy as np
import pytest
from modules import Sketch, matmul_relu, random, unary, binary

from aicc.build import build
from aicc.codegen.target import Target
from aicc.plan import plan
from aicc.runtime.program_text import parse_program
from aicc.runtime.verify import verify_program
from aicc.symbolic import sym

HOST = Target.host()


def mlp():
    s = Sketch()
    s.input("x", "f32", 4, 8)
    s.constant("w0", random("f32", 8, 16, seed=1))
    s.constant("c0", random("f32", 16, seed=2))
    s.call(matmul_relu("k0", 4, 8, 16), ["x", "w0", "c0"], "h")
    s.call(unary("k1", "neg", "f32", (4, 16)), ["h"], "g")
    s.call(unary("k2", "exp", "f32", (4, 16)), ["g"], "y")
    return s.finish("y")


def test_chain():
    m = mlp()
    p = plan(m)
    print(p.program)
    verify_program(p.program)
    assert parse_program(str(p.program)) == p.program
    model = build(m, HOST, 1)
    x = random("f32", 4, 8)
    c = m.graph.constants
    expected = np.exp(-np.maximum(x @ c["w0"] + c["c0"], 0))
    np.testing.assert_allclose(model(x), expected, rtol=1e-5)
    print(model.report())
