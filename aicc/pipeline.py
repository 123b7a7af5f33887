"""The whole compiler on one screen: every pass in order, and why it stands there.

model file --load_model--> Graph --graph passes--> Graph --fuse--> Module --schedule--> Module
    --plan--> Program --codegen--> objects --link--> CompiledModel
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aicc import config
from aicc.decisions import collect
from aicc.graph_ir.graph import Graph
from aicc.graph_ir.passes.batchnorm import FoldBatchNorm
from aicc.graph_ir.passes.branches import MergeBranches
from aicc.graph_ir.passes.decompose import Decompose
from aicc.graph_ir.passes.fold import Fold
from aicc.graph_ir.passes.folds import Folds, with_folds
from aicc.graph_ir.passes.join import Join
from aicc.graph_ir.passes.layout import ChooseLayout
from aicc.graph_ir.passes.patches import Arena, Patches
from aicc.graph_ir.passes.reorder import Reorder
from aicc.graph_ir.passes.simplify import Simplify
from aicc.graph_ir.passes.widen import Widen
from aicc.graph_ir.passes.winograd import TILES, Winograd
from aicc.kernels import Coster, Fuse, Schedule
from aicc.lower import Describer
from aicc.passes import Pass, find_pass
from aicc.plan import Plan
from aicc.planned import Planned
from aicc.target import Target
from aicc.tensor_ir.ir import Kernel
from aicc.zeros import FindZeros


def passes(
    target: Target,
    memory_budget: int | None = None,
    many: Callable[[Mapping[str, Kernel]], dict[str, Kernel]] | None = None,
) -> list[Pass]:
    """Every pass from the imported graph to the program.

    memory_budget: the most bytes that the arena may have; None for as many as it takes. many:
    schedules kernels for `target`, several at once.
    """
    cost, fast = Coster(target, Describer()), memory_budget is None
    order: list[Pass] = [
        Fold(),  # shape arithmetic and weights that are computed become constants
        Simplify(),  # identities go, so that later passes see fewer forms
        Widen(),  # half precision is computed in single: before decomposition casts by itself
        Decompose(),  # composite operators become primitives: one form, however it was exported
        Simplify(),  # what decomposition leaves: constants to fold, repeated subexpressions
        FoldBatchNorm(),  # scales into weights, shifts into one bias: before layout moves operands
        MergeBranches(),  # parallel convolutions that add up: while their weights lie as imported
        # Convolutions become matrix products over contiguous channels.
        ChooseLayout(cost=with_folds(cost) if fast else cost, rows=not fast),
        # Fewer multiplications for transposed convolutions, where estimated to be faster.
        *([Folds(cost)] if fast else []),
        Simplify(),  # transposes that met cancel or fold into constants
        FoldBatchNorm(),  # scales that stood behind transposes reach their weights
        Simplify(),
        _winograd(cost),  # fewer multiplications for 3x3 windows, where estimated to be faster
        # What is joined is computed in its place: before fusion, which would join by kernels.
        Join(cost.describer, cost, Fuse(cost), target.l3 // 2),
        Fuse(cost),  # groups of nodes become kernels; from here on a Module
        FindZeros(target),  # what comes out of a ReLU: products with it may leave out terms
        Schedule(target, many),  # loops become tiles, vectors, threads
        Reorder(),  # the order of calls that needs the least memory
        Plan(memory_budget),  # buffers get their places, calls become steps: a Program
    ]
    if memory_budget is not None:
        # Where memory is short, layers run patch by patch: before what treats patches as layers.
        at = find_pass(order, Winograd.name)
        order[at] = _winograd(cost, late=False)
        behind = [
            _winograd(cost, sketch=True, late=False),
            *order[at + 1 : -1],
            Plan(bound_seconds=0.0),
        ]
        rest = [p for p in behind if p.name != Schedule.name]
        patches = Patches(memory_budget, _arena(rest), _arena(behind))
        order.insert(at, patches)
    return order


def _arena(behind: Sequence[Pass]) -> Arena:
    """The bytes of the arena that some passes make of a graph."""

    def arena(graph: Graph) -> int | None:
        level: Any = graph
        with collect():  # what they decide here is nothing that is done
            for p in behind:
                level = p(level)
        planned: Planned = level
        return planned.program.arena

    return arena


def _winograd(cost: Coster, sketch: bool = False, late: bool = True) -> Winograd:
    return Winograd(cost, TILES if config.get("AICC_WINOGRAD") else (), sketch, late)
