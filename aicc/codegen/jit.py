"""From LLVM text to object code, and from object code to callable addresses.

`compile_object` runs three of LLVM's passes: local arrays become registers, straight stretches one
block, and instructions are combined. Vectors, copies of loop bodies, and values that are computed
once outside a loop are already explicit in the text that the code generator writes, so that the
passes that look for them find nothing and would take four times as long as the rest. Loop strength
reduction is left out too: it takes half of the time of code generation, and the addresses are one
register for each row and a displacement as they are. Floating point stays IEEE: nothing is
contracted or reassociated but what the text itself marks (llvm.fmuladd, llvm.fma, `contract`,
`reassoc`).

`NativeLibrary` links objects into this process. Objects are position-independent and refer to each
other through procedure linkage and global offset tables, so that it does not matter how far apart
they are placed.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import itertools
import re
import struct
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping

import llvmlite.binding as llvm

from aicc.errors import CodegenError
from aicc.target import Target

_names = itertools.count()
_switches = threading.Lock()


@functools.cache
def _initialize() -> None:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()


@functools.lru_cache(maxsize=32)
def _machine(triple: str, cpu: str, features: str, opt: int) -> llvm.TargetMachine:
    _initialize()
    try:
        return llvm.Target.from_triple(triple).create_target_machine(
            cpu=cpu, features=features, opt=opt, reloc="pic", codemodel="small"
        )
    except RuntimeError as error:
        raise CodegenError(f"LLVM has no target for {triple} ({cpu}): {error}") from error


def _optimized(
    llvm_text: str, target: Target, opt: int
) -> tuple[llvm.ModuleRef, llvm.TargetMachine]:
    """The module of `llvm_text` after LLVM's passes for `target`."""
    if opt not in (0, 1, 2, 3):
        raise ValueError(f"the optimisation level is 0 to 3, not {opt!r}")
    machine = _machine(target.triple, target.cpu, target.features, opt)
    try:
        module = llvm.parse_assembly(llvm_text)
        module.triple = target.triple
        module.data_layout = str(machine.target_data)
        module.verify()
    except RuntimeError as error:
        raise CodegenError(
            f"LLVM refuses the generated code: {_located(str(error), llvm_text)}"
        ) from error
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(opt))
    with llvm.create_new_function_pass_manager() as passes:
        passes.add_sroa_pass()
        # Before combining, which moves what one other block uses there, in no particular order.
        passes.add_simplify_cfg_pass()
        passes.add_instruction_combine_pass()
        for function in module.functions:
            if not function.is_declaration:
                passes.run(function, builder)
    return module, machine


@contextlib.contextmanager
def _addresses_as_written() -> Iterator[None]:
    """Code generation without loop strength reduction, which is a switch of the whole process."""
    with _switches:
        llvm.set_option("aicc", "-disable-lsr=true")
        try:
            yield
        finally:
            llvm.set_option("aicc", "-disable-lsr=false")


def _located(message: str, llvm_text: str) -> str:
    """LLVM's message, with the line of the text that it names and the lines around it."""
    match = re.search(r"<string>:(\d+):", message)
    if match is None:
        return message.strip()
    number = int(match.group(1))
    lines = llvm_text.splitlines()
    around = range(max(0, number - 3), min(len(lines), number + 2))
    shown = "\n".join(f"{'>' if i == number - 1 else ' '} {i + 1:5} {lines[i]}" for i in around)
    return f"{message.strip()}\n{shown}"


def compile_object(llvm_text: str, target: Target, opt: int = 3) -> bytes:
    """Object code of a module, position-independent, for `target` (which need not be this machine).

    `opt` is LLVM's level, 0 to 3. Raises CodegenError, with the place, if LLVM refuses the text.
    """
    module, machine = _optimized(llvm_text, target, opt)
    with module, _addresses_as_written():
        return bytes(machine.emit_object(module))


def assembly(llvm_text: str, target: Target, opt: int = 3) -> str:
    """The assembly of a module after the same passes as `compile_object` runs."""
    module, machine = _optimized(llvm_text, target, opt)
    with module, _addresses_as_written():
        return str(machine.emit_assembly(module))


@functools.cache
def _math_library() -> ctypes.CDLL | None:
    """Makes libm's symbols global: a Python that is linked without it would hide them."""
    if not sys.platform.startswith("linux"):
        return None  # macOS has them in the system library
    try:
        return ctypes.CDLL("libm.so.6", mode=ctypes.RTLD_GLOBAL)
    except OSError:
        return None  # another C library that has no file of that name: its symbols are global


def _undefined(objects: Iterable[bytes]) -> set[str]:
    """The symbols that ELF objects need and neither they nor the process define."""
    needed: set[str] = set()
    defined: set[str] = set()
    for data in objects:
        if data[:6] != b"\x7fELF\x02\x01":  # 64 bits, little-endian
            continue
        (table,) = struct.unpack_from("<Q", data, 40)
        entry_size, count = struct.unpack_from("<HH", data, 58)
        sections = [
            struct.unpack_from("<IIQQQQII", data, table + i * entry_size) for i in range(count)
        ]
        for _, kind, _, _, offset, size, link, _ in sections:
            if kind != 2:  # SHT_SYMTAB
                continue
            strings = sections[link][4]
            for at in range(offset + 24, offset + size, 24):
                name_at, _, _, section = struct.unpack_from("<IBBH", data, at)
                start = strings + name_at
                name = data[start : data.index(0, start)].decode()
                (defined if section else needed).add(name)
    process = ctypes.CDLL(None)
    return {name for name in needed - defined if name and not hasattr(process, name)}


class NativeLibrary:
    """Object files linked into this process.

    Symbols that no object defines are looked up in the process (libc, libm, pthread), after those
    of `imports` (name -> address). Addresses are valid until `close` or the end of the object;
    nothing of the library may run then. Raises TargetError if this machine cannot run code for
    `target`, CodegenError if the objects do not link. Objects are linked when a symbol of theirs is
    asked for.
    """

    def __init__(
        self, objects: Iterable[bytes], target: Target, imports: Mapping[str, int] | None = None
    ) -> None:
        self._jit: llvm.LLJIT | None = None
        self._library: llvm.ResourceTracker | None = None
        self._found: dict[str, tuple[int, llvm.ResourceTracker]] = {}
        self._name = f"aicc{next(_names)}"
        target.require_host()
        _initialize()
        _math_library()
        builder = llvm.JITLibraryBuilder()
        builder.add_current_process()
        self._objects = list(objects)
        for data in self._objects:
            builder.add_object_img(data)
        self._imported = frozenset(imports or ())
        for name, address in (imports or {}).items():
            builder.import_symbol(name, address)
        try:
            self._jit = llvm.create_lljit_compiler(use_jit_link=True, suppress_errors=True)
            self._library = builder.link(self._jit, self._name)
        except RuntimeError as error:
            self.close()
            raise CodegenError(f"the generated objects do not link: {error}") from error

    def address(self, symbol: str) -> int:
        """The address of `symbol`; raises CodegenError if no object defines it, or if something
        that it needs is defined nowhere."""
        if self._jit is None:
            raise CodegenError(f"cannot look up {symbol!r}: the library is closed")
        found = self._found.get(symbol)
        if found is None:
            try:
                tracker = self._jit.lookup(self._name, symbol)
            except RuntimeError as error:
                missing = _undefined(self._objects) - self._imported
                why = f"undefined: {', '.join(sorted(missing))}" if missing else str(error)
                raise CodegenError(f"cannot resolve {symbol!r}: {why}") from error
            found = self._found[symbol] = (int(tracker[symbol]), tracker)
        return found[0]

    def close(self) -> None:
        """Unloads the code. Closing twice is allowed."""
        jit, self._jit = self._jit, None
        library, self._library = self._library, None
        # The trackers refer to the JIT: they go first.
        for _, tracker in self._found.values():
            tracker.close()
        self._found = {}
        if library is not None:
            library.close()
        if jit is not None:
            jit.close()

    def __enter__(self) -> NativeLibrary:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        # At interpreter exit llvmlite may be half gone; the process gives the memory back by
        # itself.
        if not sys.is_finalizing():
            self.close()
