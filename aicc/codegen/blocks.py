"""Square blocks that are read along one axis and wanted along the other.

    unroll i in 0..V: vector j in 0..V: y[i, j] = x[j, i]

Gathering each vector touches as many cache lines as it has lanes. Here V contiguous vectors are
loaded, one for each j, and transposed in registers: log2(V) rounds of shuffles (Eklundh 1972), each
of which swaps the off-diagonal quarters of all blocks of one size.
"""

from __future__ import annotations

from aicc.codegen.addressing import Value
from aicc.codegen.llvm_types import memory_type
from aicc.codegen.memory import Memory, shuffle_mask
from aicc.dtypes import nbytes
from aicc.symbolic import Sym, coefficient, opaques, substitute, symbols
from aicc.tensor_ir.ir import Expr, For, Load, Op, Store


class Blocks(Memory):
    """Memory access with loads that serve a whole unrolled loop."""

    def load_block(self, s: For) -> bool:
        """Loads ahead what the statements of an unrolled loop over vectors would gather, where it
        is contiguous along the unrolled loop. True where there is such a load."""
        lo = self.resolve(s.lo)
        (inner,) = s.body if len(s.body) == 1 else (None,)
        if not isinstance(inner, For) or inner.kind != "vector" or self.mask is not None:
            return False
        size = s.extent
        square = isinstance(size, int) and size == inner.extent and size & (size - 1) == 0
        if lo != 0 or inner.lo != 0 or not square or size == 1:
            return False
        assert isinstance(size, int)
        stores = [c for c in inner.body if isinstance(c, Store)]
        if len(stores) != len(inner.body):
            return False
        written = {c.buffer for c in stores}
        for c in stores:
            for load in _unconditional(c.value):
                if load not in self.columns and load.buffer not in written:
                    if self._turns(load, s.var, inner.var):
                        self.columns[load] = (s.var, self._block(load, s.var, inner.var, size))
        return bool(self.columns)

    def transposed(self, e: Load) -> Value | None:
        """A load that `load_block` has done."""
        found = self.columns.get(e)
        if found is None:
            return None
        number = self.constants[found[0]]
        assert isinstance(number, int)
        return self.from_memory(found[1][number], e.dtype, self.lanes)

    def _turns(self, load: Load, across: Sym, along: Sym) -> bool:
        """True where a load is contiguous in `across`, and not in `along`."""
        offset = self.offset(self.kernel.buffer(load.buffer), load.indices)
        if coefficient(offset, across) != 1 or along not in symbols(offset) or opaques(offset):
            return False
        return coefficient(offset, along) != 1

    def _block(self, load: Load, across: Sym, along: Sym, size: int) -> list[str]:
        """The vectors along `along`, one for each value of `across`."""
        buffer = self.kernel.buffer(load.buffer)
        offset = substitute(self.offset(buffer, load.indices), {across: 0})
        t = memory_type(buffer.dtype, size)
        rows = []
        for n in range(size):
            pointer = self.address(buffer, substitute(offset, {along: n}))
            rows.append(self.fn.value(f"load {t}, ptr {pointer}, align {nbytes(buffer.dtype)}"))
        half = size // 2
        while half:
            first = shuffle_mask([j if not j & half else size + j - half for j in range(size)])
            second = shuffle_mask([j + half if not j & half else size + j for j in range(size)])
            for i in range(size):
                if not i & half:
                    a, b = rows[i], rows[i + half]
                    rows[i] = self.fn.value(f"shufflevector {t} {a}, {t} {b}, {first}")
                    rows[i + half] = self.fn.value(f"shufflevector {t} {a}, {t} {b}, {second}")
            half //= 2
        return rows


def _unconditional(e: Expr) -> list[Load]:
    """The loads that evaluating an expression performs for certain."""
    if isinstance(e, Load):
        return [e]
    if not isinstance(e, Op):
        return []
    args = e.args[:1] if e.name == "select" else e.args
    return [x for a in args for x in _unconditional(a)]
