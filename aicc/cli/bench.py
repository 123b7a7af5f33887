"""Times of a model, each engine in a process of its own, in rounds that take turns."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from aicc.errors import AiccError, ExecutionError
from aicc.graph_ir.data import read_arrays, write_arrays
from aicc.passes import disagreement

Array = np.ndarray[Any, Any]


@dataclass
class Timing:
    """load: seconds until the model could run. peak: bytes of the process. times: seconds of each
    run. agrees: whether the results are those of the first engine; else `difference` tells."""

    engine: str
    load: float
    peak: int
    times: list[float] = field(default_factory=list)
    difference: str = ""

    @property
    def best(self) -> float:
        return min(self.times)

    @property
    def median(self) -> float:
        return statistics.median(self.times)

    def as_dict(self) -> dict[str, Any]:
        """The result as plain data; seconds and bytes."""
        return {
            "engine": self.engine,
            "best": self.best,
            "median": self.median,
            "runs": len(self.times),
            "load": self.load,
            "peak": self.peak,
            "difference": self.difference,
        }


def measure(
    model: str,
    feed: Mapping[str, Array],
    engines: Sequence[str],
    threads: int,
    options: Mapping[str, Any],
    rounds: int,
    seconds: float,
    progress: Callable[[str], None],
) -> list[Timing]:
    """Times for each engine. Raises AiccError where one cannot load the model, and
    ExecutionError where it cannot run it."""
    with tempfile.TemporaryDirectory(prefix="aicc-bench-") as folder:
        write_arrays(Path(folder) / "feed.npz", feed)
        workers: list[_Worker] = []
        try:
            for engine in engines:
                progress(f"{engine}: loading")
                workers.append(_Worker(engine, model, Path(folder), threads, options))
            for number in range(rounds):
                progress(f"round {number + 1} of {rounds}")
                # Turn by turn: what slows the machine for a while slows all of them.
                for worker in workers:
                    worker.round(seconds)
        finally:
            for worker in workers:
                worker.close()
        for worker in workers[1:]:
            worker.timing.difference = _difference(workers[0].outputs(), worker.outputs())
        return [w.timing for w in workers]


def _difference(expected: Mapping[str, Array], got: Mapping[str, Array]) -> str:
    if len(expected) != len(got):
        return f"{len(expected)} outputs and {len(got)}"
    faults = {n: disagreement(e, got[n]) for n, e in expected.items()}
    return "; ".join(f"output {n}: {fault}" for n, fault in faults.items() if fault)


class _Worker:
    def __init__(
        self, engine: str, model: str, folder: Path, threads: int, options: Mapping[str, Any]
    ) -> None:
        self._results = folder / f"{engine}.npz"
        files = [str(folder / "feed.npz"), str(self._results)]
        arguments = [engine, model, *files, str(threads), json.dumps(dict(options))]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "aicc.cli.engine", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        )
        try:
            answer = self._answer(engine)
        except AiccError:
            self.close()
            raise
        self.timing = Timing(engine, answer["load"], answer["peak"])

    def _answer(self, engine: str) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise ExecutionError(f"{engine} ended with exit code {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            kind = ExecutionError if answer["loaded"] else AiccError
            raise kind(f"{engine}: {answer['error']}")
        return answer

    def round(self, seconds: float) -> None:
        """Adds the times of one round."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()
        answer = self._answer(self.timing.engine)
        self.timing.times += answer["times"]
        self.timing.peak = answer["peak"]

    def outputs(self) -> dict[str, Array]:
        return read_arrays(self._results)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
