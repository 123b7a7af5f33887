"""The parent's side: starts workers, alternates rounds between them, compares their outputs."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from harness.engines import Feed, Outputs

BENCHMARKS = Path(__file__).resolve().parent.parent
SETTLE = 0.05  # seconds between rounds: threads that spin after their last call go to sleep


class EngineError(RuntimeError):
    """The engine refused the model or died; the message says which engine and why."""


class Worker:
    """A process with one engine in it, pinned to `threads` cores. Use it in a `with` statement."""

    def __init__(self, engine: str, threads: int) -> None:
        self.engine, self.threads = engine, threads
        paths = [str(BENCHMARKS), str(BENCHMARKS.parent), os.environ.get("PYTHONPATH", "")]
        environment = dict(os.environ, PYTHONPATH=os.pathsep.join(p for p in paths if p))
        for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            environment[variable] = str(threads)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "harness.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            env=environment,
        )
        if hasattr(os, "sched_setaffinity"):
            cores = sorted(os.sched_getaffinity(0))[:threads]
            os.sched_setaffinity(self._process.pid, cores)

    def ask(self, op: str, **arguments: Any) -> dict[str, Any]:
        """Sends one request and waits for its answer; an error there raises EngineError here."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"op": op, **arguments}) + "\n")
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise EngineError(f"{self.engine} died (exit status {self._process.wait()})")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise EngineError(f"{self.engine}: {answer['kind']}: {answer['error']}")
        return answer

    def load(self, model: Path, inputs: Path) -> dict[str, Any]:
        """Loads a model and its inputs (an .npz file); answers version and seconds taken."""
        return self.ask(
            "load",
            engine=self.engine,
            model=str(model),
            inputs=str(inputs),
            threads=self.threads,
        )

    def outputs(self, directory: Path) -> Outputs:
        """Runs once and fetches the outputs."""
        path = directory / f"outputs_{self.engine}.npz"
        self.ask("outputs", path=str(path))
        with np.load(path) as arrays:
            return [arrays[f"arr_{i}"] for i in range(len(arrays.files))]

    def close(self) -> None:
        """Ends the process."""
        if self._process.poll() is None:
            self._process.communicate()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is not None:
            self._process.kill()
        self.close()


@dataclass
class Measurement:
    """One engine on one model with one number of threads. Times in seconds, sizes in bytes."""

    engine: str
    threads: int
    version: str = ""
    load: float = 0.0
    times: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    report: str = ""
    error: str = ""
    idle_cpu_seconds: float | None = None  # burned after a run by a process that has nothing to do
    agrees: float | None = None  # worst error against the first engine, in units of the tolerance

    @property
    def best(self) -> float:
        return min(self.times)

    @property
    def median(self) -> float:
        return statistics.median(self.times)

    def as_dict(self) -> dict[str, Any]:
        """For a JSON file."""
        result: dict[str, Any] = {"engine": self.engine, "threads": self.threads}
        if self.error:
            return result | {"error": self.error}
        return result | {
            "version": self.version,
            "load_seconds": self.load,
            "best_seconds": self.best,
            "median_seconds": self.median,
            "calls": len(self.times),
            "peak_bytes": self.peak_bytes,
            "idle_cpu_seconds": self.idle_cpu_seconds,
            "error_in_tolerances": self.agrees,
        }


def measure(
    model: Path,
    feed: Feed,
    engines: Sequence[str],
    threads: int,
    directory: Path,
    rounds: int = 5,
    seconds: float = 0.4,
) -> dict[str, Measurement]:
    """Times `engines` on `model` in turn: A B A B ..., `rounds` times `seconds` each.

    The engine named first is the one that the others' outputs are compared with. An engine that
    fails has `error` set and takes no further part. `directory` holds the inputs and outputs.
    """
    pairs = [(name, threads) for name in engines]
    measured = measure_pairs(model, feed, pairs, directory, rounds, seconds)
    return {name: m for (name, _), m in measured.items()}


def measure_pairs(
    model: Path,
    feed: Feed,
    pairs: Sequence[tuple[str, int]],
    directory: Path,
    rounds: int = 5,
    seconds: float = 0.4,
    idle: float = 0.0,
) -> dict[tuple[str, int], Measurement]:
    """As `measure`, for pairs of an engine and a number of threads, all in turn. idle: for how many
    seconds after a run each is watched for what it burns."""
    inputs = directory / "inputs.npz"
    np.savez(inputs, **feed)  # type: ignore[arg-type]
    results = {pair: Measurement(*pair) for pair in pairs}
    workers: dict[tuple[str, int], Worker] = {}
    outputs: dict[tuple[str, int], Outputs] = {}
    try:
        for pair, result in results.items():
            workers[pair] = worker = Worker(*pair)
            try:
                answer = worker.load(model, inputs)
                result.version, result.load = answer["version"], answer["seconds"]
                outputs[pair] = worker.outputs(directory)
                result.report = worker.ask("report")["text"]
            except EngineError as error:
                result.error = str(error)
        for _ in range(rounds):
            for pair, result in results.items():
                if not result.error:
                    time.sleep(SETTLE)
                    try:
                        result.times += workers[pair].ask("time", seconds=seconds)["seconds"]
                    except EngineError as error:
                        result.error = str(error)
        for pair, result in results.items():
            if not result.error:
                result.peak_bytes = workers[pair].ask("memory")["peak_bytes"]
                if idle:
                    burned = workers[pair].ask("idle", seconds=idle)["cpu_seconds"]
                    result.idle_cpu_seconds = burned
    finally:
        for worker in workers.values():
            worker.close()
    compare(results, outputs)
    return results


def limit(threads: int) -> float | None:
    """Operations per second that `threads` cores reach at most: multiply-adds of float32, as two.

    Measured on one core; None if this machine has no such limit to measure.
    """
    with Worker("aicc", 1) as worker:
        try:
            return threads * float(worker.ask("limit")["flops"])
        except EngineError as error:
            print(f"the limit is not known: {error}", file=sys.stderr)
            return None


def compare(results: Mapping[Any, Measurement], outputs: Mapping[Any, Outputs]) -> None:
    """Fills in `agrees`: the outputs of each engine against those of the first that has any."""
    if not outputs:
        return
    reference = next(iter(outputs.values()))
    for name, own in outputs.items():
        if len(own) != len(reference):
            results[name].agrees = float("inf")
        else:
            results[name].agrees = max(
                (error_in_tolerances(a, b) for a, b in zip(own, reference)), default=0.0
            )


def same(measured: Iterable[Measurement]) -> str:
    """Says "yes" where the outputs of all engines agree, else who has others, or none."""
    apart = dict.fromkeys(m.engine for m in measured if m.agrees is None or m.agrees > 1)
    return f"not {', '.join(apart)}" if apart else "yes"


def error_in_tolerances(
    actual: np.ndarray[Any, Any],
    expected: np.ndarray[Any, Any],
    rtol: float = 1e-3,
    atol: float = 1e-4,
) -> float:
    """The worst |actual - expected| / (atol * scale + rtol * |expected|): at most 1 is good.

    `scale` is the largest finite magnitude in `expected`. Integers and booleans must be equal; NaN
    and infinities must stand in the same places; otherwise the answer is infinite.
    """
    if actual.shape != expected.shape or actual.dtype != expected.dtype:
        return float("inf")
    if expected.dtype.kind not in "fc":
        return 0.0 if np.array_equal(actual, expected) else float("inf")
    a, e = actual.astype(np.float64), expected.astype(np.float64)
    finite = np.isfinite(e)
    if (
        not np.array_equal(a[~finite], e[~finite], equal_nan=True)
        or not np.isfinite(a[finite]).all()
    ):
        return float("inf")
    a, e = a[finite], e[finite]
    if e.size == 0:
        return 0.0
    scale = np.abs(e).max()
    tolerance = atol * scale + rtol * np.abs(e)
    difference = np.abs(a - e)
    if scale == 0:
        return 0.0 if not difference.any() else float("inf")
    return float((difference / tolerance).max())
