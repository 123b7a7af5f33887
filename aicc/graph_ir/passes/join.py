"""Concat, Split and Slice without copying: what is joined is computed in its place, parts are read
in theirs.

A tensor that is joined along an inner axis from others, and each of these, are arrays in the same
memory: parts with the strides of the whole. Kernels write and read them there as they would
elsewhere (`tensor_ir.ir.Buffer`), so that nothing is copied; what parts are joined of, in turn,
lies in the same memory, such as all layers of a densely connected block (Pleiss et al.,
"Memory-efficient implementation of DenseNets", arXiv 1707.06990).

What cannot be written there, because it is a view, an input, or a part of another join, is
transferred by a kernel; so is what has left the caches since: a copy streams it back, where kernels
that read it here and there would wait for it. Whether that takes less time than joining is
estimated, with what would fuse with the one or the other. Where the memory of the model would grow,
since the whole is there from its first part on, parts are transferred as well (`join_memory`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import accumulate
from typing import ClassVar

from aicc.decisions import Decision, collect, note
from aicc.dtypes import nbytes
from aicc.graph_ir.graph import Graph, Node, make_node
from aicc.graph_ir.module import Module
from aicc.graph_ir.passes.fuse import Cost, Describe
from aicc.graph_ir.passes.join_memory import JOIN, SECTION, Part, parts_to_copy
from aicc.graph_ir.passes.join_nested import nested
from aicc.graph_ir.passes.layout import typical
from aicc.graph_ir.passes.rewrite import without_dead
from aicc.graph_ir.places import copies, cut, is_view, joined
from aicc.graph_ir.types import TensorType
from aicc.ops import registry
from aicc.symbolic import Size, product, symbols

TRANSFER = "aicc::Transfer"
LEAST_RUN = 64
"""Bytes of a part that lie side by side, at least: shorter runs are written one by one."""
SAVING = 0.1
"""The share of the time for joining that has to be saved."""

SEARCH = 0.2
"""Seconds for each order whose memory is asked for."""


@dataclass(frozen=True)
class Join:
    """Concat, Split and Slice as joins and views, where that is estimated to be faster.

    before: %y = Concat(%a, %x) {axis=3}
    after:  %t = aicc::Transfer(%x)   %y = aicc::Join(%a, %t) {axis=3}      %x is an input, say

    before: %a, %b = Split(%x, @sizes) {axis=3}
    after:  %a = aicc::Section(%x) {axis=3, begin=0, extent=16}
            %b = aicc::Section(%x) {axis=3, begin=16, extent=16}

    before: %y = Slice(%x, @starts, @ends, @axes) {}
    after:  %y = aicc::Section(%x) {axis=3, begin=16, extent=32}        one for each axis of @axes

    The parts of a value that are joined again, in order, are that value.

    fuse: the pass behind. cached: bytes that may be touched until what was written before leaves
    the caches.
    """

    describe: Describe
    cost: Cost
    fuse: Callable[[Graph], Module]
    cached: int

    name: ClassVar[str] = "join"

    def __call__(self, graph: Graph) -> Graph:
        if not any(n.op in ("Concat", "Split") or cut(graph, n) for n in graph.nodes):
            return graph
        whole = nested(graph, lambda n: _joinable(graph, n))
        last = self._joining(whole, ())
        made = last.run()
        if not last.parts:
            return graph
        with collect():  # what is decided here is nothing that is done
            module = self.fuse(made)
        copied = parts_to_copy(module, last.parts, last.split_of, SEARCH)
        if copied:
            last = self._joining(whole, copied)
            made = last.run()
        for decision in last.decisions:
            note(decision)
        return made

    def _joining(self, graph: Graph, refused: Iterable[Part]) -> _Joining:
        return _Joining(graph, self.describe, self.cost, self.cached, frozenset(refused))


@dataclass
class _Joining:
    """One way to do it. refused: parts that are not to be in place."""

    graph: Graph
    describe: Describe
    cost: Cost
    cached: int
    refused: frozenset[Part]
    parts: list[Part] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)

    def __post_init__(self) -> None:
        graph = self.graph
        self.types = graph.types
        self.makers = graph.producers()
        self.readers = graph.consumers()
        self.position = {o: n for n, node in enumerate(graph.nodes) for o in node.outputs if o}
        self.touched = [0, *accumulate(map(self._bytes_of, graph.nodes))]
        self.wholes: dict[str, list[str]] = {}  # the parts of each join that are in place
        self.inside: set[str] = set()  # these parts of all joins
        self.sections: dict[str, tuple[str, int, int, int]] = {}  # of what, axis, begin, end
        self.split_of: dict[str, Part] = {}
        self.new = graph.copy()
        self.new.nodes = []

    def run(self) -> Graph:
        for node in self.graph.nodes:
            if not self._made_otherwise(node):
                self.new.nodes.append(node)
        return without_dead(self.new)

    def _made_otherwise(self, node: Node) -> bool:
        if node.op == "Split":
            return self._split(node)
        if node.op == "Concat":
            return self._concat(node)
        sections = cut(self.graph, node)
        return bool(sections) and self._slice(node, sections or ())

    # splitting

    def _split(self, node: Node) -> bool:
        x, types = node.inputs[0], self.types
        axis = int(node.attr("axis", 0)) % types[x].rank
        if not all(node.outputs) or not _even(types[x], axis) or not self._has_parts(x):
            return False
        if any(not _even(types[o], axis) or _run(types[o], axis) < LEAST_RUN for o in node.outputs):
            return False
        free = [self._read_anywhere(o) for o in node.outputs]
        if not any(free):
            return False
        seconds = self.cost(self.graph, [node])
        instead = sum(self._transfer_seconds(o) for o, f in zip(node.outputs, free) if not f)
        part = node.outputs[0], ""
        taken = part not in self.refused and instead < (1 - SAVING) * seconds
        self._note("parts read in place: Split", taken, instead, seconds, node)
        if not taken:
            return False
        self.parts.append(part)
        begin = 0
        for o, f in zip(node.outputs, free):
            extent = _int(types[o].shape[axis])
            name = o if f else self._fresh(o)
            attrs = {"axis": axis, "begin": begin, "extent": extent}
            self.new.nodes.append(make_node(SECTION, (x,), (name,), attrs, origin=node.origin))
            self.sections[o] = x, axis, begin, begin + extent
            self.split_of[name] = part
            if not f:
                self._add_transfer(name, o, node)
            begin += extent
        return True

    def _has_parts(self, x: str) -> bool:
        """Whether a value lies where kernels may read parts of it."""
        maker = self.makers.get(x)
        known = maker is None or self._has_kernel(maker) or is_view(maker)
        return known and x not in self.graph.constants

    def _slice(self, node: Node, sections: tuple[tuple[int, int, int], ...]) -> bool:
        (o,), types = node.outputs, self.types
        x, (first, *_), (last, *_) = node.inputs[0], sections[0], sections[-1]
        if not _even(types[x], first) or not _even(types[o], first) or not self._has_parts(x):
            return False
        if _run(types[o], last) < LEAST_RUN or not self._read_anywhere(o):
            return False
        seconds, own = self._slice_seconds(node)
        part = o, ""
        taken = part not in self.refused and seconds > SAVING * own
        self._note("read in place: Slice", taken, 0.0, seconds, node)
        if not taken:
            return False
        self.parts.append(part)
        self.split_of[o] = part
        if len(sections) == 1:
            ((axis, begin, extent),) = sections
            self.sections[o] = x, axis, begin, begin + extent
        for axis, begin, extent in sections:
            t = self.new.types[x]
            name = o if axis == last else self.new.fresh(o)
            shape = (*t.shape[:axis], extent, *t.shape[axis + 1 :])
            self.new.types[name] = TensorType(t.dtype, shape)
            attrs = {"axis": axis, "begin": begin, "extent": extent}
            self.new.nodes.append(make_node(SECTION, (x,), (name,), attrs, origin=node.origin))
            x = name
        return True

    # joining

    def _concat(self, node: Node) -> bool:
        (result,), types = node.outputs, self.types
        axis = int(node.attr("axis", 0)) % types[result].rank
        if joined(self.graph, node) is not None or types[result].dtype == "str":
            return False
        before = types[result].shape[:axis]
        operands = [v for v in node.inputs if types[v].count != 0]
        if any(not _even(types[v], axis) or types[v].shape[:axis] != before for v in operands):
            return False
        operands = self._whole_again(operands, axis)
        placed = [
            v
            for v in operands
            if operands.count(v) == 1
            and (result, v) not in self.refused
            and _run(types[v], axis) >= LEAST_RUN
            and self._written_anywhere(v)
            and self._touched(v, node) <= self.cached
        ]
        if not placed:
            return False
        seconds, own = self._concat_seconds(node)
        rest = [v for v in operands if v not in placed]
        instead = sum(map(self._transfer_seconds, rest))
        taken = seconds - instead > SAVING * own
        self._note("computed in place: Concat", taken, instead, seconds, node)
        if not taken:
            return False
        self.parts += [(result, v) for v in placed]
        self.wholes[result] = placed
        self.inside.update(placed)
        names: list[str] = []
        for v in operands:
            names.append(v if v in placed else self._fresh(v))
            if v not in placed:
                self._add_transfer(v, names[-1], node)
        made = make_node(JOIN, names, (result,), {"axis": axis}, origin=node.origin)
        self.new.nodes.append(made)
        return True

    def _whole_again(self, operands: list[str], axis: int) -> list[str]:
        """The operands, all sections of a value in a row replaced by that value."""
        found: list[str] = []
        while operands:
            x, cut, at, _ = self.sections.get(operands[0], ("", axis, 0, 0))
            count = 0
            while count < len(operands):
                other, _, begin, end = self.sections.get(operands[count], ("", axis, 0, 0))
                if other != x or begin != at or not x:
                    break
                at, count = end, count + 1
            first = self.sections.get(operands[0], ("", axis, 1, 0))[2] == 0
            if first and cut == axis and self.types[x].shape[axis] == at:
                found.append(x)
                operands = operands[count:]
            else:
                found.append(operands[0])
                operands = operands[1:]
        return found

    def _written_anywhere(self, v: str) -> bool:
        """Whether a kernel computes a value that may write it, and others read it, in any place."""
        maker = self.makers.get(v)
        if maker is None or v in self.inside or v in self.sections:
            return False
        if v not in self.wholes and (joined(self.graph, maker) is not None or is_view(maker)):
            return False
        return self._has_kernel(maker) and self._read_anywhere(v)

    def _has_kernel(self, node: Node) -> bool:
        found = registry.find(node.op)
        return found is not None and found.has_lowering and not copies(node)

    def _bytes_of(self, node: Node) -> int:
        """Bytes that a node writes, and those of the constants that it reads."""
        if is_view(node):
            return 0
        names = (*node.outputs, *(v for v in node.inputs if v in self.graph.constants))
        return sum(_bytes(self.types[v]) for v in names if v)

    def _touched(self, v: str, reader: Node) -> int:
        """Bytes that are touched after a value is written, until a node reads it."""
        return self.touched[self.position[reader.outputs[0]]] - self.touched[self.position[v] + 1]

    def _read_anywhere(self, v: str) -> bool:
        """Whether kernels alone read a value, through views too: in any place."""
        return v not in self.graph.outputs and all(
            self._has_kernel(u)
            and joined(self.graph, u) is None
            and (not is_view(u) or (self._sizes_known(v, u) and self._read_anywhere(u.outputs[0])))
            for u in self.readers.get(v, ())
        )

    def _sizes_known(self, v: str, view: Node) -> bool:
        mine = {s for d in self.types[v].shape for s in symbols(d)}
        return all(symbols(d) <= mine for d in self.types[view.outputs[0]].shape)

    # time

    def _concat_seconds(self, node: Node) -> tuple[float, float]:
        """What joining takes by a kernel, in one with what it would fuse with; and alone."""
        own = self.cost(self.graph, [node])
        found = [own]
        (result,) = node.outputs
        users = self.readers.get(result, [])
        if len(users) == 1 and result not in self.graph.outputs:
            ways = self.describe(self.graph, users[0])
            reads = {ways.reads.get(n) for n, v in enumerate(users[0].inputs) if v == result}
            if ways.kind == "map" and reads == {"same"}:
                found.append(self._beside([node, users[0]], users[0]))
        maker = self.makers.get(node.inputs[0])
        if maker is not None and self.describe(self.graph, maker).movement:
            if len(self.readers[node.inputs[0]]) == 1:
                found.append(self._beside([maker, node], maker))
        return min(found), own

    def _slice_seconds(self, node: Node) -> tuple[float, float]:
        """What a Slice takes by a kernel, in one with what it would fuse with; and alone."""
        own = self.cost(self.graph, [node])
        found = [own]
        x, (result,) = node.inputs[0], node.outputs
        users = self.readers.get(result, [])
        if len(users) == 1:
            (user,) = users
            if self.describe(self.graph, user).kind in ("map", "contraction"):
                found.append(self._beside([node, user], user))
        maker = self.makers.get(x)
        alone = len(self.readers[x]) == 1 and x not in self.graph.outputs
        if maker is not None and alone and self.describe(self.graph, maker).kind == "map":
            found.append(self._beside([maker, node], maker))
        return min(found), own

    def _beside(self, nodes: list[Node], other: Node) -> float:
        """What more a kernel of several nodes takes than one of them."""
        return self.cost(self.graph, nodes) - self.cost(self.graph, [other])

    def _transfer_seconds(self, v: str) -> float:
        t = self.types[v].without_value()
        sketch = Graph("join", types={"x": t, "y": t})
        return self.cost(sketch, [Node(TRANSFER, ("x",), ("y",))])

    def _note(self, what: str, taken: bool, instead: float, seconds: float, node: Node) -> None:
        self.decisions.append(Decision("join", what, taken, instead, seconds, tuple(node.origin)))

    # building

    def _fresh(self, v: str) -> str:
        name = self.new.fresh(v)
        self.new.types[name] = self.types[v].without_value()
        return name

    def _add_transfer(self, source: str, target: str, node: Node) -> None:
        made = make_node(TRANSFER, (source,), (target,), {}, origin=node.origin)
        self.new.nodes.append(made)


def _joinable(graph: Graph, node: Node) -> bool:
    """Whether the sizes of what a Concat joins allow it to be in place."""
    axis = int(node.attr("axis", 0)) % graph.types[node.outputs[0]].rank
    types = [graph.types[v] for v in node.inputs]
    return all(_even(t, axis) and _run(t, axis) >= LEAST_RUN for t in types)


def _even(t: TensorType, axis: int) -> bool:
    """Whether all sizes from an axis on are numbers, and none is 0."""
    return t.value is None and all(isinstance(d, int) and d > 0 for d in t.shape[axis:])


def _run(t: TensorType, axis: int) -> int:
    """The bytes that lie side by side in a part along an axis."""
    return _int(product(t.shape[axis:])) * nbytes(t.dtype)


def _bytes(t: TensorType) -> int:
    return typical(t.nbytes)


def _int(size: Size) -> int:
    assert isinstance(size, int)
    return size
