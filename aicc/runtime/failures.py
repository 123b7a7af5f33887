"""What a check that ends a run tells."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from aicc.errors import ExecutionError
from aicc.runtime.program import Call


def failure(
    step: Call, code: int, checks: Sequence[str], sizes: Mapping[str, int]
) -> ExecutionError:
    """The error of a call whose kernel returned `code`: n for the n-th of its checks, else there
    was no memory. sizes: of the run; those that the message names are told."""
    message = "there is no memory for an intermediate value"
    if code > 0:
        message = checks[code - 1]
        words = set(re.findall(r"\w+", message.rpartition(":")[2]))
        told = [f"{name} is {sizes[name]}" for name in step.sizes if name in words]
        if told:
            message += f" ({', '.join(told)})"
    names = ", ".join(step.nodes)
    if not names or any(n and message.startswith(f"{n}:") for n in (*step.nodes, names)):
        return ExecutionError(message)
    return ExecutionError(f"node {names!r}: {message}")
