"""From the planned program to the compiled model: object code, linking, executable."""

from __future__ import annotations

import functools
import logging
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from aicc import __version__, config
from aicc.codegen.kernel import check_messages
from aicc.codegen.object_cache import ObjectCache
from aicc.codegen.parallel import Job, LlvmText, Workers
from aicc.codegen.program import program_text
from aicc.codegen.support import support_objects
from aicc.codegen.threadpool import pool_text
from aicc.errors import AiccWarning
from aicc.graph_ir.evaluate import concrete_context, run_node
from aicc.graph_ir.evaluate_module import evaluate_node
from aicc.graph_ir.graph import Graph, Node
from aicc.graph_ir.infer import context
from aicc.graph_ir.types import VALUE_LIMIT
from aicc.host import processor
from aicc.loading import measured_limits, place_code
from aicc.model import CompiledModel
from aicc.ops.registry import OpContext
from aicc.planned import Planned, host_operands
from aicc.runtime.executable import Executable
from aicc.runtime.saved import Parts
from aicc.target import Target
from aicc.tensor_ir.text import print_kernel

Array = np.ndarray[Any, Any]
log = logging.getLogger("aicc")
POOLS = 8
"""Targets whose pool of threads is remembered."""
REMEMBERED = 64
"""Contexts of host operators that are kept."""
_pools: dict[Target, bytes] = {}


def build(
    planned: Planned,
    target: Target,
    threads: int,
    *,
    workers: Workers | None = None,
    cache: ObjectCache | None = None,
    release: bool = False,
    seconds: Mapping[str, float] | None = None,
    note: Callable[[str, float], None] | None = None,
    decisions: Sequence[str] = (),
) -> CompiledModel:
    """A model that runs a program on this machine with up to `threads` threads.

    workers: processes that compile kernels for `target`. cache: where object code is looked for and
    kept. release: whether the weights may be taken
    out of `planned` as they are packed. seconds: of the stages before, for the model's report.
    note: told the name and the seconds of each stage as it ends. decisions: lines for the report on
    what passes weighed. Warns once, naming them, of
    operators that Python computes. Raises CodegenError and TargetError as code generation does.
    """
    target.require_host()
    clock = _Clock(seconds or {}, note)
    _warn(planned)
    compiled = _code(planned, workers or Workers(target), cache)
    block, strings = planned.fill(release)
    clock.lap("pack")
    objects = compiled()
    clock.lap("codegen")
    library = place_code(objects, target)
    kernels = planned.kernels
    parts = Parts(
        planned.program,
        tuple(objects),
        block,
        target.text(),
        threads,
        checks={name: tuple(check_messages(k)) for name, k in kernels.items()},
        scopes={name: tuple(b.scope for b in k.params) for name, k in kernels.items()},
        strings=strings,
        version=__version__,
        processor=processor(),
        decisions=tuple(decisions),
    )
    host = HostOperators(planned.graph, planned.hosts)
    executable = Executable.of(parts, library, threads, host)
    clock.lap("link")
    limits = functools.partial(measured_limits, target)
    return CompiledModel(executable, parts, clock.seconds, target.name, limits)


def object_cache() -> ObjectCache | None:
    """The cache that the environment asks for, if any."""
    limit = config.cache_bytes("objects")
    if not limit:
        return None
    try:
        return ObjectCache(config.cache_folder() / "objects", limit, __version__)
    except (OSError, RuntimeError) as error:  # nobody's home; source files that cannot be read
        log.debug("object cache: not used: %s", error)
        return None


def _code(
    planned: Planned, workers: Workers, cache: ObjectCache | None
) -> Callable[[], list[bytes]]:
    """Lets the workers begin with what is not kept; what is returned gives the object code of all
    kernels, of the program, and of what they need."""
    target = workers.target
    jobs: dict[str, Job] = {f"kernel {name}": k for name, k in planned.kernels.items()}
    # Straight calls: there is nothing for the optimiser to find.
    jobs["program"] = LlvmText(program_text(planned.program, planned.kernels), opt=1)
    jobs["pool"] = LlvmText(pool_text(target))
    keys: dict[str, str] = {}
    found: dict[str, bytes] = {}
    if cache is not None:
        keys = {name: _key(job, target, cache) for name, job in jobs.items()}
        found = {n: data for n, key in keys.items() if (data := cache.get(key)) is not None}
        log.debug("object cache: %d of %d objects", len(found), len(jobs))
    if target in _pools:
        found["pool"] = _pools[target]
    compiled = workers.begin({n: job for n, job in jobs.items() if n not in found})

    def finish() -> list[bytes]:
        made = compiled()
        if cache is not None:
            for name, data in made.items():
                cache.put(keys[name], data)
        objects = {n: found[n] if n in found else made[n] for n in jobs}
        if len(_pools) < POOLS:
            _pools[target] = objects["pool"]
        return [*objects.values(), *support_objects(objects.values(), target)]

    return finish


def _key(job: Job, target: Target, cache: ObjectCache) -> str:
    if isinstance(job, LlvmText):
        return cache.key(f"llvm {job.opt}", job.text, target)
    return cache.key("kernel", print_kernel(job), target)


class _Clock:
    def __init__(
        self, before: Mapping[str, float], note: Callable[[str, float], None] | None
    ) -> None:
        self.seconds = dict(before)
        self._note = note
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._last
        if self._note is not None:
            self._note(stage, now - self._last)
        self._last = now


def _warn(planned: Planned) -> None:
    if planned.hosts:
        named = ", ".join(
            f"{n.op} ({', '.join(n.origin) or ', '.join(n.outputs)})" for n in planned.hosts
        )
        warnings.warn(
            f"{len(planned.hosts)} operators have no native code and run in Python: {named}",
            AiccWarning,
            stacklevel=6,
        )


class HostOperators:
    """Computes host steps by the operators' references, on arrays of known shapes."""

    def __init__(self, graph: Graph, nodes: Sequence[Node]) -> None:
        self._nodes = nodes
        results = (o for node in nodes for o in node.outputs if o)
        self._graph = Graph(graph.name, types={o: graph.types[o] for o in results})
        self._contexts: dict[Any, OpContext] = {}
        """What operators know, by the node and what they can see of their operands."""

    def __call__(
        self, key: int, arrays: Sequence[Array | None], sizes: Mapping[str, int]
    ) -> Sequence[Array]:
        """The results of host step `key`; arrays: of `host_operands`, in order."""
        node = self._nodes[key]
        if not node.regions:
            return run_node(self._context(key, node, arrays), arrays)
        values = {n: a for n, a in zip(host_operands(node), arrays, strict=True) if a is not None}
        made = evaluate_node(self._graph, node, values)
        nothing = np.empty(0)
        return [made.get(o, nothing) for o in node.outputs]

    def _context(self, key: int, node: Node, arrays: Sequence[Array | None]) -> OpContext:
        seen = key, tuple([None if a is None else _seen(a) for a in arrays])
        found = self._contexts.get(seen)
        if found is None:
            found = concrete_context(context(self._graph, node), arrays, {})
            if len(self._contexts) >= REMEMBERED:
                self._contexts.clear()
            self._contexts[seen] = found
        return found


def _seen(a: Array) -> tuple[Any, ...]:
    """What decides the type of an array, as `constant_type` gives it."""
    few = a.size <= VALUE_LIMIT and a.dtype.kind in "iub"
    return a.shape, a.dtype, a.tobytes() if few else b""
