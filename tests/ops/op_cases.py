"""Runs operators' cases: binds operands, and the executors that must agree."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from native_kernel import Native, for_kernel

from aicc.dtypes import from_numpy, is_float, to_numpy
from aicc.graph_ir.infer import constant_type
from aicc.graph_ir.types import TensorType
from aicc.ops import registry
from aicc.ops.registry import Array, Case, GraphRewriter, OpContext, Operator
from aicc.symbolic import Dim, Size, evaluate, sym
from aicc.target import Target
from aicc.tensor_ir import interp
from aicc.tensor_ir.builder import KernelBuilder, Tensor
from aicc.tensor_ir.ir import Kernel
from aicc.tensor_ir.parse import parse_kernel
from aicc.tensor_ir.recipes import scheduled
from aicc.tensor_ir.text import print_kernel

EPSILON = {"f64": 0.0, "f32": 0.0, "f16": 2e-3, "bf16": 1.6e-2}
"""Least tolerance, relative and absolute, of a type: two units in the last place near 1."""


@dataclass(frozen=True)
class Operand:
    """An operand's type, its data, and whether the compiler may look at them."""

    type: TensorType
    data: Array
    constant: bool = False


@dataclass
class Bound:
    """A case with its operands typed, with or without symbols."""

    op: Operator
    case: Case
    operands: list[Operand | None]
    sizes: dict[str, int] = field(default_factory=dict)

    def context(self) -> OpContext:
        attrs = {**self.op.attributes, **self.case.attrs}
        return context(self.op, attrs, self.operands, self.case.n_outputs)


def bind(op: Operator, case: Case, symbolic: bool) -> Bound:
    operands: list[Operand | None] = []
    sizes: dict[str, int] = {}
    for i, data in enumerate(case.inputs):
        if data is None:
            operands.append(None)
            continue
        if i in case.constant:
            operands.append(Operand(constant_type(data), data, True))
            continue
        shape: list[Size] = [int(d) for d in data.shape]
        for axis in range(data.ndim) if symbolic else ():
            name = case.symbolic.get((i, axis))
            if name is not None:
                extent = int(data.shape[axis])
                assert sizes.setdefault(name, extent) == extent, f"{name} has two sizes"
                shape[axis] = sym(name)
        operands.append(Operand(TensorType(from_numpy(data.dtype), tuple(shape)), data))
    return Bound(op, case, operands, sizes)


def context(
    op: Operator, attrs: Mapping[str, Any], operands: Sequence[Operand | None], n_outputs: int
) -> OpContext:
    """The context of a node, its result types inferred."""
    ctx = OpContext(
        op=op.name,
        attrs=attrs,
        types=tuple(o and o.type for o in operands),
        constants=tuple(o.data if o and o.constant else None for o in operands),
        n_outputs=n_outputs,
        node="case",
        fresh_symbol=lambda base, hi=None: sym(f"case.{base}", 0, hi),
    )
    ctx.outputs = tuple(op.infer(ctx))
    return ctx


def bind_results(types: Sequence[TensorType], results: Sequence[Array], bound: Bound) -> None:
    """Gives the sizes that only a run tells, such as NonZero's, the values that results show."""
    for t, array in zip(types, results, strict=True):
        for d, extent in zip(t.shape, array.shape, strict=True):
            if isinstance(d, Dim) and str(d).startswith("case."):
                bound.sizes[str(d)] = extent


# --- executors ----------------------------------------------------------------------------------

RunKernel = Callable[[Kernel, dict[str, Array], dict[str, int]], None]
"""Executes a kernel in place on arrays by parameter name."""

Executor = Callable[[Bound], list[Array]]


def reference(bound: Bound) -> list[Array]:
    data = [o and o.data for o in bound.operands]
    return list(bound.op.reference(bound.context(), *data))


class Evaluator(GraphRewriter):
    """Applies operators to data at once, so that a decomposition can be checked."""

    def __init__(self, run: RunKernel, sizes: dict[str, int]) -> None:
        self.run, self.sizes = run, sizes
        self.values: dict[str, Operand | None] = {"": None}

    def add(self, operand: Operand | None) -> str:
        if operand is None:
            return ""
        name = f"v{len(self.values)}"
        self.values[name] = operand
        return name

    def op(self, op: str, *inputs: str, n_outputs: int = 1, **attrs: Any) -> Any:
        operator = registry.get(op)
        unknown = set(attrs) - set(operator.attributes)
        assert not unknown, f"{op} has no attributes {unknown}"
        operands = [self.values[i] for i in inputs]
        ctx = context(operator, {**operator.attributes, **attrs}, operands, n_outputs)
        results = execute(operator, ctx, operands, self.sizes, self.run)
        names = [self.add(Operand(t, r)) for t, r in zip(ctx.outputs, results, strict=True)]
        return names[0] if n_outputs == 1 else tuple(names)

    def constant(self, data: Any, dtype: str) -> str:
        array = np.asarray(data).astype(to_numpy(dtype))
        return self.add(Operand(constant_type(array), array, True))

    def type_of(self, value: str) -> TensorType:
        operand = self.values[value]
        assert operand is not None
        return operand.type


class HostOperatorError(Exception):
    """The operator has no kernel: its reference is what runs."""


def execute(
    op: Operator,
    ctx: OpContext,
    operands: Sequence[Operand | None],
    sizes: dict[str, int],
    run: RunKernel,
) -> list[Array]:
    """The results by the operator's decomposition, or else by its lowering."""
    rewriter = Evaluator(run, sizes)
    values = op.decompose(ctx, rewriter, *(rewriter.add(o) for o in operands))
    if values is not None:
        return [o.data for v in values if (o := rewriter.values[v]) is not None]
    if not op.has_lowering:
        raise HostOperatorError(op.name)
    counts = None if op.counted is None else operands[op.counted]
    if counts is not None:  # a run reads the size that is called after the result
        sizes[str(ctx.outputs[0].shape[0])] = int(counts.data.reshape(()))
    b = KernelBuilder("case")
    arrays: dict[str, Array] = {}
    tensors: list[Tensor | None] = []
    for i, o in enumerate(operands):
        if o is None:
            tensors.append(None)
            continue
        t = o.type
        if o.constant and o.data.size and np.all(o.data.view() == o.data.flat[0]):
            literal = o.data.flat[0].item() if t.dtype != "bf16" else float(o.data.flat[0])
            tensors.append(Tensor(f"x{i}", t.dtype, t.shape, literal))
            continue
        declare = b.constant if o.constant else b.input
        tensor = declare(f"x{i}", t.dtype, t.shape)
        arrays[tensor.name] = np.array(o.data, order="C")
        tensors.append(tensor)
    results = [b.mark_output(t) for t in op.lower(ctx, b, *tensors)]
    for t in results:
        shape = tuple(evaluate(d, sizes) for d in t.shape)
        arrays[t.name] = np.zeros(shape, to_numpy(t.dtype))
    run(b.build(), arrays, sizes)
    return [arrays[t.name] for t in results]


def _by(run: RunKernel) -> Executor:
    return lambda bound: execute(bound.op, bound.context(), bound.operands, bound.sizes, run)


def _interpret(kernel: Kernel, arrays: dict[str, Array], sizes: dict[str, int]) -> None:
    interp.run(kernel, arrays, sizes)


def _native(target: Target) -> RunKernel:
    """Kernels as their recipe schedules them, read back from their text, compiled."""

    def run(kernel: Kernel, arrays: dict[str, Array], sizes: dict[str, int]) -> None:
        made = parse_kernel(print_kernel(scheduled(kernel, target)[0]))
        given = for_kernel(made, arrays, sizes)
        native = Native(made, target)
        try:
            assert native(given, sizes) == 0, f"a check failed in\n{made}"
        finally:
            native.close()
        for b in made.params:
            if b.scope == "out":
                arrays[b.name][...] = given[b.name].reshape(arrays[b.name].shape)

    return run


EXECUTORS: dict[str, Executor] = {
    "interpreter": _by(_interpret),
    "native": _by(_native(Target.host())),
}
"""What must agree with `reference`; another one is another function that runs a kernel."""

OTHER_TARGETS: dict[str, Executor] = {
    name: _by(_native(Target.from_name(name)))
    for name in ("x86-64-v3", "x86-64")
    if not Target.from_name(name).missing_on_host()
}
"""Smaller instruction sets that this machine runs too."""


# --- comparing ----------------------------------------------------------------------------------


def assert_close(actual: Array, expected: Array, case: Case, what: str) -> None:
    assert actual.dtype == expected.dtype, f"{what}: {actual.dtype} instead of {expected.dtype}"
    assert actual.shape == expected.shape, f"{what}: {actual.shape} instead of {expected.shape}"
    dtype = from_numpy(expected.dtype)
    if is_float(dtype):
        least = EPSILON[dtype]
        np.testing.assert_allclose(
            actual.astype(np.float64),
            expected.astype(np.float64),
            rtol=max(case.rtol, least),
            atol=max(case.atol, least),
            err_msg=what,
        )
    else:
        np.testing.assert_array_equal(actual, expected, err_msg=what)


def assert_types(
    types: Sequence[TensorType], results: Sequence[Array], sizes: dict[str, int]
) -> None:
    """Results have the inferred types, and the values that were inferred."""
    assert len(types) == len(results)
    for t, array in zip(types, results, strict=True):
        assert to_numpy(t.dtype) == array.dtype
        assert tuple(evaluate(d, sizes) for d in t.shape) == array.shape
        if t.value is not None:
            known = [evaluate(v, sizes) for v in t.value]
            assert known == array.astype(np.int64).reshape(-1).tolist()
