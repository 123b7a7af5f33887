"""What a profile tells: time, work and distance from the machine's limits of each step."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from aicc.runtime.limits import Limits
from aicc.runtime.profile import Times
from aicc.runtime.program import Call, Copy, Host, Program, Step
from aicc.symbolic import Size, evaluate

NODES_SHOWN = 60
"""Characters of the names of ONNX nodes in a line of the table."""


@dataclass(frozen=True)
class StepProfile:
    """One step of a run, or all calls of one kernel together.

    what: the kernel, copy or host operator. nodes: names of its ONNX nodes. seconds: the least that
    it took. calls: how many steps it stands for. share: of all steps' time. operations: of
    arithmetic on floats; bytes: read and written, at least; both None where nobody counted them.
    limit: the least seconds that the machine's limits allow. bound: the limit that it is, "compute"
    or "memory". cores: that share the loops, and the limit.
    """

    what: str
    nodes: tuple[str, ...]
    seconds: float
    calls: int = 1
    share: float = 0.0
    operations: int | None = None
    bytes: int | None = None
    limit: float | None = None
    bound: str = ""
    cores: int = 1

    @property
    def lost(self) -> float:
        """Seconds beyond the limit; all of them where no limit is known."""
        return self.seconds - min(self.seconds, self.limit or 0.0)

    @property
    def gflops(self) -> float | None:
        """1e9 operations per second."""
        return None if self.operations is None else self.operations / self.seconds / 1e9

    @property
    def percent(self) -> float | None:
        """How much of the time the limit would take, in percent: 100 is the roofline."""
        return None if self.limit is None else 100 * self.limit / self.seconds

    def as_dict(self) -> dict[str, Any]:
        """Fields and what follows from them, as plain data."""
        more = {"lost": self.lost, "gflops": self.gflops, "percent": self.percent}
        return {**asdict(self), "nodes": list(self.nodes), **more}


@dataclass(frozen=True)
class Profile(Sequence[StepProfile]):
    """The steps of a run in order; `str` is a table of kernels, most lost time first.

    run: the least seconds of a whole run, which enters native code once. Steps are entered one by
    one from Python, so that they add up to more: about a microsecond each.
    """

    model: str
    threads: int
    run: float
    steps: tuple[StepProfile, ...]
    limits: Limits | None = None

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[StepProfile]:
        return iter(self.steps)

    def __getitem__(self, i: Any) -> Any:
        return self.steps[i]

    @property
    def seconds(self) -> float:
        """Of all steps."""
        return sum(s.seconds for s in self.steps)

    def kernels(self) -> list[StepProfile]:
        """Steps of the same kernel together, most lost time first."""
        groups: dict[str, list[StepProfile]] = {}
        for s in self.steps:
            groups.setdefault(s.what, []).append(s)
        return sorted((_together(g) for g in groups.values()), key=lambda k: -k.lost)

    def table(self, top: int | None = None) -> str:
        """The table of kernels, `top` of them or all."""
        kernels = self.kernels()
        shown = kernels[:top]
        rows = [_HEADER, *(_row(k) for k in shown)]
        widths = [max(len(r[n]) for r in rows) for n in range(len(_HEADER))]
        lines = [self._title()]
        for r in rows:
            cells = [c.rjust(w) if n else c.ljust(w) for n, (c, w) in enumerate(zip(r, widths))]
            cells[-1] = r[-1]
            lines.append("  ".join(cells).rstrip())
        if len(shown) < len(kernels):
            rest = kernels[len(shown) :]
            lines.append(
                f"and {len(rest)} more: {1e3 * sum(k.seconds for k in rest):.3f} ms, "
                f"{1e3 * sum(k.lost for k in rest):.3f} ms of them lost"
            )
        return "\n".join(lines)

    def _title(self) -> str:
        count = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        text = f"{self.model}: a run takes {1e3 * self.run:.3f} ms with {count}; "
        steps = f"its {len(self.steps)} steps" if len(self.steps) != 1 else "its one step"
        text += f"{steps} one by one {1e3 * self.seconds:.3f} ms"
        if self.limits is None:
            return text + "; the machine's limits are not known"
        limit = sum(s.limit or 0.0 for s in self.steps)
        peak = self.limits.peak["f32"]
        rates = ", ".join(f"{rate:.0f} for {_bytes(n)}" for n, rate in self.limits.bandwidth)
        return (
            f"{text}, {1e3 * limit:.3f} ms at the limits\n"
            f"limits of a core: {peak:.0f} GFLOP/s (f32); GB/s of data read again: {rates}"
        )

    def __str__(self) -> str:
        return self.table()

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain data; times in seconds."""
        return {
            "model": self.model,
            "threads": self.threads,
            "run": self.run,
            "seconds": self.seconds,
            "limits": None if self.limits is None else self.limits.as_dict(),
            "kernels": [k.as_dict() for k in self.kernels()],
            "steps": [s.as_dict() for s in self.steps],
        }

    def to_json(self) -> str:
        """`as_dict` as JSON."""
        return json.dumps(self.as_dict(), indent=2, allow_nan=False)

    def to_chrome_trace(self, path: str | os.PathLike[str]) -> None:
        """Writes a trace for Perfetto or chrome://tracing: steps one after another, a slice each on
        the caller's lane, and on those of the other threads where they share the step's loops."""
        events: list[dict[str, Any]] = [_meta("process_name", 0, self.model)]
        for n in range(self.threads):
            events.append(_meta("thread_name", n, f"thread {n}" if n else "caller"))
        begin = 0.0
        for s in self.steps:
            told = {k: v for k, v in s.as_dict().items() if v is not None and k != "what"}
            for n in range(s.cores):
                slot = {"ph": "X", "pid": 1, "tid": n, "ts": 1e6 * begin, "dur": 1e6 * s.seconds}
                events.append({"name": s.what, "cat": s.bound or "step", **slot, "args": told})
            begin += s.seconds
        with open(path, "w", encoding="utf-8") as file:
            json.dump({"traceEvents": events, "displayTimeUnit": "ms"}, file)


def _meta(name: str, lane: int, text: str) -> dict[str, Any]:
    return {"name": name, "ph": "M", "pid": 1, "tid": lane, "args": {"name": text}}


def profile(program: Program, times: Times, threads: int, limits: Limits | None) -> Profile:
    """The profile of a program whose steps took `times`."""
    total = sum(times.steps) or 1.0
    steps = tuple(
        _step(program, s, t, times.sizes, t / total, threads, limits)
        for s, t in zip(program.steps, times.steps, strict=True)
    )
    return Profile(program.name, threads, times.run, steps, limits)


def _step(
    program: Program,
    step: Step,
    seconds: float,
    sizes: Mapping[str, int],
    share: float,
    threads: int,
    limits: Limits | None,
) -> StepProfile:
    def number(size: Size) -> int:
        return evaluate(size, sizes)

    if isinstance(step, Copy):
        n = 2 * number(program.table[step.source].nbytes)
        parts = [(float(n), float(n))]
        work = (0, 0, "f32", n, 1)
        what = "copy"
    elif isinstance(step, Call) and step.work is not None:
        w = step.work
        constants, moved, again = map(number, (w.constants, w.moved, w.again))
        # Constants come from where all of the model's fit: a run reads the others in between.
        parts = [(constants, program.constant_bytes), (moved, moved), (again, constants + moved)]
        operations, instructions = number(w.operations), number(w.instructions)
        cores = threads if w.shared else 1
        work = (operations, instructions, w.dtype, constants + moved + again, cores)
        what = step.kernel
    else:
        name = step.kernel if isinstance(step, Call) else "read a size"
        if isinstance(step, Host):
            name = f"host {step.op}"
        return StepProfile(name, step.nodes, seconds, 1, share)
    operations, instructions, dtype, n, cores = work
    if limits is None:
        limit, bound = None, ""
    else:
        compute, moving = limits.seconds(instructions, dtype, parts, cores)
        limit, bound = max(compute, moving), "compute" if compute >= moving else "memory"
    return StepProfile(what, step.nodes, seconds, 1, share, operations, n, limit, bound, cores)


def _together(steps: Sequence[StepProfile]) -> StepProfile:
    first = steps[0]
    bounds = {s.bound for s in steps}
    return StepProfile(
        first.what,
        tuple(dict.fromkeys(n for s in steps for n in s.nodes)),
        sum(s.seconds for s in steps),
        len(steps),
        sum(s.share for s in steps),
        _sum(s.operations for s in steps),
        _sum(s.bytes for s in steps),
        _sum(s.limit for s in steps),
        bounds.pop() if len(bounds) == 1 else "",
        max(s.cores for s in steps),
    )


def _sum(values: Iterable[Any]) -> Any:
    known = list(values)
    return None if None in known else sum(known)


_HEADER = (
    *("kernel", "calls", "ms", "share", "Mop", "MB", "GFLOP/s", "GB/s"),
    *("of limit", "bound", "lost ms", "nodes"),
)


def _row(k: StepProfile) -> tuple[str, ...]:
    def shown(value: float | None, digits: int) -> str:
        return "-" if value is None else f"{value:.{digits}f}"

    return (
        k.what,
        str(k.calls),
        f"{1e3 * k.seconds:.3f}",
        f"{100 * k.share:.1f}%",
        shown(None if k.operations is None else k.operations / 1e6, 2),
        shown(None if k.bytes is None else k.bytes / 1e6, 2),
        shown(k.gflops, 1),
        shown(None if k.bytes is None else k.bytes / k.seconds / 1e9, 1),
        "-" if k.percent is None else f"{k.percent:.0f}%",
        k.bound,
        f"{1e3 * k.lost:.3f}",
        _named(k.nodes),
    )


def _named(nodes: Sequence[str]) -> str:
    """As many names as fit a line, and how many more there are."""
    text = ""
    for n, name in enumerate(nodes):
        longer = f"{text}, {name}" if text else name
        if len(longer) > NODES_SHOWN and text:
            return f"{text} and {len(nodes) - n} more"
        text = longer
    return text


def _bytes(n: int) -> str:
    return f"{n / (1 << 20):.0f} MiB" if n >= 1 << 20 else f"{n / 1024:.0f} KiB"
