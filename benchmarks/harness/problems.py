"""The memory problems in problems/, as `aicc.memory` takes them."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path

from aicc.memory.order_problem import Problem
from aicc.memory.placement import Buffer

FOLDER = Path(__file__).resolve().parent.parent / "problems"
CAPACITY = 1 << 20
"""Bytes into which each of MiniMalloc's problems fits."""


@dataclass(frozen=True)
class OrderGraph:
    """A graph to be ordered. optimum: the least peak over all orders, bytes."""

    name: str
    problem: Problem
    optimum: int


def order_graphs() -> list[OrderGraph]:
    """All of problems/order."""
    found = []
    for path in sorted((FOLDER / "order").glob("*.json")):
        told = json.loads(path.read_text())
        nodes = told["nodes"]
        problem = Problem.of_nodes([n["bytes"] for n in nodes], [n["preds"] for n in nodes])
        found.append(OrderGraph(path.stem, problem, told["optimal_peak"]))
    return found


def spans(folder: str) -> dict[str, list[Buffer]]:
    """The buffers of each file in problems/placement or problems/usage."""
    found: dict[str, list[Buffer]] = {}
    for path in sorted((FOLDER / folder).glob("*.csv")):
        with path.open(newline="") as file:
            found[path.stem] = [
                Buffer(int(row["size"]), int(row["lower"]), int(row["upper"]) - 1)
                for row in csv.DictReader(file)
            ]
    return found


def reverse_post_order(graph: OrderGraph) -> list[int]:
    """The reverse of the order in which a depth-first walk from the sources leaves the nodes: what
    compilers use that do not look at bytes."""
    problem = graph.problem
    seen = [False] * problem.count
    left: list[int] = []
    for source in range(problem.count):
        if problem.preds[source] or seen[source]:
            continue
        seen[source] = True
        stack = [(source, iter(problem.succs[source]))]
        while stack:
            node, rest = stack[-1]
            following = next((n for n in rest if not seen[n]), None)
            if following is None:
                left.append(node)
                stack.pop()
            else:
                seen[following] = True
                stack.append((following, iter(problem.succs[following])))
    return left[::-1]
