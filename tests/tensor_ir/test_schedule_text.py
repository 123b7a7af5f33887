"""Schedules as text: printing, reading, and where a text is wrong."""

from __future__ import annotations

import re

import pytest

from aicc.errors import IRError
from aicc.tensor_ir.schedule_text import parse_steps, print_steps


def test_steps_are_data() -> None:
    text = 'split(i, 6, peel); reorder(i.o, k, "a b"); cache_read(x, "", [1, 0]); parallel("true")'
    steps = parse_steps(text)
    assert print_steps(steps) == text
    assert [str(s) for s in steps] == text.split("; ")
    assert parse_steps("\n  split(i, 6, peel)\n  reorder(i.o, k, `a b`)\n\n")[:2] == steps[:2]
    assert len({*steps, *parse_steps(text)}) == 4
    assert parse_steps("") == ()
    assert parse_steps("split(i, 4, exact)") == parse_steps("split(i, 4)")


@pytest.mark.parametrize(
    "text, message",
    [
        ("splt(i, 4)", "line 1, column 1: no step is called 'splt'"),
        ("split(i, j)", "line 1, column 10: factor of split is no int"),
        ("split(i)", "missing 1 required positional argument: 'factor'"),
        ("split(i, 4, peel, 1)", "column 19: split takes at most 3 arguments"),
        ("unroll(i) unroll(j)", "expected ';' or the end of the line, found 'unroll'"),
        ("reorder(i, 2)", "reorder takes items of type str"),
        ("split(i, 4.5)", "expected an integer"),
        ("cache_read(x, i, 1)", "order of cache_read is no"),
    ],
)
def test_faults_of_a_text_are_located(text: str, message: str) -> None:
    with pytest.raises(IRError, match=re.escape(message)):
        parse_steps(text)
