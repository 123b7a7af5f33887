"""Groups of nodes become kernels: what a group is estimated to take, the pass that makes kernels of
groups, and the pass that schedules them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from aicc.graph_ir.graph import Graph, Node, make_node, reads
from aicc.graph_ir.infer import context
from aicc.graph_ir.module import CALL, Module
from aicc.graph_ir.passes.fuse import Fuser
from aicc.graph_ir.places import Places, takes_no_kernel
from aicc.graph_ir.types import TensorType
from aicc.lower import Describer, in_place, lower_choice, lower_group
from aicc.ops import registry
from aicc.shared_layouts import share_layouts
from aicc.tensor_ir.choice import choice_of
from aicc.tensor_ir.ir import Kernel
from aicc.tensor_ir.recipes import scheduled
from aicc.tensor_ir.recipes.cost import constants_stay, estimate
from aicc.tensor_ir.recipes.machine import Machine
from aicc.tensor_ir.work import work


class Coster:
    """Answers fusion's question what a group of nodes takes, and remembers it for equal groups."""

    def __init__(self, machine: Machine, describer: Describer) -> None:
        self._machine = machine
        self.describer = describer
        self._known: dict[Any, float] = {}

    def __call__(self, graph: Graph, nodes: Sequence[Node]) -> float:
        size = sum(data.nbytes for data in graph.constants.values())
        cold = not constants_stay(size, self._machine)
        key = cold, self._key(graph, nodes)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._estimate(graph, nodes, cold)
        return found

    def _key(self, graph: Graph, nodes: Sequence[Node]) -> Any:
        """Equal for groups of equal nodes that are wired alike."""
        numbers: dict[str, int] = {}
        for node in nodes:
            for v in (*node.inputs, *node.outputs):
                numbers.setdefault(v, len(numbers))
        return tuple(
            (
                self.describer.key(graph, n),
                tuple(numbers[v] for v in n.inputs),
                tuple(numbers[v] for v in n.outputs),
            )
            for n in nodes
        )

    def _estimate(self, graph: Graph, nodes: Sequence[Node], cold: bool) -> float:
        if not _needs_kernel(graph, nodes):
            return 0.0
        inside = {v for n in nodes for v in n.inputs}
        live = [o for n in nodes for o in n.outputs if o and o not in inside]
        return estimate(lower_group(graph, nodes, live, "k").kernel, self._machine, cold)


@dataclass(frozen=True)
class Fuse:
    """Graph -> Module: each group of nodes that `Fuser` finds becomes a call of one unscheduled
    kernel; equal kernels are there once. Views and host operators stay nodes.

    cost: what estimates kernels; remembers them from graph to graph.
    """

    cost: Coster
    name: ClassVar[str] = "fuse"

    def __call__(self, graph: Graph) -> Module:
        grouping = Fuser(self.cost.describer, self.cost)(graph)
        places = Places(graph)
        result = graph.copy()
        result.nodes = []
        kernels: dict[str, Kernel] = {}
        works: dict[str, TensorType] = {}
        known: dict[Kernel, str] = {}
        users: dict[str, set[int]] = {}
        for g, nodes in enumerate(grouping.groups):
            for node in nodes:
                for v in reads(node):
                    users.setdefault(v, set()).add(g)
        for g, nodes in enumerate(grouping.groups):
            if not _needs_kernel(graph, nodes, places):
                result.nodes.extend(nodes)
                continue
            live = [
                o
                for node in nodes
                for o in node.outputs
                if o and (o in graph.outputs or users.get(o, set()) - {g})
            ]
            lowered = in_place(lower_choice(graph, nodes, live, "k"), places)
            name = known.get(lowered.kernel)
            if name is None:
                name = _name(nodes, kernels)
                known[lowered.kernel] = name
                kernels[name] = replace(lowered.kernel, name=name)
                works[name] = _work_attribute(lowered.kernel)
            origin = dict.fromkeys(o for node in nodes for o in node.origin)
            attrs: dict[str, Any] = {"kernel": name, "work": works[name]}
            result.nodes.append(
                make_node(CALL, lowered.operands, lowered.results, attrs, (), origin)
            )
        kept = set(result.outputs) | set(result.inputs)
        for node in result.nodes:
            kept.update(reads(node))
            kept.update(node.outputs)
        result.types = {v: t for v, t in result.types.items() if v in kept}
        result.constants = {v: d for v, d in result.constants.items() if v in kept}
        return Module(result, kernels)


def _work_attribute(kernel: Kernel) -> TensorType:
    """A kernel's work as an attribute can hold it: a type whose sizes are the counts. Of two bodies
    that is the work of the second, for large sizes."""
    choice = choice_of(kernel)
    w = work(choice.orelse if choice is not None else kernel)
    return TensorType(w.dtype, (w.operations, w.instructions, w.constants, w.moved, w.again))


def _needs_kernel(graph: Graph, nodes: Sequence[Node], places: Places | None = None) -> bool:
    """Whether nodes are a kernel. places: where values lie: not everywhere can views be views."""
    if len(nodes) > 1:
        return True
    (node,) = nodes
    op = registry.get(node.op)
    strings = any(graph.types[v].dtype == "str" for v in (*node.inputs, *node.outputs) if v)
    view = False
    if op.view:
        # A view whose number of elements only a run can compare is a kernel that does.
        same = graph.types[node.inputs[0]].count == graph.types[node.outputs[0]].count
        ctx = context(graph, node)
        view = same or op.part(ctx) is not None or op.box(ctx) is not None
        view = view and (places is None or places.is_alias(node))
    return op.has_lowering and not view and not strings and not takes_no_kernel(graph, node)


def _name(nodes: Sequence[Node], taken: Mapping[str, Kernel]) -> str:
    """A readable, unique name: the distinct operators in order, shortened, and a number."""
    words = [n.op.split("::")[-1].lower() for n in nodes]
    short = "_".join(list(dict.fromkeys(words))[:4])
    return f"{short}_{len(taken)}"


@dataclass(frozen=True)
class Schedule:
    """Module -> Module: each kernel as its recipe schedules it for `machine`. Constants that it
    packs are read by others in that layout too, where little time is lost (`share_layouts`).

    many: schedules kernels as recipes do, several at once."""

    machine: Machine
    many: Callable[[Mapping[str, Kernel]], dict[str, Kernel]] | None = None
    name: ClassVar[str] = "schedule"

    def __call__(self, module: Module) -> Module:
        def schedule(kernel: Kernel) -> Kernel:
            return scheduled(kernel, self.machine)[0]

        many = self.many or (lambda kernels: {n: schedule(k) for n, k in kernels.items()})
        kernels = many(module.kernels)
        size = sum(data.nbytes for data in module.graph.constants.values())
        cold = not constants_stay(size, self.machine)
        return share_layouts(module, kernels, schedule, lambda k: estimate(k, self.machine, cold))
