"""pow, the hyperbolic functions and all inverse functions of float, computed in double.

They are rare in models, so they are short and accurate rather than fast: each is its textbook
formula in double arithmetic, whose 29 extra bits cover both the cancellation in the formula and
polynomials of 40 bits, and the only error that remains is about that of the rounding to float at
the end.

The polynomials are minimax approximations (Remez exchange at 50 digits, coefficients rounded to
double); `error` is relative to the function.
"""

from __future__ import annotations

import math

from aicc.codegen.vecmath.block import Block, Value

# As in exp_log: rounds to an integer that stands, with a bias, in the low bits.
_ROUND = 1.5 * 2.0**52
_BIAS = 1023

# e^r = 1 + r + r^2 (c0 + c1 r + ...) for |r| <= ln(2)/2; error 2^-39.7.
_EXP = (
    1.0,
    1.0,
    0.5000000000427284,
    0.16666666784522416,
    0.041666664402981404,
    0.008333281784637103,
    0.0013889197343794353,
    0.0001990895420825746,
    2.470823910289075e-05,
)
# 2 atanh(s) = 2 s + s^3 (c0 + c1 s^2 + ...) for |s| <= (sqrt(2) - 1) / (sqrt(2) + 1); error
# 2^-44.9.
_ATANH2 = (
    0.6666666667580883,
    0.3999999561903198,
    0.28572109467977397,
    0.22176175274817866,
    0.19584351340891662,
)
# atan(t) = t + t^3 (c0 + c1 t^2 + ...) for |t| <= tan(pi/8); error 2^-40.2.
_ATAN = (
    -0.3333333329568403,
    0.19999994320891537,
    -0.14285423394112812,
    0.11103999548172652,
    -0.08996799001883835,
    0.06991026166108763,
    -0.03792085490161822,
)
# asin(s) = s + s^3 (c0 + c1 s^2 + ...) for |s| <= 1/2; error 2^-39.9.
_ASIN = (
    0.16666666627480342,
    0.0750000496528159,
    0.04464071412947723,
    0.03042641139497407,
    0.021866768564475832,
    0.020640983142927463,
    0.001993397492231478,
    0.03289643509291998,
)
# Below this, the first two terms of the series of sinh, asinh and atanh are exact enough, and the
# logarithms begin to lose bits.
_SMALL = 2.0**-12


def _widen(x: Value) -> Value:
    return x.convert("fpext", "double")


def _narrow(x: Value) -> Value:
    """To float, rounded: beyond its range to infinity, below it to a denormal number or 0."""
    return x.convert("fptrunc", "float")


def _exp2(b: Block, z: Value) -> Value:
    """2^z, for z outside of float's range a number that is outside of it too."""
    z = b.at_most(b.at_least(z, -200.0), 200.0)
    magic = _ROUND + _BIAS
    shifted = z + magic
    r = (z - (shifted - magic)) * math.log(2.0)
    return b.horner(r, _EXP) * (shifted.bits() << 52).as_float()


def _log(b: Block, x: Value) -> Value:
    """ln x: NaN below 0, -infinity at 0. Not for denormal doubles, which no float becomes."""
    start = 0x3FE6A09E667F3BCD  # sqrt(1/2)
    bits = x.bits()
    e = (bits - start).shift_signed(52)
    m = (bits - (e << 52)).as_float()
    n = e.convert("trunc", "i32").convert("sitofp", "double")
    s = (m - 1.0) / (m + 1.0)
    z = s * s
    y = b.fma(n, math.log(2.0), b.fma(b.horner(z, _ATANH2) * z, s, s + s))
    regular = (bits - 1).compare("ult", 0x7FEFFFFFFFFFFFFF)
    special = b.select(x.compare("olt", 0.0), math.nan, x)
    special = b.select(x.compare("oeq", 0.0), -math.inf, special)
    return b.select(regular, y, special)


def _atan(b: Block, a: Value) -> Value:
    """atan a for a >= 0."""
    near = a.compare("olt", math.tan(math.pi / 8))
    far = a.compare("ogt", math.tan(3 * math.pi / 8))
    # tan(u + v) = (tan u + tan v) / (1 - tan u tan v), with u one of 0, pi/4, pi/2
    above = b.select(near, a, b.select(far, b.const(-1.0, "double"), a - 1.0))
    below = b.select(near, b.const(1.0, "double"), b.select(far, a, a + 1.0))
    turned = b.select(far, b.const(math.pi / 2, "double"), math.pi / 4)
    turned = b.select(near, b.const(0.0, "double"), turned)
    t = above / below
    z = t * t
    return b.fma(b.horner(z, _ATAN) * z, t, t) + turned


def _odd(b: Block, x: Value, a: Value, cubic: float, y: Value) -> Value:
    """a + cubic a^3 for small a = |x|, else y; as a float with the sign of x."""
    series = b.fma(a * a * cubic, a, a)
    return b.copysign(_narrow(b.select(a.compare("olt", _SMALL), series, y)), x)


def sinh(b: Block, x: Value) -> Value:
    """sinh x, within 1 ulp."""
    a = _widen(b.abs(x))
    e = _exp2(b, a * math.log2(math.e))
    return _odd(b, x, a, 1 / 6, (e - 1.0 / e) * 0.5)


def cosh(b: Block, x: Value) -> Value:
    """cosh x, within 1 ulp."""
    e = _exp2(b, _widen(x) * math.log2(math.e))
    return _narrow((e + 1.0 / e) * 0.5)


def asinh(b: Block, x: Value) -> Value:
    """The inverse of sinh, within 1 ulp."""
    a = _widen(b.abs(x))
    return _odd(b, x, a, -1 / 6, _log(b, a + b.sqrt(b.fma(a, a, 1.0))))


def acosh(b: Block, x: Value) -> Value:
    """NaN below 1."""
    w = _widen(x)
    return _narrow(_log(b, w + b.sqrt(w - 1.0) * b.sqrt(w + 1.0)))


def atanh(b: Block, x: Value) -> Value:
    """NaN beyond 1, infinity at 1."""
    a = _widen(b.abs(x))
    return _odd(b, x, a, 1 / 3, _log(b, (1.0 + a) / (1.0 - a)) * 0.5)


def atan(b: Block, x: Value) -> Value:
    """The angle, within pi/2, whose tangent is x, within 1 ulp."""
    return b.copysign(_narrow(_atan(b, _widen(b.abs(x)))), x)


def _asin(b: Block, a: Value) -> tuple[Value, Value]:
    """Whether a = |x| is above 1/2, and asin a below that and pi/4 - asin(a)/2 above, where
    asin a = pi/2 - 2 asin(sqrt((1 - a) / 2)); NaN beyond 1."""
    large = a.compare("ogt", 0.5)
    z = b.select(large, 0.5 - a * 0.5, a * a)
    s = b.select(large, b.sqrt(z), a)
    return large, b.fma(b.horner(z, _ASIN) * z, s, s)


def asin(b: Block, x: Value) -> Value:
    """NaN beyond 1."""
    large, y = _asin(b, _widen(b.abs(x)))
    return b.copysign(_narrow(b.select(large, math.pi / 2 - y * 2.0, y)), x)


def acos(b: Block, x: Value) -> Value:
    """NaN beyond 1; accurate near 1, where the result is small."""
    w = _widen(x)
    large, y = _asin(b, b.abs(w))
    half = b.select(w.compare("olt", 0.0), b.const(math.pi, "double"), 0.0)
    above = half + b.copysign(y * 2.0, w)
    return _narrow(b.select(large, above, math.pi / 2 - b.copysign(y, w)))


def pow(b: Block, x: Value, y: Value) -> Value:
    """x^y within 1 ulp, with the special cases of IEEE 754.

    x^0 and 1^y are 1 even for NaN; a negative finite x and a y that is no integer give NaN.
    """
    a = b.abs(x)
    size = _exp2(b, _widen(y) * (_log(b, _widen(a)) * math.log2(math.e)))
    result = _narrow(size)

    whole = b.intrinsic("rint", y).compare("oeq", y)
    half = y * 0.5
    # An infinite y counts as even, and so does every float from 2^24 on.
    odd = whole & b.intrinsic("rint", half).compare("one", half)
    negative = x.compare("olt", 0.0) & x.compare("ogt", -math.inf)
    result = b.select(negative & (whole ^ True), math.nan, result)
    one = x.compare("oeq", 1.0) | y.compare("oeq", 0.0)
    one = one | (x.compare("oeq", -1.0) & b.abs(y).compare("oeq", math.inf))
    result = b.select(one, 1.0, result)
    # The sign of x, -0 included, goes to odd powers.
    return b.select(odd, b.copysign(result, x), result)
