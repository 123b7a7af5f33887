"""Writes LLVM IR as text: functions, basic blocks, fresh names, and the declarations they need.

Text is an order of magnitude quicker to produce than objects of a builder, and what LLVM parses is
what a reader of a dump sees.
"""

from __future__ import annotations

ZEROS = 64
"""Bytes at the address that stands in for what is not to be read: those of the widest register."""


class ModuleWriter:
    """Collects the functions of one LLVM module and the external names they declare."""

    def __init__(self) -> None:
        self.functions: list[str] = []
        self.declared: dict[str, str] = {}

    def declare(self, name: str, result: str, args: str, attributes: str = "") -> None:
        self.declared[name] = f"declare {result} @{name}({args}) {attributes}".rstrip()

    def zeros(self) -> str:
        """The address of `ZEROS` bytes that are zero: what a load reads that is not performed."""
        name = "aicc.zeros"
        self.declared[name] = (
            f"@{name} = private unnamed_addr constant [{ZEROS} x i8] zeroinitializer, align 64"
        )
        return f"@{name}"

    def text(self) -> str:
        return "\n".join([*self.functions, *self.declared.values(), ""])


class FunctionWriter:
    """Appends instructions to the current block. `%n` temporaries are unique in the function."""

    def __init__(self, module: ModuleWriter, header: str) -> None:
        self.module = module
        self.header = header
        self.entry: list[str] = []
        self.lines: list[str] = []
        self._heads: list[tuple[int, list[str]]] = []
        self.block = "entry"
        self._count = 0

    def fresh(self, prefix: str = "t") -> str:
        self._count += 1
        return f"{prefix}{self._count}"

    def emit(self, line: str) -> None:
        self.lines.append(f"  {line}")

    def value(self, instruction: str) -> str:
        """Appends `%new = instruction` and returns `%new`."""
        name = f"%{self.fresh()}"
        self.lines.append(f"  {name} = {instruction}")
        return name

    def at_entry(self, instruction: str) -> str:
        """A value computed once, at the head of the function (stack slots)."""
        name = f"%{self.fresh('a')}"
        self.entry.append(f"  {name} = {instruction}")
        return name

    def head(self) -> list[str]:
        """A place here, for instructions that are found to be needed later."""
        lines: list[str] = []
        self._heads.append((len(self.lines), lines))
        return lines

    def label(self, name: str) -> None:
        self.lines.append(f"{name}:")
        self.block = name

    def call(self, result: str, name: str, args: list[tuple[str, str]], flags: str = "") -> str:
        """A call of an external function or intrinsic, declared as needed; args: (type, value).
        flags: what LLVM may assume, such as "nsz"."""
        self.module.declare(name, result, ", ".join(t for t, _ in args))
        word = f"call {flags}" if flags else "call"
        text = f"{word} {result} @{name}({', '.join(f'{t} {v}' for t, v in args)})"
        if result == "void":
            self.emit(text)
            return ""
        return self.value(text)

    def finish(self) -> None:
        lines, done = [f"{self.header} {{", "entry:", *self.entry], 0
        for place, head in self._heads:
            lines += self.lines[done:place]
            lines += head
            done = place
        self.module.functions.append("\n".join([*lines, *self.lines[done:], "}", ""]))
