"""Compiling a model from its file to native code, and going on from a dumped text."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypedDict, Unpack, overload

import onnx

from aicc import config
from aicc.build import build, object_cache
from aicc.codegen.parallel import Workers
from aicc.decisions import collect, summary
from aicc.dump import read_dump
from aicc.frontend import load_model
from aicc.garbage import rarely_looked_for
from aicc.graph_ir.graph import Graph
from aicc.graph_ir.module import Module
from aicc.kernels import Fuse
from aicc.levels import LEVELS
from aicc.memory.budget import parse_bytes
from aicc.model import CompiledModel
from aicc.model_cache import Entry, ModelCache, model_cache
from aicc.passes import Pass, find_pass, run_passes
from aicc.pipeline import passes
from aicc.plan import Plan
from aicc.planned import Planned
from aicc.target import Target, usable_cores

Source = str | os.PathLike[str] | bytes | onnx.ModelProto
Stage = Graph | Module | Planned
"""What `stop_after` returns: the object of the level that the pass leads to."""
Progress = Callable[[str, float], None]
START = ("graph", "00_graph")
"""What `resume` calls the text of the imported model."""
MANY_NODES = 24
"""Graphs of more nodes have kernels enough for other processes to help."""
MUCH_WEIGHT = 1 << 25
"""Bytes. Beside more of them the compiling process holds no LLVM; other processes do."""


class Options(TypedDict, total=False):
    """What `compile` and `resume` both take by name; `compile` says what each is."""

    threads: int | None
    target: str | Target | None
    dump: str | os.PathLike[str] | None
    check: int | None
    progress: Progress | None
    memory_budget: int | str | None


@overload
def compile(
    model: Source,
    *,
    dims: Mapping[str, int] | None = None,
    stop_after: None = None,
    **options: Unpack[Options],
) -> CompiledModel: ...


@overload
def compile(
    model: Source,
    *,
    dims: Mapping[str, int] | None = None,
    stop_after: str,
    **options: Unpack[Options],
) -> Stage: ...


@overload
def compile(
    model: Source,
    *,
    dims: Mapping[str, int] | None = None,
    stop_after: str | None,
    **options: Unpack[Options],
) -> CompiledModel | Stage: ...


def compile(
    model: Source,
    *,
    threads: int | None = None,
    dims: Mapping[str, int] | None = None,
    target: str | Target | None = None,
    dump: str | os.PathLike[str] | None = None,
    stop_after: str | None = None,
    check: int | None = None,
    progress: Progress | None = None,
    memory_budget: int | str | None = None,
) -> CompiledModel | Stage:
    """Compiles an ONNX model to native code for this machine.

    model: a path, the bytes of a file, or an onnx.ModelProto. threads: how many a run may use
    (default: AICC_THREADS, else the usable cores). dims: sizes for named symbols, fixed in the
    code. target: "native", or a name that `Target.from_name` knows (default: AICC_TARGET). dump: a
    folder for text and constants after each pass (`aicc.dump`; default: AICC_DUMP). stop_after: the
    name of a pass, or "04_simplify" for one of several; what it returned (a Graph, a Module or a
    Planned) is the result. check: 0 to 3, what is verified between passes (default: AICC_CHECK).
    progress: told the name and the seconds of each stage as it ends. memory_budget: the most memory
    that values between the kernels may take in a run, in bytes or as "2MiB" or "1.5 MB"; where they
    need more, parts of the model run in patches.

    Raises ModelError (and its kinds) for a model that cannot be compiled, InputError for options
    that are none, TargetError for an unknown target or one that this machine cannot run, and
    MemoryBudgetError, which tells the least that would do, where no patches meet `memory_budget`.
    """
    compilation = _Compilation(
        stop_after,
        threads=threads,
        target=target,
        dump=dump,
        check=check,
        progress=progress,
        memory_budget=memory_budget,
    )
    return compilation.run(lambda order: load_model(model, dims))


@overload
def resume(
    folder: str | os.PathLike[str],
    after: str,
    *,
    stop_after: None = None,
    **options: Unpack[Options],
) -> CompiledModel: ...


@overload
def resume(
    folder: str | os.PathLike[str],
    after: str,
    *,
    stop_after: str,
    **options: Unpack[Options],
) -> Stage: ...


@overload
def resume(
    folder: str | os.PathLike[str],
    after: str,
    *,
    stop_after: str | None,
    **options: Unpack[Options],
) -> CompiledModel | Stage: ...


def resume(
    folder: str | os.PathLike[str],
    after: str,
    *,
    threads: int | None = None,
    target: str | Target | None = None,
    dump: str | os.PathLike[str] | None = None,
    stop_after: str | None = None,
    check: int | None = None,
    progress: Progress | None = None,
    memory_budget: int | str | None = None,
) -> CompiledModel | Stage:
    """Goes on from the text that `compile(..., dump=folder)` wrote after a pass, edited or not.

    after: the name of that pass, as for `stop_after`; "graph" is the imported model. The text of a
    module that is scheduled holds for the target that it was scheduled for. The rest as for
    `compile`, also the memory budget that was given there. Raises AiccError where the folder has no
    such text, and IRError, with the place, where a text or the constants beside it cannot be read.
    """

    def load(order: list[Pass]) -> Stage:
        number = 0 if after in START else find_pass(order, after) + 1
        text, constants, source = read_dump(folder, number)
        parse = LEVELS[_level_after(order, number)].parse
        assert parse is not None
        read: Stage = parse(text, constants, source)
        return read

    compilation = _Compilation(
        stop_after,
        threads=threads,
        target=target,
        dump=dump,
        check=check,
        progress=progress,
        memory_budget=memory_budget,
    )
    return compilation.run(load, None if after in START else after)


def _level_after(order: list[Pass], number: int) -> type:
    done = [p.name for p in order[:number]]
    return Planned if Plan.name in done else Module if Fuse.name in done else Graph


class _Compilation:
    """One call of `compile` or `resume`."""

    def __init__(self, stop_after: str | None, **options: Unpack[Options]) -> None:
        target, dump = options.get("target"), options.get("dump")
        budget = options.get("memory_budget")
        self.target = Target.from_name(config.get("AICC_TARGET") if target is None else target)
        self.threads = config.thread_count(options.get("threads")) or self.target.cores
        self.check = config.check_level(options.get("check"))
        self.budget = None if budget is None else parse_bytes(budget)
        self.dump = config.get("AICC_DUMP") if dump is None else dump
        self.stop_after = stop_after
        self.progress = options.get("progress")
        self.workers = Workers(self.target)
        self.order = passes(self.target, self.budget, self.workers.schedule)
        self.seconds: dict[str, float] = {}

    def run(
        self, load: Callable[[list[Pass]], Stage], start_after: str | None = None
    ) -> CompiledModel | Stage:
        """What is made of what `load` reads, which is what the pass `start_after` returned."""
        kept = self._cache() if start_after is None else None
        entry: Entry | None = None
        with rarely_looked_for(), self.workers, collect() as decisions:
            read = [self._read(load)]
            if kept is not None and isinstance(read[0], Graph):
                found = self._find(kept, read[0])
                if isinstance(found, CompiledModel):
                    return found
                entry = found
            if self.stop_after is None:
                self.workers.start(_processes(read[0]))  # while the passes run
            outcome = run_passes(
                read.pop(),  # no name here keeps its weights from going
                self.order,
                LEVELS,
                start_after=start_after,
                stop_after=self.stop_after,
                dump=self.dump,
                check=self.check,
                on_time=self._note,
            )
            if outcome.stopped:
                result: Stage = outcome.result
                return result
            model = self._build(outcome.result, summary(decisions))
        if kept is not None and entry is not None:
            kept.put(entry, model)
        return model

    def _read(self, load: Callable[[list[Pass]], Stage]) -> Stage:
        began = time.perf_counter()
        read = load(self.order)
        self._note("import", time.perf_counter() - began)
        return read

    def _cache(self) -> ModelCache | None:
        """Where whole models are kept; who looks at passes wants them to run."""
        looks = self.dump is not None or self.stop_after is not None or self.check >= 2
        return None if looks else model_cache()

    def _find(self, kept: ModelCache, graph: Graph) -> CompiledModel | Entry | None:
        """The model that a graph was compiled to, or its entry; see `ModelCache.find`."""
        began = time.perf_counter()
        options = f"memory_budget={self.budget}"
        found = kept.find(graph, self.target, self.threads, options)
        if isinstance(found, CompiledModel):
            self._note("load", time.perf_counter() - began)
            found.seconds = self.seconds
        return found

    def _build(self, planned: Planned, decisions: Sequence[str]) -> CompiledModel:
        return build(
            planned,
            self.target,
            self.threads,
            workers=self.workers,
            cache=object_cache(),
            release=True,
            seconds=self.seconds,
            note=self.progress,
            decisions=decisions,
        )

    def _note(self, stage: str, seconds: float) -> None:
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
        if self.progress is not None:
            self.progress(stage, seconds)


def _processes(found: Stage) -> int:
    """How many other processes are worth their start."""
    jobs: int = config.get("AICC_JOBS") or usable_cores()
    if isinstance(found, Graph):
        if sum(data.nbytes for data in found.constants.values()) > MUCH_WEIGHT:
            return jobs
        many = len(found.nodes) > MANY_NODES
    else:
        many = len(found.kernels) > 12
    return jobs if many and jobs > 1 else 0
