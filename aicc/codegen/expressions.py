"""Scalar expressions to SSA values, one lane or many: the same code for both."""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import partial

from aicc.codegen.addressing import Value
from aicc.codegen.division import Divisions
from aicc.codegen.llvm_types import flags, known_flags, literal, llvm_type, splat, suffix
from aicc.codegen.vecmath import Abilities, Block, expand, remainder, supports
from aicc.dtypes import is_float, is_signed, nbytes
from aicc.symbolic import Size, coefficient, opaques, substitute, value_range
from aicc.tensor_ir.ir import Const, Expr, Index, Load, Op
from aicc.tensor_ir.scalar import ORDERINGS
from aicc.tensor_ir.walk import as_size

_FLOAT_BINARY = {"add": "fadd contract", "sub": "fsub contract", "mul": "fmul contract"}
_FLOAT_BINARY |= {"div": "fdiv"}
_INT_BINARY = {"add": "add", "sub": "sub", "mul": "mul"}
_BITS = {"bitand": "and", "bitor": "or", "bitxor": "xor", "and": "and", "or": "or", "xor": "xor"}
_FLOAT_COMPARE = {"lt": "olt", "le": "ole", "gt": "ogt", "ge": "oge", "eq": "oeq", "ne": "une"}
_ROUNDING = {
    "floor": "floor",
    "ceil": "ceil",
    "trunc": "trunc",
    "round": "roundeven",
    "abs": "fabs",
    "sqrt": "sqrt",
}


_COMPARE: dict[str, Callable[[int, int], bool]] = {
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "eq": operator.eq,
    "ne": operator.ne,
}
_LOGIC: dict[str, Callable[..., bool]] = {
    "and": lambda a, b: a and b,
    "or": lambda a, b: a or b,
    "xor": lambda a, b: a != b,
    "not": lambda a: not a,
}
_NANS = ("0X7FF8", "0XFFF8", "0XH7E", "0XHFE", "0XR7FC", "0XRFFC")


def _is_zero(e: Expr) -> bool:
    """True for a constant of which all bits are zero."""
    return isinstance(e, Const) and e.value == 0 and not str(e.value).startswith("-")


class Expressions(Divisions):
    """Emission of expressions; values are remembered within one statement."""

    def expression(self, e: Expr) -> Value:
        """The value of an expression, written here unless it is known."""
        if isinstance(e, Const):
            return Value(literal(e.value, e.dtype), e.dtype)
        key = ("expr", e, self.mask)
        for scope in reversed(self.scopes):
            if scope:  # most are empty
                found = scope.get(key)
                if isinstance(found, Value):
                    return found
        if isinstance(e, Load):
            made = self.transposed(e) or self.load(self.kernel.buffer(e.buffer), e.indices)
        elif isinstance(e, Index):
            made = self._index(e)
        else:
            assert isinstance(e, Op)
            made = self._op(e)
        self.scopes[-1][key] = made
        return made

    def _index(self, e: Index) -> Value:
        size = self.resolve(e.size)
        if self.varies(size):
            return self._cast(Value(self.size_vector(size), "i64", self.lanes), e.dtype)
        return self._cast(Value(self.size(size), "i64"), e.dtype)

    def _op(self, e: Op) -> Value:
        if e.name == "select":
            return self._select(e)
        if e.name in _FLOAT_COMPARE:
            fast = self._compare_numbers(e)
            if fast is None and e.name in ORDERINGS:
                fast = self._compare_lanes(e)
            if fast is not None:
                return fast
        args = [self.expression(a) for a in e.args]
        if e.name == "and" and e.dtype == "bool":
            return self.both(args[0], args[1])
        lanes = max(a.lanes for a in args)
        args = [self.broadcast(a, lanes) for a in args]
        return self.apply(e.name, args, e.dtype, lanes)

    # selection: loads of the branch that is not taken are not performed

    def _select(self, e: Op) -> Value:
        cond = self.expression(e.args[0])
        decided = self.decided(cond)
        if decided is not None:
            return self.expression(e.args[1 if decided else 2])
        first = e.args[1]
        fresh = isinstance(first, Load) and self._reads_anew(first)
        if isinstance(first, Load) and self.is_local(self.kernel.buffer(first.buffer)):
            fresh = False  # read whole
        a = self._under(cond, e.args[1], negate=False)
        if fresh and _is_zero(e.args[2]) and a.lanes >= cond.lanes:
            return a  # a load gives zeros where its mask does not hold
        b = self._under(cond, e.args[2], negate=True)
        lanes = max(cond.lanes, a.lanes, b.lanes)
        a, b = self.broadcast(a, lanes), self.broadcast(b, lanes)
        t = llvm_type(e.dtype, lanes)
        if lanes and not cond.lanes:
            flag = f"i1 {cond.text}"
        else:
            flag = f"{llvm_type('bool', lanes)} {cond.text}"
        return Value(self.fn.value(f"select {flag}, {t} {a.text}, {t} {b.text}"), e.dtype, lanes)

    def _under(self, cond: Value, e: Expr, negate: bool) -> Value:
        """The value of `e` evaluated only where `cond` holds (or does not)."""
        if not self._reads_anew(e):
            return self.expression(e)
        outer = self.mask
        self.mask = self.both(
            outer, self.apply("not", [cond], "bool", cond.lanes) if negate else cond
        )
        self.scopes.append({})
        value = self.expression(e)
        self.scopes.pop()
        self.mask = outer
        return value

    def _reads_anew(self, e: Expr) -> bool:
        """Whether evaluating `e` performs a load that this statement has not performed yet."""
        key = ("expr", e, self.mask)
        if any(scope and key in scope for scope in self.scopes):
            return False
        if isinstance(e, Op):
            return any(self._reads_anew(a) for a in e.args)
        return isinstance(e, Load) or (isinstance(e, Index) and bool(opaques(e.size)))

    def both(self, a: Value | None, b: Value) -> Value:
        """The conjunction of two masks."""
        if a is None:
            return b
        for x, y in ((a, b), (b, a)):
            if self.decided(x) is not None:
                return y if self.decided(x) else x
        lanes = max(a.lanes, b.lanes)
        parts = [self._parts_of(x, lanes) for x in (a, b)]
        if lanes and None not in parts:
            (when, some), (also, others) = (x for x in parts if x is not None)
            scalar = when if also is None else also if when is None else self.both(when, also)
            text = flags([x and y for x, y in zip(some, others, strict=True)])
            if scalar is None or not any(known_flags(text) or ()):
                return Value(text, "bool", lanes)
            if all(known_flags(text) or ()):
                return scalar
            pair = [self.broadcast(scalar, lanes), Value(text, "bool", lanes)]
            made = self.apply("and", pair, "bool", lanes)
            self.known_lanes[made.text] = scalar, known_flags(text) or ()
            return made
        args = [self.broadcast(a, lanes), self.broadcast(b, lanes)]
        return self.apply("and", args, "bool", lanes)

    def _parts_of(self, v: Value, lanes: int) -> tuple[Value | None, tuple[bool, ...]] | None:
        """What a mask is made of: a condition for all lanes, and known lanes; None for others."""
        if not v.lanes:
            return v, (True,) * lanes
        known = known_flags(v.text)
        return (None, known) if known is not None else self.known_lanes.get(v.text)

    def decided(self, cond: Value) -> bool | None:
        """What a condition is in every lane, where that is known here."""
        if cond.text in ("true", "false"):
            return cond.text == "true"
        known = set(known_flags(cond.text) or (True, False))
        return known.pop() if len(known) == 1 else None

    def _compare_numbers(self, e: Op) -> Value | None:
        """A comparison of indices that is the same in all lanes."""
        a, b = (as_size(x) for x in e.args)
        if a is None or b is None:
            return None
        a, b = self.resolve(a), self.resolve(b)
        gap = a - b
        if isinstance(gap, int):
            return Value("true" if _COMPARE[e.name](gap, 0) else "false", "bool")
        fact = self.facts.get((e.name, gap))
        if fact is None and e.name in ORDERINGS:
            fact = _always(e.name, gap)
        if fact is not None:
            return Value("true" if fact else "false", "bool")
        first, second = self.level(a), self.level(b)
        if first is None or second is None or self.varies(a) or self.varies(b):
            return None
        word = e.name if e.name in ("eq", "ne") else f"s{e.name}"
        make = partial(self._compare, word, a, b)
        return Value(self.once(("compare", word, a, b), max(first, second), make), "bool")

    def _compare(self, word: str, a: Size, b: Size) -> str:
        return self.fn.value(f"icmp {word} i64 {self.size(a)}, {self.size(b)}")

    def _compare_lanes(self, e: Op) -> Value | None:
        """`index < bound` over consecutive lanes as a narrow comparison with the lane number."""
        a, b = (as_size(x) for x in e.args)
        if a is None or b is None or self.vector is None:
            return None
        a, b = self.resolve(a), self.resolve(b)
        if e.name in ("gt", "ge"):
            a, b = b, a
        gap = b - a  # a < b  <=>  gap > 0;  a <= b  <=>  gap >= 0
        if e.name in ("le", "ge"):
            gap = gap + 1
        coef = coefficient(gap, self.vector)
        if coef not in (1, -1):
            return None
        base = substitute(gap, {self.vector: 0})
        lo = value_range(base)[0]
        if lo is not None and lo >= (self.lanes if coef == -1 else 1):
            return Value("true", "bool")
        limit = base if coef == -1 else -base
        if isinstance(limit, int):
            below = [n < limit if coef == -1 else n > limit for n in range(self.lanes)]
            return Value(flags(below), "bool", self.lanes)
        relation = "slt" if coef == -1 else "sgt"
        key = ("lanes", relation, limit, self.lanes)
        make = partial(self._compare_lane_numbers, relation, limit)
        return Value(self.once(key, self.level(limit), make), "bool", self.lanes)

    def _compare_lane_numbers(self, relation: str, limit: Size) -> str:
        edge = self.size(limit)
        for name, bound in (("llvm.smin.i64", self.lanes), ("llvm.smax.i64", -1)):
            edge = self.fn.call("i64", name, [("i64", edge), ("i64", str(bound))])
        narrow = Value(self.fn.value(f"trunc nsw i64 {edge} to i32"), "i32")
        wide = self.broadcast(narrow, self.lanes)
        iota = "<" + ", ".join(f"i32 {n}" for n in range(self.lanes)) + ">"
        t = f"<{self.lanes} x i32>"
        return self.fn.value(f"icmp {relation} {t} {iota}, {wide.text}")

    # operations on values that have equal lanes

    def apply(self, name: str, args: list[Value], dtype: str, lanes: int) -> Value:
        """An operation on values that have equal lanes; 0 for one."""
        if name.startswith("cast."):
            return self._cast(args[0], dtype)
        if name.startswith("bitcast."):
            source, target = self.type_of(args[0]), llvm_type(dtype, lanes)
            text = self.fn.value(f"bitcast {source} {args[0].text} to {target}")
            return Value(text, dtype, lanes)
        operand = args[0].dtype
        if operand == "bool" and lanes and name in _LOGIC:
            known = [known_flags(a.text) for a in args]
            if all(k is not None for k in known):
                text = flags([_LOGIC[name](*xs) for xs in zip(*(k for k in known if k))])
                return Value(text, "bool", lanes)
        if supports(name, operand):
            text = expand(self.block(lanes), name, operand, [a.text for a in args])
            return Value(text, dtype, lanes)
        if is_float(operand):
            text = self._float_op(name, args, operand, lanes)
        else:
            text = self._int_op(name, args, operand, lanes)
        return Value(text, dtype, lanes)

    def block(self, lanes: int) -> Block:
        """Where vector math writes its instructions: here."""
        return Block(
            lanes,
            Abilities.of(self.target),
            lines=self.fn.lines,
            module=self.fn.module.declared,
            fresh=lambda: f"%{self.fn.fresh('m')}",
        )

    def _float_op(self, name: str, args: list[Value], dtype: str, lanes: int) -> str:
        t, mangled = llvm_type(dtype, lanes), suffix(dtype, lanes)
        x = [a.text for a in args]
        value = self.fn.value
        if name in _FLOAT_BINARY:
            return value(f"{_FLOAT_BINARY[name]} {t} {x[0]}, {x[1]}")
        if name in _FLOAT_COMPARE:
            return value(f"fcmp {_FLOAT_COMPARE[name]} {t} {x[0]}, {x[1]}")
        if name in _ROUNDING:
            return self.fn.call(t, f"llvm.{_ROUNDING[name]}.{mangled}", [(t, x[0])])
        if name == "neg":
            return value(f"fneg {t} {x[0]}")
        if name == "fma":
            return self.multiply_add(x[0], x[1], x[2], dtype, lanes)
        if name in ("max", "min"):
            return self._extremum(name, args, dtype, lanes)
        if name == "isnan":
            return value(f"fcmp uno {t} {x[0]}, {x[0]}")
        if name == "isinf":
            size = self.fn.call(t, f"llvm.fabs.{mangled}", [(t, x[0])])
            infinity = literal(float("inf"), dtype)
            wide = splat(infinity, dtype, lanes) if lanes else infinity
            return value(f"fcmp oeq {t} {size}, {wide}")
        if name == "floormod":
            r = self._float_op("mod", args, dtype, lanes)
            return self.floor_remainder(r, x[1], dtype, lanes)
        if name == "mod":
            return remainder(self.block(lanes), dtype, x[0], x[1])
        raise NotImplementedError(f"{name} on {dtype}")

    def multiply_add(self, a: str, b: str, c: str, dtype: str, lanes: int) -> str:
        """a*b + c, rounded once where the target can."""
        t, mangled = llvm_type(dtype, lanes), suffix(dtype, lanes)
        name = "llvm.fma" if self.target.has_fma else "llvm.fmuladd"
        return self.fn.call(t, f"{name}.{mangled}", [(t, a), (t, b), (t, c)])

    def _extremum(self, name: str, args: list[Value], dtype: str, lanes: int) -> str:
        """max or min; a NaN operand gives NaN. Against a number one comparison is enough."""
        t, flag = llvm_type(dtype, lanes), llvm_type("bool", lanes)
        x, y = args
        if _is_number(x.text):
            x, y = y, x
        if _is_number(y.text):
            relation = "olt" if name == "max" else "ogt"
            better = self.fn.value(f"fcmp {relation} {t} {x.text}, {y.text}")
            return self.fn.value(f"select {flag} {better}, {t} {y.text}, {t} {x.text}")
        intrinsic = f"llvm.{name}imum.{suffix(dtype, lanes)}"
        # Which zero the larger of -0.0 and 0.0 is, nobody asks: telling them apart takes three more
        # instructions.
        return self.fn.call(t, intrinsic, [(t, x.text), (t, y.text)], "nsz")

    def _int_op(self, name: str, args: list[Value], dtype: str, lanes: int) -> str:
        t = llvm_type(dtype, lanes)
        x = [a.text for a in args]
        signed = is_signed(dtype)
        value = self.fn.value
        if name in _INT_BINARY:
            return value(f"{_INT_BINARY[name]} {t} {x[0]}, {x[1]}")
        if name in _BITS:
            return value(f"{_BITS[name]} {t} {x[0]}, {x[1]}")
        if name in ("eq", "ne"):
            return value(f"icmp {name} {t} {x[0]}, {x[1]}")
        if name in ORDERINGS:
            return value(f"icmp {'s' if signed else 'u'}{name} {t} {x[0]}, {x[1]}")
        if name in ("max", "min"):
            intrinsic = f"llvm.{'s' if signed else 'u'}{name}.{suffix(dtype, lanes)}"
            return self.fn.call(t, intrinsic, [(t, x[0]), (t, x[1])])
        if name in ("not", "bitnot"):
            ones = "true" if dtype == "bool" else "-1"
            return value(f"xor {t} {x[0]}, {splat(ones, dtype, lanes) if lanes else ones}")
        if name == "neg":
            return value(f"sub {t} {splat('0', dtype, lanes) if lanes else '0'}, {x[0]}")
        if name == "abs":
            if not signed:
                return x[0]
            return self.fn.call(t, f"llvm.abs.{suffix(dtype, lanes)}", [(t, x[0]), ("i1", "false")])
        if name in ("shl", "shr"):
            return self._shift(name, x, dtype, lanes)
        if name in ("div", "mod", "floormod"):
            return self.int_divide(name, x, dtype, lanes)
        if name == "fma":
            return value(f"add {t} {value(f'mul {t} {x[0]}, {x[1]}')}, {x[2]}")
        if name == "pow":
            return self._int_power(args, dtype, lanes)
        raise NotImplementedError(f"{name} on {dtype}")

    def _shift(self, name: str, x: list[str], dtype: str, lanes: int) -> str:
        """A shift by the width or more gives 0, as numpy does (the sign for a signed `shr`)."""
        t, flag, bits = llvm_type(dtype, lanes), llvm_type("bool", lanes), 8 * nbytes(dtype)

        def wide(n: int) -> str:
            return splat(str(n), dtype, lanes) if lanes else str(n)

        arithmetic = name == "shr" and is_signed(dtype)
        inside = self.fn.value(f"icmp ult {t} {x[1]}, {wide(bits)}")
        other = wide(bits - 1 if arithmetic else 0)
        amount = self.fn.value(f"select {flag} {inside}, {t} {x[1]}, {t} {other}")
        word = "shl" if name == "shl" else "ashr" if arithmetic else "lshr"
        shifted = self.fn.value(f"{word} {t} {x[0]}, {amount}")
        if arithmetic:
            return shifted
        return self.fn.value(f"select {flag} {inside}, {t} {shifted}, {t} {wide(0)}")

    def _int_power(self, args: list[Value], dtype: str, lanes: int) -> str:
        """Through f64: exact while the result is below 2**53."""
        wide = [self._cast(a, "f64") for a in args]
        t = llvm_type("f64", lanes)
        y = self.fn.call(t, f"llvm.pow.{suffix('f64', lanes)}", [(t, v.text) for v in wide])
        return self._cast(Value(y, "f64", lanes), dtype).text

    def _cast(self, v: Value, dtype: str) -> Value:
        if v.dtype == dtype:
            return v
        lanes = v.lanes
        source, target = self.type_of(v), llvm_type(dtype, lanes)

        def made(instruction: str) -> Value:
            return Value(
                self.fn.value(f"{instruction} {source} {v.text} to {target}"), dtype, lanes
            )

        if dtype == "bool":
            zero = self.broadcast(Value(literal(0, v.dtype), v.dtype), lanes).text
            compare = "fcmp une" if is_float(v.dtype) else "icmp ne"
            return Value(self.fn.value(f"{compare} {source} {v.text}, {zero}"), "bool", lanes)
        if is_float(v.dtype) and is_float(dtype):
            if nbytes(v.dtype) == nbytes(dtype):  # f16 and bf16 meet in f32
                return self._cast(self._cast(v, "f32"), dtype)
            return made("fpext" if nbytes(v.dtype) < nbytes(dtype) else "fptrunc")
        if is_float(v.dtype):
            if lanes:
                return Value(self._saturated(v, dtype, lanes), dtype, lanes)
            kind = "fptosi" if is_signed(dtype) else "fptoui"
            name = f"llvm.{kind}.sat.{suffix(dtype, lanes)}.{suffix(v.dtype, lanes)}"
            return Value(self.fn.call(target, name, [(source, v.text)]), dtype, lanes)
        signed = v.dtype != "bool" and is_signed(v.dtype)
        if is_float(dtype):
            return made("sitofp" if signed else "uitofp")
        if v.dtype == "bool":
            return made("zext")
        if nbytes(v.dtype) == nbytes(dtype):
            return Value(v.text, dtype, lanes)
        if nbytes(v.dtype) > nbytes(dtype):
            return made("trunc")
        return made("sext" if signed else "zext")

    def _saturated(self, v: Value, dtype: str, lanes: int) -> str:
        """Floats as integers; those beyond give the nearest one, and NaN gives 0. LLVM's intrinsic
        means the same, but is expanded lane by lane."""
        if nbytes(v.dtype) < 4:
            v = self._cast(v, "f32")
        source, target, flag = self.type_of(v), llvm_type(dtype, lanes), llvm_type("bool", lanes)
        signed, bits = is_signed(dtype), 8 * nbytes(dtype)
        least, most = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
        word = "fptosi" if signed else "fptoui"
        result = self.fn.value(f"{word} {source} {v.text} to {target}")
        # What is beyond has no value until it is chosen from: each of these is an exact float.
        for compare, bound, instead in (
            ("oge", float(most + 1), most),
            ("olt", float(least), least),
            ("uno", 0.0, 0),
        ):
            limit = self.broadcast(Value(literal(bound, v.dtype), v.dtype), lanes).text
            beyond = self.fn.value(f"fcmp {compare} {source} {v.text}, {limit}")
            other = self.broadcast(Value(literal(instead, dtype), dtype), lanes).text
            result = self.fn.value(f"select {flag} {beyond}, {target} {other}, {target} {result}")
        return result


def _always(name: str, gap: Size) -> bool | None:
    """What the comparison of a size with 0 gives for all values of its symbols, if one thing."""
    lo, hi = value_range(gap)
    under = 0 if name in ("lt", "ge") else 1  # the least value that is not below
    if lo is not None and lo >= under:
        return name in ("gt", "ge")
    if hi is not None and hi < under:
        return name in ("lt", "le")
    return None


def _is_number(text: str) -> bool:
    """True for a literal (scalar or splat) that is not NaN."""
    if text.startswith("%"):
        return False
    word = text.split()[1].rstrip(",>") if text.startswith("<") else text
    return not word.upper().startswith(_NANS)
