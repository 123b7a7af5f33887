"""What the pass loop can do with the objects of each level: print, parse, verify, evaluate."""

from __future__ import annotations

from typing import Any

import numpy as np

from aicc.dtypes import is_float, to_numpy
from aicc.graph_ir.evaluate import evaluate
from aicc.graph_ir.graph import Graph
from aicc.graph_ir.module import Module
from aicc.graph_ir.text import parse_graph, print_graph
from aicc.graph_ir.verify import verify
from aicc.passes import Level
from aicc.symbolic import evaluate as evaluate_size
from aicc.symbolic import symbols


def _graph_of(level_object: Graph | Module) -> Graph:
    return level_object.graph if isinstance(level_object, Module) else level_object


def random_feed(level_object: Graph | Module, seed: int) -> dict[str, np.ndarray[Any, Any]]:
    """Random inputs: normal floats, small non-negative integers; every symbol is a small size."""
    graph = _graph_of(level_object)
    rng = np.random.default_rng(seed)
    names = {s.name: s for n in graph.inputs for d in graph.types[n].shape for s in symbols(d)}
    sizes = {n: max(s.lo or 1, min(3, s.hi or 3)) for n, s in names.items()}
    feed: dict[str, np.ndarray[Any, Any]] = {}
    for name in graph.inputs:
        t = graph.types[name]
        shape = tuple(evaluate_size(d, sizes) for d in t.shape)
        if is_float(t.dtype):
            feed[name] = rng.standard_normal(shape).astype(to_numpy(t.dtype))
        elif t.dtype == "str":
            feed[name] = np.full(shape, "a", object)
        else:
            feed[name] = rng.integers(0, 2, shape).astype(to_numpy(t.dtype))
    return feed


LEVELS: dict[type, Level] = {
    Graph: Level(
        "Graph",
        print_graph,
        verify,
        parse=lambda text, like: parse_graph(text, like.constants),
        feed=random_feed,
        evaluate=lambda g, feed: list(evaluate(g, feed).values()),
    ),
    Module: Level("Module", str, lambda m: None, feed=random_feed),
}
