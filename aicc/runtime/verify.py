"""Checks the invariants of a Program that `aicc.runtime.program` lists."""

from __future__ import annotations

from aicc.dtypes import ALL
from aicc.errors import IRError
from aicc.memory import placement
from aicc.runtime.program import SPACES, Buffer, Call, Copy, Host, Program, Read, Step
from aicc.symbolic import Size, symbols


def verify_program(program: Program) -> None:
    """Raises IRError, naming the buffer or step, where an invariant does not hold."""
    _Verifier(program).run()


class _Verifier:
    def __init__(self, program: Program) -> None:
        self.p = program
        self.known: set[str] = set()
        self.written: set[str] = set()

    def fail(self, message: str) -> IRError:
        return IRError(f"program @{self.p.name}: {message}")

    def run(self) -> None:
        self.declarations()
        inputs = [b.name for b in self.p.buffers if b.space == "input"]
        if sorted(inputs) != sorted(self.p.inputs):
            raise self.fail(f"the inputs {inputs} are declared, {list(self.p.inputs)} are bound")
        self.written = {b.name for b in self.p.buffers if b.space in ("input", "const")}
        given = (s for s in self.p.sizes if s.axis is not None)
        self.known = {s.sym.name for s in given if s.buffer in self.p.inputs}
        for name in self.p.inputs:
            self.sized(f"input {name}", self.p.table[name].shape)
        for number, step in enumerate(self.p.steps):
            self.step(number, step)
        for port, name in self.p.outputs:
            if name not in self.p.table:
                raise self.fail(f"output {port} is the unknown buffer {name}")
            self.dense(f"output {port}", name)
            b = self.p.root(name)
            if b.space not in ("output", "host") and not (b.space == "const" and b.at is None):
                raise self.fail(f"output {port} lies in the {b.space} buffer {b.name}")
            if b.name not in self.written:
                raise self.fail(f"output {port} is never written")
        self.overlaps()

    # declarations

    def declarations(self) -> None:
        names = [b.name for b in self.p.buffers]
        twice = {n for n in names if names.count(n) > 1} if len(set(names)) < len(names) else set()
        if twice:
            raise self.fail(f"buffers declared twice: {', '.join(sorted(twice))}")
        for b in self.p.buffers:
            self.declaration(b)
        positions = sorted(b.at or 0 for b in self.p.buffers if b.space == "output")
        if positions != list(range(len(positions))):
            raise self.fail(f"output buffers have the positions {positions}")
        symbols_read = [s.sym.name for s in self.p.sizes]
        if len(set(symbols_read)) < len(symbols_read):
            raise self.fail("a size is read in two places")
        read = [s.buffer for s in self.p.steps if isinstance(s, Read)]
        sources = [s.buffer for s in self.p.sizes if s.axis is None]
        if sorted(read) != sorted(set(sources)):
            raise self.fail(f"sizes are read from {sources}, by steps from {read}")
        for s in self.p.sizes:
            if s.axis is None:
                continue
            made = self.p.table.get(s.buffer)
            if made is None or made.space not in ("input", "host") or s.axis >= len(made.shape):
                raise self.fail(f"the size {s.sym} is read from {s.buffer}[{s.axis}]")

    def declaration(self, b: Buffer) -> None:
        if b.space not in SPACES or b.dtype not in ALL:
            raise self.fail(f"{b.name}: {b.space} {b.dtype} is no buffer")
        if any(isinstance(d, int) and d < 0 for d in b.shape):
            raise self.fail(f"{b.name} has a negative size")
        if b.dtype == "str" and b.space in ("arena", "output"):
            raise self.fail(f"{b.name} holds strings, which native code has none of")
        if b.space == "const" and b.at is not None:
            self.inside(b, b.at, self.p.constant_bytes)
        if b.space == "arena":
            if not 0 <= b.first <= b.last < max(len(self.p.steps), 1):
                raise self.fail(f"{b.name} lives from step {b.first} to {b.last}")
            if (b.at is None) != (self.p.arena is None):
                raise self.fail(f"{b.name}: either all arena offsets are known or none is")
            if b.at is not None and self.p.arena is not None:
                self.inside(b, b.at, self.p.arena)
        if b.pitch and (b.space != "view" or len(b.pitch) != len(b.shape)):
            raise self.fail(f"{b.name}: strides {list(b.pitch)} for {b.space} {list(b.shape)}")
        if b.space == "view":
            root = self.p.table.get(b.root)
            if root is None or root.space == "view":
                raise self.fail(f"{b.name} is a view of {b.root}, which is no buffer of its own")
            slack = root.nbytes - b.reach - (b.at or 0)
            if b.at is None or b.at < 0 or (isinstance(slack, int) and slack < 0):
                raise self.fail(f"the view {b.name} is not inside {b.root}")

    def inside(self, b: Buffer, at: int, total: int) -> None:
        size = b.nbytes
        if not isinstance(size, int) or at < 0 or at % placement.ALIGNMENT or at + size > total:
            raise self.fail(f"{b.name} at {at} is not inside its {total} bytes, or not aligned")

    # steps

    def sized(self, what: str, shape: tuple[Size, ...]) -> None:
        for d in shape:
            for s in symbols(d):
                if s.name not in self.known:
                    raise self.fail(f"{what} needs the size {s.name}, which is not known there")

    def step(self, number: int, step: Step) -> None:
        what = f"step {number} ({_title(step)})"
        for name in step.operands:
            if name:
                self.use(what, number, name)
        if not isinstance(step, Call):
            for name in (*step.operands, *step.results):
                self.dense(what, name)
        if isinstance(step, Read):
            b = self.p.table[step.buffer]
            if b.dtype != "i64" or b.nbytes != 8:
                raise self.fail(f"{what} takes {b.dtype}{list(b.shape)}, which is no size")
            self.sized(what, (step.most,))
            found = (s for s in self.p.sizes if s.axis is None and s.buffer == step.buffer)
            self.known |= {s.sym.name for s in found}
        if isinstance(step, Host):
            made = set(step.results)
            self.known |= {s.sym.name for s in self.p.sizes if s.buffer in made}
        for name in step.results:
            if not name:
                continue
            root = self.touch(what, number, name)
            if root.space in ("input", "const"):
                raise self.fail(f"{what} writes the {root.space} {root.name}")
            if isinstance(step, Host) != (root.space == "host"):
                raise self.fail(f"{what} writes the {root.space} buffer {root.name}")
            self.written |= {name, root.name}
        if isinstance(step, Call):
            for size in step.sizes:
                if size not in self.known:
                    raise self.fail(f"{what} needs the size {size}, which is not known there")
        if isinstance(step, Copy):
            a, b = self.p.table[step.source], self.p.table[step.target]
            if a.nbytes != b.nbytes:
                raise self.fail(f"{what} copies {a.nbytes} bytes to {b.nbytes}")

    def dense(self, what: str, name: str) -> None:
        if name in self.p.table and self.p.table[name].pitch:
            raise self.fail(f"{what} takes {name}, whose elements do not lie side by side")

    def touch(self, what: str, number: int, name: str) -> Buffer:
        b = self.p.table.get(name)
        if b is None:
            raise self.fail(f"{what} names the unknown buffer {name}")
        root = self.p.root(name)
        if root.space == "arena" and not root.first <= number <= root.last:
            raise self.fail(f"{what} is outside the life of {root.name}")
        self.sized(f"{what}, buffer {name},", b.shape)
        return root

    def use(self, what: str, number: int, name: str) -> None:
        root = self.touch(what, number, name)
        if root.name not in self.written:
            raise self.fail(f"{what} reads {name} before it is written")

    def overlaps(self) -> None:
        if self.p.arena is None:
            return
        placed = [b for b in self.p.buffers if b.space == "arena"]
        slots = [placement.Buffer(_int(b.nbytes), b.first, b.last) for b in placed]
        try:
            placement.check_placement(slots, [b.at or 0 for b in placed], self.p.arena)
        except ValueError as fault:
            names = ", ".join(b.name for b in placed)
            raise self.fail(f"in the arena of {names}: {fault}") from None


def _int(size: Size) -> int:
    assert isinstance(size, int)
    return size


def _title(step: Step) -> str:
    if isinstance(step, Call):
        return f"call @{step.kernel}"
    if isinstance(step, Host):
        return f"host {step.op}"
    return "copy" if isinstance(step, Copy) else "read"
