"""What a planned program means: its steps in Python, kernels in the interpreter, buffers where the
program puts them, so that two that share memory wrongly are seen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from aicc.dtypes import nbytes, to_numpy
from aicc.errors import ExecutionError
from aicc.graph_ir.evaluate_module import evaluate_node
from aicc.planned import Planned, host_operands
from aicc.runtime.context import slots
from aicc.runtime.feed import Binder, accept, collect, input_ports
from aicc.runtime.host_results import read_count
from aicc.runtime.layout import Layouts
from aicc.runtime.program import Buffer, Call, Copy, Host, Read, Step
from aicc.symbolic import Size, evaluate
from aicc.tensor_ir.interp import run as run_kernel
from aicc.tensor_ir.ir import Buffer as Parameter
from aicc.tensor_ir.strides import row_major

Array = np.ndarray[Any, Any]


def evaluate_planned(planned: Planned, feed: Mapping[str, Array]) -> dict[str, Array]:
    """The outputs by name, for an array for each input. Raises InputError where the feed does not
    fit, and ExecutionError where a check in a kernel fails or a reference refuses its data."""
    return _Run(planned, feed).outputs()


class _Run:
    def __init__(self, planned: Planned, feed: Mapping[str, Array]) -> None:
        self.planned = planned
        self.program = planned.program
        ports = input_ports(self.program)
        given = collect(ports, feed)
        arrays = [accept(port, a) for port, a in zip(ports, given, strict=True)]
        self.memory: dict[str, Array] = {}
        """What is no part of the arena, by the name of the root."""
        for name, a in zip(self.program.inputs, arrays):
            self.memory[name] = a
        self.block, self.objects = planned.fill()
        self.sizes = Binder(self.program, ports).bind([a.shape for a in arrays])
        self.arenas: dict[int, Array] = {}
        self.offsets: dict[str, int] = {
            b.name: b.at for b in self.program.buffers if b.space == "arena" and b.at is not None
        }
        self.layouts = Layouts(self.program, slots(self.program))
        self.open_phase(0)
        for number, step in enumerate(self.program.steps):
            self.step(step)
            if number + 1 in self.program.phases[1:]:
                self.open_phase(self.program.phases.index(number + 1))

    def open_phase(self, phase: int) -> None:
        """Makes the arena of the buffers whose sizes are known by now."""
        layout = self.layouts.layout(phase, self.sizes)
        # Not zeros: what nobody has written is nothing that a result may depend on.
        self.arenas[phase] = np.full(layout.arena, 0xA5, np.uint8)
        by_word = {word: name for name, word in self.layouts.slots.addresses.items()}
        self.offsets.update((by_word[word], at) for word, at in layout.offsets)

    def shape(self, shape: tuple[Size, ...]) -> tuple[int, ...]:
        return tuple(evaluate(d, self.sizes) for d in shape)

    def array(self, name: str, seen: Parameter | None = None) -> Array:
        """A buffer's elements, in its memory; as a kernel's parameter sees them."""
        b, root = self.program.table[name], self.program.root(name)
        shape = self.shape(b.shape if seen is None else seen.shape)
        strides = self.shape((b.pitch if seen is None else seen.pitch) or row_major(shape))
        at = (b.at or 0) if b.space == "view" else 0
        if root.space == "const" and root.at is None:
            return self.objects[root.name].reshape(shape)
        if root.space == "const":
            return self.part(self.block, (root.at or 0) + at, b, shape, strides)
        if root.space == "arena":
            phase = self.program.phase_of(root) if root.at is None else 0
            return self.part(self.arenas[phase], self.offsets[root.name] + at, b, shape, strides)
        if root.name not in self.memory:
            self.memory[root.name] = np.zeros(self.shape(root.shape), to_numpy(root.dtype))
        held = self.memory[root.name]
        if held.dtype.kind in "OUST":
            return held.reshape(shape)
        return self.part(held.reshape(-1).view(np.uint8), at, b, shape, strides)

    def part(
        self, memory: Array, at: int, b: Buffer, shape: tuple[int, ...], strides: tuple[int, ...]
    ) -> Array:
        """An array in a piece of memory that is as long as it has to be, and no longer."""
        size = nbytes(b.dtype)
        reach = sum((d - 1) * s for d, s in zip(shape, strides, strict=True)) + 1
        held = memory[at : at + (0 if 0 in shape else reach * size)]
        steps = tuple(s * size for s in strides)
        return np.ndarray(shape, to_numpy(b.dtype), held.data, strides=steps)

    def step(self, step: Step) -> None:
        if isinstance(step, Call):
            self.call(step)
        elif isinstance(step, Copy):
            target = self.array(step.target)
            target[...] = self.array(step.source).reshape(target.shape)
        elif isinstance(step, Host):
            self.host(step)
        else:
            self.read(step)

    def call(self, step: Call) -> None:
        kernel = self.planned.kernels[step.kernel]
        operands, results = iter(step.operands), iter(step.results)
        arrays = {
            b.name: self.array(next(results if b.scope == "out" else operands), b)
            for b in kernel.params
        }
        try:
            run_kernel(kernel, arrays, self.sizes)
        except ExecutionError as error:
            names = ", ".join(step.nodes)
            if not names or str(error).startswith(names):
                raise
            raise ExecutionError(f"node {names!r}: {error}") from None

    def read(self, step: Read) -> None:
        count = int(self.array(step.buffer).reshape(()))
        read_count(step, count, evaluate(step.most, self.sizes))
        for s in self.program.sizes:
            if s.axis is None and s.buffer == step.buffer:
                self.sizes[s.sym.name] = count

    def host(self, step: Host) -> None:
        node = self.planned.graph.nodes[step.key]
        names = host_operands(node)
        values = {n: self.array(b) for n, b in zip(names, step.operands, strict=True) if b}
        for name, array in evaluate_node(self.planned.graph, node, values).items():
            # A reference may return its operand, whose memory others write to.
            self.memory[name] = np.array(array, order="C")
            for s in self.program.sizes:
                if s.buffer == name and s.axis is not None:
                    self.sizes[s.sym.name] = array.shape[s.axis]

    def outputs(self) -> dict[str, Array]:
        return {name: self.array(b).copy() for name, b in self.program.outputs}
