"""What a module means: its kernels in the interpreter, every other node by its reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from aicc.dtypes import from_numpy, to_numpy
from aicc.errors import ExecutionError
from aicc.graph_ir.evaluate import check_feed, evaluate, learn_sizes
from aicc.graph_ir.graph import Graph, Node, reads
from aicc.graph_ir.module import CALL, Module
from aicc.graph_ir.types import TensorType
from aicc.symbolic import Size
from aicc.symbolic import evaluate as evaluate_size
from aicc.tensor_ir.interp import run
from aicc.tensor_ir.packing import pack_array

Array = np.ndarray[Any, Any]


def evaluate_module(module: Module, feed: Mapping[str, Array]) -> dict[str, Array]:
    """The module's outputs by name, for an array for each input.

    Raises InputError where the feed does not fit, ExecutionError where a check in a kernel fails or
    a reference refuses its data, and IRError where a kernel or a type is wrong.
    """
    graph = module.graph
    sizes: dict[str, int] = {}
    check_feed(graph, feed, sizes)
    values: dict[str, Array] = {**graph.constants, **feed}
    last = {name: n for n, node in enumerate(graph.nodes) for name in reads(node)}
    kept = {*graph.outputs, *graph.constants}
    for n, node in enumerate(graph.nodes):
        if node.op == CALL:
            made = _call(module, node, values, sizes)
        else:
            made = evaluate_node(graph, node, values)
        for name, array in made.items():
            learn_sizes(array, graph.types[name], sizes, f"the value {name!r} is")
            values[name] = array
        for name in {*reads(node), *made}:
            if name not in kept and last.get(name, n) <= n:
                values.pop(name, None)
    return {name: values[name] for name in graph.outputs}


def _call(
    module: Module, node: Node, values: Mapping[str, Array], sizes: Mapping[str, int]
) -> dict[str, Array]:
    kernel = module.kernel_of(node)
    operands, results = iter(node.inputs), iter(node.outputs)
    arrays: dict[str, Array] = {}
    made: dict[str, Array] = {}
    for b in kernel.params:
        if b.scope == "out":
            arrays[b.name] = np.zeros(_shape(b.shape, sizes), to_numpy(b.dtype))
            name = next(results)
            if name:
                shape = _shape(module.graph.types[name].shape, sizes)
                made[name] = arrays[b.name].reshape(shape)
        else:
            data = values[next(operands)]
            data = pack_array(data, b.pack) if b.pack else np.ascontiguousarray(data)
            arrays[b.name] = data.reshape(_shape(b.shape, sizes))
    try:
        run(kernel, arrays, sizes)
    except ExecutionError as error:
        names = ", ".join(node.origin)
        if not names or str(error).startswith(names):
            raise
        raise ExecutionError(f"node {names!r}: {error}") from None
    return made


def _shape(shape: Sequence[Size], sizes: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(evaluate_size(d, sizes) for d in shape)


def evaluate_node(graph: Graph, node: Node, values: Mapping[str, Array]) -> dict[str, Array]:
    """A node's results by name, by its operator's reference. values: arrays of what the node and
    its regions read, by name, and of others."""
    used = list(dict.fromkeys(reads(node)))
    alone = Graph(
        graph.name,
        inputs=used,
        outputs=[o for o in node.outputs if o],
        nodes=[node],
        types={
            **{o: graph.types[o] for o in node.outputs if o},
            **{n: _type_of(values[n]) for n in used},
        },
    )
    return evaluate(alone, {n: values[n] for n in used}, check=False)


def _type_of(array: Array) -> TensorType:
    dtype = "str" if array.dtype.kind in "OUST" else from_numpy(array.dtype)
    return TensorType(dtype, tuple(array.shape))
