"""Padding that the operator behind it does itself."""

import numpy as np
import pytest
from pass_builder import Build, applied, ops

from aicc.graph_ir.passes.simplify import Simplify

CASES = (
    # axes, pads, fill, operator, its attributes, what is left
    (None, (0, 0, 1, 2, 0, 0, 3, 0), None, "Conv", {}, ["Conv"]),
    (None, (0, 0, 1, 2, 0, 0, 3, 0), 0.0, "Conv", {"pads": (1, 0, 0, 1)}, ["Conv"]),
    ((2, -1), (0, 1, 2, 1), 0.0, "Conv", {"auto_pad": "VALID", "strides": (2, 2)}, ["Conv"]),
    (None, (0, 0, 1, 1, 0, 0, 1, 1), 0.5, "Conv", {}, ["Pad", "Conv"]),
    (None, (0, 1, 1, 1, 0, 1, 1, 1), 0.0, "Conv", {}, ["Pad", "Conv"]),
    (None, (0, 0, -1, 1, 0, 0, 1, 1), 0.0, "Conv", {}, ["Pad", "Conv"]),
    (None, (0, 0, 1, 1, 0, 0, 1, 1), 0.0, "Conv", {"auto_pad": "SAME_UPPER"}, ["Pad", "Conv"]),
    (None, (0, 0, 1, 1, 0, 0, 1, 1), 0.0, "AveragePool", {}, ["AveragePool"]),
    (
        *(None, (0, 0, 1, 1, 0, 0, 1, 1), 0.0, "AveragePool"),
        *({"pads": (1, 1, 0, 0)}, ["Pad", "AveragePool"]),
    ),
    (
        *(None, (0, 0, 1, 1, 0, 0, 1, 1), 0.0, "AveragePool"),
        *({"pads": (1, 1, 0, 0), "count_include_pad": 1}, ["AveragePool"]),
    ),
    (None, (0, 0, 1, 1, 0, 0, 1, 1), 0.0, "MaxPool", {}, ["Pad", "MaxPool"]),
    (None, (0, 0, 1, 1, 0, 0, 1, 1), -np.inf, "MaxPool", {"strides": (2, 2)}, ["MaxPool"]),
    (
        *(None, (0, 0, 1, 1, 0, 0, 1, 1), -np.inf, "MaxPool"),
        *({"strides": (2, 2), "ceil_mode": 1}, ["Pad", "MaxPool"]),
    ),
)


@pytest.mark.parametrize("last", (False, True))
@pytest.mark.parametrize(("axes", "pads", "fill", "op", "attrs", "left"), CASES)
def test_padding_goes_into_windows(axes, pads, fill, op, attrs, left, last):
    b = Build()
    channels = pads[1] + 2 + pads[-3] if axes is None else 2
    x = b.input("x", 1, 2, 6, 7)
    if last:
        if axes is not None:
            axes = (1, -2)
        else:
            pads = tuple(pads[k] for k in (0, 2, 3, 1, 4, 6, 7, 5))
        x = b("Transpose", x, perm=(0, 2, 3, 1))
    value = "" if fill is None else b.const(np.float32(fill))
    operands = [x, b.const(np.array(pads, np.int64)), value]
    if axes is not None:
        operands.append(b.const(np.array(axes, np.int64)))
    x = b("Pad", *operands)
    if op == "Conv":
        y = b(op, x, b.weights(3, channels, 3, 3), channels_last=int(last), **attrs)
    else:
        y = b(op, x, kernel_shape=(3, 3), channels_last=int(last), **attrs)
    assert ops(applied(b.done(y), Simplify())) == ["Transpose"] * last + left


@pytest.mark.parametrize("mode", ("reflect", "edge"))
def test_what_repeats_elements_stays(mode):
    b = Build()
    pads = b.const(np.array((0, 0, 1, 1, 0, 0, 1, 1), np.int64))
    x = b("Pad", b.input("x", 1, 2, 6, 7), pads, mode=mode)
    graph = b.done(b("Conv", x, b.weights(3, 2, 3, 3)))
    assert ops(applied(graph, Simplify())) == ["Pad", "Conv"]


def test_pads_that_only_a_run_tells_stay():
    b = Build()
    x = b("Pad", b.input("x", 1, 2, 6, 7), b.const(np.zeros(8, np.int64)), b.input("c"))
    x = b("Pad", x, b.const(np.array((0, 0, 1, 1, 0, 0, 1, 1), np.int64)), b.input("d"))
    graph = b.done(b("Conv", x, b.weights(3, 2, 3, 3)))
    assert ops(applied(graph, Simplify())) == ["Pad", "Conv"]
