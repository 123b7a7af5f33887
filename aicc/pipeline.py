"""The whole compiler on one screen: every pass in order, and why it stands there.

model file --load_model--> Graph --graph passes--> Graph --fuse--> Module --schedule--> Module
    --plan--> Program + constants --codegen--> objects --link--> CompiledModel
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

import onnx

from aicc import config
from aicc.build import build
from aicc.codegen.target import Target
from aicc.frontend import load_model
from aicc.graph_ir.graph import Graph
from aicc.graph_ir.module import Module
from aicc.graph_ir.passes.batchnorm import FoldBatchNorm
from aicc.graph_ir.passes.decompose import Decompose
from aicc.graph_ir.passes.fold import Fold
from aicc.graph_ir.passes.layout import ChooseLayout
from aicc.graph_ir.passes.reorder import Reorder
from aicc.graph_ir.passes.simplify import Simplify
from aicc.levels import LEVELS
from aicc.lower import Fuse, Schedule
from aicc.model import CompiledModel
from aicc.passes import Pass, run_passes

Source = str | os.PathLike[str] | bytes | onnx.ModelProto


def passes(target: Target) -> list[Pass]:
    """Every pass from the imported graph to the scheduled module."""
    return [
        Fold(),  # shape arithmetic and weights that are computed become constants
        Simplify(),  # identities go, so that later passes see fewer forms
        Decompose(),  # composite operators become primitives: one form, however it was exported
        Simplify(),  # what decomposition leaves: constants to fold, repeated subexpressions
        FoldBatchNorm(),  # scales into weights, shifts into one bias: before layout moves operands
        ChooseLayout(),  # convolutions become matrix products over contiguous channels
        Simplify(),  # transposes that met cancel or fold into constants
        FoldBatchNorm(),  # scales that stood behind transposes reach their weights
        Simplify(),
        Fuse(target),  # groups of nodes become kernels; from here on a Module
        Reorder(),  # the order of calls that needs the least memory
        Schedule(target),  # loops become tiles, vectors, threads
    ]


def compile(
    model: Source,
    *,
    threads: int | None = None,
    dims: Mapping[str, int] | None = None,
    target: str | Target = "native",
    dump: str | os.PathLike[str] | None = None,
    stop_after: str | None = None,
) -> CompiledModel | Graph | Module:
    """Compiles an ONNX model to native code for this machine.

    model: a path, the bytes of a file, or an onnx.ModelProto. threads: how many a run may use
    (default: AICC_THREADS, else the usable cores). dims: sizes for named symbols, fixed in the code.
    target: "native", or a name that `Target.from_name` knows. dump: a folder for the text after each
    pass. stop_after: the name of a pass; what it returned (a Graph or a Module) is the result.

    Raises ModelError (and its kinds) for a model that cannot be compiled, TargetError for an unknown
    target.
    """
    began = time.perf_counter()
    machine = Target.from_name(target)
    times: dict[str, float] = {}
    graph = load_model(model, dims)
    times["import"] = time.perf_counter() - began
    outcome = run_passes(
        graph,
        passes(machine),
        LEVELS,
        stop_after=stop_after,
        dump=None if dump is None else Path(dump),
    )
    for name, seconds in outcome.times:
        times[name] = times.get(name, 0.0) + seconds
    if outcome.stopped:
        result: Graph | Module = outcome.result
        return result
    return build(outcome.result, machine, _threads(threads, machine), times)


def _threads(threads: int | None, target: Target) -> int:
    if threads is None:
        threads = config.get("AICC_THREADS") or target.cores
    if threads < 1:
        raise ValueError(f"threads is 1 or more, not {threads}")
    return threads


__all__ = ["compile", "passes"]
