"""What the nodes of a graph write and read, as a problem for `aicc.memory`.

- Inputs and constants take no memory of the arena; nor do values that become outputs of the model,
  which are written into the caller's arrays.
- A view is its operand's memory: its readers read that, and a value of no bytes for its sake. So is
  what is computed as a part of a join; its memory is there from the first part on.
- A call's result may take the memory of an operand that no later node reads, where the kernel
  allows it (`tensor_ir.inplace`). That is asked of the kernels as they stand.
- An operand whose memory an output takes lies in the caller's array from its beginning. Whether it
  comes to that may depend on the order: then `memory_problem` counts its bytes, and with `relaxed`,
  for bounds, it does not.
- Results of host operators count, though they lie elsewhere; with `relaxed` they do not.

Symbolic sizes count as typical ones.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from aicc.graph_ir.graph import Graph, Node, reads
from aicc.graph_ir.module import CALL, Module
from aicc.graph_ir.passes.layout import typical
from aicc.graph_ir.places import Places, copies, is_view, joined
from aicc.graph_ir.types import TensorType
from aicc.memory.joint import arena_bound
from aicc.memory.order_problem import Problem
from aicc.symbolic import Size
from aicc.tensor_ir.inplace import inplace_pairs
from aicc.tensor_ir.ir import Kernel


def memory_problem(level: Graph | Module, relaxed: bool = False) -> Problem:
    """The problem of a graph's order; with the calls of a module, what kernels write in place.

    The peak of an order is what planning needs, or more where an output takes the memory of a value
    that has other readers; if `relaxed`, it is no more than planning needs.
    """
    if isinstance(level, Graph):
        return _Values(level, {}).problem(relaxed)
    return _Values(level.graph, level.kernels).problem(relaxed)


def counts_the_arena(module: Module) -> bool:
    """Whether the bytes of its relaxed problem bound the arena of any order: all sizes are numbers,
    and no value is joined twice, where the first join has it."""
    graph = module.graph
    joins = [node for node in graph.nodes if joined(graph, node) is not None]
    parts = Counter(name for node in joins for name in dict.fromkeys(node.inputs))
    return all(isinstance(t.nbytes, int) for t in graph.types.values()) and all(
        times == 1 or name in graph.constants for name, times in parts.items()
    )


def least_arena(module: Module, seconds: float) -> int | None:
    """Bytes that the arena takes in any order of the nodes, at least; None where that is not known.
    seconds: for the search (`aicc.memory.ordering`)."""
    if not counts_the_arena(module):
        return None
    return arena_bound(memory_problem(module, relaxed=True), seconds)


def _certain(pairs: list[tuple[int, int]], dying: set[int]) -> dict[int, int]:
    """Result -> operand for the pairs of a node, in the order of its wishes, that come true in any
    order: the first wish of the result, and no other result's. `dying`: operands that no node reads
    later in any order."""
    wishes: dict[int, int] = {}
    for v, w in pairs:
        wishes.setdefault(w, v)
    wanted = Counter(v for v, _ in pairs)
    return {w: v for w, v in wishes.items() if v in dying and wanted[v] == 1}


class _Values:
    """Numbers for the values that nodes write, in the order of the nodes, and for the memory of
    what is joined, which the nodes that compute its parts share."""

    def __init__(self, graph: Graph, kernels: dict[str, Kernel]) -> None:
        self.graph = graph
        self.kernels = kernels
        self.index: dict[str, int] = {}
        self.sizes: list[Size] = []
        self.viewed: dict[str, str] = {}
        self.places = self._places()
        self.whole: dict[str, int] = {}  # by name: the memory of a joined value
        self.arena: set[int] = set()
        self.elsewhere: set[int] = set()
        self.pairs: dict[str, frozenset[tuple[str, str]]] = {}

    def _places(self) -> Places:
        computed = {
            o
            for node in self.graph.nodes
            if (node.op == CALL if self.kernels else not is_view(node) and not copies(node))
            for o in node.outputs
        }
        return Places(self.graph, computed)

    def problem(self, relaxed: bool) -> Problem:
        writes: list[tuple[int, ...]] = []
        used: list[tuple[int, ...]] = []
        lends: list[list[tuple[int, int]]] = []
        for node in self.graph.nodes:
            operands = dict.fromkeys(v for name in reads(node) for v in self._memory(name))
            made = self._results(node)
            shared = (v for name in node.outputs for v in self._memory(name)[1:] if name)
            lends.append(self._lends(node, made))
            used.append(tuple(dict.fromkeys((*operands, *shared))))
            writes.append(tuple(v for v in made if v >= 0))
        kept = frozenset(v for name in self.graph.outputs for v in self._memory(name))
        late = frozenset(self.whole.values())
        sizes = tuple(map(typical, self.sizes))
        plain = Problem(sizes, tuple(writes), tuple(used), kept, late=late)
        given = self._given(plain, lends, relaxed)
        none = given | self.elsewhere if relaxed else given
        sizes = tuple(0 if v in none else size for v, size in enumerate(sizes))
        alike = (tuple((v, w) for v, w in p if (v in given) == (w in given)) for p in lends)
        return replace(plain, sizes=sizes, lends=tuple(alike))

    def _given(self, plain: Problem, lends: list[list[tuple[int, int]]], relaxed: bool) -> set[int]:
        """Values that lie in the caller's arrays."""
        given: set[int] = set()
        for name in self.graph.outputs:
            for root in self._memory(name)[-1:]:
                if self.sizes[root] == self.graph.types[name].nbytes:
                    given.add(root)
        for node, pairs in reversed(list(enumerate(lends))):
            # What no other node can read later.
            after = plain.before[node] | 1 << node
            dying = {
                v
                for v, _ in pairs
                if v not in plain.kept and all(after >> r & 1 for r in plain.readers[v])
            }
            certain = _certain(pairs, dying)
            for v, w in pairs:
                # Where it is certain for another operand, this one keeps its memory.
                if w in given and certain.get(w, v if relaxed else -1) == v:
                    given.add(v)
        return given

    def _memory(self, name: str) -> list[int]:
        """The numbers of a value and of what it views or is a part of, down to the memory."""
        found = []
        while name in self.index:
            found.append(self.index[name])
            if name in self.viewed:
                name = self.viewed[name]
                continue
            name = self.places.whole(name)
            return [*found, self.whole[name]] if name in self.whole else found
        return found

    def _results(self, node: Node) -> list[int]:
        """The numbers of the results, -1 for those that are not wanted and need no memory."""
        view = self.places.is_alias(node)
        if view:
            self.viewed[node.outputs[0]] = node.inputs[0]
        kernel = self._kernel(node)
        outs = [b for b in kernel.params if b.scope == "out"] if kernel else []
        made = []
        for n, name in enumerate(node.outputs):
            if name:
                made.append(self._result(name, view))
                self.index[name] = made[-1]
            elif outs:  # the kernel writes what nobody reads
                made.append(self._add(TensorType(outs[n].dtype, outs[n].shape).nbytes))
            else:
                made.append(-1)
        if not view:
            placed = kernel or copies(node) or joined(self.graph, node) is not None
            (self.arena if placed else self.elsewhere).update(made)
        return made

    def _result(self, name: str, view: bool) -> int:
        """A number for a value: of no bytes, where its memory has one."""
        whole = self.places.whole(name)
        if whole != name and whole not in self.whole:
            self.whole[whole] = self._add(self.graph.types[whole].nbytes)
            self.arena.add(self.whole[whole])
        return self._add(0 if view or whole in self.whole else self.graph.types[name].nbytes)

    def _add(self, size: Size) -> int:
        self.sizes.append(size)
        return len(self.sizes) - 1

    def _kernel(self, node: Node) -> Kernel | None:
        return self.kernels[node.attr("kernel")] if node.op == CALL and self.kernels else None

    def _lends(self, node: Node, made: list[int]) -> list[tuple[int, int]]:
        """The pairs of memory that the kernel may read and write in place, first wishes first."""
        kernel = self._kernel(node)
        if kernel is None:
            return []
        if kernel.name not in self.pairs:
            self.pairs[kernel.name] = inplace_pairs(kernel)
        allowed = self.pairs[kernel.name]
        ins = [b.name for b in kernel.params if b.scope != "out"]
        outs = [b.name for b in kernel.params if b.scope == "out"]
        roots = [self._memory(name)[-1] if name in self.index else -1 for name in node.inputs]
        found = []
        for out, name, result in zip(outs, node.outputs, made):
            for root in dict.fromkeys(r for r in roots if r in self.arena):
                uses = [b for b, r in zip(ins, roots) if r == root]
                same = name not in self.places.home and self.sizes[root] == self.sizes[result]
                if same and all((b, out) in allowed for b in uses):
                    found.append((root, result))
        return found
