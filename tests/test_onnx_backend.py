"""ONNX's own test cases of single operators; those in onnx_backend_todo.txt must fail."""

from __future__ import annotations

import warnings
import zlib

import pytest
from onnx_backend import cases, outcome, todo, write_todo

from aicc.errors import AiccWarning

PARTS = 6
"""A run that is not marked slow takes one case of so many, chosen by its name."""


def check(names: list[str]) -> None:
    known = todo()
    faults = []
    for name in names:
        failure = outcome(name)
        if failure and name not in known:
            faults.append(f"{name} fails: {failure}")
        elif not failure and name in known:
            faults.append(f"{name} passes: take it out of onnx_backend_todo.txt")
    assert not faults, "\n".join(faults)


def sample(part: int) -> list[str]:
    return [name for name in cases() if zlib.crc32(name.encode()) % PARTS == part]


@pytest.mark.filterwarnings("ignore::aicc.errors.AiccWarning")
def test_some_cases() -> None:
    check(sample(0))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::aicc.errors.AiccWarning")
@pytest.mark.parametrize("part", range(1, PARTS))
def test_all_other_cases(part: int) -> None:
    check(sample(part))


def test_the_list_names_cases() -> None:
    assert todo().keys() <= cases().keys()


@pytest.mark.slow
def test_the_list(request: pytest.FixtureRequest) -> None:
    """`--update-golden` writes the list anew from what fails."""
    if not request.config.getoption("--update-golden"):
        pytest.skip("only with --update-golden")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AiccWarning)
        failures = {name: failure for name in cases() if (failure := outcome(name))}
    write_todo(failures)
