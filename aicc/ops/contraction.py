"""MatMul, Gemm and Einsum: sums of products over shared axes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from aicc.graph_ir.types import TensorType
from aicc.ops.broadcast import broadcast_shape, reader
from aicc.ops.registry import (
    REQUIRED,
    Array,
    Case,
    GraphRewriter,
    OpContext,
    Operator,
    operator,
)
from aicc.ops.samples import sample
from aicc.ops.sizes import accumulator, agree, check_agree
from aicc.symbolic import Size
from aicc.tensor_ir.builder import KernelBuilder, Tensor
from aicc.tensor_ir.ir import Expr, cast


def wide(x: Array) -> Array:
    """16-bit floats as f32, in which their sums are accumulated."""
    return x.astype(np.float32) if x.dtype.itemsize == 2 and x.dtype.kind not in "iu" else x


@operator("MatMul", since=1, inputs=2)
class MatMul(Operator):
    """numpy.matmul: the last two axes are matrices, those before broadcast; 1-D operands are
    vectors, whose added axis is not in the result. ONNX MatMul-13."""

    def infer(self, ctx: OpContext) -> list[TensorType]:
        a, w = ctx.input(0), ctx.input(1)
        if a.rank == 0 or w.rank == 0:
            ctx.fail("operands must have at least one axis")
        if a.dtype != w.dtype:
            ctx.fail("operands must be of one type")
        batch, _, rows, cols = self._split(ctx, a.shape, w.shape)
        return [TensorType(a.dtype, (*batch, *rows, *cols))]

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        a, w = inputs
        assert a is not None and w is not None
        return [np.asarray(np.matmul(wide(a), wide(w))).astype(a.dtype)]

    def lower(self, ctx: OpContext, b: KernelBuilder, *inputs: Tensor | None) -> Sequence[Tensor]:
        x, w = inputs
        assert x is not None and w is not None
        batch, depth, rows, cols = self._split(ctx, x.shape, w.shape)
        check_agree(ctx, b, x.shape[-1], w.shape[max(0, w.rank - 2)], "contracted sizes")
        left = reader(ctx, b, x, (*batch, *x.shape[-2:]) if x.rank > 1 else x.shape)
        right = reader(ctx, b, w, (*batch, *w.shape[-2:]) if w.rank > 1 else w.shape)
        n, m = len(batch), len(batch) + len(rows)
        sum_type = accumulator(x.dtype)

        def term(*index: Size) -> Expr:
            outer, row, col, k = index[:n], index[n:m], index[m:-1], index[-1]
            product_of = (left((*outer, *row, k)), right((*outer, k, *col)))
            return cast(product_of[0], sum_type) * cast(product_of[1], sum_type)

        out = b.reduce((*batch, *rows, *cols), (depth,), term, name="dot")
        if sum_type == x.dtype:
            return [out]
        return [b.compute(out.shape, lambda *i: cast(out[i], x.dtype))]

    @staticmethod
    def _split(
        ctx: OpContext, a: tuple[Size, ...], w: tuple[Size, ...]
    ) -> tuple[tuple[Size, ...], Size, tuple[Size, ...], tuple[Size, ...]]:
        """Batch axes, the contracted size, and the rows and columns (empty for vectors)."""
        rows, cols = a[-2:-1], w[-1:] if len(w) > 1 else ()
        depth = agree(ctx, a[-1], w[max(0, len(w) - 2)], "contracted sizes")
        return broadcast_shape(ctx, a[:-2], w[:-2]), depth, rows, cols

    def cases(self) -> Iterable[Case]:
        for name, a, w in (
            ("matrix", (3, 4), (4, 5)),
            ("deep", (7, 33), (33, 17)),
            ("batch", (2, 3, 4), (2, 4, 5)),
            ("broadcast", (2, 1, 3, 4), (3, 4, 2)),
            ("broadcast_right", (4, 5), (2, 3, 5, 2)),
            ("vector_matrix", (4,), (4, 5)),
            ("vector_batch", (4,), (3, 4, 5)),
            ("matrix_vector", (2, 3, 4), (4,)),
            ("vectors", (4,), (4,)),
            ("outer", (3, 1), (1, 5)),
            ("empty_depth", (2, 0), (0, 3)),
        ):
            yield Case(name, (sample(*a), sample(*w, seed=1)))
        symbolic = {(0, 0): "batch", (0, 1): "rows"}
        yield Case("symbolic", (sample(2, 3, 6), sample(6, 5, seed=1)), symbolic=symbolic)
        both = {(0, 0): "n", (1, 0): "n", (0, 2): "k", (1, 1): "k", (1, 2): "m"}
        yield Case("symbolic_both", (sample(2, 3, 6), sample(2, 6, 5, seed=1)), symbolic=both)
        fixed = (sample(4, 6), sample(6, 5, seed=1))
        yield Case("constant", fixed, constant=(1,), symbolic={(0, 0): "rows"})
        yield Case("agrees", fixed, symbolic={(0, 1): "k"})
        for dtype in ("f64", "i32", "i64"):
            pair = (sample(3, 4, dtype=dtype), sample(4, 5, seed=1, dtype=dtype))
            yield Case(dtype, pair)
        half = (sample(3, 40, dtype="f16"), sample(40, 5, seed=1, dtype="f16"))
        yield Case("f16", half, rtol=2e-3, atol=2e-3)
        brain = (sample(3, 40, dtype="bf16"), sample(40, 5, seed=1, dtype="bf16"))
        yield Case("bf16", brain, rtol=2e-2, atol=2e-2)


@operator(
    "Gemm",
    since=7,
    inputs=(2, 3),
    attributes={"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0},
)
class Gemm(Operator):
    """alpha * A' B' + beta * C, A [M,K] and B [K,N] (or transposed), C broadcasts to [M,N].
    ONNX Gemm-13."""

    def infer(self, ctx: OpContext) -> list[TensorType]:
        a, w = ctx.input(0), ctx.input(1)
        if a.rank != 2 or w.rank != 2:
            ctx.fail("operands must be matrices")
        m, k = a.shape[::-1] if ctx.attrs["transA"] else a.shape
        k2, n = w.shape[::-1] if ctx.attrs["transB"] else w.shape
        agree(ctx, k, k2, "contracted sizes")
        if ctx.has(2) and broadcast_shape(ctx, ctx.input(2).shape, (m, n)) != (m, n):
            ctx.fail("C must broadcast to the product")
        return [TensorType(a.dtype, (m, n))]

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        a, w, *rest = inputs
        assert a is not None and w is not None
        left = a.T if ctx.attrs["transA"] else a
        right = w.T if ctx.attrs["transB"] else w
        y = np.matmul(wide(left), wide(right)) * np.asarray(ctx.attrs["alpha"]).astype(
            wide(a).dtype
        )
        if rest and rest[0] is not None:
            y = y + wide(rest[0]) * np.asarray(ctx.attrs["beta"]).astype(y.dtype)
        return [y.astype(a.dtype)]

    def decompose(self, ctx: OpContext, g: GraphRewriter, *inputs: str) -> Sequence[str] | None:
        a, w = inputs[:2]
        dtype = ctx.input(0).dtype
        alpha, beta = float(ctx.attrs["alpha"]), float(ctx.attrs["beta"])
        if ctx.attrs["transA"]:
            a = g.op("Transpose", a, perm=(1, 0))
        if ctx.attrs["transB"]:
            w = g.op("Transpose", w, perm=(1, 0))
        if alpha != 1.0 and ctx.constant(1) is not None:
            w = g.op("Mul", w, g.constant(alpha, dtype))  # folds into the weights
            alpha = 1.0
        y = g.op("MatMul", a, w)
        if alpha != 1.0:
            y = g.op("Mul", y, g.constant(alpha, dtype))
        if len(inputs) > 2 and inputs[2] and beta != 0.0:
            c = inputs[2]
            if beta != 1.0:
                c = g.op("Mul", c, g.constant(beta, dtype))
            y = g.op("Add", y, c)
        return [y]

    def cases(self) -> Iterable[Case]:
        a, w = sample(3, 4), sample(4, 5, seed=1)
        rows = {(0, 0): "rows"}
        yield Case("plain", (a, w), symbolic=rows)
        for name, c in (("full", (3, 5)), ("row", (5,)), ("column", (3, 1)), ("scalar", ())):
            yield Case(f"c_{name}", (a, w, sample(*c, seed=2)))
        yield Case("linear", (a, w.T.copy(), sample(5, seed=2)), {"transB": 1}, constant=(1, 2))
        scaled = {"alpha": 0.5, "beta": 0.25, "transA": 1, "transB": 1}
        both = (a.T.copy(), w.T.copy(), sample(5, seed=2))
        yield Case("scaled", both, scaled, symbolic={(0, 1): "rows"})
        yield Case("scaled_constant", both, scaled, constant=(1,))
        yield Case("beta_zero", (a, w, sample(5, seed=2)), {"beta": 0.0})


class _Equation:
    """An Einsum equation against operand shapes.

    operands: the letters of each operand; output: those of the result; sizes: of every letter. The
    axes of an ellipsis get the private letters "0", "1", ... from its last axis to its first.
    """

    def __init__(self, ctx: OpContext, shapes: Sequence[Sequence[Size]]) -> None:
        text = str(ctx.attrs["equation"]).replace(" ", "")
        left, arrow, right = text.partition("->")
        terms = left.split(",")
        if len(terms) != len(shapes):
            ctx.fail(f"equation {text!r} has {len(terms)} terms for {len(shapes)} operands")
        dots = 0
        self.operands: list[str] = []
        self.sizes: dict[str, Size] = {}
        for term, shape in zip(terms, shapes):
            named = term.replace("...", "")
            if not all(c.isalpha() for c in named):
                ctx.fail(f"equation {text!r} is malformed")
            extra = len(shape) - len(named)
            if extra < 0 or (extra and "..." not in term):
                ctx.fail(f"term {term!r} does not fit an operand of {len(shape)} axes")
            dots = max(dots, extra)
            letters = term.replace("...", _dots(extra))
            self.operands.append(letters)
            for c, d in zip(letters, shape):
                known = self.sizes.get(c, 1)
                if known == 1:
                    self.sizes[c] = d
                elif d != 1:
                    self.sizes[c] = agree(ctx, known, d, f"sizes of {c!r}")
        if arrow:
            self.output = right.replace("...", _dots(dots))
        else:
            once = (c for c in sorted(set(left)) if c.isalpha() and left.count(c) == 1)
            self.output = _dots(dots) + "".join(once)
        if any(c not in self.sizes for c in self.output) or len(set(self.output)) != len(
            self.output
        ):
            ctx.fail(f"equation {text!r}: the result's axes do not come from the operands")

    @property
    def shape(self) -> tuple[Size, ...]:
        return tuple(self.sizes[c] for c in self.output)

    @property
    def contracted(self) -> str:
        return "".join(c for c in self.sizes if c not in self.output)


def _dots(count: int) -> str:
    if count > 9:
        raise ValueError("an ellipsis stands for more than nine axes")
    return "".join(str(n) for n in reversed(range(count)))


@operator("Einsum", since=12, inputs=(1, None), attributes={"equation": REQUIRED})
class Einsum(Operator):
    """Sums of products by an equation such as "bij,bjk->bik". ONNX Einsum-12."""

    def infer(self, ctx: OpContext) -> list[TensorType]:
        types = [ctx.input(i) for i in range(len(ctx.types))]
        if any(t.dtype != types[0].dtype for t in types):
            ctx.fail("operands must be of one type")
        return [TensorType(types[0].dtype, _Equation(ctx, [t.shape for t in types]).shape)]

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        arrays = [x for x in inputs if x is not None]
        y = np.einsum(str(ctx.attrs["equation"]).replace(" ", ""), *(wide(x) for x in arrays))
        return [np.asarray(y).astype(arrays[0].dtype)]

    def decompose(self, ctx: OpContext, g: GraphRewriter, *inputs: str) -> Sequence[str] | None:
        """Three operands and more are contracted two at a time, from the left."""
        if len(inputs) < 3:
            return None
        eq = _Equation(ctx, [ctx.input(i).shape for i in range(len(inputs))])
        if any(c.isdigit() for c in eq.sizes):
            return None
        value, letters = inputs[0], eq.operands[0]
        for n in range(1, len(inputs)):
            later = "".join(eq.operands[n + 1 :]) + eq.output
            both = dict.fromkeys(letters + eq.operands[n])
            kept = eq.output if n == len(inputs) - 1 else "".join(c for c in both if c in later)
            equation = f"{letters},{eq.operands[n]}->{kept}"
            value, letters = g.op("Einsum", value, inputs[n], equation=equation), kept
        return [value]

    def lower(self, ctx: OpContext, b: KernelBuilder, *inputs: Tensor | None) -> Sequence[Tensor]:
        tensors = [t for t in inputs if t is not None]
        eq = _Equation(ctx, [t.shape for t in tensors])
        for t, letters in zip(tensors, eq.operands):
            for c, d in zip(letters, t.shape):
                if d != 1:
                    check_agree(ctx, b, d, eq.sizes[c], f"sizes of {c!r}")
        contracted = eq.contracted
        dtype = tensors[0].dtype
        sum_type = accumulator(dtype)

        def term(*index: Size) -> Expr:
            at = dict(zip(eq.output + contracted, index))
            product: Expr | None = None
            for t, letters in zip(tensors, eq.operands):
                axes = (0 if d == 1 else at[c] for c, d in zip(letters, t.shape))
                factor = cast(t[tuple(axes)], sum_type)
                product = factor if product is None else product * factor
            assert product is not None
            return product

        extents = tuple(eq.sizes[c] for c in contracted)
        if not extents:
            return [b.compute(eq.shape, lambda *i: cast(term(*i), dtype))]
        out = b.reduce(eq.shape, extents, term, name="dot")
        if sum_type == dtype:
            return [out]
        return [b.compute(out.shape, lambda *i: cast(out[i], dtype))]

    def cases(self) -> Iterable[Case]:
        x = sample(2, 3, 4)
        for name, equation, shapes in (
            ("batch_matmul", "bij, bjk -> bik", ((2, 3, 4), (2, 4, 5))),
            ("scores", "bhqd,bhkd->bhqk", ((1, 2, 3, 4), (1, 2, 5, 4))),
            ("implicit", "ij,jk", ((3, 4), (4, 5))),
            ("transpose", "ij->ji", ((3, 4),)),
            ("sum", "ij->i", ((3, 4),)),
            ("sum_all", "ij->", ((3, 4),)),
            ("diagonal", "ii->i", ((4, 4),)),
            ("trace", "ii", ((4, 4),)),
            ("inner", "i,i", ((5,), (5,))),
            ("outer", "i,j->ij", ((3,), (5,))),
            ("ellipsis", "...ij,...jk->...ik", ((2, 3, 4), (4, 5))),
            ("ellipsis_broadcast", "...ij,...j->...i", ((2, 1, 3, 4), (5, 4))),
            ("ellipsis_implicit", "...ij->...ji", ((2, 3, 4),)),
            ("three", "ab,bc,cd->ad", ((2, 3), (3, 4), (4, 5))),
            ("three_ellipsis", "...a,ab,b->...", ((2, 3), (3, 4), (4,))),
        ):
            operands = tuple(sample(*s, seed=n) for n, s in enumerate(shapes))
            yield Case(name, operands, {"equation": equation})
        named = {(0, 0): "b", (1, 0): "b", (0, 1): "rows"}
        pair = (x, sample(2, 4, 5, seed=1))
        yield Case("symbolic", pair, {"equation": "bij,bjk->bik"}, symbolic=named)
