"""The block of constants of a program: which layouts kernels ask for, and where they lie."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from aicc.dtypes import from_numpy
from aicc.graph_ir.graph import Graph
from aicc.memory import placement
from aicc.planned import Source
from aicc.runtime.program import Buffer
from aicc.symbolic import Size
from aicc.tensor_ir.packing import parse_layout
from aicc.uniform import element, is_uniform

Array = np.ndarray[Any, Any]


class ConstantBlock:
    """The block of constants: each is in it once for every layout that kernels ask for. Those whose
    elements are all the same lie in the largest of them."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.entries: dict[tuple[str, str], Buffer] = {}
        self.size = 0
        self._places: dict[bytes, int] = {}
        self._largest: dict[bytes, int] = {}
        for data in graph.constants.values():
            if is_uniform(data):
                key = element(data).tobytes()
                self._largest[key] = max(self._largest.get(key, 0), data.nbytes)

    def buffer(self, name: str, layout: str) -> Buffer:
        """The buffer of a constant in a layout; space is set aside at its first use."""
        found = self.entries.get((name, layout))
        if found is not None:
            return found
        data = self.graph.constants[name]
        dtype = from_numpy(data.dtype)
        shape = tuple(p.extent for p in parse_layout(layout, data.shape)) if layout else data.shape
        at = None if dtype == "str" else self._place(data, shape)
        taken = sum(1 for n, _ in self.entries if n == name)
        own = f"{name}.packed{taken}" if layout else name
        made = Buffer(own, dtype, tuple(shape), "const", at)
        self.entries[name, layout] = made
        return made

    def _place(self, data: Array, shape: Sequence[Size]) -> int:
        """Where an array, packed to a shape, begins."""
        size = math.prod(int(d) for d in shape) * data.itemsize
        at = self.size
        if is_uniform(data) and size == data.nbytes:  # packed without zeros between
            key = element(data).tobytes()
            if key in self._places:
                return self._places[key]
            self._places[key] = at
            size = self._largest[key]
        self.size = at + placement.round_up(size)
        return at

    def sources(self) -> dict[str, Source]:
        """Where the data of each buffer come from."""
        return {b.name: Source(*key) for key, b in self.entries.items()}
