"""The operators of the compiler, without those that tests register."""

from __future__ import annotations

from aicc.ops.registry import Operator, all_operators


def own_operators() -> list[Operator]:
    return [op for op in all_operators() if type(op).__module__.startswith("aicc.ops.")]
