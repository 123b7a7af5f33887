"""A segment of a graph computed patch by patch: which rows of each value a patch computes, what it
keeps for the next one, how much memory that takes, and the nodes that do it.

A *segment* is a run of consecutive local nodes (`locality`). Its results are computed a few rows at
a time, and of every value before them the rows that those need (region inference against the flow),
depth first: a patch runs all nodes before the next one begins. Rows that the next patch needs too,
the halo of windows that overlap, are not computed again but kept: copied out of the patch's buffer,
which ends, and in front of the next one's new rows. So every row of every value is computed once.

    rows of %a            0 1 2 3 4 5 6 7          3x3 windows, two rows of %b a patch
    patch 0 computes      * * *                    %b 0 1
    patch 1 keeps           = =
            computes            * *                %b 2 3

What the segment's readers need of values (its *results*) is one buffer for all patches, to which
each writes its rows in place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aicc.errors import OperatorError
from aicc.graph_ir.graph import Graph, Node, reads
from aicc.graph_ir.infer import context
from aicc.graph_ir.passes.locality import Local, Reads, outermost, part_attributes
from aicc.graph_ir.passes.rewrite import Editor
from aicc.graph_ir.types import TensorType
from aicc.symbolic import ceildiv, product


class UnfitError(Exception):
    """A segment whose nodes cannot be computed in parts after all."""


@dataclass(frozen=True)
class Segment:
    """The nodes begin..end (exclusive) of a graph, in `patches` patches."""

    begin: int
    end: int
    patches: int


@dataclass(frozen=True)
class Rows:
    """Of one value in one patch: the rows new..end are computed, first..new come from the patch
    before, kept..end go to the next one."""

    first: int
    new: int
    end: int
    kept: int


def extent_of(t: TensorType) -> int:
    """How many rows a value has."""
    axis = outermost(t)
    return 1 if axis is None else _int(t.shape[axis])


def row_bytes(t: TensorType) -> int:
    """The bytes of one row."""
    return _int(t.nbytes) // max(1, extent_of(t))


class Streams:
    """The rows of every value in every patch of a segment.

    local: what each node of the graph reads. escaping: the values that are read behind the segment.
    """

    def __init__(
        self, graph: Graph, local: Sequence[Local | None], segment: Segment, escaping: set[str]
    ) -> None:
        self.graph, self.segment = graph, segment
        self.nodes = graph.nodes[segment.begin : segment.end]
        self.local: list[Local] = [x or () for x in local[segment.begin : segment.end]]
        self.inner = {n.outputs[0]: k for k, n in enumerate(self.nodes)}
        self.results = {v for v in self.inner if v in escaping}
        self.readers: dict[str, list[tuple[int, Reads]]] = {v: [] for v in self.inner}
        for k, (node, found) in enumerate(zip(self.nodes, self.local, strict=True)):
            for v, r in zip(node.inputs, found, strict=True):
                if v in self.inner and r is not None:
                    self.readers[v].append((k, r))
        self.extents = {v: extent_of(graph.types[v]) for v in self.inner}
        self.rows = self._rows()

    def _rows(self) -> dict[str, list[Rows]]:
        ends: dict[str, list[int]] = {v: [] for v in self.inner}
        count = self.segment.patches
        for p in range(count):
            for node in reversed(self.nodes):
                v = node.outputs[0]
                extent = self.extents[v]
                need = ends[v][-1] if p else 0
                for k, r in self.readers[v]:
                    reader = ends[self.nodes[k].outputs[0]][p]
                    if reader:
                        need = max(need, min(extent, r.span(0, reader)[1]))
                if not self.readers[v]:
                    need = min(extent, (p + 1) * _int(ceildiv(extent, count)))
                if v in self.results and p == count - 1:
                    need = extent
                ends[v].append(need)
        return {v: self._of(v, ends) for v in self.inner}

    def _of(self, v: str, ends: dict[str, list[int]]) -> list[Rows]:
        made: list[Rows] = []
        for p, end in enumerate(ends[v]):
            new = ends[v][p - 1] if p else 0
            first = made[-1].kept if p else 0
            kept = end
            for k, r in self.readers[v]:
                name = self.nodes[k].outputs[0]
                if ends[name][p] < ends[name][-1]:
                    kept = min(kept, max(first, r.span(ends[name][p], ends[name][p] + 1)[0]))
            made.append(Rows(first, new, end, kept))
        return made

    # memory

    def peak(self, held: set[str], at: dict[str, int], base: int) -> int:
        """An estimate of the most bytes alive at once.

        held: the values that are in memory, not only inside a kernel. at: for every value the
        position of the node whose kernel computes it. base: bytes alive all the time.
        """
        sizes = {v: row_bytes(self.graph.types[v]) for v in self.inner if v in held}
        base += sum(sizes[v] * self.extents[v] for v in self.results if v in sizes)
        streamed = [v for v in sizes if v not in self.results]
        last = {
            v: max(at[self.nodes[k].outputs[0]] for k, _ in self.readers[v])
            for v in streamed
            if self.readers[v]
        }
        order = sorted((at[v], v) for v in sizes)
        worst = live = base
        for p in range(self.segment.patches):
            waiting: dict[int, list[str]] = {}
            for position, v in order:
                if v in last:
                    rows = self.rows[v][p]
                    live += sizes[v] * (rows.end - rows.first)
                    worst = max(worst, live)
                    live -= sizes[v] * (rows.new - rows.first)
                    waiting.setdefault(last[v], []).append(v)
                worst = max(worst, live)
                for w in waiting.pop(position, ()):
                    rows = self.rows[w][p]
                    live += sizes[w] * (rows.end - rows.kept)
                    worst = max(worst, live)
                    live -= sizes[w] * (rows.end - rows.first)
        return worst

    def copied(self, held: set[str]) -> int:
        """Bytes that are copied between patches, twice each."""
        return sum(
            row_bytes(self.graph.types[v]) * (r.end - r.kept)
            for v in self.inner
            if v in held and v not in self.results
            for r in self.rows[v]
        )

    # nodes

    def emit(self, ed: Editor) -> None:
        """Appends the patches' nodes to the new graph, and puts the segment's results there in the
        place of the old ones. Raises UnfitError where an operator makes other sizes of a part."""
        _Emitter(self, ed).run()


class _Emitter:
    def __init__(self, streams: Streams, ed: Editor) -> None:
        self.s, self.ed = streams, ed
        self.window: dict[str, tuple[str, int]] = {}
        """For a value inside: what holds its rows in this patch, and the first of them."""
        self.parts: dict[tuple[str, int, int, int], str] = {}
        self.last: dict[int, list[str]] = {}
        for v, readers in streams.readers.items():
            if readers and v not in streams.results:
                self.last.setdefault(max(k for k, _ in readers), []).append(v)

    def run(self) -> None:
        for p in range(self.s.segment.patches):
            for k, node in enumerate(self.s.nodes):
                self.ed.at(node)
                self._compute(p, k, node)
                for v in self.last.get(k, ()):
                    self._keep(p, v)
        for v in self.s.results:
            self.ed.replace(v, self.window[v][0])

    def _compute(self, p: int, k: int, node: Node) -> None:
        v = node.outputs[0]
        rows = self.s.rows[v][p]
        if rows.new == rows.end:
            return
        ed, local = self.ed, self.s.local[k]
        operands = [
            self._operand(name, r, rows) for name, r in zip(node.inputs, local, strict=True)
        ]
        attrs: dict[str, Any] = dict(node.attrs)
        attrs.update(part_attributes(context(self.s.graph, node), local, (rows.new, rows.end)))
        try:
            made = ed.op(node.op, *operands, **attrs)
        except OperatorError as fault:
            raise UnfitError(str(fault)) from None
        t = self.s.graph.types[v]
        axis = outermost(t)
        assert axis is not None
        shape = (*t.shape[:axis], rows.end - rows.new, *t.shape[axis + 1 :])
        if ed.type_of(made).shape != shape:
            raise UnfitError(f"%{v}: {ed.type_of(made)} where {shape} is needed")
        before = self.window.get(v)
        if before is None:
            self.window[v] = made, rows.new
        else:
            self.window[v] = ed.op("Concat", before[0], made, axis=axis), before[1]

    def _operand(self, name: str, r: Reads | None, rows: Rows) -> str:
        """What of an operand some rows need; all of one that has no rows to do with it."""
        if r is None:
            return self.ed.resolve(name) if name else ""
        if name in self.s.inner:
            held, first = self.window[name]
            t = self.s.graph.types[name]
        else:
            held, first = self.ed.resolve(name), 0
            t = self.ed.type_of(held)
        lo, hi = r.span(rows.new, rows.end)
        extent = _int(t.shape[r.axis])
        return self._part(held, r.axis, max(0, lo) - first, min(extent, hi) - first)

    def _part(self, held: str, axis: int, lo: int, hi: int) -> str:
        """The positions lo..hi of an axis of a value, in its own memory."""
        t = self.ed.type_of(held)
        shape = tuple(_int(d) for d in t.shape)
        if (lo, hi) == (0, shape[axis]):
            return held
        if not 0 <= lo < hi <= shape[axis]:
            raise UnfitError(f"%{held}: {lo}..{hi} is not inside {shape[axis]}")
        known = self.parts.get((held, axis, lo, hi))
        if known is not None:
            return known
        strides = [_int(product(shape[a + 1 :])) for a in range(len(shape))]
        part = (*shape[:axis], hi - lo, *shape[axis + 1 :])
        begin = lo * strides[axis]
        if all(d == 1 for d in shape[:axis]):
            made = self.ed.op("aicc::Part", held, begin=begin, shape=part)
        else:
            reach = 1 + sum((d - 1) * s for d, s in zip(part, strides, strict=True))
            flat = self.ed.op("aicc::Part", held, begin=begin, shape=(reach,))
            made = self.ed.op("aicc::Strided", flat, shape=part, strides=tuple(strides))
        self.parts[held, axis, lo, hi] = made
        return str(made)

    def _keep(self, p: int, v: str) -> None:
        """Copies the rows that the next patch needs, so that the others' memory is free."""
        rows = self.s.rows[v][p]
        if v not in self.window:
            return
        held, first = self.window[v]
        if rows.kept == rows.end:
            del self.window[v]
        elif rows.kept > first:
            axis = outermost(self.s.graph.types[v])
            assert axis is not None
            self.ed.at(self.s.nodes[self.s.inner[v]])
            part = self._part(held, axis, rows.kept - first, rows.end - first)
            self.window[v] = self.ed.op("aicc::Copy", part), rows.kept


def patched(graph: Graph, streams: Sequence[Streams]) -> Graph:
    """The graph with segments, which do not overlap, in patches. Raises UnfitError."""
    ed = Editor(graph)
    starts = {s.segment.begin: s for s in streams}
    position = 0
    while position < len(graph.nodes):
        found = starts.get(position)
        if found is None:
            ed.visit(graph.nodes[position])
            position += 1
        else:
            found.emit(ed)
            position = found.segment.end
    return ed.finish()


def escaping(graph: Graph, begin: int, end: int) -> set[str]:
    """The results of the nodes begin..end that others read, or that are the graph's."""
    inner = {o for n in graph.nodes[begin:end] for o in n.outputs if o}
    outside = {v for n in graph.nodes[end:] for v in reads(n)} | set(graph.outputs)
    return inner & outside


def _int(size: object) -> int:
    assert isinstance(size, int)
    return size


__all__ = ["Segment", "Streams", "UnfitError", "escaping", "extent_of", "patched", "row_bytes"]
