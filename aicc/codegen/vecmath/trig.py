"""sin, cos and tan of float, for every finite argument.

The argument is reduced to |x| = k pi/2 + r in double: up to 2^20 by subtracting k times pi/2 in
three parts (Cody and Waite), beyond by multiplying with the digits of 2/pi that matter (Payne and
Hanek). The second way is taken only where some lane needs it; so each function is a definition of
its own, with a branch inside, and the place that uses it is a call.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

from aicc.codegen.vecmath.block import Block, Value

_ROUND = 1.5 * 2.0**52  # as in exp_log, for doubles
_LARGE = 2.0**20

# pi/2 in parts of 33 bits: their products with k < 2^20 are exact.
_PI_2 = (
    float.fromhex("0x1.921fb544p+0"),
    float.fromhex("0x1.0b4611a6p-34"),
    float.fromhex("0x1.3198a2e037073p-69"),
)

# The first 256 bits of 2/pi, which is below 1.
_TWO_OVER_PI = 0xA2F9836E4E441529FC2757D1F534DDC0DB6295993C439041FE5163ABDEBBC561

# Minimax polynomials (Remez exchange at 50 digits, coefficients rounded to float) for |r| <= pi/4.
# sin r = r + r^3 (c0 + c1 r^2 + ...); error 2^-27.9
_SIN = (-0.16666655242443085, 0.008332189172506332, -0.0001951828453456983)
# cos r = 1 - r^2/2 + r^4 (c0 + c1 r^2 + ...); error 2^-33.0
_COS = (0.04166664555668831, -0.0013887310633435845, 2.4432578356936574e-05)
# tan r = r + r^3 (c0 + c1 r^2 + ...); error 2^-29.5
_TAN = (
    0.33333349227905273,
    0.13332675397396088,
    0.054058898240327835,
    0.021286364644765854,
    0.010826855897903442,
    9.919437434291467e-05,
    0.004372138995677233,
)

# (block, x, k as i32, r as float) -> result
Finish = Callable[[Block, Value, Value, Value], Value]


def sin(b: Block, x: Value) -> Value:
    """sin x within 2 ulp; NaN for an infinity."""
    return _reduced(b, "sin", x, _finish_sin)


def cos(b: Block, x: Value) -> Value:
    """cos x within 2 ulp; NaN for an infinity."""
    return _reduced(b, "cos", x, _finish_cos)


def tan(b: Block, x: Value) -> Value:
    """tan x within 3 ulp; NaN for an infinity."""
    return _reduced(b, "tan", x, _finish_tan)


def _finish_sin(b: Block, x: Value, k: Value, r: Value) -> Value:
    sign = (x.bits() & -(2**31)) ^ (k << 30)
    return _sine_of_quadrant(b, k, r, sign)


def _finish_cos(b: Block, x: Value, k: Value, r: Value) -> Value:
    k = k + 1
    return _sine_of_quadrant(b, k, r, k << 30)


def _sine_of_quadrant(b: Block, k: Value, r: Value, sign: Value) -> Value:
    """sin r or, for an odd k, cos r, with the sign bit of `sign` flipped into it."""
    z = r * r
    sine = b.fma(b.horner(z, _SIN) * z, r, r)
    cosine = b.fma(b.horner(z, _COS) * z, z, b.fma(z, -0.5, 1.0))
    y = b.select((k & 1).compare("ne", 0), cosine, sine)
    return (y.bits() ^ (sign & -(2**31))).as_float()


def _finish_tan(b: Block, x: Value, k: Value, r: Value) -> Value:
    z = r * r
    tangent = b.fma(b.horner(z, _TAN) * z, r, r)
    y = b.select((k & 1).compare("ne", 0), -1.0 / tangent, tangent)
    return (y.bits() ^ (x.bits() & -(2**31))).as_float()


def _reduced(b: Block, name: str, x: Value, finish: Finish) -> Value:
    """A call of the function `name`, which is defined in the module if it is not there yet."""
    symbol = f"aicc.{name}.{b.mangled('float')}"
    if symbol not in b.module:
        b.declare(symbol, _definition(b, symbol, finish))
    t = b.type("float")
    return b.instruction(f"call {t} @{symbol}({t} {x.ref})", "float")


def _definition(b: Block, symbol: str, finish: Finish) -> str:
    fast = Block(b.lanes, b.abilities, module=b.module)
    slow = Block(b.lanes, b.abilities, module=b.module, fresh=fast.fresh)
    done = Block(b.lanes, b.abilities, module=b.module, fresh=fast.fresh)

    a = fast.abs(fast.value("%x", "float"))
    w = a.convert("fpext", "double")
    shifted = fast.fma(w, 2 / math.pi, _ROUND)
    n = shifted - _ROUND
    r = w
    for part in _PI_2:
        r = fast.fma(n, -part, r)
    k = shifted.bits().convert("trunc", "i32")
    # Not for NaN, which stays one on the fast way.
    large = a.compare("oge", _LARGE)
    some = fast.any(large)

    slow_k, slow_r = _payne_hanek(slow, slow.value(a.ref, "float"))
    is_large = slow.value(large.ref, "i1")
    slow_k = slow.select(is_large, slow_k, slow.value(k.ref, "i32"))
    slow_r = slow.select(is_large, slow_r, slow.value(r.ref, "double"))

    ints, doubles, t = b.type("i32"), b.type("double"), b.type("float")
    y = finish(
        done,
        done.value("%x", "float"),
        done.value("%k", "i32"),
        done.value("%r", "double").convert("fptrunc", "float"),
    )
    lines = [
        f"define internal {t} @{symbol}({t} %x) nounwind {{",
        "entry:",
        *fast.lines,
        f"br i1 {some}, label %slow, label %done",
        "slow:",
        *slow.lines,
        "br label %done",
        "done:",
        f"%k = phi {ints} [ {k.ref}, %entry ], [ {slow_k.ref}, %slow ]",
        f"%r = phi {doubles} [ {r.ref}, %entry ], [ {slow_r.ref}, %slow ]",
        *done.lines,
        f"ret {t} {y.ref}",
        "}",
    ]
    return "\n".join(lines)


def _payne_hanek(b: Block, a: Value) -> tuple[Value, Value]:
    """k mod 4 (i32) and r (double) of a >= 2^20; for an infinity r is NaN."""
    quarters = b.each_lane("i64", (a,), _quarter_turns)
    k = (quarters + 2**61) >> 62
    # What is left is signed; times pi/2 and 2^-62 it is r.
    rest = (quarters - (k << 62)).convert("sitofp", "double")
    finite = a.convert("fpext", "double")
    r = rest * (math.pi / 2 * 2.0**-62) + (finite - finite)
    return k.convert("trunc", "i32"), r


def _quarter_turns(b: Block, a: Value) -> Value:
    """a * 2/pi modulo 4 in units of 2^-62, for one lane.

    a = m 2^(e - 150) with a mantissa m of 24 bits. Of 2/pi, the bits with weights 2^(152 - e) to
    2^(57 - e) matter: those before give multiples of 4, those after less than one unit. The table
    holds words of 32 bits from every eighth bit on; m takes the remaining shift of up to 7.
    """
    b.declare("aicc.two_over_pi", _table())
    bits = a.bits()
    # From 2^20 on, e is at least 147. Whatever the index is for others, it stays inside of the
    # table.
    e = ((bits >> 23) - 144) & 127
    m = ((bits & 0x7FFFFF) | 0x800000).convert("zext", "i64") << (e & 7).convert("zext", "i64")
    first = e >> 3

    def word(offset: int) -> Value:
        at = first + offset
        place = b.instruction(f"getelementptr i32, ptr @aicc.two_over_pi, i32 {at.ref}", "i32").ref
        return b.instruction(f"load i32, ptr {place}, align 4", "i32").convert("zext", "i64")

    return ((m * word(0)) << 32) + m * word(4) + ((m * word(8)) >> 32)


@functools.cache
def _table() -> str:
    """24 words: word j holds the bits 8j - 7 to 8j + 24 of 2/pi after the binary point."""
    words = [(_TWO_OVER_PI >> (256 - (8 * j + 24))) & 0xFFFFFFFF for j in range(24)]
    values = ", ".join(f"i32 {w}" for w in words)
    return f"@aicc.two_over_pi = internal unnamed_addr constant [24 x i32] [{values}]"
