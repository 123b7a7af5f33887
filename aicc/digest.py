"""SHA-256 without OpenSSL, whose library takes three to four megabytes of a process's memory: a
process that runs a model is to need little beside weights and arena (docs/saving.md).

Python has an implementation of its own, which `random` takes as well, and `hashlib` where there is
no OpenSSL; OpenSSL's is several times as fast, which matters for what is large.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Any

LARGE = 1 << 24
"""Bytes from which on OpenSSL's is taken."""
OWN = ("_sha2", "_sha256")
"""Python's modules, from 3.12 on and before."""


def sha256(data: bytes | memoryview) -> bytes:
    """The digest of data."""
    return sha256_of([data], len(data))


def sha256_of(parts: Iterable[bytes | memoryview], size: int) -> bytes:
    """The digest of parts, one after the other, of `size` bytes in all."""
    state = _started(size)
    for part in parts:
        state.update(part)
    digest: bytes = state.digest()
    return digest


def _started(size: int) -> Any:
    for name in OWN if size < LARGE else ():
        try:
            return importlib.import_module(name).sha256()
        except (ImportError, AttributeError):
            continue
    import hashlib

    return hashlib.sha256()
