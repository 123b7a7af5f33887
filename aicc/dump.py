"""A folder with the text after each pass, and the constants beside, from which passes can go on.

    00_graph.txt   what came in                00_graph.npz   its constants
    01_fold.txt    the text after pass 1       01_fold.npz    constants that are new or other now
    ...

A constant is written once: that of a name after pass NN is in the file of the largest number up to
NN that has it. Files of constants are numpy archives without pickle (`graph_ir.data`). Constants
that the text shows are in none.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from aicc.errors import AiccError
from aicc.graph_ir.data import read_arrays, write_arrays

Array = np.ndarray[Any, Any]


class Dump:
    """Writes a folder, which is made if it is not there. Files of a former dump go, from number
    `first` on; no others are touched."""

    def __init__(self, folder: str | os.PathLike[str], first: int = 0) -> None:
        self.folder = Path(folder)
        self._written: dict[str, Array] = {}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for number, path in _files(self.folder, ("txt", "npz")):
                if number >= first:
                    path.unlink()
        except OSError as error:
            raise _unusable(self.folder, "dump to", error) from error

    def write(self, number: int, name: str, text: str, constants: Mapping[str, Array]) -> None:
        """The files of one pass. Raises AiccError where they cannot be written."""
        new = {n: a for n, a in constants.items() if self._written.get(n) is not a}
        self._written.update(new)
        try:
            (self.folder / f"{number:02}_{name}.txt").write_text(text, "utf-8")
            if new:
                write_arrays(self.folder / f"{number:02}_{name}.npz", new)
        except OSError as error:
            raise _unusable(self.folder, "dump to", error) from error


def read_dump(folder: str | os.PathLike[str], number: int) -> tuple[str, dict[str, Array], str]:
    """The text after pass `number` (0: what came in), its constants, and the file's name.

    Raises AiccError where there is no such text, and IRError where constants cannot be read.
    """
    where = Path(folder)
    try:
        texts = dict(_files(where, ("txt",)))
        if number not in texts:
            there = ", ".join(texts[n].stem for n in sorted(texts)) or "none"
            raise AiccError(f"{str(where)!r} has no text after pass {number}; it has: {there}")
        text = texts[number].read_text("utf-8")
        constants: dict[str, Array] = {}
        for n, path in sorted(_files(where, ("npz",))):
            if n <= number:
                constants.update(read_arrays(path))
    except (OSError, UnicodeDecodeError) as error:
        raise _unusable(where, "read", error) from error
    return text, constants, str(texts[number])


def _files(folder: Path, suffixes: Iterable[str]) -> list[tuple[int, Path]]:
    pattern = re.compile(rf"(\d\d)_\w+\.({'|'.join(suffixes)})")
    found = [(pattern.fullmatch(path.name), path) for path in folder.iterdir()]
    return [(int(match[1]), path) for match, path in found if match is not None]


def _unusable(folder: Path, what: str, error: Exception) -> AiccError:
    return AiccError(f"cannot {what} {str(folder)!r}: {error}")
