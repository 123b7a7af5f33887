"""Inputs for any model: random arrays of the declared types, or a function of the user's."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import helper

from harness.engines import Feed

Ranges = Mapping[str, tuple[int, int]]


def generic(
    model: onnx.ModelProto,
    dims: Mapping[str, int] | None = None,
    ints: Ranges | None = None,
    seed: int = 0,
) -> Feed:
    """Random inputs: floats from a standard normal, integers from the range `ints` has for them.

    `dims` gives the sizes of named dimensions; what is neither named there nor a number is 1.
    `ints` gives [start, end) by input name, with "" for those not named; without it they are 0 and
    1. The range matters: as indices they must lie inside the tables that the model reads.
    """
    ranges = {"": (0, 2)} | dict(ints or {})
    rng = np.random.default_rng(seed)
    weights = {t.name for t in model.graph.initializer}
    feed: Feed = {}
    for value in model.graph.input:
        if value.name in weights:
            continue
        tensor = value.type.tensor_type
        shape = [
            d.dim_value if d.dim_value > 0 else (dims or {}).get(d.dim_param, 1)
            for d in tensor.shape.dim
        ]
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type))
        if dtype.kind == "b":
            feed[value.name] = rng.integers(0, 2, shape).astype(dtype)
        elif dtype.kind in "iu":
            feed[value.name] = rng.integers(*ranges.get(value.name, ranges[""]), shape).astype(
                dtype
            )
        else:
            feed[value.name] = rng.standard_normal(shape).astype(dtype)
    return feed


def from_function(spec: str, name: str, model: onnx.ModelProto) -> Feed:
    """Calls `module:function` with the model's name and the model; it returns {input name: array}.

    The module is looked for in the current directory first.
    """
    module, colon, function = spec.partition(":")
    if not colon:
        raise ValueError(f"--inputs wants module:function, not {spec!r}")
    sys.path.insert(0, str(Path.cwd()))
    try:
        feed: Feed = getattr(importlib.import_module(module), function)(name, model)
    finally:
        sys.path.pop(0)
    return feed
