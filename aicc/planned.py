"""The Program level: a program with all that it was planned from, constants not yet packed.

    planned ::= kernel* graph program sources
    graph   ::= the constants, and the nodes behind the program's host steps in order of their keys;
                its inputs are what else those nodes read
    sources ::= "constants" line*                  where the data of each `const` buffer come from
    line    ::= buffer "= @" constant layout       layout: how it is packed (`tensor_ir.packing`)

Invariants, held by `verify_planned`: those of kernels, of the graph and of the program; each call
names a kernel and fits its parameters; each host step is the node of its key; each `const` buffer
has a source of its type. `planned_text` prints and parses, `planned_evaluate` runs it in Python.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from aicc.dtypes import from_numpy, to_numpy
from aicc.errors import IRError
from aicc.graph_ir.graph import Graph, Node, reads
from aicc.graph_ir.verify import verify
from aicc.pages import aligned_bytes, discard, forget, trim_heap
from aicc.runtime.program import Buffer, Call, Host, Program
from aicc.runtime.verify import verify_program
from aicc.symbolic import Size, product
from aicc.tensor_ir.ir import Kernel
from aicc.tensor_ir.packing import PackError, pack_into, parse_layout
from aicc.tensor_ir.strides import same_walk
from aicc.tensor_ir.verify import verify as verify_kernel

Array = np.ndarray[Any, Any]


TRIM = 1 << 24
"""Bytes of constants that go before the C library is asked to give their memory back."""


@dataclass(frozen=True)
class Source:
    """constant: its name in the graph. layout: how the buffer holds it; "" is row-major."""

    constant: str
    layout: str = ""


@dataclass
class Planned:
    """program: what runs. kernels: those that it calls. graph: constants and host nodes. sources:
    by `const` buffer."""

    program: Program
    kernels: dict[str, Kernel]
    graph: Graph
    sources: dict[str, Source] = field(default_factory=dict)

    @property
    def hosts(self) -> tuple[Node, ...]:
        """The node behind each host step's key."""
        return tuple(self.graph.nodes)

    def fill(self, release: bool = False) -> tuple[Array, dict[str, Array]]:
        """The block of constants, aligned to 64 bytes, and the constants of strings by buffer.

        release: takes each constant out of `graph` as soon as it is in the block, so that no weight
        is in memory twice for long.
        """
        block = aligned_bytes(self.program.constant_bytes)
        objects, freed = {}, 0
        last = {s.constant: name for name, s in self.sources.items()}
        for name, source in self.sources.items():
            b, data = self.program.table[name], self.graph.constants[source.constant]
            if b.at is None:
                objects[name] = data
            else:
                shape, dtype = tuple(map(_int, b.shape)), to_numpy(b.dtype)
                count = math.prod(shape) * dtype.itemsize
                target = block[b.at : b.at + count].view(dtype).reshape(shape)
                over = release and last[source.constant] == name
                pack_into(target, data, source.layout, discard if over else forget)
            if release and last[source.constant] == name:
                freed += data.nbytes
                del data, self.graph.constants[source.constant]
                if freed >= TRIM:
                    trim_heap()
                    freed = 0
        return block, objects

    def __str__(self) -> str:
        from aicc.planned_text import print_planned

        return print_planned(self, with_sha=False)


def _int(size: Size) -> int:
    assert isinstance(size, int)
    return size


def host_operands(node: Node) -> tuple[str, ...]:
    """What a host step reads: the node's operands, then the values that its regions capture."""
    captured = (n for n in dict.fromkeys(reads(node)) if n not in node.inputs)
    return (*node.inputs, *captured)


def host_graph(graph: Graph, hosts: Iterable[Node], constants: Iterable[str]) -> Graph:
    """The part of a module's graph that a planned program keeps."""
    made = Graph(graph.name, nodes=list(hosts))
    made.constants = {name: graph.constants[name] for name in dict.fromkeys(constants)}
    results = {o for node in made.nodes for o in node.outputs if o}
    used = dict.fromkeys(name for node in made.nodes for name in reads(node))
    made.inputs = [n for n in used if n not in results and n not in made.constants]
    made.types = {n: graph.types[n] for n in (*made.inputs, *made.constants, *results)}
    return made


def verify_planned(planned: Planned) -> None:
    """Raises IRError, naming kernel, node or step, where an invariant does not hold."""
    for name, kernel in planned.kernels.items():
        if name != kernel.name:
            raise IRError(f"the kernel @{kernel.name} is known as {name!r}")
        verify_kernel(kernel)
    verify(planned.graph)
    program = planned.program
    verify_program(program)
    for number, step in enumerate(program.steps):
        what = f"program @{program.name}: step {number}"
        if isinstance(step, Call):
            _check_call(planned, what, step)
        elif isinstance(step, Host):
            _check_host(planned, what, step)
    held = {b.name for b in program.buffers if b.space == "const"}
    if held != planned.sources.keys():
        wrong = ", ".join(sorted(held ^ planned.sources.keys()))
        raise IRError(f"program @{program.name}: constants without a source, or none: {wrong}")
    for name, source in planned.sources.items():
        _check_source(planned, program.table[name], source)


def _check_call(planned: Planned, what: str, step: Call) -> None:
    kernel = planned.kernels.get(step.kernel)
    if kernel is None:
        raise IRError(f"{what}: there is no kernel @{step.kernel}")
    what = f"{what}, call of @{step.kernel}"
    ins = [b for b in kernel.params if b.scope != "out"]
    outs = [b for b in kernel.params if b.scope == "out"]
    if (len(ins), len(outs)) != (len(step.operands), len(step.results)):
        raise IRError(
            f"{what}: {len(step.operands)} operands and {len(step.results)} results, where the "
            f"kernel has {len(ins)} and {len(outs)}"
        )
    if tuple(s.name for s in kernel.sizes) != step.sizes:
        raise IRError(f"{what}: the sizes {step.sizes}, where the kernel has {kernel.sizes}")
    for b, name in zip((*ins, *outs), (*step.operands, *step.results)):
        held = planned.program.table[name]
        if held.dtype != b.dtype or product(held.shape) != product(b.shape):
            raise IRError(
                f"{what}: {name} is {held.dtype}{list(held.shape)}, {b.name} is "
                f"{b.dtype}{list(b.shape)}"
            )
        if not same_walk(held.shape, held.pitch, b.shape, b.pitch):
            raise IRError(
                f"{what}: {name} has the pitch {list(held.pitch)}, {b.name} {list(b.pitch)}"
            )
        if b.pack and (name not in planned.sources or planned.sources[name].layout != b.pack):
            raise IRError(f"{what}: {name} is not packed as {b.pack!r}, as {b.name} has to be")


def _check_host(planned: Planned, what: str, step: Host) -> None:
    if not 0 <= step.key < len(planned.graph.nodes):
        raise IRError(f"{what}: there is no host node {step.key}")
    node = planned.graph.nodes[step.key]
    if node.op != step.op or node.outputs != step.results:
        raise IRError(f"{what}: host {step.op} is the node {node.op} of {list(node.outputs)}")
    if len(host_operands(node)) != len(step.operands):
        raise IRError(f"{what}: host {step.op} reads {len(host_operands(node))} values")


def _check_source(planned: Planned, b: Buffer, source: Source) -> None:
    data = planned.graph.constants.get(source.constant)
    what = f"program @{planned.program.name}: {b.name}"
    if data is None:
        raise IRError(f"{what} comes from {source.constant!r}, which is no constant")
    shape: tuple[Any, ...] = data.shape
    if source.layout:
        try:
            shape = tuple(p.extent for p in parse_layout(source.layout, data.shape))
        except PackError as fault:
            raise IRError(f"{what}: {fault}") from None
    if from_numpy(data.dtype) != b.dtype or shape != b.shape:
        raise IRError(
            f"{what} is {b.dtype}{list(b.shape)}, {source.constant!r} is {data.dtype}{list(shape)}"
        )
