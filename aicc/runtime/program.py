"""The Program: what runs. A list of steps over buffers, with no trace of graph or loops left.

    program  ::= "program @" name block
    size     ::= "size" name ":" range "=" buffer ("[" axis "]")?   where a run reads the size
    buffer   ::= "input" name ":" type                              the caller's arrays, in order
               | "output" name ":" type                             results, in order of position
               | "const" name ":" type ("at" offset)?               in the block of constants
               | "arena" name ":" type ("at" offset)? "live" step ".." step
               | "host" name ":" type                               an array made by a host step
               | "view" name ":" type pitch? "of" buffer "+" bytes  the memory of another buffer
    pitch    ::= "pitch" "=" "[" sizes "]"                          strides, where it is not dense
    type     ::= dtype "[" sizes "]"
    step     ::= "call @" kernel buffers "->" buffers "sizes" names work nodes
               | "copy" buffer "->" buffer nodes
               | "host" operator "$" key operands "->" results nodes
               | "read" buffer "most" size nodes                    its number becomes a size
    work     ::= "work" dtype "[" operations, instructions, constants, moved, again "]" "shared"?
    nodes    ::= "at" strings                                       names of ONNX nodes
    result   ::= "return" (name "=" buffer) ...
    arena    ::= "arena" bytes "least" bytes ("bound" bytes)?       where all offsets are known

Invariants, held by `aicc.runtime.verify`:

- Names are unique. A view's root is no view, and the view lies inside it. Only calls use views with
  a pitch.
- Every buffer is written before it is read, and written only by steps: results of calls and hosts,
  targets of copies. Inputs and constants are never written.
- Arena buffers that live at the same time do not overlap; a step that uses one lies in its life.
- Every size that a step or a buffer needs is known when it is needed: the extent of an input or of
  a host step's result, or a number that a step before reads.
- Every output is written.

Offsets are bytes, multiples of 64. Where a size is a symbol, arena offsets are not known before a
run: they are placed for each distinct set of sizes (`aicc.runtime.layout`). Sizes that a step
brings, one in Python or one that reads them, open a new *phase* with an arena of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from aicc.dtypes import nbytes
from aicc.symbolic import Size, Sym, product, symbols

SPACES = ("input", "output", "const", "arena", "host", "view")


@dataclass(frozen=True)
class Buffer:
    """A row-major array; dense, but for views with a pitch.

    at: its byte offset in the block of constants, the arena or its root; None in an arena that is
    placed at run time; its position for inputs and outputs. root: whose memory a view is. first,
    last: the steps between which an arena buffer holds data, both included. A constant of dtype str
    is no part of the block: `at` is None and its array is kept beside. pitch: the strides, in
    elements, of a view that is not dense.
    """

    name: str
    dtype: str
    shape: tuple[Size, ...]
    space: str
    at: int | None = None
    root: str = ""
    first: int = -1
    last: int = -1
    pitch: tuple[Size, ...] = ()

    @property
    def nbytes(self) -> Size:
        """Bytes of the elements, without padding."""
        return product(self.shape) * nbytes(self.dtype)

    @property
    def reach(self) -> Size:
        """Bytes from the first element to the end of the last one."""
        if not self.pitch or 0 in self.shape:
            return self.nbytes
        last: Size = 1
        for extent, stride in zip(self.shape, self.pitch, strict=True):
            last = last + (extent - 1) * stride
        return last * nbytes(self.dtype)


@dataclass(frozen=True)
class SizeSource:
    """Symbol `sym` is the extent of `buffer` (an input or a host step's result) along `axis`; axis
    None: the number that a step reads from `buffer`."""

    sym: Sym
    buffer: str
    axis: int | None


@dataclass(frozen=True)
class Work:
    """What a call has to do, for profiles; expressions of the program's sizes.

    operations: of arithmetic on floats. instructions: what the vector units do for them, per
    element. constants: bytes read of constants, moved: bytes of the other buffers, again: bytes
    that have to be read more than once. dtype: whose multiply-adds are the limit. shared: whether
    threads share the kernel's loops.
    """

    operations: Size
    instructions: Size
    constants: Size
    moved: Size
    again: Size = 0
    dtype: str = "f32"
    shared: bool = False


@dataclass(frozen=True)
class Call:
    """Runs a kernel: operands are its `in` and `const` parameters, results its `out` parameters,
    both in order; sizes are names of symbols. work: what it has to do, where that is known."""

    kernel: str
    operands: tuple[str, ...]
    results: tuple[str, ...]
    sizes: tuple[str, ...] = ()
    nodes: tuple[str, ...] = field(default=(), compare=False)
    work: Work | None = None


@dataclass(frozen=True)
class Copy:
    """Copies all bytes of `source` to `target`, which has as many."""

    source: str
    target: str
    nodes: tuple[str, ...] = field(default=(), compare=False)

    @property
    def operands(self) -> tuple[str, ...]:
        return (self.source,)

    @property
    def results(self) -> tuple[str, ...]:
        return (self.target,)


@dataclass(frozen=True)
class Host:
    """An operator that Python computes. op: its name, for messages; key: what the executor's
    callback knows it by. An operand "" is an omitted one; a result "" is not wanted."""

    op: str
    key: int
    operands: tuple[str, ...]
    results: tuple[str, ...]
    nodes: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class Read:
    """The only element of `buffer`, an i64, becomes a size: 0 or more, and at most `most`."""

    buffer: str
    most: Size
    nodes: tuple[str, ...] = field(default=(), compare=False)

    @property
    def operands(self) -> tuple[str, ...]:
        return (self.buffer,)

    @property
    def results(self) -> tuple[str, ...]:
        return ()


Step = Call | Copy | Host | Read


@dataclass(frozen=True)
class Program:
    """inputs: buffers in the model's order. outputs: (name, buffer) in the model's order.
    arena, least: bytes of the arena and the most bytes alive in one step, where all are known.
    constant_bytes: size of the block of constants. bound: bytes that steps in any other order would
    need at least, too; None where nobody has looked."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[tuple[str, str], ...]
    sizes: tuple[SizeSource, ...]
    buffers: tuple[Buffer, ...]
    steps: tuple[Step, ...]
    arena: int | None = None
    least: int | None = None
    constant_bytes: int = 0
    bound: int | None = None

    @cached_property
    def table(self) -> dict[str, Buffer]:
        """Buffers by name."""
        return {b.name: b for b in self.buffers}

    def root(self, name: str) -> Buffer:
        """The buffer whose memory `name` lies in."""
        b = self.table[name]
        return self.table[b.root] if b.space == "view" else b

    @cached_property
    def phases(self) -> tuple[int, ...]:
        """The first step of each phase: 0, and each step after one that brings sizes."""
        found = {0}
        makers = self._makers
        found |= {makers[s.buffer] + 1 for s in self.sizes if s.buffer in makers}
        return tuple(sorted(found))

    @cached_property
    def _makers(self) -> dict[str, int]:
        """The step that tells sizes, by the buffer that it tells them of."""
        makers = {r: n for n, s in enumerate(self.steps) if isinstance(s, Host) for r in s.results}
        return makers | {s.buffer: n for n, s in enumerate(self.steps) if isinstance(s, Read)}

    @cached_property
    def phase_of_size(self) -> dict[str, int]:
        """The phase that brings each symbol, by the symbol's name."""
        makers = self._makers
        return {
            s.sym.name: self.phases.index(makers[s.buffer] + 1 if s.buffer in makers else 0)
            for s in self.sizes
        }

    def phase_of(self, b: Buffer) -> int:
        """The phase from which on a buffer's size is known."""
        return max((self.phase_of_size[s.name] for d in b.shape for s in symbols(d)), default=0)

    @property
    def native(self) -> bool:
        """Whether no step runs in Python."""
        return not any(isinstance(s, Host | Read) for s in self.steps)

    def segments(self) -> tuple[tuple[int, int], ...]:
        """Ranges (begin, end) of steps that run together: a step that Python does alone, else as
        many as there are up to the next one."""
        found: list[tuple[int, int]] = []
        begin = 0
        for n, s in enumerate(self.steps):
            if isinstance(s, Host | Read):
                if begin < n:
                    found.append((begin, n))
                found.append((n, n + 1))
                begin = n + 1
        if begin < len(self.steps):
            found.append((begin, len(self.steps)))
        return tuple(found)

    def __str__(self) -> str:
        from aicc.runtime.program_text import print_program

        return print_program(self)
