"""The graph-level oracle: every node's `reference` in numpy, one after the other.

It defines what a graph means. Tests, AICC_CHECK=3 and host operators use it. Operators see concrete
types here, those of the arrays; If, Loop and Scan run their regions through `ctx.run_region`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from aicc import symbolic
from aicc.dtypes import from_numpy, to_numpy
from aicc.errors import AiccError, ExecutionError, InputError, IRError
from aicc.graph_ir.graph import Graph, Node, reads
from aicc.graph_ir.infer import constant_type, context, result_types
from aicc.graph_ir.types import TensorType
from aicc.ops import registry
from aicc.ops.registry import OpContext
from aicc.symbolic import Size, Sym

Array = np.ndarray[Any, Any]


def evaluate(
    graph: Graph,
    feed: Mapping[str, Array],
    wanted: Sequence[str] | None = None,
    check: bool = True,
) -> dict[str, Array]:
    """Runs a graph in numpy.

    feed: an array for each input. wanted: values to return, by default the outputs; any value of
    the graph itself (not of its regions) may be asked for. check: compare the results with the
    types that the graph records.

    Raises InputError where the feed does not fit the inputs, ExecutionError where a node's
    reference refuses its data, IRError where a result has another type than inferred.
    """
    names = list(graph.outputs if wanted is None else wanted)
    run = _Run(graph, None, check, frozenset(names))
    check_feed(graph, feed, run.sizes)
    run.values.update({n: np.ascontiguousarray(a) for n, a in feed.items() if n in graph.inputs})
    for name, data in feed.items():  # ascontiguousarray makes a scalar one-dimensional
        run.values[name] = run.values[name].reshape(np.shape(data))
    run.nodes()
    missing = [n for n in names if n not in run.values]
    if missing:
        raise InputError(f"the graph {graph.name!r} has no value {missing[0]!r}")
    return {n: run.values[n] for n in names}


def run_node(ctx: OpContext, inputs: Sequence[Array | None]) -> list[Array]:
    """One operator's reference on arrays. Raises ExecutionError naming the node."""
    op = registry.get(ctx.op)
    try:
        with np.errstate(all="ignore"):
            results = op.reference(ctx, *inputs)
    except AiccError:
        raise
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        shapes = ", ".join("_" if a is None else f"{a.dtype}{list(a.shape)}" for a in inputs)
        raise ExecutionError(f"node {ctx.node!r}: {ctx.op}({shapes}): {error}") from error
    return [np.asarray(r) for r in results]


def concrete_context(
    ctx: OpContext, inputs: Sequence[Array | None], sizes: Mapping[str, int]
) -> OpContext:
    """`ctx` with the types of the actual operands, and of the results as far as sizes are known.

    sizes: the values of symbols. A result's size that only the run tells stays a symbol.
    """
    types = tuple(None if a is None else constant_type(a) for a in inputs)
    known = replace(ctx, types=types)
    if ctx.regions:
        outputs: Sequence[TensorType] = [_with_sizes(t, sizes) for t in ctx.outputs]
    else:
        outputs = result_types(known)
    return replace(known, outputs=tuple(outputs))


def _with_sizes(t: TensorType, sizes: Mapping[str, int]) -> TensorType:
    def number(s: Size) -> Size:
        try:
            return symbolic.evaluate(s, sizes)
        except KeyError:
            return s

    return TensorType(t.dtype, tuple(number(s) for s in t.shape))


class _Run:
    """The execution of one graph, or of one iteration of a region."""

    def __init__(self, graph: Graph, outer: _Run | None, check: bool, kept: frozenset[str]) -> None:
        self.graph = graph
        self.outer = outer
        self.check = check
        self.values: dict[str, Array] = dict(graph.constants)
        self.sizes: dict[str, int] = {} if outer is None else dict(outer.sizes)
        self.kept = kept | graph.constants.keys()

    def lookup(self, name: str) -> Array:
        run: _Run | None = self
        while run is not None:
            if name in run.values:
                return run.values[name]
            run = run.outer
        raise IRError(
            f"graph {self.graph.name!r}: the value {name!r} is not defined before its use"
        )

    def scope(self) -> Graph | None:
        """Types and constants around this graph's nodes."""
        if self.outer is None:
            return None
        types: dict[str, TensorType] = {}
        constants: dict[str, Array] = {}
        run: _Run | None = self.outer
        while run is not None:
            types = {**run.graph.types, **types}
            constants = {**run.graph.constants, **constants}
            run = run.outer
        return Graph("outer", types=types, constants=constants)

    def nodes(self) -> None:
        last: dict[str, int] = {}
        for i, node in enumerate(self.graph.nodes):
            last.update(dict.fromkeys(reads(node), i))
        around = self.scope()
        for i, node in enumerate(self.graph.nodes):
            self.node(node, around)
            for name in {*reads(node), *node.outputs}:
                if name and name not in self.kept and last.get(name, i) <= i:
                    self.values.pop(name, None)

    def node(self, node: Node, around: Graph | None) -> None:
        inputs = [self.lookup(n) if n else None for n in node.inputs]
        ctx = context(self.graph, node, around)
        ctx = concrete_context(ctx, inputs, self.sizes)
        ctx = replace(ctx, run_region=lambda i, arrays: self.region(node.regions[i], arrays))
        results = run_node(ctx, inputs)
        if len(results) < len(node.outputs):
            raise IRError(f"node {ctx.node!r}: {node.op} gave {len(results)} results")
        for name, data in zip(node.outputs, results):
            if name:
                self.values[name] = data
                if self.check and name in self.graph.types:
                    what = f"node {ctx.node!r}: {node.op} gave for {name!r}"
                    learn_sizes(data, self.graph.types[name], self.sizes, what)

    def region(self, region: Graph, arrays: Sequence[Array]) -> list[Array]:
        """Executes a region once, with these values of its inputs."""
        inner = _Run(region, self, self.check, frozenset(region.outputs))
        # Symbols bound inside belong to this execution: a loop's next iteration has its own.
        for name, data in zip(region.inputs, arrays, strict=True):
            inner.values[name] = np.asarray(data)
            if self.check:
                what = f"region {region.name!r} was given for {name!r}"
                learn_sizes(inner.values[name], region.types[name], inner.sizes, what)
        inner.nodes()
        return [inner.lookup(n) for n in region.outputs]


def check_feed(graph: Graph, feed: Mapping[str, Array], sizes: dict[str, int]) -> None:
    """Raises InputError where the feed does not fit the graph's inputs; adds to `sizes`."""
    wrong = [f"missing {n!r}" for n in graph.inputs if n not in feed]
    wrong += [f"unknown {n!r}" for n in feed if n not in graph.inputs]
    if wrong:
        raise InputError(f"inputs: {', '.join(wrong)}; the graph has {', '.join(graph.inputs)}")
    for name in graph.inputs:
        try:
            learn_sizes(np.asarray(feed[name]), graph.types[name], sizes, f"input {name!r}")
        except IRError as error:
            raise InputError(str(error)) from None


def learn_sizes(data: Array, t: TensorType, sizes: dict[str, int], what: str) -> None:
    """Raises IRError where `data` is not of type `t`. A symbol that has no value yet gets one."""
    found = f"{_dtype_name(data)}{list(data.shape)}"
    if data.dtype != to_numpy(t.dtype) or data.ndim != t.rank:
        raise IRError(f"{what} {found}, not {t.without_value()}")
    for size, actual in zip(t.shape, data.shape):
        own = _own_symbol(size)
        if own is not None and own.name not in sizes:
            low, high = own.lo, own.hi
            if (low is not None and actual < low) or (high is not None and actual > high):
                raise IRError(f"{what} {found}: {own.name!r} is in {low}..{high}")
            sizes[own.name] = actual
            continue
        try:
            expected = symbolic.evaluate(size, sizes)
        except KeyError:
            continue  # a size that only the run tells, behind an expression
        if expected != actual:
            bound = {s.name: sizes[s.name] for s in symbolic.symbols(size)}
            where = f" with {bound}" if bound else ""
            raise IRError(f"{what} {found}, not {t.without_value()}{where}")


def _dtype_name(data: Array) -> str:
    try:
        return from_numpy(data.dtype)
    except KeyError:
        return str(data.dtype)


def _own_symbol(size: Size) -> Sym | None:
    """The symbol that a size is, where it is nothing but one."""
    if isinstance(size, int) or len(size.terms) != 1 or size.const:
        return None
    monomial, factor = size.terms[0]
    only = monomial[0]
    return only if factor == 1 and len(monomial) == 1 and isinstance(only, Sym) else None
