"""What joins cost in memory: which parts have to be copied for the arena not to grow.

A joined value is in memory from its first part on, and what is split until its last part has been
read: more than where each part is copied at the time. In the best order of the nodes, where most is
alive, the join that keeps most for parts that are not there yet has those copied that are; that is
repeated until no more memory is needed than without any joins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from aicc.graph_ir.graph import Graph, Node, make_node, reads
from aicc.graph_ir.module import CALL, Module
from aicc.graph_ir.passes.layout import typical
from aicc.graph_ir.passes.memory_problem import memory_problem
from aicc.graph_ir.places import is_view
from aicc.memory.joint import plan_memory
from aicc.memory.order_problem import live_bytes
from aicc.tensor_ir.ir import Buffer, Kernel

JOIN, SECTION = "aicc::Join", "aicc::Section"
Part = tuple[str, str]
"""Something that may be in place: the result of a Concat and an operand of it, or the first result
of a Split or Slice and ""."""
_Call = Callable[[tuple[str, ...], tuple[str, ...]], None]


def parts_to_copy(
    module: Module, parts: Iterable[Part], splits: Mapping[str, Part], seconds: float
) -> set[Part]:
    """The parts, of those in place in a module that is not scheduled, that have to be copied.

    splits: the part that each section comes from. seconds: for the search of each order.
    """
    memory = _Memory(module, set(parts), splits, seconds)
    return memory.copied()


class _Memory:
    def __init__(
        self, module: Module, parts: set[Part], splits: Mapping[str, Part], seconds: float
    ) -> None:
        self.module = module
        self.parts = parts
        self.splits = splits
        self.seconds = seconds

    def copied(self) -> set[Part]:
        limit = self._plan(self.parts)[0]
        found: set[Part] = set()
        while True:
            size, graph, sequence, live = self._plan(found)
            if size <= limit:
                return found
            more = self._most(graph, sequence, live.index(max(live)), found)
            if not more:
                return self.parts
            found |= more

    def _plan(self, copied: set[Part]) -> tuple[int, Graph, tuple[int, ...], list[int]]:
        """The arena where some parts are copied; the graph then, its order, what is alive when."""
        module = self._with_copies(copied)
        problem = memory_problem(module)
        found = plan_memory(problem, self.seconds)
        sequence = tuple(found.order.sequence)
        return found.size, module.graph, sequence, live_bytes(problem, sequence)

    def _with_copies(self, copied: set[Part]) -> Module:
        """The module with copies as calls of kernels, of which only their parameters are there."""
        graph = self.module.graph.copy()
        kernels = dict(self.module.kernels)
        graph.nodes = []

        def call(inputs: tuple[str, ...], outputs: tuple[str, ...]) -> None:
            name = f"copy of {outputs[0]}"
            buffers = []
            for n, v in enumerate((*inputs, *outputs)):
                t, scope = graph.types[v], "in" if n < len(inputs) else "out"
                buffers.append(Buffer(f"x{n}", t.dtype, t.shape, scope))
            kernels[name] = Kernel(name, (), tuple(buffers), ())
            graph.nodes.append(make_node(CALL, inputs, outputs, {"kernel": name}))

        done: set[Part] = set()
        for node in self.module.graph.nodes:
            part = self.splits.get(node.outputs[0]) if node.op == SECTION else None
            if part is not None and part in copied:
                if part not in done:
                    results = tuple(s for s, p in self.splits.items() if p == part)
                    call(node.inputs, tuple(s for s in results if s in graph.types))
                done.add(part)
            elif node.op == JOIN:
                self._join(graph, node, copied, call)
            else:
                graph.nodes.append(node)
        return Module(graph, kernels)

    def _join(self, graph: Graph, node: Node, copied: set[Part], call: _Call) -> None:
        (result,) = node.outputs
        mine = {v for v in node.inputs if (result, v) in self.parts}
        if all((result, v) in copied for v in mine):
            call(node.inputs, node.outputs)
            return
        names = list(node.inputs)
        for n, v in enumerate(names):
            if (result, v) in copied:
                names[n] = graph.fresh(v)
                graph.types[names[n]] = graph.types[v]
                call((v,), (names[n],))
        graph.nodes.append(make_node(JOIN, names, node.outputs, dict(node.attrs)))

    def _most(
        self, graph: Graph, sequence: tuple[int, ...], now: int, copied: set[Part]
    ) -> set[Part]:
        """The parts to copy of the join or the split that keeps most memory at a time for what is
        not there any more, or not yet."""
        at = {node: position for position, node in enumerate(sequence)}
        births = _births(graph, at)
        ends = _ends(graph, at)
        source, direct = _sources(graph), _read_directly(graph, at)
        best: tuple[int, set[Part]] = (0, set())

        def size(values: Iterable[str]) -> int:
            return sum(typical(graph.types[v].nbytes) for v in values)

        for node in graph.nodes:
            (first, *_) = node.outputs
            if node.op == JOIN:
                early = {v for v in node.inputs if births.get(v, 0) <= now}
                late = set(node.inputs) - early
                more = {(first, v) for v in early if (first, v) in self.parts}
                waste = size(late) if early else 0
            elif node.op == SECTION and first in self.splits:
                x = source[first]
                parts = {s for s, v in source.items() if v == x and s in self.splits}
                alive = {s for s in parts if ends.get(s, -1) >= now}
                more = {self.splits[s] for s in alive}
                kept = births.get(x, 0) <= now and alive and direct.get(x, -1) < now
                waste = size([x]) - size(alive) if kept else 0
            else:
                continue
            more -= copied
            if more and waste > best[0]:
                best = waste, more
        return best[1]


def _births(graph: Graph, at: Mapping[int, int]) -> dict[str, int]:
    """When the memory of each value begins to be there."""
    found: dict[str, int] = {}
    for n, node in enumerate(graph.nodes):
        born = at[n]
        if node.op == JOIN:
            born = min(found.get(v, 0) for v in node.inputs)
        elif is_view(node):
            born = found.get(node.inputs[0], 0)
        found.update((o, born) for o in node.outputs if o)
    return found


def _ends(graph: Graph, at: Mapping[int, int]) -> dict[str, int]:
    """When each value is read last, through views too."""
    found: dict[str, int] = {}
    for n, node in reversed(list(enumerate(graph.nodes))):
        end = max((found.get(o, at[n]) for o in node.outputs), default=0)
        for v in reads(node):
            found[v] = max(found.get(v, 0), end if is_view(node) else at[n])
    return found


def _sources(graph: Graph) -> dict[str, str]:
    """What each section is a part of."""
    found: dict[str, str] = {}
    for node in graph.nodes:
        if node.op == SECTION:
            found[node.outputs[0]] = found.get(node.inputs[0], node.inputs[0])
    return found


def _read_directly(graph: Graph, at: Mapping[int, int]) -> dict[str, int]:
    """When each value is read last other than by sections of it."""
    found: dict[str, int] = dict.fromkeys(graph.outputs, len(graph.nodes))
    for n, node in reversed(list(enumerate(graph.nodes))):
        end = at[n]
        if is_view(node):
            end = max((found.get(o, -1) for o in node.outputs), default=-1)
        for v in () if node.op == SECTION else reads(node):
            found[v] = max(found.get(v, -1), end)
    return found
