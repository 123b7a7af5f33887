"""Sizes and addresses: index arithmetic, for one lane or many.

Addresses are chains of offsets ordered from outer to inner loops, the constant last, so that what
an outer loop fixes is computed there and the rows of a tile are one base register plus a
displacement. What depends on loops alone, not on memory, is written once, at the head of the
innermost of them: LLVM would find out that it need not be computed again and again, but takes more
time for that than for everything else.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

from aicc.codegen.llvm_types import llvm_type, memory_type, splat, suffix
from aicc.codegen.once import Once, Turns
from aicc.codegen.writer import FunctionWriter
from aicc.symbolic import (
    Atom,
    Dim,
    FloorDiv,
    Max,
    Min,
    Mod,
    Opaque,
    Size,
    Sym,
    coefficient,
    from_atom,
    recombine,
    substitute,
    symbols,
    value_range,
)
from aicc.target import Target
from aicc.tensor_ir.ir import Buffer, Expr, Kernel, Load


class Value(NamedTuple):
    """An SSA value: its text, element type, and lanes (0: a scalar)."""

    text: str
    dtype: str
    lanes: int = 0


class Addressing(Once):
    """The state of emission inside one function, and everything that is integer arithmetic."""

    def __init__(self, kernel: Kernel, target: Target, fn: FunctionWriter) -> None:
        super().__init__(fn)
        self.kernel = kernel
        self.target = target
        self.pointers: dict[str, str] = {}
        self.constants: dict[Sym, Size] = {}
        self.vector: Sym | None = None
        self.lanes = 0
        self.mask: Value | None = None
        self.columns: dict[Load, tuple[Sym, list[str]]] = {}
        """Loads of a block that are there already: the variable that numbers them, and for each of
        its values the vector, as it is in memory."""
        self.facts: dict[tuple[str, Size], bool] = {}
        """Comparisons of sizes with 0 that are decided in this part of a loop."""
        # What is worked out once: unrolled loops ask for the same again and again.
        self._offsets: dict[tuple[str, tuple[Size, ...]], Size] = {}
        self._resolved: dict[Size, tuple[tuple[Sym, ...], dict[object, Size]]] = {}
        self._strides: dict[tuple[Sym, Size], Size | None] = {}
        self._firsts: dict[tuple[Sym, Size], Size] = {}

    def expression(self, e: Expr) -> Value:
        raise NotImplementedError

    # sizes

    def resolve(self, s: Size) -> Size:
        """`s` with unrolled variables replaced by their numbers."""
        if isinstance(s, int) or not self.constants:
            return s
        found = self._resolved.get(s)
        if found is None:
            found = self._resolved[s] = tuple(symbols(s)), {}
        used, known = found
        state = tuple([self.constants.get(v) for v in used])
        made = known.get(state)
        if made is None:
            made = known[state] = substitute(s, self.constants)
        return made

    def varies(self, s: Size) -> bool:
        """True where `s` depends on the vector variable."""
        return self.vector is not None and self.vector in symbols(s)

    def size(self, s: Size) -> str:
        """A size that is equal in all lanes, as i64."""
        s = self.resolve(s)
        if isinstance(s, int):
            return str(s)
        key = ("size", s)
        return self.cached(key) or self.once(key, self.level(s), lambda: self._sum(s))

    def _sum(self, s: Dim) -> str:
        total = ""
        for monomial, coef in self._by_depth(s):
            part = self._monomial(monomial, coef)
            total = self.fn.value(f"add nsw i64 {total}, {part}") if total else part
        if s.const:
            total = self.fn.value(f"add nsw i64 {total}, {s.const}")
        return total

    def _by_depth(self, s: Dim) -> tuple[tuple[tuple[Atom, ...], int], ...]:
        if len(s.terms) == 1:
            return s.terms
        return tuple(sorted(s.terms, key=self._order))

    def _order(self, term: tuple[tuple[Atom, ...], int]) -> float:
        """What outer loops fix comes first, what memory tells last."""
        level = self._term_level(term[0])
        return math.inf if level is None else level

    def _monomial(self, monomial: tuple[Atom, ...], coef: int) -> str:
        if coef == 1 and len(monomial) == 1:
            return self._atom(monomial[0])
        key = ("term", monomial, coef)
        level = self._term_level(monomial)
        return self.cached(key) or self.once(key, level, lambda: self._product(monomial, coef))

    def _product(self, monomial: tuple[Atom, ...], coef: int) -> str:
        """What outer loops fix first, with the constant, so that it is computed there."""
        last = self._term_level(monomial)
        outer = tuple(a for a in monomial if self._atom_level(a) != last)
        if last and len(outer) == len(monomial) - 1 and self.loops[last - 1].inner:
            (var,) = (a for a in monomial if a not in outer)
            if isinstance(var, Sym):
                return self._added(self.loops[last - 1], outer, coef)
        if outer:
            text = self._monomial(outer, coef)
            for a in monomial:
                if a not in outer:
                    text = self.fn.value(f"mul nsw i64 {text}, {self._atom(a)}")
            return text
        if coef != 1:
            return self.fn.value(f"mul nsw i64 {self._monomial(monomial, 1)}, {coef}")
        text = self._atom(monomial[0])
        for a in monomial[1:]:
            text = self.fn.value(f"mul nsw i64 {text}, {self._atom(a)}")
        return text

    def _added(self, turns: Turns, factors: tuple[Atom, ...], coef: int) -> str:
        """The variable of an innermost loop times a step: the step is added in each turn.

        Multiples of one another, which products would be, LLVM computes from each other, and orders
        all uses of the first before the second."""
        step = self._monomial(factors, coef) if factors else str(coef)
        start = "0"
        if turns.low != "0":
            start = f"%{self.fn.fresh()}"
            turns.ahead.append(f"  {start} = mul nsw i64 {turns.low}, {step}")
        text = f"%{self.fn.fresh()}"
        latch = f"%{turns.name}.latch"
        turns.phis.append(f"  {text} = phi i64 [ {start}, %{turns.before} ], [ {text}.n, {latch} ]")
        turns.latch.append(f"  {text}.n = add nsw i64 {text}, {step}")
        return text

    def _atom(self, a: Atom) -> str:
        if isinstance(a, Sym):
            return self.variables[a]
        return self.once(("atom", a), self._atom_level(a), lambda: self._compute_atom(a))

    def _compute_atom(self, a: Atom) -> str:
        if isinstance(a, Opaque):
            return self._integer(self.expression(a.payload), 0)
        if isinstance(a, Min | Max):
            name = "llvm.smin.i64" if isinstance(a, Min) else "llvm.smax.i64"
            return self.fn.call("i64", name, [("i64", self.size(a.a)), ("i64", self.size(a.b))])
        assert isinstance(a, FloorDiv | Mod)
        return self._divide(a, self.size(a.num), self.size(a.den), "i64")

    def _divide(self, a: FloorDiv | Mod, num: str, den: str, t: str) -> str:
        """Floor division or modulo on values of type `t` (i64 or a vector of it)."""
        lo = value_range(a.num)[0]
        division = isinstance(a, FloorDiv)
        smallest = value_range(a.den)[0]
        if smallest is None or smallest < 1:  # lanes and branches not taken must not trap
            lanes = self.lanes if t != "i64" else 0
            one = splat("1", "i64", lanes) if lanes else "1"
            den = self.fn.call(t, f"llvm.smax.{suffix('i64', lanes)}", [(t, den), (t, one)])
        if lo is not None and lo >= 0:
            return self.fn.value(f"{'udiv' if division else 'urem'} {t} {num}, {den}")
        lanes = self.lanes if t != "i64" else 0
        zero = splat("0", "i64", lanes) if lanes else "0"
        q = self.fn.value(f"sdiv {t} {num}, {den}")
        r = self.fn.value(f"srem {t} {num}, {den}")
        negative = self.fn.value(f"icmp slt {t} {r}, {zero}")
        flag = f"<{lanes} x i1>" if lanes else "i1"
        if division:
            down = self.fn.value(f"sext {flag} {negative} to {t}")
            return self.fn.value(f"add {t} {q}, {down}")
        up = self.fn.value(f"add {t} {r}, {den}")
        return self.fn.value(f"select {flag} {negative}, {t} {up}, {t} {r}")

    def _integer(self, v: Value, lanes: int) -> str:
        """A value of any integer type as i64, in `lanes` lanes."""
        if v.dtype not in ("i64", "u64"):
            source = self.type_of(v)
            wide = f"<{v.lanes} x i64>" if v.lanes else "i64"
            extend = "sext" if v.dtype.startswith("i") else "zext"
            v = Value(self.fn.value(f"{extend} {source} {v.text} to {wide}"), "i64", v.lanes)
        return self.broadcast(v, lanes).text if lanes else v.text

    def size_vector(self, s: Size) -> str:
        """A size that differs between lanes, as a vector of i64."""
        s = self.resolve(s)
        t = f"<{self.lanes} x i64>"
        if isinstance(s, int) or not self.varies(s):
            return self.broadcast(Value(self.size(s), "i64"), self.lanes).text
        assert self.vector is not None
        coef = coefficient(s, self.vector)
        if coef is not None:
            base = self.size(substitute(s, {self.vector: 0}))
            if isinstance(coef, int):
                step = "<" + ", ".join(f"i64 {n * coef}" for n in range(self.lanes)) + ">"
            else:
                iota = "<" + ", ".join(f"i64 {n}" for n in range(self.lanes)) + ">"
                factor = self.broadcast(Value(self.size(coef), "i64"), self.lanes).text
                step = self.fn.value(f"mul {t} {iota}, {factor}")
            if base == "0":
                return step
            wide = self.broadcast(Value(base, "i64"), self.lanes).text
            return self.fn.value(f"add {t} {wide}, {step}")
        total = self.broadcast(Value(str(s.const), "i64"), self.lanes).text
        for monomial, factor_ in s.terms:
            part = self.broadcast(Value(str(factor_), "i64"), self.lanes).text
            for a in monomial:
                part = self.fn.value(f"mul {t} {part}, {self._atom_vector(a)}")
            total = self.fn.value(f"add {t} {total}, {part}")
        return total

    def _atom_vector(self, a: Atom) -> str:
        t = f"<{self.lanes} x i64>"
        if isinstance(a, Sym):
            return self.size_vector(from_atom(a))
        if isinstance(a, Opaque):
            return self._integer(self.expression(a.payload), self.lanes)
        if isinstance(a, Min | Max):
            name = "smin" if isinstance(a, Min) else "smax"
            x, y = self.size_vector(a.a), self.size_vector(a.b)
            return self.fn.call(t, f"llvm.{name}.v{self.lanes}i64", [(t, x), (t, y)])
        return self._divide(a, self.size_vector(a.num), self.size_vector(a.den), t)

    # values

    def type_of(self, v: Value) -> str:
        return llvm_type(v.dtype, v.lanes)

    def broadcast(self, v: Value, lanes: int) -> Value:
        """`v` in `lanes` lanes."""
        if v.lanes == lanes or not lanes:
            return v
        if not v.text.startswith("%"):
            return Value(splat(v.text, v.dtype, lanes), v.dtype, lanes)
        key = ("splat", v.text, lanes)
        found = self.cached(key)
        if found is None:
            scalar, vector = llvm_type(v.dtype), llvm_type(v.dtype, lanes)
            one = self.fn.value(f"insertelement {vector} poison, {scalar} {v.text}, i64 0")
            found = self.fn.value(
                f"shufflevector {vector} {one}, {vector} poison, <{lanes} x i32> zeroinitializer"
            )
            self.keep(key, found)
        return Value(found, v.dtype, lanes)

    # addresses

    def offset(self, buffer: Buffer, indices: tuple[Size, ...]) -> Size:
        """The row-major offset of an element, in elements."""
        key = (buffer.name, indices)
        found = self._offsets.get(key)
        if found is None:
            total: Size = 0
            for index, stride in zip(indices, buffer.strides(), strict=True):
                total = total + index * stride
            found = self._offsets[key] = recombine(total)
        return self.resolve(found)

    def address(self, buffer: Buffer, offset: Size) -> str:
        """A pointer to the element at `offset`, which is equal in all lanes."""
        if isinstance(offset, int):
            return self._displaced(buffer, offset, self.pointers[buffer.name])
        pointer = self.pointers[buffer.name]
        terms = self._by_depth(offset)
        t = memory_type(buffer.dtype)
        for n, term in enumerate(terms):
            level = self._term_level(term[0])
            pointer = self.once(
                ("pointer", buffer.name, terms[: n + 1]),
                level,
                functools.partial(self._moved, t, pointer, term),
            )
        return self._displaced(buffer, offset.const, pointer)

    def _moved(self, t: str, pointer: str, term: tuple[tuple[Atom, ...], int]) -> str:
        step = self._monomial(*term)
        return self.fn.value(f"getelementptr {t}, ptr {pointer}, i64 {step}")

    def _displaced(self, buffer: Buffer, const: int, pointer: str) -> str:
        if not const:
            return pointer
        key = ("at", pointer, const)
        found = self._kept.get(key)
        if found is None:
            t = memory_type(buffer.dtype)
            found = self.keep(key, self.fn.value(f"getelementptr {t}, ptr {pointer}, i64 {const}"))
        return found

    def pointer_vector(self, buffer: Buffer, offset: Size) -> str:
        """A vector of pointers, one per lane: what all lanes have in common is one base."""
        offset = self.resolve(offset)
        own: Size = 0
        if isinstance(offset, Dim):
            for monomial, coef in offset.terms:
                term = Dim(((monomial, coef),), 0)
                own = own + (term if self.varies(term) else 0)
        base = self.address(buffer, offset - own)
        t = memory_type(buffer.dtype)
        index = self.size_vector(own)
        return self.fn.value(f"getelementptr {t}, ptr {base}, <{self.lanes} x i64> {index}")

    def stride(self, offset: Size) -> Size | None:
        """Elements between neighbouring lanes; None where they are not evenly spaced."""
        if self.vector is None or isinstance(offset, int):
            return 0
        key = self.vector, offset
        if key not in self._strides:
            self._strides[key] = coefficient(offset, self.vector)
        return self._strides[key]

    def at_lane_zero(self, offset: Size) -> Size:
        """Where the first lane is."""
        assert self.vector is not None
        key = self.vector, offset
        found = self._firsts.get(key)
        if found is None:
            found = self._firsts[key] = substitute(offset, {self.vector: 0})
        return found
