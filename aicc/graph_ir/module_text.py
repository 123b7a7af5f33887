"""The text form of modules: the kernels, then the graph that calls them.

kernel @matmul_relu_0(n: 1..)
  in x0: f32[n, 256]
  ...

graph @mlp(n: 1..)
  in %x: f32[n, 256]
  const @w: f32[256, 10] sha=5f1c0d2ab3e49876
  %y: f32[n, 10] = call(%x, @w) {kernel="matmul_relu_0"} at "fc", "relu"
  out %y
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from aicc.graph_ir.module import Module
from aicc.graph_ir.text import print_graph, read_graph
from aicc.tensor_ir.ir import Kernel
from aicc.tensor_ir.parse import KernelReader
from aicc.tensor_ir.text import print_kernel
from aicc.text import Reader

Array = np.ndarray[Any, Any]


def print_module(module: Module, with_sha: bool = True) -> str:
    """The module's text. with_sha: hash the constants that are not written out."""
    kernels = [print_kernel(k) + "\n" for k in module.kernels.values()]
    return "\n".join([*kernels, print_graph(module.graph, with_sha)])


def parse_module(
    text: str, constants: Mapping[str, Array] | None = None, source: str = ""
) -> Module:
    """The module that a text stands for.

    constants: data of the constants that are not written out, by name. source: what errors call
    the text. Raises IRError with the place.
    """
    reader = Reader(text, source)
    kernels: dict[str, Kernel] = {}
    while reader.at("kernel"):
        start = reader.token
        kernel = KernelReader(reader).kernel()
        if kernel.name in kernels:
            reader.fail(f"the kernel {kernel.name!r} is there twice", start)
        kernels[kernel.name] = kernel
    graph = read_graph(reader, constants or {})
    reader.finish()
    return Module(graph, kernels)
