"""Sizes and arrays as the command line gives them, and results as it shows them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from aicc.errors import InputError
from aicc.runtime.feed import Port, describe
from aicc.symbolic import evaluate, symbols

Array = np.ndarray[Any, Any]
OPEN_SIZE = 64
"""What a symbol counts for in random inputs where nothing else is said; 1 on a first axis."""
SHOWN = 6
"""How many elements of an output are shown."""


class UsageError(ValueError):
    """An option's value that cannot be read."""


def sizes(texts: Iterable[str], option: str) -> dict[str, int]:
    """The sizes of `batch=1,seq=128`, given once or more. Raises UsageError."""
    found: dict[str, int] = {}
    for part in (p for text in texts for p in text.split(",") if p.strip()):
        name, equals, number = (x.strip() for x in part.rpartition("="))
        if not equals or not name or not re.fullmatch(r"\d+", number):
            raise UsageError(f"{option} {part!r}: a name, = and a size are expected: batch=1")
        if found.setdefault(name, int(number)) != int(number):
            raise UsageError(f"{option}: {name} is both {found[name]} and {number}")
    return found


def files(texts: Iterable[str], ports: Sequence[Port]) -> dict[str, Array]:
    """The arrays of `name=file.npy` options; the name may be left out where a model has one input.
    Raises UsageError."""
    found: dict[str, Array] = {}
    for text in texts:
        name, equals, path = text.rpartition("=")
        if not equals and len(ports) == 1:
            name = ports[0].name
        if not name:
            raise UsageError(f"--input {text!r}: a name, = and a file are expected: x=x.npy")
        if name in found:
            raise UsageError(f"--input: {name} is given twice")
        try:
            array = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise UsageError(f"--input {name}: cannot read {path!r}: {error}") from None
        if not isinstance(array, np.ndarray):
            raise UsageError(f"--input {name}: {path!r} holds several arrays; one .npy is expected")
        found[name] = array
    return found


def random_feed(
    ports: Sequence[Port],
    given: Mapping[str, int],
    seed: int,
    known: Mapping[str, Array] | None = None,
) -> dict[str, Array]:
    """Arrays for the inputs that `known` lacks: normal floats, integers 0 and 1, strings "a".

    given: values of symbols; those that arrays of `known` tell come before, and others are 1 on a
    first axis, else OPEN_SIZE, within their bounds.
    """
    values = dict(given)
    feed = dict(known or {})
    for p in ports:
        for d, n in zip(p.shape, feed[p.name].shape if p.name in feed else ()):
            if not isinstance(d, int) and str(d) in {s.name for s in symbols(d)}:
                values[str(d)] = n
    for p in ports:
        for axis, d in enumerate(p.shape):
            for s in symbols(d):
                usual = 1 if axis == 0 else OPEN_SIZE
                low, high = s.lo or 0, math.inf if s.hi is None else s.hi
                values.setdefault(s.name, int(max(low, min(usual, high))))
    rng = np.random.default_rng(seed)
    for p in ports:
        if p.name not in feed:
            feed[p.name] = _random(p, tuple(evaluate(d, values) for d in p.shape), rng)
    return feed


def _random(port: Port, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    if any(n < 0 for n in shape):
        raise InputError(f"input {port}: the sizes {list(shape)} are not possible")
    if port.dtype.kind in "OUS":
        return np.full(shape, "a", object)
    if port.dtype.kind in "biu":
        return rng.integers(0, 2, shape).astype(port.dtype)
    return rng.standard_normal(shape).astype(port.dtype)


def file_name(name: str) -> str:
    """A file's name for an output, which may have any characters in its own."""
    return re.sub(r"[^\w.-]", "_", name).lstrip(".") or "output"


def summary(name: str, array: Array) -> dict[str, Any]:
    """What is told about an output."""
    told: dict[str, Any] = {"name": name, "dtype": str(array.dtype), "shape": list(array.shape)}
    if array.size and array.dtype.kind not in "OUS":
        wide = array.astype(np.float64)
        told |= {"min": wide.min(), "max": wide.max(), "mean": wide.mean()}
    told["first"] = array.reshape(-1)[:SHOWN].tolist()
    return told


def summary_text(told: Mapping[str, Any]) -> str:
    """`summary` as one line."""
    text = f"{told['name']}: {describe(told['dtype'], told['shape'])}"
    if "mean" in told:
        text += f"  min {told['min']:.6g}  max {told['max']:.6g}  mean {told['mean']:.6g}"
    shown = ", ".join(f"{v:.6g}" if isinstance(v, float) else str(v) for v in told["first"])
    more = ", ..." if math.prod(told["shape"]) > len(told["first"]) else ""
    return f"{text}  [{shown}{more}]"


def port_dict(port: Port) -> dict[str, Any]:
    """A port as plain data; symbolic sizes are strings."""
    shape = [d if isinstance(d, int) else str(d) for d in port.shape]
    return {"name": port.name, "dtype": str(port.dtype), "shape": shape}


def to_json(result: Any) -> str:
    """JSON of plain data; numbers that JSON has none for are strings."""
    return json.dumps(_plain(result), indent=2, allow_nan=False)


def _plain(x: Any) -> Any:
    if isinstance(x, Mapping):
        return {str(k): _plain(v) for k, v in x.items()}
    if isinstance(x, list | tuple):
        return [_plain(v) for v in x]
    if isinstance(x, np.generic):
        x = x.item()
    if isinstance(x, float) and not math.isfinite(x):
        return "NaN" if math.isnan(x) else "Infinity" if x > 0 else "-Infinity"
    return x if x is None or isinstance(x, bool | int | float | str) else str(x)


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Columns aligned by spaces: numbers to the right, words to the left."""
    cells = [[str(c) for c in row] for row in rows]
    number = re.compile(r"-?[\d.]+(e[-+]\d+)?[x%]?")
    right = [
        bool(cells) and all(number.fullmatch(row[i]) or not row[i] for row in cells)
        for i in range(len(header))
    ]
    widths = [max(len(r[i]) for r in [list(header), *cells]) for i in range(len(header))]
    lines = []
    for row in [list(header), *cells]:
        parts = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right)]
        lines.append("  ".join(parts).rstrip())
    return "\n".join(lines)
