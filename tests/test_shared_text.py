"""Tokens, literals and located errors that all textual forms share."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aicc.errors import IRError
from aicc.symbolic import maximum, sym
from aicc.text import Reader, print_name, print_value

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=12)
)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4), max_leaves=10)


@given(values)
def test_values_round_trip(value: Any) -> None:
    reader = Reader(print_value(value))
    again = reader.value()
    reader.finish()
    assert again == value
    assert repr(again) == repr(value)  # tells 1 from 1.0 and from True, and -0.0 from 0.0


def test_special_numbers() -> None:
    assert math.isnan(Reader(print_value(math.nan)).value())
    assert Reader("[-inf, inf, -3, 1e-05]").value() == [-math.inf, math.inf, -3, 1e-5]
    with pytest.raises(TypeError, match="no text form for a value of type dict"):
        print_value({})


@given(st.text(max_size=12))
def test_names_round_trip(name: str) -> None:
    reader = Reader(f"{print_name(name)} = 1")
    assert reader.name() == name
    reader.expect("=")


def test_indentation_makes_blocks() -> None:
    reader, kinds = Reader("a\n  b\n\n    # note\n    c\nd (\n e)\n"), []
    while not reader.at_kind("end"):
        kinds.append(reader.take().kind)
    assert " ".join(kinds) == (
        "name newline indent name newline indent name newline dedent dedent name op name op newline"
    )


def test_words_in_backquotes_are_no_keywords() -> None:
    reader = Reader("`if` if")
    assert not reader.at("if")
    assert reader.name() == "if"
    assert reader.accept("if")


def test_ranges() -> None:
    assert Reader("..").range() == (None, None)
    assert Reader("1..").range() == (1, None)
    assert Reader("-3..-1").range() == (-3, -1)
    assert Reader("..7").range() == (None, 7)


def test_sizes() -> None:
    names = {"n": sym("n", 1), "i.o": sym("i.o"), "i.i": sym("i.i", 0, 15)}
    n, outer, inner = names.values()

    def size(text: str) -> Any:
        reader = Reader(text)
        found = reader.size(names.get)
        reader.finish()
        return found

    assert size("n*128") == n * 128
    assert size("(n + 1)//2") == (n + 1) // 2
    assert size("i.o*16 + i.i") == outer * 16 + inner
    assert size("(i.o*16 + i.i)//16") == outer
    assert size("max(n, 3) - min(2, 1)*n") == maximum(n, 3) - n
    assert size("-n - -3 % 2") == -n - 1
    assert size("2 - 1 - 1") == 0
    assert size("7//2*2") == 6


@pytest.mark.parametrize(
    ("text", "message", "column"),
    [
        ("q", "unknown size 'q'", 1),
        ("n + ", "expected a size, found newline", 5),
        ("n +* 2", "expected a size, found '*'", 4),
        ("(n", "expected ')'", 3),
        ("min(n)", "expected 2 operands, found 1", 4),
        ("abs(n)", "no size function is called 'abs'", 1),
        ("int(n)", "no size function is called 'int'", 1),
        ("n % 0", "division by zero", 3),
        ("n // (1 - 1)", "division by zero", 3),
    ],
)
def test_faulty_sizes(text: str, message: str, column: int) -> None:
    with pytest.raises(IRError) as caught:
        Reader(text, "here").size({"n": sym("n")}.get)
    first, shown, caret = str(caught.value).split("\n")
    assert first.startswith(f"here: line 1, column {column}: {message}")
    assert shown == f"  {text}"
    assert caret == "  " + " " * (column - 1) + "^"


def test_a_bad_escape_in_a_string() -> None:
    with pytest.raises(IRError, match="a bad string"):
        Reader('"\\q"').string()


def test_a_tab_is_refused() -> None:
    with pytest.raises(
        IRError, match=r"line 2, column 1: a character that means nothing here: '\\t'"
    ):
        Reader("a\n\tb")
