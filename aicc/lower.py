"""The bridge from graph to loops: a group of nodes becomes one kernel; a node's kernel tells fusion
how the node reads its operands.

Nothing about fusibility is declared by an operator: `describe` lowers a node alone and looks at the
loop nests that come out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from aicc.errors import AiccError
from aicc.graph_ir.graph import Graph, Node, make_node
from aicc.graph_ir.infer import context
from aicc.graph_ir.passes.fuse import Access, Description, Kind
from aicc.graph_ir.places import Places, takes_no_kernel
from aicc.ops import registry
from aicc.symbolic import Dim, Size, Sym, from_atom, product, symbols
from aicc.tensor_ir.analysis import Stage, stage_of, writes
from aicc.tensor_ir.analysis import reads as buffers_read
from aicc.tensor_ir.builder import KernelBuilder, Tensor
from aicc.tensor_ir.choice import choose_between, fresh_name, renamed
from aicc.tensor_ir.ir import (
    Buffer,
    Expr,
    For,
    If,
    Kernel,
    Load,
    Op,
    Reduce,
    Stmt,
    Store,
    const,
)
from aicc.tensor_ir.recipes.common import stride_in
from aicc.tensor_ir.recipes.staged import has_staged
from aicc.tensor_ir.schedule_stages import Inline
from aicc.tensor_ir.walk import children, map_body, map_expr, walk_expr
from aicc.uniform import element, is_uniform

_NOTHING = np.empty(0)
LITERAL_LIMIT = 1
"""Constants of at most this many elements become numbers in the code."""


@dataclass(frozen=True)
class Lowered:
    """A kernel, and the graph values of its parameters: operands (`in`, `const`) then results."""

    kernel: Kernel
    operands: tuple[str, ...]
    results: tuple[str, ...]

    def values(self) -> dict[str, str]:
        """The graph value of each parameter, by name."""
        operands, results = iter(self.operands), iter(self.results)
        params = self.kernel.params
        return {b.name: next(results if b.scope == "out" else operands) for b in params}


class _Operands:
    """The operands of a group, as its nodes ask for them: parameters of its kernel, numbered by
    kind, but for constants of one element, which are literals."""

    def __init__(self, graph: Graph, builder: KernelBuilder) -> None:
        self._graph = graph
        self._builder = builder
        self._counts = {"x": 0, "w": 0}
        self.tensors: dict[str, Tensor] = {}
        """Of the values that are known: operands, and results of nodes before."""
        self.names: list[str] = []
        """The values that are parameters."""

    def __call__(self, value: str) -> Tensor | None:
        if not value:
            return None
        if value not in self.tensors:
            t = self._graph.types[value]
            data = self._graph.constants.get(value)
            literal = None if data is None else _literal(data)
            if literal is not None:
                self.tensors[value] = Tensor("", t.dtype, t.shape, literal)
            else:
                kind = "x" if data is None else "w"
                make = self._builder.input if data is None else self._builder.constant
                self.tensors[value] = make(f"{kind}{self._counts[kind]}", t.dtype, t.shape)
                self._counts[kind] += 1
                self.names.append(value)
        return self.tensors[value]


def lower_group(graph: Graph, nodes: Sequence[Node], results: Sequence[str], name: str) -> Lowered:
    """The unscheduled kernel that computes `results` by `nodes`, which are in order.

    Buffers are named by position (`x0`, `w0`, ...), so that equal groups give equal kernels.
    Raises AiccError, naming the node, where an operator's lowering fails.
    """
    b = KernelBuilder(name)
    operands = _Operands(graph, b)
    tensors = operands.tensors
    for node in nodes:
        op = registry.get(node.op)
        ctx = context(graph, node)
        try:
            made = op.lower(ctx, b, *(operands(v) for v in node.inputs))
        except AiccError:
            raise
        except Exception as error:
            raise AiccError(f"lowering {node.op} ({ctx.node}) failed: {error}") from error
        for value, tensor in zip(node.outputs, made, strict=False):
            if value:
                tensors[value] = tensor
    outs: set[str] = set()
    inputs = {tensors[v].name for v in operands.names}
    for value in results:
        tensor = tensors[value]
        if tensor.name in outs or tensor.name in inputs or tensor.literal is not None:
            tensor = b.compute(tensor.shape, lambda *i, t=tensor: t[i], tensor.dtype)
        b.mark_output(tensor)
        outs.add(tensor.name)
        tensors[value] = tensor
    uniform = {
        tensors[v].name: const(literal, graph.types[v].dtype)
        for v in operands.names
        if is_uniform(data := graph.constants.get(v, _NOTHING))
        and (literal := _literal(element(data))) is not None
    }
    kernel = _without_unread(_with_literals(b.build(), uniform))
    by_name = {tensors[v].name: v for v in operands.names}
    produced = {tensors[v].name: v for v in results}
    order = [p.name for p in kernel.params]
    return Lowered(
        kernel,
        tuple(by_name[n] for n in order if n in by_name),
        tuple(produced[n] for n in order if n in produced),
    )


def lower_choice(graph: Graph, nodes: Sequence[Node], results: Sequence[str], name: str) -> Lowered:
    """The same, but where an operator says what else computes its results faster for some sizes:
    then a kernel that has both, and chooses between them by the sizes of a run."""
    lowered = lower_group(graph, nodes, results, name)
    for n, node in enumerate(nodes):
        other = registry.get(node.op).instead(context(graph, node))
        if other is not None:
            inputs = (node.inputs[i] for i in other.operands)
            made = make_node(other.op, inputs, node.outputs, other.attrs, (), node.origin)
            few = lower_group(graph, [*nodes[:n], made, *nodes[n + 1 :]], results, name)
            return _chosen(graph, other.cond, few, lowered)
    return lowered


def _chosen(graph: Graph, cond: Expr, few: Lowered, many: Lowered) -> Lowered:
    """A kernel that takes one or another way to the same results. Each has its own constants: how
    these are packed is up to its schedule."""
    value_of, other = few.values(), many.values()
    name_of = {v: name for name, v in value_of.items() if v not in graph.constants}
    names = {name: name_of[v] for name, v in other.items() if v in name_of}
    first = {b.name for b in few.kernel.buffers}
    rest = [b.name for b in many.kernel.buffers if b.name not in names]
    taken = first.union(rest)
    names |= {name: fresh_name(name, taken) for name in rest if name in first}
    kernel = choose_between(cond, few.kernel, renamed(many.kernel, names))
    value_of |= {names.get(name, name): v for name, v in other.items()}
    operands = (value_of[b.name] for b in kernel.params if b.scope != "out")
    results = (value_of[b.name] for b in kernel.params if b.scope == "out")
    return Lowered(kernel, tuple(operands), tuple(results))


def _with_literals(kernel: Kernel, elements: Mapping[str, Expr]) -> Kernel:
    """With the elements of some parameters, which are all the same, written out where maps read
    them. Reductions read them as they read others: what their loops are like depends on that."""
    if not elements:
        return kernel

    def written_out(e: Expr) -> Expr | None:
        return elements.get(e.buffer) if isinstance(e, Load) else None

    def written(s: Stmt) -> tuple[Stmt, ...]:
        if not isinstance(s, Store):
            return (s,)
        return (replace(s, value=map_expr(s.value, written_out, lambda size: size)),)

    return kernel.with_body(map_body(kernel.body, written))


def in_place(lowered: Lowered, places: Places) -> Lowered:
    """The same with parameters that have the strides of where their values lie."""
    kernel = lowered.kernel
    values = lowered.values()
    buffers: list[Buffer] = []
    for b in kernel.buffers:
        if b.name in values:
            b = replace(b, pitch=places.place(values[b.name]).pitch)
        buffers.append(b)
    return replace(lowered, kernel=replace(kernel, buffers=tuple(buffers)))


def _without_unread(kernel: Kernel) -> Kernel:
    """Without stores that nobody reads (results of a node that are not wanted) and the loops around
    them, and without parameters whose elements nobody reads (shapes and axes, known by now)."""
    outs = {b.name for b in kernel.params if b.scope == "out"}
    while True:
        read = outs | {name for s in kernel.body for name in buffers_read(s)}

        def needed(s: Stmt, read: set[str] = read) -> tuple[Stmt, ...]:
            if isinstance(s, Store | Reduce):
                return (s,) if s.buffer in read else ()
            empty = isinstance(s, For | If) and not children(s)
            return () if empty else (s,)

        body = map_body(kernel.body, needed)
        if body == kernel.body:
            break
        kernel = kernel.with_body(body)
    return replace(kernel, buffers=tuple(b for b in kernel.buffers if b.name in read))


def _literal(data: np.ndarray[Any, Any]) -> int | float | None:
    if data.size == 0 or data.size > LITERAL_LIMIT or data.dtype.kind not in "fiubV":
        return None
    value = data.reshape(-1)[0]
    return float(value) if data.dtype.kind in "fV" else int(value)


class Describer:
    """Answers fusion's question about nodes, and remembers the answers for equal ones."""

    def __init__(self) -> None:
        self._known: dict[Any, Description] = {}

    def __call__(self, graph: Graph, node: Node) -> Description:
        if takes_no_kernel(graph, node):
            return Description("opaque")
        key = self.key(graph, node)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = _describe(graph, node)
        return found

    def key(self, graph: Graph, node: Node) -> Any:
        """Equal for nodes whose kernels are equal."""
        operands: list[Any] = [tuple(node.inputs.index(v) for v in node.inputs)]
        for v in node.inputs:
            data = graph.constants.get(v)
            known: object = data is not None
            if data is not None and data.size <= 64:
                known = data.tobytes()
            elif data is not None and is_uniform(data):
                known = element(data).item()
            operands.append((graph.types.get(v), known))
        results = tuple(graph.types.get(o) for o in node.outputs)
        return node.op, node.attrs, tuple(operands), results, len(node.outputs)


def _describe(graph: Graph, node: Node) -> Description:
    op = registry.get(node.op)
    if not op.has_lowering or any(graph.types[v].dtype == "str" for v in node.outputs if v):
        return Description("host")
    results = [o for o in node.outputs if o]
    lowered = lower_group(graph, [node], results, "k")
    kernel = lowered.kernel
    if len({w for s in kernel.body for w in writes(s)}) != len(kernel.body):
        return Description("opaque")
    found = [stage_of(kernel, b) for s in kernel.body for b in writes(s)]
    if any(s is None for s in found):
        return Description("opaque")
    stages = [s for s in found if s is not None]
    reductions = [s for s in stages if s.op is not None]
    if not reductions and len(results) == 1:
        return _describe_map(kernel, lowered, stages, node)
    if len(results) != 1:
        return Description("opaque")
    if len(reductions) == 1 and has_staged(kernel):
        return Description("contraction", {}, epilogue=True)
    if len(reductions) == 1:
        return _describe_reduction(kernel, lowered, reductions[0], stages, node)
    return Description("opaque")


def _describe_map(kernel: Kernel, lowered: Lowered, stages: list[Stage], node: Node) -> Description:
    for stage in stages[:-1]:
        kernel = Inline(stage.buffer).apply(kernel)
    (buffer,) = (b.name for b in kernel.params if b.scope == "out")
    final = stage_of(kernel, buffer)
    assert final is not None
    by_value = _accesses(kernel, lowered, final, final.axes)
    reads = {n: by_value[v] for n, v in enumerate(node.inputs) if v in by_value}
    kind: Kind = "view" if registry.get(node.op).view else "map"
    return Description(kind, reads, movement=isinstance(final.value, Load))


def _accesses(
    kernel: Kernel,
    lowered: Lowered,
    stage: Stage,
    axes: Sequence[tuple[Sym | None, Size]],
) -> dict[str, Access]:
    """How each operand is read by a stage."""
    reads: dict[str, Access] = {}
    inputs = [b.name for b in kernel.params if b.scope != "out"]
    value_of = dict(zip(inputs, lowered.operands, strict=True))
    for load in (x for x in walk_expr(stage.value) if isinstance(x, Load)):
        value = value_of.get(load.buffer)
        if value is None:
            continue
        how = _access(load, axes)
        reads[value] = how if reads.get(value, how) == how else "other"
    return reads


def _access(load: Load, axes: Sequence[tuple[Sym | None, Size]]) -> Access:
    """ "same": the element with the result's own index; "broadcast": that, with size-1 axes or
    missing leading axes repeated; "other": anything else."""
    own = axes[len(axes) - len(load.indices) :]
    if len(own) != len(load.indices):
        return "other"
    exact = len(own) == len(axes)
    for index, (v, _) in zip(load.indices, own, strict=True):
        if v is None:
            if index != 0:
                return "other"
        elif index == 0:
            exact = False
        elif index != from_atom(v):
            return "other"
    return "same" if exact else "broadcast"


def _describe_reduction(
    kernel: Kernel, lowered: Lowered, stage: Stage, stages: list[Stage], node: Node
) -> Description:
    after = [s for s in stages if s.position > stage.position]
    before = [s for s in stages if s.position < stage.position]
    e = stage.value
    simple_after = all(_reads_own(s, stage) for s in after[:1])
    if isinstance(e, Op) and e.name == "mul" and stage.op == "add":
        loads = [a for a in e.args if isinstance(a, Load)]
        if len(loads) == 2 and loads[0].buffer != loads[1].buffer:
            column = next((v for v, _ in reversed(stage.axes) if v is not None), None)
            users = [x for x in loads if column is not None and column in x.size_symbols()]
            if len(users) == 1:
                return Description("contraction", {}, epilogue=simple_after and len(after) <= 1)
            return Description("window", {}, epilogue=simple_after and len(after) <= 1)
    row = _row_operand(kernel, lowered, stage) if not before else None
    if row is not None:
        return Description("rows", {node.inputs.index(row): "same"}, epilogue=simple_after)
    return Description("window", {}, epilogue=simple_after and len(after) <= 1)


def _reads_own(s: Stage, reduction: Stage) -> bool:
    """True where each result of `s` reads one element of the reduction of its own: at the same
    index, or moved to another place."""
    loads = [x for x in walk_expr(s.value) if isinstance(x, Load)]
    own = [x for x in loads if x.buffer == reduction.buffer]
    if all(_access(x, s.axes) == "same" for x in own):
        return bool(own)
    count = product(e for _, e in s.axes)
    return s.value == own[0] and count == product(e for _, e in reduction.axes)


def _row_operand(kernel: Kernel, lowered: Lowered, stage: Stage) -> str | None:
    """The operand whose trailing axes, contiguous in memory, the stage reduces; None otherwise."""
    inputs = [b.name for b in kernel.params if b.scope != "out"]
    value_of = dict(zip(inputs, lowered.operands, strict=True))
    loads = [x for x in walk_expr(stage.value) if isinstance(x, Load)]
    if not loads or any(x.buffer not in value_of for x in loads):
        return None
    first = loads[0]
    if len(set(loads)) != 1 or not stage.reduce:
        return None
    inner = [v for v, _ in stage.reduce]
    outer = [v for v, _ in stage.axes if v is not None]
    shape = kernel.buffer(first.buffer).shape
    kept = 0
    for index in first.indices:
        if symbols(index) & set(inner):
            break
        kept += 1
    prefix = [v for i in first.indices[:kept] for v in symbols(i)]
    if prefix != outer or stride_in(kernel, first, inner[-1]) != 1:
        return None
    tail = [i for i, d in zip(first.indices[kept:], shape[kept:], strict=True) if d != 1]
    if [i for i in tail if isinstance(i, Dim)] != [from_atom(v) for v in inner]:
        return None
    for axis, (v, _) in enumerate(stage.axes):
        if v is not None and (axis >= kept or first.indices[axis] != from_atom(v)):
            return None
    return value_of[first.buffer]
