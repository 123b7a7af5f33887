"""Places object files in memory and connects them, for the objects that code generation makes.

    image  ::= imports code data
    imports    addresses of the functions that the process has (libc, libm, pthread); read-only
    code       a jump through its address for each import, then the text of all objects; executable
    data       their constants; read-only

That is what linker and loader do, for the little that is needed: ELF for x86-64 of 64 bits, text
and constants, references relative to their own place. What else an object may have raises
`LinkError`; LLVM knows it (`codegen.jit`), but is a library of more than a hundred megabytes, which
a saved model does not have to bring into memory.

Source: System V ABI, chapter 4 (object files), and its AMD64 supplement, section 4.4 (relocations).
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import platform
import struct
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from aicc.errors import CodegenError
from aicc.memory.placement import round_up

HEAD = b"\x7fELF\x02\x01\x01"
"""64 bits, little-endian, version 1."""
RELOCATABLE, X86_64 = 1, 62
SECTION = struct.Struct("<IIQQQQIIQQ")
SYMBOL = struct.Struct("<IBBHQQ")
RELOCATION = struct.Struct("<QQq")
PROGBITS, SYMTAB, RELA, REL, UNWIND = 1, 2, 4, 9, 0x70000001
WRITE, ALLOC, EXECUTE, TLS = 1, 2, 4, 0x400
PC32, PLT32 = 2, 4
"""Relocations of four bytes: the target's address, less that of the place."""
THREAD_LOCAL, INDIRECT, COMMON = 6, 10, 0xFFF2
"""Kinds of symbols, and the section of one that is to be given room."""
JUMP = struct.Struct("<2si2x")
JUMP_SIZE = 8
PAGE = mmap.PAGESIZE


class LinkError(CodegenError):
    """An object has something that this linker does not know, or needs what is defined nowhere."""


@dataclass
class _Section:
    """A section that goes into memory. place: in the image."""

    data: memoryview
    align: int
    code: bool
    place: int = 0


class _Symbol(NamedTuple):
    """section: where it is defined; 0 for nowhere. shared: whether other objects see it."""

    name: str
    section: int
    value: int
    shared: bool


class _Relocation(NamedTuple):
    """Four bytes at `offset` of a section that refer to a symbol."""

    section: int
    offset: int
    kind: int
    symbol: int
    addend: int


@dataclass
class _Object:
    """sections: by number, those that go into memory."""

    sections: dict[int, _Section] = field(default_factory=dict)
    symbols: list[_Symbol] = field(default_factory=list)
    relocations: list[_Relocation] = field(default_factory=list)


def usable() -> bool:
    """Whether this machine's code is of the kind that can be linked here."""
    return sys.platform.startswith("linux") and platform.machine() == "x86_64"


class LinkedLibrary:
    """Objects connected and ready to be called; see `state.Library`.

    Raises LinkError where an object is not as above, or a symbol is defined nowhere or twice.
    Nothing of the library may run after `close`.
    """

    def __init__(self, objects: Iterable[bytes]) -> None:
        parts = [_read(data) for data in objects]
        defined = _defined(parts)
        wanted = (s.name for part in parts for s in part.symbols if not s.section and s.name)
        imports = [name for name in dict.fromkeys(wanted) if name not in defined]
        addresses = _addresses(imports)
        sections = [s for part in parts for s in part.sections.values()]
        code = round_up(8 * len(imports), PAGE)
        data = _arrange([s for s in sections if s.code], code + JUMP_SIZE * len(imports))
        data = round_up(data, PAGE)
        end = round_up(_arrange([s for s in sections if not s.code], data), PAGE) or PAGE
        image = bytearray(end)
        struct.pack_into(f"<{len(addresses)}Q", image, 0, *addresses)
        self._symbols = {name: s.place + value for name, (s, value) in defined.items()}
        for n, name in enumerate(imports):
            at = self._symbols[name] = code + n * JUMP_SIZE
            # jmp *(its address), which is told by the distance from the end of these six bytes
            JUMP.pack_into(image, at, b"\xff\x25", 8 * n - (at + 6))
        for s in sections:
            image[s.place : s.place + len(s.data)] = s.data
        for part in parts:
            self._relocate(part, image)
        self._memory: mmap.mmap | None = mmap.mmap(
            -1, end, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        )
        self._memory[:] = bytes(image)
        self._base = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        self._protect(0, code, mmap.PROT_READ)
        self._protect(code, data, mmap.PROT_READ | mmap.PROT_EXEC)
        self._protect(data, end, mmap.PROT_READ)

    def _protect(self, begin: int, end: int, rights: int) -> None:
        if begin < end and _process().mprotect(self._base + begin, end - begin, rights):
            raise LinkError("the system lets no code be placed in memory")

    def _relocate(self, part: _Object, image: bytearray) -> None:
        """Writes the distances from places to what they refer to."""
        targets = [
            part.sections[s.section].place + s.value
            if s.section in part.sections
            else self._symbols.get(s.name)
            if s.section == 0
            else None
            for s in part.symbols
        ]
        for r in part.relocations:
            target = targets[r.symbol]
            if r.kind not in (PC32, PLT32) or target is None:
                raise LinkError(f"a relocation of kind {r.kind} to {part.symbols[r.symbol].name!r}")
            at = part.sections[r.section].place + r.offset
            try:
                struct.pack_into("<i", image, at, target + r.addend - at)
            except struct.error as error:
                raise LinkError(f"a reference that is too far: {error}") from error

    def address(self, symbol: str) -> int:
        """The address of a symbol that an object defines. Raises CodegenError where none does."""
        if self._memory is None:
            raise CodegenError(f"cannot look up {symbol!r}: the library is closed")
        if symbol not in self._symbols:
            raise CodegenError(f"cannot resolve {symbol!r}: no object defines it")
        return self._base + self._symbols[symbol]

    def close(self) -> None:
        """Unloads the code. Closing twice is allowed."""
        memory, self._memory = self._memory, None
        if memory is not None:
            memory.close()


def _arrange(sections: list[_Section], at: int) -> int:
    """Gives each section its place, from `at` on; where they end."""
    for s in sections:
        s.place = at = round_up(at, s.align)
        at += len(s.data)
    return at


def _defined(parts: list[_Object]) -> dict[str, tuple[_Section, int]]:
    """Where each symbol is that objects share. Raises LinkError for one that is in two objects."""
    found: dict[str, tuple[_Section, int]] = {}
    for part in parts:
        for s in part.symbols:
            if s.shared and s.section in part.sections:
                if s.name in found:
                    raise LinkError(f"two objects define {s.name!r}")
                found[s.name] = part.sections[s.section], s.value
    return found


def _addresses(names: list[str]) -> list[int]:
    """Where the process has these functions. Raises LinkError for what it does not have."""
    found, missing = [], []
    for name in names:
        for library in (_process(), _math()):
            function = getattr(library, name, None) if library is not None else None
            if function is not None:
                found.append(ctypes.cast(function, ctypes.c_void_p).value or 0)
                break
        else:
            missing.append(name)
    if missing:
        raise LinkError(f"undefined: {', '.join(sorted(missing))}")
    return found


@functools.cache
def _process() -> Any:
    library = ctypes.CDLL(None)
    library.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return library


@functools.cache
def _math() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL("libm.so.6")
    except OSError:  # a C library without it has those functions itself
        return None


# --- object files ---------------------------------------------------------------------------------


def _read(data: bytes) -> _Object:
    """An object file's parts. Raises LinkError."""
    try:
        return _parts(data)
    except (struct.error, IndexError, ValueError, OverflowError) as error:
        raise LinkError(f"a damaged object file: {error}") from error


def _parts(data: bytes) -> _Object:
    kind, machine = struct.unpack_from("<HH", data, 16)
    if data[: len(HEAD)] != HEAD or (kind, machine) != (RELOCATABLE, X86_64):
        raise LinkError("no object file for x86-64")
    (table,) = struct.unpack_from("<Q", data, 40)
    size, count = struct.unpack_from("<HH", data, 58)
    headers = [SECTION.unpack_from(data, table + n * size) for n in range(count)]
    made = _Object()
    view = memoryview(data)
    for n, (_, kind, flags, _, at, length, _, _, align, _) in enumerate(headers):
        if flags & ALLOC and kind != UNWIND:  # nothing is thrown through this code
            if kind != PROGBITS or flags & (WRITE | TLS):
                raise LinkError("an object with variables")
            if align > PAGE or at + length > len(data):
                raise LinkError("a section that lies outside its file, or is aligned beyond a page")
            made.sections[n] = _Section(
                view[at : at + length], max(align, 1), bool(flags & EXECUTE)
            )
    for _, kind, _, _, at, length, link, info, _, _ in headers:
        if kind == SYMTAB:
            names = headers[link]
            made.symbols = list(_names(data, names[4], names[5], at, length, info))
    for _, kind, _, _, at, length, _, info, _, _ in headers:
        if kind in (RELA, REL) and info in made.sections:
            if kind == REL:
                raise LinkError("relocations without addends")
            room = len(made.sections[info].data)
            for offset, what, addend in RELOCATION.iter_unpack(view[at : at + length]):
                if offset + 4 > room:
                    raise ValueError("a relocation outside its section")
                if what >> 32 >= len(made.symbols):
                    raise ValueError("a relocation to no symbol")
                made.relocations.append(
                    _Relocation(info, offset, what & 0xFFFFFFFF, what >> 32, addend)
                )
    return made


def _names(
    data: bytes, strings: int, room: int, at: int, length: int, local: int
) -> Iterator[_Symbol]:
    """The symbols of a table; `local`: how many of them no other object sees."""
    table = SYMBOL.iter_unpack(memoryview(data)[at : at + length])
    for n, (name, info, _, section, value, _) in enumerate(table):
        if name >= room and name:
            raise ValueError("a name outside its table")
        text = data[strings + name : data.index(0, strings + name)].decode()
        if info & 15 in (THREAD_LOCAL, INDIRECT) or section == COMMON:
            raise LinkError(f"the symbol {text!r} is of an unknown kind")
        yield _Symbol(text, section, value, n >= local)
