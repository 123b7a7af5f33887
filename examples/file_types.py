"""Tells the types of files from their bytes: a published model, end to end.

    pip install "aicc[demo]"
    python examples/file_types.py FILE...

The model is magika's (Google, Apache-2.0; Fratantonio et al. 2024, arXiv:2409.13768). It ships with
its weights inside the package `magika`, of which nothing but the model's folder is used here. It
reads 2048 bytes of a file and gives a probability for each of 214 types.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import aicc

Array = np.ndarray[Any, Any]


def model_folder() -> Path:
    """Where the package magika keeps its newest model; the package itself is not imported."""
    package = importlib.util.find_spec("magika")
    if package is None or package.origin is None:
        sys.exit('This needs the package magika: pip install "aicc[demo]"')
    return max(Path(package.origin).parent.glob("models/standard_*"))


MODEL = model_folder() / "model.onnx"
CONFIG = json.loads((model_folder() / "config.min.json").read_text())
LABELS: list[str] = CONFIG["target_labels_space"]


def features(content: bytes) -> Array:
    """What the model reads of a file: int32[2048], its first and its last 1024 bytes.

    White space around the content is dropped, and places that a short file leaves empty hold 256.
    """
    first, last, block = CONFIG["beg_size"], CONFIG["end_size"], CONFIG["block_size"]
    head = content[:block].lstrip()[:first]
    tail = content[-block:].rstrip()[-last:]
    x = np.full(first + last, CONFIG["padding_token"], np.int32)
    x[: len(head)] = np.frombuffer(head, np.uint8)
    x[len(x) - len(tail) :] = np.frombuffer(tail, np.uint8)
    return x


def answers(probabilities: Array) -> list[tuple[str, float]]:
    """The most likely type of each file and its probability, from the model's [files, 214]."""
    best = probabilities.argmax(axis=1)
    return [(LABELS[i], float(row[i])) for i, row in zip(best, probabilities)]


def main(paths: Sequence[str]) -> None:
    """Prints the type of each file."""
    model = aicc.compile(MODEL)
    x = np.stack([features(Path(path).read_bytes()) for path in paths])
    (probabilities,) = model.run(None, {"bytes": x})
    for path, (label, probability) in zip(paths, answers(probabilities)):
        print(f"{path}: {label} ({probability:.1%})")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python examples/file_types.py FILE...")
    main(sys.argv[1:])
