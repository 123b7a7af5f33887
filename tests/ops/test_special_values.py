"""Zeros of both signs, subnormals, infinities, NaN and where functions over- and underflow, through
every elementwise operator of floats, on all targets: as its reference has it."""

from __future__ import annotations

import numpy as np
import pytest
from op_cases import EXECUTORS, OTHER_TARGETS, Executor, HostOperatorError, bind, reference
from own_operators import own_operators

from aicc.dtypes import to_numpy
from aicc.ops import registry
from aicc.ops.elementwise_binary import Binary
from aicc.ops.elementwise_unary import Unary
from aicc.ops.registry import Case, Operator

EVERY: dict[str, Executor] = {**EXECUTORS, **OTHER_TARGETS}
DTYPES = ("f32", "f64", "f16")
OF_FLOATS = [op for op in own_operators() if isinstance(op, Unary | Binary)]
CASES = [(op, dtype) for op in OF_FLOATS for dtype in DTYPES if dtype in op.dtypes]
ATTRIBUTES = {"Shrink": {"lambd": 1.0, "bias": 0.5}, "Mod": {"fmod": 1}}
TOLERANCE = {"f32": 4e-6, "f64": 1e-13, "f16": 2e-3}
"""Relative, and of 1 where a function's value is a difference of values near 1."""


def specials(dtype: str) -> np.ndarray:
    limits = np.finfo(to_numpy(dtype))
    least, tiny, most = (float(v) for v in (limits.smallest_subnormal, limits.tiny, limits.max))
    near = [float(np.nextafter(limits.dtype.type(v), limits.dtype.type(0))) for v in (0.5, 1.0)]
    magnitudes = [0.0, least, tiny / 4, tiny, *near, 0.5, 1.0, 1.5, 2.0, 2.5, 7.0, 11.1, 17.0]
    edges = [-float(np.log(tiny)), float(np.log(most)), 1.5 * float(np.log(most)), most, np.inf]
    values = np.array([*magnitudes, *edges])
    return np.array([*values, *-values, np.nan], dtype=limits.dtype)


def agree(op: Operator, dtype: str, *inputs: np.ndarray) -> None:
    case = Case("special", inputs, ATTRIBUTES.get(op.name, {}))
    bound = bind(op, case, False)
    with np.errstate(all="ignore"):
        (expected,) = reference(bound)
    for name, executor in EVERY.items():
        try:
            with np.errstate(all="ignore"):
                (actual,) = executor(bound)
        except HostOperatorError:
            return
        assert actual.dtype == expected.dtype
        a, e = actual.astype(np.float64), expected.astype(np.float64)
        with np.errstate(invalid="ignore"):
            near = np.abs(a - e) <= TOLERANCE[dtype] * np.maximum(np.abs(e), 1.0)
        wrong = ~((a == e) | near | (np.isnan(a) & np.isnan(e)))
        found = [(*(x[i] for x in inputs), actual[i], expected[i]) for i in np.flatnonzero(wrong)]
        assert not found, f"{op.name} on {name}: (operands, actual, expected): {found}"


@pytest.mark.parametrize(("op", "dtype"), CASES, ids=[f"{op.name}-{t}" for op, t in CASES])
def test_special_values(op: Operator, dtype: str) -> None:
    x = specials(dtype)
    if isinstance(op, Unary):
        agree(op, dtype, x)
        return
    y = x.copy()
    if op.name == "Pow":
        y[np.abs(y) == 0.5] /= 2  # of -inf, numpy has two powers of 0.5: inf in arrays, NaN alone
    agree(op, dtype, np.repeat(x, y.size), np.tile(y, x.size))


def as_integer(v: float, to: str) -> int:
    """Truncated, to the nearest end of the range where it is beyond it; NaN is 0."""
    if np.isnan(v):
        return 0
    limits = np.iinfo(to_numpy(to))
    return int(min(max(v, limits.min), limits.max))


@pytest.mark.parametrize("to", ("i8", "u8", "i16", "u16", "i32", "u32", "i64", "u64"))
@pytest.mark.parametrize("dtype", DTYPES)
def test_floats_that_are_no_integers(dtype: str, to: str) -> None:
    x = specials(dtype)
    expected = [as_integer(v, to) for v in x.astype(np.float64).tolist()]
    bound = bind(registry.get("Cast"), Case("special", (x,), {"to": to}), False)
    for name, executor in EVERY.items():
        (actual,) = executor(bound)
        assert actual.tolist() == expected, name
