"""Parts of memory: runs and boxes of elements in place, joins of what is computed in place,
elements at strides, and copies on purpose.

Passes that place values by hand write these; no ONNX model has them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from aicc.graph_ir.types import TensorType
from aicc.ops.joining import Concat
from aicc.ops.registry import REQUIRED, Array, Case, OpContext, Operator, operator
from aicc.ops.reshaping import same_order
from aicc.ops.samples import floats, sample
from aicc.ops.sizes import axis_in
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


@operator(
    "Windows",
    domain="aicc",
    inputs=1,
    attributes={"axis": REQUIRED, "begin": REQUIRED, "shape": REQUIRED, "strides": REQUIRED},
)
class Windows(Operator):
    """y[..., i, j, ..., :] = x[..., begin + i*strides[0] + j*strides[1] + ..., :] along `axis`, in
    whose place the axes of `shape` are: windows that may overlap, or the elements backwards."""

    def infer(self, ctx: OpContext) -> list[TensorType]:
        x, axis, shape = ctx.input(0), int(ctx.attrs["axis"]), _shape(ctx)
        begin, strides = self._steps(ctx)
        if len(shape) != len(strides) or not 0 <= axis < x.rank:
            ctx.fail(f"{len(strides)} strides for the shape {list(shape)} in place of axis {axis}")
        steps = [(d - 1) * s for d, s in zip(shape, strides, strict=True)]
        first, last = (begin + sum(f(0, v) for v in steps) for f in (min, max))
        if 0 not in shape and (first < 0 or proves_lt(x.shape[axis], last + 1)):
            ctx.fail(f"elements {first} to {last} are not inside {x.shape[axis]}")
        return [TensorType(x.dtype, (*x.shape[:axis], *shape, *x.shape[axis + 1 :]))]

    @staticmethod
    def _steps(ctx: OpContext) -> tuple[int, tuple[int, ...]]:
        return int(ctx.attrs["begin"]), tuple(int(s) for s in ctx.attrs["strides"])

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        (x,) = inputs
        assert x is not None
        begin, strides = self._steps(ctx)
        index = np.full((), begin)
        for d, s in zip(_shape(ctx), strides, strict=True):
            index = index[..., None] + np.arange(d) * s
        return [np.asarray(np.take(x, index, int(ctx.attrs["axis"])))]

    def lower(self, ctx: OpContext, b: KernelBuilder, *inputs: Tensor | None) -> Sequence[Tensor]:
        (x,) = inputs
        assert x is not None
        axis = int(ctx.attrs["axis"])
        begin, strides = self._steps(ctx)
        after = axis + len(strides)

        def element(*i: Size) -> Expr:
            at: Size = begin
            for index, s in zip(i[axis:after], strides, strict=True):
                at = at + index * s
            return x[(*i[:axis], at, *i[after:])]

        return [b.compute(ctx.outputs[0].shape, element)]

    def cases(self) -> Iterable[Case]:
        x = floats(3, 11, 4)
        for name, axis, begin, shape, strides in (
            ("overlapping", 1, 0, (5, 3), (2, 1)),
            ("backwards", 1, 10, (11,), (-1,)),
            ("both", 1, 4, (3, 2, 2), (1, -3, 4)),
            ("first", 0, 0, (2, 2), (1, 1)),
            ("last", 2, 3, (2, 2), (-2, 0)),
        ):
            attrs = {"axis": axis, "begin": begin, "shape": shape, "strides": strides}
            yield Case(name, (x,), attrs, symbolic={(0, 0 if axis else 2): "n"})


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


@operator("Join", domain="aicc", inputs=(1, None), attributes={"axis": REQUIRED})
class Join(Concat):
    """The operands one after the other along `axis`, each computed in its place in the result."""

    def joined(self, ctx: OpContext) -> tuple[int, ...]:
        types = [ctx.input(i) for i in range(len(ctx.types))]
        axis = axis_in(ctx, int(ctx.attrs["axis"]), types[0].rank)
        inner = product(types[0].shape[axis + 1 :])
        starts: list[int] = []
        at: Size = 0
        for t in types:
            start = at * inner
            if not isinstance(start, int):
                ctx.fail(f"an operand starts at element {start}, which only a run can tell")
            starts.append(start)
            at = at + t.shape[axis]
        return tuple(starts)

    def cases(self) -> Iterable[Case]:
        x, y = floats(2, 3, 4), floats(2, 5, 4, seed=1)
        yield Case("rows", (x, y), {"axis": 1}, symbolic={(0, 0): "n", (1, 0): "n"})
        yield Case("one", (x,), {"axis": -1}, symbolic={(0, 0): "n"})


_SECTION = {"axis": REQUIRED, "begin": REQUIRED, "extent": REQUIRED}


@operator("Section", domain="aicc", inputs=1, attributes=_SECTION)
class Section(Operator):
    """The indices begin..begin + extent of an axis of x: the operand's own memory."""

    view = True

    def _range(self, ctx: OpContext) -> tuple[int, int, int]:
        x = ctx.input(0)
        axis = axis_in(ctx, int(ctx.attrs["axis"]), x.rank)
        begin, extent = int(ctx.attrs["begin"]), int(ctx.attrs["extent"])
        if begin < 0 or extent < 0 or proves_lt(x.shape[axis], begin + extent):
            ctx.fail(f"{begin}..{begin + extent} is not inside the {x.shape[axis]} of axis {axis}")
        return axis, begin, extent

    def infer(self, ctx: OpContext) -> list[TensorType]:
        x, (axis, _, extent) = ctx.input(0), self._range(ctx)
        return [TensorType(x.dtype, (*x.shape[:axis], extent, *x.shape[axis + 1 :]))]

    def box(self, ctx: OpContext) -> tuple[int, int]:
        return self._range(ctx)[:2]

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        (x,) = inputs
        assert x is not None
        begin, extent = int(ctx.attrs["begin"]), int(ctx.attrs["extent"])
        axis = int(ctx.attrs["axis"]) % x.ndim
        return [x[(slice(None),) * axis + (slice(begin, begin + extent),)].copy()]

    def lower(self, ctx: OpContext, b: KernelBuilder, *inputs: Tensor | None) -> Sequence[Tensor]:
        (x,), (axis, begin, _) = inputs, self._range(ctx)
        assert x is not None

        def element(*i: Size) -> Expr:
            return x[(*i[:axis], i[axis] + begin, *i[axis + 1 :])]

        return [b.compute(ctx.outputs[0].shape, element)]

    def cases(self) -> Iterable[Case]:
        x = floats(3, 6, 5)
        rows = {(0, 0): "n"}
        yield Case("inner", (x,), {"axis": 2, "begin": 1, "extent": 3}, symbolic=rows)
        yield Case("middle", (x,), {"axis": -2, "begin": 4, "extent": 2}, symbolic=rows)
        yield Case("outer", (x,), {"axis": 0, "begin": 1, "extent": 1}, symbolic={(0, 2): "m"})
        yield Case("whole", (x,), {"axis": 1, "begin": 0, "extent": 6})
        yield Case("empty", (x,), {"axis": 1, "begin": 6, "extent": 0})


@operator("Transfer", domain="aicc", inputs=1)
class Transfer(Copy):
    """x, written anew by a kernel where its reader wants it: in a place in a larger tensor, say."""

    copies = False
