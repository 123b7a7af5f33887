"""The process of one engine: requests on stdin, answers on stdout, one JSON object a line.

    {"op": "load", "engine": "aicc", "model": "m.onnx", "inputs": "in.npz", "threads": 2}
                                            -> {"version": "aicc 0.1.0", "seconds": 1.9}
    {"op": "time", "seconds": 0.5}          -> {"seconds": [0.0121, 0.0119, ...]}    one per call
    {"op": "outputs", "path": "out.npz"}    -> {}         arr_0, arr_1, ... in the model's order
    {"op": "idle", "seconds": 1}            -> {"cpu_seconds": 0.001}    of all threads, after a run
    {"op": "memory"}                        -> {"peak_bytes": 123456789}
    {"op": "report"}                        -> {"text": "..."}           "" if the engine has none
    {"op": "limit"}                         -> {"flops": 1.2e11}         of one core, per second
    end of input                            -> the process ends

A request that fails is answered by {"error": "...", "kind": "ValueError"}; the process lives on.
Arrays travel as .npz files. Whatever an engine prints goes to stderr, so that it cannot disturb the
answers.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import numpy as np

from harness.engines import ENGINES, Engine, Feed


class Worker:
    """Holds the engine, its model and its inputs between requests."""

    def __init__(self) -> None:
        self._engine: Engine | None = None
        self._feed: Feed = {}

    @property
    def engine(self) -> Engine:
        if self._engine is None:
            raise RuntimeError("no model is loaded")
        return self._engine

    def load(self, engine: str, model: str, inputs: str, threads: int) -> dict[str, Any]:
        with np.load(inputs) as arrays:
            self._feed = {name: arrays[name] for name in arrays.files}
        self._engine = None  # a model loaded before is freed first
        new = ENGINES[engine]()
        start = time.perf_counter()
        version = new.load(model, threads)
        seconds = time.perf_counter() - start
        self._engine = new
        return {"version": version, "seconds": seconds}

    def time(self, seconds: float) -> dict[str, Any]:
        """Calls for about `seconds`, at least once, after one call that is not counted."""
        run, feed = self.engine.run, self._feed
        run(feed)
        times: list[float] = []
        end = time.perf_counter() + seconds
        while True:
            start = time.perf_counter()
            run(feed)
            stop = time.perf_counter()
            times.append(stop - start)
            if stop >= end:
                return {"seconds": times}

    def outputs(self, path: str) -> dict[str, Any]:
        np.savez(path, *self.engine.run(self._feed))
        return {}

    def idle(self, seconds: float) -> dict[str, Any]:
        """What the process burns while it has nothing to do, from the end of a run on."""
        self.engine.run(self._feed)
        start = time.process_time()
        time.sleep(seconds)
        return {"cpu_seconds": time.process_time() - start}

    def memory(self) -> dict[str, Any]:
        return {"peak_bytes": peak_bytes()}

    def report(self) -> dict[str, Any]:
        report = getattr(self.engine, "report", None)
        return {"text": report() if report else ""}

    def limit(self) -> dict[str, Any]:
        from aicc.codegen.limits import fma_limit
        from aicc.target import Target

        return {"flops": fma_limit(Target.host()) * 1e9}


def peak_bytes() -> int:
    """The most memory that this process has held at once (peak resident set)."""
    try:
        with open("/proc/self/status") as status:  # not getrusage: that one counts the parent too
            for line in status:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def main() -> None:
    """Serves requests until the input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    worker = Worker()
    for line in sys.stdin:
        request = json.loads(line)
        operation = request.pop("op")
        try:
            answer = getattr(worker, operation)(**request)
        except Exception as error:
            answer = {"error": str(error) or repr(error), "kind": type(error).__name__}
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
