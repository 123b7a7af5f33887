"""Contents of small integer tensors through shape arithmetic: what infers, what must not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from op_cases import EXECUTORS, Bound, Operand, context

from aicc.errors import ExecutionError, OperatorError
from aicc.graph_ir.infer import constant_type
from aicc.graph_ir.types import TensorType
from aicc.ops import registry
from aicc.ops.registry import Case
from aicc.symbolic import Size, evaluate, maximum, minimum, sym

N, M = sym("n"), sym("m", 1)


def typed(*shape: Size, dtype: str = "f32") -> TensorType:
    return TensorType(dtype, shape)


def known(*value: Size, dtype: str = "i64") -> TensorType:
    """A vector with this value."""
    return TensorType(dtype, (len(value),), value)


def infer(op: str, *operands: Any, n_outputs: int = 1, **attrs: Any) -> TensorType:
    """The first result's type; arrays and lists are constants, None is omitted."""
    bound: list[Operand | None] = []
    for o in operands:
        if o is None:
            bound.append(None)
        elif isinstance(o, TensorType):
            bound.append(Operand(o, np.zeros(0)))
        else:
            data = np.asarray(o)
            bound.append(Operand(constant_type(data), data, True))
    operator = registry.get(op)
    ctx = context(operator, {**operator.attributes, **attrs}, bound, n_outputs)
    return ctx.outputs[0]


def test_shape_gather_concat_reshape() -> None:
    x = typed(N, M, 768)
    shape = infer("Shape", x)
    batch = infer("Gather", shape, np.array(0))
    rows = infer("Gather", shape, np.array([1, -1]))
    assert batch.value == (N,) and batch.shape == ()
    assert rows.value == (M, 768)
    heads = infer("Div", infer("Gather", shape, np.array(-1)), np.array(64))
    wanted = infer(
        "Concat",
        infer("Unsqueeze", batch, [0]),
        [-1],
        infer("Unsqueeze", heads, [0]),
        [64],
        axis=0,
    )
    assert wanted.value == (N, -1, 12, 64)
    assert infer("Reshape", x, wanted).shape == (N, M, 12, 64)


def test_expand_with_the_ones_of_an_exporter() -> None:
    # expand(x, shape) as exporters write it: -1 means the operand's own size
    shape = known(N, -1, M)
    ones = infer("ConstantOfShape", [3], value=1, dtype="i64")
    minus = infer("Mul", ones, np.array(-1))
    is_own = infer("Equal", shape, minus)
    assert is_own.value == (0, 1, 0)
    chosen = infer("Where", is_own, ones, shape)
    assert chosen.value == (N, 1, M)
    assert infer("Expand", typed(1, 7, 1), chosen).shape == (N, 7, M)


def test_slices_and_ranges_of_sizes() -> None:
    total = infer("Add", known(N), known(M))
    assert total.value == (N + M,)
    scalar = infer("Squeeze", total, [0])
    assert infer("Range", np.array(0), scalar, np.array(1)).shape == (N + M,)
    mask = infer("Slice", typed(1, 1, 1024, 1024), [0], known(N), [2], [1])
    assert mask.shape == (1, 1, minimum(N, 1024), 1024)
    last = infer("Slice", typed(N, M), [-1], [np.iinfo(np.int64).max], [1], [1])
    assert last.shape == (N, 1)
    first = infer("Slice", infer("Shape", typed(N, M, 3)), [0], [2], [0])
    assert first.value == (N, M)
    flipped = infer("Slice", known(1, N, M), [-1], [-9], [0], [-1])
    assert flipped.value == (M, N, 1)


def test_a_mask_clipped_to_a_length_broadcasts_to_that_length() -> None:
    scores, mask = typed(4, N, N), typed(minimum(N, 1024), minimum(N, 1024))
    assert infer("Add", scores, mask).shape == (4, N, N)


def test_broadcasting_of_symbols() -> None:
    assert infer("Add", typed(N, 3), typed(1, 3)).shape == (N, 3)
    assert infer("Add", typed(N, 3), typed(8, 3)).shape == (8, 3)
    both = infer("Add", typed(N), typed(M)).shape[0]
    for n, m, expected in ((1, 5, 5), (5, 1, 5), (4, 4, 4), (0, 1, 0), (1, 1, 1)):
        assert evaluate(both, {"n": n, "m": m}) == expected


@pytest.mark.parametrize(
    ("op", "a", "b", "expected"),
    [
        ("Add", N, 3, N + 3),
        ("Sub", N, N, 0),
        ("Mul", N, M, N * M),
        ("Div", N * 6, 3, N * 2),
        ("Div", -7, 2, -3),
        ("Div", N - 5, 2, None),
        ("Div", N, 0, None),
        ("Mod", N * 6 + 1, 3, 1),
        ("Mod", -7, 3, 2),
        ("Max", N, 0, N),
        ("Max", N, M, maximum(N, M)),
        ("Min", N, -1, -1),
        ("Pow", N, 2, N * N),
        ("Equal", N, -1, 0),
        ("Equal", N, N, 1),
        ("Equal", N, 3, None),
        ("Less", N, N + 1, 1),
        ("GreaterOrEqual", M, 1, 1),
        ("Greater", M, 1, None),
        ("LessOrEqual", N, M, None),
        ("Add", 2**62, 2**62, None),
    ],
)
def test_arithmetic(op: str, a: Size, b: Size, expected: Size | None) -> None:
    value = infer(op, known(a), known(b)).value
    assert value == (None if expected is None else (expected,))


def test_conversions() -> None:
    assert infer("Cast", known(N), to="i32").value == (N,)
    assert infer("Cast", known(M, 0), to="bool").value == (1, 0)
    assert infer("Cast", known(N), to="bool").value is None
    assert infer("Cast", known(300), to="u8").value is None
    assert infer("Cast", known(N), to="f32").value is None
    assert infer("Neg", known(N)).value == (-N,)
    assert infer("Not", known(1, 0, dtype="bool")).value == (0, 1)


def test_values_are_dropped_where_a_tensor_is_large() -> None:
    assert infer("ConstantOfShape", [2000], value=1, dtype="i64").value is None
    assert infer("Range", np.array(0), np.array(5000), np.array(1)).value is None


def test_reshape_of_symbols() -> None:
    assert infer("Reshape", typed(N, 12, M, 64), [0, -1, 768]).shape == (N, M, 768)
    assert infer("Reshape", typed(N, M), [-1]).shape == (N * M,)
    assert infer("Reshape", typed(N, M, 6), known(N, -1)).shape == (N, M * 6)


@pytest.mark.parametrize(
    ("op", "operands", "attrs", "message"),
    [
        ("Reshape", (typed(2, 3), [4, 2]), {}, "do not fit"),
        ("Reshape", (typed(2, 3), [-1, -1]), {}, "twice"),
        ("Reshape", (typed(2, 3), [4, -1]), {}, "do not fit"),
        ("Reshape", (typed(2, 3), typed(2, dtype="i64")), {}, "known at compile time"),
        ("Squeeze", (typed(2, 3), [0]), {}, "is not 1"),
        ("Squeeze", (typed(N, 1),), {}, "axes are needed"),
        ("Add", (typed(2, 3), typed(4)), {}, "cannot be broadcast"),
        ("Add", (typed(2), typed(2, dtype="i64")), {}, "different element types"),
        ("And", (typed(2), typed(2)), {}, "allowed are bool"),
        ("Concat", (typed(2, 3), typed(3, 3)), {"axis": 1}, "sizes 2 and 3"),
        ("Concat", (typed(2, 3), typed(3)), {"axis": 1}, "rank"),
        ("Split", (typed(7), [3, 3]), {}, "6 elements together, of 7"),
        ("Gather", (typed(5), np.array(5)), {}, "out of range"),
        ("Gather", (typed(5), np.array([0, -6])), {}, "out of range"),
        ("Gather", (typed(5), np.array([0.5])), {}, "must be i64 or i32"),
        ("Transpose", (typed(2, 3),), {"perm": (0, 0)}, "no permutation"),
        ("Transpose", (typed(2, 3),), {"perm": (0, 2)}, "outside"),
        ("Slice", (typed(5), [0], [5], [0], [0]), {}, "a step is 0"),
        ("Slice", (typed(5), [0], [5], [1]), {}, "axis 1"),
        ("Slice", (typed(5), [0, 0], [5]), {}, "different lengths"),
        ("Pad", (typed(5), [1, 1, 1]), {}, "3 pads"),
        ("Pad", (typed(5), [-3, -3]), {}, "size -1"),
        ("Pad", (typed(5), [1, 1]), {"mode": "mirror"}, "mode must be"),
        ("Range", (np.array(0), np.array(5), np.array(0)), {}, "delta is 0"),
        ("TopK", (typed(5), [6]), {}, "k = 6 of 5"),
        ("Cast", (typed(5),), {"to": 23}, "not supported"),
        ("BitShift", (typed(5, dtype="u8"), typed(5, dtype="u8")), {"direction": "UP"}, "LEFT"),
        ("GatherND", (typed(5), np.zeros((2, 2), np.int64)), {}, "do not fit"),
        ("ScatterND", (typed(5), np.zeros((2, 1), np.int64), typed(3)), {}, "updates"),
        ("DepthToSpace", (typed(1, 6, 2, 2),), {"blocksize": 2}, "no multiple of 4"),
        ("Dropout", (typed(5), np.array(0.5), np.array(True)), {}, "training"),
        ("Expand", (typed(5), [4]), {}, "cannot be broadcast"),
        ("Tile", (typed(5), [1, 2]), {}, "2 repeats for 1 axes"),
        ("Where", (typed(5), typed(5), typed(5)), {}, "bool condition"),
    ],
)
def test_refusals(
    op: str, operands: tuple[Any, ...], attrs: Mapping[str, Any], message: str
) -> None:
    with pytest.raises(OperatorError, match=message) as caught:
        infer(op, *operands, **attrs)
    assert caught.value.op == op and caught.value.node == "case"


# --- what only a run can tell -------------------------------------------------------------------


def run(op: str, inputs: tuple[Any, ...], symbolic: Mapping[tuple[int, int], str], **options: Any):
    """Interprets an operator; a symbol takes its value from the first axis that has it."""
    case = Case("case", inputs, options.get("attrs", {}), options.get("n_outputs", 1))
    operands: list[Operand | None] = []
    sizes: dict[str, int] = {}
    for i, data in enumerate(inputs):
        if i in options.get("constant", ()):
            operands.append(Operand(constant_type(data), data, True))
            continue
        shape: list[Size] = list(data.shape)
        for axis in range(data.ndim):
            if (i, axis) in symbolic:
                name = symbolic[i, axis]
                sizes.setdefault(name, data.shape[axis])
                shape[axis] = sym(name)
        operands.append(Operand(TensorType(constant_type(data).dtype, tuple(shape)), data))
    return EXECUTORS["interpreter"](Bound(registry.get(op), case, operands, sizes))


ROWS = np.arange(12, dtype=np.float32).reshape(4, 3)


@pytest.mark.parametrize(
    ("op", "inputs", "symbolic", "options", "message"),
    [
        ("Gather", (ROWS, np.array([0, 4])), {}, {}, "index out of range for size 4"),
        ("Gather", (ROWS, np.array([-5])), {}, {}, "index out of range for size 4"),
        ("Gather", (ROWS, np.array(2**40)), {(0, 0): "n"}, {}, "index out of range for size n"),
        (
            "Gather",
            (ROWS, np.array([1, 7])),
            {(0, 0): "n"},
            {"constant": (1,)},
            "index out of range for size n",
        ),
        ("GatherElements", (ROWS, np.array([[0, 4, 0]])), {}, {}, "index out of range"),
        ("GatherND", (ROWS, np.array([[0, 3]])), {}, {}, "index out of range for size 3"),
        (
            "ScatterElements",
            (ROWS, np.array([[9, 0, 0]]), ROWS[:1]),
            {},
            {},
            "index out of range for size 4",
        ),
        ("ScatterND", (ROWS, np.array([[-5]]), ROWS[:1]), {}, {}, "index out of range"),
        (
            "Reshape",
            (ROWS, np.array([5, 3])),
            {(0, 0): "n"},
            {"constant": (1,)},
            "number of elements",
        ),
        ("Reshape", (ROWS[:3], np.array([2, -1])), {(0, 0): "n"}, {"constant": (1,)}, "number"),
        ("Squeeze", (ROWS, np.array([0])), {(0, 0): "n"}, {"constant": (1,)}, "number of elem"),
        ("Add", (ROWS, ROWS[:2]), {(0, 0): "n", (1, 0): "m"}, {}, "cannot be broadcast"),
        ("Add", (ROWS, ROWS[:2]), {(1, 0): "m"}, {}, "size m cannot be broadcast to 4"),
        ("Concat", (ROWS, ROWS[:2]), {(1, 0): "m"}, {"attrs": {"axis": 1}}, "axis 0"),
        (
            "Split",
            (ROWS, np.array([1, 2])),
            {(0, 0): "n"},
            {"constant": (1,), "n_outputs": 2},
            "sum of the parts",
        ),
        (
            "ReverseSequence",
            (ROWS, np.array([1, 5, 2])),
            {},
            {},
            "a length is outside 0..4",
        ),
        (
            "TopK",
            (ROWS, np.array([5])),
            {(0, 0): "n"},
            {"constant": (1,), "attrs": {"axis": 0}},
            "k = 5",
        ),
    ],
)
def test_checks(
    op: str,
    inputs: tuple[Any, ...],
    symbolic: Mapping[tuple[int, int], str],
    options: Mapping[str, Any],
    message: str,
) -> None:
    with pytest.raises(ExecutionError, match=message) as caught:
        run(op, inputs, symbolic, **options)
    assert str(caught.value).startswith("case: ")
