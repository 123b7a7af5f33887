"""The transforms of Winograd's convolution: fewer multiplications for 3x3 windows of stride 1.

A tile of m x m outputs reads (m + 2) x (m + 2) inputs. Both the data of a tile and the filters are
transformed, multiplied element by element, summed over channels, and transformed back:

    y = A' [ (B' d B) * (G w G') ] A        (m + 2)^2 products for m^2 outputs, instead of 9 m^2

For all tiles at once the sums over channels are (m + 2)^2 matrix products [tiles, C] x [C, O].
The matrices are in `aicc.ops.winograd_matrices`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from aicc.graph_ir.types import TensorType
from aicc.ops.registry import REQUIRED, Array, Case, Instead, OpContext, Operator, operator
from aicc.ops.samples import sample
from aicc.ops.sizes import agree, check_agree
from aicc.ops.winograd_matrices import POINTS, WINDOW, as_array, choose, even_odd, matrices
from aicc.ops.winograd_tiles import (
    ATTRIBUTES,
    BETWEEN,
    ODD,
    Axis,
    axes_of,
    data_tiles,
    outputs_of,
    results,
    rows_of,
    tile_of,
    tiles_of,
)
from aicc.pages import loose_array
from aicc.symbolic import Size, ceildiv, maximum, minimum
from aicc.tensor_ir.builder import KernelBuilder, Tensor
from aicc.tensor_ir.ir import Expr, Index, call

SLAB = 1 << 18
"""Elements of transformed filters that are computed at a time where they are constants."""


def _places(axis: Axis, count: int) -> Array:
    """Where the first numbers of each tile along an axis are: [tiles, count]."""
    tiles = range(int(axis.tiles))
    return np.array([[int(axis.place(t, n)) for n in range(count)] for t in tiles])


@operator("WinogradInput", domain="aicc", inputs=1, attributes=BETWEEN)
class WinogradInput(Operator):
    """Data [N, H, W, C] -> the transformed data [(m+2)^2, N, tiles, tiles, C], or with `rows`
    [(m+2)^2, rows, C], of overlapping tiles of m x m outputs (`tile`); beyond the borders and the
    `pads` are zeros."""

    def infer(self, ctx: OpContext) -> list[TensorType]:
        x, m = ctx.input(0), tile_of(ctx)
        rows = rows_of(ctx, x.shape)
        return [TensorType(x.dtype, ((m + 2) ** 2, *rows, x.shape[3]))]

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        (x,) = inputs
        assert x is not None
        m = tile_of(ctx)
        a, axes = m + 2, axes_of(ctx, x.shape)
        top, left = (int(p) for p in ctx.attrs["pads"][:2])
        big = np.zeros((x.shape[0], *(int(axis.inputs) for axis in axes), x.shape[3]))
        inside = big[:, top : top + x.shape[1], left : left + x.shape[2]]
        inside[...] = x[:, : inside.shape[1], : inside.shape[2]]
        rows, columns = (_places(axis, a) for axis in axes)
        tiles = big[:, rows[:, None, :, None], columns[:, None, :]]
        before = as_array(matrices(m)[2])
        made = np.einsum("ip,jq,nhwpqc->ijnhwc", before, before, tiles).astype(x.dtype)
        if not ctx.attrs.get("rows", 0):
            return [made.reshape(a * a, *made.shape[2:])]
        flat = made.reshape(a * a, -1, x.shape[3])
        (count,) = rows_of(ctx, x.shape)
        return [np.pad(flat, ((0, 0), (0, int(count) - flat.shape[1]), (0, 0)), "edge")]

    def lower(self, ctx: OpContext, b: KernelBuilder, *inputs: Tensor | None) -> Sequence[Tensor]:
        (x,) = inputs
        assert x is not None
        a, tile = tile_of(ctx) + 2, data_tiles(ctx, b, x, tiles_of(ctx, x.shape))
        batch, height, width = tile.shape[:3]

        def element(v: Size, *rest: Size) -> Expr:
            if len(rest) == 2:
                row, c = minimum(rest[0], batch * height * width - 1), rest[1]
                h = row // width
                n, h, w = h // height, h % height, row % width
            else:
                n, h, w, c = rest
            return tile[n, h, w, v // a, v % a, c]

        return [b.compute(ctx.outputs[0].shape, element)]

    def cases(self) -> Iterable[Case]:
        symbolic = {(0, 0): "n", (0, 1): "h", (0, 2): "w"}
        for name, shape, tile, pads in (
            ("two", (2, 6, 8, 3), 2, (1, 1, 1, 1)),
            ("two_overhang", (1, 7, 5, 16), 2, (1, 0, 0, 1)),
            ("four", (1, 8, 12, 20), 4, (1, 1, 1, 1)),
            ("four_valid", (2, 6, 10, 2), 4, (0, 0, 0, 0)),
            ("four_overhang", (1, 7, 9, 16), 4, (1, 1, 1, 1)),
            ("four_wide_pads", (1, 3, 4, 5), 4, (2, 3, 0, 4)),
            ("one_tile", (1, 2, 3, 17), 4, (1, 1, 1, 1)),
        ):
            attrs = {"tile": tile, "pads": pads}
            yield Case(name, (sample(*shape),), attrs, symbolic=symbolic, rtol=1e-4, atol=1e-4)
        for name, shape, tile, steps in (
            ("gaps", (2, 6, 8, 3), 2, (2, 2)),
            ("gaps_overhang", (1, 17, 13, 16), 4, (2, 3)),
            ("gaps_of_one_axis", (1, 9, 10, 20), 4, (1, 4)),
        ):
            attrs = {"tile": tile, "pads": (*steps, *steps), "dilations": steps}
            x = sample(*shape)
            yield Case(name, (x,), attrs, symbolic=symbolic, rtol=1e-4, atol=1e-4)
            attrs = {**attrs, "rows": ODD}
            yield Case(f"odd_{name}", (x,), attrs, symbolic=symbolic, rtol=1e-4, atol=1e-4)
        for rows, batch in ((6, 1), (8, 1), (15, 2)):
            attrs = {"tile": 4, "pads": (1, 1, 1, 1), "rows": rows}
            x = sample(batch, 7, 9, 16)
            yield Case(f"rows_{rows}", (x,), attrs, rtol=1e-4, atol=1e-4)
        for batch, height in ((1, 7), (2, 5), (3, 8)):
            attrs = {"tile": 4, "pads": (1, 1, 1, 1), "rows": ODD}
            x = sample(batch, height, 9, 16)
            name = f"odd_{batch}_{height}"
            yield Case(name, (x,), attrs, symbolic=symbolic, rtol=1e-4, atol=1e-4)


@operator("WinogradWeights", domain="aicc", inputs=1, attributes={"tile": REQUIRED})
class WinogradWeights(Operator):
    """Filters [O, C, 3, 3] -> the transformed filters [(m+2)^2, 1, 1, C, O], computed in float64
    where they are constants, and rounded once."""

    def infer(self, ctx: OpContext) -> list[TensorType]:
        w = ctx.input(0)
        if w.rank != 4 or w.shape[2:] != (WINDOW, WINDOW):
            ctx.fail("the filters must be 3x3")
        return [TensorType(w.dtype, ((tile_of(ctx) + 2) ** 2, 1, 1, w.shape[1], w.shape[0]))]

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        (w,) = inputs
        assert w is not None
        weights = as_array(matrices(tile_of(ctx))[1])
        matrix = np.kron(weights, weights)
        outputs, channels = w.shape[:2]
        # Filter by filter in memory, as panels of them are packed.
        made = loose_array((outputs, len(matrix), channels), w.dtype)
        # A few at a time: all of them take eight times the memory of the filters.
        step = max(1, SLAB // (len(matrix) * max(channels, 1)))
        for at in range(0, outputs, step):
            part = w[at : at + step].reshape(-1, WINDOW * WINDOW).T
            product = matrix @ np.ascontiguousarray(part, np.float64)
            made[at : at + step] = product.reshape(len(matrix), -1, channels).transpose(1, 0, 2)
        return [made.transpose(1, 2, 0)[:, None, None]]

    def lower(self, ctx: OpContext, b: KernelBuilder, *inputs: Tensor | None) -> Sequence[Tensor]:
        (w,) = inputs
        assert w is not None
        m = tile_of(ctx)
        a, weights = m + 2, matrices(m)[1]
        (shape,) = (t.shape for t in ctx.outputs)

        def column(o: Size, c: Size, i: Size, q: Size) -> Expr:
            values = [w[o, c, p, q] for p in range(WINDOW)]
            return choose(i, [even_odd(row, values) for row in weights])

        columns = b.compute((*w.shape[:2], a, WINDOW), column, name="columns")

        def element(v: Size, _: Size, __: Size, c: Size, o: Size) -> Expr:
            values = [columns[o, c, v // a, q] for q in range(WINDOW)]
            return choose(v % a, [even_odd(row, values) for row in weights])

        return [b.compute(shape, element)]

    def cases(self) -> Iterable[Case]:
        for tile in POINTS:
            yield Case(f"tile_{tile}", (sample(3, 5, 3, 3),), {"tile": tile}, atol=1e-5)


@operator("WinogradFilters", domain="aicc", inputs=1, attributes={"tile": REQUIRED, "more": 0})
class WinogradFilters(Operator):
    """Filters [3, 3, C, O] -> the transformed filters [(m+2)^2, C + more, O], for who transforms
    them in each run: lanes along the filters. Rows beyond C repeat the last, so that the matrices
    are not a power of two apart."""

    def infer(self, ctx: OpContext) -> list[TensorType]:
        w, more = ctx.input(0), int(ctx.attrs["more"])
        if w.rank != 4 or w.shape[:2] != (WINDOW, WINDOW) or more < 0:
            ctx.fail("the filters must be 3x3, and no rows fewer than channels")
        return [TensorType(w.dtype, ((tile_of(ctx) + 2) ** 2, w.shape[2] + more, w.shape[3]))]

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        (w,) = inputs
        assert w is not None
        weights = as_array(matrices(tile_of(ctx))[1])
        made = np.einsum("ip,jq,pqco->ijco", weights, weights, w)
        made = made.reshape(-1, *w.shape[2:]).astype(w.dtype)
        return [np.pad(made, ((0, 0), (0, int(ctx.attrs["more"])), (0, 0)), "edge")]

    def lower(self, ctx: OpContext, b: KernelBuilder, *inputs: Tensor | None) -> Sequence[Tensor]:
        (w,) = inputs
        assert w is not None
        m = tile_of(ctx)
        a, weights = m + 2, matrices(m)[1]
        channels, filters = w.shape[2:]

        def column(c: Size, i: Size, q: Size, o: Size) -> Expr:
            values = [w[p, q, c, o] for p in range(WINDOW)]
            return choose(i, [even_odd(row, values) for row in weights])

        columns = b.compute((channels, a, WINDOW, filters), column, name="columns")

        def both(c: Size, i: Size, j: Size, o: Size) -> Expr:
            values = [columns[c, i, q, o] for q in range(WINDOW)]
            return choose(j, [even_odd(row, values) for row in weights])

        tile = b.compute((channels, a, a, filters), both, name="tile")

        def element(v: Size, c: Size, o: Size) -> Expr:
            return tile[minimum(c, channels - 1), v // a, v % a, o]

        return [b.compute(ctx.outputs[0].shape, element)]

    def cases(self) -> Iterable[Case]:
        for tile in POINTS:
            for filters, more in ((16, 0), (20, 1)):
                attrs = {"tile": tile, "more": more}
                yield Case(f"tile_{tile}_{filters}", (sample(3, 3, 5, filters),), attrs, atol=1e-5)


@operator("WinogradOutput", domain="aicc", inputs=2, attributes=BETWEEN)
class WinogradOutput(Operator):
    """Products [(m+2)^2, N, tiles, tiles, O] -> the convolution [N, H', W', O], without what the
    last tiles have too much. Operand 1, the convolution's data [N, H, W, C], gives the sizes."""

    def infer(self, ctx: OpContext) -> list[TensorType]:
        t, x, m = ctx.input(0), ctx.input(1), tile_of(ctx)
        rows = rows_of(ctx, x.shape)
        if t.rank != len(rows) + 2 or t.shape[0] != (m + 2) ** 2:
            ctx.fail(f"the products must have {len(rows) + 2} axes, the first of {(m + 2) ** 2}")
        for have, want in zip(t.shape[1:-1], rows):
            agree(ctx, have, want, "tiles")
        return [TensorType(t.dtype, (x.shape[0], *outputs_of(ctx, x.shape), t.shape[-1]))]

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        t, x = inputs
        assert t is not None and x is not None
        m = tile_of(ctx)
        after = as_array(matrices(m)[0])
        height, width = axes_of(ctx, x.shape)
        tiles = (x.shape[0], int(height.tiles), int(width.tiles))
        t = t.reshape((m + 2) ** 2, -1, t.shape[-1])[:, : math.prod(tiles)]
        square = t.reshape(m + 2, m + 2, *tiles, t.shape[-1])
        big = np.zeros((x.shape[0], int(height.inputs), int(width.inputs), t.shape[-1]))
        rows, columns = (_places(axis, m) for axis in (height, width))
        big[:, rows[:, None, :, None], columns[:, None, :]] = np.einsum(
            "rp,sq,pqnhwo->nhwrso", after, after, square
        )
        y = big[:, : height.outputs, : width.outputs]
        return [np.ascontiguousarray(y).astype(t.dtype)]

    def lower(self, ctx: OpContext, b: KernelBuilder, *inputs: Tensor | None) -> Sequence[Tensor]:
        t, x = inputs
        assert t is not None and x is not None
        axes = axes_of(ctx, x.shape)
        height, width = (axis.tiles for axis in axes)
        for have, want in zip(t.shape[1:-1], rows_of(ctx, x.shape)):
            check_agree(ctx, b, have, want, "tiles")

        def sums(v: Size, n: Size, h: Size, w: Size, o: Size) -> Expr:
            if axes[0].step > 1:
                h = minimum(h, height - 1)
            if axes[1].step > 1:
                w = minimum(w, width - 1)
            return t[v, (n * height + h) * width + w, o] if t.rank == 3 else t[v, n, h, w, o]

        return [results(ctx, b, x, t.shape[-1], sums)]

    def cases(self) -> Iterable[Case]:
        for name, shape, filters, tile, pads, steps in (
            ("two", (2, 6, 8, 3), 5, 2, (1, 1, 1, 1), (1, 1)),
            ("two_overhang", (1, 7, 5, 1), 16, 2, (1, 0, 0, 1), (1, 1)),
            ("two_gaps", (2, 7, 9, 2), 16, 2, (2, 2, 2, 2), (2, 2)),
            ("four", (1, 8, 12, 2), 20, 4, (1, 1, 1, 1), (1, 1)),
            ("four_valid", (2, 6, 10, 2), 2, 4, (0, 0, 0, 0), (1, 1)),
            ("four_overhang", (1, 7, 9, 1), 16, 4, (1, 1, 1, 1), (1, 1)),
            ("four_gaps", (1, 17, 13, 1), 20, 4, (2, 3, 2, 3), (2, 3)),
            ("gaps_of_one_axis", (1, 9, 21, 1), 16, 4, (1, 4, 1, 4), (1, 4)),
            ("one_tile", (1, 2, 3, 1), 17, 4, (1, 1, 1, 1), (1, 1)),
        ):
            sizes = (shape[1 + a] + pads[a] + pads[a + 2] - 2 * steps[a] for a in range(2))
            tiles = [int(Axis(n, tile, d).tiles) for n, d in zip(sizes, steps)]
            count = math.prod((shape[0], *tiles))
            attrs = {"tile": tile, "pads": pads, "dilations": steps}
            image = {(1, 0): "n", (1, 1): "h", (1, 2): "w"}
            for suffix, rows, more, free in (
                ("", [shape[0], *tiles], {}, {(0, 1): "n", **image}),
                ("_rows", [count + 1], {"rows": count + 1}, {}),
                ("_odd", [count // 2 * 2 + 1], {"rows": ODD}, {(0, 1): "r", **image}),
            ):
                yield Case(
                    f"{name}{suffix}",
                    (sample((tile + 2) ** 2, *rows, filters), sample(*shape)),
                    {**attrs, **more},
                    symbolic=free,
                    rtol=1e-4,
                    atol=1e-4,
                )


@operator("WinogradConv", domain="aicc", inputs=(2, 3), attributes={**ATTRIBUTES, "worth": ()})
class WinogradConv(Operator):
    """Data [N, H, W, C] and transformed filters [(m+2)^2, 1, 1, C, O] -> the convolution
    [N, H', W', O]: both transforms and the products in one, so that a block of tiles stays in the
    cache from the first to the last.

    With the filters [O, C, 3, 3] themselves as operand 2, images are convolved directly where that
    takes less time; worth: what a tile takes, what an output takes then, and of how many tiles a
    multiple takes as long as those of an image.
    """

    def instead(self, ctx: OpContext) -> Instead | None:
        if len(ctx.types) < 3 or not ctx.attrs["worth"]:
            return None
        each, direct, rows = (int(n) for n in ctx.attrs["worth"])
        height, width = axes_of(ctx, ctx.input(0).shape)
        # Rows of a window that meet nothing but padding are left out.
        before, n = int(ctx.attrs["pads"][0]), ctx.input(0).shape[1]
        places = [k * height.step - before for k in range(WINDOW)]
        met: Size = 0
        for p in places:
            met = met + maximum(0, minimum(height.outputs, n - p) - max(0, -p))
        sums = met * width.outputs * direct
        tiles = ceildiv(height.most * width.most, rows) * rows
        cond = call("lt", Index(sums), Index(tiles * each * WINDOW))
        attrs = {name: ctx.attrs[name] for name in ("pads", "dilations")}
        return Instead(cond, "Conv", (0, 2), {**attrs, "channels_last": 1})

    def infer(self, ctx: OpContext) -> list[TensorType]:
        x, u, m = ctx.input(0), ctx.input(1), tile_of(ctx)
        if u.rank != 5 or u.shape[:3] != ((m + 2) ** 2, 1, 1):
            ctx.fail(f"the transformed filters must be [{(m + 2) ** 2}, 1, 1, C, O]")
        agree(ctx, x.shape[3], u.shape[3], "channels")
        return [TensorType(x.dtype, (x.shape[0], *outputs_of(ctx, x.shape), u.shape[4]))]

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        x, u = inputs[:2]
        assert x is not None and u is not None
        (v,) = WinogradInput().reference(ctx, x.astype(np.float64))
        (y,) = WinogradOutput().reference(ctx, np.matmul(v, u.astype(np.float64)), x)
        return [y.astype(x.dtype)]

    def lower(self, ctx: OpContext, b: KernelBuilder, *inputs: Tensor | None) -> Sequence[Tensor]:
        x, u = inputs[:2]
        assert x is not None and u is not None
        a, (rows, width) = tile_of(ctx) + 2, (axis.most for axis in axes_of(ctx, x.shape))
        check_agree(ctx, b, x.shape[3], u.shape[3], "channels")
        batch, channels, filters = x.shape[0], x.shape[3], u.shape[4]
        tile = data_tiles(ctx, b, x, (rows, width))

        def data(v: Size, n: Size, t: Size, c: Size) -> Expr:
            return tile[n, t // width, t % width, v // a, v % a, c]

        left = b.compute((a * a, batch, rows * width, channels), data, name="data")

        def term(v: Size, n: Size, t: Size, o: Size, c: Size) -> Expr:
            return left[v, n, t, c] * u[v, 0, 0, c, o]

        dot = b.reduce((a * a, batch, rows * width, filters), (channels,), term, name="dot")

        def sums(v: Size, n: Size, h: Size, w: Size, o: Size) -> Expr:
            return dot[v, n, h * width + w, o]

        return [results(ctx, b, x, filters, sums)]

    def cases(self) -> Iterable[Case]:
        for name, shape, filters, tile, pads, steps in (
            ("two", (2, 6, 8, 3), 5, 2, (1, 1, 1, 1), (1, 1)),
            ("two_overhang", (1, 7, 5, 16), 16, 2, (1, 0, 0, 1), (1, 1)),
            ("four", (1, 8, 12, 20), 20, 4, (1, 1, 1, 1), (1, 1)),
            ("four_valid", (2, 18, 10, 17), 32, 4, (0, 0, 0, 0), (1, 1)),
            ("four_overhang", (1, 9, 23, 16), 48, 4, (1, 1, 1, 1), (1, 1)),
            ("gaps", (1, 17, 23, 16), 48, 4, (2, 2, 2, 2), (2, 2)),
            ("gaps_of_one_axis", (2, 9, 26, 16), 20, 2, (1, 4, 1, 4), (1, 4)),
            ("one_row", (1, 3, 23, 16), 16, 4, (1, 1, 1, 1), (1, 1)),
            ("one_tile", (1, 2, 3, 16), 17, 4, (1, 1, 1, 1), (1, 1)),
        ):
            filters_ = sample((tile + 2) ** 2, 1, 1, shape[3], filters)
            yield Case(
                name,
                (sample(*shape), filters_),
                {"tile": tile, "pads": pads, "dilations": steps},
                constant=(1,),
                symbolic={(0, 0): "n", (0, 1): "h", (0, 2): "w"},
                rtol=1e-4,
                atol=1e-3,
            )
