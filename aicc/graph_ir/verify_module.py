"""The verifier of modules: kernels, the graph around them, and that calls fit their kernels."""

from __future__ import annotations

from aicc.dtypes import from_numpy
from aicc.errors import IRError
from aicc.graph_ir.graph import Graph, Node
from aicc.graph_ir.module import CALL, Module
from aicc.graph_ir.places import Places
from aicc.graph_ir.text import graph_symbols
from aicc.graph_ir.types import TensorType
from aicc.graph_ir.verify import GraphVerifier
from aicc.symbolic import Sym
from aicc.tensor_ir.ir import Buffer
from aicc.tensor_ir.packing import PackError, parse_layout
from aicc.tensor_ir.strides import same_walk
from aicc.tensor_ir.verify import verify as verify_kernel


def verify_module(module: Module) -> None:
    """Raises IRError, naming kernel, graph and node, where an invariant of a level fails:

    - every kernel is valid and has the name it is known by;
    - the graph is valid, where calls are typed by their kernels' `out` parameters;
    - a call has an operand for each `in` and `const` parameter, of its element type and count (a
      kernel may see its operands' memory under another shape); a `const` one is a constant, and
      one with a `pack` has the shape that this layout gives it;
    - operands and results lie as the parameters are walked (`graph_ir.places`): dense, or as parts;
    - a kernel's sizes are sizes of the graph.
    """
    for name, kernel in module.kernels.items():
        if name != kernel.name:
            raise IRError(f"the kernel @{kernel.name} is known as {name!r}")
        verify_kernel(kernel)
    sizes = {s.name: s for s in graph_symbols(module.graph)}
    _ModuleVerifier(module, sizes).graph(module.graph, None)


class _ModuleVerifier(GraphVerifier):
    def __init__(self, module: Module, sizes: dict[str, Sym]) -> None:
        super().__init__(module.graph.name)
        self.module = module
        self.sizes = sizes
        computed = {o for n in module.graph.nodes if n.op == CALL for o in n.outputs}
        self.places = Places(module.graph, computed)

    def node(
        self,
        graph: Graph,
        outer: Graph | None,
        node: Node,
        position: int,
        visible: frozenset[str] | None,
        seen: set[str],
    ) -> None:
        if node.op != CALL:
            super().node(graph, outer, node, position, visible, seen)
            return
        kernel = self.module.kernels.get(str(node.attr("kernel")))
        what = f"node {position} ({', '.join(f'%{o}' for o in node.outputs)} = call)"
        if kernel is None:
            raise self.error(f"{what}: there is no kernel {node.attr('kernel')!r}")
        what = f"{what} of @{kernel.name}"
        for name in node.inputs:
            if name not in seen:
                raise self.error(f"{what}: the operand {name!r} is not defined before it")
        ins = [b for b in kernel.params if b.scope != "out"]
        outs = [b for b in kernel.params if b.scope == "out"]
        if len(ins) != len(node.inputs) or len(outs) != len(node.outputs):
            raise self.error(
                f"{what}: {len(node.inputs)} operands and {len(node.outputs)} results, where the "
                f"kernel has {len(ins)} and {len(outs)}"
            )
        for s in kernel.sizes:
            if self.sizes.get(s.name) != s:
                raise self.error(f"{what}: the graph has no size {s} of the kernel's range")
        for b, name in zip(ins, node.inputs):
            self.operand(graph, what, b, name)
            self.placed(what, b, name)
        for b, name in zip(outs, node.outputs):
            if name:
                self.same(what, b, TensorType(b.dtype, b.shape), name, graph.types[name])
                self.placed(what, b, name)

    def error(self, message: str) -> IRError:
        return IRError(f"graph {self.where!r}: {message}")

    def placed(self, what: str, b: Buffer, name: str) -> None:
        """A parameter is walked as the value lies in memory."""
        if b.pack:
            return
        pitch, shape = self.places.place(name).pitch, self.module.graph.types[name].shape
        if not same_walk(shape, pitch, b.shape, b.pitch):
            raise self.error(
                f"{what}: {name!r} has the pitch {list(pitch)}, but {b.name} {list(b.pitch)}"
            )

    def operand(self, graph: Graph, what: str, b: Buffer, name: str) -> None:
        if b.scope == "const" and name not in graph.constants:
            raise self.error(f"{what}: {name!r} is no constant, as {b.name} has to be")
        if not b.pack:
            self.same(what, b, TensorType(b.dtype, b.shape), name, graph.types[name])
            return
        data = graph.constants[name]
        try:
            packed = tuple(p.extent for p in parse_layout(b.pack, data.shape))
        except PackError as fault:
            raise self.error(f"{what}: {name!r} as {b.name}: {fault}") from None
        if packed != b.shape or from_numpy(data.dtype) != b.dtype:
            found = TensorType(from_numpy(data.dtype), packed)
            raise self.error(
                f"{what}: {name!r} is packed as {found}, but {b.name} is {b.dtype}{list(b.shape)}"
            )

    def same(self, what: str, b: Buffer, declared: TensorType, name: str, t: TensorType) -> None:
        if declared.dtype != t.dtype or declared.count != t.count:
            raise self.error(f"{what}: {name!r} is {t.without_value()}, but {b.name} is {declared}")
