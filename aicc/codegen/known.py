"""What memory is known to hold: values loaded or stored before, in code that always ran before.

Unrolled tiles load the same elements for many statements, and add to the same accumulators again
and again. LLVM would find that out; not to write it in the first place halves the time it takes.

A region is a stretch of code that is entered at its beginning only: the body of a loop, a branch.
What is known in a region holds until a store may have changed it. Nothing is known at the beginning
of a loop's body, since it runs again after its own stores.
"""

from __future__ import annotations

from aicc.codegen.addressing import Value
from aicc.symbolic import Size
from aicc.tensor_ir.ir import Buffer, node

SHARED = ("in", "out")
"""Parameters of these scopes may share memory; constants and local buffers are alone."""


@node
class Place:
    """Consecutive elements of a buffer: where the first lane is, and how many lanes (0: a scalar).

    offset: of the access, the vector variable included, which tells strides apart. first: of lane
    zero, None where lanes are not consecutive.
    """

    offset: Size
    lanes: int
    first: Size | None


class KnownMemory:
    """Values of buffers' elements, region by region."""

    def __init__(self) -> None:
        self._regions: list[dict[str, dict[Place, Value]]] = [{}]
        self._params: set[str] = set()

    def enter(self) -> None:
        """A region begins."""
        self._regions.append({})

    def leave(self) -> None:
        """The innermost region ends."""
        self._regions.pop()

    def forget(self) -> None:
        """Anything may have changed."""
        for region in self._regions:
            region.clear()

    def value(self, buffer: Buffer, place: Place) -> Value | None:
        """What is at a place, where that is known."""
        return self._regions[-1].get(buffer.name, {}).get(place)

    def loaded(self, buffer: Buffer, place: Place, value: Value) -> None:
        """A load that every run through the region performs."""
        if buffer.scope in SHARED:
            self._params.add(buffer.name)
        self._regions[-1].setdefault(buffer.name, {})[place] = value

    def stored(self, buffer: Buffer, place: Place | None, value: Value | None) -> None:
        """A store; place: None where it may be anywhere in the buffer. value: None where it is not
        sure, or not what a load gives."""
        if buffer.scope in SHARED:
            for region in self._regions:
                for name in self._params:
                    region.pop(name, None)
            return
        for region in self._regions:
            known = region.get(buffer.name)
            if known:
                if place is None or not isinstance(place.first, int):
                    known.clear()
                    continue
                low, high = place.first, place.first + max(place.lanes, 1)
                for other in [p for p in known if _meets(p, low, high)]:
                    del known[other]
        if place is not None and value is not None:
            self._regions[-1].setdefault(buffer.name, {})[place] = value


def _meets(place: Place, low: int, high: int) -> bool:
    first = place.first
    return not isinstance(first, int) or (first < high and low < first + max(place.lanes, 1))
