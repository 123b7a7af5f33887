"""Loops that copy elements side by side, one after the other: blocks, which the machine's own
instructions or its C library move. For more bytes than the caches near the core hold, these write
lines without reading them first, as no store of a vector does.
"""

from __future__ import annotations

from aicc.codegen.reductions import Reductions
from aicc.dtypes import nbytes
from aicc.symbolic import Size, coefficient, maximum, opaques, substitute
from aicc.tensor_ir.ir import For, Load, Store

LEAST = 1024
"""Bytes of the shortest loop of known length that is worth it."""


class BlockCopies(Reductions):
    """The state of emission with what it takes to copy blocks."""

    def copies_block(self, s: For) -> bool:
        """Writes a loop as the copy of a block; False, and nothing, where it is none."""
        if self.vector is not None or self.mask is not None or len(s.body) != 1:
            return False
        (store,) = s.body
        if not isinstance(store, Store) or not isinstance(store.value, Load):
            return False
        target, source = (self.kernel.buffer(x.buffer) for x in (store, store.value))
        lo, extent = self.resolve(s.lo), self.resolve(s.extent)
        size = nbytes(target.dtype)
        if (
            s.kind != "for"
            or target.name == source.name
            or target.dtype != source.dtype
            or opaques(lo)
            or opaques(extent)
            or (isinstance(extent, int) and extent * size < LEAST)
        ):
            return False
        ends = (
            self.offset(target, store.indices),
            self.offset(source, store.value.indices),
        )
        if any(coefficient(x, s.var) != 1 for x in ends):
            return False
        places = [substitute(x, {s.var: lo}) for x in ends]
        length: Size = maximum(0, extent) * size
        to, start = (self.address(b, x) for b, x in zip((target, source), places, strict=True))
        self.known.stored(target, None, None)
        sizes = [("ptr", to), ("ptr", start), ("i64", self.size(length)), ("i1", "false")]
        self.fn.call("void", "llvm.memcpy.p0.p0.i64", sizes)
        return True
