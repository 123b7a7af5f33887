"""How much memory models take: compiling, loading and running them, beside onnxruntime.

    python benchmarks/resident.py                              the published architectures of zoo/
    python benchmarks/resident.py --models resnet50,bert_base
    python benchmarks/resident.py --onnx my.onnx --dims batch=1

Each figure is of a fresh process with one thread, in MB (2^20 bytes), Python and numpy included.
`compile`: the most that a process has held when its model can run; `onnxruntime`: the same there.
`beside`: the most of one of the processes that compile kernels for it. `run`: what a process holds
after three runs; for aicc that of a loaded model. `load s`: to load it, aicc's own import included.
`!` marks where aicc takes more than onnxruntime.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from harness.table import Table
from models import Case, cases, parser

HERE = Path(__file__).parent
COLUMNS = [
    ("model", -18),
    ("file", 6),
    ("weights", 7),
    ("arena", 7),
    ("compile", 9),
    ("onnxruntime", 11),
    ("beside", 6),
    ("run", 9),
    ("onnxruntime", 11),
    ("load s", 7),
]


def main(argv: list[str] | None = None) -> int:
    """Measures and prints; the exit code is 1 if a process failed."""
    options = parser(__doc__).parse_args(argv)
    table = Table(COLUMNS)
    results = []
    with tempfile.TemporaryDirectory() as temporary:
        for case in cases(options, Path(temporary)):
            figures = measure(case, Path(temporary))
            show(table, case, figures)
            results.append({"model": case.name, **figures})
    if options.json:
        options.json.write_text(json.dumps({"results": results}, indent=2) + "\n")
    return 1 if any("error" in f for r in results for f in r.values() if isinstance(f, dict)) else 0


def measure(case: Case, folder: Path) -> dict[str, Any]:
    """The figures of each engine; {"error": message} where its process failed."""
    inputs, saved = folder / "inputs.npz", folder / "saved.aicc"
    np.savez(inputs, **case.feed)
    found: dict[str, Any] = {}
    for engine in ("aicc", "loaded", "onnxruntime"):
        made = subprocess.run(
            [sys.executable, "-m", "harness.resident", engine, case.path, inputs, saved],
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)]),
                "AICC_CACHE": "0",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        found[engine] = (
            json.loads(made.stdout.splitlines()[-1])
            if made.returncode == 0
            else {"error": made.stderr.strip().splitlines()[-1:]}
        )
    saved.unlink(missing_ok=True)
    return found


def show(table: Table, case: Case, figures: dict[str, Any]) -> None:
    """Prints one row, and the errors under it."""
    own, loaded, other = figures["aicc"], figures["loaded"], figures["onnxruntime"]

    def compared(ours: Any, theirs: Any) -> str | None:
        more = ours is not None and theirs is not None and ours > theirs
        return None if ours is None else f"{ours / 2**20:.0f}{'!' if more else ' '}"

    def megabytes(n: Any) -> str | None:
        return None if n is None else f"{n / 2**20:.0f}"

    table.row(
        case.name,
        megabytes(case.path.stat().st_size),
        megabytes(own.get("weights")),
        megabytes(own.get("arena")),
        compared(own.get("ready_peak"), other.get("ready_peak")),
        megabytes(other.get("ready_peak")),
        megabytes(own.get("compilers")),
        compared(loaded.get("running"), other.get("running")),
        megabytes(other.get("running")),
        f"{loaded['seconds']:.3f}" if "seconds" in loaded else None,
    )
    for engine, told in figures.items():
        if "error" in told:
            print(f"    {engine}: {told['error']}")


if __name__ == "__main__":
    sys.exit(main())
