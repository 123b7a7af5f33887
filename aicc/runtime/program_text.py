"""The text form of programs: printing and parsing.

    program @mlp
      size n: 1.. = x[0]
      input x: f32[n, 256]
      const w: f32[16, 256, 16] at 0
      arena h: f32[n, 256] at 0 live 0..1
      output y: f32[n, 10]
      call @matmul_relu (x, w) -> (h) sizes (n) work f32[131584*n, 65792*n, 262144, 2048*n, 0]
        shared at "fc1", "relu1"                                  # (x, const+0) -> arena+0
      copy h -> y
      host NonZero $0 (h) -> (k) at "nz"
      read c most 64 at "nms"
      return (y = y)
      arena 1024 least 1024 bound 1024
      constants 16384

The comment behind a step says where its buffers lie.
"""

from __future__ import annotations

from typing import Any

from aicc.dtypes import ALL
from aicc.runtime.program import (
    SPACES,
    Buffer,
    Call,
    Copy,
    Host,
    Program,
    Read,
    SizeSource,
    Step,
    Work,
)
from aicc.symbolic import Size, Sym, print_range, sym
from aicc.text import Reader, print_name, quote

# --- printing -----------------------------------------------------------------------------------


def print_program(program: Program) -> str:
    """The program's text; constants' data are kept beside."""
    lines = [f"program @{print_name(program.name)}"]
    for s in program.sizes:
        at = print_name(s.buffer) + ("" if s.axis is None else f"[{s.axis}]")
        lines.append(f"  size {s.sym}: {print_range(s.sym.lo, s.sym.hi)} = {at}")
    lines += [f"  {_buffer(program.table[n])}" for n in program.inputs]
    lines += [f"  {_buffer(b)}" for b in program.buffers if b.space != "input"]
    lines += [f"  {_step(program, s)}" for s in program.steps]
    ports = ", ".join(f"{print_name(n)} = {print_name(b)}" for n, b in program.outputs)
    lines.append(f"  return ({ports})")
    if program.arena is not None:
        bound = "" if program.bound is None else f" bound {program.bound}"
        lines.append(f"  arena {program.arena} least {program.least}{bound}")
    lines.append(f"  constants {program.constant_bytes}")
    return "\n".join(lines) + "\n"


def _buffer(b: Buffer) -> str:
    text = f"{b.space} {print_name(b.name)}: {b.dtype}[{', '.join(map(str, b.shape))}]"
    if b.space == "view":
        pitch = f" pitch=[{', '.join(map(str, b.pitch))}]" if b.pitch else ""
        return f"{text}{pitch} of {print_name(b.root)} + {b.at}"
    if b.space in ("const", "arena") and b.at is not None:
        text += f" at {b.at}"
    if b.space == "arena":
        text += f" live {b.first}..{b.last}"
    return text


def _names(names: tuple[str, ...]) -> str:
    return f"({', '.join(print_name(n) if n else '_' for n in names)})"


def _step(program: Program, s: Step) -> str:
    if isinstance(s, Copy):
        text = f"copy {print_name(s.source)} -> {print_name(s.target)}"
    elif isinstance(s, Read):
        text = f"read {print_name(s.buffer)} most {s.most}"
    else:
        head = (
            f"call @{print_name(s.kernel)}"
            if isinstance(s, Call)
            else f"host {print_name(s.op)} ${s.key}"
        )
        text = f"{head} {_names(s.operands)} -> {_names(s.results)}"
        if isinstance(s, Call) and s.sizes:
            text += f" sizes {_names(s.sizes)}"
        if isinstance(s, Call) and s.work is not None:
            text += f" work {_work(s.work)}"
    if s.nodes:
        text += f" at {', '.join(map(quote, s.nodes))}"
    if isinstance(s, Host | Read):
        return text
    operands, results = (
        ", ".join(place(program, n) for n in names if n) for names in (s.operands, s.results)
    )
    return f"{text}  # ({operands}) -> {results}"


def _work(w: Work) -> str:
    counts = ", ".join(map(str, (w.operations, w.instructions, w.constants, w.moved, w.again)))
    return f"{w.dtype}[{counts}]{' shared' if w.shared else ''}"


def place(program: Program, name: str) -> str:
    """Where a buffer lies, `arena+4096`; its root's name where that is not in a block."""
    b, root = program.table[name], program.root(name)
    offset = (b.at or 0) if b.space == "view" else 0
    if root.space in ("const", "arena") and root.at is not None:
        return f"{root.space}+{root.at + offset}"
    return print_name(root.name) + (f"+{offset}" if offset else "")


# --- parsing ------------------------------------------------------------------------------------


def parse_program(text: str, source: str = "") -> Program:
    """The program that `print_program` wrote. Raises IRError with the place."""
    reader = Reader(text, source)
    program = read_program(reader)
    reader.finish()
    return program


def read_program(reader: Reader) -> Program:
    """Reads one program, as part of a larger text."""
    return _ProgramReader(reader).program()


class _ProgramReader:
    def __init__(self, reader: Reader) -> None:
        self.r = reader
        self.scope: dict[str, Size] = {}
        self.sizes: list[SizeSource] = []
        self.buffers: list[Buffer] = []
        self.names: set[str] = set()
        self.steps: list[Step] = []
        self.outputs: list[tuple[str, str]] = []
        self.totals: dict[str, Any] = {}

    def program(self) -> Program:
        r = self.r
        r.expect("program")
        r.expect("@")
        name = r.name("the program's name")
        r.block(self._line)
        inputs = tuple(b.name for b in self.buffers if b.space == "input")
        return Program(
            name, inputs, tuple(self.outputs), tuple(self.sizes), tuple(self.buffers),
            tuple(self.steps), self.totals.get("arena"), self.totals.get("least"),
            self.totals.get("constants", 0), self.totals.get("bound"),
        )  # fmt: skip

    def _line(self) -> None:
        r = self.r
        if r.at("size"):
            self._size()
        elif r.at("arena") and r.ahead().kind == "int":
            r.take()
            self.totals["arena"] = r.integer()
            r.expect("least")
            self.totals["least"] = r.integer()
            if r.accept("bound"):
                self.totals["bound"] = r.integer()
        elif r.at("constants"):
            r.take()
            self.totals["constants"] = r.integer()
        elif r.at("host") and r.ahead(2).text == "$":
            self._host()
        elif r.at(*SPACES):
            self._buffer()
        elif r.at("call"):
            self._call()
        elif r.at("copy"):
            r.take()
            source = self._known()
            r.expect("->")
            self.steps.append(Copy(source, self._known(), self._nodes()))
        elif r.at("read"):
            r.take()
            source = self._known()
            r.expect("most")
            self.steps.append(Read(source, r.size(self.scope.get), self._nodes()))
        elif r.accept("return"):
            self.outputs += r.listed(self._port, "(", ")")
        else:
            r.fail(f"expected a size, a buffer or a step, found {r.token}")
        r.newline()

    def _size(self) -> None:
        r = self.r
        r.take()
        name = r.name("a size")
        r.expect(":")
        lo, hi = r.range()
        r.expect("=")
        buffer, axis = r.name("a buffer"), None
        if r.accept("["):
            axis = r.integer()
            r.expect("]")
        self.scope[name] = sym(name, lo, hi)
        self.sizes.append(SizeSource(Sym(name, lo, hi), buffer, axis))

    def _buffer(self) -> None:
        r = self.r
        space = r.take().text
        name = r.name("the buffer's name")
        r.expect(":")
        token = r.expect_kind("name", "an element type")
        if token.text not in ALL:
            r.fail(f"{token.text!r} is no element type", token)
        shape = r.sizes(self.scope.get)
        at, root, first, last = None, "", -1, -1
        pitch: tuple[Size, ...] = ()
        if space == "view":
            if r.accept("pitch"):
                r.expect("=")
                pitch = r.sizes(self.scope.get)
            r.expect("of")
            root = r.name("a buffer")
            r.expect("+")
            at = r.integer()
        elif r.accept("at"):
            at = r.integer()
        if space == "arena":
            r.expect("live")
            first, last = self._life()
        if space in ("input", "output"):
            at = sum(b.space == space for b in self.buffers)
        self.names.add(name)
        self.buffers.append(Buffer(name, token.text, shape, space, at, root, first, last, pitch))

    def _life(self) -> tuple[int, int]:
        start = self.r.token
        lo, hi = self.r.range()
        if lo is None or hi is None:
            self.r.fail("a life has two ends", start)
        return lo, hi

    def _known(self) -> str:
        r = self.r
        start = r.token
        if r.accept("_"):
            return ""
        name = r.name("a buffer")
        if name not in self.names:
            r.fail(f"unknown buffer {name!r}", start)
        return name

    def _call(self) -> None:
        r = self.r
        r.take()
        r.expect("@")
        kernel = r.name("a kernel")
        operands = r.listed(self._known, "(", ")")
        r.expect("->")
        results = r.listed(self._known, "(", ")")
        sizes = r.listed(lambda: r.name("a size"), "(", ")") if r.accept("sizes") else []
        work = self._work() if r.accept("work") else None
        names = self._nodes()
        self.steps.append(Call(kernel, tuple(operands), tuple(results), tuple(sizes), names, work))

    def _work(self) -> Work:
        r = self.r
        dtype = r.expect_kind("name", "an element type").text
        start = r.token
        counts = r.sizes(self.scope.get)
        if len(counts) != 5:
            r.fail("operations, instructions and bytes of constants and others", start)
        return Work(*counts, dtype=dtype, shared=bool(r.accept("shared")))

    def _host(self) -> None:
        r = self.r
        r.take()
        op = r.name("an operator")
        r.expect("$")
        key = r.integer()
        operands = r.listed(self._known, "(", ")")
        r.expect("->")
        results = r.listed(self._known, "(", ")")
        self.steps.append(Host(op, key, tuple(operands), tuple(results), self._nodes()))

    def _nodes(self) -> tuple[str, ...]:
        r = self.r
        if not r.accept("at"):
            return ()
        names = [r.string()]
        while r.accept(","):
            names.append(r.string())
        return tuple(names)

    def _port(self) -> tuple[str, str]:
        name = self.r.name("an output")
        self.r.expect("=")
        return name, self._known()
