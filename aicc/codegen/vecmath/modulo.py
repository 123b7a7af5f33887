"""The remainder of a division of floats or doubles, exact as IEEE 754 and C's fmod have it."""

from __future__ import annotations

from aicc.codegen.vecmath.block import Block, Value

_PRECISION = {"float": 23, "double": 52}
"""Quotients below 2 to this power are integers with a fraction."""


def remainder(b: Block, x: Value, y: Value) -> Value:
    """x - y trunc(x / y), with the sign of x; NaN for y = 0 and for infinite x.

    With q the rounded quotient's integer part, |x| - q |y| is a number of the type: one fused
    multiply-add computes it without rounding. Where the quotient was rounded up to an integer it
    is negative, and |y| is missing. Larger quotients, and targets without such an instruction,
    take LLVM's `frem`, a call for each lane.
    """
    if not b.abilities.has_fma:
        return _frem(b, x, y)
    symbol = f"aicc.remainder.{b.mangled(x.kind)}"
    if symbol not in b.module:
        b.declare(symbol, _definition(b, symbol, x.kind))
    t = b.type(x.kind)
    return b.instruction(f"call {t} @{symbol}({t} {x.ref}, {t} {y.ref})", x.kind)


def _frem(b: Block, x: Value, y: Value) -> Value:
    return b.instruction(f"frem {b.type(x.kind)} {x.ref}, {y.ref}", x.kind)


def _definition(b: Block, symbol: str, kind: str) -> str:
    fast = Block(b.lanes, b.abilities, module=b.module)
    slow = Block(b.lanes, b.abilities, module=b.module, fresh=fast.fresh)
    x = fast.value("%x", kind)
    size, unit = fast.abs(x), fast.abs(fast.value("%y", kind))
    quotient = size / unit
    r = fast.fma(-fast.intrinsic("trunc", quotient), unit, size)
    r = fast.select(r.compare("olt", 0.0), r + unit, r)
    # Also for an infinite y, of which the product would be no number.
    r = fast.select(size.compare("olt", unit), size, r)
    y = fast.copysign(r, x)
    # Not for NaN, which the quotient and the remainder are then.
    some = fast.any(quotient.compare("oge", 2.0 ** _PRECISION[kind]))
    exact = _frem(slow, slow.value("%x", kind), slow.value("%y", kind))
    t = b.type(kind)
    lines = [
        f"define internal {t} @{symbol}({t} %x, {t} %y) nounwind {{",
        "entry:",
        *fast.lines,
        f"br i1 {some}, label %slow, label %done",
        "slow:",
        *slow.lines,
        "br label %done",
        "done:",
        f"%r = phi {t} [ {y.ref}, %entry ], [ {exact.ref}, %slow ]",
        f"ret {t} %r",
        "}",
    ]
    return "\n".join(lines)
