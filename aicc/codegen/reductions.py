"""Reductions: into elements of their own for each lane, and across the lanes of a vector."""

from __future__ import annotations

from aicc.codegen.addressing import Value
from aicc.codegen.llvm_types import llvm_type, suffix
from aicc.codegen.streams import Streams
from aicc.dtypes import is_float, is_signed, nbytes
from aicc.symbolic import from_atom
from aicc.tensor_ir.builder import identity
from aicc.tensor_ir.ir import Expr, Index, Op, Reduce, call, cast, const


class Reductions(Streams):
    """The state of emission with what it takes to reduce."""

    def reduce(self, s: Reduce) -> None:
        """Combines an element with a value, in each lane, or all lanes' values with one element."""
        buffer = self.kernel.buffer(s.buffer)
        offset = self.offset(buffer, s.indices)
        stride = self.stride(offset)
        across = self.vector is not None and stride == 0
        product_ = s.value if isinstance(s.value, Op) and s.value.name == "mul" else None
        sum_ = s.op == "add" and product_ is not None and is_float(buffer.dtype) and not across
        terms = product_.args if sum_ and product_ is not None else (s.value,)
        asked = self._asked(s) if across else None
        values = [] if asked is not None else [self.expression(x) for x in terms]
        if asked is not None:
            values = [self._answers(self.expression(asked), buffer.dtype)]
        elif across:
            values = [self._across(s.op, self.broadcast(values[0], self.lanes))]
        # Lanes of a register that take no part keep what they have: nobody else sees it.
        own = buffer.scope == "register" and self.all_lanes(buffer, offset)
        mask = self.mask if stride == 1 and own else None
        outer, self.mask = self.mask, None if mask is not None else self.mask
        old = self.load(buffer, s.indices)
        lanes = max(old.lanes, *(v.lanes for v in values))
        # What is new first: whether that is no number is found beside the chain of results.
        args = [self.broadcast(v, lanes) for v in (*values, old)]
        if sum_:
            new = self.multiply_add(args[0].text, args[1].text, args[2].text, buffer.dtype, lanes)
        else:
            new = self.apply(s.op, args, buffer.dtype, lanes).text
        if mask is not None:
            t, flag = llvm_type(buffer.dtype, lanes), llvm_type("bool", lanes)
            took = self.broadcast(mask, lanes).text
            new = self.fn.value(f"select {flag} {took}, {t} {new}, {t} {args[-1].text}")
        self.store(buffer, s.indices, Value(new, buffer.dtype, lanes))
        self.mask = outer

    def _asked(self, s: Reduce) -> Expr | None:
        """What is asked in each lane where lanes add up to the word of the answers."""
        e = s.value
        if s.op != "add" or not isinstance(e, Op) or e.name != "select" or self.mask is not None:
            return None
        assert self.vector is not None
        lane = cast(Index(from_atom(self.vector)), e.dtype)
        if e.dtype not in ("u32", "u64") or self.lanes > 8 * nbytes(e.dtype):
            return None
        bit = call("shl", const(1, e.dtype), lane)
        return e.args[0] if e.args[1:] == (bit, const(0, e.dtype)) else None

    def _answers(self, flags: Value, dtype: str) -> Value:
        """The word of a bool for each lane."""
        flags = self.broadcast(flags, self.lanes)
        bits, word = f"i{flags.lanes}", llvm_type(dtype)
        text = self.fn.value(f"bitcast {llvm_type('bool', flags.lanes)} {flags.text} to {bits}")
        if bits != word:
            text = self.fn.value(f"zext {bits} {text} to {word}")
        return Value(text, dtype)

    def _across(self, op: str, v: Value) -> Value:
        """The reduction of a vector's lanes; lanes outside the mask do not take part."""
        t, flag = llvm_type(v.dtype, v.lanes), llvm_type("bool", v.lanes)
        text = v.text
        if self.mask is not None:
            neutral = self.broadcast(self.expression(identity(op, v.dtype)), v.lanes).text
            text = self.fn.value(f"select {flag} {self.vector_mask()}, {t} {text}, {t} {neutral}")
        scalar, mangled = llvm_type(v.dtype), suffix(v.dtype, v.lanes)
        if is_float(v.dtype) and op in ("add", "mul"):
            name = f"llvm.vector.reduce.f{op}.{mangled}"
            start = self.expression(identity(op, v.dtype)).text
            self.fn.module.declare(name, scalar, f"{scalar}, {t}")
            return Value(
                self.fn.value(f"call reassoc {scalar} @{name}({scalar} {start}, {t} {text})"),
                v.dtype,
            )
        word, flags = op, ""
        if op in ("max", "min"):
            if is_float(v.dtype):
                word, flags = f"f{op}imum", "nsz"
            else:
                word = f"{'s' if is_signed(v.dtype) else 'u'}{op}"
        name = f"llvm.vector.reduce.{word}.{mangled}"
        return Value(self.fn.call(scalar, name, [(t, text)], flags), v.dtype)
