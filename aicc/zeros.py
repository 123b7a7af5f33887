"""Which operands have many zeros: what a ReLU leaves.

    %h = call(%x, @w) {kernel="matmul_relu_0"}        in x0: f32[n, 512]
    %y = call(%h, @v) {kernel="matmul_relu_0"}

    ->  %h = call(%x, @w) {kernel="matmul_relu_0"}    in x0: f32[n, 512]
        %y = call(%h, @v) {kernel="matmul_relu_0_z"}  in x0: f32[n, 512] sparse

Half of the elements are zero on average where what goes into a ReLU is spread around zero. The
products that they go into may leave out terms: where the other operand is a constant without
infinities and NaNs, whose product with zero is none.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from aicc.decisions import Decision, note
from aicc.graph_ir.graph import Graph, Node, make_node
from aicc.graph_ir.module import CALL, Module
from aicc.ops import registry
from aicc.tensor_ir.analysis import stages
from aicc.tensor_ir.ir import Const, Expr, Kernel, Load, Op
from aicc.tensor_ir.recipes.cost import estimate
from aicc.tensor_ir.recipes.machine import Machine
from aicc.tensor_ir.recipes.operands import roles
from aicc.tensor_ir.recipes.skipping import HALF, can_skip
from aicc.tensor_ir.walk import walk_expr
from aicc.uniform import FIRST, SLAB

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class FindZeros:
    """Module -> Module: calls of products with an operand that comes out of a ReLU call kernels
    that say so (`Buffer.sparse`), where `machine` gains by leaving out terms."""

    machine: Machine
    name: ClassVar[str] = "find_zeros"

    def __call__(self, module: Module) -> Module:
        graph, kernels = module.graph, dict(module.kernels)
        producers = {o: n for n in graph.nodes for o in n.outputs}
        finite: dict[str, bool] = {}
        nodes: list[Node] = []
        for node in graph.nodes:
            pair = _product(module.kernel_of(node)) if node.op == CALL else None
            if pair is not None:
                kernel = module.kernel_of(node)
                operands = [b.name for b in kernel.params if b.scope != "out"]
                left, right = (node.inputs[operands.index(b)] for b in pair)
                if _after_relu(module, producers, left):
                    name = self._marked(kernel, pair[0], kernels)
                    if name and right not in finite:
                        data = graph.constants.get(right)
                        finite[right] = data is not None and _is_finite(data)
                    if name and finite[right]:
                        seconds = estimate(kernel, self.machine)
                        what = "leave out products with zeros: " + kernel.name
                        note(Decision("zeros", what, True, HALF * seconds, seconds, node.origin))
                        attrs = {**dict(node.attrs), "kernel": name}
                        node = make_node(
                            CALL, node.inputs, node.outputs, attrs, node.regions, node.origin
                        )
            nodes.append(node)
        if all(a is b for a, b in zip(nodes, graph.nodes, strict=True)):
            return module
        result = graph.copy()
        result.nodes = nodes
        used = {n.attr("kernel") for n in nodes if n.op == CALL}
        return Module(result, {name: k for name, k in kernels.items() if name in used})

    def _marked(self, kernel: Kernel, operand: str, kernels: dict[str, Kernel]) -> str:
        """The name of the kernel with a sparse operand, which is added to the others; "" where
        nothing is gained by it."""
        name = f"{kernel.name}_z"
        if name not in kernels:
            made = kernel.with_buffer(replace(kernel.buffer(operand), sparse=True))
            if not can_skip(made, self.machine):
                return ""
            kernels[name] = replace(made, name=name)
        return name


def _product(kernel: Kernel) -> tuple[str, str] | None:
    """The operand and the constant that a kernel multiplies and adds up, if that is what it does
    and they are read for nothing else."""
    reductions = [s for s in stages(kernel) if s.op is not None]
    found = roles(reductions[0]) if len(reductions) == 1 else None
    if found is None:
        return None
    left, right = kernel.buffer(found.left.buffer), kernel.buffer(found.right.buffer)
    if left.scope != "in" or right.scope != "const" or left.dtype != "f32":
        return None
    return left.name, right.name


def _after_relu(module: Module, producers: dict[str, Node], value: str) -> bool:
    """Whether a value is max(.., 0), element by element, or a view of such a one."""
    graph: Graph = module.graph
    node = producers.get(value)
    while node is not None and node.op != CALL and value not in graph.constants:
        op = registry.get(node.op)
        if not op.view or not node.inputs:
            return False
        value = node.inputs[0]
        node = producers.get(value)
    if node is None or node.op != CALL:
        return False
    kernel = module.kernel_of(node)
    results = [b.name for b in kernel.params if b.scope == "out"]
    made = [s for s in stages(kernel) if s.buffer == results[node.outputs.index(value)]]
    return len(made) == 1 and made[0].op is None and _rectified(made[0].value)


def _rectified(e: Expr) -> bool:
    """Whether an expression is max(.., 0), or at most a bound."""
    if not isinstance(e, Op) or len(e.args) != 2:
        return False
    limits = [a.value for a in e.args if isinstance(a, Const)]
    if e.name == "min" and limits and limits[0] > 0:
        return any(_rectified(a) for a in e.args)
    read = any(isinstance(x, Load) for x in walk_expr(e))
    return e.name == "max" and limits == [0] and read


def _is_finite(data: Array) -> bool:
    """Whether no element is an infinity or a NaN."""
    if data.dtype.kind != "f":
        return False
    if data.size <= FIRST or not data.flags.c_contiguous:
        return bool(np.isfinite(data).all())
    flat = data.reshape(-1)
    return all(np.isfinite(flat[at : at + SLAB]).all() for at in range(0, flat.size, SLAB))
