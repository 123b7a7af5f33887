"""The operator that the README adds: its code is executed, tested like any other, and fused."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper
from op_cases import EXECUTORS, assert_close, bind, reference

import aicc
from aicc.ops import registry
from aicc.ops.registry import Operator

README = Path(__file__).parents[2] / "README.md"


@pytest.fixture
def squareplus() -> Iterator[Operator]:
    """The operator, registered for one test."""
    text = README.read_text("utf-8")
    code = re.search(r"<!-- operator[^\n]*-->\n```python\n(.*?)```", text, re.DOTALL)
    assert code
    exec(compile(code[1], str(README), "exec"), {"__name__": "readme"})
    try:
        yield registry.get("example::Squareplus")
    finally:
        registry._REGISTRY.pop("example::Squareplus")


@pytest.mark.parametrize("executor", EXECUTORS)
def test_its_cases(squareplus: Operator, executor: str) -> None:
    for case in squareplus.cases():
        bound = bind(squareplus, case, False)
        (actual,), (expected,) = EXECUTORS[executor](bound), reference(bound)
        assert_close(actual, expected, case, case.name)


def test_it_is_fused(squareplus: Operator) -> None:
    nodes = [
        helper.make_node("Mul", ["x", "x"], ["m"]),
        helper.make_node("Squareplus", ["m"], ["s"], domain="example", b=1.0),
        helper.make_node("Neg", ["s"], ["y"]),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 5]) for name in "xy")
    graph = helper.make_graph(nodes, "g", [x], [y])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("example", 1)]
    model = aicc.compile(helper.make_model(graph, opset_imports=opsets, ir_version=9))
    data = np.linspace(-4, 4, 35, dtype=np.float32).reshape(7, 5)
    m = data * data
    np.testing.assert_allclose(model(data), -(m + np.sqrt(m * m + 1)) / 2, rtol=1e-6)
    assert model.report().calls == 1 and not model.report().host_ops
