"""Straight-line LLVM text: values with operators, appended to a list of lines.

A `Block` stands for a place in a function that is being written; a `Value` is an SSA name or a
constant at that place. Every value is a vector of the block's number of lanes, or a scalar where
that is 1, so that one formula, written with `+ - * / & | ^ << >>` and comparisons, serves every
width:

    b = Block(lanes=8, abilities=Abilities(has_fma=True, has_scalef=False))
    x = b.value("%x", "float")
    y = b.fma(x, x, 1.0)          # %m0 = call <8 x float> @llvm.fma.v8f32(...)

Arithmetic is strict IEEE: no instruction carries a fast-math flag, since the formulas depend on the
order of their operations.
"""

from __future__ import annotations

import functools
import itertools
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from aicc.target import Target

# LLVM's element types with the suffix that intrinsics carry.
_SUFFIX = {
    "float": "f32", "double": "f64", "half": "f16", "bfloat": "bf16",
    "i1": "i1", "i8": "i8", "i16": "i16", "i32": "i32", "i64": "i64",
}  # fmt: skip
_FLOATS = ("float", "double", "half", "bfloat")
_BITS = {"float": "i32", "double": "i64", "half": "i16", "bfloat": "i16"}


@dataclass(frozen=True)
class Abilities:
    """What vector math may use.

    `has_fma`: fused multiply-add; `has_scalef`: x86's AVX-512 instruction that multiplies by a
    power of two, with overflow and underflow done right.

    They depend on the target alone, never on the number of lanes: an element has the same bits in
    the vector part of a row and in its tail.
    """

    has_fma: bool
    has_scalef: bool

    @staticmethod
    @functools.lru_cache(maxsize=32)
    def of(target: Target) -> Abilities:
        features = target.feature_set
        scalef = target.arch == "x86_64" and {"avx512f", "avx512vl"} <= features
        return Abilities(target.has_fma, scalef)


class Block:
    """A place that instructions are appended to.

    `lines` receives the instructions, one a line, without indentation; `module` receives what has
    to stand outside of the function: name -> a declaration or definition; `fresh` gives a new SSA
    name, with its %. Those that are not given are the block's own.
    """

    def __init__(
        self,
        lanes: int,
        abilities: Abilities,
        lines: list[str] | None = None,
        module: dict[str, str] | None = None,
        fresh: Callable[[], str] | None = None,
    ) -> None:
        self.lanes = max(1, lanes)
        self.abilities = abilities
        self.lines: list[str] = [] if lines is None else lines
        self.module: dict[str, str] = {} if module is None else module
        numbers = itertools.count()
        self.fresh = fresh or (lambda: f"%m{next(numbers)}")

    # ---- types, constants, instructions ----------------------------------------------------------

    def type(self, kind: str) -> str:
        """The LLVM type of a value whose elements are `kind`."""
        return kind if self.lanes == 1 else f"<{self.lanes} x {kind}>"

    def mangled(self, kind: str) -> str:
        """The type as it stands in the name of an intrinsic, such as v8f32."""
        return _SUFFIX[kind] if self.lanes == 1 else f"v{self.lanes}{_SUFFIX[kind]}"

    def value(self, name: str, kind: str) -> Value:
        """An SSA value of the function being written, by its name."""
        return Value(self, name, kind)

    def const(self, number: float | int, kind: str) -> Value:
        """`number` in every lane."""
        text = constant(number, kind)
        return Value(self, text if self.lanes == 1 else f"splat ({kind} {text})", kind)

    def instruction(self, text: str, kind: str) -> Value:
        """Appends `<new name> = text`; `kind` is the element type of its result."""
        name = self.fresh()
        self.lines.append(f"{name} = {text}")
        return Value(self, name, kind)

    def declare(self, name: str, text: str) -> None:
        """Asks for `text`, the declaration or definition of `name`, once in the module."""
        self.module.setdefault(name, text)

    def call(self, name: str, args: Sequence[Value], kind: str, attributes: str = "") -> Value:
        """A call of a function of this block's types, declared with `attributes`."""
        types = ", ".join(self.type(a.kind) for a in args)
        result = self.type(kind)
        self.declare(name, f"declare {result} @{name}({types}){attributes}")
        operands = ", ".join(f"{self.type(a.kind)} {a.ref}" for a in args)
        return self.instruction(f"call {result} @{name}({operands})", kind)

    def intrinsic(self, name: str, *args: Value) -> Value:
        """`llvm.<name>` on operands of one type, which is also the result's."""
        kind = args[0].kind
        return self.call(f"llvm.{name}.{self.mangled(kind)}", args, kind)

    def _pair(self, a: Value | float, b: Value | float) -> tuple[Value, Value]:
        if isinstance(a, Value):
            return a, b if isinstance(b, Value) else self.const(b, a.kind)
        if not isinstance(b, Value):
            raise TypeError("one operand at least must be a Value")
        return self.const(a, b.kind), b

    # ---- operations ------------------------------------------------------------------------------

    def fma(self, a: Value, b: Value | float, c: Value | float) -> Value:
        """a*b + c, rounded once where the target can, else twice: formulas must bear both."""
        a, b = self._pair(a, b)
        a, c = self._pair(a, c)
        return self.intrinsic("fma", a, b, c) if self.abilities.has_fma else a * b + c

    def horner(self, x: Value, coefficients: Sequence[float]) -> Value:
        """c[0] + c[1] x + c[2] x^2 + ...: at least two coefficients."""
        *rest, last = coefficients
        total = self.const(last, x.kind)
        for c in reversed(rest):
            total = self.fma(x, total, c)
        return total

    def select(self, condition: Value, a: Value | float, b: Value | float) -> Value:
        a, b = self._pair(a, b)
        mask = f"{self.type('i1')} {condition.ref}"
        t = self.type(a.kind)
        return self.instruction(f"select {mask}, {t} {a.ref}, {t} {b.ref}", a.kind)

    def at_most(self, x: Value, bound: float) -> Value:
        """min(x, bound); a NaN stays."""
        return self.select(x.compare("ogt", bound), bound, x)

    def at_least(self, x: Value, bound: float) -> Value:
        """max(x, bound); a NaN stays."""
        return self.select(x.compare("olt", bound), bound, x)

    def abs(self, x: Value) -> Value:
        return self.intrinsic("fabs", x)

    def sqrt(self, x: Value) -> Value:
        return self.intrinsic("sqrt", x)

    def copysign(self, magnitude: Value, sign: Value) -> Value:
        return self.intrinsic("copysign", magnitude, sign)

    # ---- lane by lane ----------------------------------------------------------------------------

    def each_lane(self, kind: str, args: Sequence[Value], one: Callable[..., Value]) -> Value:
        """The vector of `one(scalar block, *lane)` over the lanes of `args`."""
        scalar = Block(1, self.abilities, self.lines, self.module, self.fresh)
        if self.lanes == 1:
            return one(scalar, *(Value(scalar, a.ref, a.kind) for a in args))
        result = Value(self, "poison", kind)
        for i in range(self.lanes):
            lane = []
            for a in args:
                element = self.instruction(
                    f"extractelement {self.type(a.kind)} {a.ref}, i64 {i}", a.kind
                )
                lane.append(Value(scalar, element.ref, a.kind))
            y = one(scalar, *lane)
            result = self.instruction(
                f"insertelement {self.type(kind)} {result.ref}, {kind} {y.ref}, i64 {i}", kind
            )
        return result

    def any(self, condition: Value) -> str:
        """The name of an i1: does `condition` hold in some lane?"""
        if self.lanes == 1:
            return condition.ref
        name = f"llvm.vector.reduce.or.v{self.lanes}i1"
        self.declare(name, f"declare i1 @{name}({self.type('i1')})")
        call = f"call i1 @{name}({self.type('i1')} {condition.ref})"
        return self.instruction(call, "i1").ref


@dataclass(frozen=True, eq=False)
class Value:
    """An SSA name or constant of a Block, with its element type. Numbers mix in as constants."""

    block: Block
    ref: str
    kind: str

    def _binary(self, op: str, a: Value | float, b: Value | float) -> Value:
        a, b = self.block._pair(a, b)
        if a.kind != b.kind:
            raise TypeError(f"{op} of {a.kind} and {b.kind}")
        return self.block.instruction(f"{op} {self.block.type(a.kind)} {a.ref}, {b.ref}", a.kind)

    @property
    def is_float(self) -> bool:
        return self.kind in _FLOATS

    def __add__(self, other: Value | float) -> Value:
        return self._binary("fadd" if self.is_float else "add", self, other)

    def __radd__(self, other: float) -> Value:
        return self._binary("fadd" if self.is_float else "add", other, self)

    def __sub__(self, other: Value | float) -> Value:
        return self._binary("fsub" if self.is_float else "sub", self, other)

    def __rsub__(self, other: float) -> Value:
        return self._binary("fsub" if self.is_float else "sub", other, self)

    def __mul__(self, other: Value | float) -> Value:
        return self._binary("fmul" if self.is_float else "mul", self, other)

    def __rmul__(self, other: float) -> Value:
        return self._binary("fmul" if self.is_float else "mul", other, self)

    def __truediv__(self, other: Value | float) -> Value:
        return self._binary("fdiv", self, other)

    def __rtruediv__(self, other: float) -> Value:
        return self._binary("fdiv", other, self)

    def __neg__(self) -> Value:
        return self.block.instruction(f"fneg {self.block.type(self.kind)} {self.ref}", self.kind)

    def __and__(self, other: Value | int) -> Value:
        return self._binary("and", self, other)

    def __or__(self, other: Value | int) -> Value:
        return self._binary("or", self, other)

    def __xor__(self, other: Value | int) -> Value:
        return self._binary("xor", self, other)

    def __lshift__(self, other: Value | int) -> Value:
        return self._binary("shl", self, other)

    def __rshift__(self, other: Value | int) -> Value:
        """Logical: zeros come in from the left. `shift_signed` keeps the sign."""
        return self._binary("lshr", self, other)

    def shift_signed(self, other: int) -> Value:
        return self._binary("ashr", self, other)

    def compare(self, predicate: str, other: Value | float) -> Value:
        """LLVM's fcmp or icmp: olt, ueq, uno... or slt, ult, eq...; a Value of i1."""
        a, b = self.block._pair(self, other)
        op = "fcmp" if self.is_float else "icmp"
        return self.block.instruction(
            f"{op} {predicate} {self.block.type(a.kind)} {a.ref}, {b.ref}", "i1"
        )

    def convert(self, op: str, kind: str) -> Value:
        """LLVM's conversion `op` (fpext, fptrunc, sitofp, zext, trunc, bitcast...) to `kind`."""
        b = self.block
        return b.instruction(f"{op} {b.type(self.kind)} {self.ref} to {b.type(kind)}", kind)

    def bits(self) -> Value:
        """The bits of a float as an integer of the same width."""
        return self.convert("bitcast", _BITS[self.kind])

    def as_float(self) -> Value:
        """The float or double whose bits an i32 or i64 holds."""
        return self.convert("bitcast", {"i32": "float", "i64": "double"}[self.kind])


def constant(number: Any, kind: str) -> str:
    """A number as LLVM text: integers in decimal, floats by the bits of the equal double."""
    if kind not in _FLOATS:
        return str(int(number))
    if kind in ("half", "bfloat"):
        raise TypeError("16-bit floats are converted, not computed with")
    exact = struct.unpack("<f", struct.pack("<f", number))[0] if kind == "float" else float(number)
    return f"0x{struct.unpack('<Q', struct.pack('<d', exact))[0]:016X}"
