"""The graph IR: a model as a DAG of operators over named, immutable values.

    graph  ::= "graph @" name ["(" size ": " range, ... ")"] line*        lines are indented
    line   ::= "in %" name ":" type
             | "const @" name ":" type ("sha=" hex | "=" data)          large data are kept beside
             | results "=" op "(" operands ")" attributes? origin? regions?
             | "out" operands
    result ::= "%" name ":" type | "_"
    operand::= "%" name | "@" name | "_"               "_" is an omitted optional input
    attrs  ::= "{" name "=" (number | string | list | type), ... "}"
    origin ::= "at" string, ...                        the ONNX nodes that the node stands for
    regions::= graph*                                  indented once more

Invariants, held by `verify`: every value is defined once, before its use; a region's nodes may use
the values of the graph around it, and its own have other names; types agree with the operators'
type rules. `aicc.graph_ir.text` prints and parses.

A Graph is a mutable container of immutable nodes; passes build a new one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from aicc.graph_ir.types import TensorType

if TYPE_CHECKING:
    import networkx

AttributeValue = (
    int | float | str | bytes | TensorType | tuple[int, ...] | tuple[float, ...] | tuple[str, ...]
)


@dataclass(frozen=True)
class Node:
    """One operator applied to values.

    op: the operator's name, "Domain::Name" outside ONNX's own domain.
    inputs: value names; "" is an omitted optional input. outputs: names of the values defined;
    "" is a result that nobody wants.
    attrs: sorted (name, value) pairs, defaults filled in, in the newest opset's meaning.
    regions: the subgraphs of If, Loop and Scan.
    origin: names of the ONNX nodes that this node stands for, for errors and profiles; not part of
    equality.
    """

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attrs: tuple[tuple[str, AttributeValue], ...] = ()
    regions: tuple[Graph, ...] = ()
    origin: tuple[str, ...] = field(default=(), compare=False)

    def attr(self, name: str, default: Any = None) -> Any:
        for n, v in self.attrs:
            if n == name:
                return v
        return default

    def with_attrs(self, **attrs: AttributeValue) -> Node:
        return replace(self, attrs=tuple(sorted({**dict(self.attrs), **attrs}.items())))


def make_node(
    op: str,
    inputs: Iterable[str],
    outputs: Iterable[str],
    attrs: Mapping[str, AttributeValue] | None = None,
    regions: Iterable[Graph] = (),
    origin: Iterable[str] = (),
) -> Node:
    """A Node from any iterables; attributes are sorted."""
    return Node(
        op,
        tuple(inputs),
        tuple(outputs),
        tuple(sorted((attrs or {}).items())),
        tuple(regions),
        tuple(origin),
    )


@dataclass(eq=False)
class Graph:
    """inputs, outputs: value names in order. constants: weights by value name (numpy, C order).
    types: the type of every value: inputs, constants, and node results.

    Equal graphs have the same name, interface, nodes in the same order, constants bit by bit, and
    types of all values that they define."""

    name: str
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    constants: dict[str, np.ndarray[Any, Any]] = field(default_factory=dict)
    types: dict[str, TensorType] = field(default_factory=dict)

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Graph):
            return NotImplemented
        return (
            (self.name, self.inputs, self.outputs) == (other.name, other.inputs, other.outputs)
            and self.nodes == other.nodes
            and self.constants.keys() == other.constants.keys()
            and all(same_array(a, other.constants[n]) for n, a in self.constants.items())
            and all(self.types.get(n) == other.types.get(n) for n in self.defined())
        )

    def defined(self) -> Iterator[str]:
        """Every value that the graph defines, but not those inside its nodes' regions."""
        yield from self.inputs
        yield from self.constants
        for n in self.nodes:
            yield from (o for o in n.outputs if o)

    def copy(self) -> Graph:
        """A graph whose lists may be changed; nodes and arrays are shared."""
        return Graph(
            self.name,
            list(self.inputs),
            list(self.outputs),
            list(self.nodes),
            dict(self.constants),
            dict(self.types),
        )

    def producers(self) -> dict[str, Node]:
        """The node that defines each value."""
        return {o: n for n in self.nodes for o in n.outputs if o}

    def consumers(self) -> dict[str, list[Node]]:
        """The nodes that read each value, regions included; a node once per value."""
        found: dict[str, list[Node]] = {}
        for n in self.nodes:
            for name in dict.fromkeys(reads(n)):
                found.setdefault(name, []).append(n)
        return found

    def fresh(self, base: str) -> str:
        """A value name that nothing uses yet."""
        name, n = base, 1
        while name in self.types or name in self.constants:
            name, n = f"{base}.{n}", n + 1
        return name

    def add_constant(self, base: str, data: np.ndarray[Any, Any]) -> str:
        """Adds a constant under a fresh name, which is returned."""
        from aicc.graph_ir.infer import constant_type

        name = self.fresh(base)
        self.constants[name] = np.asarray(data, order="C")  # keeps rank 0
        self.types[name] = constant_type(self.constants[name])
        return name

    def to_networkx(self) -> networkx.MultiDiGraph:
        """The DAG for analysis: one vertex per node (its position in `nodes`, attributes `op` and
        `node`), one edge per value read (attribute `value`)."""
        import networkx

        g = networkx.MultiDiGraph(name=self.name)
        made: dict[str, int] = {}
        for i, n in enumerate(self.nodes):
            g.add_node(i, op=n.op, node=n)
            for name in reads(n):
                if name in made:
                    g.add_edge(made[name], i, value=name)
            made.update((o, i) for o in n.outputs if o)
        return g

    def __str__(self) -> str:
        from aicc.graph_ir.text import print_graph

        return print_graph(self, with_sha=False)


def same_array(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> bool:
    """True for equal type, shape and bits: NaN equals NaN, 0.0 is not -0.0."""
    if a is b:
        return True
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if a.dtype.kind == "O":
        return bool(a.tolist() == b.tolist())
    bits = f"u{a.dtype.itemsize}"
    return bool(
        np.array_equal(np.ascontiguousarray(a).view(bits), np.ascontiguousarray(b).view(bits))
    )


def reads(node: Node) -> Iterator[str]:
    """Every outer value that a node uses: its operands and what its regions capture."""
    yield from (i for i in node.inputs if i)
    for region in node.regions:
        yield from captures(region)


def captures(region: Graph) -> Iterator[str]:
    """Values of the surrounding graph that a region uses."""
    own = set(region.inputs) | set(region.constants)
    for n in region.nodes:
        own.update(n.outputs)
    for n in region.nodes:
        yield from (name for name in reads(n) if name not in own)
    yield from (name for name in region.outputs if name not in own)
