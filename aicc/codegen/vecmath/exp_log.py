"""exp, log, tanh and erf of float, each a formula without branches.

The polynomials are minimax approximations (Remez exchange at 50 digits, weighted so that the error
is relative to the function's value; the coefficients are then rounded to float one by one from the
lowest power, and the rest fitted again). `error` in the comments is that of the formula in exact
arithmetic with the rounded coefficients; the bounds in the docstrings are measured over all 2^32
arguments.
"""

from __future__ import annotations

import math

from aicc.codegen.vecmath.block import Block, Value
from aicc.codegen.vecmath.scalef import scalef

# Adding 1.5 * 2^23 to a number below 2^22 rounds it to an integer, which then stands in the low
# bits. With a bias added it stands there as the exponent of a float, up to a shift to the left by
# 23 bits.
_ROUND = 1.5 * 2.0**23
_BIAS = 127

# ln 2 in two parts: the first has 15 bits, so that its product with an exponent is exact.
_LN2_HIGH = float.fromhex("0x1.62e4p-1")
_LN2_LOW = 1.428606765330187e-06

# e^r = 1 + r + r^2 (c0 + c1 r + ...) for |r| <= ln(2)/2; error 2^-28.2.
_EXP = (
    1.0,
    1.0,
    0.4999999403953552,
    0.16666515171527863,
    0.0416681170463562,
    0.00836934894323349,
    0.0013837466249242425,
)

# ln(1 + f) = f - f^2/2 + f^3 (c0 + c1 f + ...) for sqrt(1/2) <= 1 + f <= sqrt(2); error 2^-27.4.
_LOG = (
    0.3333333134651184,
    -0.250008225440979,
    0.20001259446144104,
    -0.16623321175575256,
    0.14200955629348755,
    -0.13159742951393127,
    0.12767401337623596,
    -0.07643263787031174,
)

# tanh(a) = a + a^3 (c0 + c1 a^2 + ...) for a <= 0.625; error 2^-27.7.
_TANH_SMALL = 0.625
_TANH = (
    -0.3333328068256378,
    0.13331405818462372,
    -0.05373650789260864,
    0.02062812702489853,
    -0.005692214239388704,
)
# Above this argument tanh is 1 in float.
_TANH_ONE = 9.02

# -ln(1 - erf(a)) = a + a (c0 + c1 a + ...) for a <= 4; error of the erf that follows from it
# 2^-27.8.
_ERF = (
    0.12837916612625122,
    0.6366195678710938,
    0.10277630388736725,
    -0.01914781890809536,
    -0.0001695258979452774,
    0.0016757213743403554,
    -0.0006374050281010568,
    0.00011887846630997956,
    -9.390510967932642e-06,
)
# e^f - 1 = f + f^2 (c0 + c1 f + ...) for |f| <= ln(2)/2; error of the erf that follows 2^-27.4.
# Weighted in units in the last place of erf, more where the rounding of q leaves the least room.
_EXPM1 = (
    0.4999998211860657,
    0.16666512191295624,
    0.04167109727859497,
    0.008369415067136288,
    0.00136737828142941,
)
# Above this argument erf is 1 in float.
_ERF_ONE = 4.0


def exp(b: Block, x: Value) -> Value:
    """e^x within 1.2 ulp, 1 with fused multiply-add.

    A result below the normal range is rounded to a denormal number.
    """
    # Beyond these bounds the result is infinity or 0 for good.
    x = b.at_most(b.at_least(x, -104.0), 89.0)
    magic = _ROUND + 2 * _BIAS
    shifted = b.fma(x, math.log2(math.e), magic)
    n = shifted - magic
    r = b.fma(n, -_LN2_HIGH, x)
    r = b.fma(n, -_LN2_LOW, r)
    p = b.horner(r, _EXP)
    if (scaled := scalef(b, p, n)) is not None:
        return scaled
    # 2^n is out of range at both ends, two factors of it are not. The low bits hold n + 2 * 127.
    # Only the last product rounds, so that both ways give the same bits.
    exponents = shifted.bits()
    half = exponents >> 1
    return p * (half << 23).as_float() * ((exponents - half) << 23).as_float()


def log(b: Block, x: Value) -> Value:
    """ln x within 1 ulp; NaN below 0, -infinity at 0."""
    tiny = x.compare("olt", 2.0**-126)
    scaled = b.select(tiny, x * 2.0**23, x)
    # x = 2^e * m with sqrt(1/2) <= m < sqrt(2)
    start = 0x3F3504F3
    e = (scaled.bits() - start).shift_signed(23)
    m = (scaled.bits() - (e << 23)).as_float()
    n = e.convert("sitofp", "float") + b.select(tiny, b.const(-23.0, "float"), 0.0)
    f = m - 1.0
    z = f * f
    y = b.horner(f, _LOG) * f * z
    y = b.fma(n, _LN2_LOW, y)
    y = b.fma(z, -0.5, y)
    y = b.fma(n, _LN2_HIGH, f + y)
    # What is not positive and finite: 0 gives -infinity, infinity and NaN stay, the rest is NaN.
    regular = (x.bits() - 1).compare("ult", 0x7F7FFFFF)
    special = b.select(x.compare("olt", 0.0), math.nan, x)
    special = b.select(x.compare("oeq", 0.0), -math.inf, special)
    return b.select(regular, y, special)


def tanh(b: Block, x: Value) -> Value:
    """tanh x within 2 ulp."""
    a = b.abs(x)
    z = a * a
    small = b.fma(b.horner(z, _TANH) * z, a, a)
    # 1 - 2 / (e^2a + 1), with 2a = n ln 2 + 2r
    c = b.at_most(a, _TANH_ONE)
    magic = _ROUND + _BIAS
    shifted = b.fma(c, 2.0 * math.log2(math.e), magic)
    n = shifted - magic
    r = b.fma(n, -_LN2_HIGH / 2, c)
    r = b.fma(n, -_LN2_LOW / 2, r)
    p = b.horner(r, [coefficient * 2.0**i for i, coefficient in enumerate(_EXP)])
    large = 1.0 - 2.0 / b.fma(p, (shifted.bits() << 23).as_float(), 1.0)
    # A NaN takes the polynomial, which keeps it.
    return b.copysign(b.select(a.compare("oge", _TANH_SMALL), large, small), x)


def erf(b: Block, x: Value) -> Value:
    """The error function within 2 ulp, as 1 - e^-q for a polynomial q.

    With -q = n ln 2 + f and s = 2^n that is (1 - s) - s (e^f - 1), which is accurate near 0 too,
    where n = 0.
    """
    a = b.at_most(b.abs(x), _ERF_ONE)
    q = b.fma(b.horner(a, _ERF), a, a)
    magic = _ROUND + _BIAS
    shifted = b.fma(q, -math.log2(math.e), magic)
    # One part of ln 2 is enough: where n is large, s is small.
    f = b.fma(magic - shifted, math.log(2.0), -q)
    g = b.fma(b.horner(f, _EXPM1) * f, f, f)
    s = (shifted.bits() << 23).as_float()
    return b.copysign(b.fma(-s, g, 1.0 - s), x)
