"""Where the tiles of Winograd's convolution lie, and the stages that lead to them and from them.

Of m x m outputs each; with dilations d, those of a tile are d apart, as its inputs are: the outputs
whose numbers have the same remainder by d are a convolution of their own, without gaps. Along an
axis, tile t has the outputs

    (t // d) * m * d + t % d + r * d        r in 0..m

so that tiles follow one another by where they begin, and none begins beyond the last output.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aicc.ops.registry import REQUIRED, OpContext
from aicc.ops.windows import Layout, pad_stage
from aicc.ops.winograd_matrices import POINTS, WINDOW, choose, even_odd, matrices, paired
from aicc.symbolic import Size, ceildiv, minimum, product
from aicc.tensor_ir.builder import KernelBuilder, Tensor
from aicc.tensor_ir.ir import Expr, const

ODD = -1
"""For a number of rows that only a run knows: it is odd."""

ATTRIBUTES = {"tile": REQUIRED, "pads": (0, 0, 0, 0), "dilations": (1, 1)}
BETWEEN = {**ATTRIBUTES, "rows": 0}
"""rows: 0 for axes [N, tiles, tiles]; else they are one axis of so many rows, of which those beyond
the tiles repeat the last: so that the (m+2)^2 matrices are not a power of two apart. `ODD`: as many
as there are tiles, or one more."""


@dataclass(frozen=True)
class Axis:
    """Tiles of `m` outputs along an axis of so many `outputs`, which are `step` apart."""

    outputs: Size
    m: int
    step: int

    @property
    def groups(self) -> Size:
        """How many tiles begin at each remainder by `step`, at most."""
        return ceildiv(self.outputs, self.m * self.step)

    @property
    def tiles(self) -> Size:
        """How many tiles there are."""
        if self.step == 1:
            return self.groups
        whole = self.outputs // (self.m * self.step)
        return whole * self.step + minimum(self.step, self.outputs % (self.m * self.step))

    @property
    def most(self) -> Size:
        """As many tiles at each remainder: of the last ones some may begin beyond the outputs."""
        return self.groups * self.step

    @property
    def inputs(self) -> Size:
        """How many numbers, the first of them the first tile's, all of these tiles read from."""
        return (self.groups * self.m + WINDOW - 1) * self.step

    def place(self, tile: Size, n: int) -> Size:
        """Where a tile's output or input `n` lies."""
        if self.step == 1:
            return tile * self.m + n
        return tile // self.step * (self.m * self.step) + tile % self.step + n * self.step

    def tile(self, output: Size) -> Size:
        """The tile that an output is of."""
        if self.step == 1:
            return output // self.m
        return output // (self.m * self.step) * self.step + output % self.step

    def within(self, output: Size) -> Size:
        """Which one of its tile an output is."""
        return output // self.step % self.m


def tile_of(ctx: OpContext) -> int:
    """Extent of the tiles of outputs."""
    m = int(ctx.attrs["tile"])
    if m not in POINTS:
        ctx.fail(f"tiles of {m} outputs are not known, but {sorted(POINTS)}")
    return m


def axes_of(ctx: OpContext, data: Sequence[Size]) -> tuple[Axis, Axis]:
    """The spatial axes of the convolution of data [N, H, W, C]."""
    pads = tuple(int(p) for p in ctx.attrs["pads"])
    steps = tuple(int(d) for d in ctx.attrs["dilations"])
    m = tile_of(ctx)
    if len(data) != 4 or len(pads) != 4 or min(pads) < 0:
        ctx.fail("the data must have four axes, and four pads that are not negative")
    if len(steps) != 2 or min(steps) < 1:
        ctx.fail("there must be two dilations, of 1 or more")
    sizes = (n + pads[a] + pads[a + 2] - (WINDOW - 1) * steps[a] for a, n in enumerate(data[1:3]))
    height, width = (Axis(n, m, step) for n, step in zip(sizes, steps))
    if any(isinstance(x.outputs, int) and x.outputs < 1 for x in (height, width)):
        ctx.fail("a window does not fit the data")
    return height, width


def outputs_of(ctx: OpContext, data: Sequence[Size]) -> tuple[Size, Size]:
    """Spatial sizes of the convolution of data [N, H, W, C]."""
    height, width = axes_of(ctx, data)
    return height.outputs, width.outputs


def tiles_of(ctx: OpContext, data: Sequence[Size]) -> tuple[Size, Size]:
    """How many tiles there are along the height and the width."""
    height, width = axes_of(ctx, data)
    return height.tiles, width.tiles


def rows_of(ctx: OpContext, data: Sequence[Size]) -> tuple[Size, ...]:
    """The axes that number tiles in the matrices between the transforms."""
    count = int(ctx.attrs.get("rows", 0))
    tiles = (data[0], *tiles_of(ctx, data))
    if not count:
        return tiles
    total = product(tiles)
    if count == ODD:
        return (total // 2 * 2 + 1,)
    if not isinstance(total, int) or count < total:
        ctx.fail(f"{count} rows do not hold {total} tiles")
    return (count,)


def data_tiles(ctx: OpContext, b: KernelBuilder, x: Tensor, tiles: Sequence[Size]) -> Tensor:
    """The stages of the transformed data of each tile: [N, *tiles, m+2, m+2, C]."""
    height, width = axes_of(ctx, x.shape)
    a, before = height.m + 2, matrices(height.m)[2]
    covered = height.inputs, width.inputs
    begins = tuple(int(p) for p in ctx.attrs["pads"][:2])
    data = x
    if begins != (0, 0) or covered != x.shape[1:3]:
        data = pad_stage(b, x, Layout(4, True), begins, covered, const(0, x.dtype))

    def column(n: Size, h: Size, w: Size, i: Size, q: Size, c: Size) -> Expr:
        values = [
            data[n, height.place(h, p), width.place(w, 0) + q * width.step, c] for p in range(a)
        ]
        return choose(i, [even_odd(row, values) for row in before])

    columns = b.compute((x.shape[0], *tiles, a, a, x.shape[3]), column, name="columns")

    def both(n: Size, h: Size, w: Size, i: Size, j: Size, c: Size) -> Expr:
        values = [columns[n, h, w, i, q, c] for q in range(a)]
        return choose(j, [even_odd(row, values) for row in before])

    return b.compute(columns.shape, both, name="tile")


def results(
    ctx: OpContext,
    b: KernelBuilder,
    x: Tensor,
    filters: Size,
    sums: Callable[[Size, Size, Size, Size, Size], Expr],
) -> Tensor:
    """The stages of the convolution [N, H', W', O] of data x from `sums(v, n, tile, tile, filter)`,
    for `Axis.most` tiles."""
    height, width = axes_of(ctx, x.shape)
    m = height.m
    a, points, after = m + 2, POINTS[m], matrices(m)[0]
    tiles = x.shape[0], height.most, width.most

    def column(n: Size, h: Size, w: Size, r: Size, j: Size, o: Size) -> Expr:
        values = [sums(i * a + j, n, h, w, o) for i in range(a)]
        return choose(r, [paired(points, row, values) for row in after])

    columns = b.compute((*tiles, m, a, filters), column, x.dtype, name="sums")

    def both(n: Size, h: Size, w: Size, r: Size, s: Size, o: Size) -> Expr:
        values = [columns[n, h, w, r, j, o] for j in range(a)]
        return choose(s, [paired(points, row, values) for row in after])

    tile = b.compute((*tiles, m, m, filters), both, x.dtype, name="block")

    def element(n: Size, h: Size, w: Size, o: Size) -> Expr:
        return tile[n, height.tile(h), width.tile(w), height.within(h), width.within(w), o]

    return b.compute((x.shape[0], height.outputs, width.outputs, filters), element, x.dtype)
