"""The tool that graph passes are written with: a new graph made of an old one, node by node.

An `Editor` walks the old graph in order. A pass may put other values in place of a node's results
(`rule`), and builds new nodes with `op`, whose types are inferred at once. New nodes are offered to
the same rule, so that one walk applies rules bottom-up until nothing changes. `finish` leaves out
what no result needs. Names of the graph's outputs never change: they are the user's.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from aicc.dtypes import to_numpy
from aicc.errors import IRError
from aicc.graph_ir.graph import Graph, Node, captures, make_node, reads
from aicc.graph_ir.infer import constant_type, context, enclosing, result_types
from aicc.graph_ir.types import TensorType
from aicc.ops import registry
from aicc.ops.registry import REQUIRED, GraphRewriter, OpContext
from aicc.pages import forget
from aicc.symbolic import symbols
from aicc.uniform import as_uniform

Array = np.ndarray[Any, Any]
Rule = Callable[["Editor", Node], Sequence[str] | None]
"""For a node whose operands are in the new graph: the values that take its results' place ("" for
one that nobody reads), or None to keep it."""

SHARED_BYTES = 1 << 16
"""Constants up to this size are compared by content, so that equal ones are one."""


class Names:
    """Value names, given out once for a graph and all its regions."""

    def __init__(self, graph: Graph) -> None:
        self._used = set(_all_names(graph))
        self._next: dict[str, int] = {}

    def fresh(self, base: str) -> str:
        """`base.1`, `base.2` and so on, where `base` is not numbered itself."""
        stem = re.sub(r"\.\d+$", "", base)
        n = self._next.get(stem, 1)
        while f"{stem}.{n}" in self._used:
            n += 1
        self._next[stem] = n + 1
        name = f"{stem}.{n}"
        self._used.add(name)
        return name


def _all_names(graph: Graph) -> Iterator[str]:
    yield from graph.inputs
    yield from graph.types
    yield from graph.constants
    for node in graph.nodes:
        yield from node.outputs
        for region in node.regions:
            yield from _all_names(region)


class Editor(GraphRewriter):
    """A graph under construction. parent: the editor of the graph around a region."""

    def __init__(self, old: Graph, rule: Rule | None = None, parent: Editor | None = None) -> None:
        self.old = old
        self.rule = rule
        self.parent = parent
        self.names: Names = Names(old) if parent is None else parent.names
        self.new = Graph(old.name, list(old.inputs), [], [], dict(old.constants), dict(old.types))
        self.outer: Graph | None = None if parent is None else enclosing(parent.new, parent.outer)
        self.producer: dict[str, Node] = {}
        self.memo: dict[Any, Any] = {}  # for the rule's own use
        self._alias: dict[str, str] = {}
        self._by_content: dict[tuple[Any, ...], str] = {}
        self._current = Node("", (), ())
        self._reads: Counter[str] | None = None
        self._own = set(old.inputs) | set(old.constants)
        self._read = set(old.outputs).union(*(reads(n) for n in old.nodes))

    # what is known

    def resolve(self, name: str) -> str:
        """The value of the new graph that stands for a value of the old one."""
        while name in self._alias:
            name = self._alias[name]
        if self.parent is not None and name not in self._own:
            return self.parent.resolve(name)
        return name

    def type_of(self, value: str) -> TensorType:
        found = self.new.types.get(value)
        if found is None and self.outer is not None:
            found = self.outer.types.get(value)
        if found is None:
            raise IRError(f"the value {value!r} has no type")
        return found

    def constant_of(self, value: str) -> Array | None:
        """The data of a constant; None for other values."""
        found = self.new.constants.get(value)
        if found is None and self.outer is not None and value not in self.new.types:
            found = self.outer.constants.get(value)
        return found

    def made_by(self, value: str, op: str | None = None) -> Node | None:
        """The node of this graph that defines `value`, if there is one and it is an `op`."""
        node = self.producer.get(value)
        return node if node is not None and op in (None, node.op) else None

    def context(self, node: Node) -> OpContext:
        return context(self.new, node, self.outer)

    def read_once(self, value: str) -> bool:
        """Whether a value of the old graph is read in one place of it only. False for new values,
        of which that is not known yet."""
        if self._reads is None:
            self._reads = Counter(v for n in self.old.nodes for v in reads(n))
            self._reads.update(self.old.outputs)
        return self._reads[value] == 1

    # building

    def op(self, op: str, *inputs: str, n_outputs: int = 1, **attrs: Any) -> Any:
        """The result name, or names where there are several, of a new node."""
        values = self.offer(self.make(op, *inputs, n_outputs=n_outputs, **attrs))
        return values[0] if n_outputs == 1 else tuple(values)

    def at(self, node: Node) -> None:
        """From here on new nodes stand for `node`: they take its origin, and names like its own."""
        self._current = node

    def fresh(self, base: str) -> str:
        return self.names.fresh(base)

    def make(self, op: str, *inputs: str, n_outputs: int = 1, **attrs: Any) -> Node:
        """A node with defaults filled in and fresh result names, not yet part of the graph."""
        defaults = {
            k: v
            for k, v in registry.get(op).attributes.items()
            if v is not REQUIRED and v is not None
        }
        base = next((o for o in self._current.outputs if o), op.lower())
        return make_node(
            op,
            inputs,
            [self.names.fresh(base) for _ in range(n_outputs)],
            {**defaults, **attrs},
            origin=self._current.origin,
        )

    def offer(self, node: Node) -> Sequence[str]:
        """The values of a node in the new graph's terms: what the rule puts in its place, or its
        own results once it has been added."""
        if any(o and o not in self.new.types for o in node.outputs):
            self._infer(node)
        made = self.rule(self, node) if self.rule is not None else None
        if made is not None:
            for o, m in zip(node.outputs, made, strict=True):
                if o and m:
                    _check_replacement(o, self.new.types[o], m, self.type_of(m))
            if not self._forgets(node.outputs, made):
                return made
        self.add(node)
        return node.outputs

    def _forgets(self, old: Sequence[str], new: Sequence[str]) -> bool:
        """True where contents that are tracked would no longer be, on which shapes may depend."""
        return any(
            o and m and self.type_of(o).value is not None and self.type_of(m).value is None
            for o, m in zip(old, new)
        )

    def add(self, node: Node) -> None:
        """Appends a node as it is."""
        if any(o and o not in self.new.types for o in node.outputs):
            self._infer(node)
        self.new.nodes.append(node)
        for o in node.outputs:
            if o:
                self.producer[o] = node
                self._own.add(o)

    def _infer(self, node: Node) -> None:
        for o, t in zip(node.outputs, result_types(self.context(node)), strict=False):
            if o:
                self.new.types[o] = t

    def constant(self, data: Any, dtype: str | None = None, base: str = "") -> str:
        """The name of a constant with these data."""
        array = settled(np.asarray(data, None if dtype is None else to_numpy(dtype)))
        if array.nbytes > SHARED_BYTES:
            # The file's pages that it was computed from would stay in memory unread.
            for name in (base, *self._current.inputs):
                source = self.new.constants.get(name)
                if source is not None and source.nbytes > SHARED_BYTES:
                    forget(source)
        key = _content(array)
        known = self._by_content.get(key) if key is not None else None
        if known is not None:
            return known
        base = base or next((o for o in self._current.outputs if o), "c")
        name = self.names.fresh(base)
        self.new.constants[name] = array
        self.new.types[name] = constant_type(array)
        self._own.add(name)
        if key is not None:
            self._by_content[key] = name
        return name

    def replace(self, old: str, new: str) -> None:
        """From here on the value `new` stands for `old`."""
        if old != new:
            self._alias[old] = new

    # the walk

    def run(self) -> Graph:
        """Offers every node of the old graph, in order, and finishes."""
        for node in self.old.nodes:
            self.visit(node)
        return self.finish()

    def visit(self, node: Node) -> None:
        """Offers one node of the old graph; results that nobody reads lose their names."""
        before = node.inputs
        node = self.renamed(node)
        if not self._read.issuperset(node.outputs):
            outputs = tuple(o if o in self._read else "" for o in node.outputs)
            if not any(outputs):
                return
            if not self._names_sizes(node.outputs):
                node = replace(node, outputs=outputs)
        self._current = node
        if any(self._differs(a, b) for a, b in zip(before, node.inputs)):
            self._infer(node)
        for o, v in zip(node.outputs, self.offer(node), strict=True):
            if o:
                self.replace(o, v)

    def _names_sizes(self, outputs: Sequence[str]) -> bool:
        """True where sizes that only a run can tell are called after the first result."""
        owner = next(o for o in outputs if o)
        types = [self.new.types.get(o) or self.old.types.get(o) for o in outputs if o]
        sizes = [d for t in types if t is not None for d in t.shape]
        return any(s.name.startswith(f"{owner}.") for d in sizes for s in symbols(d))

    def renamed(self, node: Node) -> Node:
        """The node over values of the new graph, its regions rewritten."""
        inputs = tuple(self.resolve(i) for i in node.inputs)
        regions = tuple(Editor(r, self.rule, self).run() for r in node.regions)
        if inputs != node.inputs or regions:
            node = replace(node, inputs=inputs, regions=regions)
        return node

    def adopt_constants(self, region: Graph) -> None:
        """Makes a region's constants this graph's own."""
        self.new.constants.update(region.constants)
        self.new.types.update({n: region.types[n] for n in region.constants})
        self._own.update(region.constants)

    def inline(self, region: Graph) -> list[str]:
        """The results of a region without inputs, whose nodes become part of this graph."""
        self.adopt_constants(region)
        self.new.types.update(region.types)
        for node in region.nodes:
            node = self.renamed(node)
            for o, v in zip(node.outputs, self.offer(node), strict=True):
                if o:
                    self.replace(o, v)
        return [self.resolve(o) for o in region.outputs]

    def _differs(self, old: str, new: str) -> bool:
        """Whether an operand's type is not what it was in the old graph."""
        before = self.old.types.get(old)
        return before is not None and before != self.type_of(new)

    def share_constants(self) -> None:
        """Makes small constants with equal data one."""
        kept = set(self.old.outputs)
        for name, array in self.old.constants.items():
            key = _content(array)
            if key is None or name in kept:
                continue
            known = self._by_content.setdefault(key, name)
            self.replace(name, known)

    def finish(self) -> Graph:
        """The new graph without dead nodes, constants and types."""
        new, old = self.new, self.old
        outputs = [self.resolve(o) for o in old.outputs]
        new.outputs = outputs if self.parent is not None else self._named_outputs(outputs)
        return without_dead(new)

    def _named_outputs(self, outputs: list[str]) -> list[str]:
        """Gives the results their old names: by renaming, or through an Identity."""
        rename: dict[str, str] = {}
        taken = set(self.old.inputs) | set(self.old.outputs) | set(self.new.constants)
        for want, have in zip(self.old.outputs, outputs, strict=True):
            if want == have or (have in rename and rename[have] == want):
                continue
            free = have in self.producer and have not in taken and have not in rename
            if free and not _names_symbols(have, self.new.types[have]):
                rename[have] = want
            elif want not in self.producer:
                self.new.types[want] = self.type_of(have)
                self.add(Node("Identity", (have,), (want,)))
        for n, node in enumerate(self.new.nodes):
            self.new.nodes[n] = _rename(node, rename)
        for have, want in rename.items():
            self.new.types[want] = self.new.types.pop(have)
        return list(self.old.outputs)


def _names_symbols(value: str, t: TensorType) -> bool:
    """True where sizes of a value are symbols named after it, which ties it to its name."""
    return any(s.name.startswith(f"{value}.") for d in t.shape for s in symbols(d))


def settled(array: Array) -> Array:
    """An array of the same elements that keeps no others alive. A large one whose axes only lie in
    another order in memory stays as it is: it is copied once, when it is packed. A large one whose
    elements are all the same holds one of them."""
    large = array.nbytes > SHARED_BYTES
    if large and (same := as_uniform(array)) is not None:
        return same
    if array.flags.c_contiguous:
        return array
    order = sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis]))
    if large and array.transpose(order).flags.c_contiguous:
        return array
    return array.copy(order="C")


def _content(array: Array) -> tuple[Any, ...] | None:
    if array.nbytes > SHARED_BYTES or array.dtype == object:
        return None
    return array.dtype.str, str(array.dtype), array.shape, array.tobytes()


def _check_replacement(old: str, before: TensorType, new: str, after: TensorType) -> None:
    differ = before.dtype != after.dtype or before.rank != after.rank
    if not differ:
        differ = any(
            isinstance(a, int) and isinstance(b, int) and a != b
            for a, b in zip(before.shape, after.shape, strict=True)
        )
    if differ:
        raise IRError(f"{new}: {after} takes the place of {old}: {before}")


def _rename(node: Node, names: Mapping[str, str]) -> Node:
    """The node with values renamed, also where its regions use them."""
    if not names or names.keys().isdisjoint((*reads(node), *node.outputs)):
        return node
    return replace(
        node,
        inputs=tuple(names.get(i, i) for i in node.inputs),
        outputs=tuple(names.get(o, o) for o in node.outputs),
        regions=tuple(_rename_region(r, names) for r in node.regions),
    )


def _rename_region(region: Graph, names: Mapping[str, str]) -> Graph:
    made = region.copy()
    made.nodes = [_rename(n, names) for n in region.nodes]
    made.outputs = [names.get(o, o) for o in region.outputs]
    for have, want in names.items():
        if have in made.types:
            made.types[want] = made.types.pop(have)
    return made


def without_dead(graph: Graph) -> Graph:
    """The graph with the nodes, constants and types that its outputs need, and no others."""
    needed = set(graph.outputs)
    kept: list[Node] = []
    for node in reversed(graph.nodes):
        if not needed.isdisjoint(node.outputs):
            kept.append(node)
            needed.update(reads(node))
    kept.reverse()
    named = needed | set(graph.inputs)
    for node in kept:
        named.update(o for o in node.outputs if o)
    return Graph(
        graph.name,
        list(graph.inputs),
        list(graph.outputs),
        kept,
        {k: v for k, v in graph.constants.items() if k in needed},
        {k: t for k, t in graph.types.items() if k in named},
    )


def rewrite(graph: Graph, rule: Rule) -> Graph:
    """One walk of `rule` over a graph and its regions."""
    return Editor(graph, rule).run()


__all__ = ["Editor", "Names", "Rule", "captures", "rewrite", "without_dead"]
