"""Small modules made by hand, for tests of planning and running."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from aicc.dtypes import to_numpy
from aicc.graph_ir.graph import Graph, make_node
from aicc.graph_ir.infer import constant_type
from aicc.graph_ir.module import CALL, Module
from aicc.graph_ir.types import TensorType
from aicc.symbolic import Size
from aicc.tensor_ir.builder import KernelBuilder
from aicc.tensor_ir.ir import Kernel, as_index, call


@dataclass
class Sketch:
    """A module under construction: `call` and `op` add nodes."""

    module: Module = field(default_factory=lambda: Module(Graph("sketch")))

    @property
    def graph(self) -> Graph:
        return self.module.graph

    def input(self, name: str, dtype: str, *shape: Size) -> str:
        self.graph.inputs.append(name)
        self.graph.types[name] = TensorType(dtype, shape)
        return name

    def constant(self, name: str, data: np.ndarray) -> str:
        self.graph.constants[name] = data
        self.graph.types[name] = constant_type(data)
        return name

    def call(self, kernel: Kernel, inputs: list[str], *outputs: str, origin: str = "") -> str:
        self.module.kernels[kernel.name] = kernel
        outs = [b for b in kernel.params if b.scope == "out"]
        for name, b in zip(outputs, outs, strict=True):
            self.graph.types[name] = TensorType(b.dtype, b.shape)
        origin = origin or f"node_{outputs[0]}"
        self.graph.nodes.append(
            make_node(CALL, inputs, outputs, {"kernel": kernel.name}, origin=[origin])
        )
        return outputs[0]

    def op(self, op: str, inputs: list[str], outputs: dict[str, TensorType], **attrs) -> str:
        self.graph.types.update(outputs)
        origin = [f"node_{next(iter(outputs))}"]
        self.graph.nodes.append(make_node(op, inputs, list(outputs), attrs, origin=origin))
        return next(iter(outputs))

    def finish(self, *outputs: str) -> Module:
        self.graph.outputs = list(outputs)
        return self.module


def unary(name: str, op: str, dtype: str, shape, *more) -> Kernel:
    """out = op(x, *more)"""
    b = KernelBuilder(name)
    x = b.input("x", dtype, shape)
    b.mark_output(b.compute(shape, lambda *i: call(op, x[i], *more), name="y"))
    return b.build()


def binary(name: str, op: str, dtype: str, shape) -> Kernel:
    b = KernelBuilder(name)
    x, y = b.input("x", dtype, shape), b.input("y", dtype, shape)
    b.mark_output(b.compute(shape, lambda *i: call(op, x[i], y[i]), name="z"))
    return b.build()


def matmul_relu(name: str, n: Size, k: int, m: int) -> Kernel:
    """max(x @ w + c, 0), the sum in a temporary."""
    b = KernelBuilder(name)
    x = b.input("x", "f32", (n, k))
    w = b.constant("w", "f32", (k, m))
    c = b.constant("c", "f32", (m,))
    s = b.reduce((n, m), (k,), lambda i, j, r: x[i, r] * w[r, j], name="s")
    b.mark_output(b.compute((n, m), lambda i, j: call("max", s[i, j] + c[j], 0), name="y"))
    return b.build()


def gather(name: str, rows: int, cols: int, n: Size) -> Kernel:
    """x[index], after a check that every index is inside."""
    b = KernelBuilder(name)
    x = b.input("x", "f32", (rows, cols))
    index = b.input("index", "i64", (n,))
    with b.loop("i", 0, n) as i:
        at = index[i]
        b.check(call("and", call("ge", at, 0), call("lt", at, rows)), "index out of range")
    b.mark_output(
        b.compute((n, cols), lambda i, j: x[as_index(index[i], 0, rows - 1), j], name="y")
    )
    return b.build()


def random(dtype: str, *shape: int, seed: int = 0) -> np.ndarray:
    made = np.random.default_rng(seed).standard_normal(shape) * 3
    return made.astype(to_numpy(dtype))
