"""Winograd's convolution where it is estimated to be faster than the direct sum."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from aicc.decisions import Decision, note
from aicc.dtypes import to_numpy
from aicc.graph_ir.graph import Graph, Node
from aicc.graph_ir.passes.rewrite import Editor
from aicc.graph_ir.types import TensorType
from aicc.ops import registry
from aicc.ops.registry import OpContext
from aicc.symbolic import Size, Sym, maximum, product, substitute, symbols
from aicc.uniform import held_bytes

PIXELS = 224
"""What a symbol of a model's input counts as that is no batch: the side of an image. From 112 to
320, what is chosen changes little."""
ODD = -1
"""The attribute `rows` where only a run knows how many there are: an odd number."""
SETS = 4096
"""Bytes after which the sets of the first cache repeat, on common machines."""
CROWD = 6
"""Lines of one set that may be written to in turn: it holds 8 to 16."""
PANEL = 64
"""Filters whose weights are transformed at a time in a run: the columns of most tiles."""
Window = dict[str, Any]
"""Attributes of the operators of Winograd's convolution."""
Cost = Callable[[Graph, Sequence[Node]], float]
"""Estimated seconds of nodes as one kernel."""
TILES = (2, 4)
"""Extents of the tiles of outputs that are tried, in order."""
GAIN = 1.1
"""How many times as fast as what was found before a tile has to be: the larger it is, the larger
are its weights and its rounding errors."""
SMALLER = 1.05
"""How many times the time of three kernels one may take: it needs no memory for what is between."""
FEW = 4
"""Channels. Vectors of fewer are mostly empty."""
SUMS = 384
"""Sums of products that registers hold, about: those of a tile are all computed, needed or not."""
EAGER = 1.25
"""How many times as long as large images convolving small ones directly takes, per output."""
VECTOR = 16
"""Filters of which there is one vector, on many machines."""
SCALE = 1000
"""For a ratio of times as whole numbers."""
ROOM = 22 << 20
"""Bytes that transformed weights may take beyond the original ones. With the 32 MiB that a process
holds without any model, running one stays within its weights, its arena and 60 MB."""


@dataclass(frozen=True)
class Form:
    """How the convolutions with the same weights are computed: tile, 0 for the direct sum; the
    estimated seconds of all, the bytes of the weights; `late` where each run transforms them."""

    tile: int
    seconds: float
    bytes: int
    late: bool = False


def within(layers: Sequence[Sequence[Form]], most: int) -> list[int]:
    """The numbers of forms, one for each layer, whose weights take up to `most` bytes more than
    those of the first forms do.

    layers: the forms of each, every one faster than the one before. Taken is, again and again, what
    saves most seconds per byte.
    """
    chosen = [0] * len(layers)
    while True:
        best: tuple[float, int, int, int] | None = None
        for n, forms in enumerate(layers):
            old = forms[chosen[n]]
            for k in range(chosen[n] + 1, len(forms)):
                more = forms[k].bytes - old.bytes
                if more <= most:
                    saved = (old.seconds - forms[k].seconds) / max(more, 1)
                    best = max(best or (saved, n, k, more), (saved, n, k, more))
        if best is None:
            return chosen
        _, n, chosen[n], more = best
        most -= more


@dataclass
class _Layer:
    """The convolutions with the same weights: their nodes, and the estimated seconds of each and
    whether it is one kernel, by tile; those where the weights are transformed in each run. held:
    the bytes that the weights take now. worth: by node and tile, where only a run knows how large
    images are: what tells it which ones are convolved directly."""

    bytes: int
    held: int
    nodes: list[Node] = field(default_factory=list)
    tiles: list[dict[int, tuple[float, bool]]] = field(default_factory=list)
    late: list[dict[int, float]] = field(default_factory=list)
    worth: dict[tuple[str, int], tuple[int, ...]] = field(default_factory=dict)

    def form(self, tile: int) -> Form:
        seconds = sum(tiles[tile][0] for tiles in self.tiles)
        if not tile:
            return Form(0, seconds, self.held)
        forms = {tiles[tile][1] for tiles in self.tiles}
        direct = self.held if self.worth and True in forms else 0
        return Form(tile, seconds, len(forms) * self.bytes * (tile + 2) ** 2 // 9 + direct)

    def forms(self, tiles: Sequence[int]) -> list[Form]:
        """The direct sum, and what is faster, each than what is before."""
        direct = self.form(0)
        anew, found = [direct], [direct]
        for tile in tiles:
            form = self.form(tile)
            if form.seconds * GAIN < found[-1].seconds:
                found.append(form)
            else:
                self.tell(form, found[-1], False)
            if all(tile in late for late in self.late):
                # The data are read anew for each panel: weights that there is room for stay.
                seconds = sum(late[tile] for late in self.late)
                seconds = max(seconds * GAIN, form.seconds)
                if seconds < direct.seconds:
                    anew.append(Form(tile, seconds, self.bytes, True))
        return sorted([*anew, *found[1:]], key=lambda form: -form.seconds)

    def tell(self, form: Form, before: Form, taken: bool, why: str = "") -> None:
        together = not form.late and all(tiles[form.tile][1] for tiles in self.tiles)
        how = "one kernel" if together else "three kernels"
        when = ", weights transformed in each run" if form.late else ""
        what = f"tiles of {form.tile} in {how}{when}{why}"
        origin = tuple(name for node in self.nodes for name in node.origin)
        note(Decision("winograd", what, taken, form.seconds, before.seconds, origin))


@dataclass(frozen=True)
class Winograd:
    """3x3 convolutions of stride 1 become transforms and matrix products where that is faster.

    before: %y = Conv(%x, @w) {channels_last=1, pads=[1,1,1,1]}
    after:  %v = aicc::WinogradInput(%x) {tile=4, pads=[1,1,1,1], rows=196}
            %m = MatMul(%v, @u)
            %y = aicc::WinogradOutput(%m, %x) {tile=4, pads=[1,1,1,1], rows=196}
    or:     %y = aicc::WinogradConv(%x, @u) {tile=4, pads=[1,1,1,1]}
    or:     %y = aicc::WinogradConv(%x, @u, @w) {tile=4, pads=[1,1,1,1], worth=[2104, 1000, 6]}
    or:     %t = aicc::WinogradFilters(@w.1) {tile=4, more=1}      for each `PANEL` filters
            %u = aicc::Section(%t) {axis=1, begin=0, extent=64}
            %m.1 = MatMul(%v, %u)
            ..
            %m = Concat(%m.1, %m.2, ..) {axis=2}                   between the transforms

    Images of sizes that only a run knows may be so small that most of a tile, or of the rows of
    products that are computed at once, lies outside of them: those are convolved directly.

    A window with gaps goes over tiles of outputs as far apart.

    Transformed weights are 1.8 or 4 times as large. They may take a third more than twice the
    original ones, or what is missing to `ROOM` in a small model, and `ROOM` beyond the original
    ones at most. Where all forms that are faster would take more, those are taken that save most
    time per byte: layers with many pixels before those with many channels. Weights that each run
    transforms anew, for a few filters at a time, take no more than the original ones, and do not
    come from memory: many pixels hide what that takes.

    cost: estimates kernels. tiles: the extents of tiles to try; with none the graph stays as it is.
    sketch: the transformed weights have their types alone, for who only wants to know what comes.
    late: weights may be transformed in each run, which takes room in the arena.
    The data have to be float32 and the weights constant; results differ from those of the direct
    sum in rounding, see `aicc.ops.winograd_matrices.POINTS`.
    """

    cost: Cost
    tiles: tuple[int, ...] = TILES
    sketch: bool = False
    late: bool = True
    name: ClassVar[str] = "winograd"

    def __call__(self, graph: Graph) -> Graph:
        if not self.tiles or not any(n.op == "Conv" for n in graph.nodes):
            return graph
        layers: dict[str, _Layer] = {}

        def look(ed: Editor, node: Node) -> None:
            if node.op == "Conv" and _fits(ed, node) and (window := _window(node)) is not None:
                self._look(ed, node, window, layers)

        Editor(graph, look).run()
        every = [layer.forms(self.tiles) for layer in layers.values()]
        constants = sum(held_bytes(data) for data in graph.constants.values())
        direct = sum(layer.held for layer in layers.values())
        most = min(max(direct + direct // 3, ROOM - constants), ROOM)
        chosen: dict[str, tuple[Form, bool, tuple[int, ...]]] = {}
        for layer, forms, number in zip(layers.values(), every, within(every, most)):
            for n, form in enumerate(forms[1:], start=1):
                why = f", weights of {form.bytes >> 10} KiB for {layer.bytes >> 10}"
                if not form.late or n == number:
                    layer.tell(form, forms[n - 1], n <= number, why if n > number else "")
            if number:
                form = forms[number]
                for node, tiles in zip(layer.nodes, layer.tiles):
                    worth = layer.worth.get((node.outputs[0], form.tile), ())
                    chosen[node.outputs[0]] = form, tiles[form.tile][1], worth

        def rule(ed: Editor, node: Node) -> list[str] | None:
            form = chosen.get(node.outputs[0]) if node.op == "Conv" else None
            return None if form is None else self._transformed(ed, node, *form)

        return Editor(graph, rule).run() if chosen else graph

    def _look(self, ed: Editor, node: Node, window: Window, layers: dict[str, _Layer]) -> None:
        """Estimates a convolution, directly and in tiles."""
        data = ed.constant_of(node.inputs[1])
        assert data is not None
        sizes = _typical(ed.new)
        types = {v: _pinned(ed.type_of(v), sizes) for v in (*node.inputs[:2], node.outputs[0])}
        direct = Graph("winograd", types=types, constants=ed.new.constants)
        x, y = types[node.inputs[0]], types[node.outputs[0]]
        tiles = {0: (self.cost(direct, [node]) * _inside(x, y, window), False)}
        late: dict[int, float] = {}
        worth: dict[tuple[str, int], tuple[int, ...]] = {}
        for tile in self.tiles:
            attrs = {"tile": tile, **window}
            parts, whole, anew = self._seconds(ed, (x, data.shape, y), attrs)
            if self.late and data.shape[0] >= PANEL:
                late[tile] = anew
            free = ed.type_of(node.inputs[0]), data.shape, ed.type_of(node.outputs[0])
            if free != (x, data.shape, y) and self._seconds(ed, free, attrs)[1] == math.inf:
                whole = math.inf  # its bands fit the typical sizes, but not all that may come
            together = whole <= SMALLER * parts
            tiles[tile] = whole if together else parts, together
            if together and free[0].shape[1:3] != x.shape[1:3]:
                worth[node.outputs[0], tile] = _worth(x, y, attrs, tiles[0][0], whole)
        layer = layers.setdefault(node.inputs[1], _Layer(data.nbytes, held_bytes(data)))
        layer.worth |= worth
        layer.nodes.append(node)
        layer.tiles.append(tiles)
        layer.late.append(late)

    def _seconds(
        self,
        ed: Editor,
        shapes: tuple[TensorType, tuple[int, ...], TensorType],
        attributes: Window,
    ) -> tuple[float, float, float]:
        """Estimated times for a convolution: of three kernels, of one, and of three where the
        weights are transformed in each run. shapes: those of its data, weights and result."""
        x, (filters, channels, *_), result = shapes
        square = (int(attributes["tile"]) + 2) ** 2
        rows = _rows(x, result, attributes)
        places: tuple[Size, ...] = (rows,)
        types = {
            "x": x,
            "v": TensorType(x.dtype, (square, *places, channels)),
            "m": TensorType(x.dtype, (square, *places, filters)),
            "y": result,
        }
        wide, flat = (square, 1, 1, channels, filters), (square, channels, filters)
        attrs = tuple(sorted(attributes.items()))
        between = tuple(sorted({**attributes, "rows": rows}.items()))
        parts = (
            Node("aicc::WinogradInput", ("x",), ("v",), between),
            Node("MatMul", ("v", "u"), ("m",)),
            Node("aicc::WinogradOutput", ("m", "x"), ("y",), between),
        )
        whole = Node("aicc::WinogradConv", ("x", "u"), ("y",), attrs)
        three = _sketch(ed, types, flat)
        one = _sketch(ed, types, wide)
        into, product, out = (self.cost(three, [n]) for n in parts)
        few = {
            "f": TensorType(x.dtype, (square, channels, PANEL)),
            "p": TensorType(x.dtype, (square, *places, PANEL)),
        }
        panel = _sketch(ed, {**types, **few}, (3, 3, channels, PANEL))
        made = Node("aicc::WinogradFilters", ("u",), ("f",), (("more", 0), attrs[-1]))
        times = Node("MatMul", ("v", "f"), ("p",))
        each = sum(self.cost(panel, [n]) for n in (made, times))
        late = into + each * filters / PANEL + out
        return into + product + out, self.cost(one, [whole]), late

    def _transformed(
        self, ed: Editor, node: Node, form: Form, together: bool, worth: tuple[int, ...]
    ) -> list[str]:
        """The new nodes, and the transformed weights as a constant, or the weights as constants of
        a few filters each."""
        tile = form.tile
        (x, w), window = node.inputs[:2], _window(node)
        assert window is not None
        attrs = {"tile": tile, **window}
        rows = _rows(ed.type_of(x), ed.type_of(node.outputs[0]), attrs)
        if together and not form.late:
            u = self._weights(ed, w, tile, False)
            if worth:
                return [ed.op("aicc::WinogradConv", x, u, w, worth=worth, **attrs)]
            return [ed.op("aicc::WinogradConv", x, u, **attrs)]
        v = ed.op("aicc::WinogradInput", x, rows=rows, **attrs)
        if form.late:
            each = [ed.op("MatMul", v, self._filters(ed, u, tile)) for u in self._panels(ed, w)]
            products = ed.op("Concat", *each, axis=2) if len(each) > 1 else each[0]
        else:
            products = ed.op("MatMul", v, self._weights(ed, w, tile, True))
        return [ed.op("aicc::WinogradOutput", products, x, rows=rows, **attrs)]

    def _filters(self, ed: Editor, w: str, tile: int) -> str:
        """The transformed filters [(m+2)^2, C, O] of filters [3, 3, C, O], as a run makes them."""
        channels = int(ed.type_of(w).shape[2])
        apart = math.gcd(channels * int(ed.type_of(w).shape[3]) * 4, SETS)
        more = int((tile + 2) ** 2 * apart // SETS > CROWD)
        made = ed.op("aicc::WinogradFilters", w, tile=tile, more=more)
        return str(ed.op("aicc::Section", made, axis=1, begin=0, extent=channels)) if more else made

    def _panels(self, ed: Editor, w: str) -> list[str]:
        """The weights as constants [3, 3, C, O] of `PANEL` filters each, or fewer at last."""
        known = ed.memo.get((w, PANEL))
        if known is None:
            data = ed.constant_of(w)
            assert data is not None
            parts = [data[n : n + PANEL].transpose(2, 3, 1, 0) for n in range(0, len(data), PANEL)]
            if self.sketch:
                parts = [np.zeros(p.shape, p.dtype) for p in parts]
            known = ed.memo[w, PANEL] = [ed.constant(p, base=w) for p in parts]
        return list(known)

    def _weights(self, ed: Editor, w: str, tile: int, flat: bool) -> str:
        """The transformed weights, once for all convolutions with these."""
        known = ed.memo.get((w, tile, flat))
        if known is None:
            transform = ed.make("aicc::WinogradWeights", w, tile=tile)
            operator = registry.get(transform.op)
            ctx = OpContext(transform.op, dict(transform.attrs), [ed.type_of(w)])
            if self.sketch:
                (t,) = operator.infer(ctx)
                weights = np.zeros([int(d) for d in t.shape], to_numpy(t.dtype))
            else:
                (weights,) = operator.reference(ctx, ed.constant_of(w))
            known = ed.memo[w, tile, flat] = ed.constant(
                weights[:, 0, 0] if flat else weights, base=w
            )
        return str(known)


def _sketch(ed: Editor, types: Mapping[str, TensorType], weights: tuple[int, ...]) -> Graph:
    """A graph with the types of values that are not there yet, and with weights "u"."""
    constants = {**ed.new.constants, "u": np.broadcast_to(np.float32(0), weights)}
    return Graph("winograd", types={**types, "u": TensorType("f32", weights)}, constants=constants)


def _fits(ed: Editor, node: Node) -> bool:
    """True for a 3x3 convolution of float32 data, channels last, with constant weights, in one
    group, without bias or strides; of several filters, or its products are of vectors; of
    some channels, of which the vectors of its transforms are."""
    if not node.attr("channels_last", 0) or node.attr("group", 1) != 1:
        return False
    if node.attr("filters_last", 0):
        return False
    if len(node.inputs) > 2 and node.inputs[2]:
        return False
    if any(v != 1 for v in node.attr("strides", ())):
        return False
    weights = ed.constant_of(node.inputs[1])
    x = ed.type_of(node.inputs[0])
    if weights is None or weights.shape[0] == 1 or weights.shape[1] < FEW:
        return False
    return weights.shape[2:] == (3, 3) and x.dtype == "f32"


def _window(node: Node) -> Window | None:
    """The zeros before and after each spatial axis, and where there are any the gaps of the window;
    None for a mode that is not known."""
    mode = node.attr("auto_pad", "NOTSET")
    mode = mode.decode() if isinstance(mode, bytes) else str(mode)
    steps = tuple(node.attr("dilations", ())) or (1, 1)
    pads = {"VALID": (0,) * 4, "SAME_UPPER": steps * 2, "SAME_LOWER": steps * 2}
    pads["NOTSET"] = tuple(node.attr("pads", ())) or (0,) * 4
    if mode not in pads:
        return None
    return {"pads": pads[mode]} | ({} if steps == (1, 1) else {"dilations": steps})


def _worth(
    x: TensorType, y: TensorType, window: Window, direct: float, whole: float
) -> tuple[int, ...]:
    """The attribute `worth` for a convolution of which images of typical sizes, data of type x to
    results of type y, are estimated to take `whole` seconds in tiles, and `direct` seconds else."""
    filters = int(y.shape[3])
    tiles, outputs = int(product(_tiles(x, window).shape[2:4])), int(product(y.shape[1:3]))
    ratio = whole / tiles / (direct / outputs * EAGER)
    columns = min(PANEL, -(-filters // VECTOR) * VECTOR)
    return max(1, round(SCALE * ratio)), SCALE, max(1, SUMS // columns)


def _inside(x: TensorType, y: TensorType, window: Window) -> float:
    """The share of a window's elements that fall into data of type x, on average over the results
    of type y. The direct sum leaves out the others, which a window with large gaps has many of."""
    share = 1.0
    for axis, d in enumerate(window.get("dilations", ())):
        begin, n, results = window["pads"][axis], int(x.shape[1 + axis]), int(y.shape[1 + axis])
        places = range(-begin, 2 * d - begin + 1, d)
        share *= sum(max(0, min(results, n - p) - max(0, -p)) for p in places) / (3 * results)
    return share


def _typical(graph: Graph) -> dict[Sym, int]:
    """Sizes that estimates are made with: of one image, or one sequence."""
    found: dict[Sym, int] = {}
    for v in graph.inputs:
        for axis, d in enumerate(graph.types[v].shape):
            for s in symbols(d):
                found.setdefault(s, PIXELS if axis else 1)
    return found


def _pinned(t: TensorType, sizes: Mapping[Sym, int]) -> TensorType:
    """The type with numbers for symbols."""
    rest = {s: PIXELS for d in t.shape for s in symbols(d)}
    pinned = (substitute(d, {**rest, **sizes}) for d in t.shape)
    return TensorType(t.dtype, tuple(maximum(1, d) for d in pinned))


def _rows(x: TensorType, result: TensorType, attributes: Window) -> int:
    """Rows of the matrices between the transforms.

    A tile is written to all matrices at one place, and read from all of them. A few rows more keep
    these places from falling into one set of the cache.
    """
    matrices = _tiles(x, attributes)
    square, least = (int(attributes["tile"]) + 2) ** 2, product(matrices.shape[1:4])
    sizes = (x.shape[3], result.shape[3])
    if not isinstance(least, int):
        return ODD

    def crowd(rows: int) -> int:
        apart = (rows * c * 4 for c in sizes if isinstance(c, int))
        return max(square * math.gcd(n, SETS) // SETS for n in apart)

    return min(range(least, least + 4), key=lambda n: (max(crowd(n), CROWD), n))


def _tiles(x: TensorType, attributes: Window) -> TensorType:
    """The type of transformed data: [(m+2)^2, N, tiles, tiles, C]."""
    operator = registry.get("aicc::WinogradInput")
    attrs = {"rows": 0, "dilations": (1, 1), **attributes}
    (matrices,) = operator.infer(OpContext("aicc::WinogradInput", attrs, [x]))
    return matrices
