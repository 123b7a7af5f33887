"""Compares aicc with other engines on whole models.

    python benchmarks/models.py                               the published architectures of zoo/
    python benchmarks/models.py --threads 1,2 --models resnet50,bert_base
    python benchmarks/models.py --onnx my.onnx --dims batch=4,seq=128 --ints input_ids=0:30000
    python benchmarks/models.py --onnx my.onnx --inputs mine:make    make(model) -> {name: array}

Every engine runs in its own process, pinned to as many cores as it has threads, and rounds of the
engines alternate. `ratio` is the best time of aicc over the best time of the other one: below 1,
aicc is faster. `median`, GFLOP/s and compile time are aicc's. MB is the most memory that an
engine's process held at once, Python, loading and compiling included.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from harness import feeds, flops
from harness.client import Measurement, limit, measure
from harness.engines import ENGINES, Feed
from harness.table import Table, milliseconds
from zoo import ZOO

SUBJECT = "aicc"


@dataclass
class Case:
    """A model file with the inputs to run it on."""

    name: str
    path: Path
    feed: Feed
    operations: int  # per inference


def main(argv: list[str] | None = None) -> int:
    """Measures and prints; the exit code is 1 if an engine failed or the outputs differ."""
    options = parser().parse_args(argv)
    engines = [name for name in options.engines if name != SUBJECT] + [SUBJECT]
    table = Table(
        [
            ("model", -18),
            ("threads", 7),
            ("GFLOP", 7),
            *((f"{name} ms", max(len(name) + 3, 9)) for name in engines),
            *((f"ratio {name}", len(name) + 6) for name in engines if name != SUBJECT),
            ("median", 6),
            ("GFLOP/s", 7),
            ("% of limit", 10),
            ("compile s", 9),
            *((f"{name} MB", len(name) + 3) for name in engines),
            ("same", -4),
        ]
    )
    results: list[dict[str, Any]] = []
    healthy = True
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
                results.append(
                    {
                        "model": case.name,
                        "threads": threads,
                        "operations": case.operations,
                        "limit_flops": limits[threads],
                        "engines": [m.as_dict() for m in measured.values()],
                    }
                )
    if options.json:
        machine = {"machine": platform.processor() or platform.machine(), "results": results}
        options.json.write_text(json.dumps(machine, indent=2) + "\n")
    return 0 if healthy else 1


def show(
    table: Table,
    case: Case,
    threads: int,
    measured: dict[str, Measurement],
    limit_flops: float | None,
) -> bool:
    """Prints one row, and the errors under it; tells whether all went well."""
    own, others = measured[SUBJECT], [m for m in measured.values() if m.engine != SUBJECT]
    rate = None if own.error else case.operations / own.best
    same = all(m.agrees is not None and m.agrees <= 1 for m in measured.values())
    table.row(
        case.name,
        threads,
        f"{case.operations / 1e9:.2f}",
        *("failed" if m.error else milliseconds(m.best) for m in measured.values()),
        *(None if m.error or own.error else f"{own.best / m.best:.2f}" for m in others),
        None if own.error else milliseconds(own.median),
        rate and f"{rate / 1e9:.0f}",
        rate and limit_flops and f"{100 * rate / limit_flops:.0f}",
        None if own.error else f"{own.load:.1f}",
        *(None if m.error else m.peak_bytes >> 20 for m in measured.values()),
        "yes" if same else "NO",
    )
    for m in measured.values():
        if m.error:
            print(f"    {m.error}")
        elif m.agrees is not None and m.agrees > 1:
            print(f"    {m.engine} differs: {m.agrees:.3g} times the tolerance")
    return same and not any(m.error for m in measured.values())


def cases(options: argparse.Namespace, directory: Path) -> Iterator[Case]:
    """The models asked for, built one at a time."""
    if options.onnx:
        for path in options.onnx:
            model = onnx.load(path)
            feed = (
                feeds.from_function(options.inputs, model)
                if options.inputs
                else feeds.generic(model, options.dims, options.ints)
            )
            yield Case(path.stem, path, feed, flops.count(model, feed))
        return
    for name in options.models:
        entry = ZOO[name]
        model = entry.build()
        feed = feeds.generic(model, {**entry.dims, **options.dims}, {**entry.ints, **options.ints})
        operations = flops.count(model, feed)
        path = (options.save or directory) / f"{name}.onnx"
        onnx.save(model, path)
        del model  # the workers read the file; hundreds of megabytes need not stay here
        yield Case(name, path, feed, operations)
        if not options.save:
            path.unlink()


def parser(description: str | None = __doc__) -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument(
        "--models", type=names(ZOO), default=list(ZOO), help=f"of {', '.join(ZOO)}; default: all"
    )
    p.add_argument("--onnx", type=Path, nargs="+", metavar="PATH", help="these files instead")
    p.add_argument("--inputs", metavar="MODULE:FUNCTION", help="makes the inputs of --onnx files")
    p.add_argument("--dims", type=sizes, default={}, metavar="NAME=N,...", help="sizes of symbols")
    p.add_argument(
        "--ints",
        type=ranges,
        default={},
        metavar="[NAME=]A:B,...",
        help="range of integer inputs, B excluded; default 0:2",
    )
    p.add_argument("--threads", type=counts, default=[1], metavar="N,...", help="default: 1")
    p.add_argument(
        "--engines",
        type=names(ENGINES),
        default=["onnxruntime"],
        help=f"to compare with, of {', '.join(ENGINES)}; default: onnxruntime",
    )
    p.add_argument("--rounds", type=int, default=5, help="per engine; default: 5")
    p.add_argument("--seconds", type=float, default=0.5, help="per round; default: 0.5")
    p.add_argument("--save", type=Path, metavar="DIR", help="keep the models built in this folder")
    p.add_argument("--json", type=Path, metavar="FILE", help="write all figures here too")
    return p


def names(known: dict[str, Any]) -> Any:
    """A parser of comma-separated names."""

    def parse(text: str) -> list[str]:
        for name in text.split(","):
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        return text.split(",")

    return parse


def counts(text: str) -> list[int]:
    """1,2 -> [1, 2]."""
    return [int(part) for part in text.split(",")]


def sizes(text: str) -> dict[str, int]:
    """batch=1,seq=128 -> {"batch": 1, "seq": 128}."""
    return {name: int(value) for name, value in (part.split("=") for part in text.split(","))}


def ranges(text: str) -> dict[str, tuple[int, int]]:
    """0:9,ids=0:30000 -> {"": (0, 9), "ids": (0, 30000)}."""
    result: dict[str, tuple[int, int]] = {}
    for part in text.split(","):
        name, _, bounds = part.rpartition("=")
        start, end = bounds.split(":")
        result[name] = (int(start), int(end))
    return result


if __name__ == "__main__":
    sys.exit(main())
