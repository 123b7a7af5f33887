"""How operators carry axes from operands to results: the rules that the layout pass follows.

A layout is the order in which the axes of a value are stored: (0, 2, 3, 1) stores [N, C, H, W] as
[N, H, W, C]. A `Freedom` says for one node in which layouts it may be computed. Each choice is
named by one label, a layout of its result (of its operand for reductions), from which follow the
layouts that it wants its operands in and gives its results in, and the node that computes it that
way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from aicc.graph_ir.graph import Node
from aicc.graph_ir.passes.rewrite import Editor
from aicc.graph_ir.passes.simplify_shapes import target_shape
from aicc.graph_ir.types import TensorType
from aicc.symbolic import Size

Layout = tuple[int, ...]


def identity(rank: int) -> Layout:
    """Axes stored as they are written."""
    return tuple(range(rank))


def channels_last(rank: int) -> Layout:
    """[N, C, spatial...] stored as [N, spatial..., C]."""
    return (0, *range(2, rank), 1)


def permuted(shape: Sequence[Size], layout: Layout) -> tuple[Size, ...]:
    """The shape that is stored."""
    return tuple(shape[a] for a in layout)


def significant(shape: Sequence[Size], layout: Layout) -> Layout:
    """The layout without axes of size 1: two layouts that agree in it store the same bytes."""
    return tuple(a for a in layout if shape[a] != 1)


class Freedom:
    """The layouts that one node may be computed in. Methods return None where a layout is none.

    node: over the old graph's values. x: types of its operands (None: omitted). y: of its results.
    """

    fixed: ClassVar[bool] = False
    """True where there is no label but the default."""
    alike: ClassVar[bool] = True
    """True where the node takes as long in one layout as in another."""

    def __init__(self, node: Node, x: Sequence[TensorType | None], y: Sequence[TensorType]) -> None:
        self.node = node
        self.x = x
        self.y = y

    @property
    def default(self) -> Layout:
        """The label of the node as it is written."""
        return identity(self.y[0].rank)

    def operands(self, label: Layout) -> list[Layout] | None:
        """The layout wanted of each operand."""
        raise NotImplementedError

    def results(self, label: Layout) -> list[Layout]:
        """The layout of each result."""
        return [label for _ in self.y]

    def from_operand(self, i: int, layout: Layout) -> Layout | None:
        """The label that takes operand `i` in `layout`."""
        raise NotImplementedError

    def from_result(self, layout: Layout) -> Layout | None:
        """The label that gives the first result in `layout`."""
        return layout

    def build(self, ed: Editor, label: Layout, inputs: Sequence[str]) -> Node | str:
        """The node computed that way, its results still unnamed, or the value that it is.

        inputs: operands of the new graph, stored as `operands` says.
        """
        raise NotImplementedError

    def _own(self) -> list[Layout]:
        """Every operand as it is."""
        return [identity(t.rank if t is not None else 0) for t in self.x]

    def _first(self, layout: Layout) -> list[Layout]:
        """The first operand in `layout`, the others as they are."""
        return [layout, *self._own()[1:]]


class Fixed(Freedom):
    """An operator that is computed as it is written."""

    fixed = True

    def operands(self, label: Layout) -> list[Layout] | None:
        return self._own()

    def results(self, label: Layout) -> list[Layout]:
        return [identity(t.rank) for t in self.y]

    def from_operand(self, i: int, layout: Layout) -> Layout | None:
        return None

    def from_result(self, layout: Layout) -> Layout | None:
        return None

    def build(self, ed: Editor, label: Layout, inputs: Sequence[str]) -> Node | str:
        return replace(self.node, inputs=tuple(inputs))


class ChannelsLast(Fixed):
    """An operator with a `channels_last` attribute: always computed that way. filters_last: its
    weights, operand 1, are then wanted in that order; constants are packed as kernels like them."""

    def __init__(
        self,
        node: Node,
        x: Sequence[TensorType | None],
        y: Sequence[TensorType],
        filters_last: bool = False,
    ) -> None:
        super().__init__(node, x, y)
        self.filters_last = filters_last

    @property
    def default(self) -> Layout:
        return channels_last(self.y[0].rank)

    def operands(self, label: Layout) -> list[Layout] | None:
        assert self.x[0] is not None
        return self._with_weights(channels_last(self.x[0].rank))

    def _with_weights(self, layout: Layout) -> list[Layout]:
        """The data in a layout with channels last."""
        data, *others = self._first(layout)
        if self.filters_last:
            others[0] = (*range(2, len(others[0])), 1, 0)
        return [data, *others]

    def results(self, label: Layout) -> list[Layout]:
        return [channels_last(t.rank) for t in self.y]

    def build(self, ed: Editor, label: Layout, inputs: Sequence[str]) -> Node | str:
        made = replace(self.node, inputs=tuple(inputs)).with_attrs(channels_last=1)
        return made.with_attrs(filters_last=1) if self.filters_last else made


class Pointwise(ChannelsLast):
    """A convolution of single elements: a matrix product for each batch entry where channels come
    behind it, and one for all with channels last, the other axes in any order."""

    fixed = False
    alike = False

    def _fits(self, label: Layout) -> bool:
        return label[-1] == 1 or label == identity(len(label))

    def operands(self, label: Layout) -> list[Layout] | None:
        if label == identity(len(label)):
            return self._own()
        return self._with_weights(label) if self._fits(label) else None

    def results(self, label: Layout) -> list[Layout]:
        return [label]

    def from_operand(self, i: int, layout: Layout) -> Layout | None:
        return self.from_result(layout) if i == 0 else None

    def from_result(self, layout: Layout) -> Layout | None:
        return layout if self._fits(layout) else (*(a for a in layout if a != 1), 1)

    def build(self, ed: Editor, label: Layout, inputs: Sequence[str]) -> Node | str:
        if label == identity(len(label)):
            return replace(self.node, inputs=tuple(inputs))
        return super().build(ed, label, inputs)


class EitherOrder(ChannelsLast):
    """A convolution whose results are few per element, or many: lanes run along the pixels, where
    channels come first, or along the channels; along neither where there is only one."""

    fixed = False
    alike = False

    def __init__(
        self,
        node: Node,
        x: Sequence[TensorType | None],
        y: Sequence[TensorType],
        needs_lanes: bool,
    ) -> None:
        """needs_lanes: it has no tiles for sums along the channels of one filter."""
        super().__init__(node, x, y)
        assert x[0] is not None
        pixels = x[0].shape[-1] != 1
        self.orders: list[Layout] = []
        if not (needs_lanes and pixels and y[0].shape[1] == 1):
            self.orders.append(channels_last(y[0].rank))
        if pixels:
            self.orders.append(identity(y[0].rank))

    @property
    def default(self) -> Layout:
        return self.orders[0]

    def operands(self, label: Layout) -> list[Layout] | None:
        if label not in self.orders:
            return None
        return self._own() if label == identity(len(label)) else super().operands(label)

    def results(self, label: Layout) -> list[Layout]:
        return [label]

    def from_operand(self, i: int, layout: Layout) -> Layout | None:
        return self.from_result(layout) if i == 0 else None

    def from_result(self, layout: Layout) -> Layout | None:
        return layout if layout in self.orders else self.default

    def build(self, ed: Editor, label: Layout, inputs: Sequence[str]) -> Node | str:
        if label == identity(len(label)):
            return replace(self.node, inputs=tuple(inputs))
        return super().build(ed, label, inputs)


class Elementwise(Freedom):
    """Axes stay; operands of lower rank align at the last axis, and are unsqueezed where axes that
    they do not have come between."""

    def _offset(self, i: int) -> int:
        t = self.x[i]
        return 0 if t is None else self.y[0].rank - t.rank

    def operands(self, label: Layout) -> list[Layout] | None:
        return [
            () if t is None else tuple(a - self._offset(i) for a in label if a >= self._offset(i))
            for i, t in enumerate(self.x)
        ]

    def from_operand(self, i: int, layout: Layout) -> Layout | None:
        offset = self._offset(i)
        return (*range(offset), *(a + offset for a in layout))

    def build(self, ed: Editor, label: Layout, inputs: Sequence[str]) -> Node | str:
        made = []
        for i, value in enumerate(inputs):
            own = self.x[i]
            if own is not None and any(d != 1 for d in own.shape):
                missing = [n for n, a in enumerate(label) if a < self._offset(i)]
                if missing != list(range(len(missing))):
                    value = str(ed.op("Unsqueeze", value, ed.constant(missing, "i64")))
            made.append(value)
        return replace(self.node, inputs=tuple(made))


class AlongAxis(Freedom):
    """One axis named by the attribute `axis`. `all_operands`: each has the data's axes (Concat)."""

    def __init__(
        self,
        node: Node,
        x: Sequence[TensorType | None],
        y: Sequence[TensorType],
        all_operands: bool,
        default: int,
    ) -> None:
        super().__init__(node, x, y)
        self.all_operands = all_operands
        self.axis = int(node.attr("axis", default)) % y[0].rank

    def operands(self, label: Layout) -> list[Layout] | None:
        return [label for _ in self.x] if self.all_operands else self._first(label)

    def from_operand(self, i: int, layout: Layout) -> Layout | None:
        return layout if i == 0 or self.all_operands else None

    def build(self, ed: Editor, label: Layout, inputs: Sequence[str]) -> Node | str:
        return replace(self.node, inputs=tuple(inputs)).with_attrs(axis=label.index(self.axis))


class AxesOperand(Freedom):
    """Axes listed by operand `place`, all of them where it is omitted: Slice, Pad. The other
    operands give numbers in the order of that list, which stays."""

    def __init__(
        self,
        node: Node,
        x: Sequence[TensorType | None],
        y: Sequence[TensorType],
        place: int,
        axes: tuple[int, ...],
    ) -> None:
        super().__init__(node, x, y)
        self.place, self.axes = place, axes

    def operands(self, label: Layout) -> list[Layout] | None:
        return self._first(label)

    def from_operand(self, i: int, layout: Layout) -> Layout | None:
        return layout if i == 0 else None

    def build(self, ed: Editor, label: Layout, inputs: Sequence[str]) -> Node | str:
        made = [*inputs, *[""] * (self.place + 1 - len(inputs))]
        made[self.place] = ed.constant([label.index(a) for a in self.axes], "i64")
        return replace(self.node, inputs=tuple(made))


class Reduction(AxesOperand):
    """The axes of operand 1 go, or stay with size 1. Labelled by the operand's layout."""

    def __init__(
        self,
        node: Node,
        x: Sequence[TensorType | None],
        y: Sequence[TensorType],
        axes: tuple[int, ...],
    ) -> None:
        super().__init__(node, x, y, 1, axes)
        assert x[0] is not None
        self.rank = x[0].rank
        self.kept = [a for a in range(self.rank) if a not in axes]
        self.keepdims = bool(node.attr("keepdims", 1))

    @property
    def default(self) -> Layout:
        return identity(self.rank)

    def results(self, label: Layout) -> list[Layout]:
        if self.keepdims:
            return [label]
        return [tuple(self.kept.index(a) for a in label if a in self.kept)]

    def from_result(self, layout: Layout) -> Layout | None:
        if self.keepdims:
            return layout
        # Kept axes in the order asked for; those that go follow the axis that they follow now.
        return _filled([self.kept[a] for a in layout], self.rank)


class ResizeAxes(Freedom):
    """Resize: its attribute `axes` lists the axes that scales, sizes and the region are for."""

    def operands(self, label: Layout) -> list[Layout] | None:
        return self._first(label)

    def from_operand(self, i: int, layout: Layout) -> Layout | None:
        return layout if i == 0 else None

    def build(self, ed: Editor, label: Layout, inputs: Sequence[str]) -> Node | str:
        rank = self.y[0].rank
        axes = [int(a) % rank for a in self.node.attr("axes") or range(rank)]
        made = replace(self.node, inputs=tuple(inputs))
        return made.with_attrs(axes=tuple(label.index(a) for a in axes))


class Transposition(Freedom):
    """Transpose: no work at all, the result is the operand under another layout."""

    def __init__(
        self, node: Node, x: Sequence[TensorType | None], y: Sequence[TensorType], perm: Layout
    ) -> None:
        super().__init__(node, x, y)
        self.perm = perm

    def operands(self, label: Layout) -> list[Layout] | None:
        return [tuple(self.perm[a] for a in label)]

    def from_operand(self, i: int, layout: Layout) -> Layout | None:
        return tuple(self.perm.index(a) for a in layout)

    def build(self, ed: Editor, label: Layout, inputs: Sequence[str]) -> Node | str:
        return inputs[0]


class View(Freedom):
    """Reshape: runs of axes with equal products are joined, split, or kept; axes of size 1 come and
    go. A run stays together in its order; runs may change places."""

    def __init__(
        self,
        node: Node,
        x: Sequence[TensorType | None],
        y: Sequence[TensorType],
        runs: list[tuple[list[int], list[int]]],
    ) -> None:
        super().__init__(node, x, y)
        assert x[0] is not None
        self.source = x[0].shape
        self.runs = runs

    def operands(self, label: Layout) -> list[Layout] | None:
        order = self._order(label, self.y[0].shape, 1)
        if order is None:
            return None
        axes = [a for n in order for a in self.runs[n][0]]
        layout = _filled(axes, len(self.source))
        if label != self.default and self._listed is None:
            stored = permuted(self.source, layout)
            if target_shape(stored, permuted(self.y[0].shape, label)) is None:
                return None
        return self._first(layout)

    @property
    def _listed(self) -> tuple[Size, ...] | None:
        """The operand's sizes where they may be listed in another order: none copies in place."""
        value = None if len(self.x) < 2 or self.x[1] is None else self.x[1].value
        return None if value is None or 0 in value else value

    def from_operand(self, i: int, layout: Layout) -> Layout | None:
        if i != 0:
            return None
        order = self._order(layout, self.source, 0)
        if order is None:
            return None
        return _filled([a for n in order for a in self.runs[n][1]], self.y[0].rank)

    def build(self, ed: Editor, label: Layout, inputs: Sequence[str]) -> Node | str:
        if label == self.default:
            return replace(self.node, inputs=tuple(inputs))
        shape = permuted(self.y[0].shape, label)
        target = target_shape(ed.type_of(inputs[0]).shape, shape)
        if target is not None:
            listed = ed.constant(target, "i64")
        else:
            listed = ed.op("Gather", inputs[1], ed.constant(list(label), "i64"), axis=0)
        return replace(self.node, inputs=(inputs[0], listed)).with_attrs(allowzero=0)

    def _order(self, layout: Layout, shape: Sequence[Size], side: int) -> list[int] | None:
        """Runs in the order of a layout; None where it takes one apart."""
        first = {run[side][0]: n for n, run in enumerate(self.runs)}
        order: list[int] = []
        rest = list(significant(shape, layout))
        while rest:
            n = first.get(rest[0])
            if n is None or rest[: len(self.runs[n][side])] != self.runs[n][side]:
                return None
            rest = rest[len(self.runs[n][side]) :]
            order.append(n)
        return order


def _filled(axes: Sequence[int], rank: int) -> Layout:
    """A layout with these axes in this order; each of the others follows its predecessor."""
    layout = list(axes)
    for a in range(rank):
        if a not in layout:
            layout.insert(layout.index(a - 1) + 1 if a > 0 else 0, a)
    return tuple(layout)
