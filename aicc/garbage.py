"""How often Python looks for garbage while it compiles."""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Iterator

OBJECTS = 10_000
"""New objects after which Python looks for garbage: what a compiler makes it nearly all still
needs, and after every 700, as Python looks by itself, that would take a twentieth of its time."""

_changes = threading.Lock()
_compiling = 0
_before = (0, 0, 0)


def look_rarely() -> tuple[int, int, int]:
    """From now on, garbage is looked for after OBJECTS objects, or as rarely as before. What held
    until now."""
    before = gc.get_threshold()
    if 0 < before[0] < OBJECTS:
        gc.set_threshold(OBJECTS, *before[1:])
    return before


@contextlib.contextmanager
def rarely_looked_for() -> Iterator[None]:
    """`look_rarely`, until no thread is inside any more."""
    global _compiling, _before
    with _changes:
        if not _compiling:
            _before = look_rarely()
        _compiling += 1
    try:
        yield
    finally:
        with _changes:
            _compiling -= 1
            if not _compiling:
                gc.set_threshold(*_before)
