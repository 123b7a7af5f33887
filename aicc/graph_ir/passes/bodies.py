"""What nodes lower to, each alone: passes ask the loops what operators do, not their names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from aicc.errors import AiccError
from aicc.graph_ir.graph import Graph, Node
from aicc.graph_ir.infer import context
from aicc.graph_ir.passes.decompose import Decompose
from aicc.ops import registry
from aicc.ops.registry import OpContext
from aicc.tensor_ir.builder import KernelBuilder, Tensor
from aicc.tensor_ir.ir import Check, Expr, Kernel, Op, Reduce, Store
from aicc.tensor_ir.walk import walk_stmts


@dataclass(frozen=True)
class Body:
    """A kernel, and its buffers for the operands (None for one that is left out) and results."""

    kernel: Kernel
    operands: tuple[Tensor | None, ...]
    results: tuple[Tensor, ...]

    @property
    def checks(self) -> bool:
        """Whether some data end its run."""
        return any(isinstance(s, Check) for s in walk_stmts(self.kernel.body))

    @property
    def moves(self) -> bool:
        """Whether all that it stores are elements of operands, or constants."""
        stores = [s for s in walk_stmts(self.kernel.body) if isinstance(s, Store | Reduce)]
        return all(isinstance(s, Store) and _moved(s.value) for s in stores)


def _moved(e: Expr) -> bool:
    if not isinstance(e, Op):
        return True
    return e.name == "select" and all(_moved(a) for a in e.args[1:])


def body(ctx: OpContext) -> Body | None:
    """What a node lowers to; None where Python computes it, it has regions, or other values of its
    attributes or sizes are needed to lower it."""
    op = registry.find(ctx.op)
    if op is None or not op.has_lowering or not op.deterministic or ctx.regions:
        return None
    b = KernelBuilder(ctx.op)
    operands = tuple(
        None if t is None else b.input(f"x{i}", t.dtype, t.shape) for i, t in enumerate(ctx.types)
    )
    try:
        results = tuple(op.lower(ctx, b, *operands))
        return Body(b.build(), operands, results)
    except (AiccError, ArithmeticError, LookupError, TypeError, ValueError):
        return None


def alone(ctx: OpContext, node: Node) -> Graph:
    """A graph of one node, of which `ctx` tells what is known of it."""
    types = zip((*node.inputs, *node.outputs), (*ctx.types, *ctx.outputs), strict=True)
    constants = {n: a for n, a in zip(node.inputs, ctx.constants, strict=True) if a is not None}
    return Graph(
        node.op,
        [n for n in dict.fromkeys(node.inputs) if n and n not in constants],
        [o for o in node.outputs if o],
        [node],
        constants,
        {n: t for n, t in types if n and t is not None},
    )


def bodies(graph: Graph) -> Iterator[Body | None]:
    """What the nodes of a graph lower to, decomposed first where they are composite."""
    primitive = Decompose()(graph)
    for node in primitive.nodes:
        yield body(context(primitive, node))
