"""Compares aicc with other engines on whole models.

    python benchmarks/models.py                               the published architectures of zoo/
    python benchmarks/models.py --threads 1,2 --models resnet50,bert_base
    python benchmarks/models.py --onnx my.onnx --dims batch=4,seq=128 --ints input_ids=0:30000
    python benchmarks/models.py --onnx my.onnx --inputs mine:make

`make(name, model)` of mine.py returns the inputs: {name: array}.

Every engine runs in its own process, pinned to as many cores as it has threads, and rounds of the
engines alternate. Times are medians of all calls, `best` the least of aicc's. `over ENGINE` tells
how many times as fast as that one aicc is, by the medians. `% of limit` compares with multiply-adds
on registers alone; operations are those of direct convolution, so that Winograd's method can exceed
it. `compile s` is cold. MB is the most memory that an engine's process held, loading included.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import geometric_mean
from typing import Any

from harness.client import Measurement, limit, measure, same
from harness.options import (
    SUBJECT,
    Case,
    add_engines,
    add_models,
    add_rounds,
    available,
    cases,
    parser,
)
from harness.record import Record
from harness.table import Table, megabytes, milliseconds, times


def main(argv: list[str] | None = None) -> int:
    """Measures and prints; the exit code is 1 if an engine failed or the outputs differ."""
    p = parser(__doc__)
    add_models(p)
    add_engines(p, ["onnxruntime", "openvino"])
    add_rounds(p, 0.5)
    options = p.parse_args(argv)
    record = Record("Whole models", __doc__, argv)
    engines = available(options.engines)
    others = engines[:-1]
    table = record.table(
        [
            ("model", -18),
            ("threads", 7),
            ("GFLOP", 7),
            *((f"{name} ms", max(len(name) + 3, 9)) for name in engines),
            ("best", 7),
            *((f"over {name}", len(name) + 5) for name in others),
            ("GFLOP/s", 7),
            ("% of limit", 10),
            ("compile s", 9),
            *((f"{name} MB", len(name) + 3) for name in engines),
            ("same", -4),
        ]
    )
    healthy = True
    speedups: dict[int, list[dict[str, float]]] = {threads: [] for threads in options.threads}
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        limits = {threads: limit(threads) for threads in options.threads}
        for case in cases(options, directory):
            for threads in options.threads:
                measured = measure(
                    case.path,
                    case.feed,
                    engines,
                    threads,
                    directory,
                    options.rounds,
                    options.seconds,
                )
                healthy &= show(table, case, threads, measured, limits[threads])
                gained = over(measured)
                speedups[threads].append(gained)
                record.results.append(
                    {
                        "model": case.name,
                        "threads": threads,
                        "operations": case.operations,
                        "limit_flops": limits[threads],
                        "speedup": gained,
                        "engines": [m.as_dict() for m in measured.values()],
                    }
                )
    for threads, gains in speedups.items():
        summarize(record, threads, gains, others)
    record.write(options.markdown, options.json)
    return 0 if healthy else 1


def over(measured: dict[str, Measurement]) -> dict[str, float]:
    """How many times as fast as each other engine aicc is, by the medians."""
    own = measured[SUBJECT]
    if own.error:
        return {}
    return {
        name: m.median / own.median
        for name, m in measured.items()
        if name != SUBJECT and not m.error
    }


def summarize(
    record: Record, threads: int, gains: Sequence[dict[str, float]], others: Sequence[str]
) -> None:
    """Geometric means: over each engine, and over the fastest of them for each model."""
    told: dict[str, Any] = {"threads": threads, "models": len(gains), "geometric_mean": {}}
    many = f"{threads} thread{'s' if threads > 1 else ''}"
    for name in others:
        ratios = [g[name] for g in gains if name in g]
        if ratios:
            told["geometric_mean"][name] = geometric_mean(ratios)
            slower = sum(r < 1 for r in ratios)
            record.line(
                f"{many}: {geometric_mean(ratios):.3f}x {name} in the geometric mean of "
                f"{len(ratios)} models; slower on {slower}"
            )
    fastest = [min(g.values()) for g in gains if g]
    if len(others) > 1 and fastest:
        told["geometric_mean"]["fastest"] = geometric_mean(fastest)
        record.line(
            f"{many}: {geometric_mean(fastest):.3f}x the fastest of {', '.join(others)}; slower on "
            f"{sum(r < 1 for r in fastest)}"
        )
    record.summary.append(told)


def show(
    table: Table,
    case: Case,
    threads: int,
    measured: dict[str, Measurement],
    limit_flops: float | None,
) -> bool:
    """Prints one row, and the errors under it; tells whether all went well."""
    own = measured[SUBJECT]
    gained = over(measured)
    rate = None if own.error or not case.operations else case.operations / own.median
    agree = same(measured.values())
    table.row(
        case.name,
        threads,
        f"{case.operations / 1e9:.2f}" if case.operations else None,
        *("failed" if m.error else milliseconds(m.median) for m in measured.values()),
        None if own.error else milliseconds(own.best),
        *(times(gained.get(name)) for name in measured if name != SUBJECT),
        rate and f"{rate / 1e9:.0f}",
        rate and limit_flops and f"{100 * rate / limit_flops:.0f}",
        None if own.error else f"{own.load:.1f}",
        *(None if m.error else megabytes(m.peak_bytes) for m in measured.values()),
        agree,
    )
    for m in measured.values():
        if m.error:
            print(f"    {m.error}")
        elif m.agrees is not None and m.agrees > 1:
            print(f"    {m.engine} differs: {m.agrees:.3g} times the tolerance")
    return agree == "yes"


if __name__ == "__main__":
    sys.exit(main())
