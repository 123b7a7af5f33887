"""What Python computes in a run, checked against what the program declares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from aicc.dtypes import from_numpy, to_numpy
from aicc.errors import ExecutionError
from aicc.runtime.program import Host, Program, Read
from aicc.symbolic import evaluate

Array = np.ndarray[Any, Any]


def read_count(step: Read, count: int, most: int) -> int:
    """The number that a step read. Raises ExecutionError where it is negative or above `most`."""
    if not 0 <= count <= most:
        title = f"node {', '.join(step.nodes)!r}: " if step.nodes else ""
        raise ExecutionError(f"{title}{count} elements of {most}")
    return count


def own_result(
    program: Program,
    step: Host,
    name: str,
    value: Any,
    operands: Sequence[Array | None],
    values: Mapping[str, int],
) -> Array:
    """The result `name` of a host step as an array of the declared type that nobody else writes to.

    values: of the sizes that are known. Raises ExecutionError where the type is another one.
    """
    b, array = program.table[name], np.asarray(value)
    title = f"node {', '.join(step.nodes)!r} ({step.op}): result {name!r}"
    if from_numpy(array.dtype) != b.dtype or array.ndim != len(b.shape):
        raise ExecutionError(
            f"{title} is {array.dtype}{list(array.shape)}, expected {b.dtype}{list(b.shape)}"
        )
    known = dict(values)
    for s in program.sizes:
        if s.buffer == name and s.axis is not None:
            known[s.sym.name] = array.shape[s.axis]
    for d, got in zip(b.shape, array.shape):
        try:
            expected = evaluate(d, known)
        except KeyError:  # brought by another result of the step
            continue
        if expected != got:
            raise ExecutionError(
                f"{title} has shape {list(array.shape)}, expected {list(b.shape)}: "
                f"{got} instead of {expected}"
            )
    if not array.flags.carray or array.dtype != to_numpy(b.dtype):
        array = np.require(array, to_numpy(b.dtype), ["C", "A"]).reshape(array.shape)
    shared = any(o is not None and np.may_share_memory(array, o) for o in operands)
    return array.copy() if shared else array
