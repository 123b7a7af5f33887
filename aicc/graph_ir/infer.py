"""Type inference: asks each operator for the types of its results, in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from aicc.dtypes import from_numpy, is_float, to_numpy
from aicc.errors import AiccError, OperatorError
from aicc.graph_ir.graph import Graph, Node
from aicc.graph_ir.types import TensorType, trackable
from aicc.ops import registry
from aicc.ops.registry import REQUIRED, OpContext
from aicc.symbolic import Size, lo_of, sym

FEW_NUMBERS = 16
"""Elements of floating-point results that are computed for the sizes they lead to."""
OPERAND_LIMIT = 1 << 16
"""Elements of an operand beyond which results are not computed while types are inferred."""


def constant_type(data: np.ndarray[Any, Any]) -> TensorType:
    """The type of an array, with its contents where they are few and integers or bools."""
    dtype = from_numpy(data.dtype)
    value = None
    if trackable(dtype, data.shape):
        value = tuple(int(x) for x in data.reshape(-1))
    return TensorType(dtype, tuple(int(d) for d in data.shape), value)


def enclosing(graph: Graph, outer: Graph | None) -> Graph:
    """What the regions of `graph`'s nodes see: its values and those around it."""
    if outer is None:
        return graph
    return Graph(
        graph.name,
        constants={**outer.constants, **graph.constants},
        types={**outer.types, **graph.types},
    )


def context(graph: Graph, node: Node, outer: Graph | None = None) -> OpContext:
    """What a node's operator may know: operand types and constant data, result types if known.

    outer: the values around a region, as `enclosing` gives them.
    """

    def type_of(name: str) -> TensorType | None:
        if not name:
            return None
        found = graph.types.get(name)
        return outer.types.get(name) if found is None and outer is not None else found

    def constant_of(name: str) -> np.ndarray[Any, Any] | None:
        found = graph.constants.get(name)
        if found is None and outer is not None and name not in graph.types:
            return outer.constants.get(name)
        return found

    def fresh_symbol(base: str, hi: int | None = None) -> Size:
        owner = next((o for o in node.outputs if o), node.op)
        return sym(f"{owner}.{base}", 0, hi)

    def infer_region(i: int, types: Sequence[TensorType]) -> list[TensorType]:
        return infer_region_types(node.regions[i], types, enclosing(graph, outer))

    known = registry.find(node.op)
    defaults = known.attributes if known is not None else {}
    return OpContext(
        op=node.op,
        attrs={**{k: v for k, v in defaults.items() if v is not REQUIRED}, **dict(node.attrs)},
        types=tuple(type_of(i) for i in node.inputs),
        constants=tuple(constant_of(i) for i in node.inputs),
        outputs=tuple(graph.types[o] for o in node.outputs if o in graph.types),
        n_outputs=len(node.outputs),
        node=", ".join(node.origin) or ", ".join(node.outputs),
        fresh_symbol=fresh_symbol,
        regions=node.regions,
        infer_region=infer_region,
    )


def infer_region_types(
    region: Graph, types: Sequence[TensorType], outer: Graph
) -> list[TensorType]:
    """Gives a region's inputs these types, infers its values, and returns its results' types.

    The region's own table of types is rewritten.
    """
    for name, t in zip(region.inputs, types, strict=True):
        region.types[name] = t
    infer(region, outer)
    return [region.types.get(o) or outer.types[o] for o in region.outputs]


def result_types(ctx: OpContext) -> list[TensorType]:
    """The operator's rule applied to `ctx`: one type for each result.

    Raises OperatorError where the operands do not fit, also where the rule itself stumbles on them.
    """
    op = registry.get(ctx.op)
    try:
        types = list(op.infer(ctx))
    except OperatorError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        ctx.fail(f"{type(error).__name__}: {error}")
    if len(types) < ctx.n_outputs:
        ctx.fail(f"has {len(types)} results, not {ctx.n_outputs}")
    for t in types:
        for d in t.shape:
            if isinstance(d, int) and d < 0:
                ctx.fail(f"the result {t.without_value()} has a negative size")
        if (lo_of(t.nbytes) or 0) >= 2**63:
            ctx.fail(f"the result {t.without_value()} overflows the address space")
    return _computed(ctx, op, types)


def _computed(ctx: OpContext, op: registry.Operator, types: list[TensorType]) -> list[TensorType]:
    """Types with the contents of results whose operands are all known as numbers: what an
    operator's rule does not trace, its meaning tells."""
    missing = [t for t in types if t.value is None and trackable(t.dtype, t.shape)]
    results = evaluated(ctx, op, types) if missing else None
    if results is None:
        return types
    made = list(types)
    for n, (t, r) in enumerate(zip(types, results)):
        if t in missing and np.shape(r) == t.shape:
            made[n] = replace(t, value=tuple(int(x) for x in np.asarray(r).reshape(-1)))
    return made


def evaluated(
    ctx: OpContext, op: registry.Operator, types: Sequence[TensorType]
) -> Sequence[np.ndarray[Any, Any]] | None:
    """The results of an operator all of whose operands are known as few numbers; else None."""
    if not op.deterministic or op.has_regions or not ctx.types:
        return None
    operands = [None if t is None else _known(t, c) for t, c in zip(ctx.types, ctx.constants)]
    if any(a is None and t is not None for a, t in zip(operands, ctx.types)):
        return None
    try:
        return op.reference(replace(ctx, outputs=tuple(types)), *operands)
    except (AiccError, ArithmeticError, LookupError, ValueError):
        return None  # it fails again when the model runs, where the error belongs


def few_numbers(
    ctx: OpContext, op: registry.Operator, types: Sequence[TensorType]
) -> list[np.ndarray[Any, Any]] | None:
    """Results that are a few floating-point numbers known already: sizes are computed with them and
    types trace integers only. None where they are not."""
    counts = [t.count for t in types]
    few = all(isinstance(n, int) and n <= FEW_NUMBERS for n in counts)
    results = evaluated(ctx, op, types) if few and all(is_float(t.dtype) for t in types) else None
    if results is None:
        return None
    return [np.asarray(r, to_numpy(t.dtype)).reshape(t.shape) for t, r in zip(types, results)]


def _known(t: TensorType, data: np.ndarray[Any, Any] | None) -> np.ndarray[Any, Any] | None:
    """An operand's contents, where they are few numbers."""
    if data is not None:
        return data if data.size <= OPERAND_LIMIT else None
    numbers = t.value is not None and all(isinstance(x, int) for x in (*t.value, *t.shape))
    return np.array(t.value, to_numpy(t.dtype)).reshape(t.shape) if numbers else None


def infer_node(graph: Graph, node: Node, outer: Graph | None = None) -> None:
    """Records the result types of `node` in `graph.types`."""
    types = result_types(context(graph, node, outer))
    for name, t in zip(node.outputs, types, strict=False):
        if name:
            graph.types[name] = t


def infer(graph: Graph, outer: Graph | None = None) -> None:
    """Records the types of all nodes' results, in order; operands must be typed."""
    for node in graph.nodes:
        infer_node(graph, node, outer)
