"""How models speed up with threads, beside other engines.

    python benchmarks/threads.py                                  1 and all usable cores
    python benchmarks/threads.py --threads 1,2,4 --models resnet50,vit_base,bert_base
    python benchmarks/threads.py --onnx my.onnx --dims batch=1

Each engine has a process for each number of threads, pinned to as many cores, and rounds of all
alternate. Times are medians; `scaling` is that of the fewest threads over that of the row. `idle s`
is what all threads of a process burn in the second after a run, in seconds of CPU time.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from statistics import geometric_mean

from harness.client import Measurement, measure_pairs, same
from harness.options import add_engines, add_models, add_rounds, available, cases, parser
from harness.record import Record, usable_cores
from harness.table import Table, milliseconds, times

IDLE = 1.0
Pairs = dict[tuple[str, int], Measurement]


def main(argv: list[str] | None = None) -> int:
    """Measures and prints; the exit code is 1 if an engine failed or the outputs differ."""
    p = parser(__doc__)
    add_models(p)
    add_engines(p, ["onnxruntime"])
    add_rounds(p, 0.4, sorted({1, usable_cores()}))
    options = p.parse_args(argv)
    record = Record("Threads", __doc__, argv)
    engines = available(options.engines)
    counts = sorted(options.threads)
    columns = [("model", -18), ("threads", 7)]
    for name in engines:
        columns += [(f"{name} ms", max(9, len(name) + 3)), ("scaling", 7), ("idle s", 7)]
    table = record.table([*columns, ("same", -4)])
    healthy = True
    scaled: dict[tuple[str, int], list[float]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        for case in cases(options, directory):
            pairs = [(name, threads) for name in engines for threads in counts]
            measured = measure_pairs(
                case.path, case.feed, pairs, directory, options.rounds, options.seconds, IDLE
            )
            healthy &= show(table, case.name, engines, counts, measured)
            gained = scalings(measured, counts[0])
            for pair, gain in gained.items():
                scaled.setdefault(pair, []).append(gain)
            record.results.append(
                {
                    "model": case.name,
                    "scaling": [
                        {"engine": name, "threads": n, "scaling": gain}
                        for (name, n), gain in gained.items()
                    ],
                    "engines": [m.as_dict() for m in measured.values()],
                }
            )
    for (name, threads), gains in scaled.items():
        if threads != counts[0]:
            mean = geometric_mean(gains)
            record.summary.append({"engine": name, "threads": threads, "scaling": mean})
            record.line(
                f"{name}: {threads} threads are {mean:.2f}x as fast as {counts[0]} in the "
                f"geometric mean of {len(gains)} models"
            )
    record.write(options.markdown, options.json)
    return 0 if healthy else 1


def scalings(measured: Pairs, fewest: int) -> dict[tuple[str, int], float]:
    """How many times as fast as with the fewest threads each engine is with more."""
    return {
        (name, threads): measured[name, fewest].median / m.median
        for (name, threads), m in measured.items()
        if not m.error and not measured[name, fewest].error
    }


def show(table: Table, model: str, engines: list[str], counts: list[int], measured: Pairs) -> bool:
    """Prints a row for each number of threads, and the errors; tells whether all went well."""
    gained = scalings(measured, counts[0])
    for threads in counts:
        cells: list[str | None] = []
        for name in engines:
            m = measured[name, threads]
            idle = m.idle_cpu_seconds
            cells += [
                "failed" if m.error else milliseconds(m.median),
                times(gained.get((name, threads))) if threads != counts[0] else None,
                None if idle is None else f"{idle:.3f}",
            ]
        here = [m for (_, n), m in measured.items() if n == threads]
        table.row(model, threads, *cells, same(here))
    errors = [m.error for m in measured.values() if m.error]
    for error in errors:
        print(f"    {error}")
    return same(measured.values()) == "yes"


if __name__ == "__main__":
    sys.exit(main())
