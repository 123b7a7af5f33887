"""Channels last inside: in which order the axes of every value are stored.

Convolutions and pooling read and write [N, spatial..., C]; the model speaks [N, C, spatial...]. So
each of them wants its data transposed. This pass chooses for every node that leaves a choice (see
`axes`) the layout that it is computed in, so that the fewest bytes are transposed in all:

    cost = sum over values of transposing it * (layouts that readers want and it is not stored in)
         + sum over nodes that take longer in one layout than in another of what they take

in estimated seconds.

Every node starts in the layout that its largest operand comes in, which pushes transposes down to
where they are needed or cancel. Sweeps against and with the flow then change a node's layout where
that lowers the cost of its operands and results, and, once a sweep, also where it only moves a
transpose on. A sweep is kept only if the whole cost does not rise; there are at most `sweeps`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from aicc.decisions import Decision, note
from aicc.graph_ir.graph import Graph, Node, reads
from aicc.graph_ir.passes.axes import (
    Freedom,
    Layout,
    identity,
    permuted,
    significant,
)
from aicc.graph_ir.passes.axis_rules import freedom
from aicc.graph_ir.passes.rewrite import Editor
from aicc.graph_ir.passes.simplify_shapes import target_shape
from aicc.graph_ir.types import TensorType
from aicc.symbolic import Size, evaluate, symbols

TYPICAL = 64
"""What an unknown size is taken for in costs."""
RATE = 24e9
"""Bytes of a value that are transposed per second, where nothing estimates that."""
Cost = Callable[[Graph, Sequence[Node]], float]
"""Estimated seconds of nodes as one kernel."""


@dataclass(frozen=True)
class ChooseLayout:
    """Operators with channels become `channels_last`; transposes remain where layouts differ.

    before: %c = Conv(%x, @w)   %r = Relu(%c)   %y = Conv(%r, @v)
    after:  %t = Transpose(%x) {perm=[0,2,3,1]}  %c = Conv(%t, @w) {channels_last=1}  %r = Relu(%c)
            %d = Conv(%r, @v) {channels_last=1}  %y = Transpose(%d) {perm=[0,3,1,2]}

    sweeps: over the graph, at most. cost: estimates what a node takes; without it, a node that may
    be computed in several layouts takes as long in each. rows: every Conv has channels last, also
    where it would take less time otherwise, so that its images can be cut into patches of rows.
    """

    sweeps: int = 6
    cost: Cost | None = None
    rows: bool = False

    name: ClassVar[str] = "layout"

    def __call__(self, graph: Graph) -> Graph:
        return self._run(Editor(graph))

    def _run(self, ed: Editor) -> Graph:
        choice = _Choice(ed, self.cost, self.rows)
        choice.improve(self.sweeps)
        return _Emitter(ed, choice, self._run).run()


def typical(size: Size) -> int:
    """A number to compare costs with, 0 or more, for a size that may depend on symbols."""
    if isinstance(size, int):
        return size
    values = {}
    for s in symbols(size):
        values[s.name] = max(s.lo or 0, min(TYPICAL, TYPICAL if s.hi is None else s.hi))
    return max(0, evaluate(size, values))


class _Choice:
    """A label for every node, and what it costs."""

    def __init__(self, ed: Editor, estimate: Cost | None, rows: bool) -> None:
        graph = ed.old
        self.ed = ed
        self.estimate = estimate
        self.seconds: dict[tuple[int, Layout], float] = {}
        self.nodes = graph.nodes
        self.free: list[Freedom] = [freedom(ed, n, estimate is None or rows) for n in self.nodes]
        self.types = {v: ed.type_of(v) for v in self._values(graph)}
        self.moving = {
            v: 0.0 if ed.constant_of(v) is not None else self._moving(t)
            for v, t in self.types.items()
        }
        """Seconds to transpose each value."""
        self.stored: dict[str, Layout] = {}
        self.readers: dict[str, list[int]] = {}
        for n, node in enumerate(self.nodes):
            for v in dict.fromkeys(reads(node)):
                self.readers.setdefault(v, []).append(n)
        # Results of the graph, and what regions use, are wanted as they are.
        self.plain = set(graph.outputs)
        for node in self.nodes:
            if node.regions:
                self.plain.update(reads(node))
        self.labels: list[Layout] = []
        self.wanted: list[list[Layout]] = []
        for n in range(len(self.nodes)):
            self.labels.append(self.free[n].default)
            self.wanted.append([])
            self._set(n, self._start(n))

    @staticmethod
    def _values(graph: Graph) -> Iterator[str]:
        for node in graph.nodes:
            yield from (i for i in reads(node))
            yield from (o for o in node.outputs if o)
        yield from graph.outputs

    def _moving(self, t: TensorType) -> float:
        if self.estimate is None or t.rank < 2:
            return typical(t.nbytes) / RATE
        turned = TensorType(t.dtype, t.shape[::-1])
        graph = Graph("layout", types={"x": TensorType(t.dtype, t.shape), "y": turned})
        perm = tuple(reversed(range(t.rank)))
        return self.estimate(graph, [Node("Transpose", ("x",), ("y",), (("perm", perm),))])

    def layout_of(self, value: str) -> Layout:
        return self.stored.get(value) or identity(self.types[value].rank)

    def _set(self, n: int, label: Layout) -> None:
        wanted = self.free[n].operands(label)
        assert wanted is not None
        self.labels[n], self.wanted[n] = label, wanted
        results = [o for o in self.nodes[n].outputs if o]
        for o, layout in zip(results, self.free[n].results(label), strict=True):
            self.stored[o] = layout

    def differ(self, value: str, a: Layout, b: Layout) -> bool:
        shape = self.types[value].shape
        return a != b and significant(shape, a) != significant(shape, b)

    def _start(self, n: int) -> Layout:
        """The label that transposes the fewest bytes of operands; of equal ones, that of the
        largest operand."""
        best, least = self.free[n].default, None
        for label in self._candidates(n, ahead=False):
            wanted = self.free[n].operands(label)
            if wanted is None:
                continue
            cost = self.node_cost(n, label) + sum(
                self.moving[v]
                for v, layout in zip(self.nodes[n].inputs, wanted)
                if v and self.differ(v, layout, self.layout_of(v))
            )
            if least is None or cost < least:
                best, least = label, cost
        return best

    def _candidates(self, n: int, ahead: bool) -> list[Layout]:
        """Labels worth trying, best guesses first: from operands (largest first), from what readers
        of the results want (first of all where `ahead`), and the node as it is written."""
        f, node = self.free[n], self.nodes[n]
        if f.fixed:
            return [f.default]
        behind = [
            f.from_operand(i, self.layout_of(v))
            for i, v in sorted(enumerate(node.inputs), key=lambda iv: -self.moving.get(iv[1], 0.0))
            if v and self.moving[v]
        ]
        result = next(o for o in node.outputs if o)
        later = [f.from_result(layout) for layout in self._wants(result)]
        order = [*later, *behind] if ahead else [*behind, *later]
        return [c for c in dict.fromkeys((*order, f.default)) if c is not None]

    def _wants(self, value: str) -> Iterator[Layout]:
        for n in self.readers.get(value, ()):
            if n < len(self.wanted):
                for v, layout in zip(self.nodes[n].inputs, self.wanted[n]):
                    if v == value:
                        yield layout
        if value in self.plain:
            yield identity(self.types[value].rank)

    def value_cost(self, value: str) -> float:
        """Seconds to transpose a value for all its readers."""
        if not self.moving[value]:
            return 0.0
        shape = self.types[value].shape
        have = significant(shape, self.layout_of(value))
        return self.moving[value] * len(
            {significant(shape, w) for w in self._wants(value)} - {have}
        )

    def node_cost(self, n: int, label: Layout) -> float:
        """Seconds that a node takes in a layout, where that makes a difference."""
        f, node = self.free[n], self.nodes[n]
        if f.alike or self.estimate is None:
            return 0.0
        found = self.seconds.get((n, label))
        if found is None:
            wanted = f.operands(label)
            assert wanted is not None
            types, constants = {}, {}
            layouts = [*zip(node.inputs, wanted), *zip(node.outputs, f.results(label))]
            for v, layout in layouts:
                if v:
                    types[v] = replace(self.types[v], shape=permuted(self.types[v].shape, layout))
                    data = self.ed.constant_of(v)
                    if data is not None:
                        constants[v] = np.transpose(data, layout)
            built = f.build(self.ed, label, node.inputs)
            assert isinstance(built, Node)
            graph = Graph("layout", types=types, constants=constants)
            made = replace(built, outputs=node.outputs)
            found = self.seconds[n, label] = self.estimate(graph, [made])
        return found

    def cost(self) -> float:
        nodes = sum(self.node_cost(n, label) for n, label in enumerate(self.labels))
        return nodes + sum(self.value_cost(v) for v in self.types)

    def improve(self, sweeps: int) -> None:
        """Sweeps while the cost falls, and two without that, to move transposes on."""
        best, labels = self.cost(), list(self.labels)
        idle = 0
        for sweep in range(sweeps):
            if best == 0 or idle == 2:
                break
            ahead = sweep % 2 == 0
            order: Iterable[int] = range(len(self.nodes))
            for n in reversed(range(len(self.nodes))) if ahead else order:
                self._improve(n, ahead)
            total = self.cost()
            idle = 0 if total < best else idle + 1
            if total <= best:
                best, labels = total, list(self.labels)
        for n, label in enumerate(labels):
            if self.labels[n] != label:
                self._set(n, label)
        for n in range(len(self.nodes)):
            self._tell(n)

    def _tell(self, n: int) -> None:
        """Notes why a node that two layouts suit is computed in the one and not in the other."""
        f, node = self.free[n], self.nodes[n]
        if f.fixed or f.alike or self.estimate is None:
            return
        chosen = self.labels[n]
        plain = identity(len(chosen))
        seconds: dict[bool, float] = {}
        for label in dict.fromkeys((plain, f.default, chosen)):
            if f.operands(label) is None:
                continue
            self._set(n, label)
            around = {v for v in (*node.inputs, *node.outputs) if v}
            cost = self.node_cost(n, label) + sum(self.value_cost(v) for v in around)
            seconds[label == plain] = min(cost, seconds.get(label == plain, cost))
        self._set(n, chosen)
        if len(seconds) < 2:
            return
        what = f"{node.op} with channels first"
        note(Decision("layout", what, chosen == plain, seconds[True], seconds[False], node.origin))

    def _improve(self, n: int, ahead: bool) -> None:
        """The candidate that costs least around node `n`; of equal ones the first."""
        if self.free[n].fixed:
            return
        before = self.labels[n]
        around = {v for v in (*self.nodes[n].inputs, *self.nodes[n].outputs) if v}
        best, least = before, None
        for label in (*self._candidates(n, ahead), before):
            if self.free[n].operands(label) is None:
                continue
            self._set(n, label)
            cost = self.node_cost(n, label) + sum(self.value_cost(v) for v in around)
            if least is None or cost < least:
                best, least = label, cost
        self._set(n, best)


class _Emitter:
    """Writes the graph of a choice."""

    def __init__(self, ed: Editor, choice: _Choice, run_region: Callable[[Editor], Graph]) -> None:
        self.ed = ed
        self.choice = choice
        self.run_region = run_region
        self.defined = {o for n in ed.old.nodes for o in n.outputs}
        self.versions: dict[str, list[tuple[Layout, str]]] = {}
        """For each value of the old graph, the layouts that it is there in, and under which name;
        the first is the one that its node stores."""

    def run(self) -> Graph:
        for n, node in enumerate(self.ed.old.nodes):
            self._node(n, node)
        for o in self.ed.old.outputs:
            self.ed.replace(o, self.version(o, identity(self.ed.type_of(o).rank)))
        return self.ed.finish()

    def _node(self, n: int, node: Node) -> None:
        ed, choice = self.ed, self.choice
        ed.at(node)
        if node.regions:
            for v in reads(node):
                ed.replace(v, self.version(v, identity(ed.type_of(v).rank)))
            regions = (self.run_region(Editor(r, None, ed)) for r in node.regions)
            node = replace(node, regions=tuple(regions))
        inputs = [
            self.version(v, layout) if v else "" for v, layout in zip(node.inputs, choice.wanted[n])
        ]
        if node.regions:
            built: Node | str = replace(node, inputs=tuple(inputs))
        else:
            built = choice.free[n].build(ed, choice.labels[n], inputs)
        if isinstance(built, str):
            self.versions[node.outputs[0]] = [(choice.stored[node.outputs[0]], built)]
            return
        outputs = []
        for o in node.outputs:
            if not o:
                outputs.append("")
                continue
            layout, shape = choice.stored[o], ed.type_of(o).shape
            name = o if permuted(shape, layout) == shape and self._same(o, layout) else ed.fresh(o)
            self.versions[o] = [(layout, name)]
            outputs.append(name)
        ed.add(replace(built, outputs=tuple(outputs)))

    def _same(self, value: str, layout: Layout) -> bool:
        shape = self.ed.type_of(value).shape
        return significant(shape, layout) == significant(shape, identity(len(shape)))

    def version(self, value: str, layout: Layout) -> str:
        """The name of a value of the old graph stored in `layout`."""
        shape = self.ed.type_of(value).shape
        known = self.versions.setdefault(value, [(identity(len(shape)), self.ed.resolve(value))])
        stored = permuted(shape, layout)
        for have, name in known:
            same = significant(shape, have) == significant(shape, layout)
            if same and permuted(shape, have) == stored:
                return name
        data = self.ed.constant_of(value)
        if data is not None:
            made = self.ed.constant(np.transpose(data, layout), base=value)
        else:
            made = self._converted(value, known[0], layout, stored)
        known.append((layout, made))
        return made

    def _converted(
        self, value: str, have: tuple[Layout, str], layout: Layout, stored: tuple[Size, ...]
    ) -> str:
        """A Reshape where only axes of size 1 move, else a Transpose."""
        ed, shape = self.ed, self.ed.type_of(value).shape
        if significant(shape, have[0]) == significant(shape, layout):
            target = target_shape(ed.type_of(have[1]).shape, stored)
            if target is not None:
                node = ed.make("Reshape", have[1], ed.constant(target, "i64"), allowzero=0)
                return self._named(node, value, layout)
        perm = tuple(have[0].index(a) for a in layout)
        return self._named(ed.make("Transpose", have[1], perm=perm), value, layout)

    def _named(self, node: Node, value: str, layout: Layout) -> str:
        """Adds a node; a value as it was in the old graph keeps its name."""
        ed = self.ed
        if layout == identity(len(layout)) and value in self.defined and value not in ed.producer:
            node = replace(node, outputs=(value,))
        ed.add(node)
        return node.outputs[0]
