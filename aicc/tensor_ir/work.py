"""What a kernel has to do, counted from its loops before any schedule: operations and bytes.

These are what no schedule can save, so that a measured time tells how far a kernel is from its
limit. All counts are sizes: expressions of the kernel's symbols.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aicc.dtypes import is_float, nbytes
from aicc.symbolic import Size, Sym, maximum, minimum, opaques, product, symbols
from aicc.tensor_ir.analysis import bounds, stages
from aicc.tensor_ir.ir import PARAM_SCOPES, Expr, For, Kernel, Load, Op, Reduce, Stmt, Store
from aicc.tensor_ir.walk import children, loads_of, stmt_exprs, walk_expr, walk_stmts

ARITHMETIC = frozenset(("add", "sub", "mul", "div", "neg", "abs", "max", "min", "fma", "sqrt"))
EXPANSION = {
    **dict.fromkeys(("div", "sqrt"), 6),
    **dict.fromkeys(("exp", "log", "sin", "cos", "tanh", "erf"), 14),
    **dict.fromkeys(("tan", "pow", "asin", "acos", "atan", "sinh", "cosh"), 24),
    **dict.fromkeys(("asinh", "acosh", "atanh", "mod", "floormod"), 24),
}
"""Vector instructions that a function takes, about, as long ones count for several."""


SHARED_CYCLES = 10_000
"""Cycles of one core from which on threads share a loop. Handing a loop out takes hundreds of
cycles while the threads wait for one, and tens of thousands where one has to be woken; and data
that another core has just written are in the wrong cache."""
STREAM = 12
"""Bytes per cycle that a loop reads and writes, about."""


@dataclass(frozen=True)
class Work:
    """operations: of arithmetic on floats, a multiplication and the addition of its product count
    as two. instructions: what the vector units do for them, per element: a multiply-add is one, a
    function as many as it expands to. constants: bytes read of constants, moved: bytes of the other
    parameters, each element once. again: bytes that the iterations of a loop around several nests
    each read anew, but for the first. dtype: "f64" or "f32", whose multiply-adds are the limit.
    """

    operations: Size
    instructions: Size
    constants: Size
    moved: Size
    again: Size = 0
    dtype: str = "f32"


def work(kernel: Kernel) -> Work:
    """The work of an unscheduled kernel. Loops whose bounds depend on data, and bodies of `while`,
    count as one iteration; loops whose bounds depend on other loops count at their longest."""
    count = _Count(kernel)
    count.visit(kernel.body, 1, 1, {})
    once: dict[str, Size] = {"const": 0, "": 0}
    again: Size = 0
    for b in kernel.params:
        whole = product(b.shape)
        total: Size = 0
        every: Size = 0
        for (name, passes), touched in count.touched.items():
            if name == b.name:
                total = total + touched * passes
                every = every + minimum(whole, touched) * passes
        kind = "const" if b.scope == "const" else ""
        least = minimum(whole, total)
        once[kind] = once[kind] + least * nbytes(b.dtype)
        again = again + (every - least) * nbytes(b.dtype)
    double = any(b.dtype == "f64" for b in kernel.params)
    return Work(
        count.operations,
        count.instructions,
        once["const"],
        once[""],
        maximum(0, again),
        "f64" if double else "f32",
    )


def inlined_terms(kernel: Kernel) -> int:
    """Operations and elements in the longest expression of a kernel once its local maps are
    inlined. As it is written, and as the code generator meets it, what is read twice counts twice.
    """
    most = 1
    inlined: dict[str, int] = {}
    for stage in stages(kernel):
        terms = _terms(stage.value, inlined, {})
        most = max(most, terms)
        if stage.op is None and kernel.buffer(stage.buffer).scope == "temp":
            inlined[stage.buffer] = terms
    return most


def _terms(e: Expr, inlined: Mapping[str, int], known: dict[Expr, int]) -> int:
    found = known.get(e)
    if found is None:
        found = inlined.get(e.buffer, 1) if isinstance(e, Load) else 1
        if isinstance(e, Op):
            found += sum(_terms(a, inlined, known) for a in e.args)
        known[e] = found
    return found


def touched(kernel: Kernel, buffer: str) -> Size:
    """The elements of a parameter that an unscheduled kernel reads, each once; counted as for
    `work`."""
    count = _Count(kernel)
    count.visit(kernel.body, 1, 1, {})
    total: Size = 0
    for (name, passes), times in count.touched.items():
        if name == buffer:
            total = total + times * passes
    return minimum(product(kernel.buffer(buffer).shape), total)


def loop_cycles(kernel: Kernel, loop: For, lanes: int) -> Size:
    """The cycles that one core takes for a loop, roughly: its arithmetic, or the bytes that it can
    touch. It depends on the kernel's symbols, and on variables of loops around where extents depend
    on them. lanes: of a vector."""
    operations = scalar_operations((loop,))
    inside = walk_stmts((loop,))
    ranges = {s.var: (s.lo, s.hi) for s in inside if isinstance(s, For)}
    used = [(x.buffer, x.indices) for x in loads_of(loop)]
    used += [(s.buffer, s.indices) for s in inside if isinstance(s, Store | Reduce)]
    boxes: dict[str, Size] = {}
    for name, indices in used:
        b = kernel.buffer(name)
        if b.scope in PARAM_SCOPES:
            boxes[name] = maximum(boxes.get(name, 0), _box(b.shape, indices, ranges))
    moved: Size = 0
    for name, count in boxes.items():
        moved = moved + count * nbytes(kernel.buffer(name).dtype)
    return maximum(operations // (2 * lanes), minimum(moved, operations * 4) // STREAM)


def _box(shape: Sequence[Size], indices: Sequence[Size], ranges: Ranges) -> Size:
    """The elements of a buffer that indices go over, about: all along an axis but where a number of
    them is known."""
    total: Size = 1
    for extent, index in zip(shape, indices, strict=True):
        found = bounds(index, ranges)
        touched = extent if found is None else found[1] - found[0] + 1
        total = total * (minimum(extent, touched) if isinstance(touched, int) else extent)
    return total


def scalar_operations(body: tuple[Stmt, ...]) -> Size:
    """A rough count of scalar operations of statements. Loops whose bounds depend on a loop around
    them count at their longest."""
    total: Size = 0
    for s in body:
        if isinstance(s, For):
            inner = scalar_operations(s.body)
            most = bounds(inner, {s.var: (s.lo, s.hi)})
            total = total + s.extent * (inner if most is None else most[1])
        elif isinstance(s, Store | Reduce):
            parts = (x for e in stmt_exprs(s) for x in walk_expr(e) if isinstance(x, Op))
            total = total + 1 + sum(EXPANSION.get(x.name, 1) for x in parts)
        else:
            total = total + scalar_operations(children(s))
    return total


Ranges = dict[Sym, tuple[Size, Size]]


class _Count:
    def __init__(self, kernel: Kernel) -> None:
        self.sizes = frozenset(kernel.sizes)
        self.operations: Size = 0
        self.instructions: Size = 0
        self.touched: dict[tuple[str, Size], Size] = {}
        """(buffer, passes) -> loads and stores in one of so many passes, each of which touches
        memory anew."""

    def visit(self, body: tuple[Stmt, ...], passes: Size, times: Size, ranges: Ranges) -> None:
        for s in body:
            if not isinstance(s, For):
                self._statement(s, passes, times)
                self.visit(children(s), passes, times, ranges)
                continue
            inside = {**ranges, s.var: (s.lo, s.hi)}
            n = self._iterations(s, ranges)
            if sum(isinstance(c, For) for c in s.body) > 1:
                self.visit(s.body, passes * times * n, 1, inside)
            else:
                self.visit(s.body, passes, times * n, inside)

    def _iterations(self, s: For, ranges: Ranges) -> Size:
        extent = s.extent
        if opaques(extent):
            return 1
        if symbols(extent) <= self.sizes:
            return extent
        found = bounds(extent, ranges)
        return found[1] if found is not None and symbols(found[1]) <= self.sizes else 1

    def _statement(self, s: Stmt, passes: Size, times: Size) -> None:
        if isinstance(s, Store | Reduce):
            self._touch(s.buffer, passes, times)
        operations = instructions = 0
        parts: dict[Expr, None] = {}
        for e in stmt_exprs(s):
            parts.update(dict.fromkeys(walk_expr(e)))
        for e in parts:
            if isinstance(e, Load):
                self._touch(e.buffer, passes, times)
            elif isinstance(e, Op) and is_float(e.dtype):
                expansion = EXPANSION.get(e.name)
                if e.name in ARITHMETIC or expansion is not None:
                    operations += 2 if e.name == "fma" else 1
                    instructions += expansion or 1
        if isinstance(s, Reduce) and is_float(s.value.dtype):
            operations += 1
            fused = s.op == "add" and isinstance(s.value, Op) and s.value.name == "mul"
            instructions += 0 if fused else 1
        self.operations = self.operations + passes * times * operations
        self.instructions = self.instructions + passes * times * instructions

    def _touch(self, buffer: str, passes: Size, times: Size) -> None:
        self.touched[buffer, passes] = self.touched.get((buffer, passes), 0) + times
