"""What `make demo` shows: a published model compiled, its answers, and what they cost.

Each engine is measured in processes of its own, three times in turn, on all cores at hand.
How to use the model by itself is in file_types.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ENGINES = ("aicc", "onnxruntime")
PROCESSES = 3  # of each engine
SECONDS = 0.5  # of repeated calls per process and size of batch


def main() -> int:
    """Asks both engines about the sample files and prints answers and costs."""
    from file_types import LABELS, MODEL, answers, features
    from sample_files import write_samples

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        truth = write_samples(folder)
        x = np.stack([features(path.read_bytes()) for path in truth])
        np.save(folder / "x.npy", x)
        print(f"Compiling {MODEL.parent.name}/{MODEL.name}, magika's model of {len(LABELS)} types")
        runs: dict[str, list[dict[str, Any]]] = {engine: [] for engine in ENGINES}
        for _ in range(PROCESSES):
            for engine in ENGINES:
                command = [sys.executable, __file__, engine, str(MODEL), str(folder)]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                runs[engine].append(json.loads(done.stdout))
        ours, theirs = (np.load(folder / f"{engine}.npy") for engine in ENGINES)

    print(f"\n  {'file':12} {'answer':8} {'probability':>11}")
    right = 0
    for (path, label), (answer, probability) in zip(truth.items(), answers(ours)):
        right += answer == label
        note = "" if answer == label else f"  wrong: it is {label}"
        print(f"  {path.name:12} {answer:8} {probability:11.1%}{note}")
    difference = float(np.abs(ours - theirs).max())
    equal = [a for a, _ in answers(ours)] == [a for a, _ in answers(theirs)] and difference < 1e-4
    print(f"\n  {right} of {len(truth)} right.", end=" ")
    if equal:
        print(f"onnxruntime gives the same; probabilities differ by at most {difference:.0e}.")
    else:
        print(f"onnxruntime answers differently! Probabilities differ by up to {difference:.0e}.")

    print(f"\n  {'':36}" + "".join(f"{runs[e][0]['version']:>20}" for e in ENGINES))
    for title, key, scale in (
        ("one file, ms", "one", 1e3),
        (f"{len(truth)} files at once, ms", "all", 1e3),
        ("from the file to the first answer, s", "ready", 1),
        ("peak memory of the process, MB", "peak", 1e-6),
    ):
        best = [min(run[key] for run in runs[engine]) * scale for engine in ENGINES]
        print(f"  {title:36}" + "".join(f"{value:20.2f}" for value in best))
    print(f"\n  Best of {PROCESSES} processes each, taken in turn, on {cores()} cores.")
    return 0 if equal else 1


def measure(engine: str, model: str, folder: Path) -> None:
    """The measured process: runs the model in one engine, saves its answers, prints its costs."""
    x = np.load(folder / "x.npy")
    start = time.perf_counter()
    version, run = LOADERS[engine](model)
    probabilities = run(x)
    ready = time.perf_counter() - start
    np.save(folder / f"{engine}.npy", probabilities)
    costs = {"version": version, "ready": ready, "one": best(run, x[:1]), "all": best(run, x)}
    print(json.dumps(costs | {"peak": peak_memory()}))


def load_aicc(path: str) -> tuple[str, Callable[[Any], Any]]:
    """Compiles the model; one compiled model serves every size of batch."""
    import aicc

    model = aicc.compile(path, threads=cores())
    return f"aicc {aicc.__version__}", lambda x: model.run(None, {"bytes": x})[0]


def load_onnxruntime(path: str) -> tuple[str, Callable[[Any], Any]]:
    """Opens a session with the same number of threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    version = f"onnxruntime {onnxruntime.__version__}"
    return version, lambda x: session.run(None, {"bytes": x})[0]


LOADERS = {"aicc": load_aicc, "onnxruntime": load_onnxruntime}


def best(run: Callable[[Any], Any], x: Any) -> float:
    """Seconds of the fastest call within SECONDS."""
    fastest, end = float("inf"), time.perf_counter() + SECONDS
    while (start := time.perf_counter()) < end:
        run(x)
        fastest = min(fastest, time.perf_counter() - start)
    return fastest


def peak_memory() -> int:
    """The most memory this process has held at once, in bytes: Python, libraries and all."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux; getrusage there counts the parent process too
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


if __name__ == "__main__":
    if len(sys.argv) == 1:
        sys.exit(main())
    measure(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
