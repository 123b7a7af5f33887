"""What all textual forms share: tokens, located errors, names, literals and sizes.

A text is lines; a deeper indentation opens a block, as in Python; a line goes on inside brackets.
`#` begins a comment that ends with the line. Tokens:

    name     conv_1  i.o  `any text`      identifiers joined by dots, or anything in backquotes
    int      12            float    0.5  1e-05         (`inf` and `nan` are names)
    string   "as in JSON"
    op       + - * / // % ( ) [ ] { } , : = == != < <= > >= += *= -> .. @ and the like
    newline, indent, dedent, end

Every parser reads its tokens through a `Reader`, whose errors show the line with a caret below the
place. `Reader.size` reads what `str` of a `Size` writes.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from aicc.errors import IRError
from aicc.symbolic import (
    Bound,
    Size,
    floordiv,
    maximum,
    minimum,
    mod,
    opaque,
    print_name,
)

__all__ = ["Reader", "Token", "located", "print_name", "print_value", "quote"]

_TOKEN = re.compile(
    r"""(?P<space>[ ]+|\#[^\n]*)
      | (?P<name>[A-Za-z_]\w*(?:\.\w+)*)
      | (?P<quoted>`(?:[^`\\\n]|\\.)*`)
      | (?P<float>\d+\.\d+(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+)
      | (?P<int>\d+)
      | (?P<string>"(?:[^"\\\n]|\\.)*")
      | (?P<op>//|==|!=|<=|>=|\+=|\*=|->|\.\.|[-+*/%()\[\]{},:=<>@.;!?&|^~$])
      | (?P<newline>\n)
    """,
    re.VERBOSE | re.ASCII,
)
_OPEN, _CLOSE = frozenset("([{"), frozenset(")]}")
_ESCAPES = {"n": "\n", "\\": "\\", "`": "`"}


@dataclass(frozen=True, slots=True)
class Token:
    """`kind` as the module's text lists them; `line` and `column` count from 1.

    `text` is as written, except that a name in backquotes is given without them; `spaced` tells
    whether white space stands before the token.
    """

    kind: str
    text: str
    line: int
    column: int
    spaced: bool = False
    quoted: bool = False

    def __str__(self) -> str:
        return (
            repr(self.text)
            if self.kind not in ("newline", "indent", "dedent", "end")
            else (f"the {self.kind} of the text" if self.kind == "end" else f"{self.kind}")
        )


def located(text: str, line: int, column: int, message: str, source: str = "") -> IRError:
    """An error at a place of a text, showing the line with a caret."""
    lines = text.split("\n")
    shown = lines[line - 1] if line <= len(lines) else ""
    where = f"{source}: " if source else ""
    caret = " " * (column - 1) + "^"
    return IRError(f"{where}line {line}, column {column}: {message}\n  {shown}\n  {caret}")


def quote(text: str) -> str:
    """A string literal."""
    return json.dumps(text, ensure_ascii=False)


def print_value(value: Any) -> str:
    """A literal that `Reader.value` reads back: None, bool, int, float, str, and lists of them."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, str):
        return quote(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(print_value, value))}]"
    raise TypeError(f"no text form for a value of type {type(value).__name__}")


class Reader:
    """The tokens of a text, one at a time. Every fault raises IRError with its place."""

    def __init__(self, text: str, source: str = "") -> None:
        self.text = text
        self.source = source
        self._tokens = self._scan()
        self._at = 0

    def _scan(self) -> list[Token]:
        tokens: list[Token] = []
        indents = [0]
        text, pos, line, start = self.text, 0, 1, 0
        depth, fresh, spaced = 0, True, False
        while pos < len(text):
            found = _TOKEN.match(text, pos)
            column = pos - start + 1
            if found is None:
                what = "a string or name that does not end" if text[pos] in '"`' else "a character"
                message = f"{what} that means nothing here: {text[pos]!r}"
                if text[pos] in '"`':
                    message = f"{what} on its line"
                raise located(text, line, column, message, self.source)
            kind, part = found.lastgroup, found.group()
            pos = found.end()
            if kind == "newline":
                if not depth and not fresh:
                    tokens.append(Token("newline", "\n", line, column))
                line, start, fresh, spaced = line + 1, pos, depth == 0, True
                continue
            if kind == "space":
                spaced = True
                continue
            if fresh:
                self._indent(tokens, indents, line, column)
                fresh = False
            if kind == "quoted":
                name = re.sub(r"\\(.)", lambda m: _ESCAPES.get(m[1], m[1]), part[1:-1])
                tokens.append(Token("name", name, line, column, spaced, True))
            else:
                tokens.append(Token(str(kind), part, line, column, spaced))
            if kind == "op":
                depth = depth + (part in _OPEN) - (part in _CLOSE)
                depth = max(depth, 0)
            spaced = False
        column = pos - start + 1
        if not fresh:
            tokens.append(Token("newline", "\n", line, column))
        tokens.extend(Token("dedent", "", line, column) for _ in indents[1:])
        tokens.append(Token("end", "", line, column))
        return tokens

    def _indent(self, tokens: list[Token], indents: list[int], line: int, column: int) -> None:
        if column - 1 > indents[-1]:
            indents.append(column - 1)
            tokens.append(Token("indent", "", line, column))
        while column - 1 < indents[-1]:
            indents.pop()
            tokens.append(Token("dedent", "", line, column))
        if column - 1 != indents[-1]:
            message = "this indentation fits no block around it"
            raise located(self.text, line, column, message, self.source)

    # looking

    @property
    def token(self) -> Token:
        """The next token, not taken yet."""
        return self._tokens[self._at]

    def ahead(self, n: int = 1) -> Token:
        """The token `n` after the next one."""
        return self._tokens[min(self._at + n, len(self._tokens) - 1)]

    def at(self, *texts: str) -> bool:
        """Whether the next token is one of these operators or (unquoted) words."""
        t = self.token
        return t.text in texts and t.kind in ("op", "name") and not t.quoted

    def at_kind(self, kind: str) -> bool:
        """Whether the next token is of this kind."""
        return self.token.kind == kind

    def error(self, message: str, token: Token | None = None) -> IRError:
        """An error at `token`, by default the next one."""
        t = token or self.token
        return located(self.text, t.line, t.column, message, self.source)

    def fail(self, message: str, token: Token | None = None) -> NoReturn:
        """Raises an error at `token`, by default the next one."""
        raise self.error(message, token)

    # taking

    def take(self) -> Token:
        """The next token, whatever it is."""
        t = self._tokens[self._at]
        if t.kind != "end":
            self._at += 1
        return t

    def accept(self, *texts: str) -> Token | None:
        """Takes the next token if it is one of these operators or words."""
        return self.take() if self.at(*texts) else None

    def expect(self, *texts: str) -> Token:
        """Takes the next token, which must be one of these operators or words."""
        if not self.at(*texts):
            self.fail(f"expected {' or '.join(map(repr, texts))}, found {self.token}")
        return self.take()

    def expect_kind(self, kind: str, what: str = "") -> Token:
        """Takes the next token, which must be of this kind; `what` names it in the error."""
        if not self.at_kind(kind):
            self.fail(f"expected {what or kind}, found {self.token}")
        return self.take()

    def name(self, what: str = "a name") -> str:
        """A name, in backquotes or not."""
        return self.expect_kind("name", what).text

    def integer(self) -> int:
        """An integer with an optional sign."""
        sign = -1 if self.accept("-") else 1
        return sign * int(self.expect_kind("int", "an integer").text)

    def number(self) -> int | float:
        """A literal with an optional sign: an int, or a float, also `inf` and `nan`."""
        sign = -1 if self.accept("-") else 1
        t = self.token
        if t.kind == "int":
            return sign * int(self.take().text)
        if t.kind == "float":
            return sign * float(self.take().text)
        if self.accept("inf"):
            return sign * math.inf
        if self.accept("nan"):
            return math.nan
        self.fail(f"expected a number, found {t}")

    def string(self) -> str:
        """A string literal."""
        t = self.expect_kind("string", "a string")
        try:
            return str(json.loads(t.text))
        except ValueError as fault:
            raise self.error(f"a bad string: {fault}", t) from None

    def value(self) -> Any:
        """A literal as `print_value` writes it; lists come back as lists."""
        if self.at_kind("string"):
            return self.string()
        if self.accept("none"):
            return None
        if self.at("true", "false"):
            return self.take().text == "true"
        if self.at("["):
            return self.listed(self.value)
        return self.number()

    def listed(self, item: Callable[[], Any], opening: str = "[", closing: str = "]") -> list[Any]:
        """`[item, item, ...]`, possibly empty."""
        self.expect(opening)
        items: list[Any] = []
        if self.accept(closing):
            return items
        while True:
            items.append(item())
            if self.accept(closing):
                return items
            self.expect(",", closing)

    def range(self) -> tuple[Bound, Bound]:
        """An inclusive range `lo..hi`; an end left out is None."""
        lo = None if self.at("..") else self.integer()
        self.expect("..")
        hi = self.integer() if self.at_kind("int") or self.at("-") else None
        if lo is not None and hi is not None and hi < lo:
            self.fail(f"the range {lo}..{hi} is empty")
        return lo, hi

    def newline(self) -> None:
        """The end of a line."""
        if not self.at_kind("end"):
            self.expect_kind("newline", "the end of the line")

    def block(self, item: Callable[[], Any]) -> list[Any]:
        """An indented block, one or more lines; `item` reads each with its end."""
        self.newline()
        self.expect_kind("indent", "an indented block")
        items = []
        while not self.at_kind("dedent"):
            items.append(item())
        self.take()
        return items

    def finish(self) -> None:
        """The end of the text."""
        while self.at_kind("newline"):
            self.take()
        self.expect_kind("end", "the end of the text")

    # sizes

    def size(
        self,
        resolve: Callable[[str], Size | None],
        payload: Callable[[], Any] | None = None,
    ) -> Size:
        """A size: `n*128`, `(h + 1)//2`, `max(a, b)`, `i.o*16 + i.i`, `int(payload)`.

        `resolve` gives the size behind a name, or None where there is none; `payload` reads what
        stands in an opaque index.
        """
        total = self._size_term(resolve, payload)
        while op := self.accept("+", "-"):
            part = self._size_term(resolve, payload)
            total = total + part if op.text == "+" else total - part
        return total

    def sizes(
        self,
        resolve: Callable[[str], Size | None],
        payload: Callable[[], Any] | None = None,
    ) -> tuple[Size, ...]:
        """`[size, size, ...]`: a shape or an index."""
        return tuple(self.listed(lambda: self.size(resolve, payload)))

    def _size_term(
        self, resolve: Callable[[str], Size | None], payload: Callable[[], Any] | None
    ) -> Size:
        total = self._size_factor(resolve, payload)
        while op := self.accept("*", "//", "%"):
            part = self._size_factor(resolve, payload)
            if op.text == "*":
                total = total * part
            elif part == 0:
                self.fail("division by zero", op)
            else:
                total = floordiv(total, part) if op.text == "//" else mod(total, part)
        return total

    def _size_factor(
        self, resolve: Callable[[str], Size | None], payload: Callable[[], Any] | None
    ) -> Size:
        if self.accept("-"):
            return -self._size_factor(resolve, payload)
        if self.accept("("):
            inner = self.size(resolve, payload)
            self.expect(")")
            return inner
        if self.at_kind("int"):
            return int(self.take().text)
        t = self.expect_kind("name", "a size")
        if t.quoted or not self.at("("):
            found = resolve(t.text)
            if found is None:
                self.fail(f"unknown size {t.text!r}", t)
            return found
        if t.text in ("min", "max"):
            a, b = self._pair(lambda: self.size(resolve, payload))
            return minimum(a, b) if t.text == "min" else maximum(a, b)
        if t.text != "int" or payload is None:
            self.fail(f"no size function is called {t.text!r}", t)
        self.expect("(")
        inner, (lo, hi) = payload(), (None, None)
        if self.accept(","):
            lo, hi = self.range()
        self.expect(")")
        return opaque(inner, lo, hi)

    def _pair(self, item: Callable[[], Size]) -> Sequence[Size]:
        start = self.token
        items = self.listed(item, "(", ")")
        if len(items) != 2:
            self.fail(f"expected 2 operands, found {len(items)}", start)
        return items
