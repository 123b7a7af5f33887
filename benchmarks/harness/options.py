"""What the commands have in common: their options, and the models that those name."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from harness import feeds, flops
from harness.engines import ENGINES, Feed
from harness.record import installed
from zoo import ZOO

SUBJECT = "aicc"


@dataclass
class Case:
    """A model file with the inputs to run it on."""

    name: str
    path: Path
    feed: Feed
    operations: int  # per inference


def parser(description: str | None) -> argparse.ArgumentParser:
    """A command line with the files that results go to."""
    p = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables here too")
    p.add_argument("--json", type=Path, metavar="FILE", help="write all figures here too")
    return p


def add_models(p: argparse.ArgumentParser) -> None:
    """The options that `cases` reads."""
    p.add_argument(
        "--models", type=names(ZOO), default=list(ZOO), help=f"of {', '.join(ZOO)}; default: all"
    )
    p.add_argument("--onnx", type=Path, nargs="+", metavar="PATH", help="these files instead")
    p.add_argument(
        "--inputs",
        metavar="MODULE:FUNCTION",
        help="makes the inputs of --onnx files, of a file's name without its ending and the model",
    )
    p.add_argument("--dims", type=sizes, default={}, metavar="NAME=N,...", help="sizes of symbols")
    p.add_argument(
        "--ints",
        type=ranges,
        default={},
        metavar="[NAME=]A:B,...",
        help="range of integer inputs, B excluded; default 0:2",
    )
    p.add_argument("--save", type=Path, metavar="DIR", help="keep the models built in this folder")


def add_engines(p: argparse.ArgumentParser, default: Iterable[str]) -> None:
    """Which engines to compare with."""
    default = list(default)
    p.add_argument(
        "--engines",
        type=names(ENGINES),
        default=default,
        help=f"to compare with, of {', '.join(ENGINES)}; default: {','.join(default)}",
    )


def add_rounds(
    p: argparse.ArgumentParser, seconds: float, threads: list[int] | None = None
) -> None:
    """How long to measure."""
    p.add_argument(
        "--threads",
        type=counts,
        default=threads or [1],
        metavar="N,...",
        help=f"default: {','.join(map(str, threads or [1]))}",
    )
    p.add_argument("--rounds", type=int, default=5, help="per engine; default: 5")
    p.add_argument("--seconds", type=float, default=seconds, help=f"per round; default: {seconds}")


def available(engines: Iterable[str]) -> list[str]:
    """The engines that are installed, the one that others are compared with last; a line for each
    that is not."""
    found = []
    for name in engines:
        if name == SUBJECT:
            continue
        if installed(name):
            found.append(name)
        else:
            print(f"{name} is not installed and left out (pip install {name})")
    return [*found, SUBJECT]


def cases(options: argparse.Namespace, directory: Path) -> Iterator[Case]:
    """The models asked for, built one at a time."""
    if options.onnx:
        for path in options.onnx:
            model = onnx.load(path)
            feed = (
                feeds.from_function(options.inputs, path.stem, model)
                if options.inputs
                else feeds.generic(model, options.dims, options.ints)
            )
            yield Case(path.stem, path, feed, _operations(path.stem, model, feed))
        return
    for name in options.models:
        entry = ZOO[name]
        model = entry.build()
        feed = feeds.generic(model, {**entry.dims, **options.dims}, {**entry.ints, **options.ints})
        operations = _operations(name, model, feed)
        path = (options.save or directory) / f"{name}.onnx"
        onnx.save(model, path)
        del model  # the workers read the file; hundreds of megabytes need not stay here
        yield Case(name, path, feed, operations)
        if not options.save:
            path.unlink()


def _operations(name: str, model: onnx.ModelProto, feed: Feed) -> int:
    """Operations of one inference; 0, with a line, where they cannot be counted."""
    try:
        return flops.count(model, feed)
    except Exception as error:  # of onnx or onnxruntime, about a model of any kind
        print(f"{name}: operations are not counted: {error}")
        return 0


def names(known: Mapping[str, Any]) -> Any:
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
