"""Powers of integers, by repeated squaring."""

from __future__ import annotations

from aicc.codegen.vecmath.block import Block, Value


def pow(b: Block, x: Value, y: Value, signed: bool) -> Value:
    """x^y, wrapped around.

    For a negative y it is the quotient 1 / x^-y truncated: 0 unless |x| is 1, and 0 for x = 0.
    """
    name = f"aicc.pow.{'s' if signed else 'u'}.{b.mangled(x.kind)}"
    b.declare(name, _definition(b, name, x.kind, signed))
    t = b.type(x.kind)
    return b.instruction(f"call {t} @{name}({t} {x.ref}, {t} {y.ref})", x.kind)


def _definition(b: Block, name: str, kind: str, signed: bool) -> str:
    t = b.type(kind)
    entry = Block(b.lanes, b.abilities, module=b.module)
    x, y = entry.value("%x", kind), entry.value("%y", kind)
    exponent, base = y, x
    if signed:
        inverse = y.compare("slt", 0)
        exponent = entry.select(inverse, 0 - y, y)
        is_unit = x.compare("eq", 1) | x.compare("eq", -1)
        base = entry.select(inverse & (is_unit ^ True), 0, x)
    body = Block(b.lanes, b.abilities, module=b.module, fresh=entry.fresh)
    r, square, e = (body.value(f"%{v}", kind) for v in ("r", "square", "e"))
    next_r = body.select((e & 1).compare("ne", 0), r * square, r)
    next_square, next_e = square * square, e >> 1
    more = body.any(next_e.compare("ne", 0))
    one = entry.const(1, kind).ref
    lines = [
        f"define internal {t} @{name}({t} %x, {t} %y) nounwind {{",
        "entry:",
        *entry.lines,
        "br label %loop",
        "loop:",
        f"%r = phi {t} [ {one}, %entry ], [ {next_r.ref}, %loop ]",
        f"%square = phi {t} [ {base.ref}, %entry ], [ {next_square.ref}, %loop ]",
        f"%e = phi {t} [ {exponent.ref}, %entry ], [ {next_e.ref}, %loop ]",
        *body.lines,
        f"br i1 {more}, label %loop, label %done",
        "done:",
        f"ret {t} {next_r.ref}",
        "}",
    ]
    return "\n".join(lines)
