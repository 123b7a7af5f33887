"""Feeds for models, and how close results must be to onnxruntime's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime

from aicc.passes import disagreement
from harness.feeds import generic

Array = np.ndarray[Any, Any]
Feed = dict[str, Array]


def runtime(model: onnx.ModelProto | bytes) -> onnxruntime.InferenceSession:
    """onnxruntime on one thread, saying nothing."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    data = model if isinstance(model, bytes) else model.SerializeToString()
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def feed(model: onnx.ModelProto, sizes: Mapping[str, int] | None = None, seed: int = 0) -> Feed:
    """Random inputs; ids inside the vocabulary, the first key of each row attended to."""
    ints = {"input_ids": (0, 50), "position_ids": (0, 100), "attention_mask": (0, 2)}
    made = generic(model, sizes, ints, seed)
    if "attention_mask" in made:
        made["attention_mask"][:, 0] = 1
    return made


def assert_agree(
    expected: Sequence[Array],
    actual: Sequence[Array],
    what: str = "",
    rtol: float = 1e-3,
    atol: float = 1e-4,
    floor: float = 0.0,
) -> None:
    """Same types and shapes; `atol` is relative to the largest magnitude of an output, `floor` an
    absolute difference that does not matter."""
    assert len(expected) == len(actual)
    for n, (e, a) in enumerate(zip(expected, actual, strict=True)):
        if floor and e.shape == a.shape and e.dtype == a.dtype and e.dtype.kind == "f":
            with np.errstate(invalid="ignore"):
                a = np.where(np.abs(e - a) <= floor, e, a)
        wrong = disagreement(e, a, rtol, atol)
        assert not wrong, f"{what} output {n}: {wrong}"


def same_bits(a: Sequence[Array], b: Sequence[Array]) -> bool:
    return len(a) == len(b) and all(x.tobytes() == y.tobytes() for x, y in zip(a, b, strict=True))
