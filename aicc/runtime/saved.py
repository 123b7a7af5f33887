"""A compiled model in one file: the program, its native code, its packed constants.

    file      ::= header manifest section*
    header    ::= MAGIC format:u32 0:u32 manifest:u64 file:u64 sha256       64 bytes, little-endian:
                  the format's number; bytes of the manifest and of the file; the manifest's hash
    manifest  ::= JSON: the version of aicc; the target's text; the processor; threads; checks and
                  parameter scopes of each kernel; constants of strings; decisions of passes; kind,
                  place, size, SHA-256 of each section
    section   ::= "program", its text | "code", an object file | "weights", the block of constants

The weights lie at a multiple of PAGE bytes and are mapped, never read: pages come as kernels touch
them, are shared between processes, and go when memory is short. Their hash is compared on demand
only, because reading them all would take longer than the rest of loading. All else is compared each
time. Checksums tell of damage, not of malice: a saved model is native code, to be trusted as such.

The file is written beside its place and moved there when it is whole, so that nobody maps half of
one, and who has mapped the one before keeps it.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from aicc.digest import sha256, sha256_of
from aicc.errors import IRError, SavedModelError, UnsupportedError
from aicc.memory.placement import round_up
from aicc.pages import aligned_bytes, forget
from aicc.runtime.program import Call, Host, Program
from aicc.runtime.program_text import parse_program, print_program
from aicc.runtime.verify import verify_program

Array = np.ndarray[Any, Any]

MAGIC = b"\x89aicc\r\n\x1a"
"""No text begins like this, and what damages texts on their way damages it."""
FORMAT = 3
"""Changes with anything that code and runtime have to agree on: this format, the text of programs,
the words of `aicc.runtime.context`, how kernels are called."""
HEADER = struct.Struct("<8sIIQQ32s")
PAGE = 1 << 16
"""Bytes; the largest page of the machines that code is made for."""
CHUNK = 1 << 22


@dataclass(frozen=True)
class Parts:
    """All that a model consists of once it is compiled.

    code: object files. constants: the block, aligned to 64 bytes. target: `Target.text()` of the
    machine that the code is for. checks, scopes: of each kernel, as `Executable` takes them.
    strings: constants of strings, by buffer. version: of the aicc that made them. processor: what
    the system says of a processor that runs the code; "" where it says nothing. decisions: lines
    on what compiling weighed.
    """

    program: Program
    code: tuple[bytes, ...]
    constants: Array
    target: str
    threads: int = 1
    checks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    scopes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    strings: Mapping[str, Array] = field(default_factory=dict)
    version: str = ""
    processor: str = ""
    decisions: tuple[str, ...] = ()


# --- writing --------------------------------------------------------------------------------------


def write_parts(parts: Parts, path: str | os.PathLike[str], durable: bool = True) -> None:
    """Writes a file that `read_parts` reads, in the place of any that is there.

    durable: wait until the disk has it, so that not even a crash of the system leaves a part.

    Raises UnsupportedError where Python computes a part of the program, and SavedModelError where
    the file cannot be written.
    """
    hosts = [s for s in parts.program.steps if isinstance(s, Host)]
    if hosts:
        named = ", ".join(f"{s.op} ({', '.join(s.nodes) or ', '.join(s.results)})" for s in hosts)
        raise UnsupportedError(
            f"model {parts.program.name!r} cannot be saved: Python computes {named}, and a saved "
            f"model runs without the operators' Python code"
        )
    where = Path(path)
    try:
        _replace(where, parts, durable)
    except OSError as error:
        raise SavedModelError(f"the model cannot be saved to {str(where)!r}: {error}") from error


def _replace(where: Path, parts: Parts, durable: bool) -> None:
    beside = where.with_name(f".{where.name}.{os.getpid()}.{os.urandom(4).hex()}.tmp")
    # Not `tempfile`, whose files nobody else may read.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    handle = os.open(beside, flags, 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            for data in _layout(parts):
                file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(beside, where)
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise


def _layout(parts: Parts) -> list[bytes | memoryview]:
    """The contents of a file, in order."""
    weights = np.ascontiguousarray(parts.constants).data
    contents: list[tuple[str, bytes | memoryview]] = [
        ("program", print_program(parts.program).encode("utf-8", "surrogatepass")),
        *(("code", data) for data in parts.code),
        ("weights", weights),
    ]
    # Places are counted from the end of the manifest, whose length depends on what it says.
    sections: list[dict[str, Any]] = []
    at = 0
    for kind, data in contents:
        sections.append({"kind": kind, "at": at, "bytes": len(data), "sha256": _hash(data).hex()})
        at = round_up(at + len(data), 16)
    sections[-1]["at"] = 0
    manifest = json.dumps(
        {
            "aicc": parts.version,
            "target": parts.target,
            "processor": parts.processor,
            "threads": parts.threads,
            "checks": {k: list(v) for k, v in parts.checks.items() if v},
            "scopes": {k: list(v) for k, v in parts.scopes.items()},
            "strings": {
                k: {"shape": list(a.shape), "data": [str(s) for s in a.reshape(-1)]}
                for k, a in parts.strings.items()
            },
            "decisions": list(parts.decisions),
            "sections": sections,
        }
    ).encode()
    start = _start(len(manifest))
    last = sections[-2]
    block = round_up(start + last["at"] + last["bytes"], PAGE)
    header = HEADER.pack(MAGIC, FORMAT, 0, len(manifest), block + len(weights), sha256(manifest))
    out: list[bytes | memoryview] = [header, manifest]
    written = HEADER.size + len(manifest)
    for (_, data), section in zip(contents, sections, strict=True):
        place = block if section is sections[-1] else start + section["at"]
        out += [bytes(place - written), data]
        written = place + len(data)
    return out


def _start(manifest: int) -> int:
    """Where the sections begin."""
    return round_up(HEADER.size + manifest, 64)


def _hash(data: bytes | memoryview) -> bytes:
    """The SHA-256 of data; of mapped ones no more than a part is in memory at a time."""
    whole = np.frombuffer(data, np.uint8)

    def chunks() -> Iterator[memoryview]:
        for n in range(0, len(whole), CHUNK):
            yield whole[n : n + CHUNK].data
            forget(whole[n : n + CHUNK])

    return sha256_of(chunks(), len(whole))


def is_saved(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins as a saved model does. False where there is none to read."""
    try:
        with open(path, "rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


# --- reading --------------------------------------------------------------------------------------


def read_parts(path: str | os.PathLike[str], verify: bool = False, resident: bool = False) -> Parts:
    """What a file holds, its weights mapped.

    verify: whether all weights are read and compared with their hash. resident: whether they are
    copied to memory of the process's own. Raises SavedModelError for
    what is no such file, another format, or damaged.
    """
    return _Reading(Path(path)).parts(verify, resident)


class _Reading:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.data = self._map()

    def fail(self, message: str) -> NoReturn:
        raise SavedModelError(f"{str(self.path)!r}: {message}")

    def _map(self) -> memoryview:
        try:
            if not self.path.is_file():
                there = "is not a file" if self.path.exists() else "does not exist"
                raise SavedModelError(f"the saved model {str(self.path)!r} {there}")
            with self.path.open("rb") as file:
                if os.fstat(file.fileno()).st_size == 0:
                    self.fail("empty, so not a saved model")
                return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except (OSError, ValueError) as error:
            if isinstance(error, SavedModelError):
                raise
            raise SavedModelError(
                f"the saved model {str(self.path)!r} cannot be read: {error}"
            ) from error

    def parts(self, verify: bool, resident: bool) -> Parts:
        manifest = self._manifest()
        try:
            found = self._parts(manifest, verify, resident)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, SavedModelError):
                raise
            raise SavedModelError(
                f"{str(self.path)!r}: its parts do not fit together: {error}"
            ) from error
        return found

    def _manifest(self) -> dict[str, Any]:
        data, size = self.data, len(self.data)
        if data[: len(MAGIC)] != MAGIC[:size]:
            self.fail("not a saved model (`aicc.compile` reads ONNX files)")
        if size < HEADER.size:
            self.fail(f"truncated: {size} bytes are less than a header")
        _, number, _, length, whole, digest = HEADER.unpack_from(data)
        if number != FORMAT:
            self.fail(
                f"saved in format {number}, this version of aicc reads format {FORMAT}: compile "
                f"the model again"
            )
        if size < whole:
            self.fail(f"truncated: {size} of {whole} bytes")
        if size > whole or HEADER.size + length > size:
            self.fail(f"damaged: {size} bytes where its header tells of {whole}")
        text = bytes(data[HEADER.size : HEADER.size + length])
        if sha256(text) != digest:
            self.fail("damaged: its manifest does not fit its checksum")
        self.start = _start(length)
        made: dict[str, Any] = json.loads(text)
        return made

    def _parts(self, manifest: dict[str, Any], verify: bool, resident: bool) -> Parts:
        sections = manifest["sections"]
        *others, last = sections
        if [s["kind"] for s in sections] != ["program", *["code"] * (len(sections) - 2), "weights"]:
            self.fail("its sections are not those of a saved model")
        text, *code = (self._section(s, self.start + s["at"]) for s in others)
        program = parse_program(text.decode("utf-8", "surrogatepass"), str(self.path))
        try:
            verify_program(program)
        except IRError as error:
            self.fail(str(error))
        block = round_up(self.start + others[-1]["at"] + others[-1]["bytes"], PAGE)
        if block + last["bytes"] != len(self.data) or last["bytes"] != program.constant_bytes:
            self.fail(f"{last['bytes']} bytes of weights, expected {program.constant_bytes}")
        weights = np.frombuffer(self.data, np.uint8, last["bytes"], block)
        if resident:
            weights = _copied(weights)
        if verify:  # the pages of the file are let go as they are read
            self._check(last, weights.data if resident else self.data[block:])
        calls = {s.kernel for s in program.steps if isinstance(s, Call)}
        scopes = {k: tuple(map(str, v)) for k, v in manifest["scopes"].items()}
        if not calls <= scopes.keys():
            self.fail(f"nothing is said about kernels: {', '.join(sorted(calls - scopes.keys()))}")
        return Parts(
            program,
            tuple(code),
            weights,
            str(manifest["target"]),
            int(manifest["threads"]),
            {k: tuple(map(str, v)) for k, v in manifest["checks"].items()},
            scopes,
            {k: _strings(v) for k, v in manifest["strings"].items()},
            str(manifest["aicc"]),
            str(manifest["processor"]),
            tuple(map(str, manifest.get("decisions", ()))),
        )

    def _section(self, section: dict[str, Any], at: int) -> bytes:
        if at < self.start or at + section["bytes"] > len(self.data):
            self.fail(f"damaged: its {section['kind']} lies outside the file")
        data = bytes(self.data[at : at + section["bytes"]])
        self._check(section, data)
        return data

    def _check(self, section: dict[str, Any], data: bytes | memoryview) -> None:
        if _hash(data).hex() != section["sha256"]:
            self.fail(f"damaged: its {section['kind']} does not fit its checksum")


def _copied(weights: Array) -> Array:
    """The mapped weights in memory of the process's own."""
    block = aligned_bytes(len(weights))
    for n in range(0, len(weights), CHUNK):
        part = weights[n : n + CHUNK]
        block[n : n + CHUNK] = part
        forget(part)
    return block


def _strings(kept: dict[str, Any]) -> Array:
    out = np.empty(len(kept["data"]), np.object_)
    out[:] = [str(s) for s in kept["data"]]
    return out.reshape(kept["shape"])
