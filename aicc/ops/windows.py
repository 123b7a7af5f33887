"""The geometry of sliding windows, shared by convolutions and pooling: where each window starts,
how many there are, and the layout of their operands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aicc.ops.registry import Array, OpContext
from aicc.ops.sizes import always, within
from aicc.symbolic import Size, ceildiv, maximum, minimum, proves_le
from aicc.tensor_ir.builder import KernelBuilder, Tensor
from aicc.tensor_ir.ir import Expr, select

WINDOW = {
    "auto_pad": "NOTSET",
    "dilations": (),
    "kernel_shape": (),
    "pads": (),
    "strides": (),
    "channels_last": 0,
}
"""Attributes of every operator with windows; () is ONNX's default, which depends on the rank."""


def text(value: Any) -> str:
    """A string attribute, which protobuf gives as bytes."""
    return value.decode() if isinstance(value, bytes) else str(value)


@dataclass(frozen=True)
class Layout:
    """Where the axes of an activation are: [N, C, spatial...] or [N, spatial..., C]."""

    rank: int
    channels_last: bool

    @property
    def channel(self) -> int:
        return self.rank - 1 if self.channels_last else 1

    @property
    def spatial(self) -> tuple[int, ...]:
        return tuple(range(1, self.rank - 1)) if self.channels_last else tuple(range(2, self.rank))

    def join(self, n: Size, channel: Size, spatial: Sequence[Size]) -> tuple[Size, ...]:
        """A shape or an index in this layout."""
        return (n, *spatial, channel) if self.channels_last else (n, channel, *spatial)

    def split(self, index: Sequence[Size]) -> tuple[Size, Size, tuple[Size, ...]]:
        """Batch, channel and spatial parts of a shape or an index."""
        return index[0], index[self.channel], tuple(index[a] for a in self.spatial)

    def to_first(self, x: Array) -> Array:
        return np.moveaxis(x, -1, 1) if self.channels_last else x

    def from_first(self, x: Array) -> Array:
        return np.ascontiguousarray(np.moveaxis(x, 1, -1) if self.channels_last else x)


def layout(ctx: OpContext, rank: int) -> Layout:
    """The layout of the data operand. Raises OperatorError where it has no spatial axis."""
    if rank < 3:
        ctx.fail("the data operand needs a batch, a channel and at least one spatial axis")
    return Layout(rank, bool(ctx.attrs.get("channels_last", 0)))


@dataclass(frozen=True)
class Windows:
    """Windows along each spatial axis: window `o` covers the positions
    `o*stride - begin + k*dilation`, k in 0..kernel, of an axis of `size` elements."""

    sizes: tuple[Size, ...]
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begins: tuple[Size, ...]
    ends: tuple[Size, ...]
    outputs: tuple[Size, ...]
    overhang: bool = False
    """True where the last window may reach past the padding, in ceil_mode."""

    @property
    def spans(self) -> tuple[int, ...]:
        """Extents of a window, gaps included."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations))

    @property
    def padded(self) -> tuple[Size, ...]:
        """Extents of the data that all windows together cover, with the padding."""
        whole = [b + n + e for b, n, e in zip(self.begins, self.sizes, self.ends)]
        if not self.overhang:
            return tuple(whole)
        reach = zip(self.outputs, self.strides, self.spans)
        return tuple(maximum(w, (o - 1) * s + span) for w, (o, s, span) in zip(whole, reach))

    @property
    def exact(self) -> bool:
        """True where every window lies inside the data, for all values of the symbols."""
        return not self.overhang and all(p == 0 for p in (*self.begins, *self.ends))

    def start(self, output: Sequence[Size], tap: Sequence[Size]) -> tuple[Size, ...]:
        """Position in the padded data that a window's tap reads."""
        return tuple(o * s + k * d for o, k, s, d in zip(output, tap, self.strides, self.dilations))


def per_axis(ctx: OpContext, name: str, count: int, default: int = 1) -> tuple[int, ...]:
    """An attribute with one positive number for each spatial axis."""
    given = tuple(int(v) for v in ctx.attrs.get(name, ()) or ())
    if not given:
        return (default,) * count
    if len(given) != count:
        ctx.fail(f"{name} {list(given)} does not have {count} elements")
    if any(v <= 0 for v in given):
        ctx.fail(f"{name} {list(given)} must be positive")
    return given


def explicit_pads(ctx: OpContext, count: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """`pads` as (begins, ends)."""
    given = tuple(int(v) for v in ctx.attrs.get("pads", ()) or ()) or (0,) * (2 * count)
    if len(given) != 2 * count or any(v < 0 for v in given):
        ctx.fail(f"pads {list(given)} must be {2 * count} numbers that are not negative")
    return given[:count], given[count:]


def windows(ctx: OpContext, sizes: Sequence[Size], kernel: Sequence[int]) -> Windows:
    """The windows of a node over spatial `sizes`, from its pads or auto_pad, and ceil_mode."""
    count = len(sizes)
    strides = per_axis(ctx, "strides", count)
    dilations = per_axis(ctx, "dilations", count)
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations)]
    mode = text(ctx.attrs.get("auto_pad", "NOTSET"))
    begins: tuple[Size, ...]
    ends: tuple[Size, ...]
    outputs: list[Size] = []
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        outputs = [ceildiv(n, s) for n, s in zip(sizes, strides)]
        totals = [
            maximum(0, (o - 1) * s + span - n)
            for o, s, span, n in zip(outputs, strides, spans, sizes)
        ]
        less, more = tuple(t // 2 for t in totals), tuple(t - t // 2 for t in totals)
        begins, ends = (less, more) if mode == "SAME_UPPER" else (more, less)
    else:
        if mode == "VALID":
            begins = ends = (0,) * count
        elif mode == "NOTSET":
            begins, ends = explicit_pads(ctx, count)
        else:
            ctx.fail(f"unknown auto_pad {mode!r}")
        for n, span, s, begin, end in zip(sizes, spans, strides, begins, ends):
            room = n + begin + end - span
            # With ceil_mode a first window may reach over the end, by less than a stride.
            least = 1 - s if ctx.attrs.get("ceil_mode", 0) else 0
            if isinstance(room, int) and room < least:
                ctx.fail(f"a window of {span} does not fit {n} elements with pads {begin}, {end}")
            if ctx.attrs.get("ceil_mode", 0):
                # the last window starts inside the data or the padding before them
                outputs.append(minimum(room + s - 1, n + begin - 1) // s + 1)
            else:
                outputs.append(room // s + 1)
    overhang = False
    if ctx.attrs.get("ceil_mode", 0):
        whole = [n + b + e for n, b, e in zip(sizes, begins, ends)]
        # Where one window is all there is, its taps past the padding read nothing: they go.
        kernel = [
            min(k, -(-n // d)) if o == 1 and isinstance(n, int) else k
            for k, d, o, n in zip(kernel, dilations, outputs, whole)
        ]
        spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations)]
        reach = [(o - 1) * s + span for o, s, span in zip(outputs, strides, spans)]
        overhang = not all(proves_le(r, n) for r, n in zip(reach, whole))
    return Windows(
        tuple(sizes), tuple(kernel), strides, dilations, begins, ends, tuple(outputs), overhang
    )


def pad_stage(
    b: KernelBuilder,
    x: Tensor,
    at: Layout,
    begins: Sequence[Size],
    padded: Sequence[Size],
    fill: Expr,
    name: str = "padded",
) -> Tensor:
    """A stage with `x` at offset `begins` of the larger spatial extents `padded`, else `fill`."""
    n, c, sizes = at.split(x.shape)

    def element(*index: Size) -> Expr:
        i, channel, spatial = at.split(index)
        source = tuple(p - begin for p, begin in zip(spatial, begins))
        inside = within(*((p, 0, size) for p, size in zip(source, sizes)))
        value = x[at.join(i, channel, source)]
        return value if always(inside) else select(inside, value, fill)

    return b.compute(at.join(n, c, padded), element, name=name)


def sliding(x: Array, w: Windows, fill: float | int) -> Array:
    """[N, C, outputs..., kernel...]: every window of a channels-first array with numbers for sizes,
    padded with `fill`."""
    axes = tuple(range(2, 2 + len(w.kernel)))
    big = np.full((*x.shape[:2], *(int(p) for p in w.padded)), fill, x.dtype)
    inner = tuple(slice(int(p), int(p) + n) for p, n in zip(w.begins, x.shape[2:]))
    big[(slice(None), slice(None), *inner)] = x
    view: Array = np.lib.stride_tricks.sliding_window_view(big, w.spans, axes)
    starts = tuple(slice(0, (int(o) - 1) * s + 1, s) for o, s in zip(w.outputs, w.strides))
    taps = tuple(slice(None, None, d) for d in w.dilations)
    return view[(slice(None), slice(None), *starts, *taps)]


def with_layout(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """The same attributes for channels-last data."""
    return {**attrs, "channels_last": 1}
