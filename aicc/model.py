"""A compiled model as its user holds it: ports, runs, a report."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from aicc.errors import InputError
from aicc.runtime.executable import Executable, Given
from aicc.runtime.feed import Port, given_outputs
from aicc.runtime.layout import Layout
from aicc.runtime.limits import Limits
from aicc.runtime.memory_map import MemoryMap
from aicc.runtime.profile_report import Profile, profile
from aicc.runtime.program import Call, Host, Program
from aicc.runtime.saved import Parts, write_parts

Array = np.ndarray[Any, Any]
SHOWN = 8
"""Tensors at the peak that a report shows."""


@dataclass(frozen=True)
class Report:
    """What a compiled model consists of.

    calls: kernel calls in a run; kernels: distinct kernels. host_ops: the operators that Python
    computes, with the names of their ONNX nodes. weights: bytes of the block of constants. arena:
    bytes of the arena, and least: the most bytes alive in one step, which no arena can be smaller
    than; both for `sizes`, and None where sizes are symbols and none were given. memory: what lies
    in the arena, and what is proven of it; None where that is not known. seconds: compile time by
    stage. code: bytes of object code. decisions: a line for each thing that compiling weighed by
    estimated times, what makes the largest difference first; shown where `verbose`.
    """

    name: str
    calls: int
    kernels: int
    host_ops: tuple[tuple[str, str], ...]
    weights: int
    arena: int | None
    least: int | None
    sizes: Mapping[str, int]
    threads: int
    target: str
    code: int
    seconds: Mapping[str, float]
    decisions: tuple[str, ...] = ()
    verbose: bool = False
    memory: MemoryMap | None = None

    def __str__(self) -> str:
        counts = f"{_count(self.calls, 'call')} of {_count(self.kernels, 'kernel')}"
        lines = [f"model {self.name}: {counts}, {_count(self.threads, 'thread')}, {self.target}"]
        if self.host_ops:
            lines.append(f"host operators ({len(self.host_ops)}), computed in Python:")
            lines += [f"  {op} at {node!r}" for op, node in self.host_ops]
        else:
            lines.append("host operators: none")
        lines.append(f"weights  {_bytes(self.weights)}, code {_bytes(self.code)}")
        if self.memory is None:
            lines.append("arena    depends on the sizes of a run; see report(sizes)")
        else:
            lines.append(self.memory.text(SHOWN))
        if self.seconds:
            total = sum(self.seconds.values())
            parts = ", ".join(f"{k} {v:.2f}" for k, v in self.seconds.items() if v >= 0.005)
            lines.append(f"compiled in {total:.2f} s" + (f": {parts}" if parts else ""))
        if self.verbose:
            lines.append(f"decided by estimated times: {len(self.decisions)}")
            lines += [f"  {line}" for line in self.decisions]
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """The report's fields as plain data."""
        return {
            **{n: getattr(self, n) for n in ("name", "calls", "kernels", "weights", "arena")},
            **{n: getattr(self, n) for n in ("least", "threads", "target", "code")},
            "host_ops": [{"op": op, "node": node} for op, node in self.host_ops],
            "memory": None if self.memory is None else self.memory.as_dict(whole=False),
            "sizes": dict(self.sizes),
            "seconds": dict(self.seconds),
            "decisions": list(self.decisions),
        }


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _bytes(n: int) -> str:
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if n >= size:
            return f"{n / size:.1f} {unit}"
    return f"{n} B"


@dataclass(repr=False)
class CompiledModel:
    """Native code for one model. Several threads may run it at once.

    inputs, outputs: ports with name, dtype (numpy) and shape (numbers, or symbols that any size may
    take the place of). Code and threads are freed when the object dies, or by `close`.
    """

    executable: Executable
    parts: Parts
    """What `save` writes."""
    seconds: dict[str, float] = field(default_factory=dict)
    target: str = "native"
    limits: Callable[[], Limits] | None = None
    """Tells the limits of the machine, which profiles compare with."""

    def __repr__(self) -> str:
        """`<CompiledModel resnet50: x: float32[n, 3, 224, 224] -> y: float32[n, 1000]>`."""
        taken, given = (", ".join(map(str, ports)) for ports in (self.inputs, self.outputs))
        return f"<CompiledModel {self.program.name}: {taken} -> {given}>"

    def __reduce__(self) -> str:
        raise TypeError("a CompiledModel is not pickled: `save` writes one, `aicc.load` reads it")

    @property
    def inputs(self) -> tuple[Port, ...]:
        """What a run takes, in the model's order."""
        return self.executable.inputs

    @property
    def outputs(self) -> tuple[Port, ...]:
        """What a run returns, in the model's order."""
        return self.executable.outputs

    @functools.cached_property
    def _input_names(self) -> tuple[str, ...]:
        return tuple(p.name for p in self.inputs)

    @functools.cached_property
    def _output_names(self) -> tuple[str, ...]:
        return tuple(p.name for p in self.outputs)

    @property
    def program(self) -> Program:
        """What runs, as data that prints itself."""
        return self.executable.program

    def run(
        self,
        output_names: Sequence[str] | None,
        feed: Mapping[str, Array],
        *,
        out: Given | None = None,
    ) -> list[Array]:
        """The outputs called `output_names`, or all for None, as arrays that the caller owns.

        feed: an array for each input by name, of its dtype and a shape that fits; read in place
        where it is aligned and in C order, else copied. out: arrays that outputs are written to and
        that are returned: by name, or one for each output asked for, None for a new one. They are
        of the output's dtype and shape, in C order, writeable, and share no memory with inputs.

        Raises InputError where feed, names or `out` do not fit the model, and ExecutionError,
        naming the ONNX node, where data end the run (such as an index out of range); then what is
        in the arrays of `out` is not defined.
        """
        if output_names is None or (
            not isinstance(output_names, str) and tuple(output_names) == self._output_names
        ):
            return self.executable.run(feed, out)
        if isinstance(output_names, str):
            raise InputError(f"names of outputs are a list, such as [{output_names!r}], or None")
        place = {name: n for n, name in enumerate(self._output_names)}
        unknown = [str(n) for n in output_names if n not in place]
        if unknown:
            known = ", ".join(map(str, self.outputs))
            raise InputError(f"no outputs: {', '.join(unknown)}; the model's outputs are {known}")
        if out is not None and not isinstance(out, Mapping):
            if len(set(output_names)) < len(output_names):
                raise InputError("an output that is asked for twice has its array by name")
            given = given_outputs([self.outputs[place[n]] for n in output_names], out)
            out = {output_names[n]: a for n, a in given.items()}
        results = self.executable.run(feed, out)
        return [results[place[n]] for n in output_names]

    def __call__(self, *args: Array, **kwargs: Array) -> Any:
        """One array where the model has one output, else a tuple of all. Inputs are given in order
        or by name. Raises as `run` does."""
        feed = dict(zip(self._input_names, args))
        if kwargs or len(args) > len(feed):
            if len(args) > len(feed):
                known = ", ".join(map(str, self.inputs))
                raise InputError(f"{len(args)} inputs given; the model's inputs are {known}")
            twice = sorted(feed.keys() & kwargs.keys())
            if twice:
                raise InputError(f"inputs given in order and by name: {', '.join(twice)}")
            feed |= kwargs
        results = self.executable.run(feed)
        return results[0] if len(results) == 1 else tuple(results)

    def report(
        self, sizes: Mapping[str, Sequence[int]] | None = None, *, verbose: bool = False
    ) -> Report:
        """What the model consists of. sizes: shapes of the inputs by name, for models whose memory
        depends on them. verbose: its text tells why kernels were fused, or not."""
        program = self.program
        calls = [s for s in program.steps if isinstance(s, Call)]
        hosts = [s for s in program.steps if isinstance(s, Host)]
        layout = self._layout(sizes, "report")
        arena, least, values = program.arena, program.least, dict[str, int]()
        if layout is not None:
            arena, least, values = layout.arena, layout.least, dict(layout.values)
        return Report(
            name=program.name,
            calls=len(calls),
            kernels=len({s.kernel for s in calls}),
            host_ops=tuple((s.op, ", ".join(s.nodes)) for s in hosts),
            weights=program.constant_bytes,
            arena=arena,
            least=least,
            sizes=values,
            threads=self.executable.threads,
            target=self.target,
            code=sum(map(len, self.parts.code)),
            seconds=dict(self.seconds),
            decisions=self.parts.decisions,
            verbose=verbose,
            memory=self.executable.memory(layout),
        )

    def memory(self, sizes: Mapping[str, Sequence[int]] | None = None) -> MemoryMap | None:
        """Which tensors lie where in the arena, when, and how far that is from the least that could
        do. sizes: as for `report`; without them, None for models whose memory depends on them."""
        return self.executable.memory(self._layout(sizes, "memory"))

    def _layout(self, sizes: Mapping[str, Sequence[int]] | None, what: str) -> Layout | None:
        if sizes is None:
            return None
        missing = [p.name for p in self.inputs if p.name not in sizes]
        if missing:
            raise InputError(f"{what}: no shape for the inputs {', '.join(missing)}")
        return self.executable.layout([tuple(sizes[p.name]) for p in self.inputs])

    def profile(self, feed: Mapping[str, Array], runs: int = 10) -> Profile:
        """Time, work and distance from the machine's limits of each step on `feed`, the best of
        several runs. Raises as `run` does, and InputError for less than one run.

        The first profile on a machine measures its limits, which takes about a second, and keeps
        them in the cache folder (AICC_CACHE_DIR).
        """
        if runs < 1:
            raise InputError(f"a profile takes 1 run or more, not {runs}")
        times = self.executable.profile(feed, runs)
        limits = None if self.limits is None else self.limits()
        return profile(self.program, times, self.executable.threads, limits)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the model to one file, from which `aicc.load` runs it without compiling: program,
        native code for this target, packed weights. A file that is there is replaced at once.

        Raises UnsupportedError where Python computes some of the operators, and SavedModelError
        where the file cannot be written.
        """
        write_parts(self.parts, path)

    def close(self) -> None:
        """Ends the model's threads and unloads its code; it cannot run again. Runs that other
        threads have under way end first."""
        self.executable.close()
