"""Quotients and remainders of integers, and remainders that have the sign of the divisor."""

from __future__ import annotations

from aicc.codegen.addressing import Value
from aicc.codegen.blocks import Blocks
from aicc.codegen.llvm_types import literal, llvm_type, splat
from aicc.dtypes import is_float, is_signed, nbytes


class Divisions(Blocks):
    """The state of emission with what it takes to divide."""

    def int_divide(self, name: str, x: list[str], dtype: str, lanes: int) -> str:
        """Division that never traps: by zero gives 0 (division) or 0 (remainder), as numpy does."""
        t, flag = llvm_type(dtype, lanes), llvm_type("bool", lanes)
        value = self.fn.value

        def wide(n: int) -> str:
            return splat(str(n), dtype, lanes) if lanes else str(n)

        zero = value(f"icmp eq {t} {x[1]}, {wide(0)}")
        den = value(f"select {flag} {zero}, {t} {wide(1)}, {t} {x[1]}")
        signed = is_signed(dtype)
        minus = ""
        if signed:  # the least number divided by -1 traps: negate instead
            minus = value(f"icmp eq {t} {den}, {wide(-1)}")
            den = value(f"select {flag} {minus}, {t} {wide(1)}, {t} {den}")
        # LLVM turns division by a number that it sees into a product.
        floats = lanes > 0 and nbytes(dtype) <= 4 and x[1].startswith("%")
        divided = self._float_quotient(x[0], den, dtype, lanes) if floats else ""
        if name == "div":
            q = divided or value(f"{'s' if signed else 'u'}div {t} {x[0]}, {den}")
            if signed:
                q = value(
                    f"select {flag} {minus}, {t} {value(f'sub {t} {wide(0)}, {x[0]}')}, {t} {q}"
                )
            return value(f"select {flag} {zero}, {t} {wide(0)}, {t} {q}")
        if floats:
            r = value(f"sub {t} {x[0]}, {value(f'mul {t} {divided}, {den}')}")
        else:
            r = value(f"{'s' if signed else 'u'}rem {t} {x[0]}, {den}")
        if name == "floormod" and signed:
            r = self.floor_remainder(r, den, dtype, lanes)
        return r

    def _float_quotient(self, a: str, b: str, dtype: str, lanes: int) -> str:
        """a / b without its fraction, where b is not 0 and the result fits, in vectors, which have
        no division of integers.

        Floating-point numbers with enough bits give the same: a quotient that is no integer is so
        far from the next one that it is not rounded to it.
        """
        t, sign = llvm_type(dtype, lanes), "s" if is_signed(dtype) else "u"
        floats = llvm_type("f64" if nbytes(dtype) == 4 else "f32", lanes)
        x, y = (self.fn.value(f"{sign}itofp {t} {v} to {floats}") for v in (a, b))
        q = self.fn.value(f"fdiv {floats} {x}, {y}")
        return self.fn.value(f"fpto{sign}i {floats} {q} to {t}")

    def floor_remainder(self, r: str, den: str, dtype: str, lanes: int) -> str:
        """The remainder with the divisor's sign, from one with the dividend's."""
        t, flag = llvm_type(dtype, lanes), llvm_type("bool", lanes)
        zero = self.broadcast(Value(literal(0, dtype), dtype), lanes).text
        compare = "fcmp une" if is_float(dtype) else "icmp ne"
        less = "fcmp olt" if is_float(dtype) else "icmp slt"
        plus = "fadd" if is_float(dtype) else "add"
        value = self.fn.value
        some = value(f"{compare} {t} {r}, {zero}")
        signs = value(
            f"xor {flag} {value(f'{less} {t} {r}, {zero}')}, {value(f'{less} {t} {den}, {zero}')}"
        )
        both = value(f"and {flag} {some}, {signs}")
        return value(f"select {flag} {both}, {t} {value(f'{plus} {t} {r}, {den}')}, {t} {r}")
