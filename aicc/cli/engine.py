"""A process that holds one engine with one model, and times runs when it is told to.

    python -m aicc.cli.engine ENGINE MODEL FEED RESULTS THREADS OPTIONS

FEED: the inputs (`graph_ir.data`); RESULTS: where the outputs go. It answers with lines of JSON on
standard output: first how loading went, then the times of a round for each line on standard input,
which is the seconds that the round may take.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from aicc.graph_ir.data import read_arrays, write_arrays

Array = np.ndarray[Any, Any]
Run = Callable[[], list[Array]]


def aicc_engine(model: str, feed: dict[str, Array], threads: int, options: dict[str, Any]) -> Run:
    """A run of the model as aicc compiles it."""
    import aicc

    compiled = aicc.compile(model, threads=threads, **options)
    return lambda: compiled.run(None, feed)


def onnxruntime_engine(
    model: str, feed: dict[str, Array], threads: int, options: dict[str, Any]
) -> Run:
    """A run of the model in onnxruntime."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])
    return lambda: list(session.run(None, feed))


ENGINES = {"aicc": aicc_engine, "onnxruntime": onnxruntime_engine}


def main(arguments: list[str]) -> None:
    """Serves standard input and output."""
    engine, model, feed, results, threads, options = arguments
    sink = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what an engine prints is no answer

    def answer(message: dict[str, Any]) -> None:
        sink.write(json.dumps(message) + "\n")
        sink.flush()

    loaded = None
    try:
        arrays = read_arrays(Path(feed))
        began = time.perf_counter()
        run = ENGINES[engine](model, arrays, int(threads), json.loads(options))
        loaded = time.perf_counter() - began
        outputs = {str(n): np.asarray(a) for n, a in enumerate(run())}
        write_arrays(Path(results), outputs)
    except Exception as error:
        answer({"error": f"{type(error).__name__}: {error}", "loaded": loaded is not None})
        return
    answer({"load": loaded, "peak": _peak()})
    for line in sys.stdin:
        end = time.perf_counter() + float(line)
        times: list[float] = []
        while not times or time.perf_counter() < end:
            began = time.perf_counter()
            run()
            times.append(time.perf_counter() - began)
        answer({"times": times, "peak": _peak()})


def _peak() -> int:
    """The most memory that the process has held, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
    main(sys.argv[1:])
