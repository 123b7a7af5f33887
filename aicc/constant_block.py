"""The block of constants of a program: which layouts kernels ask for, and where they lie."""

from __future__ import annotations

from aicc.dtypes import from_numpy
from aicc.graph_ir.graph import Graph
from aicc.memory import placement
from aicc.planned import Source
from aicc.runtime.program import Buffer
from aicc.tensor_ir.packing import parse_layout


class ConstantBlock:
    """The block of constants: each is in it once for every layout that kernels ask for."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.entries: dict[tuple[str, str], Buffer] = {}
        self.size = 0

    def buffer(self, name: str, layout: str) -> Buffer:
        """The buffer of a constant in a layout; space is set aside at its first use."""
        found = self.entries.get((name, layout))
        if found is not None:
            return found
        data = self.graph.constants[name]
        dtype = from_numpy(data.dtype)
        shape = tuple(p.extent for p in parse_layout(layout, data.shape)) if layout else data.shape
        at = None if dtype == "str" else self.size
        taken = sum(1 for n, _ in self.entries if n == name)
        own = f"{name}.packed{taken}" if layout else name
        made = Buffer(own, dtype, tuple(shape), "const", at)
        self.entries[name, layout] = made
        size = made.nbytes
        assert isinstance(size, int)
        if at is not None:
            self.size = at + placement.round_up(int(size))
        return made

    def sources(self) -> dict[str, Source]:
        """Where the data of each buffer come from."""
        return {b.name: Source(*key) for key, b in self.entries.items()}
