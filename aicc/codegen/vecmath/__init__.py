"""Vector math: a scalar operation's name becomes LLVM instructions, for any number of lanes.

    block = Block(lanes=16, abilities=Abilities.of(target), lines=..., module=..., fresh=...)
    y = expand(block, "exp", "f32", ["%x"])

appends the instructions of exp on <16 x float> to the block's lines and returns the SSA name of the
result; what they need outside of the function (declarations of intrinsics, definitions of helpers)
is in `block.module` afterwards. Nothing is called for float but LLVM's own instructions and
internal helpers, so that the code is vector code on every target.

Accuracy in float: exp and log 1 ulp (exp 1.2 without fused multiply-add), tanh and erf 2, sin and
cos 2, tan 3, the others 1; over all arguments, with infinities, NaN, -0 and denormal numbers
treated as IEEE 754 recommends. In double exp and log have 1 ulp, sin and cos 2.5, tanh 3; the
others, and sin and cos from 2^20 on, are the C library's, lane by lane. 16-bit floats are computed
in float. An element has the same bits whatever the number of lanes is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from aicc.codegen.vecmath import double, exp_log, integer, libm, modulo, trig, wide
from aicc.codegen.vecmath.block import Abilities, Block, Value
from aicc.errors import CodegenError

__all__ = ["OPERATIONS", "Abilities", "Block", "Value", "expand", "remainder", "supports"]

_INTRINSICS = {"sqrt": "sqrt", "floor": "floor", "ceil": "ceil", "trunc": "trunc", "round": "rint"}
_FLOAT: dict[str, Callable[..., Value]] = {
    "exp": exp_log.exp,
    "log": exp_log.log,
    "tanh": exp_log.tanh,
    "erf": exp_log.erf,
    "sin": trig.sin,
    "cos": trig.cos,
    "tan": trig.tan,
    "pow": wide.pow,
    "sinh": wide.sinh,
    "cosh": wide.cosh,
    "asin": wide.asin,
    "acos": wide.acos,
    "atan": wide.atan,
    "asinh": wide.asinh,
    "acosh": wide.acosh,
    "atanh": wide.atanh,
}
_DOUBLE: dict[str, Callable[..., Value]] = {
    "exp": double.exp,
    "log": double.log,
    "tanh": double.tanh,
    "sin": double.sin,
    "cos": double.cos,
}
_KINDS = {"f64": "double", "f32": "float", "f16": "half", "bf16": "bfloat"}

# Names as in the scalar operations of the tensor IR. All are unary but pow.
OPERATIONS = frozenset({*_INTRINSICS, *_FLOAT})


def supports(op: str, dtype: str) -> bool:
    """Is `op` of `dtype` expanded here? All OPERATIONS on floats, and pow on integers."""
    return op in OPERATIONS and (dtype in _KINDS or (op == "pow" and _integer(dtype) is not None))


def expand(block: Block, op: str, dtype: str, args: Sequence[str]) -> str:
    """Appends `op` of `args`, SSA names or constants of `dtype`; returns the result's name.

    Raises CodegenError for what `supports` denies and for a wrong number of operands.
    """
    if not supports(op, dtype):
        raise CodegenError(f"vector math has no {op!r} of {dtype}")
    arity = 2 if op == "pow" else 1
    if len(args) != arity:
        raise CodegenError(f"{op} takes {arity} operands, not {len(args)}")
    integer_kind = _integer(dtype)
    if integer_kind is not None:
        x, y = (block.value(a, integer_kind) for a in args)
        return integer.pow(block, x, y, signed=dtype[0] == "i").ref
    return _float(block, op, [block.value(a, _KINDS[dtype]) for a in args]).ref


def remainder(block: Block, dtype: str, x: str, y: str) -> str:
    """The exact remainder of x / y, of a float `dtype`, with the sign of x; as `expand` otherwise.

    Of half floats that of the floats that they are is exact too.
    """
    kind = _KINDS[dtype]
    a, b = block.value(x, kind), block.value(y, kind)
    if kind in ("half", "bfloat"):
        wide = modulo.remainder(block, a.convert("fpext", "float"), b.convert("fpext", "float"))
        return wide.convert("fptrunc", kind).ref
    return modulo.remainder(block, a, b).ref


def _float(block: Block, op: str, values: list[Value]) -> Value:
    kind = values[0].kind
    if kind in ("half", "bfloat"):
        wide_values = [v.convert("fpext", "float") for v in values]
        return _float(block, op, wide_values).convert("fptrunc", kind)
    if op in _INTRINSICS:
        return block.intrinsic(_INTRINSICS[op], *values)
    if kind == "double":
        if op in _DOUBLE:
            return _DOUBLE[op](block, *values)
        return libm.call(block, op, values)
    return _FLOAT[op](block, *values)


def _integer(dtype: str) -> str | None:
    """The LLVM type of an integer dtype; None for others."""
    return f"i{dtype[1:]}" if dtype[0] in "iu" else None
