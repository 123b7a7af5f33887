"""x86's instructions that multiply by a power of two."""

from __future__ import annotations

from aicc.codegen.vecmath.block import Block, Value

_SUFFIX = {"float": ("ps", 32), "double": ("pd", 64)}


def scalef(b: Block, p: Value, n: Value) -> Value | None:
    """p * 2^n, rounded once, by vscalefps or vscalefpd; n is an integer held in a float or a double
    as p is. None where the machine has none for so many lanes."""
    suffix, bits = _SUFFIX[p.kind]
    width = b.lanes * bits
    if not b.abilities.has_scalef or width not in (128, 256, 512):
        return None
    t, mask = b.type(p.kind), f"i{max(8, b.lanes)}"
    name = f"llvm.x86.avx512.mask.scalef.{suffix}.{width}"
    # The widest form takes a rounding mode: 4 is that of the current direction.
    mode, mode_type = (", i32 4", ", i32") if width == 512 else ("", "")
    b.declare(name, f"declare {t} @{name}({t}, {t}, {t}, {mask}{mode_type})")
    return b.instruction(
        f"call {t} @{name}({t} {p.ref}, {t} {n.ref}, {t} zeroinitializer, {mask} -1{mode})",
        p.kind,
    )
