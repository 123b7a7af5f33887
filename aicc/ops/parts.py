"""Parts of memory: runs of elements in place, elements at strides, and copies on purpose.

Passes that place values by hand write these; no ONNX model has them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from aicc.graph_ir.types import TensorType
from aicc.ops.registry import REQUIRED, Array, Case, OpContext, Operator, operator
from aicc.ops.reshaping import same_order
from aicc.ops.samples import floats, sample
from aicc.symbolic import Size, product, proves_lt
from aicc.tensor_ir.builder import KernelBuilder, Tensor
from aicc.tensor_ir.ir import Expr


def _shape(ctx: OpContext) -> tuple[int, ...]:
    shape = tuple(int(d) for d in ctx.attrs["shape"])
    if any(d < 0 for d in shape):
        ctx.fail(f"the shape {list(shape)} has a negative size")
    return shape


@operator("Part", domain="aicc", inputs=1, attributes={"begin": REQUIRED, "shape": REQUIRED})
class Part(Operator):
    """The run of elements of x, in row-major order, that starts at `begin`, as a tensor of `shape`:
    the operand's own memory."""

    view = True

    def infer(self, ctx: OpContext) -> list[TensorType]:
        x, shape, begin = ctx.input(0), _shape(ctx), int(ctx.attrs["begin"])
        if begin < 0 or proves_lt(x.count, begin + product(shape)):
            ctx.fail(f"{product(shape)} elements from {begin} on are not inside {x.count}")
        return [TensorType(x.dtype, shape)]

    def part(self, ctx: OpContext) -> int:
        return int(ctx.attrs["begin"])

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        (x,) = inputs
        assert x is not None
        shape, begin = _shape(ctx), int(ctx.attrs["begin"])
        return [x.reshape(-1)[begin : begin + int(np.prod(shape))].reshape(shape)]

    def lower(self, ctx: OpContext, b: KernelBuilder, *inputs: Tensor | None) -> Sequence[Tensor]:
        (x,) = inputs
        assert x is not None
        shape, begin = _shape(ctx), int(ctx.attrs["begin"])
        count = (product(shape),)

        def element(*i: Size) -> Expr:
            (flat,) = same_order(i, shape, count) if shape else (0,)
            return x[same_order((begin + flat,), (product(x.shape),), x.shape)]

        return [b.compute(shape, element)]

    def cases(self) -> Iterable[Case]:
        x = floats(3, 4, 5)
        yield Case("rows", (x,), {"begin": 20, "shape": (2, 4, 5)})
        yield Case("flat", (x,), {"begin": 7, "shape": (31,)})
        yield Case("whole", (x,), {"begin": 0, "shape": (5, 12)})
        yield Case("element", (x,), {"begin": 59, "shape": ()})
        yield Case("empty", (x,), {"begin": 60, "shape": (0, 2)})


@operator("Strided", domain="aicc", inputs=1, attributes={"shape": REQUIRED, "strides": REQUIRED})
class Strided(Operator):
    """y[i, j, ...] = x[i*strides[0] + j*strides[1] + ...] for x with one axis: a part of a larger
    tensor whose elements are not next to each other."""

    def infer(self, ctx: OpContext) -> list[TensorType]:
        x, shape, strides = ctx.input(0), _shape(ctx), self._strides(ctx)
        if x.rank != 1 or len(shape) != len(strides):
            ctx.fail(f"{len(strides)} strides for the shape {list(shape)}")
        last = sum((d - 1) * s for d, s in zip(shape, strides, strict=True))
        if 0 not in shape and proves_lt(x.count, last + 1):
            ctx.fail(f"element {last} is not inside {x.count}")
        return [TensorType(x.dtype, shape)]

    @staticmethod
    def _strides(ctx: OpContext) -> tuple[int, ...]:
        strides = tuple(int(s) for s in ctx.attrs["strides"])
        if any(s < 0 for s in strides):
            ctx.fail(f"the strides {list(strides)} must not be negative")
        return strides

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        (x,) = inputs
        assert x is not None
        index = np.zeros((), np.int64)
        for d, s in zip(_shape(ctx), self._strides(ctx), strict=True):
            index = index[..., None] + np.arange(d) * s
        return [x[index]]

    def lower(self, ctx: OpContext, b: KernelBuilder, *inputs: Tensor | None) -> Sequence[Tensor]:
        (x,) = inputs
        assert x is not None
        strides = self._strides(ctx)

        def element(*i: Size) -> Expr:
            at: Size = 0
            for index, s in zip(i, strides, strict=True):
                at = at + index * s
            return x[at]

        return [b.compute(_shape(ctx), element)]

    def cases(self) -> Iterable[Case]:
        x = floats(60)
        yield Case("planes", (x,), {"shape": (3, 2, 5), "strides": (20, 5, 1)})
        yield Case("columns", (x,), {"shape": (4, 3), "strides": (1, 4)})
        yield Case("empty", (x,), {"shape": (0, 100), "strides": (60, 1)})


@operator("Copy", domain="aicc", inputs=1)
class Copy(Operator):
    """x in memory of its own, so that what x lies in may end."""

    copies = True

    def infer(self, ctx: OpContext) -> list[TensorType]:
        return [ctx.input(0).without_value()]

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        (x,) = inputs
        assert x is not None
        return [x.copy()]

    def lower(self, ctx: OpContext, b: KernelBuilder, *inputs: Tensor | None) -> Sequence[Tensor]:
        (x,) = inputs
        assert x is not None
        return [b.compute(x.shape, lambda *i: x[i])]

    def cases(self) -> Iterable[Case]:
        yield Case("any", (floats(3, 4),), symbolic={(0, 0): "n"})
        yield Case("i64", (sample(5, dtype="i64"),))
