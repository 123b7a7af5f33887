"""What is computed once: values that hold for a stretch of code, written where that begins.

A region is a stretch of code that is entered at its beginning only: the body of a loop, a branch.
What depends on the variables of loops alone, not on memory, is written at the head of the innermost
of these loops, wherever it is found to be needed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from aicc.codegen.writer import FunctionWriter
from aicc.symbolic import Atom, Size, Sym, from_atom, opaques, symbols


@dataclass
class Turns:
    """A loop whose body is being written, for what is added to a value from turn to turn. name: of
    its blocks. before: the block ahead of it. low: its first value. ahead, phis, latch: where
    instructions go. inner: no loop is inside."""

    name: str
    before: str
    low: str
    ahead: list[str]
    phis: list[str]
    latch: list[str]
    inner: bool


class Once:
    """The state of emission with the values that are there already."""

    def __init__(self, fn: FunctionWriter) -> None:
        self.fn = fn
        self.variables: dict[Sym, str] = {}
        self.depth: dict[Sym, int] = {}
        self.scopes: list[dict[object, object]] = [{}]
        self.heads: list[list[str]] = []
        """Where what is computed once goes: at the function's head, and those of the loops."""
        self._kept: dict[object, str] = {}
        self._regions: list[list[object]] = [[]]
        """The keys of what is kept until a region ends."""
        self._bodies = [0]
        """The regions that are bodies of loops."""
        self.loops: list[Turns] = []
        self._levels: dict[Atom, int | None] = {}

    def cached(self, key: object) -> str | None:
        """The name of a value that is written where all code here comes by; None for none."""
        kept = self._kept.get(key)
        if kept is not None:
            return kept
        for scope in reversed(self.scopes):
            if scope and key in scope:
                return str(scope[key])
        return None

    def remember(self, key: object, text: str) -> str:
        self.scopes[-1][key] = text
        return text

    def keep(self, key: object, text: str) -> str:
        """Remembers, to the end of the region, what does not depend on memory."""
        self._regions[-1].append(key)
        self._kept[key] = text
        return text

    def once(self, key: object, level: int | None, make: Callable[[], str]) -> str:
        """A value that is the same in each iteration of the loops inside the one of depth `level`,
        computed there; None: it depends on memory, and is computed here."""
        found = self.cached(key)
        if found is not None:
            return found
        if level is None:
            return self.remember(key, make())
        if not self.heads:
            return self.keep(key, make())
        outer, self.fn.lines = self.fn.lines, self.heads[level]
        text = make()
        self.fn.lines = outer
        self._regions[self._bodies[level]].append(key)
        self._kept[key] = text
        return text

    def enter(self) -> None:
        """A region begins: code that is entered at its beginning only."""
        self._regions.append([])

    def leave(self) -> None:
        """The innermost region ends."""
        for key in self._regions.pop():
            self._kept.pop(key, None)

    def enter_loop(self, var: Sym, turns: Turns) -> None:
        """The body of a loop begins."""
        self.variables[var] = f"%{turns.name}.i"
        self.depth[var] = len(self.heads)
        self.loops.append(turns)
        self._bodies.append(len(self._regions))
        self._levels.clear()
        self.enter()
        self.heads.append(self.fn.head())

    def leave_loop(self, var: Sym) -> None:
        """The body of the innermost loop ends."""
        self.heads.pop()
        self.loops.pop()
        self.leave()
        self._levels.clear()
        self._bodies.pop()
        del self.depth[var], self.variables[var]

    def level(self, s: Size) -> int | None:
        """The depth of the innermost loop that a size depends on; None where it reads memory."""
        if opaques(s):
            return None
        return max((self.depth.get(v, 0) for v in symbols(s)), default=0)

    def _atom_level(self, a: Atom) -> int | None:
        if isinstance(a, Sym):
            return self.depth.get(a, 0)
        if a not in self._levels:
            self._levels[a] = self.level(from_atom(a))
        return self._levels[a]

    def _term_level(self, monomial: tuple[Atom, ...]) -> int | None:
        deepest = 0
        for a in monomial:
            level = self._atom_level(a)
            if level is None:
                return None
            deepest = max(deepest, level)
        return deepest
