"""Which rows of its operands a node reads for some rows of its result, derived from its lowering.

The rows of a value are what its outermost axis counts: the first one of more than one element, so
that rows that follow each other are one run of memory. A node is *local* where row r of its result
needs rows stride*r + low .. stride*r + high of an operand, or all of an operand that has no rows to
do with it (weights, scales of channels), and where the same operator computes a range of rows from
those rows alone. Rows before the first and after the last are what windows are padded with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aicc.errors import AiccError
from aicc.graph_ir.graph import Graph, Node
from aicc.graph_ir.infer import context
from aicc.graph_ir.passes.bodies import body
from aicc.graph_ir.types import TensorType
from aicc.ops import registry
from aicc.ops.registry import OpContext
from aicc.symbolic import Dim, Max, Min, Size, Sym, coefficient, symbols
from aicc.tensor_ir.analysis import Stage, bounds, stage_of
from aicc.tensor_ir.ir import Kernel, Load
from aicc.tensor_ir.walk import expr_sizes, walk_expr

_WINDOW = frozenset({"pads", "strides", "kernel_shape"})
"""Attributes of operators whose windows slide over axes, with zeros around them."""


@dataclass(frozen=True)
class Reads:
    """Row r of the result needs the positions stride*r + low to stride*r + high of `axis`."""

    axis: int
    stride: int = 1
    low: int = 0
    high: int = 0

    def span(self, lo: int, hi: int) -> tuple[int, int]:
        """What the rows lo..hi (exclusive) need, beyond the borders too."""
        return self.stride * lo + self.low, self.stride * (hi - 1) + self.high + 1


Local = tuple[Reads | None, ...]
"""For each operand what is read of it; None for all of it."""


def outermost(t: TensorType) -> int | None:
    """The axis that counts a value's rows; None where it has one element, or sizes are unknown."""
    if not all(isinstance(d, int) and d > 0 for d in t.shape):
        return None
    return next((a for a, d in enumerate(t.shape) if d != 1), None)


class Locality:
    """Answers what nodes read, and remembers it for equal ones."""

    def __init__(self) -> None:
        self._known: dict[Any, Local | None] = {}

    def __call__(self, graph: Graph, node: Node) -> Local | None:
        """What a node reads for rows of its result; None where it is not local."""
        ctx = context(graph, node)
        key = (
            node.op,
            node.attrs,
            tuple(None if t is None else (t.without_value(), t.value) for t in ctx.types),
            tuple(ctx.outputs),
        )
        if key not in self._known:
            self._known[key] = _local(ctx)
        return self._known[key]


def _local(ctx: OpContext) -> Local | None:
    op = registry.find(ctx.op)
    if op is None or ctx.regions:
        return None
    axis = outermost(ctx.outputs[0]) if len(ctx.outputs) == ctx.n_outputs == 1 else None
    if axis is None or op.view:
        return None
    reads, by_index = _reads(ctx, axis)
    if reads is None:
        return None
    at = _spatial(ctx, axis)
    if at is None:
        own = all(r is None or r == Reads(r.axis) for r in reads)
        return reads if own and not by_index else None
    # Windows: their padding depends on the index, and moves with the rows.
    data = reads[0]
    if data is None or any(r is not None for r in reads[1:]):
        return None
    strides = ctx.attrs.get("strides") or (1,) * len(ctx.attrs.get("kernel_shape") or (1,) * 8)
    return reads if data.axis == axis and data.stride == strides[at] else None


def _spatial(ctx: OpContext, axis: int) -> int | None:
    """Which of an operator's windowed axes an axis of its data is; None for another axis."""
    if not registry.get(ctx.op).attributes.keys() >= _WINDOW:
        return None
    at = axis - (1 if ctx.attrs.get("channels_last") else 2)
    return (
        at if at >= 0 and axis < ctx.input(0).rank - bool(ctx.attrs.get("channels_last")) else None
    )


def part_attributes(ctx: OpContext, local: Local, rows: tuple[int, int]) -> Mapping[str, Any]:
    """The attributes that change where a node computes only some rows of its result."""
    axis = outermost(ctx.outputs[0])
    assert axis is not None
    at, data = _spatial(ctx, axis), local[0]
    if at is None or data is None:
        return {}
    begins, ends = _padding(ctx)
    lo, hi = data.span(*rows)
    extent = ctx.input(0).shape[axis]
    assert isinstance(extent, int)
    begins[at] = max(0, -lo)
    # What hangs over the end without padding, in ceil_mode, goes on doing so.
    over = max(0, hi - extent)
    ends[at] = min(over, ends[at]) if ctx.attrs.get("ceil_mode") else over
    changed: dict[str, Any] = {"pads": (*begins, *ends)}
    if "auto_pad" in ctx.attrs:
        changed["auto_pad"] = "NOTSET"
    return changed


def _padding(ctx: OpContext) -> tuple[list[int], list[int]]:
    """Zeros before and after each windowed axis."""
    first = 1 if ctx.attrs.get("channels_last") else 2
    count = ctx.input(0).rank - 2
    mode = ctx.attrs.get("auto_pad", "NOTSET")
    mode = mode.decode() if isinstance(mode, bytes) else str(mode)
    if mode == "NOTSET":
        pads = [int(p) for p in ctx.attrs.get("pads") or (0,) * (2 * count)]
        return pads[:count], pads[count:]
    begins, ends = [0] * count, [0] * count
    for k in range(count) if mode != "VALID" else ():
        extent, result = ctx.input(0).shape[first + k], ctx.outputs[0].shape[first + k]
        reads, _ = _reads(ctx, first + k)
        assert isinstance(extent, int) and isinstance(result, int)
        if result != 1 and reads is not None and reads[0] is not None:
            lo, hi = reads[0].span(0, result)
            begins[k], ends[k] = max(0, -lo), max(0, hi - extent)
        else:
            # One window: its padding cannot be read off, and is what the window has too many.
            kernel = ctx.attrs.get("kernel_shape") or ctx.input(1).shape[2:]
            gaps = ctx.attrs.get("dilations") or (1,) * count
            total = max(0, (int(kernel[k]) - 1) * int(gaps[k]) + 1 - extent)
            less = total // 2
            begins[k] = less if mode == "SAME_UPPER" else total - less
            ends[k] = total - begins[k]
    return begins, ends


# --- from loops -----------------------------------------------------------------------------------


class _NotLocal(Exception):
    pass


def _reads(ctx: OpContext, axis: int) -> tuple[Local | None, bool]:
    """What a node reads along one axis of its result, and whether a value depends on the index
    itself; None where that is not a range of positions."""
    alone = body(ctx)
    if alone is None or alone.checks:
        return None, False
    found = _Search(alone.kernel, _spatial(ctx, axis) is not None)
    try:
        reads = found.needs(alone.results[0].name, axis)
    except (AiccError, ArithmeticError, LookupError, TypeError, ValueError, _NotLocal):
        return None, False
    names = ["" if t is None else t.name for t in alone.operands]
    return tuple(reads.get(n) for n in names), found.by_index


class _Search:
    """Follows one axis of a kernel's result back to its operands, stage by stage.

    windows: of which those that hang over may read the border again, as a maximum does.
    """

    def __init__(self, kernel: Kernel, windows: bool) -> None:
        self.kernel = kernel
        self.windows = windows
        self.by_index = False
        self._known: dict[tuple[str, int], dict[str, Reads | None]] = {}

    def needs(self, buffer: str, axis: int) -> dict[str, Reads | None]:
        """What is read of each parameter for one position of an axis of a buffer."""
        known = self._known.get((buffer, axis))
        if known is not None:
            return known
        stage = stage_of(self.kernel, buffer)
        if stage is None or stage.axes[axis][0] is None:
            raise _NotLocal
        (v, _) = stage.axes[axis]
        assert v is not None
        found: dict[str, Reads | None] = {}
        for load in self._loads(stage, v):
            for name, r in self._through(stage, v, load).items():
                found[name] = r if name not in found else _both(found[name], r)
        self._known[buffer, axis] = found
        return found

    def _loads(self, stage: Stage, v: Sym) -> list[Load]:
        values = [stage.value] if stage.init is None else [stage.value, stage.init]
        loads = []
        for e in dict.fromkeys(x for value in values for x in walk_expr(value)):
            if isinstance(e, Load):
                loads.append(e)
            elif any(v in symbols(s) for s in expr_sizes(e)):
                self.by_index = True
        return loads

    def _through(self, stage: Stage, v: Sym, load: Load) -> dict[str, Reads | None]:
        inner = self.kernel.buffer(load.buffer).scope == "temp"
        places = [k for k, i in enumerate(load.indices) if v in symbols(i)]
        if not places:
            return self._all(load.buffer) if inner else {load.buffer: None}
        if len(places) > 1:
            raise _NotLocal
        index = load.indices[places[0]]
        if self.windows:
            index = _unclamped(index, self.kernel.buffer(load.buffer).shape[places[0]])
        own = _affine(stage, v, places[0], index)
        if not inner:
            return {load.buffer: own}
        found: dict[str, Reads | None] = {}
        for name, r in self.needs(load.buffer, own.axis).items():
            if r is None:
                found[name] = None
            else:
                low, high = r.stride * own.low + r.low, r.stride * own.high + r.high
                found[name] = Reads(r.axis, r.stride * own.stride, low, high)
        return found

    def _all(self, buffer: str) -> dict[str, Reads | None]:
        """Everything that an intermediate buffer is made of, whole."""
        stage = stage_of(self.kernel, buffer)
        if stage is None:
            raise _NotLocal
        found: dict[str, Reads | None] = {}
        for e in walk_expr(stage.value):
            if isinstance(e, Load):
                inner = self.kernel.buffer(e.buffer).scope == "temp"
                found.update(self._all(e.buffer) if inner else {e.buffer: None})
        return found


def _unclamped(index: Size, extent: Size) -> Size:
    """min(extent - 1, max(0, i)) -> i: an index without what keeps it inside of an axis."""
    while isinstance(index, Dim) and len(index.terms) == 1 and index.const == 0:
        ((monomial, factor),) = index.terms
        (atom, *others) = monomial
        bound: Size = 0 if isinstance(atom, Max) else extent - 1
        if (
            not isinstance(atom, Min | Max)
            or others
            or factor != 1
            or bound not in (atom.a, atom.b)
        ):
            break
        index = atom.b if atom.a == bound else atom.a
    return index


def _affine(stage: Stage, v: Sym, axis: int, index: Size) -> Reads:
    """An index as stride*v + low..high, over all values of the other variables."""
    stride = coefficient(index, v)
    if not isinstance(stride, int) or stride < 1:
        raise _NotLocal
    others: Sequence[tuple[Sym | None, Size]] = [*stage.axes, *stage.reduce]
    ranges: dict[Sym, tuple[Size, Size]] = {w: (0, e) for w, e in others if w is not None}
    ranges[v] = (0, 1)
    found = bounds(index, ranges)
    if found is None or not isinstance(found[0], int) or not isinstance(found[1], int):
        raise _NotLocal
    return Reads(axis, stride, found[0], found[1])


def _both(a: Reads | None, b: Reads | None) -> Reads | None:
    if a is None or b is None:
        if a is b:
            return None
        raise _NotLocal
    if (a.axis, a.stride) != (b.axis, b.stride):
        raise _NotLocal
    return Reads(a.axis, a.stride, min(a.low, b.low), max(a.high, b.high))
