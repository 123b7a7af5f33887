"""The environment variables that aicc reads, all of them in one table.

Most are defaults for arguments of `aicc.compile`. A value that cannot be read is an error at once,
with the variable's name, and never ignored.
"""

from __future__ import annotations

import numbers
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aicc.errors import AiccError, InputError


@dataclass(frozen=True)
class Variable:
    """`default` stands where the variable is unset or empty; `read` makes the value of its text."""

    name: str
    default: Any
    read: Callable[[str], Any]
    meaning: str


def _level(text: str) -> int:
    value = int(text)
    if not 0 <= value <= 3:
        raise ValueError("0, 1, 2 or 3 is expected")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise ValueError("a number from 0 is expected")
    return value


def _switch(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError("0 or 1 is expected")
    return text == "1"


VARIABLES: dict[str, Variable] = {
    v.name: v
    for v in (
        Variable(
            "AICC_CHECK",
            1,
            _level,
            "after each pass: 0 and 1 verify; 2 also print, parse and compare; "
            "3 also evaluate before and after with random inputs and compare",
        ),
        Variable("AICC_THREADS", 0, _count, "threads of a model; 0 is as many as the process has"),
        Variable("AICC_JOBS", 0, _count, "processes that compile; 0 is as many as usable cores"),
        Variable("AICC_TARGET", "native", str, "the machine to compile for"),
        Variable(
            "AICC_WINOGRAD",
            True,
            _switch,
            "1: 3x3 convolutions by Winograd's method where that is faster; 0: only direct sums, "
            "whose rounding errors are smaller",
        ),
        Variable("AICC_DUMP", None, Path, "a folder for the text after each pass"),
        Variable("AICC_CACHE_DIR", None, Path, "a folder for what is kept between processes"),
        Variable(
            "AICC_CACHE",
            4096,
            _count,
            "MiB kept there at most: compiled models, and an eighth for code of kernels; "
            "0 keeps nothing",
        ),
    )
}


def get(name: str) -> Any:
    """The value of a variable of the table. Raises AiccError where its text cannot be read."""
    variable = VARIABLES[name]
    text = os.environ.get(name, "")
    if not text:
        return variable.default
    try:
        return variable.read(text)
    except ValueError as e:
        raise AiccError(f"{name}={text!r}: {e} ({variable.meaning})") from None


def thread_count(threads: int | None) -> int:
    """The threads that a caller asks for, else those of AICC_THREADS; 0 where neither tells.

    Raises InputError for what is no number from 1.
    """
    if threads is None:
        return int(get("AICC_THREADS"))
    if not isinstance(threads, numbers.Integral) or isinstance(threads, bool) or threads < 1:
        raise InputError(f"threads is a whole number from 1, not {threads!r}")
    return int(threads)


def check_level(check: int | None) -> int:
    """What a caller wants to be verified, else AICC_CHECK. Raises InputError for what is not 0, 1,
    2 or 3."""
    if check is None:
        return int(get("AICC_CHECK"))
    if not isinstance(check, numbers.Integral) or not 0 <= check <= 3:
        raise InputError(f"check is 0, 1, 2 or 3, not {check!r}")
    return int(check)


CACHE_SHARES = {"objects": 1, "models": 7}
"""Eighths of what may be kept between processes."""


def cache_bytes(kind: str) -> int:
    """How much of one kind may be kept; 0 for nothing."""
    return int(get("AICC_CACHE")) * (1 << 20) // 8 * CACHE_SHARES[kind]


def cache_folder() -> Path:
    """Where files are kept between processes; it need not exist. Anything in it may be deleted."""
    given = get("AICC_CACHE_DIR")
    if given is not None:
        return Path(given).expanduser()
    home = Path.home()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "aicc" / "cache"
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "aicc"
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "aicc"
