"""ONNX's own test cases of single operators: models, inputs and the results to give."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test.loader import load_model_tests

import aicc
from aicc.dtypes import to_numpy
from aicc.errors import OperatorError

TODO = Path(__file__).with_name("onnx_backend_todo.txt")
"""A reason on a line of its own that begins with "# ", then the names of cases that fail for it."""

AT_COMPILE_TIME = ("must be known at compile time", "must be constants")


@functools.cache
def cases() -> Mapping[str, Any]:
    """Every case by name; making them takes seconds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the makers divide by zero on purpose
        return {case.name: case for case in load_model_tests(kind="node")}


def todo() -> dict[str, str]:
    """The cases that are known to fail, with the reason."""
    found: dict[str, str] = {}
    reason = ""
    for line in TODO.read_text("utf-8").splitlines():
        if line.startswith("# "):
            reason = line[2:]
        elif line.strip():
            found[line.strip()] = reason
    return found


def write_todo(failures: Mapping[str, str]) -> None:
    """Writes the file anew; failures: name -> reason."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in failures.items():
        by_reason.setdefault(reason, []).append(name)
    parts = [
        "\n".join([f"# {reason}", *sorted(names)]) + "\n"
        for reason, names in sorted(by_reason.items())
    ]
    TODO.write_text("\n".join(parts), "utf-8")


def outcome(name: str) -> str:
    """Why the case does not pass, the type of the error and what it says first; or ""."""
    try:
        run(cases()[name])
    except Exception as error:
        return f"{type(error).__name__}: {shortened(str(error))}"
    return ""


def shortened(message: str) -> str:
    """The first line, without what differs from case to case of one kind."""
    line = next((part for part in message.splitlines() if part.strip()), "").strip()
    for before, after in (("node '", "': "), (" (opset", ""), ("; on (", "")):
        at = line.find(before)
        if at < 0:
            continue
        end = line.find(after, at) if after else len(line)
        line = line[:at] + line[end + len(after) :] if end >= 0 else line
    operator, parenthesis, rest = line.partition("(")
    if parenthesis and operator.isidentifier() and "): " in rest:
        line = f"{operator}: {rest.partition('): ')[2]}"
    return line.strip()


def run(case: Any) -> None:
    """Compiles the case's model and compares results. Operands that tell sizes or axes, which these
    models take as inputs, become constants where the compiler has to know them."""
    for inputs, expected in case.data_sets:
        arrays = [array(x) for x in inputs]
        pinned = False
        try:
            model = aicc.compile(case.model.SerializeToString(), threads=1)
        except OperatorError as error:
            if not any(words in str(error) for words in AT_COMPILE_TIME):
                raise
            pinned = True
            made = with_constants(case.model, arrays)
            model = aicc.compile(made.SerializeToString(), threads=1)
        assert isinstance(model, aicc.CompiledModel)
        names = [i.name for i in case.model.graph.input]
        given = dict(zip(names, arrays))
        wanted = {p.name for p in model.inputs}
        assert pinned or wanted == set(given)
        try:
            results = model.run(None, {n: a for n, a in given.items() if n in wanted})
        finally:
            model.close()
        compare(results, [array(x) for x in expected], case.rtol, case.atol)


def array(value: Any) -> np.ndarray[Any, Any]:
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    if isinstance(value, list | dict) or value is None:
        raise TypeError("sequences, maps and optional values are not tensors")
    return np.asarray(value)


def with_constants(
    model: onnx.ModelProto, arrays: Sequence[np.ndarray[Any, Any]]
) -> onnx.ModelProto:
    """The model with its inputs of at most one axis, but the first input, as initializers."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    floats = any(n.op_type in ("Range", "Resize", "Upsample", "OneHot") for n in model.graph.node)
    kept = []
    for position, (info, data) in enumerate(zip(model.graph.input, arrays)):
        small = data.ndim <= 1 and (data.dtype.kind in "iu" or floats or data.size == 0)
        if small and (position or len(arrays) == 1 or floats):
            made.graph.initializer.append(numpy_helper.from_array(data, info.name))
        else:
            kept.append(info)
    del made.graph.input[:]
    made.graph.input.extend(kept)
    return made


def compare(
    actual: Sequence[np.ndarray[Any, Any]],
    expected: Sequence[np.ndarray[Any, Any]],
    rtol: float,
    atol: float,
) -> None:
    assert len(actual) == len(expected), f"{len(actual)} results instead of {len(expected)}"
    for a, e in zip(actual, expected, strict=True):
        assert a.dtype == e.dtype, f"{a.dtype} instead of {e.dtype}"
        assert a.shape == e.shape, f"{a.shape} instead of {e.shape}"
        if e.dtype.kind in "OSU":
            assert a.tolist() == e.tolist(), "other words"
        elif e.dtype.kind in "biu":
            assert np.array_equal(a, e), "other numbers"
        else:
            if e.dtype == to_numpy("bf16"):  # eight bits: a sum in another order differs by one
                rtol, atol = max(rtol, 1.6e-2), max(atol, 1e-2)
            x, y = a.astype(np.float64), e.astype(np.float64)
            close = np.isclose(x, y, rtol=rtol, atol=atol, equal_nan=True)
            assert close.all(), "numbers beyond the tolerance"
