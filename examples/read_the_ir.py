"""Follows one small model through every level, from the ONNX file to machine code.

    python examples/read_the_ir.py
    python examples/read_the_ir.py --target x86-64-v3

Any model: `aicc.compile(path, dump="folder")` writes the text after each pass, and
`aicc.compile(path, stop_after="fuse")` returns what that pass made, an object that prints itself.
"""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from textwrap import fill

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import aicc
from aicc.codegen.jit import assembly
from aicc.codegen.kernel import lower_kernel
from aicc.graph_ir.graph import Graph
from aicc.graph_ir.module import Module
from aicc.graph_ir.text import print_graph
from aicc.planned import Planned
from aicc.target import Target
from aicc.tensor_ir.recipes import choose
from schedule_a_kernel import inner_loop


@dataclass(frozen=True)
class Level:
    """The text of one level of the model, with a word on what to look at."""

    title: str
    why: str
    text: str


def small_model() -> onnx.ModelProto:
    """y = relu(x W^T + b), x: [60, 64]: one layer as PyTorch exports it."""
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((32, 64)).astype(np.float32)
    bias = rng.standard_normal(32).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["x", "w", "b"], ["h"], "fc", transB=1),
            helper.make_node("Relu", ["h"], ["y"], "relu"),
        ],
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [60, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [60, 32])],
        [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(bias, "b")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def levels(model: onnx.ModelProto, target: Target) -> list[Level]:
    """The texts of a model, from what was imported to machine code of its first kernel."""
    imported = aicc.compile(model, stop_after="fold", target=target)
    fused = aicc.compile(model, stop_after="fuse", target=target)
    planned = aicc.compile(model, stop_after="plan", target=target)
    assert (
        isinstance(imported, Graph) and isinstance(fused, Module) and isinstance(planned, Planned)
    )
    before = next(iter(fused.kernels.values()))
    after = planned.kernels[before.name]
    llvm_text = lower_kernel(after, target)
    return [
        Level(
            "Graph",
            "Operators over named values with types, as the file has them.",
            print_graph(imported, with_sha=False),
        ),
        Level(
            "Module",
            "The graph calls kernels; a kernel is loop nests over buffers. Gemm has become a "
            "product and a sum, its weights are transposed already, and three operators are one "
            "kernel.",
            f"{before}\n\n{print_graph(fused.graph, with_sha=False)}",
        ),
        Level(
            "Schedule",
            "The steps that turn these loops into tiles, vectors and threads. They are data: they "
            "print, parse and replay.",
            _wrapped([str(step) for step in choose(before, target)]),
        ),
        Level(
            "Kernel",
            "What the steps make of it. A tile of results stays in registers while k runs. Bias "
            "and maximum come as the tile is written. The weights lie as they are read.",
            str(after),
        ),
        Level(
            "Program",
            "What runs: calls, and the place of every buffer. No operators, no loops.",
            str(planned.program),
        ),
        Level(
            "LLVM",
            "The head of the innermost loop as it is generated, up to the first multiply-add.",
            _first_multiply_add(llvm_text),
        ),
        Level(
            "Machine code",
            "The head of the same loop after LLVM's optimiser: what the processor runs.",
            _with_multiplication(inner_loop(assembly(llvm_text, target))),
        ),
    ]


def _wrapped(steps: list[str], width: int = 96) -> str:
    lines = [""]
    for step in steps:
        joined = f"{lines[-1]}; {step}" if lines[-1] else step
        if len(joined) > width:
            lines.append(step)
        else:
            lines[-1] = joined
    return "\n".join(lines)


def _first_multiply_add(llvm_text: str) -> str:
    """From the head of the loop around the first multiply-add to the store of its result."""
    lines = llvm_text.splitlines()
    words = ("@llvm.fma.v", "@llvm.fmuladd.v", " fmul <")
    at = next((n for n, s in enumerate(lines) if any(w in s for w in words)), 0)
    first = max((n for n, s in enumerate(lines[:at]) if s.endswith(".body:")), default=0)
    last = next((n for n in range(at, len(lines)) if lines[n].strip().startswith("store")), at)
    return "\n".join([*lines[first : last + 1], "  ..."])


def _with_multiplication(loop: list[str], least: int = 12) -> str:
    """The head of a loop, as far as the first multiplications."""
    at = next((n for n, s in enumerate(loop) if re.match(r"v?f?n?m[alu]", s)), 0)
    return "\n".join([*loop[: max(least, at + 3)], "..."])


def main(argv: list[str] | None = None) -> None:
    """Prints every level."""
    p = argparse.ArgumentParser(description="One small model at every level.")
    p.add_argument("--target", default="native", help="native, x86-64-v3, x86-64-v4, aarch64 ...")
    target = Target.from_name(p.parse_args(argv).target)
    for n, level in enumerate(levels(small_model(), target), start=1):
        print(f"--- {n}. {level.title} {'-' * (90 - len(level.title))}")
        print(f"{fill(level.why, 96)}\n\n{level.text.rstrip()}\n")


if __name__ == "__main__":
    main()
