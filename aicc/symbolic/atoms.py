"""What sizes are made of: symbols, and what is no polynomial of them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aicc.symbolic.algebra import Size

Bound = int | None

_IDENTIFIER = re.compile(r"[A-Za-z_]\w*(\.\w+)*", re.ASCII)


def print_name(name: str) -> str:
    """A name as the textual forms write it: in backquotes where it is no (dotted) identifier."""
    if _IDENTIFIER.fullmatch(name):
        return name
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`").replace("\n", "\\n") + "`"


@dataclass(frozen=True, slots=True)
class Sym:
    """A named integer with an inclusive range; `None` is unbounded."""

    name: str
    lo: Bound = 0
    hi: Bound = None
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash((self.name, self.lo, self.hi)))

    def __hash__(self) -> int:
        return self._hash

    def __str__(self) -> str:
        return print_name(self.name)


@dataclass(frozen=True, slots=True)
class FloorDiv:
    """The quotient rounded down; `den` is positive."""

    num: Size
    den: Size

    def __str__(self) -> str:
        return f"{parenthesised(self.num)}//{parenthesised(self.den)}"


@dataclass(frozen=True, slots=True)
class Mod:
    """What `FloorDiv` leaves: 0 <= value < den."""

    num: Size
    den: Size

    def __str__(self) -> str:
        return f"{parenthesised(self.num)}%{parenthesised(self.den)}"


@dataclass(frozen=True, slots=True)
class Min:
    """The smaller of two sizes."""

    a: Size
    b: Size

    def __str__(self) -> str:
        return f"min({self.a}, {self.b})"


@dataclass(frozen=True, slots=True)
class Max:
    """The larger of two sizes."""

    a: Size
    b: Size

    def __str__(self) -> str:
        return f"max({self.a}, {self.b})"


@dataclass(frozen=True, slots=True)
class Opaque:
    """An integer computed by something outside the algebra.

    `payload` is hashable, prints itself, and offers `substitute_sizes(mapping)` and
    `size_symbols()`; tensor IR expressions do.
    """

    payload: Any
    lo: Bound = None
    hi: Bound = None

    def __str__(self) -> str:
        bounds = f"{_bound(self.lo)}..{_bound(self.hi)}"
        return f"int({self.payload})" if bounds == ".." else f"int({self.payload}, {bounds})"


def _bound(b: Bound) -> str:
    return "" if b is None else str(b)


Atom = Sym | FloorDiv | Mod | Min | Max | Opaque
Monomial = tuple[Atom, ...]


def parenthesised(s: Size) -> str:
    """A size as a factor: in parentheses where it has several parts."""
    text = str(s)
    simple = isinstance(s, int) and s >= 0
    if not isinstance(s, int) and s.const == 0 and len(s.terms) == 1:
        monomial, coef = s.terms[0]
        simple = coef == 1 and len(monomial) == 1 and not isinstance(monomial[0], FloorDiv | Mod)
    return text if simple else f"({text})"
