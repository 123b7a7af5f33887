"""Every case of every operator: all executors agree with its reference, and the reference with
what others say that ONNX means."""

from __future__ import annotations

import zlib

import pytest
from op_cases import (
    EXECUTORS,
    OTHER_TARGETS,
    Executor,
    HostOperatorError,
    assert_close,
    assert_types,
    bind,
    bind_results,
    reference,
)
from op_judges import JUDGES, CannotJudgeError
from own_operators import own_operators

from aicc.ops.registry import Case, Operator

OPERATORS = own_operators()
CASES = [(op, case) for op in OPERATORS for case in op.cases()]
IDS = [f"{op.name}-{case.name}" for op, case in CASES]

SAMPLE = [c for c, name in zip(CASES, IDS) if zlib.crc32(name.encode()) % 8 == 0]
"""Cases that run on smaller instruction sets too."""
SAMPLE_IDS = [f"{op.name}-{case.name}" for op, case in SAMPLE]

HOST_OPERATORS = {"NonZero", "Compress", "NonMaxSuppression"}
"""Operators that run their reference, between kernels."""

WITH_REGIONS = {"If", "Loop", "Scan"}
"""Operators that test_control.py tests."""

UNJUDGED: dict[tuple[str, str], str] = {
    ("ConvTranspose", "onnx"): "output_shape with auto_pad shifts by one",
    ("GlobalMaxPool", "onnx"): "drops or adds axes unless there are two spatial ones",
    ("LRN", "onnx"): "takes the number of samples for that of channels",
    ("LpNormalization", "onnx"): "p = 1 sums elements instead of magnitudes",
    ("LpPool", "onnx"): "ceil_mode rescales the last windows",
    ("ReduceLogSumExp", "onnx"): "nan where all elements are -inf",
    ("RNN", "onnx"): "ignores sequence lengths",
    ("GRU", "onnx"): "ignores sequence lengths, activations and clip",
    ("LSTM", "onnx"): "ignores sequence lengths, activations, clip and input_forget",
    ("Resize", "onnx"): "align_corners takes scale * size, not rounded, for the result's size",
    ("GridSample", "onnx"): "cubic: moves the position inside, where runtimes move each element",
}
"""(operator, judge) -> why its answers differ from the specification."""


def test_operators_have_cases() -> None:
    without = {op.name for op in OPERATORS if not any(True for _ in op.cases())}
    assert without == WITH_REGIONS


@pytest.mark.parametrize(("op", "case"), CASES, ids=IDS)
@pytest.mark.parametrize("executor", EXECUTORS)
def test_executor(op: Operator, case: Case, executor: str) -> None:
    variants = [False, True] if case.symbolic else [False]
    for symbolic in variants[-1:] if executor == "native" else variants:
        agree(op, case, symbolic, EXECUTORS[executor])


@pytest.mark.parametrize(("op", "case"), SAMPLE, ids=SAMPLE_IDS)
@pytest.mark.parametrize("target", OTHER_TARGETS)
def test_other_targets(op: Operator, case: Case, target: str) -> None:
    agree(op, case, bool(case.symbolic), OTHER_TARGETS[target])


def agree(op: Operator, case: Case, symbolic: bool, executor: Executor) -> None:
    """Asserts that the executor gives what the operator's reference gives."""
    bound = bind(op, case, symbolic)
    expected = reference(bound)
    types = bound.context().outputs
    bind_results(types, expected, bound)
    assert_types(types, expected, bound.sizes)
    try:
        actual = executor(bound)
    except HostOperatorError:
        assert op.name in HOST_OPERATORS
        return
    assert len(actual) == len(expected)
    for n, (a, e) in enumerate(zip(actual, expected, strict=True)):
        assert_close(a, e, case, f"{op.name} {case.name} symbolic={symbolic} result {n}")


@pytest.mark.parametrize("op", OPERATORS, ids=lambda op: op.name)
def test_reference_against_others(op: Operator) -> None:
    if "::" in op.name or op.name in WITH_REGIONS:
        pytest.skip("no cases that ONNX knows")
    judged = 0
    reasons = []
    for case in op.cases():
        expected = reference(bind(op, case, False))
        for name, judge in JUDGES.items():
            if (op.name, name) in UNJUDGED:
                continue
            try:
                answer = judge(op, case)
            except CannotJudgeError as error:
                reasons.append(f"{case.name}: {name}: {error}")
                continue
            judged += 1
            for n, (e, a) in enumerate(zip(expected, answer, strict=True)):
                assert_close(e, a, case, f"{op.name} {case.name}: {name}, result {n}")
    assert judged, "\n".join(reasons)
