"""A process of its own that says how much memory one engine holds for one model.

    python -m harness.resident ENGINE MODEL INPUTS.npz SAVED      one JSON object on stdout

ENGINE: `aicc` compiles MODEL and saves it to SAVED, `loaded` loads SAVED, `onnxruntime` opens
MODEL. Then the model runs three times. It imports nothing but the engine and numpy.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

KB = 1024


def status(*names: str) -> list[int]:
    """Bytes of lines of /proc/self/status: VmRSS is what the process holds, VmHWM the most that it
    has held (getrusage would count the parent's too)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    table = dict(line.split(":", 1) for line in lines)
    return [int(table[name].split()[0]) * KB for name in names]


def main(engine: str, model: str, inputs: str, saved: str) -> dict[str, Any]:
    """The figures, in bytes and seconds."""
    told: dict[str, Any] = {}
    began = time.perf_counter()
    if engine == "onnxruntime":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        run = session.run
    else:
        import aicc

        loaded = engine == "loaded"
        compiled = aicc.load(saved, threads=1) if loaded else aicc.compile(model, threads=1)
        run = compiled.run
    told["seconds"] = time.perf_counter() - began
    (told["ready_peak"],) = status("VmHWM")
    told["compilers"] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * KB
    with np.load(inputs) as arrays:
        feed = {name: arrays[name] for name in arrays.files}
    for _ in range(3):
        run(None, feed)
    told["running"], told["peak"] = status("VmRSS", "VmHWM")
    if engine != "onnxruntime":
        told["weights"] = compiled.program.constant_bytes
        told["arena"] = compiled.report({n: a.shape for n, a in feed.items()}).arena
        if not loaded:
            compiled.save(saved)
    return told


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
