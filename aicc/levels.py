"""What the pass loop can do with the objects of each level: print, parse, verify, evaluate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from aicc.dtypes import is_float, to_numpy
from aicc.graph_ir.evaluate import evaluate
from aicc.graph_ir.evaluate_module import evaluate_module
from aicc.graph_ir.graph import Graph
from aicc.graph_ir.module import Module
from aicc.graph_ir.module_text import parse_module, print_module
from aicc.graph_ir.text import INLINE_LIMIT, all_constants, parse_graph, print_graph
from aicc.graph_ir.verify import verify
from aicc.graph_ir.verify_module import verify_module
from aicc.passes import Level
from aicc.planned import Planned, verify_planned
from aicc.planned_evaluate import evaluate_planned
from aicc.planned_text import parse_planned, print_planned
from aicc.symbolic import evaluate as evaluate_size
from aicc.symbolic import symbols

Array = np.ndarray[Any, Any]


def _graph_of(level_object: Graph | Module) -> Graph:
    return level_object.graph if isinstance(level_object, Module) else level_object


def random_feed(level_object: Graph | Module, seed: int) -> dict[str, Array]:
    """Random inputs: normal floats, small non-negative integers; every symbol is a small size."""
    graph = _graph_of(level_object)
    rng = np.random.default_rng(seed)
    names = {s.name: s for n in graph.inputs for d in graph.types[n].shape for s in symbols(d)}
    sizes = {n: max(s.lo or 1, min(3, s.hi or 3)) for n, s in names.items()}
    feed: dict[str, Array] = {}
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


def _beside(constants: Mapping[str, Array]) -> dict[str, Array]:
    """The constants that a text gives only the hash of."""
    return {name: data for name, data in constants.items() if data.size > INLINE_LIMIT}


LEVELS: dict[type, Level] = {
    Graph: Level(
        "Graph",
        print_graph,
        verify,
        parse=parse_graph,
        data=lambda g: _beside(all_constants(g)),
        feed=random_feed,
        evaluate=lambda g, feed: list(evaluate(g, feed).values()),
    ),
    Module: Level(
        "Module",
        print_module,
        verify_module,
        parse=parse_module,
        data=lambda m: _beside(all_constants(m.graph)),
        feed=random_feed,
        evaluate=lambda m, feed: list(evaluate_module(m, feed).values()),
    ),
    Planned: Level(
        "Program",
        print_planned,
        verify_planned,
        parse=parse_planned,
        data=lambda p: _beside(all_constants(p.graph)),
        evaluate=lambda p, feed: list(evaluate_planned(p, feed).values()),
    ),
}
