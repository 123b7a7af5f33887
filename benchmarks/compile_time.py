"""How long a model takes until it can run, beside the loading of other engines.

    python benchmarks/compile_time.py
    python benchmarks/compile_time.py --models resnet50,bert_base --rounds 3
    python benchmarks/compile_time.py --onnx my.onnx --dims batch=1

Every figure is of a fresh process, the best of the rounds, in seconds, without the import of the
engine, which the summary has. `cold`: compiled with nothing kept from before (AICC_CACHE=0), with
as many helping processes as there are cores. `again`: compiled in a new process after another has
done so. `loaded`: `aicc.load` of a saved model. The others open the ONNX file. `first` is the
first run.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from statistics import geometric_mean
from typing import Any

import numpy as np

from harness import fresh
from harness.options import SUBJECT, Case, add_engines, add_models, available, cases, parser
from harness.record import Record

OWN = ("cold", "again", "loaded")


def main(argv: list[str] | None = None) -> int:
    """Measures and prints; the exit code is 1 if a process failed."""
    p = parser(__doc__)
    add_models(p)
    add_engines(p, ["onnxruntime", "openvino"])
    p.add_argument("--threads", type=int, default=1, help="of runs; default: 1")
    p.add_argument("--rounds", type=int, default=3, help="of which the best counts; default: 3")
    options = p.parse_args(argv)
    record = Record("Compiling and loading", __doc__, argv)
    others = [name for name in available(options.engines) if name != SUBJECT]
    kinds = [*OWN, *others]
    table = record.table(
        [
            ("model", -18),
            ("file MB", 7),
            *((f"{kind} s", max(8, len(kind) + 2)) for kind in kinds),
            ("first ms", 8),
            *((f"{name} first ms", len(name) + 9) for name in others),
        ]
    )
    failed = False
    best: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        for case in cases(options, Path(temporary)):
            figures = measure(case, others, options.threads, options.rounds, Path(temporary))
            size = case.path.stat().st_size
            record.results.append({"model": case.name, "file_bytes": size, "figures": figures})
            best.append(figures)

            def cell(kind: str, field: str, unit: float, told: dict[str, Any] = figures) -> str:
                return f"{unit * told[kind][field]:.3f}" if field in told[kind] else "failed"

            table.row(
                case.name,
                f"{size / 2**20:.1f}",
                *(cell(kind, "load_seconds", 1) for kind in kinds),
                cell("loaded", "first_seconds", 1e3),
                *(cell(name, "first_seconds", 1e3) for name in others),
            )
            for kind in kinds:
                if "error" in figures[kind]:
                    failed = True
                    print(f"    {kind}: {figures[kind]['error']}")
    for kind in kinds:
        seconds = [f[kind]["load_seconds"] for f in best if "load_seconds" in f[kind]]
        if seconds:
            imports = min(f[kind]["import_seconds"] for f in best if "load_seconds" in f[kind])
            mean = geometric_mean(seconds)
            told = {"geometric_mean": mean, "longest": max(seconds), "import_seconds": imports}
            record.summary.append({"kind": kind, "models": len(seconds), **told})
            record.line(
                f"{kind}: {mean:.3f} s in the geometric mean of {len(seconds)} models, at most "
                f"{max(seconds):.3f} s; the import before takes {imports:.3f} s"
            )
    record.write(options.markdown, options.json)
    return 1 if failed else 0


def measure(
    case: Case, others: list[str], threads: int, rounds: int, folder: Path
) -> dict[str, dict[str, Any]]:
    """The best figures of each kind; {"error": message} where a process failed."""
    inputs, saved = folder / "inputs.npz", folder / "saved.aicc"
    np.savez(inputs, **case.feed)  # type: ignore[arg-type]
    found: dict[str, dict[str, Any]] = {}

    def note(kind: str, told: dict[str, Any]) -> None:
        known = found.get(kind)
        if known is None or "error" in told:
            found[kind] = told
        elif "error" not in known:
            found[kind] = {name: min(value, told[name]) for name, value in known.items()}

    with tempfile.TemporaryDirectory() as cache:
        kept = {"AICC_CACHE": "4096", "AICC_CACHE_DIR": cache}
        fresh.ask(SUBJECT, case.path, inputs, threads, environment=kept)
        for _ in range(rounds):
            none = {"AICC_CACHE": "0"}
            note("cold", fresh.ask(SUBJECT, case.path, inputs, threads, saved, none))
            note("again", fresh.ask(SUBJECT, case.path, inputs, threads, environment=kept))
            note("loaded", fresh.ask("loaded", case.path, inputs, threads, saved))
            for name in others:
                note(name, fresh.ask(name, case.path, inputs, threads))
    saved.unlink(missing_ok=True)
    return found


if __name__ == "__main__":
    sys.exit(main())
