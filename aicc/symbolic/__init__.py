"""Integer expressions over named sizes and loop variables: one algebra for shapes and for indices.

A `Size` is an `int`, or a `Dim` where it depends on a symbol. Arithmetic keeps a canonical form, a
polynomial over atoms, so that equal expressions are equal objects and most simplification happens
by construction:

    size  ::= int | Dim
    Dim   ::= const + sum(coefficient * product of atoms)
    atom  ::= Sym(name, lo, hi)          a named size or a loop variable, lo <= value <= hi
            | FloorDiv(size, size) | Mod(size, size)     floor semantics, positive divisor
            | Min(size, size) | Max(size, size)
            | Opaque(payload)            an integer that the algebra cannot look into (a load)

A result without symbols is always a plain `int`. Symbols carry their own range, which is what lets
`(16*o + i)//16` become `o` where `i` is in 0..15.
"""

from __future__ import annotations

from aicc.symbolic.algebra import (
    Dim,
    Size,
    add,
    ceildiv,
    divides,
    floordiv,
    from_atom,
    hi_of,
    lo_of,
    loop_var,
    maximum,
    minimum,
    mod,
    mul,
    opaque,
    opaques,
    product,
    proves_le,
    proves_lt,
    sym,
    symbols,
    value_range,
)
from aicc.symbolic.atoms import (
    Atom,
    Bound,
    FloorDiv,
    Max,
    Min,
    Mod,
    Monomial,
    Opaque,
    Sym,
    print_name,
    print_range,
)
from aicc.symbolic.inside import (
    atoms,
    coefficient,
    evaluate,
    exchange,
    gcd_of,
    map_opaque,
    recombine,
    substitute,
)

__all__ = [
    "Atom",
    "Bound",
    "Dim",
    "FloorDiv",
    "Max",
    "Min",
    "Mod",
    "Monomial",
    "Opaque",
    "Size",
    "Sym",
    "add",
    "atoms",
    "ceildiv",
    "coefficient",
    "divides",
    "evaluate",
    "exchange",
    "floordiv",
    "from_atom",
    "gcd_of",
    "hi_of",
    "lo_of",
    "loop_var",
    "map_opaque",
    "maximum",
    "minimum",
    "mod",
    "mul",
    "opaque",
    "opaques",
    "print_name",
    "print_range",
    "product",
    "proves_le",
    "proves_lt",
    "recombine",
    "substitute",
    "sym",
    "symbols",
    "value_range",
]
