"""Reductions over axes: sums, products, extrema, and what is composed of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from aicc.dtypes import is_float
from aicc.graph_ir.types import TensorType
from aicc.ops.contraction import wide
from aicc.ops.registry import Array, Case, GraphRewriter, OpContext, Operator, operator
from aicc.ops.samples import floats, ints, sample
from aicc.ops.sizes import accumulator, axes_in, upgrade_axes
from aicc.ops.values import array_of, typed
from aicc.symbolic import Size, maximum, minimum, product
from aicc.tensor_ir.builder import KernelBuilder, Tensor
from aicc.tensor_ir.ir import Expr, as_expr, call, cast

_ATTRIBUTES = {"keepdims": 1, "noop_with_empty_axes": 0}


def reduced_axes(ctx: OpContext) -> tuple[int, ...]:
    """The axes that a node reduces: operand 1, or all where it is omitted or empty."""
    rank = ctx.input(0).rank
    axes = ctx.ints(1, "axes") if ctx.has(1) else ()
    if not axes:
        return () if ctx.attrs["noop_with_empty_axes"] else tuple(range(rank))
    return axes_in(ctx, axes, rank)


class _Reduce(Operator):
    """Common to reductions: operand 0 the data, operand 1 the axes, all of them where omitted."""

    def upgrade(
        self, attrs: dict[str, Any], inputs: list[str], opset: int, graph: Any
    ) -> tuple[dict[str, Any], list[str]]:
        upgrade_axes(attrs, inputs, graph)
        return attrs, inputs

    def infer(self, ctx: OpContext) -> list[TensorType]:
        x, axes = ctx.input(0), reduced_axes(ctx)
        if ctx.attrs["keepdims"]:
            shape = tuple(1 if n in axes else d for n, d in enumerate(x.shape))
        else:
            shape = tuple(d for n, d in enumerate(x.shape) if n not in axes)
        contents = array_of(x)
        if contents is not None and x.rank == 1 and axes == (0,):
            value = self.fold(contents.tolist())
            if value is not None:
                filled = np.empty(1, dtype=object)
                filled[0] = value
                return [typed(x.dtype, shape, filled.reshape([int(d) for d in shape]))]
        return [TensorType(x.dtype, shape)]

    def fold(self, values: list[Size]) -> Size | None:
        """The result for a vector of known sizes; None where it is not tracked."""
        return None

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        x = inputs[0]
        assert x is not None
        axes, keep = reduced_axes(ctx), bool(ctx.attrs["keepdims"])
        return [np.asarray(self.numpy(wide(x), axes, keep)).astype(x.dtype)]

    def numpy(self, x: Array, axes: tuple[int, ...], keepdims: bool) -> Any:
        raise NotImplementedError

    def cases(self) -> Iterable[Case]:
        yield from self._cases()

    def _cases(self, positive: bool = False, atol: float = 1e-5) -> Iterable[Case]:
        def data(*shape: int, dtype: str = "f32") -> Array:
            return floats(*shape, lo=0.5, hi=2.0, dtype=dtype) if positive else sample(*shape)

        x = data(3, 4, 5)
        for axes in ((0,), (1,), (-1,), (0, 2), (1, 2), (0, 1, 2)):
            name = "_".join(str(a).replace("-", "m") for a in axes)
            for keep in (0, 1):
                yield Case(
                    f"axes_{name}_keep{keep}",
                    (x, ints(axes)),
                    {"keepdims": keep},
                    constant=(1,),
                    symbolic={(0, 0): "n", (0, 2): "m"},
                    atol=atol,
                )
        yield Case("all", (x,), atol=atol)
        yield Case("all_flat", (x,), {"keepdims": 0}, symbolic={(0, 1): "n"}, atol=atol)
        yield Case("empty_axes", (x, ints(())), constant=(1,), atol=atol)
        noop = {"noop_with_empty_axes": 1}
        yield Case("no_axes", (x, ints(())), noop, constant=(1,), atol=atol)
        for n in (37, 83):
            yield Case(f"long{n}", (data(2, n), ints((1,))), constant=(1,), atol=1e-4)
        both = (data(3, 2, 7, 9), ints((2, 3)))
        yield Case("two_of_four", both, constant=(1,), symbolic={(0, 0): "n"}, atol=1e-4)
        yield Case("size_one", (data(3, 1, 2), ints((1,))), constant=(1,), atol=atol)


class _Primitive(_Reduce):
    """A reduction with a lowering: `combine` over elements, then `finish`."""

    combine = ""

    def finish(self, value: Expr, count: Size) -> Expr:
        """The result from the combination of `count` elements."""
        return value

    def lower(self, ctx: OpContext, b: KernelBuilder, *inputs: Tensor | None) -> Sequence[Tensor]:
        x = inputs[0]
        assert x is not None
        axes, keep = reduced_axes(ctx), bool(ctx.attrs["keepdims"])
        kept = [n for n in range(x.rank) if n not in axes]
        shape = tuple(
            (1 if n in axes else d) for n, d in enumerate(x.shape) if keep or n not in axes
        )
        extents = tuple(x.shape[a] for a in axes)
        sums = self.combine in ("add", "mul")
        inner = accumulator(x.dtype) if sums else x.dtype

        def element(*index: Size) -> Expr:
            outer, position = index[: len(shape)], index[len(shape) :]
            at: dict[int, Size] = dict(zip(axes, position))
            at.update((n, outer[n if keep else kept.index(n)]) for n in kept)
            return cast(x[tuple(at[n] for n in range(x.rank))], inner)

        if not axes:
            return [b.compute(shape, lambda *i: self.result(element(*i), 1, x.dtype))]
        combine = self.combine
        if x.dtype == "bool":
            combine = {"max": "or", "min": "and"}.get(combine, combine)
        total = b.reduce(shape, extents, element, op=combine, name=f"reduced_{combine}")
        if inner == x.dtype and type(self).finish is _Primitive.finish:
            return [total]
        count = product(extents)
        return [b.compute(shape, lambda *i: self.result(total[i], count, x.dtype))]

    def result(self, value: Expr, count: Size, dtype: str) -> Expr:
        return cast(self.finish(value, count), dtype)


@operator("ReduceSum", since=1, inputs=(1, 2), attributes=_ATTRIBUTES)
class ReduceSum(_Primitive):
    """The sum over axes. ONNX ReduceSum-13."""

    combine = "add"

    def fold(self, values: list[Size]) -> Size | None:
        total: Size = 0
        for v in values:
            total = total + v
        return total

    def numpy(self, x: Array, axes: tuple[int, ...], keepdims: bool) -> Any:
        return np.sum(x, axis=axes, keepdims=keepdims, dtype=x.dtype)

    def cases(self) -> Iterable[Case]:
        yield from self._cases()
        for dtype in ("f64", "i32", "i64"):
            yield Case(dtype, (sample(3, 5, dtype=dtype), ints((0,))), constant=(1,))
        for dtype, tol in (("f16", 2e-3), ("bf16", 2e-2)):
            x = sample(3, 40, dtype=dtype)
            yield Case(dtype, (x, ints((1,))), constant=(1,), rtol=tol, atol=tol)
        yield Case("empty", (sample(3, 0), ints((1,))), constant=(1,))


@operator("ReduceMean", since=1, inputs=(1, 2), attributes=_ATTRIBUTES)
class ReduceMean(_Primitive):
    """The mean over axes; of integers, truncated. ONNX ReduceMean-18."""

    combine = "add"

    def numpy(self, x: Array, axes: tuple[int, ...], keepdims: bool) -> Any:
        if x.dtype.kind in "iu":
            count = int(np.prod([x.shape[a] for a in axes], dtype=np.int64))
            return np.trunc(np.sum(x, axis=axes, keepdims=keepdims) / count)
        return np.mean(x, axis=axes, keepdims=keepdims)

    def finish(self, value: Expr, count: Size) -> Expr:
        if not is_float(value.dtype):
            return call("div", value, as_expr(count, value.dtype))
        if isinstance(count, int) and count > 0:
            return value * (1.0 / count)
        return value / as_expr(count, value.dtype)

    def cases(self) -> Iterable[Case]:
        yield from self._cases()
        yield Case("i32", (sample(3, 5, dtype="i32"), ints((0,))), constant=(1,))
        x = sample(3, 40, dtype="f16")
        yield Case("f16", (x, ints((1,))), constant=(1,), rtol=2e-3, atol=2e-3)


@operator("ReduceProd", since=1, inputs=(1, 2), attributes=_ATTRIBUTES)
class ReduceProd(_Primitive):
    """The product over axes. ONNX ReduceProd-18."""

    combine = "mul"

    def fold(self, values: list[Size]) -> Size | None:
        return product(values)

    def numpy(self, x: Array, axes: tuple[int, ...], keepdims: bool) -> Any:
        return np.prod(x, axis=axes, keepdims=keepdims, dtype=x.dtype)

    def cases(self) -> Iterable[Case]:
        yield from self._cases()
        yield Case("i64", (sample(3, 5, dtype="i64"), ints((0,))), constant=(1,))


@operator("ReduceMax", since=1, inputs=(1, 2), attributes=_ATTRIBUTES)
class ReduceMax(_Primitive):
    """The largest element over axes; the least value of the type where there is none.
    ONNX ReduceMax-20."""

    combine = "max"

    def fold(self, values: list[Size]) -> Size | None:
        best = values[0] if values else None
        for v in values[1:]:
            best = maximum(best, v)  # type: ignore[arg-type]
        return best

    def numpy(self, x: Array, axes: tuple[int, ...], keepdims: bool) -> Any:
        least: Any = False if x.dtype == bool else -np.inf
        if x.dtype.kind in "iu":
            least = np.iinfo(x.dtype).min
        return np.max(x, axis=axes, keepdims=keepdims, initial=least)

    def cases(self) -> Iterable[Case]:
        yield from self._cases()
        for dtype in ("i32", "i8", "u8", "bool", "f16"):
            yield Case(dtype, (sample(3, 5, dtype=dtype), ints((1,))), constant=(1,))
        yield Case("empty", (sample(3, 0), ints((1,))), constant=(1,))


@operator("ReduceMin", since=1, inputs=(1, 2), attributes=_ATTRIBUTES)
class ReduceMin(_Primitive):
    """The least element over axes; the largest value of the type where there is none.
    ONNX ReduceMin-20."""

    combine = "min"

    def fold(self, values: list[Size]) -> Size | None:
        best = values[0] if values else None
        for v in values[1:]:
            best = minimum(best, v)  # type: ignore[arg-type]
        return best

    def numpy(self, x: Array, axes: tuple[int, ...], keepdims: bool) -> Any:
        most: Any = True if x.dtype == bool else np.inf
        if x.dtype.kind in "iu":
            most = np.iinfo(x.dtype).max
        return np.min(x, axis=axes, keepdims=keepdims, initial=most)

    def cases(self) -> Iterable[Case]:
        yield from self._cases()
        for dtype in ("i32", "i8", "u8", "bool", "f16"):
            yield Case(dtype, (sample(3, 5, dtype=dtype), ints((1,))), constant=(1,))


class _Composite(_Reduce):
    """A reduction made of elementwise operators around a primitive one. Those whose result is no
    integer are computed in f64 for integer operands."""

    in_floats = True

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        x = inputs[0]
        assert x is not None
        exact = x.astype(np.float64) if self.in_floats and x.dtype.kind in "iu" else wide(x)
        axes, keep = reduced_axes(ctx), bool(ctx.attrs["keepdims"])
        return [np.asarray(self.numpy(exact, axes, keep)).astype(x.dtype)]

    def decompose(self, ctx: OpContext, g: GraphRewriter, *inputs: str) -> Sequence[str] | None:
        x = ctx.input(0)
        axes = g.constant(reduced_axes(ctx), "i64")

        def reduce(op: str, value: str, keepdims: int = int(ctx.attrs["keepdims"])) -> str:
            return str(g.op(op, value, axes, keepdims=keepdims, noop_with_empty_axes=1))

        if is_float(x.dtype) or not self.in_floats:
            return [self.compose(g, inputs[0], reduce, x.dtype)]
        exact = g.op("Cast", inputs[0], to="f64")
        return [g.op("Cast", self.compose(g, exact, reduce, "f64"), to=x.dtype)]

    def compose(self, g: GraphRewriter, x: str, reduce: Any, dtype: str) -> str:
        raise NotImplementedError


@operator("ReduceL1", since=1, inputs=(1, 2), attributes=_ATTRIBUTES)
class ReduceL1(_Composite):
    """The sum of magnitudes. ONNX ReduceL1-18."""

    in_floats = False

    def numpy(self, x: Array, axes: tuple[int, ...], keepdims: bool) -> Any:
        return np.sum(np.abs(x), axis=axes, keepdims=keepdims, dtype=x.dtype)

    def compose(self, g: GraphRewriter, x: str, reduce: Any, dtype: str) -> str:
        return str(reduce("ReduceSum", g.op("Abs", x)))


@operator("ReduceSumSquare", since=1, inputs=(1, 2), attributes=_ATTRIBUTES)
class ReduceSumSquare(_Composite):
    """The sum of squares. ONNX ReduceSumSquare-18."""

    in_floats = False

    def numpy(self, x: Array, axes: tuple[int, ...], keepdims: bool) -> Any:
        return np.sum(np.square(x), axis=axes, keepdims=keepdims, dtype=x.dtype)

    def compose(self, g: GraphRewriter, x: str, reduce: Any, dtype: str) -> str:
        return str(reduce("ReduceSum", g.op("Mul", x, x)))


@operator("ReduceL2", since=1, inputs=(1, 2), attributes=_ATTRIBUTES)
class ReduceL2(_Composite):
    """The square root of the sum of squares. ONNX ReduceL2-18."""

    def numpy(self, x: Array, axes: tuple[int, ...], keepdims: bool) -> Any:
        return np.sqrt(np.sum(np.square(x), axis=axes, keepdims=keepdims))

    def compose(self, g: GraphRewriter, x: str, reduce: Any, dtype: str) -> str:
        return str(g.op("Sqrt", reduce("ReduceSum", g.op("Mul", x, x))))

    def cases(self) -> Iterable[Case]:
        yield from self._cases()
        yield Case("i32", (sample(3, 5, dtype="i32"), ints((0,))), constant=(1,))


@operator("ReduceLogSum", since=1, inputs=(1, 2), attributes=_ATTRIBUTES)
class ReduceLogSum(_Composite):
    """The logarithm of the sum. ONNX ReduceLogSum-18."""

    def numpy(self, x: Array, axes: tuple[int, ...], keepdims: bool) -> Any:
        return np.log(np.sum(x, axis=axes, keepdims=keepdims))

    def compose(self, g: GraphRewriter, x: str, reduce: Any, dtype: str) -> str:
        return str(g.op("Log", reduce("ReduceSum", x)))

    def cases(self) -> Iterable[Case]:
        return self._cases(positive=True)


@operator("ReduceLogSumExp", since=1, inputs=(1, 2), attributes=_ATTRIBUTES)
class ReduceLogSumExp(_Composite):
    """log(sum(exp(x))), around the largest element so that nothing overflows.
    ONNX ReduceLogSumExp-18."""

    def numpy(self, x: Array, axes: tuple[int, ...], keepdims: bool) -> Any:
        combine: Any = np.logaddexp
        return combine.reduce(x.astype(np.float64), axis=axes, keepdims=keepdims)

    def compose(self, g: GraphRewriter, x: str, reduce: Any, dtype: str) -> str:
        top = reduce("ReduceMax", x, 1)
        # an infinite maximum must not give inf - inf
        zero = g.constant(0, dtype)
        base = g.op("Where", g.op("IsInf", top), zero, top)
        total = reduce("ReduceSum", g.op("Exp", g.op("Sub", x, base)))
        offset = reduce("ReduceSum", base)  # over axes of size 1: only drops them
        return str(g.op("Add", g.op("Log", total), offset))

    def cases(self) -> Iterable[Case]:
        yield from self._cases()
        x = np.array([[-np.inf, -np.inf], [np.inf, 1.0], [700.0, -np.inf]], np.float64)
        yield Case("infinite", (x, ints((1,))), constant=(1,))
