"""The whole compiler on one screen: every pass in order, and why it stands there.

model file --load_model--> Graph --graph passes--> Graph --fuse--> Module --schedule--> Module
    --plan--> Program --codegen--> objects --link--> CompiledModel
"""

from __future__ import annotations

from aicc import config
from aicc.codegen.target import Target
from aicc.graph_ir.passes.batchnorm import FoldBatchNorm
from aicc.graph_ir.passes.decompose import Decompose
from aicc.graph_ir.passes.fold import Fold
from aicc.graph_ir.passes.layout import ChooseLayout
from aicc.graph_ir.passes.reorder import Reorder
from aicc.graph_ir.passes.simplify import Simplify
from aicc.graph_ir.passes.winograd import TILES, Winograd
from aicc.lower import Coster, Describer, Fuse, Schedule
from aicc.passes import Pass
from aicc.plan import Plan


def passes(target: Target) -> list[Pass]:
    """Every pass from the imported graph to the program."""
    return [
        Fold(),  # shape arithmetic and weights that are computed become constants
        Simplify(),  # identities go, so that later passes see fewer forms
        Decompose(),  # composite operators become primitives: one form, however it was exported
        Simplify(),  # what decomposition leaves: constants to fold, repeated subexpressions
        FoldBatchNorm(),  # scales into weights, shifts into one bias: before layout moves operands
        ChooseLayout(
            cost=Coster(target, Describer())
        ),  # convolutions become matrix products over contiguous channels
        Simplify(),  # transposes that met cancel or fold into constants
        FoldBatchNorm(),  # scales that stood behind transposes reach their weights
        Simplify(),
        _winograd(target),  # fewer multiplications for 3x3 windows, where estimated to be faster
        Fuse(target),  # groups of nodes become kernels; from here on a Module
        Reorder(),  # the order of calls that needs the least memory
        Schedule(target),  # loops become tiles, vectors, threads
        Plan(),  # buffers get their places, calls become steps; from here on a Program
    ]


def _winograd(target: Target) -> Winograd:
    tiles = TILES if config.get("AICC_WINOGRAD") else ()
    return Winograd(Coster(target, Describer()), tiles)
