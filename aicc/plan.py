"""From the module to the program: constants packed into one block, buffers placed, steps listed.

    %h = call(%x, @w) {kernel=k0}          call @k0 (x, w) -> (h)
    %r = Reshape(%h, @shape)         ->    view r of h + 0
    %y = call(%r) {kernel=k1}              call @k1 (r) -> (y)         y in h's memory, or h in y's

- A view operator's result is its operand's memory, or a part of it.
- A join's result is one buffer that kernels write their parts of: what they compute for it has no
  memory of its own. What lies elsewhere is copied.
- A call's result takes the memory of an operand that nobody reads later, where the kernel reads
  each element before it writes the element in its place (`tensor_ir.inplace`).
- What becomes an output of the model is written into the caller's array at once; outputs that are
  inputs, constants or written already are copied.
- The rest lies in one arena, placed by `memory.placement`; where a size is a symbol, at run time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from aicc.constant_block import ConstantBlock
from aicc.dtypes import nbytes
from aicc.errors import IRError, MemoryBudgetError, UnsupportedError
from aicc.graph_ir.graph import Node, reads
from aicc.graph_ir.module import CALL, Module
from aicc.graph_ir.passes.memory_problem import least_arena
from aicc.graph_ir.places import Places, copies, counted, is_view, joined
from aicc.graph_ir.types import TensorType
from aicc.memory import placement
from aicc.memory.budget import show_bytes
from aicc.planned import Planned, host_graph, host_operands
from aicc.runtime.program import Buffer, Call, Copy, Host, Program, Read, SizeSource, Step, Work
from aicc.symbolic import Dim, Size, Sym, product, symbols
from aicc.tensor_ir.inplace import inplace_pairs
from aicc.tensor_ir.ir import For, Kernel
from aicc.tensor_ir.strides import normal_pitch, row_major
from aicc.tensor_ir.walk import walk_stmts


def plan(module: Module, seconds: float = 0.0) -> Planned:
    """The program of a module, in the order of its nodes. seconds: for the bound of other orders.

    Raises UnsupportedError where a size of the model can be read nowhere, and IRError where the
    module is not consistent.
    """
    planner = _Planner(module)
    planner.nodes()
    planner.outputs()
    program = planner.finish()
    if program.least is not None and (bound := least_arena(module, seconds)) is not None:
        program = replace(program, bound=min(program.least, bound))
    used = {s.kernel for s in program.steps if isinstance(s, Call)}
    sources = planner.constants.sources()
    return Planned(
        program,
        {name: k for name, k in module.kernels.items() if name in used},
        host_graph(module.graph, planner.hosts, [s.constant for s in sources.values()]),
        sources,
    )


@dataclass(frozen=True)
class Plan:
    """Module -> Planned: buffers get their places, calls become steps.

    budget: the most bytes that the arena may take; raises MemoryBudgetError where it takes more.
    bound_seconds: for the search of the bytes that any order of the calls takes.
    """

    budget: int | None = None
    bound_seconds: float = 0.5

    name: ClassVar[str] = "plan"

    def __call__(self, module: Module) -> Planned:
        planned = plan(module, self.bound_seconds)
        arena = planned.program.arena
        if self.budget is not None and arena is not None and arena > self.budget:
            what = f"{planned.program.name!r} takes {show_bytes(arena)} between its kernels"
            text = f"{what}, the memory budget is {show_bytes(self.budget)}"
            raise MemoryBudgetError(text, self.budget, arena)
        return planned


# --- steps ----------------------------------------------------------------------------------------


class _Planner:
    def __init__(self, module: Module) -> None:
        self.module = module
        self.graph = module.graph
        self.constants = ConstantBlock(module.graph)
        self.buffers: dict[str, Buffer] = {}
        self.steps: list[Step] = []
        self.hosts: list[Node] = []
        self.ports: list[tuple[str, str]] = []
        self.sizes: dict[str, SizeSource] = {}
        self.phase: dict[str, int] = {}
        self.mosts: dict[str, Size] = {}
        self.now = 0
        self.last_read = self._last_reads()
        computed = {o for node in self.graph.nodes if node.op == CALL for o in node.outputs}
        self.places = Places(self.graph, computed)
        self.pairs: dict[str, frozenset[tuple[str, str]]] = {}
        for name in self.graph.inputs:
            t = self.graph.types[name]
            at = len(self.buffers)
            self.buffers[name] = Buffer(name, t.dtype, t.shape, "input", at)
        for name in self.graph.inputs:
            self._bind(name)
        for name in self.graph.inputs:
            self._require(self.graph.types[name], f"input {name!r}")

    def _last_reads(self) -> dict[str, int]:
        """The position of the node that reads each value last, its views' readers included."""
        last: dict[str, int] = {}
        for n, node in enumerate(self.graph.nodes):
            last.update((name, n) for name in reads(node))
        for name in self.graph.outputs:
            last[name] = len(self.graph.nodes)
        for node in reversed(self.graph.nodes):
            if is_view(node) and node.inputs[0]:
                end = max(last.get(node.outputs[0], -1), last[node.inputs[0]])
                last[node.inputs[0]] = end
        return last

    # sizes

    def _bind(self, name: str) -> None:
        """Symbols that stand alone as an extent of a buffer are read from there."""
        for axis, d in enumerate(self.buffers[name].shape):
            s = _symbol(d)
            if s is not None and s.name not in self.sizes:
                self.sizes[s.name] = SizeSource(s, name, axis)
                self.phase[s.name] = self.now

    def _missing(self, t: TensorType) -> list[Sym]:
        return [s for d in t.shape for s in symbols(d) if s.name not in self.sizes]

    def _require(self, t: TensorType, what: str) -> None:
        missing = self._missing(t)
        if missing:
            raise UnsupportedError(
                f"{what} has the type {t.without_value()}; no input and no host operator before "
                f"tells the size {', '.join(s.name for s in missing)}"
            )

    def _phase_of(self, b: Buffer) -> int:
        return max((self.phase[s.name] for d in b.shape for s in symbols(d)), default=0)

    # values

    def root(self, name: str) -> Buffer:
        b = self.buffers[name]
        return self.buffers[b.root] if b.space == "view" else b

    def operand(self, name: str, layout: str = "") -> str:
        """The buffer that holds a value."""
        if name in self.graph.constants:
            b = self.constants.buffer(name, layout)
            self.buffers.setdefault(b.name, b)
            return b.name
        if name not in self.buffers:
            raise IRError(f"graph {self.graph.name!r}: {name!r} is used before it is defined")
        return name

    def nodes(self) -> None:
        """A step for every node but views, which become views of buffers."""
        for position, node in enumerate(self.graph.nodes):
            self.position = position
            if node.op == CALL:
                self._call(node)
                continue
            if (operand := counted(node)) is not None:
                self._read(node, operand)
            if self.places.is_alias(node) and self._view(node):
                continue
            elif joined(self.graph, node) is not None:
                self._join(node)
            elif copies(node):
                self._copy(node.inputs[0], self._made(node.outputs[0]), node)
            else:
                self._host(node)

    def _view(self, node: Node) -> bool:
        source, result = node.inputs[0], node.outputs[0]
        t = self.graph.types[result]
        if self._missing(t):
            return False
        held = self.buffers[self.operand(source)]
        root = self.root(held.name)
        if root.dtype != t.dtype:
            return False
        before, here = self.places.place(source), self.places.place(result)
        at = self._start(held) + (here.start - before.start) * nbytes(t.dtype)
        self.buffers[result] = Buffer(
            result, t.dtype, t.shape, "view", at, root.name, pitch=here.pitch
        )
        return True

    def _read(self, node: Node, operand: int) -> None:
        """A number that was computed becomes the result's first extent."""
        first = _symbol(self.graph.types[node.outputs[0]].shape[0])
        if first is None or first.name in self.sizes:
            return
        buffer, number = self.operand(node.inputs[operand]), len(self.steps)
        most = self.graph.types[node.inputs[0]].shape[0]
        known = [s.sym.name for s in self.sizes.values() if s.axis is None and s.buffer == buffer]
        if known and self.mosts[buffer] != most:
            raise IRError(f"node {_title(node)}: {buffer!r} counts elements of two axes")
        if not known:
            self._touch(buffer, number)
            self.steps.append(Read(buffer, most, node.origin))
            self.mosts[buffer] = most
            self.now = number + 1
        self.sizes[first.name] = SizeSource(first, buffer, None)
        self.phase[first.name] = self.phase[known[0]] if known else self.now

    @staticmethod
    def _start(b: Buffer) -> int:
        """The byte in its root at which a buffer starts."""
        return (b.at or 0) if b.space == "view" else 0

    def _made(self, name: str) -> Buffer:
        """The buffer for a result of the next step: memory of its own, or a part of what it is
        joined to, which lives from its first part on."""
        t = self.graph.types[name]
        number = len(self.steps)
        here = self.places.place(name)
        whole = here.root
        if whole == name:
            return Buffer(name, t.dtype, t.shape, "arena", None, "", number, number)
        if whole not in self.buffers:
            shape = self.graph.types[whole].shape
            self.buffers[whole] = Buffer(whole, t.dtype, shape, "arena", None, "", number, number)
        self._touch(whole, number)
        at = here.start * nbytes(t.dtype)
        return Buffer(name, t.dtype, t.shape, "view", at, whole, pitch=here.pitch)

    def _join(self, node: Node) -> None:
        """Copies the operands that are not in place yet."""
        (result,) = node.outputs
        starts = joined(self.graph, node)
        assert starts is not None
        if result not in self.buffers:
            self.buffers[result] = self._made(result)
        held = self.buffers[result]
        for n, (name, start) in enumerate(zip(node.inputs, starts, strict=True)):
            t = self.graph.types[name]
            at = start * nbytes(t.dtype)
            if t.count == 0 or self.places.home.get(name) == (result, start):
                continue
            if self._pitched(name, result):
                raise IRError(f"node {_title(node)}: {name!r} is not computed in its place")
            part = f"{result}.part{n}"
            while part in self.buffers or part in self.graph.types:
                part += "t"
            root = self.root(result)
            at += self._start(held)
            self._copy(name, Buffer(part, t.dtype, t.shape, "view", at, root.name), node)

    def _pitched(self, part: str, result: str) -> bool:
        """Whether a part of a join does not lie side by side there, or where it is."""
        at = self.places.place(result)
        strides = at.pitch or row_major(self.graph.types[result].shape)
        there = normal_pitch(self.graph.types[part].shape, strides)
        return bool(there or self.places.place(part).pitch)

    def _copy(self, source: str, target: Buffer, node: Node) -> None:
        number = len(self.steps)
        operand = self.operand(source)
        self._touch(operand, number)
        self.buffers[target.name] = target
        self._touch(target.name, number)
        self.steps.append(Copy(operand, target.name, node.origin))

    def _call(self, node: Node) -> None:
        kernel = self.module.kernel_of(node)
        number = len(self.steps)
        ins = [b for b in kernel.params if b.scope != "out"]
        outs = [b for b in kernel.params if b.scope == "out"]
        if len(ins) != len(node.inputs) or len(outs) != len(node.outputs):
            raise IRError(
                f"node {_title(node)}: @{kernel.name} has {len(ins)} operands and {len(outs)} "
                f"results, not {len(node.inputs)} and {len(node.outputs)}"
            )
        operands = []
        for b, name in zip(ins, node.inputs):
            if b.pack and name not in self.graph.constants:
                raise IRError(f"node {_title(node)}: {name!r} is packed, but is no constant")
            operands.append(self.operand(name, b.pack))
            held = self.buffers[operands[-1]]
            if held.dtype != b.dtype or product(held.shape) != product(b.shape):
                raise IRError(
                    f"node {_title(node)}: {name!r} is {held.dtype}{list(held.shape)} in memory, "
                    f"@{kernel.name} takes {b.dtype}{list(b.shape)}"
                )
        for name in operands:
            self._touch(name, number)
        results: list[str] = []
        for n, (b, name) in enumerate(zip(outs, node.outputs)):
            name = name or f"{node.outputs[0] or kernel.name}.unused{n}"
            shape = self.graph.types[name].shape if name in self.graph.types else b.shape
            self._require(TensorType(b.dtype, shape), f"node {_title(node)}: result {name!r}")
            if name in self.places.home:
                made = self._made(name)
            else:
                made = Buffer(name, b.dtype, shape, "arena", None, "", number, number)
                lender = self._lender(node, ins, operands, b.name, made, results)
                if lender is not None:
                    made = replace(made, space="view", at=0, root=lender, first=-1, last=-1)
            self.buffers[name] = made
            results.append(name)
        names = tuple(s.name for s in kernel.sizes)
        work = _work(node, kernel)
        self.steps.append(
            Call(kernel.name, tuple(operands), tuple(results), names, node.origin, work)
        )

    def _touch(self, name: str, number: int) -> None:
        root = self.root(name)
        if root.space == "arena":
            self.buffers[root.name] = replace(root, last=max(root.last, number))

    def _lender(
        self,
        node: Node,
        ins: list[Any],
        operands: list[str],
        out: str,
        made: Buffer,
        results: list[str],
    ) -> str | None:
        """The arena buffer that dies in this call and may hold the result."""
        kernel = node.attr("kernel")
        if kernel not in self.pairs:
            self.pairs[kernel] = inplace_pairs(self.module.kernels[kernel])
        pairs = self.pairs[kernel]
        taken = {self.root(r).name for r in results}
        for b, name in zip(ins, operands):
            root = self.root(name)
            if root.space != "arena" or root.name in taken or (b.name, out) not in pairs:
                continue
            if self._dies_at(root.name) > self.position or root.nbytes != made.nbytes:
                continue
            if self._phase_of(root) != self._phase_of(made):
                continue
            uses = [p for p, o in zip(ins, operands) if self.root(o).name == root.name]
            if all((p.name, out) in pairs for p in uses):
                return root.name
        return None

    def _dies_at(self, root: str) -> int:
        """The position of the last node that reads a buffer, through any of its views."""
        mine = [n for n, b in self.buffers.items() if n == root or b.root == root]
        return max(self.last_read.get(n, -1) for n in mine)

    def _host(self, node: Node) -> None:
        number = len(self.steps)
        operands = tuple(self.operand(n) if n else "" for n in host_operands(node))
        for name in operands:
            if name:
                self._touch(name, number)
        key = len(self.hosts)
        self.hosts.append(node)
        self.now = number + 1
        for name in node.outputs:
            if name:
                t = self.graph.types[name]
                self.buffers[name] = Buffer(name, t.dtype, t.shape, "host")
                self._bind(name)
        for name in node.outputs:
            if name:
                what = f"node {_title(node)} ({node.op}): result {name!r}"
                self._require(self.graph.types[name], what)
        self.steps.append(Host(node.op, key, operands, node.outputs, node.origin))

    # outputs

    def outputs(self) -> None:
        """Gives each output of the model a buffer that the caller keeps."""
        count = 0
        for name in self.graph.outputs:
            source = self.operand(name)
            root = self.root(source)
            b = self.buffers[source]
            same = root.nbytes == b.nbytes and self._phase_of(root) == self._phase_of(b)
            if root.space == "arena" and same:
                self.buffers[root.name] = replace(root, space="output", at=count, first=-1, last=-1)
                self.ports.append((name, source))
                count += 1
            elif root.space == "host" or b.dtype == "str":
                self.ports.append((name, source))
            else:
                made = Buffer(f"{name}.out", b.dtype, b.shape, "output", count)
                while made.name in self.buffers:
                    made = replace(made, name=made.name + "t")
                self._touch(source, len(self.steps))
                self.buffers[made.name] = made
                self.steps.append(Copy(source, made.name, self._origin(name)))
                self.ports.append((name, made.name))
                count += 1

    def _origin(self, name: str) -> tuple[str, ...]:
        made = self.graph.producers().get(name)
        return made.origin if made is not None else ()

    # the whole

    def finish(self) -> Program:
        """The program, its arena placed where all sizes are numbers."""
        arena = [b for b in self.buffers.values() if b.space == "arena"]
        total = least = None
        if all(isinstance(b.nbytes, int) for b in arena):
            placed = placement.place(
                [placement.Buffer(_int(b.nbytes), b.first, b.last) for b in arena]
            )
            for b, at in zip(arena, placed.offsets):
                self.buffers[b.name] = replace(b, at=at)
            total, least = placed.size, placed.bound
        inputs = [self.buffers[n] for n in self.graph.inputs]
        outs = sorted((b for b in self.buffers.values() if b.space == "output"), key=_position)
        rest = [b for b in self.buffers.values() if b.space not in ("input", "output")]
        return Program(
            self.graph.name,
            tuple(self.graph.inputs),
            tuple(self.ports),
            tuple(self.sizes.values()),
            (*inputs, *_used(rest, self.steps, self.ports), *outs),
            tuple(self.steps),
            total,
            least,
            self.constants.size,
        )


def _work(node: Node, kernel: Kernel) -> Work | None:
    """The work of a call, where fusion noted it."""
    noted = dict(node.attrs).get("work")
    if not isinstance(noted, TensorType) or len(noted.shape) != 5:
        return None
    shared = any(isinstance(s, For) and s.kind == "parallel" for s in walk_stmts(kernel.body))
    return Work(*noted.shape, dtype=noted.dtype, shared=shared)


def _used(
    buffers: list[Buffer], steps: Iterable[Step], ports: Iterable[tuple[str, str]]
) -> list[Buffer]:
    """Without the views that no step uses."""
    names = {n for s in steps for n in (*s.operands, *s.results)} | {b for _, b in ports}
    return [b for b in buffers if b.space != "view" or b.name in names]


def _symbol(d: Size) -> Sym | None:
    """The symbol that a size is, if it is one."""
    if isinstance(d, Dim) and d.const == 0 and len(d.terms) == 1:
        ((monomial, coefficient),) = d.terms
        if coefficient == 1 and len(monomial) == 1 and isinstance(monomial[0], Sym):
            return monomial[0]
    return None


def _position(b: Buffer) -> int:
    return b.at or 0


def _int(size: Size) -> int:
    assert isinstance(size, int)
    return size


def _title(node: Node) -> str:
    return repr(", ".join(node.origin) or ", ".join(node.outputs))
