"""Quotients and remainders of integers, in vectors: exact also where the quotient is almost one
more."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

import aicc


def run(op: str, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    kind = helper.np_dtype_to_tensor_dtype(a.dtype)
    inputs = [helper.make_tensor_value_info(n, kind, a.shape) for n in "ab"]
    node = helper.make_node(op, ["a", "b"], ["y"])
    graph = helper.make_graph([node], "g", inputs, [onnx.ValueInfoProto(name="y")])
    opset = [helper.make_opsetid("", 14)]
    model = aicc.compile(helper.make_model(graph, opset_imports=opset, ir_version=8), threads=1)
    (y,) = model.run(None, {"a": a, "b": b})
    return y


def expected(op: str, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """By Python's integers; division is truncated, a remainder has the sign of the divisor."""
    bits = 8 * a.dtype.itemsize
    values = []
    for x, w in zip(a.tolist(), b.tolist(), strict=True):
        if w == 0:
            values.append(0)
        elif op == "Mod":
            values.append(x % w)
        else:
            values.append((abs(x) // abs(w)) * (1 if (x < 0) == (w < 0) else -1))
    wrapped = np.array([v % (1 << bits) for v in values], np.uint64)
    return wrapped.astype(a.dtype)


def operands(dtype: str) -> tuple[np.ndarray, np.ndarray]:
    i = np.iinfo(dtype)
    if i.bits == 8:
        every = np.arange(i.min, i.max + 1).astype(dtype)
        return np.repeat(every, 256), np.tile(every, 256)
    rng = np.random.default_rng(i.bits)
    edge = [i.min, i.max, i.min + 1, i.max - 1, 0, 1, 2, 3, i.max // 2, *([-1, -2] * (i.min < 0))]
    edges = np.array(edge, dtype)
    half = 1 << (i.bits // 2 - 1)
    by, times = rng.integers(1, half, (2, 5000)).astype(dtype)
    multiple = (by * times).astype(dtype)
    one = np.ones(1, dtype)
    some = rng.integers(i.min, i.max, (2, 5000), dtype=dtype, endpoint=True)
    a = np.concatenate([np.repeat(edges, len(edges)), multiple, multiple - one, some[0]])
    b = np.concatenate([np.tile(edges, len(edges)), by, by, some[1]])
    return a, b


@pytest.mark.parametrize("op", ("Div", "Mod"))
@pytest.mark.parametrize("dtype", ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"))
def test_against_whole_numbers(op: str, dtype: str) -> None:
    a, b = operands(np.dtype(dtype).name)
    divided = b != 0 if op == "Mod" else slice(None)
    np.testing.assert_array_equal(run(op, a, b)[divided], expected(op, a, b)[divided])
