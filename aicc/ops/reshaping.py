"""Operators whose result has the operand's elements in the same order: Reshape and its kin."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from aicc.graph_ir.types import TensorType
from aicc.ops.broadcast import never_equal, never_one, show
from aicc.ops.registry import Array, Case, OpContext, Operator, operator
from aicc.ops.samples import floats, ints, sample
from aicc.ops.sizes import axes_in, check_agree, upgrade_axes
from aicc.symbolic import Size, product, proves_lt
from aicc.tensor_ir.builder import KernelBuilder, Tensor


def same_order(
    index: Sequence[Size], shape: Sequence[Size], source: Sequence[Size]
) -> tuple[Size, ...]:
    """The index in `source` of the element that has `index` in `shape`, in row-major order.

    The axes are matched in the smallest groups with equal products, so that a size that both shapes
    have is passed through, whatever symbols it has.
    """
    result: list[Size] = []
    for own, other in _groups(list(shape), list(source)):
        linear: Size = 0
        for axis in own:
            linear = linear * shape[axis] + index[axis]
        inner: list[Size] = []
        for axis in reversed(other[1:]):
            extent = source[axis]
            inner.append(linear % extent if extent != 0 else 0)
            linear = linear // extent if extent != 0 else 0
        if other:
            inner.append(linear)
        result.extend(reversed(inner))
    return tuple(result)


def _groups(
    shape: Sequence[Size], source: Sequence[Size]
) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Pairs of runs of axes with equal numbers of elements; together they cover both shapes."""
    groups = []
    at_shape = at_source = 0
    while at_shape < len(shape) or at_source < len(source):
        end = _first_match(shape[at_shape:], source[at_source:])
        own = tuple(range(at_shape, at_shape + end[0]))
        other = tuple(range(at_source, at_source + end[1]))
        groups.append((own, other))
        at_shape, at_source = at_shape + end[0], at_source + end[1]
    return groups


def _first_match(shape: Sequence[Size], source: Sequence[Size]) -> tuple[int, int]:
    """The least numbers of leading axes with equal products; all axes where there are none."""
    if not shape or not source:
        return len(shape), len(source)
    sources: dict[Size, int] = {}
    total: Size = 1
    for n, extent in enumerate(source, 1):
        total = total * extent
        sources.setdefault(total, n)
    total = 1
    for n, extent in enumerate(shape, 1):
        total = total * extent
        if total in sources and total != 0:
            return n, sources[total]
    return len(shape), len(source)


class Reshaping(Operator):
    """The same elements in the same order, in another shape.

    Where the numbers of elements are only equal if the symbols have the right values, the kernel
    checks that they are; such a node is no mere view.
    """

    view = True

    def shape(self, ctx: OpContext) -> tuple[Size, ...]:
        raise NotImplementedError

    def infer(self, ctx: OpContext) -> list[TensorType]:
        x, shape = ctx.input(0), self.shape(ctx)
        if never_equal(x.count, product(shape)):
            ctx.fail(f"{x.count} elements do not fit the shape {show(shape)}")
        known = x.value if all(isinstance(d, int) for d in shape) else None
        return [TensorType(x.dtype, shape, known)]

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        raise NotImplementedError

    def lower(self, ctx: OpContext, b: KernelBuilder, *inputs: Tensor | None) -> Sequence[Tensor]:
        x, shape = inputs[0], ctx.outputs[0].shape
        assert x is not None
        source = x.shape
        check_agree(ctx, b, product(source), product(shape), "number of elements")
        return [b.compute(shape, lambda *i: x[same_order(i, shape, source)])]


@operator("Reshape", inputs=2, attributes={"allowzero": 0})
class Reshape(Reshaping):
    """A new shape: 0 copies the operand's size (unless allowzero), -1 is what remains.

    The shape was an attribute before opset 5.
    """

    def upgrade(
        self, attrs: dict[str, Any], inputs: list[str], opset: int, graph: Any
    ) -> tuple[dict[str, Any], list[str]]:
        attrs.pop("consumed_inputs", None)
        shape = attrs.pop("shape", None)
        if opset < 5:
            inputs = [inputs[0], graph.add_constant("shape", np.asarray(shape, np.int64))]
        return attrs, inputs

    def shape(self, ctx: OpContext) -> tuple[Size, ...]:
        x = ctx.input(0)
        wanted = ctx.require_value(1, "the shape")
        if ctx.input(1).rank != 1:
            ctx.fail("the shape (input 1) must have rank 1")
        result: list[Size] = []
        remaining: int | None = None
        for axis, size in enumerate(wanted):
            if size == 0 and not ctx.attrs["allowzero"]:
                if axis >= x.rank:
                    ctx.fail(f"0 at place {axis} of {show(wanted)} copies a size that is not there")
                result.append(x.shape[axis])
            elif size == -1:
                if remaining is not None:
                    ctx.fail(f"-1 is there twice in {show(wanted)}")
                remaining = axis
                result.append(1)
            elif proves_lt(size, 0):
                ctx.fail(f"{size} in {show(wanted)} is no size")
            else:
                result.append(size)
        if remaining is not None:
            result[remaining] = self._remaining(ctx, x.count, product(result), wanted)
        return tuple(result)

    def _remaining(
        self, ctx: OpContext, total: Size, others: Size, wanted: tuple[Size, ...]
    ) -> Size:
        if others == 0:
            ctx.fail(f"-1 in {show(wanted)} beside a size of 0 may be anything")
        if isinstance(total, int) and isinstance(others, int) and total % others:
            ctx.fail(f"{total} elements do not fit the shape {show(wanted)}")
        return total // others

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        x, shape = inputs
        assert x is not None and shape is not None
        sizes = [int(s) for s in shape]
        if not ctx.attrs["allowzero"]:
            sizes = [x.shape[i] if s == 0 else s for i, s in enumerate(sizes)]
        return [x.reshape(sizes)]

    def cases(self) -> Iterable[Case]:
        x = floats(2, 3, 4)
        for wanted in ((4, 6), (24,), (2, 3, 2, 2), (1, 2, 1, 12), (3, 2, 4), (2, 12, 1)):
            yield Case("x".join(map(str, wanted)), (x, ints(wanted)), constant=(1,))
        yield Case("rest", (x, ints((-1, 4))), constant=(1,), symbolic={(0, 0): "n", (0, 1): "m"})
        yield Case("copy", (x, ints((0, -1))), constant=(1,), symbolic={(0, 0): "n", (0, 1): "m"})
        heads = floats(2, 5, 12), ints((0, 0, 3, 4))
        yield Case("heads", heads, constant=(1,), symbolic={(0, 0): "n", (0, 1): "s"})
        joined = floats(2, 5, 3, 4), ints((-1, 12))
        yield Case("joined", joined, constant=(1,), symbolic={(0, 0): "n", (0, 1): "s"})
        yield Case("fixed", (x, ints((6, 4))), constant=(1,), symbolic={(0, 0): "n", (0, 1): "m"})
        yield Case("half", (x, ints((2, -1))), constant=(1,), symbolic={(0, 1): "m", (0, 2): "k"})
        yield Case("scalar", (floats(1, 1), ints(())), constant=(1,))
        yield Case("from_scalar", (floats(), ints((1, 1))), constant=(1,))
        yield Case("empty", (floats(2, 0, 3), ints((0, 7))), {"allowzero": 1}, constant=(1,))
        yield Case("empty_copy", (floats(0, 3), ints((0, 3, 1))), constant=(1,))
        for t in ("i64", "bool", "f16"):
            yield Case(t, (sample(6, dtype=t), ints((2, 3))), constant=(1,))


@operator("Flatten", attributes={"axis": 1})
class Flatten(Reshaping):
    """A matrix: the axes before `axis`, and the rest."""

    def shape(self, ctx: OpContext) -> tuple[Size, ...]:
        x, axis = ctx.input(0), int(ctx.attrs["axis"])
        if not -x.rank <= axis <= x.rank:
            ctx.fail(f"axis {axis} is outside [{-x.rank}, {x.rank}]")
        axis = axis + x.rank if axis < 0 else axis
        return product(x.shape[:axis]), product(x.shape[axis:])

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        (x,) = inputs
        assert x is not None
        axis = int(ctx.attrs["axis"])
        axis = axis + x.ndim if axis < 0 else axis
        rows = int(np.prod(x.shape[:axis], dtype=np.int64))
        columns = int(np.prod(x.shape[axis:], dtype=np.int64))
        return [x.reshape(rows, columns)]

    def cases(self) -> Iterable[Case]:
        x = floats(2, 3, 4, 5)
        for axis in (0, 1, 2, 4, -1, -4):
            symbols = {(0, 0): "n", (0, 2): "h"}
            yield Case(f"axis{axis}", (x,), {"axis": axis}, symbolic=symbols)
        yield Case("vector", (floats(7),), {"axis": 1})
        yield Case("scalar", (floats(),), {"axis": 0})
        yield Case("empty", (floats(2, 0, 3),))


@operator("Squeeze", inputs=(1, 2))
class Squeeze(Reshaping):
    """Without the axes named, which have size 1, or all axes of size 1 where none is.

    The axes were an attribute before opset 13.
    """

    def upgrade(
        self, attrs: dict[str, Any], inputs: list[str], opset: int, graph: Any
    ) -> tuple[dict[str, Any], list[str]]:
        upgrade_axes(attrs, inputs, graph)
        return attrs, inputs

    def shape(self, ctx: OpContext) -> tuple[Size, ...]:
        x = ctx.input(0)
        if not ctx.has(1):
            for size in x.shape:
                if size != 1 and not never_one(size):
                    ctx.fail(f"axes are needed: size {size} may be 1 or not")
            return tuple(d for d in x.shape if d != 1)
        axes = axes_in(ctx, ctx.ints(1, "axes"), x.rank)
        for axis in axes:
            if never_one(x.shape[axis]):
                ctx.fail(f"axis {axis} of size {x.shape[axis]} is not 1")
        return tuple(d for axis, d in enumerate(x.shape) if axis not in axes)

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        x, axes = (*inputs, None)[:2]
        assert x is not None
        return [np.squeeze(x, None if axes is None else tuple(int(a) for a in axes))]

    def cases(self) -> Iterable[Case]:
        x = floats(1, 3, 1, 5)
        yield Case("all", (x,))
        yield Case("one", (x, ints((0,))), constant=(1,), symbolic={(0, 1): "n"})
        yield Case("both", (x, ints((-2, 0))), constant=(1,), symbolic={(0, 1): "n"})
        yield Case("checked", (x, ints((2,))), constant=(1,), symbolic={(0, 2): "n"})
        yield Case("scalar", (sample(1, dtype="i64"), ints((0,))), constant=(1,))


@operator("Unsqueeze", inputs=2)
class Unsqueeze(Reshaping):
    """With axes of size 1 at the places named, which count in the result.

    The axes were an attribute before opset 13.
    """

    def upgrade(
        self, attrs: dict[str, Any], inputs: list[str], opset: int, graph: Any
    ) -> tuple[dict[str, Any], list[str]]:
        upgrade_axes(attrs, inputs, graph)
        return attrs, inputs

    def shape(self, ctx: OpContext) -> tuple[Size, ...]:
        x = ctx.input(0)
        given = ctx.ints(1, "axes")
        axes = axes_in(ctx, given, x.rank + len(given))
        rest = iter(x.shape)
        return tuple(1 if i in axes else next(rest) for i in range(x.rank + len(axes)))

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        x, axes = inputs
        assert x is not None and axes is not None
        return [np.expand_dims(x, tuple(int(a) for a in axes.reshape(-1)))]

    def cases(self) -> Iterable[Case]:
        x = floats(3, 5)
        for axes in ((0,), (1,), (-1,), (0, 3), (2, 0), (0, 1, -1)):
            name = "_".join(map(str, axes))
            yield Case(name, (x, ints(axes)), constant=(1,), symbolic={(0, 0): "n"})
        yield Case("scalar", (sample(dtype="i64"), ints((0,))), constant=(1,))
