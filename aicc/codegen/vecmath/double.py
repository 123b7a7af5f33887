"""exp, log, tanh, sin and cos of double.

The polynomials interpolate at the Chebyshev nodes (60 digits, coefficients rounded to double);
`error` is relative to the function. The bounds in the docstrings are those that tests measure
against the C library's 80-bit functions.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from aicc.codegen.vecmath import libm
from aicc.codegen.vecmath.block import Block, Value
from aicc.codegen.vecmath.scalef import scalef

# As in exp_log: rounds to an integer that stands, with a bias, in the low bits.
_ROUND = 1.5 * 2.0**52
_BIAS = 1023

# ln 2 in two parts: the first has 41 bits, so that its product with an exponent is exact.
_LN2_HIGH = float.fromhex("0x1.62e42fefa3p-1")
_LN2_LOW = float.fromhex("0x1.3de6af278ece6p-42")

# e^r = 1 + r + r^2 (c0 + c1 r + ...) for |r| <= ln(2)/2; error 2^-59.8.
_EXP = (
    0.5,
    0.16666666666666669,
    0.041666666666666664,
    0.008333333333330058,
    0.0013888888888886097,
    0.00019841269863073703,
    2.4801587318743724e-05,
    2.7557268428794873e-06,
    2.755728093763124e-07,
    2.510040033256883e-08,
    2.0912083364566187e-09,
)
# 2 atanh(s) = 2 s + s^3 (c0 + c1 s^2 + ...) for |s| <= (sqrt(2) - 1) / (sqrt(2) + 1); error
# 2^-57.6.
_ATANH2 = (
    0.666666666666667,
    0.3999999999989938,
    0.28571428626031065,
    0.2222221112572281,
    0.18182889786191042,
    0.15331699633543858,
    0.14616721179861816,
)
# sin r = r + r^3 (c0 + c1 r^2 + ...) for |r| <= pi/4; error 2^-55.5
_SIN = (
    -0.16666666666666666,
    0.008333333333330946,
    -0.0001984126983675497,
    2.755731610068303e-06,
    -2.5051131455427946e-08,
    1.591810123027412e-10,
)
# cos r = 1 - r^2/2 + r^4 (c0 + c1 r^2 + ...) for |r| <= pi/4; error 2^-59.5
_COS = (
    0.041666666666666664,
    -0.0013888888888887395,
    2.4801587298763433e-05,
    -2.7557317270560326e-07,
    2.0876146024689743e-09,
    -1.1382614868556182e-11,
)
# pi/2 in parts of 33 bits: their products with k < 2^20 are exact.
_PI_2 = (
    float.fromhex("0x1.921fb544p+0"),
    float.fromhex("0x1.0b4611a6p-34"),
    float.fromhex("0x1.3198a2ep-69"),
    float.fromhex("0x1.b839a252049c1p-104"),
)
_LARGE = 2.0**20
# Above this argument tanh is 1 in double.
_TANH_ONE = 19.1

# (block, x, k in the low bits of an i64, r) -> result
Finish = Callable[[Block, Value, Value, Value], Value]


def exp(b: Block, x: Value) -> Value:
    """e^x within 1 ulp.

    A result below the normal range is rounded to a denormal number.
    """
    # Beyond these bounds the result is infinity or 0 for good.
    x = b.at_most(b.at_least(x, -746.0), 710.0)
    shifted, n, r = _reduce(b, x, _ROUND + 2 * _BIAS)
    p = b.fma(b.horner(r, _EXP) * r, r, r) + 1.0
    if (scaled := scalef(b, p, n)) is not None:
        return scaled
    # As in exp_log: 2^n in two factors, of which the last rounds.
    exponents = shifted.bits()
    half = exponents >> 1
    return p * (half << 52).as_float() * ((exponents - half) << 52).as_float()


def _reduce(b: Block, x: Value, magic: float) -> tuple[Value, Value, Value]:
    """magic + n, n and x - n ln 2 for the integer n that is nearest to x / ln 2."""
    shifted = b.fma(x, math.log2(math.e), magic)
    n = shifted - magic
    r = b.fma(n, -_LN2_HIGH, x)
    return shifted, n, b.fma(n, -_LN2_LOW, r)


def log(b: Block, x: Value) -> Value:
    """ln x within 1 ulp; NaN below 0, -infinity at 0."""
    tiny = x.compare("olt", 2.0**-1022)
    scaled = b.select(tiny, x * 2.0**54, x)
    # x = 2^e * m with sqrt(1/2) <= m < sqrt(2)
    start = 0x3FE6A09E667F3BCD
    e = (scaled.bits() - start).shift_signed(52)
    m = (scaled.bits() - (e << 52)).as_float()
    n = e.convert("trunc", "i32").convert("sitofp", "double")
    n = n + b.select(tiny, b.const(-54.0, "double"), 0.0)
    f = m - 1.0
    s = f / (f + 2.0)
    z = s * s
    # ln(1 + f) = f - (f^2/2 - s (f^2/2 + R)) with R = 2 atanh(s)/s - 2: f is exact.
    half = f * f * 0.5
    rest = b.fma(b.horner(z, _ATANH2), z, half) * s
    y = b.fma(n, _LN2_HIGH, f - (half - b.fma(n, _LN2_LOW, rest)))
    # What is not positive and finite: 0 gives -infinity, infinity and NaN stay, the rest is NaN.
    regular = (x.bits() - 1).compare("ult", 0x7FEFFFFFFFFFFFFF)
    special = b.select(x.compare("olt", 0.0), math.nan, x)
    special = b.select(x.compare("oeq", 0.0), -math.inf, special)
    return b.select(regular, y, special)


def tanh(b: Block, x: Value) -> Value:
    """tanh x within 3 ulp: E / (E + 2) with E = e^2|x| - 1."""
    a = b.abs(x)
    c = b.at_most(a, _TANH_ONE)
    shifted, _, r = _reduce(b, c + c, _ROUND + _BIAS)
    power = (shifted.bits() << 52).as_float()
    q = b.fma(b.horner(r, _EXP) * r, r, r)
    e = b.fma(power, q, power - 1.0)
    return b.copysign(b.select(x.compare("uno", 0.0), x, e / (e + 2.0)), x)


def sin(b: Block, x: Value) -> Value:
    """sin x within 2.5 ulp; NaN for an infinity."""

    def finish(b: Block, x: Value, k: Value, r: Value) -> Value:
        return _sine_of_quadrant(b, k, r, x.bits() ^ (k << 62))

    return _reduced(b, "sin", x, finish)


def cos(b: Block, x: Value) -> Value:
    """cos x within 2.5 ulp; NaN for an infinity."""

    def finish(b: Block, x: Value, k: Value, r: Value) -> Value:
        k = k + 1
        return _sine_of_quadrant(b, k, r, k << 62)

    return _reduced(b, "cos", x, finish)


def _sine_of_quadrant(b: Block, k: Value, r: Value, sign: Value) -> Value:
    """sin r or, for an odd k, cos r, with the sign bit of `sign` flipped into it."""
    z = r * r
    sine = b.fma(b.horner(z, _SIN) * z, r, r)
    half = z * 0.5
    top = 1.0 - half
    # What rounding took from 1 - z/2 is added with the small terms.
    cosine = top + b.fma(b.horner(z, _COS) * z, z, (1.0 - top) - half)
    y = b.select((k & 1).compare("ne", 0), cosine, sine)
    return (y.bits() ^ (sign & -(2**63))).as_float()


def _reduced(b: Block, name: str, x: Value, finish: Finish) -> Value:
    """A call of the function `name`, which is defined in the module if it is not there yet."""
    symbol = f"aicc.{name}.{b.mangled('double')}"
    if symbol not in b.module:
        b.declare(symbol, _definition(b, name, symbol, finish))
    t = b.type("double")
    return b.instruction(f"call {t} @{symbol}({t} {x.ref})", "double")


def _definition(b: Block, name: str, symbol: str, finish: Finish) -> str:
    """Cody and Waite's reduction of |x| below 2^20, the C library beyond: both give the same bits
    wherever a lane stands."""
    fast = Block(b.lanes, b.abilities, module=b.module)
    slow = Block(b.lanes, b.abilities, module=b.module, fresh=fast.fresh)
    x = fast.value("%x", "double")
    a = fast.abs(x)
    shifted = fast.fma(a, 2 / math.pi, _ROUND)
    n = shifted - _ROUND
    r = a
    for part in _PI_2:
        r = fast.fma(n, -part, r)
    y = finish(fast, x, shifted.bits(), r)
    # Not for NaN, which stays one on the fast way.
    large = a.compare("oge", _LARGE)
    some = fast.any(large)
    other = libm.call(slow, name, [slow.value("%x", "double")])
    chosen = slow.select(slow.value(large.ref, "i1"), other, slow.value(y.ref, "double"))
    t = b.type("double")
    lines = [
        f"define internal {t} @{symbol}({t} %x) nounwind {{",
        "entry:",
        *fast.lines,
        f"br i1 {some}, label %slow, label %done",
        "slow:",
        *slow.lines,
        "br label %done",
        "done:",
        f"%y = phi {t} [ {y.ref}, %entry ], [ {chosen.ref}, %slow ]",
        f"ret {t} %y",
        "}",
    ]
    return "\n".join(lines)
