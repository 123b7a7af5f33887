"""What sizes are made of: symbols, and what is no polynomial of them."""

from __future__ import annotations

import re
import threading
import weakref
from dataclasses import dataclass
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


def print_range(lo: Bound, hi: Bound) -> str:
    """An inclusive range; an end without bound is empty."""
    return f"{'' if lo is None else lo}..{'' if hi is None else hi}"


class _Entry(weakref.ref[Any]):
    """A reference to the one atom of some parts, which goes with that atom."""

    __slots__ = ("parts",)
    parts: tuple[Any, ...]


_atoms: dict[tuple[Any, ...], _Entry] = {}
_changes = threading.RLock()


def _gone(
    entry: _Entry,
    atoms: dict[tuple[Any, ...], _Entry] = _atoms,
    changes: threading.RLock = _changes,
) -> None:
    with changes:
        if atoms.get(entry.parts) is entry:
            del atoms[entry.parts]


class _One(type):
    """Of equal atoms there is one at a time: they are compared and hashed as objects are, which
    algebra does all the time, and takes a third of what comparing their parts would."""

    def __call__(cls, *args: Any, **named: Any) -> Any:
        if named or len(args) < len(cls.__match_args__):  # type: ignore[attr-defined]
            made = super().__call__(*args, **named)
            args = tuple(getattr(made, name) for name in cls.__match_args__)  # type: ignore[attr-defined]
        parts = (cls, *args)
        entry = _atoms.get(parts)
        found = None if entry is None else entry()
        if found is not None:
            return found
        made = super().__call__(*args)
        with _changes:
            entry = _atoms.get(parts)
            found = None if entry is None else entry()
            if found is not None:  # another thread made it
                return found
            entry = _atoms[parts] = _Entry(made, _gone)
            entry.parts = parts
        return made


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Sym(metaclass=_One):
    """A named integer with an inclusive range; `None` is unbounded."""

    name: str
    lo: Bound = 0
    hi: Bound = None

    def __str__(self) -> str:
        return print_name(self.name)


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class FloorDiv(metaclass=_One):
    """The quotient rounded down; `den` is positive."""

    num: Size
    den: Size

    def __str__(self) -> str:
        return f"{parenthesised(self.num)}//{parenthesised(self.den)}"


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Mod(metaclass=_One):
    """What `FloorDiv` leaves: 0 <= value < den."""

    num: Size
    den: Size

    def __str__(self) -> str:
        return f"{parenthesised(self.num)}%{parenthesised(self.den)}"


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Min(metaclass=_One):
    """The smaller of two sizes."""

    a: Size
    b: Size

    def __str__(self) -> str:
        return f"min({self.a}, {self.b})"


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Max(metaclass=_One):
    """The larger of two sizes."""

    a: Size
    b: Size

    def __str__(self) -> str:
        return f"max({self.a}, {self.b})"


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Opaque(metaclass=_One):
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
