"""The text form of the Program level: kernels, constants and host nodes, the program, sources.

kernel @matmul_relu_0(n: 1..)
  ...

graph @mlp
  const @w: f32[256, 10] sha=5f1c0d2ab3e49876
  out

program @mlp
  size n: 1.. = x[0]
  ...

constants
  w.packed0 = @w "1/16 0 1%16"
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from aicc.graph_ir.text import print_graph, read_graph
from aicc.planned import Planned, Source
from aicc.runtime.program_text import print_program, read_program
from aicc.tensor_ir.ir import Kernel
from aicc.tensor_ir.parse import KernelReader
from aicc.tensor_ir.text import print_kernel
from aicc.text import Reader, print_name, quote

Array = np.ndarray[Any, Any]


def print_planned(planned: Planned, with_sha: bool = True) -> str:
    """The text. with_sha: hash the constants that are not written out."""
    parts = [print_kernel(k) + "\n" for k in planned.kernels.values()]
    parts += [print_graph(planned.graph, with_sha), print_program(planned.program)]
    if planned.sources:
        lines = ["constants"]
        for name, source in planned.sources.items():
            layout = f" {quote(source.layout)}" if source.layout else ""
            lines.append(f"  {print_name(name)} = @{print_name(source.constant)}{layout}")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def parse_planned(
    text: str, constants: Mapping[str, Array] | None = None, source: str = ""
) -> Planned:
    """What a text stands for.

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
    made = Planned(read_program(reader), kernels, graph)
    if reader.accept("constants"):
        reader.block(lambda: _source(reader, made))
    reader.finish()
    return made


def _source(reader: Reader, made: Planned) -> None:
    start = reader.token
    name = reader.name("a buffer")
    if name in made.sources:
        reader.fail(f"the constant {name!r} has two sources", start)
    reader.expect("=")
    reader.expect("@")
    constant = reader.name("a constant")
    layout = reader.string() if reader.at_kind("string") else ""
    made.sources[name] = Source(constant, layout)
    reader.newline()
