"""A process of its own that opens one model in one engine, runs it, and says what that took.

    python -m harness.fresh ENGINE MODEL INPUTS.npz THREADS [SAVED]     one JSON object on stdout

ENGINE: `aicc` compiles MODEL, and saves it to SAVED where that is given; `loaded` loads SAVED;
`onnxruntime` and `openvino` open MODEL. It imports nothing but the engine and numpy.

    import_seconds    to import the engine, numpy being there
    load_seconds      until the model can run
    first_seconds     of the first run
    ready_peak        bytes that the process held at most until the model could run
    running, peak     bytes held after three runs, and at most
    compilers         bytes that the largest process held that compiled kernels for it
    weights, arena    bytes of aicc's block of constants and arena
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

KB = 1024
BENCHMARKS = Path(__file__).resolve().parent.parent


def ask(
    engine: str,
    model: Path,
    inputs: Path,
    threads: int,
    saved: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """What a fresh process tells; {"error": message} where it fails."""
    paths = [str(BENCHMARKS), str(BENCHMARKS.parent), os.environ.get("PYTHONPATH", "")]
    settings = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in paths if p)}
    arguments = [engine, str(model), str(inputs), str(threads)]
    made = subprocess.run(
        [sys.executable, "-m", "harness.fresh", *arguments, *([str(saved)] if saved else [])],
        env={**settings, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        last = made.stderr.strip().splitlines()[-1:]
        return {"error": f"{engine}: {last[0] if last else f'exit code {made.returncode}'}"}
    told: dict[str, Any] = json.loads(made.stdout.splitlines()[-1])
    return told


def main(engine: str, model: str, inputs: str, threads: int, saved: str = "") -> dict[str, Any]:
    """The figures, in bytes and seconds."""
    told: dict[str, Any] = {}
    began = time.perf_counter()
    opener = OPENERS[engine]()
    told["import_seconds"] = time.perf_counter() - began
    began = time.perf_counter()
    run, own = opener(saved if engine == "loaded" else model, threads)
    told["load_seconds"] = time.perf_counter() - began
    (told["ready_peak"],) = status("VmHWM")
    told["compilers"] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * KB
    with np.load(inputs) as arrays:
        feed = {name: arrays[name] for name in arrays.files}
    began = time.perf_counter()
    run(feed)
    told["first_seconds"] = time.perf_counter() - began
    for _ in range(2):
        run(feed)
    told["running"], told["peak"] = status("VmRSS", "VmHWM")
    if own is not None:
        told["weights"] = own.program.constant_bytes
        told["arena"] = own.report({n: a.shape for n, a in feed.items()}).arena
        if saved and engine == "aicc":
            own.save(saved)
    return told


Opener = Callable[[str, int], tuple[Callable[[dict[str, Any]], object], Any]]


def open_aicc() -> Opener:
    """Compiles an ONNX file."""
    import aicc

    def opened(path: str, threads: int) -> Any:
        made = aicc.compile(path, threads=threads)
        return (lambda feed: made.run(None, feed)), made

    return opened


def open_loaded() -> Opener:
    """Loads a saved model."""
    import aicc

    def opened(path: str, threads: int) -> Any:
        made = aicc.load(path, threads=threads)
        return (lambda feed: made.run(None, feed)), made

    return opened


def open_onnxruntime() -> Opener:
    """onnxruntime's CPU provider with all graph optimisations."""
    import onnxruntime

    def opened(path: str, threads: int) -> Any:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return (lambda feed: session.run(None, feed)), None

    return opened


def open_openvino() -> Opener:
    """OpenVINO's CPU plugin in fp32."""
    import openvino

    def opened(path: str, threads: int) -> Any:
        options = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
        }
        request = openvino.Core().compile_model(path, "CPU", options).create_infer_request()
        return (lambda feed: request.infer(feed, share_inputs=True)), None

    return opened


OPENERS: dict[str, Callable[[], Opener]] = {
    "aicc": open_aicc,
    "loaded": open_loaded,
    "onnxruntime": open_onnxruntime,
    "openvino": open_openvino,
}


def status(*names: str) -> list[int]:
    """Bytes of lines of /proc/self/status: VmRSS is what the process holds, VmHWM the most that it
    has held (getrusage would count the parent's too)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    table = dict(line.split(":", 1) for line in lines)
    return [int(table[name].split()[0]) * KB for name in names]


if __name__ == "__main__":
    words = sys.argv[1:]
    print(json.dumps(main(words[0], words[1], words[2], int(words[3]), *words[4:])))
