"""From the module to the compiled model: plan, object code, linking, executable."""

from __future__ import annotations

import functools
import time
import warnings
from collections.abc import Mapping, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from aicc import config
from aicc.codegen.jit import NativeLibrary, compile_object
from aicc.codegen.kernel import check_messages, lower_kernel
from aicc.codegen.program import program_text
from aicc.codegen.support import support_objects
from aicc.codegen.target import Target
from aicc.codegen.threadpool import pool_text
from aicc.errors import AiccWarning, IRError
from aicc.graph_ir.evaluate_module import evaluate_node
from aicc.graph_ir.graph import Graph, Node
from aicc.graph_ir.module import Module
from aicc.model import CompiledModel
from aicc.plan import Planned, host_operands, plan
from aicc.runtime.executable import Executable
from aicc.runtime.program import Call, Program
from aicc.runtime.program_text import parse_program, print_program
from aicc.runtime.verify import verify_program
from aicc.tensor_ir.ir import Kernel

Array = np.ndarray[Any, Any]


def build(
    module: Module,
    target: Target,
    threads: int,
    times: MutableMapping[str, float] | None = None,
    *,
    planned: Planned | None = None,
    release: bool = False,
) -> CompiledModel:
    """A model that runs `module` on this machine with up to `threads` threads.

    times: seconds by stage, which this adds its own to. planned: what `plan` made of the module, if
    that has been done; else release: whether the module's weights may be taken out of it as they
    are packed. Warns once, naming them, of operators that Python computes. Raises
    CodegenError and TargetError as code generation does.
    """
    seconds: MutableMapping[str, float] = {} if times is None else times
    clock = _Clock(seconds)
    if planned is None:
        planned = plan(module, release=release)
        check_program(planned.program)
        clock.lap("plan")
    program = planned.program
    _warn(planned)
    used = {s.kernel for s in program.steps if isinstance(s, Call)}
    kernels = {name: k for name, k in module.kernels.items() if name in used}
    objects = _objects(program, kernels, target)
    clock.lap("codegen")
    library = NativeLibrary(objects, target)
    executable = Executable(
        program,
        library,
        planned.block,
        threads=threads,
        checks={name: check_messages(k) for name, k in kernels.items()},
        scopes={name: tuple(b.scope for b in k.params) for name, k in kernels.items()},
        host=HostOperators(module.graph, planned.hosts),
        objects=planned.objects,
    )
    clock.lap("link")
    return CompiledModel(executable, dict(seconds), target.name, sum(map(len, objects)))


def _objects(program: Program, kernels: Mapping[str, Kernel], target: Target) -> list[bytes]:
    """Object code of the kernels, the program, and what they need.

    LLVM works in a thread of its own, outside the interpreter lock, while texts are written here.
    """
    with ThreadPoolExecutor(1) as llvm:
        made = [
            llvm.submit(compile_object, lower_kernel(k, target), target) for k in kernels.values()
        ]
        # Straight calls: there is nothing for the optimiser to find.
        made.append(llvm.submit(compile_object, program_text(program, kernels), target, 1))
        objects = [m.result() for m in made]
    objects.append(_pool_object(target))
    return objects + support_objects(objects, target)


@functools.lru_cache(maxsize=8)
def _pool_object(target: Target) -> bytes:
    return compile_object(pool_text(target), target)


class _Clock:
    def __init__(self, seconds: MutableMapping[str, float]) -> None:
        self._seconds = seconds
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self._seconds[stage] = self._seconds.get(stage, 0.0) + now - self._last
        self._last = now


def check_program(program: Program) -> None:
    """Verifies a program; from AICC_CHECK=2 on it also has to survive its text. Raises IRError."""
    verify_program(program)
    if config.get("AICC_CHECK") >= 2:
        text = print_program(program)
        if parse_program(text) != program:
            raise IRError(f"the program read back from its text is another one:\n{text}")


def _warn(planned: Planned) -> None:
    if planned.hosts:
        named = ", ".join(
            f"{n.op} ({', '.join(n.origin) or ', '.join(n.outputs)})" for n in planned.hosts
        )
        warnings.warn(
            f"{len(planned.hosts)} operators have no native code and run in Python: {named}",
            AiccWarning,
            stacklevel=4,
        )


class HostOperators:
    """Computes host steps by the operators' references, on arrays of known shapes."""

    def __init__(self, graph: Graph, nodes: Sequence[Node]) -> None:
        self._nodes = nodes
        results = (o for node in nodes for o in node.outputs if o)
        self._graph = Graph(graph.name, types={o: graph.types[o] for o in results})

    def __call__(
        self, key: int, arrays: Sequence[Array | None], sizes: Mapping[str, int]
    ) -> Sequence[Array]:
        """The results of host step `key`; arrays: of `host_operands`, in order."""
        node = self._nodes[key]
        values = {n: a for n, a in zip(host_operands(node), arrays, strict=True) if a is not None}
        made = evaluate_node(self._graph, node, values)
        nothing = np.empty(0)
        return [made.get(o, nothing) for o in node.outputs]
