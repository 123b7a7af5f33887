"""The tensor IR: a kernel is buffers and loop nests over them.

    kernel ::= "kernel @" name "(" sizes ")" buffers body
    buffer ::= scope name ":" dtype "[" sizes "]" ("pack" layout)? ("pitch" "[" sizes "]")?
               "sparse"?
    scope  ::= "in" | "out" | "const"            parameters, in memory owned by the caller
             | "stack" | "register"              per thread; "register": in vector registers
             | "temp"                            whole intermediate tensors of an unscheduled kernel
    stmt   ::= kind var "in" lo ".." hi ":" stmts       for | parallel | vector | unroll | bits
             | name "[" sizes "]" "=" expr              store
             | name "[" sizes "]" op "=" expr           reduce with + * max min and or
             | "if" expr ":" stmts ("else:" stmts)?  |  "while" expr ":" stmts
             | "check" expr string                      ends the kernel with an error where false
    expr   ::= constant | name "[" sizes "]" | index "(" size ")" | op "(" exprs ")"

Invariants, held by `verify`:

- Sizes and buffers are declared once; shapes are made of the declared sizes only; register buffers
  have a constant shape; only a constant has a pack.
- Only `in` and `out` buffers have a pitch: they are parts of larger arrays, whose other elements
  the kernel neither reads nor writes. A pitch has a stride for each axis, none of them negative,
  and no two elements in one place.
- Only an `in` buffer is sparse: many of its elements are expected to be zero, and what they are
  multiplied with is finite. That is advice to schedules and changes nothing of what is computed.
- A loop variable hides no size and no variable of a loop around; it is used only inside its loop,
  always with the same range, and its range covers the loop's.
- `parallel` loops have only `for` and `parallel` loops around them: of loops inside each other the
  one is shared out that threads find first with several iterations. A `vector` loop has a constant
  extent and contains no loop. A stack or register buffer is used either inside parallel loops or
  outside of them: it belongs to one iteration of a parallel loop, and is undefined when the
  iteration begins. Of parallel loops inside each other that is the innermost one around a use; but
  for a stack buffer that a loop around uses outside of parallel loops inside it, or that one of
  those reads before it stores to it: an iteration of the loop around has that.
- A `bits` loop has the form `bits k in 0..n: if C: stmts`, where n is a number and C says that bit
  k of a word of at least n bits is set (`walk.word_of`); the statements do not change the word. It
  goes from each bit that is set to the next one.
- A load or store has as many indices as its buffer has dimensions, and none that is known to lie
  outside the shape whenever the kernel runs. (Whether a *conditional* access is inside depends on
  its condition; the interpreter finds those that are not.) `in` and `const` buffers are not
  written.
- Types: a load has its buffer's type, a stored value its buffer's, an operation the type that
  `scalar.result_type` gives it, of operands that it takes (`and or xor not` bools; bit operations
  integers; arithmetic numbers; `max min select` and comparisons anything; the rest floats).
  Conditions are bools, opaque indices integers; a constant's value fits its type.

Indices are `Size`s; an index that comes from data is an opaque `Size` around an integer expression
(`as_index`). All nodes are immutable, compare by value and cache their hash.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar, dataclass_transform

from aicc.symbolic import Dim, Size, Sym, opaque, substitute, symbols
from aicc.tensor_ir.strides import normal_pitch, row_major

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def node(cls: type[T]) -> type[T]:
    """A frozen dataclass whose hash is computed once.

    Nodes are compared by the hundred thousand, and those of different hashes are different."""
    made: Any = dataclass(frozen=True)(cls)
    structural, equal = made.__hash__, made.__eq__

    def cached(self: Any) -> int:
        h: int | None = self._hash
        if h is None:
            h = self.__dict__["_hash"] = structural(self)
        return h

    def compared(self: Any, other: object) -> Any:
        if self is other:
            return True
        if self.__class__ is not other.__class__:
            return NotImplemented
        return hash(self) == hash(other) and equal(self, other)

    made._hash = None
    made.__hash__, made.__eq__ = cached, compared
    return made  # type: ignore[no-any-return]


class Expr:
    """A scalar expression. `dtype` is the type of its value."""

    dtype: str

    def __add__(self, other: ExprLike) -> Expr:
        return binary("add", self, other)

    def __radd__(self, other: ExprLike) -> Expr:
        return binary("add", other, self)

    def __sub__(self, other: ExprLike) -> Expr:
        return binary("sub", self, other)

    def __rsub__(self, other: ExprLike) -> Expr:
        return binary("sub", other, self)

    def __mul__(self, other: ExprLike) -> Expr:
        return binary("mul", self, other)

    def __rmul__(self, other: ExprLike) -> Expr:
        return binary("mul", other, self)

    def __truediv__(self, other: ExprLike) -> Expr:
        return binary("div", self, other)

    def __rtruediv__(self, other: ExprLike) -> Expr:
        return binary("div", other, self)

    def __neg__(self) -> Expr:
        return call("neg", self)

    def substitute_sizes(self, mapping: Mapping[Sym, Size]) -> Expr:
        from aicc.tensor_ir.walk import map_expr

        return map_expr(self, lambda e: None, lambda s: substitute(s, mapping))

    def size_symbols(self) -> frozenset[Sym]:
        """The symbols of the sizes and indices in it."""
        found: frozenset[Sym] = self.__dict__.get("_symbols", None)  # type: ignore[assignment]
        if found is None:
            from aicc.tensor_ir.walk import expr_sizes, walk_expr

            found = frozenset()
            for e in walk_expr(self):
                for s in expr_sizes(e):
                    found |= symbols(s)
            object.__setattr__(self, "_symbols", found)
        return found

    def __str__(self) -> str:
        from aicc.tensor_ir.text import print_expr

        return print_expr(self)


ExprLike = Expr | Dim | int | float | bool


@node
class Const(Expr):
    """A literal. Floats of any width are held as Python floats, integers and bools as ints."""

    value: int | float
    dtype: str

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Const)
            and self.dtype == other.dtype
            and type(self.value) is type(other.value)
            and repr(self.value) == repr(other.value)  # tells -0.0 from 0.0; nan equals nan
        )

    def __hash__(self) -> int:
        return hash((repr(self.value), self.dtype))


@node
class Load(Expr):
    """The element of a buffer. A bool buffer yields a bool."""

    buffer: str
    indices: tuple[Size, ...]
    dtype: str


@node
class Index(Expr):
    """A size or a loop variable used as a value."""

    size: Size
    dtype: str = "i64"


@node
class Op(Expr):
    """A scalar operation; `aicc.tensor_ir.scalar.OPS` gives arity, type rule and meaning."""

    name: str
    args: tuple[Expr, ...]
    dtype: str


def const(value: int | float | bool, dtype: str) -> Const:
    """A literal of `dtype`."""
    from aicc.dtypes import is_float

    return Const(float(value) if is_float(dtype) else int(value), dtype)


def as_expr(value: ExprLike, dtype: str | None = None) -> Expr:
    """An operand: numbers take `dtype`; a Dim becomes its value as `dtype` (default i64)."""
    if isinstance(value, Expr):
        return value
    if isinstance(value, Dim):
        e: Expr = Index(value)
        return e if dtype in (None, "i64") else call(f"cast.{dtype}", e)
    if dtype is None:
        dtype = "bool" if isinstance(value, bool) else "i64" if isinstance(value, int) else "f32"
    return const(value, dtype)


def as_index(e: Expr, lo: int | None = None, hi: int | None = None) -> Size:
    """An integer expression as an index; `lo`, `hi` bound its value (inclusive) where known."""
    if isinstance(e, Index):
        return e.size
    if isinstance(e, Const):
        return int(e.value)
    return opaque(e, lo, hi)


def call(name: str, *args: ExprLike) -> Expr:
    """`name` applied to `args`; plain numbers take the dtype of the first expression among them."""
    from aicc.tensor_ir.scalar import result_type

    dtype = next((a.dtype for a in args if isinstance(a, Expr) and a.dtype != "bool"), None)
    exprs = tuple(as_expr(a, dtype) for a in args)
    if name == f"cast.{exprs[0].dtype}":
        return exprs[0]
    return Op(name, exprs, result_type(name, exprs))


def binary(name: str, a: ExprLike, b: ExprLike) -> Expr:
    """`call` of two operands."""
    return call(name, a, b)


def cast(e: Expr, dtype: str) -> Expr:
    """`e` converted to `dtype`."""
    return e if e.dtype == dtype else call(f"cast.{dtype}", e)


def select(cond: Expr, a: ExprLike, b: ExprLike) -> Expr:
    """`a` where `cond` holds, else `b`; loads of the other one are not performed."""
    dtype = next(x.dtype for x in (a, b) if isinstance(x, Expr))
    x, y = as_expr(a, dtype), as_expr(b, dtype)
    return Op("select", (cond, x, y), dtype)


# --- statements ---------------------------------------------------------------------------------

KINDS = ("for", "parallel", "vector", "unroll", "bits")
REDUCTIONS = ("add", "mul", "max", "min", "and", "or")


class Stmt:
    """A statement."""

    def __str__(self) -> str:
        from aicc.tensor_ir.text import print_stmt

        return print_stmt(self)


@node
class For(Stmt):
    """`kind var in lo..hi: body`, `hi` exclusive; no iteration where `hi <= lo`."""

    var: Sym
    lo: Size
    hi: Size
    kind: str
    body: tuple[Stmt, ...]

    @property
    def extent(self) -> Size:
        return self.hi - self.lo


@node
class Store(Stmt):
    """`buffer[indices] = value`."""

    buffer: str
    indices: tuple[Size, ...]
    value: Expr


@node
class Reduce(Stmt):
    """`buffer[indices] = op(buffer[indices], value)`; order of a reduction is the loop order."""

    buffer: str
    indices: tuple[Size, ...]
    op: str
    value: Expr


@node
class If(Stmt):
    """`then` where `cond` holds, else `orelse`."""

    cond: Expr
    then: tuple[Stmt, ...]
    orelse: tuple[Stmt, ...] = ()


@node
class While(Stmt):
    """`body` again and again while `cond` holds."""

    cond: Expr
    body: tuple[Stmt, ...]


@node
class Check(Stmt):
    """Ends the kernel with `message` where `cond` is false; guards indices that come from data."""

    cond: Expr
    message: str


# --- kernels ------------------------------------------------------------------------------------

PARAM_SCOPES = ("in", "out", "const")
LOCAL_SCOPES = ("stack", "register", "temp")


@node
class Buffer:
    """A row-major array: dense, or a part of a larger one.

    pack: the layout of a constant, see `schedule.pack`. pitch: of a part, the elements from one
    index to the next along each axis; () where the array is dense. See `with_pitch`. sparse: many
    elements of an operand are expected to be zero.
    """

    name: str
    dtype: str
    shape: tuple[Size, ...]
    scope: str
    pack: str = ""
    pitch: tuple[Size, ...] = ()
    sparse: bool = False

    def strides(self) -> tuple[Size, ...]:
        """Elements from one index to the next along each axis."""
        found: tuple[Size, ...] | None = self.__dict__.get("_strides")
        if found is None:
            found = self.__dict__["_strides"] = self.pitch or row_major(self.shape)
        return found

    def with_pitch(self, strides: Sequence[Size]) -> Buffer:
        """The buffer with these strides, in the one form that they are written in."""
        return replace(self, pitch=normal_pitch(self.shape, strides))


@node
class Kernel:
    """Loop nests over buffers; parameters in call order, then locals.

    `sizes` are the symbols that the shapes mention, passed as integers at run time, in order.
    """

    name: str
    sizes: tuple[Sym, ...]
    buffers: tuple[Buffer, ...]
    body: tuple[Stmt, ...]

    @property
    def params(self) -> tuple[Buffer, ...]:
        return tuple(b for b in self.buffers if b.scope in PARAM_SCOPES)

    def buffer(self, name: str) -> Buffer:
        table = self.__dict__.get("_table")
        if table is None:
            table = {b.name: b for b in self.buffers}
            object.__setattr__(self, "_table", table)
        found: Buffer = table[name]
        return found

    def with_body(self, body: tuple[Stmt, ...]) -> Kernel:
        return replace(self, body=body)

    def with_buffer(self, buffer: Buffer) -> Kernel:
        """The kernel with one buffer's declaration replaced, or added at the end."""
        if any(b.name == buffer.name for b in self.buffers):
            return replace(
                self, buffers=tuple(buffer if b.name == buffer.name else b for b in self.buffers)
            )
        return replace(self, buffers=(*self.buffers, buffer))

    def __str__(self) -> str:
        from aicc.tensor_ir.text import print_kernel

        return print_kernel(self)
