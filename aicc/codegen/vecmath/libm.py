"""What is computed by a function of the C library, one lane at a time: the functions of double.

Models rarely compute in double; `double` has those that they use most.
"""

from __future__ import annotations

from collections.abc import Sequence

from aicc.codegen.vecmath.block import Block, Value

FUNCTIONS = (
    "exp", "log", "pow", "erf",
    "sin", "cos", "tan", "asin", "acos", "atan",
    "sinh", "cosh", "tanh", "asinh", "acosh", "atanh",
)  # fmt: skip


def call(b: Block, name: str, args: Sequence[Value]) -> Value:
    """`name`, one of FUNCTIONS, of doubles."""

    def one(scalar: Block, *lane: Value) -> Value:
        return scalar.call(name, lane, "double", " nounwind willreturn memory(none)")

    return b.each_lane("double", args, one)
