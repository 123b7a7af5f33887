"""Object code kept on disk between processes.

    folder/KEY       MAGIC, SHA-256 of key and data (32 bytes), data
    folder/*.tmp     what is being written, or was when its writer ended
    folder/written   one byte for each UNITS-th of the bound written since the last clean-up

A file is written beside its place and moved there, so that nobody reads half of one, whoever else
writes or ends in between. What does not fit its checksum counts as absent. Nothing here is an error
to the caller: a folder that cannot be used means that code is compiled again.

Files hold native code that is run, so a folder that other users may write to is not used.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import tempfile
import time
from pathlib import Path

from aicc.digest import sha256
from aicc.host import llvm_identity
from aicc.target import Target

log = logging.getLogger("aicc")

MAGIC = b"aicc-o01"
"""Changes when the files' format does."""
UNITS = 1 << 16
CLEAN_AFTER = UNITS // 16
"""Units written before the folder is looked through."""
KEPT = (7, 8)
"""The part of the bound that a clean-up leaves; with CLEAN_AFTER, less than the bound."""
STRAY_SECONDS = 3600.0
"""No writer takes that long: a temporary file of that age has lost its writer."""
SUFFIX = ".tmp"
_PARTS = ("codegen", "tensor_ir", "symbolic", "runtime", "memory")
_SOURCES = ("*.py", *(f"{part}/**/*.py" for part in _PARTS))


class CacheFolder:
    """Files of a folder, at most `limit` bytes; the least recently used go first.

    Several objects, in one process or in many, may use one folder at once. One object is for one
    thread at a time.
    """

    def __init__(self, folder: str | os.PathLike[str], limit: int) -> None:
        self.folder = Path(folder)
        self.limit = limit
        self._readable: bool | None = None
        self._writable = True

    def writable(self, size: int, share: int) -> bool:
        """Whether a file of `size` bytes may be kept: at most one of `share` parts of the bound."""
        return size <= self.limit // share and self.usable() and self._writable

    def wrote(self, size: int) -> None:
        """Notes bytes written, and cleans up where many were. Raises OSError."""
        if self._count(size) >= CLEAN_AFTER:
            self.clean()

    def used(self, path: Path) -> None:
        """Makes a file the most recently used one."""
        with contextlib.suppress(OSError):  # a folder that is only read has no order of use
            os.utime(path)

    def drop(self, path: Path) -> None:
        """Removes a file that is damaged."""
        with contextlib.suppress(OSError):
            path.unlink()

    def give_up(self, error: Exception) -> None:
        """Nothing more is written by this object."""
        log.debug("cache %s: nothing more is kept: %s", self.folder, error)
        self._writable = False

    def _count(self, size: int) -> int:
        """Notes bytes written; the units written, by whomever, since the last clean-up."""
        units = -(-size * UNITS // self.limit)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        handle = os.open(self.folder / "written", flags, 0o600)
        try:
            os.write(handle, b"." * units)
            return os.fstat(handle).st_size
        finally:
            os.close(handle)

    def clean(self) -> None:
        """Removes what writers left behind, and the least recently used files until the rest takes
        a part of the bound. Raises OSError where the folder cannot be read."""
        with contextlib.suppress(FileNotFoundError):
            (self.folder / "written").unlink()  # first, so that others do not clean up as well
        stray = time.time() - STRAY_SECONDS
        found: list[tuple[int, int, str]] = []
        with os.scandir(self.folder) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):  # somebody else removes files too
                    status = entry.stat(follow_symlinks=False)
                    if not entry.name.endswith(SUFFIX):
                        found.append((status.st_mtime_ns, status.st_size, entry.path))
                    elif status.st_mtime < stray:
                        os.unlink(entry.path)
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total * KEPT[1] <= self.limit * KEPT[0]:
                break
            with contextlib.suppress(OSError):
                os.unlink(path)
            total -= size

    def usable(self) -> bool:
        """Whether the folder is there, or can be made, and belongs to who may be trusted."""
        if self._readable is None:
            try:
                self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                fault = _untrusted(self.folder)
            except OSError as error:
                fault = str(error)
            if fault:
                log.debug("cache %s: not used: %s", self.folder, fault)
            self._readable = not fault
        return self._readable


class ObjectCache(CacheFolder):
    """Object code by key. version: of the compiler; a part of every key."""

    def __init__(self, folder: str | os.PathLike[str], limit: int, version: str = "") -> None:
        super().__init__(folder, limit)
        self._salt = f"{version}\0{compiler_identity()}"

    def key(self, kind: str, text: str, target: Target) -> str:
        """The key of what is made of a text for a target. kind: tells apart ways to make it. It
        differs as well for other versions of aicc, of its code generator's source, and of LLVM."""
        whole = "\0".join((self._salt, target.text(), kind, text))
        return sha256(whole.encode()).hex()

    def get(self, key: str) -> bytes | None:
        """The data put under a key, or None where there are none or they are damaged."""
        if not self.usable():
            return None
        path = self.folder / key
        try:
            whole = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            log.debug("object cache: %s", error)
            return None
        start = len(MAGIC) + 32
        data = whole[start:]
        if whole[:start] != MAGIC + _checksum(key, data):
            log.debug("object cache: %s is damaged", path)
            self.drop(path)
            return None
        self.used(path)
        return data

    def put(self, key: str, data: bytes) -> None:
        """Keeps data under a key; replaces what is there."""
        size = len(MAGIC) + 32 + len(data)
        if not self.writable(size, 16):
            return
        try:
            self._write(key, MAGIC + _checksum(key, data) + data)
            self.wrote(size)
        except OSError as error:
            self.give_up(error)

    def _write(self, key: str, whole: bytes) -> None:
        handle, name = tempfile.mkstemp(dir=self.folder, suffix=SUFFIX)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(whole)
            os.replace(name, self.folder / key)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise


def _checksum(key: str, data: bytes) -> bytes:
    """Covers the key: a file under another's name is damaged too."""
    return sha256(key.encode() + b"\0" + data)


def _untrusted(folder: Path) -> str:
    """Why code in a folder may be somebody else's; "" where it may not."""
    if not hasattr(os, "getuid"):
        return ""
    status = folder.stat()
    if status.st_uid not in (0, os.getuid()):
        return f"{folder} belongs to another user"
    return f"{folder} is writable for other users" if status.st_mode & 0o022 else ""


@functools.cache
def compiler_identity(sources: tuple[str, ...] = _SOURCES) -> str:
    """Differs for versions of llvmlite and LLVM, and of the source files that patterns tell.

    Without any, those that object code depends on: what the code generator consists of and may
    import."""
    import hashlib

    root = Path(__file__).resolve().parents[1]
    state = hashlib.sha256(llvm_identity().encode())
    # Without source files (an archive, a frozen program) the version has to tell.
    for path in sorted({p for pattern in sources for p in root.glob(pattern)}):
        source = path.read_bytes()
        state.update(f"{path.relative_to(root).as_posix()} {len(source)}\n".encode())
        state.update(source)
    return state.hexdigest()
