"""Fusion: which nodes become one kernel.

Nodes join the group of a producer where their kernels can share loops, as derived from how each
reads its operands (`Description`, from the lowered loop nests):

    contraction, window   followed by maps that read the result at the element just written
    rows                  maps and reductions over the same rows: softmax, normalisations
    map                   chains of maps, and maps that only one other reads, in whatever order
    movement              transposes and the like are read in place by the kernel that follows
    chain                 a product, rows made of its result, and the product of those: attention

A group has one result, so that nothing but that goes to memory. Joining never makes a cycle.
Where joining is possible, a cost callback decides: nodes join if one kernel is estimated to take no
longer than two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from aicc.decisions import Decision, note
from aicc.graph_ir.graph import Graph, Node, reads
from aicc.symbolic import Size, hi_of

Access = Literal["same", "broadcast", "other"]
Kind = Literal["view", "map", "rows", "window", "contraction", "opaque", "host"]
FUSABLE = ("map", "rows", "window", "contraction")
NODE_LIMIT = 48
"""Nodes per group: a bound on the size of expressions and of what one kernel compiles to."""
CLOSURE_LIMIT = 24
"""Nodes that may have to join together before a group has one result again."""


@dataclass(frozen=True)
class Description:
    """What a node's lowered kernel is.

    kind: the shape of its loops. reads: how operands are read, by position (maps; for rows only the
    operand whose rows are reduced). movement: it only moves elements. epilogue: what follows the
    reduction reads
    it at the same element, so that more may follow.
    """

    kind: Kind
    reads: dict[int, Access] = field(default_factory=dict)
    movement: bool = False
    epilogue: bool = False


Describe = Callable[[Graph, Node], Description]
Cost = Callable[[Graph, Sequence[Node]], float]
"""Estimated seconds of nodes as one kernel."""


@dataclass
class Group:
    """Nodes (by position in the graph) that become one kernel. domain: the shape that its maps run
    over."""

    kind: Kind
    nodes: list[int]
    domain: tuple[Size, ...]
    movement: bool = False
    reduced: int = 0
    """For rows: how many leading axes are not reduced."""


@dataclass(frozen=True)
class Grouping:
    """The result: nodes of each group in order; each node is in one group."""

    groups: tuple[tuple[Node, ...], ...]


@dataclass(frozen=True)
class Fuser:
    """Groups the nodes of a graph; `describe` tells how a node's kernel looks, `cost` what a group
    takes."""

    describe: Describe
    cost: Cost
    name: ClassVar[str] = "fuse"

    def __call__(self, graph: Graph) -> Grouping:
        return _Fusion(graph, self.describe, self.cost).run()


class _Fusion:
    def __init__(self, graph: Graph, describe: Describe, cost: Cost) -> None:
        self.graph = graph
        self.cost = cost
        self.nodes = graph.nodes
        self.described = [describe(graph, n) for n in self.nodes]
        self.maker = {o: i for i, n in enumerate(self.nodes) for o in n.outputs if o}
        self.users: dict[str, list[int]] = {}
        for i, n in enumerate(self.nodes):
            for v in dict.fromkeys(reads(n)):
                self.users.setdefault(v, []).append(i)
        self.results = set(graph.outputs)
        self.groups: dict[int, Group] = {}
        self.group_of: dict[int, int] = {}

    def run(self) -> Grouping:
        for i in range(len(self.nodes)):
            if i in self.group_of:
                continue
            if not self._join_producer(i):
                self._start(i)
        self._join_chains()
        self._join_maps()
        self._release_views()
        ordered = sorted(self.groups.values(), key=lambda g: max(g.nodes))
        return Grouping(tuple(tuple(self.nodes[i] for i in sorted(g.nodes)) for g in ordered))

    # starting and joining

    def _start(self, i: int) -> None:
        d = self.described[i]
        node = self.nodes[i]
        domain = self._domain(node)
        group = Group(d.kind, [i], domain, movement=d.movement or d.kind == "view")
        if d.kind == "rows":
            x = self._row_operand(i)
            group.domain = self.graph.types[x].shape
            group.reduced = self._kept(node, x)
        self.groups[i] = group
        self.group_of[i] = i
        if d.kind in FUSABLE:
            self._absorb_movements(i)

    def _row_operand(self, i: int) -> str:
        (position,) = self.described[i].reads
        return self.nodes[i].inputs[position]

    def _read(self, i: int, value: str) -> Access:
        """How node i reads a value; "other" where it does so in two ways."""
        reads_ = self.described[i].reads
        ways = {reads_.get(n, "other") for n, v in enumerate(self.nodes[i].inputs) if v == value}
        return ways.pop() if len(ways) == 1 else "other"

    def _domain(self, node: Node) -> tuple[Size, ...]:
        out = next((o for o in node.outputs if o), "")
        return self.graph.types[out].shape if out else ()

    def _kept(self, node: Node, x: str) -> int:
        """Leading axes of x that a row reduction keeps."""
        shape = self.graph.types[x].shape
        result = self.graph.types[node.outputs[0]].shape
        kept = 0
        while kept < min(len(shape), len(result)) and shape[kept] == result[kept]:
            kept += 1
        return kept

    def _join_producer(self, i: int) -> bool:
        """Joins node i to the group of one of its operands, with what has to join beside it."""
        if self.described[i].kind not in ("map", "rows", "view"):
            return False
        makers = {self.maker[v] for v in self.nodes[i].inputs if v in self.maker}
        for m in sorted(makers, reverse=True):
            g = self.group_of.get(m)
            if g is not None and self._try_closure(g, i):
                return True
        return False

    def _try_closure(self, g: int, i: int) -> bool:
        """Adds node i to group g, then whatever consumes its inner values, until one result is
        left; all or nothing."""
        group = self.groups[g]
        before = Group(group.kind, list(group.nodes), group.domain, group.movement, group.reduced)
        queue = [i]
        added: list[int] = []
        while queue and len(added) < CLOSURE_LIMIT and len(group.nodes) < NODE_LIMIT:
            n = queue.pop(0)
            if n in self.group_of or not self._admit(g, n):
                break
            added.append(n)
            live = self._live(group.nodes)
            if len(live) == 1:
                if self._pays(before.nodes, added):
                    return True
                break
            queue = sorted({u for v in live for u in self.users.get(v, ()) if u not in group.nodes})
        for n in added:
            del self.group_of[n]
        self.groups[g] = before
        return False

    def _pays(self, *parts: Sequence[int]) -> bool:
        """True where sets of nodes take no longer as one kernel than as one each."""
        return self._decide([n for part in parts for n in part], *parts)

    def _decide(self, whole: Sequence[int], *parts: Sequence[int]) -> bool:
        both = self._seconds(whole)
        apart = [self._seconds(part) for part in parts]
        pays = both <= sum(apart)
        words = [" ".join(dict.fromkeys(self.nodes[n].op for n in sorted(part))) for part in parts]
        origin = dict.fromkeys(o for n in sorted(parts[-1]) for o in self.nodes[n].origin)
        note(Decision("fusion", " | ".join(words), pays, both, sum(apart), tuple(origin)))
        return pays

    def _seconds(self, part: Sequence[int]) -> float:
        return self.cost(self.graph, [self.nodes[n] for n in sorted(part)])

    def _live(self, nodes: Iterable[int]) -> list[str]:
        """Values of a group that are needed outside."""
        inside = set(nodes)
        return [
            o
            for n in inside
            for o in self.nodes[n].outputs
            if o and (o in self.results or any(u not in inside for u in self.users.get(o, ())))
        ]

    def _admit(self, g: int, i: int) -> bool:
        """Adds node i to group g where its loops fit and no cycle arises."""
        group = self.groups[g]
        kind = self._fits(group, i)
        if kind is None or self._depends_through_others(g, i):
            return False
        d = self.described[i]
        if d.kind == "rows" and group.kind != "rows":
            x = self._row_operand(i)
            group.domain = self.graph.types[x].shape
            group.reduced = self._kept(self.nodes[i], x)
        elif kind == "map" and (d.movement or d.kind == "view"):
            group.domain = self._domain(self.nodes[i])
        group.kind = kind
        group.movement = group.movement and (d.movement or d.kind == "view")
        group.nodes.append(i)
        self.group_of[i] = g
        return True

    def _fits(self, group: Group, i: int) -> Kind | None:
        """What the group becomes with node i; None where it does not fit."""
        d, node = self.described[i], self.nodes[i]
        own = {o for n in group.nodes for o in self.nodes[n].outputs}
        inner = [v for v in node.inputs if v in own]
        if d.kind == "rows":
            return "rows" if self._rows_fit(group, i) else None
        if d.kind == "view" or d.movement:
            return self._movement_fits(group, node, inner)
        if d.kind != "map":
            return None
        domain = self._domain(node)
        if group.kind == "rows":
            whole = domain == group.domain
            reduced = _row_shape(domain, group)
            fits = (whole or reduced) and all(
                self._read(i, v) == "same" or (whole and self._read(i, v) == "broadcast")
                for v in inner
            )
            return "rows" if fits else None
        if domain != group.domain or any(self._read(i, v) != "same" for v in inner):
            return None
        if group.kind in ("contraction", "window"):
            heads = [self.described[n] for n in group.nodes]
            heads = [h for h in heads if h.kind == group.kind]
            return group.kind if all(h.epilogue for h in heads) else None
        return "map" if group.kind == "map" else None

    def _movement_fits(self, group: Group, node: Node, inner: list[str]) -> Kind | None:
        """A movement joins a chain of maps where it copies nothing twice."""
        if group.kind not in ("map", "view") or len(inner) != 1:
            return None
        (x,) = inner
        if len(self.users[x]) != 1 or x in self.results:
            return None
        grows = hi_of(self.graph.types[node.outputs[0]].count - self.graph.types[x].count)
        if grows is None or grows > 0:
            return None
        return "map" if group.kind == "map" else group.kind

    def _rows_fit(self, group: Group, i: int) -> bool:
        x = self._row_operand(i)
        shape = self.graph.types[x].shape
        if self.maker.get(x) not in group.nodes:
            return False
        if group.kind == "map":
            return shape == group.domain and not group.movement
        kept = self._kept(self.nodes[i], x)
        return group.kind == "rows" and shape == group.domain and kept == group.reduced

    def _depends_through_others(self, g: int, i: int) -> bool:
        """True where node i depends on group g by a path through another group."""
        first = min(self.groups[g].nodes)
        stack: list[int] = []
        seen: set[int] = set()

        def visit(n: int) -> None:
            for v in reads(self.nodes[n]):
                m = self.maker.get(v)
                if m is None:
                    continue
                h = self.group_of.get(m)
                if h is None:
                    stack.append(m)
                elif h != g and h not in seen and max(self.groups[h].nodes) > first:
                    seen.add(h)
                    stack.extend(self.groups[h].nodes)

        visit(i)
        visited: set[int] = set()
        while stack:
            n = stack.pop()
            if n in visited:
                continue
            visited.add(n)
            for v in reads(self.nodes[n]):
                m = self.maker.get(v)
                if m is not None and self.group_of.get(m) == g:
                    return True
            visit(n)
        return False

    def _absorb_movements(self, i: int) -> None:
        """Takes in the transposes and the like that only this node reads."""
        d = self.described[i]
        if d.kind not in ("contraction", "map"):
            return
        group = self.groups[i]
        for v in dict.fromkeys(self.nodes[i].inputs):
            m = self.maker.get(v)
            if m is None or self.users[v] != [i] or v in self.results:
                continue
            h = self.group_of[m]
            other = self.groups[h]
            plain = other.kind in ("map", "view") and other.movement
            if h == i or not plain or len(group.nodes) + len(other.nodes) > NODE_LIMIT:
                continue
            if d.kind == "map" and self._read(i, v) == "other":
                continue
            if not self._pays(other.nodes, group.nodes):
                continue
            for n in other.nodes:
                self.group_of[n] = i
            group.nodes = sorted({*group.nodes, *other.nodes})
            del self.groups[h]

    def _join_chains(self) -> None:
        """A product joins the rows that it multiplies and the product that those are made of, where
        nothing else needs what lies between. No other group can: they are computed on the way."""
        for last in sorted(self.groups):
            if self.groups[last].kind != "contraction":
                continue
            for middle in self._feeders(last, "rows"):
                for first in self._feeders(middle, "contraction"):
                    self._join_chain(first, middle, last)

    def _feeders(self, g: int, *kinds: Kind) -> list[int]:
        """The groups of some kinds whose results group g reads, and nobody else."""
        group = self.groups[g]
        made = {self.maker[v] for n in group.nodes for v in reads(self.nodes[n]) if v in self.maker}
        found = {self.group_of[m] for m in made} - {g}
        inside = set(group.nodes)

        def private(v: str) -> bool:
            return v not in self.results and inside.issuperset(self.users[v])

        return [
            h
            for h in sorted(found)
            if self.groups[h].kind in kinds and all(map(private, self._live(self.groups[h].nodes)))
        ]

    def _join_chain(self, *chain: int) -> None:
        *others, last = chain
        parts = [self.groups[g].nodes for g in chain if g in self.groups]
        whole = sorted(n for part in parts for n in part)
        if len(parts) < len(chain) or len(whole) > NODE_LIMIT:
            return
        kernels = map(self._without_outer_views, (whole, *parts))
        if not self._decide(*kernels):
            return
        self.groups[last].nodes = whole
        for g in others:
            for n in self.groups.pop(g).nodes:
                self.group_of[n] = last

    def _join_maps(self) -> None:
        """Maps take in the maps that only they read, however they read them: the parts that a
        Concat joins, and what those are parts of."""
        for last in sorted(self.groups):
            if last in self.groups and self.groups[last].kind == "map":
                while any(self._join_feeder(h, last) for h in self._feeders(last, "map", "view")):
                    pass

    def _join_feeder(self, g: int, last: int) -> bool:
        parts = [self.groups[g].nodes, self.groups[last].nodes]
        whole = [n for part in parts for n in part]
        if len(whole) > NODE_LIMIT or not self._pays(*parts):
            return False
        self.groups[last].nodes = sorted(whole)
        for n in self.groups.pop(g).nodes:
            self.group_of[n] = last
        return True

    def _release_views(self) -> None:
        """Views at the ends of a group need no kernel: they go back to being aliases."""
        for g in list(self.groups):
            group = self.groups[g]
            kept = self._without_outer_views(group.nodes)
            for n in sorted(set(group.nodes) - set(kept)):
                self.groups[len(self.nodes) + n] = Group("view", [n], ())
                self.group_of[n] = len(self.nodes) + n
            group.nodes = kept
            if all(self.described[n].kind == "view" for n in group.nodes):
                group.kind = "view"

    def _without_outer_views(self, nodes: Sequence[int]) -> list[int]:
        """Nodes without the views at their ends; one node stays."""
        kept = list(nodes)
        changed = True
        while changed and len(kept) > 1:
            changed = False
            for n in sorted(kept):
                if self.described[n].kind == "view" and self._at_border(kept, n):
                    kept.remove(n)
                    changed = True
                    break
        return kept

    def _at_border(self, nodes: Sequence[int], n: int) -> bool:
        inside = set(nodes)
        node = self.nodes[n]
        makers = {self.maker.get(v) for v in node.inputs}
        first = not (makers & inside)
        last = not any(u in inside for o in node.outputs for u in self.users.get(o, ()))
        return first or last


def _row_shape(shape: tuple[Size, ...], group: Group) -> bool:
    """True for the shape of one number per row of the group's domain."""
    kept = group.domain[: group.reduced]
    return shape[: group.reduced] == kept and all(d == 1 for d in shape[group.reduced :])
