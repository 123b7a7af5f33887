"""Less memory for more calls: the parts of a network that need most of it run patch by patch.

The arena is as large as what is alive at the worst moment: in a convolutional network the first
layers, whose values have few channels, but many pixels. There a *segment* of the graph is computed
in patches of rows, depth first (`streams`), so that no value of it is in memory as a whole (Lin et
al., "MCUNetV2", arXiv 2110.15352; where patches there compute the rows that they share anew, here
the next patch is handed them, as in Alwani et al., "Fused-layer CNN accelerators", MICRO 2016).

What to compute in patches, and in how many, is searched: an estimate from the sizes of values alone
ranks segments and patches; the passes behind this one say what an arena really takes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from aicc.errors import MemoryBudgetError
from aicc.graph_ir.graph import Graph, Node, reads
from aicc.graph_ir.infer import context
from aicc.graph_ir.passes.locality import Local, Locality, outermost
from aicc.graph_ir.passes.maps import is_elementwise
from aicc.graph_ir.passes.rewrite import Editor, rewrite
from aicc.graph_ir.passes.streams import (
    Segment,
    Streams,
    UnfitError,
    escaping,
    extent_of,
    patched,
)
from aicc.graph_ir.places import is_view
from aicc.memory.budget import show_bytes
from aicc.symbolic import symbols

log = logging.getLogger("aicc")

Arena = Callable[[Graph], int | None]
"""The bytes of the arena that the passes behind make of a graph; None where a run tells them."""

GRID = 2 ** (1 / 8)
"""The ratio of the targets that estimates are held against, one after the other."""
SLACK = 1.2
"""How far an estimate may be above the arena that comes out: kernels that write in place."""
STARTS, ENDS = 4, 8
"""How many places at which a segment may start and end are tried."""
CALL = 1.5e-6
"""Seconds that a call of a kernel costs beside its work."""
COPY = 8e9
"""Bytes a second that are copied."""


@dataclass(frozen=True)
class Patches:
    """Segments in patches, as few as there need be for an arena of `budget` bytes at most.

    before: %a = Conv(%x, @w) {pads=[1,1,1,1]}   %y = Conv(%a, @v) {pads=[1,1,1,1]}
    after:  %x0 = aicc::Part(%x) {begin=0, shape=...}   %a0 = Conv(%x0, @w) {pads=[1,1,0,1]}
            %y0 = Conv(%a0, @v) {pads=[1,1,0,1]}        %k0 = aicc::Copy(aicc::Part(%a0))
            ...
            %y = Concat(%y0, %y1)

    arena: asks the passes behind; rough: the fast ones of them, whose answer is seldom below that.
    The graph stays as it is where it needs no more than the budget.

    Raises MemoryBudgetError where no patches meet the budget, with the least that was found, and
    where sizes are only known at run time.
    """

    budget: int
    rough: Arena
    arena: Arena
    name: ClassVar[str] = "patches"

    def __call__(self, graph: Graph) -> Graph:
        whole = self.arena(graph)
        if whole is None:
            raise MemoryBudgetError(_symbolic(graph), self.budget, None)
        if whole <= self.budget:
            return graph
        least = whole
        spare: tuple[int, Graph] | None = None
        for made in _Search(_split_into_slices(graph)).graphs(self.budget):
            about = self.rough(made)
            if about is None:
                continue
            log.debug("patches: about %d bytes", about)
            if about <= self.budget:
                arena = self.arena(made)
                if arena is not None:
                    log.debug("patches: %d bytes", arena)
                    least = min(least, arena)
                    if arena <= self.budget:
                        return made
            elif spare is None or about < spare[0]:
                spare = about, made
        if spare is not None:
            least = min(least, self.arena(spare[1]) or least)
            if least <= self.budget:
                return spare[1]
        raise MemoryBudgetError(
            f"the memory budget of {show_bytes(self.budget)} cannot be met: the least that "
            f"{graph.name!r} was found to do with is {show_bytes(least)}",
            self.budget,
            least,
        )


def _split_into_slices(graph: Graph) -> Graph:
    """Nodes of a segment have one result: each part of a Split becomes a slice."""

    def rule(ed: Editor, node: Node) -> list[str] | None:
        sizes = [ed.type_of(o).shape for o in node.outputs if o]
        if node.op != "Split" or not all(isinstance(d, int) for shape in sizes for d in shape):
            return None
        if len(sizes) != len(node.outputs):
            return None
        axis = int(node.attr("axis", 0)) % len(sizes[0])
        made, start = [], 0
        for shape in sizes:
            end = start + int(shape[axis])
            bounds = (ed.constant([n], "i64") for n in (start, end, axis))
            made.append(str(ed.op("Slice", node.inputs[0], *bounds)))
            start = end
        return made

    return rewrite(graph, rule)


def _symbolic(graph: Graph) -> str:
    names = {s.name for t in graph.types.values() for d in t.shape for s in symbols(d)}
    given = {s.name for v in graph.inputs for d in graph.types[v].shape for s in symbols(d)}
    told = ", ".join(sorted(names))
    pins = ", ".join(f'"{n}": ...' for n in sorted(given))
    return f"a memory budget needs sizes that are numbers; {graph.name!r} leaves open: {told}" + (
        f"; pin them: dims={{{pins}}}" if given else ""
    )


class _Search:
    """What is alive when, which nodes may be in segments, and which segments promise to do."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        locality = Locality()
        self.local: list[Local | None] = [locality(graph, n) for n in graph.nodes]
        self.held, self.at = _materialised(graph)
        self.plain, self.across = self._live()
        inside = {
            k for n, node in enumerate(graph.nodes) for k in range(n + 1, self._end(node) + 1)
        }
        self.between = [n not in inside for n in range(len(graph.nodes) + 1)]
        self.runs = list(self._runs())
        self._peaks: dict[Segment, tuple[int, float, Streams]] = {}

    def _end(self, node: Node) -> int:
        """The position of the last node of a node's kernel."""
        return max((self.at[o] for o in node.outputs if o), default=0)

    def _live(self) -> tuple[list[int], list[int]]:
        """Bytes alive while each node runs, and what of them is from before it."""
        graph = self.graph
        first = {v: n for n, node in enumerate(graph.nodes) for v in node.outputs if v}
        last = dict(first)
        for n, node in reversed(list(enumerate(graph.nodes))):
            when = max((self.at[o] for o in node.outputs if o), default=n)
            if is_view(node):
                when = last[node.outputs[0]]
            for v in reads(node):
                last[v] = max(last.get(v, 0), when)
        during, before = [0] * (len(graph.nodes) + 1), [0] * (len(graph.nodes) + 1)
        for v, n in first.items():
            if v in self.held and v not in graph.outputs:
                for k in range(n, last[v] + 1):
                    during[k] += _bytes(graph, v)
                    before[k] += _bytes(graph, v) if k > n else 0
        for n, node in enumerate(graph.nodes):
            during[n] -= self._in_place(node, n, first, last)
        return during, before

    def _in_place(
        self, node: Node, n: int, first: Mapping[str, int], last: Mapping[str, int]
    ) -> int:
        """The bytes of a map's result that lie in an operand's memory, which ends there."""
        if not _is_map(self.graph, node) or node.outputs[0] not in self.held:
            return 0
        size = _bytes(self.graph, node.outputs[0])
        ends = (v for v in node.inputs if v in first and v in self.held and last[v] == n)
        return size if any(_bytes(self.graph, v) == size for v in ends) else 0

    def _runs(self) -> Iterator[tuple[int, int]]:
        """The longest runs of nodes that a segment may be made of."""
        begin = 0
        inner: set[str] = set()
        for n in range(len(self.graph.nodes)):
            if not self._joins(n, inner):
                if n - begin > 1:
                    yield begin, n
                begin, inner = n, set()
                if not self._joins(n, inner):
                    begin = n + 1
                    continue
            inner.update(self.graph.nodes[n].outputs)
        if len(self.graph.nodes) - begin > 1:
            yield begin, len(self.graph.nodes)

    def _joins(self, n: int, inner: set[str]) -> bool:
        """Whether a node reads what the nodes before it in a run compute by their rows."""
        local, node, graph = self.local[n], self.graph.nodes[n], self.graph
        if local is None:
            return False
        for v, r in zip(node.inputs, local, strict=True):
            if v in inner and (r is None or r.axis != outermost(graph.types[v])):
                return False
            if r is not None and v in graph.constants:
                return False
        return True

    # choosing

    def graphs(self, budget: int) -> Iterator[Graph]:
        """The graph in patches for lower and lower targets."""
        for target, streams in self.plans(budget):
            told = ", ".join(
                f"nodes {s.segment.begin}..{s.segment.end} in {s.segment.patches}" for s in streams
            )
            log.debug("patches: for %d bytes: %s", target, told)
            try:
                yield patched(self.graph, streams)
            except UnfitError as fault:
                log.debug("patches: %s", fault)

    def plans(self, budget: int) -> Iterator[tuple[int, list[Streams]]]:
        """Segments for lower and lower targets, down to the lowest that estimates say can be met.

        Targets lie on a grid that does not depend on the budget: what the least reachable budget
        was found with is found again.
        """
        target, tried, feasible = _above(SLACK * budget), set[tuple[Segment, ...]](), []
        low = target
        while True:
            found = self._choose(int(GRID**low))
            if found is None:
                break
            feasible.append((low, found))
            low -= 1
        # Estimates may be too high: what is found at the lowest targets is tried in any case.
        above = target + 1
        while len(feasible) < 3 and above < target + 200:
            found = self._choose(int(GRID**above))
            if found is not None:
                feasible.insert(0, (above, found))
            above += 1
        for n, streams in feasible:
            key = tuple(s.segment for s in streams)
            if streams and key not in tried:
                tried.add(key)
                yield int(GRID**n), streams

    def _choose(self, target: int) -> list[Streams] | None:
        """For each run that needs more than the target, the segment that costs least time."""
        over = [n for n, b in enumerate(self.plain) if b > target]
        chosen: list[Streams] = []
        for begin, end in self.runs:
            mine = [n for n in over if begin <= n < end]
            if not mine:
                continue
            options = [
                found
                for i in self._starts(begin, mine[0])
                for j in self._ends(mine[-1] + 1, end)
                if (found := self._patches(i, j, target)) is not None
            ]
            if not options:
                return None
            chosen.append(min(options, key=lambda o: o[0])[1])
            over = [n for n in over if not begin <= n < end]
        return chosen if not over else None

    def _starts(self, begin: int, first: int) -> list[int]:
        """Where a segment may start: where few bytes are alive, and at the start of the run."""
        places = [n for n in range(begin, first + 1) if self.between[n]]
        return sorted(places, key=lambda n: (self.across[n], -n))[:STARTS]

    def _ends(self, first: int, end: int) -> list[int]:
        """Where a segment may end: where fewer bytes are alive than at any place before."""
        found: list[int] = []
        for n in range(first, end + 1):
            if self.between[n] and (not found or self.across[n] < self.across[found[-1]]):
                found.append(n)
        return found if len(found) <= ENDS else found[: ENDS // 2] + found[-ENDS // 2 :]

    def _patches(self, begin: int, end: int, target: int) -> tuple[float, Streams] | None:
        """The fewest patches of a segment that meet the target, and what they cost in seconds."""
        results = escaping(self.graph, begin, end)
        if not results or end - begin < 2:
            return None
        rows = min(extent_of(self.graph.types[v]) for v in results)
        base = self._base(begin)
        if base + sum(_bytes(self.graph, v) for v in results) > target:
            return None
        counts = [-(-rows // each) for each in sorted({-(-rows // n) for n in range(2, rows + 1)})]
        counts.sort()
        # More patches need less memory: the fewest that do are found by halving.
        found: tuple[float, Streams] | None = None
        lo, hi = 0, len(counts)
        while lo < hi:
            middle = (lo + hi) // 2
            peak, cost, streams = self._stream(Segment(begin, end, counts[middle]), results, base)
            if peak <= target:
                found, hi = (cost, streams), middle
            else:
                lo = middle + 1
        return found

    def _stream(self, segment: Segment, results: set[str], base: int) -> tuple[int, float, Streams]:
        """The estimated peak of a segment, the seconds that it costs, and its rows."""
        known = self._peaks.get(segment)
        if known is None:
            streams = Streams(self.graph, self.local, segment, results)
            calls = segment.patches * sum(v in self.held for v in streams.inner)
            cost = CALL * calls + 2 * streams.copied(self.held) / COPY
            known = streams.peak(self.held, self.at, base), cost, streams
            self._peaks[segment] = known
        return known

    def _base(self, begin: int) -> int:
        """Bytes that are alive all the time that a segment from node `begin` on takes: what others
        left for it, and for those behind it."""
        graph = self.graph
        made = {o for n in graph.nodes[:begin] for o in n.outputs if o}
        later = {v for n in graph.nodes[begin:] for v in reads(n)}
        return sum(_bytes(graph, v) for v in made & later if v in self.held)


def _materialised(graph: Graph) -> tuple[set[str], dict[str, int]]:
    """The values that are in memory, as far as can be told before fusion, and for every value the
    position of the node whose kernel computes it: what only maps read is no more than a step in
    their kernel."""
    readers = graph.consumers()
    held: set[str] = set()
    at: dict[str, int] = {}
    for k, node in reversed(list(enumerate(graph.nodes))):
        for v in node.outputs:
            if not v:
                continue
            users = readers.get(v, [])
            if is_view(node):
                at[v] = k
            elif users and v not in graph.outputs and all(_follows(graph, v, u) for u in users):
                at[v] = max(at[o] for u in users for o in u.outputs if o)
            else:
                held.add(v)
                at[v] = k
    return held, at


def _follows(graph: Graph, value: str, node: Node) -> bool:
    """True for a map over the same elements, so that it may be in the kernel of what it reads."""
    shapes = {graph.types[o].shape for o in node.outputs if o}
    return shapes == {graph.types[value].shape} and _is_map(graph, node)


def _is_map(graph: Graph, node: Node) -> bool:
    return not is_view(node) and is_elementwise(context(graph, node))


def _bytes(graph: Graph, value: str) -> int:
    size = graph.types[value].nbytes
    return size if isinstance(size, int) else 0


def _above(number: float) -> int:
    """The first power of the grid that is not below a number."""
    n = 0
    while GRID**n < number:
        n += 1
    return n
