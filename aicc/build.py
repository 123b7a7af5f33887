"""From the module to the compiled model: plan, object code, linking, executable."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

import numpy as np

from aicc.codegen.jit import NativeLibrary, compile_object
from aicc.codegen.kernel import check_messages, lower_kernel
from aicc.codegen.program import program_text
from aicc.codegen.support import support_objects
from aicc.codegen.target import Target
from aicc.codegen.threadpool import pool_text
from aicc.errors import AiccWarning
from aicc.graph_ir.evaluate_module import evaluate_node
from aicc.graph_ir.graph import Graph, Node
from aicc.graph_ir.module import Module
from aicc.model import CompiledModel
from aicc.plan import Planned, host_operands, plan
from aicc.runtime.executable import Executable
from aicc.runtime.program import Call
from aicc.runtime.verify import verify_program

Array = np.ndarray[Any, Any]


def build(
    module: Module,
    target: Target,
    threads: int,
    times: MutableMapping[str, float] | None = None,
    *,
    planned: Planned | None = None,
) -> CompiledModel:
    """A model that runs `module` on this machine with up to `threads` threads.

    times: seconds by stage, which this adds its own to. planned: what `plan` made of the module, if
    that has been done. Warns once, naming them, of operators that Python computes. Raises
    CodegenError and TargetError as code generation does.
    """
    seconds: MutableMapping[str, float] = {} if times is None else times
    clock = _Clock(seconds)
    if planned is None:
        planned = plan(module)
        verify_program(planned.program)
        clock.lap("plan")
    program = planned.program
    _warn(planned)
    used = {s.kernel for s in program.steps if isinstance(s, Call)}
    kernels = {name: k for name, k in module.kernels.items() if name in used}
    objects = [compile_object(lower_kernel(k, target), target) for k in kernels.values()]
    objects.append(compile_object(program_text(program, kernels), target, opt=1))
    objects.append(compile_object(pool_text(target), target))
    objects += support_objects(objects, target)
    clock.lap("codegen")
    library = NativeLibrary(objects, target)
    executable = Executable(
        program,
        library,
        planned.block,
        threads=threads,
        checks={name: check_messages(k) for name, k in kernels.items()},
        host=HostOperators(module.graph, planned.hosts),
        objects=planned.objects,
    )
    clock.lap("link")
    return CompiledModel(executable, dict(seconds), target.name, sum(map(len, objects)))


class _Clock:
    def __init__(self, seconds: MutableMapping[str, float]) -> None:
        self._seconds = seconds
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self._seconds[stage] = self._seconds.get(stage, 0.0) + now - self._last
        self._last = now


def _warn(planned: Planned) -> None:
    if planned.hosts:
        named = ", ".join(
            f"{n.op} ({', '.join(n.origin) or ', '.join(n.outputs)})" for n in planned.hosts
        )
        warnings.warn(
            f"{len(planned.hosts)} operators have no native code and run in Python: {named}",
            AiccWarning,
            stacklevel=3,
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
