"""What the order of a module's nodes costs in the arena: a problem for `aicc.memory.ordering`.

A value counts as the planner (`aicc.plan`) treats it: views lie in what they view, results may take
the memory of an operand that dies, what is joined is its parts, and what becomes an output lies in
the caller's array. Where that depends on the order, the problem has what costs less:

- Values that may lend their memory to an output count as the caller's.
- Parts of what is joined count from where they are computed on, the whole being there already for
  the planner; and they count once, where several joins have them.
- What may take the memory of a joined value counts as if it did.

So the least peak of this problem bounds the arena of every order from below.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import cache

from aicc.dtypes import nbytes
from aicc.graph_ir.graph import Node, reads
from aicc.graph_ir.module import CALL, Module
from aicc.graph_ir.places import copies, is_view, joined
from aicc.memory.order_problem import Problem
from aicc.memory.ordering import order
from aicc.memory.placement import round_up
from aicc.runtime.program import Program
from aicc.symbolic import Size, product
from aicc.tensor_ir.inplace import inplace_pairs

Pairs = tuple[tuple[int, int], ...]


def bounded(program: Program, module: Module, seconds: float) -> Program:
    """The program of a module, with what no order of its steps could do without. seconds: for the
    search, where it takes one."""
    problem = arena_problem(module) if program.arena is not None else None
    if problem is None or program.least is None:
        return program
    return replace(program, bound=min(program.least, order(problem, seconds).bound))


def arena_problem(module: Module) -> Problem | None:
    """The arena's values, written and read by the nodes of a module's graph, in its order.

    Sizes are bytes, rounded up as placement does. Views that nobody reads must be gone. None where
    a size is a symbol: then the program's arena is placed at run time. What host nodes make is
    Python's memory and counts nothing.
    """
    return _Reading(module).problem()


class _Reading:
    def __init__(self, module: Module) -> None:
        self.module = module
        self.graph = module.graph
        self.index: dict[str, int] = {}
        self.sizes: list[int] = []
        self.exact: list[int] = []
        self.roots: dict[str, tuple[str, ...]] = {}
        """For views and for what is joined: the values whose memory they are."""
        self.parts = self._parts()
        self.wholes: set[str] = set()
        self.numbers = True
        self.pairs = cache(lambda name: inplace_pairs(module.kernels[name]))

    def problem(self) -> Problem | None:
        writes: list[tuple[int, ...]] = []
        used: list[tuple[int, ...]] = []
        lends: list[Pairs] = []
        for node in self.graph.nodes:
            used.append(tuple(self._held(reads(node))))
            writes.append(tuple(self._made(node)))
            lends.append(self._lends(node, writes[-1]) if node.op == CALL else ())
        if not self.numbers:
            return None
        kept = frozenset(self._held(self.graph.outputs))
        self._outputs(lends)
        same = tuple(
            tuple((v, w) for v, w in pairs if self.sizes[v] == self.sizes[w]) for pairs in lends
        )
        return Problem(
            tuple(self.sizes), tuple(writes), tuple(used), kept, same if any(same) else ()
        )

    def _parts(self) -> set[str]:
        """Results that may be computed in the memory of what they are joined to."""
        made = {o for node in self.graph.nodes if node.op == CALL for o in node.outputs}
        joins = [node for node in self.graph.nodes if joined(self.graph, node) is not None]
        made |= {node.outputs[0] for node in joins}
        return {name for node in joins for name in node.inputs if name in made}

    def _held(self, values: Iterable[str]) -> dict[int, None]:
        """The values, what they are views of or joined of, and so on down to the memory."""
        found: dict[int, None] = {}
        todo = list(values)
        while todo:
            value = todo.pop()
            if value in self.index and self.index[value] not in found:
                found[self.index[value]] = None
                todo += self.roots.get(value, ())
        return found

    def _memory(self, value: str) -> str:
        """The value whose memory a view is; what is joined is its own."""
        while value in self.roots and value not in self.wholes:
            (value,) = self.roots[value]
        return value

    def _made(self, node: Node) -> list[int]:
        if node.op == CALL:
            params = [b for b in self.module.kernel_of(node).params if b.scope == "out"]
            return [
                self._value(name, product(self._shape(name, b.shape)) * nbytes(b.dtype))
                for name, b in zip(node.outputs, params)
            ]
        if is_view(node):
            self.roots[node.outputs[0]] = (node.inputs[0],)
            return [self._value(node.outputs[0], 0)]
        if joined(self.graph, node) is not None:
            return [self._join(node)]
        if copies(node):
            return [self._value(node.outputs[0], self.graph.types[node.outputs[0]].nbytes)]
        return [self._value(name, 0) for name in node.outputs if name]

    def _join(self, node: Node) -> int:
        """What is joined takes as much as its parts leave of it."""
        (result,) = node.outputs
        parts = [v for v in dict.fromkeys(node.inputs) if v in self.parts]
        size = self.graph.types[result].nbytes
        made = self._value(result, size)
        if isinstance(size, int):
            whole = size if result in self.parts else round_up(size)
            self.sizes[made] = max(0, whole - sum(self.exact[self.index[v]] for v in parts))
        self.wholes.add(result)
        self.roots[result] = tuple(parts)
        return made

    def _shape(self, name: str, declared: tuple[Size, ...]) -> tuple[Size, ...]:
        known = self.graph.types.get(name)
        return declared if known is None else known.shape

    def _value(self, name: str, size: Size) -> int:
        if not isinstance(size, int):
            self.numbers, size = False, 0
        self.exact.append(size)
        self.sizes.append(size if name in self.parts else round_up(size))
        if name:
            self.index[name] = len(self.sizes) - 1
        return len(self.sizes) - 1

    def _lends(self, node: Node, made: tuple[int, ...]) -> Pairs:
        """Operands, as the values whose memory they are, and the results that may lie there."""
        kernel = self.module.kernel_of(node)
        allowed = self.pairs(kernel.name)
        ins = [b.name for b in kernel.params if b.scope != "out"]
        outs = [b.name for b in kernel.params if b.scope == "out"]
        memories = [self._memory(name) for name in node.inputs]
        found: list[tuple[int, int]] = []
        for result, name, w in zip(outs, node.outputs, made):
            for memory in dict.fromkeys(m for m in memories if m in self.index):
                v = self.index[memory]
                uses = [p for p, m in zip(ins, memories) if m == memory]
                if name in self.parts or self.exact[v] != self.exact[w]:
                    continue
                if not all((p, result) in allowed for p in uses):
                    continue
                if memory in self.wholes:
                    self.sizes[w] = 0
                    self.roots.setdefault(name, (memory,))
                else:
                    found.append((v, w))
        return tuple(found)

    def _outputs(self, lends: list[Pairs]) -> None:
        """What becomes an output takes no memory of the arena, nor does what it may lie in."""
        free: set[int] = set()
        for name in self.graph.outputs:
            memory = self._memory(name)
            if memory in self.index and (
                self.graph.types[memory].nbytes == self.graph.types[name].nbytes
            ):
                free |= self._held([memory]).keys()
        for pairs in reversed(lends):
            free |= {v for v, w in pairs if w in free}
        for v in free:
            self.sizes[v] = 0
