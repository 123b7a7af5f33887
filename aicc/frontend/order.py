"""The order of a graph's nodes: ONNX asks for a topological one; any acyclic one is accepted."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence

import onnx

from aicc.errors import ModelError

_LISTED = 8


def ordered(
    nodes: Sequence[onnx.NodeProto], known: Callable[[str], bool], where: str
) -> list[onnx.NodeProto]:
    """The nodes such that each value is defined before it is used; as they are, where they are.

    known: whether a value is defined before the first node. Raises ModelError naming `where`: a
    value that nothing defines, or a cycle.
    """
    wanted = [list(dict.fromkeys(reads(n))) for n in nodes]
    defined: set[str] = set()
    for node, names in zip(nodes, wanted):
        if not all(name in defined or known(name) for name in names):
            break
        defined.update(node.output)
    else:
        return list(nodes)
    return _sorted(nodes, wanted, known, where)


def _sorted(
    nodes: Sequence[onnx.NodeProto],
    wanted: list[list[str]],
    known: Callable[[str], bool],
    where: str,
) -> list[onnx.NodeProto]:
    producer: dict[str, int] = {}
    for i, node in enumerate(nodes):
        for o in node.output:
            producer.setdefault(o, i)
    missing = [
        f"{name!r}, which node {node_name(nodes[i], i)!r} reads"
        for i, names in enumerate(wanted)
        for name in names
        if name not in producer and not known(name)
    ]
    if missing:
        listed = "; ".join(missing[:_LISTED])
        more = f"; and {len(missing) - _LISTED} more" if len(missing) > _LISTED else ""
        raise ModelError(f"{where}: nothing defines the value {listed}{more}")
    before = [{producer[n] for n in names if n in producer} for names in wanted]
    after: list[list[int]] = [[] for _ in nodes]
    for i, producers in enumerate(before):
        for p in producers:
            after[p].append(i)
    waiting = [len(producers) for producers in before]
    ready = [i for i, n in enumerate(waiting) if n == 0]
    result = []
    while ready:
        i = heapq.heappop(ready)
        result.append(nodes[i])
        for j in after[i]:
            waiting[j] -= 1
            if waiting[j] == 0:
                heapq.heappush(ready, j)
    if len(result) < len(nodes):
        path = _cycle(before, waiting)
        names = " -> ".join(repr(node_name(nodes[i], i)) for i in path)
        raise ModelError(f"{where}: the nodes form a cycle: {names}")
    return result


def _cycle(before: list[set[int]], waiting: list[int]) -> list[int]:
    """One cycle in the order in which values flow, its first node repeated at the end."""
    at = next(i for i, n in enumerate(waiting) if n)
    path: list[int] = []
    while at not in path:
        path.append(at)
        at = min(p for p in before[at] if waiting[p])
    return [at, *reversed(path[path.index(at) :])]


def reads(node: onnx.NodeProto) -> Iterator[str]:
    """Values that a node uses: its operands, and what its subgraphs take from around them."""
    yield from (name for name in node.input if name)
    for a in node.attribute:
        if a.HasField("g"):
            yield from captures(a.g)
        for g in a.graphs:
            yield from captures(g)


def captures(graph: onnx.GraphProto) -> Iterator[str]:
    """Values that a subgraph uses and does not define itself."""
    own = {v.name for v in graph.input} | {t.name for t in graph.initializer}
    for node in graph.node:
        own.update(node.output)
    for node in graph.node:
        yield from (name for name in reads(node) if name not in own)
    yield from (v.name for v in graph.output if v.name not in own)


def node_name(node: onnx.NodeProto, position: int) -> str:
    """What messages call a node: its name, else its first result, else operator and position."""
    return node.name or next((o for o in node.output if o), f"{node.op_type}#{position}")
