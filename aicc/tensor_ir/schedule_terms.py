"""The schedule step that leaves out the products with elements that a run finds to be zero."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from aicc.symbolic import Size, Sym, from_atom, substitute, symbols, value_range
from aicc.tensor_ir.analysis import upper_bounds
from aicc.tensor_ir.ir import (
    Buffer,
    Expr,
    For,
    If,
    Index,
    Kernel,
    Load,
    Op,
    Reduce,
    Stmt,
    Store,
    call,
    cast,
    const,
    select,
)
from aicc.tensor_ir.schedule import (
    Step,
    fresh_variable,
    rename_loops,
    replace_loop,
    require_loop,
    unused_names,
)
from aicc.tensor_ir.schedule_compute_at import fresh_buffer
from aicc.tensor_ir.walk import bit_of, map_body, walk_stmts

WORD = 64
"""Bits of the widest word."""


@dataclass(frozen=True)
class SkipTerms(Step):
    """for m: for k in 0..n: { for j: A[m, j] += x[m, k]*w }
    ->  for m: z[m] = the bits k where x[m, k] != 0
        for m: { P[j] = 0;  bits k of z[m]: { for j: P[j] += x[m, k]*w };  A[m, j] += P[j] }

    The terms of sums whose factor is zero, as half of what a ReLU leaves is, are left out: what
    they would add is a zero, which no sum of a zero and others shows. The sums over k are in
    registers, and added up in parts, as by `Subtotals`. rows: the loop over m, around nothing but
    `loop`, which is that over k.
    Precondition: x is a sparse operand (`Buffer.sparse`: what it is multiplied with is finite);
    k starts at 0 and has a constant extent of at most 64; all in its loop is one sum of products
    with x at an index that depends on no loop inside, into an element that does not depend on k.
    """

    rows: str
    loop: str
    name = "skip_terms"

    def apply(self, kernel: Kernel) -> Kernel:
        m, k = require_loop(self, kernel, self.rows), require_loop(self, kernel, self.loop)
        if m.kind != "for" or m.body != (k,):
            raise self.fail(kernel, f"{self.rows} is no serial loop around {self.loop} alone")
        if k.kind != "for" or k.lo != 0 or not isinstance(k.hi, int) or not 0 < k.hi <= WORD:
            raise self.fail(kernel, f"{self.loop} is no serial loop of 1 to {WORD} iterations")
        element = _factor(kernel, k.body)
        if element is None:
            raise self.fail(kernel, f"not all in {self.loop} are products with a sparse operand")
        inner = {s.var for s in walk_stmts(k.body) if isinstance(s, For)}
        used = element.size_symbols()
        if used & inner or k.var not in used:
            raise self.fail(kernel, f"{element} is not one element for each {self.loop}")
        sums = [s for s in walk_stmts(k.body) if isinstance(s, Reduce)]
        if len(sums) != 1 or any(k.var in symbols(i) for i in sums[0].indices):
            raise self.fail(kernel, f"what is in {self.loop} adds up to several elements")
        most = (*upper_bounds(m.hi), value_range(m.hi)[1])
        bounds = [s for s in most if isinstance(s, int)]
        if m.lo != 0 or not bounds:
            raise self.fail(kernel, f"the number of iterations of {self.rows} has no bound")
        dtype = "u32" if k.hi <= WORD // 2 else "u64"
        name, taken = fresh_buffer(kernel, f"{element.buffer}.z"), unused_names(kernel)
        kernel = kernel.with_buffer(Buffer(name, dtype, (min(bounds),), "stack"))
        word = Load(name, _at(m), dtype)
        nest = _find_bits(m, k, element, word, taken)
        kernel, start, body, end = _in_registers(kernel, k.body, inner, taken)
        skips = replace(k, kind="bits", body=(If(bit_of(word, _at(k)[0]), body),))
        return replace_loop(kernel, m, (nest, replace(m, body=(*start, skips, *end))))


def _at(loop: For) -> tuple[Size]:
    """The value of a loop's variable, as the index of a row of a word each."""
    return (from_atom(loop.var),)


def _factor(kernel: Kernel, body: Sequence[Stmt]) -> Load | None:
    """The sparse element that all statements multiply with and add up."""
    found: set[Load] = set()
    for s in walk_stmts(tuple(body)):
        if isinstance(s, For):
            continue
        product = s.value if isinstance(s, Reduce) and s.op == "add" else None
        if not isinstance(product, Op) or product.name != "mul":
            return None
        sparse = [x for x in product.args if isinstance(x, Load) and kernel.buffer(x.buffer).sparse]
        if len(sparse) != 1:
            return None
        found.add(sparse[0])
    return found.pop() if len(found) == 1 else None


def _in_registers(
    kernel: Kernel, body: tuple[Stmt, ...], inner: set[Sym], taken: set[str]
) -> tuple[Kernel, tuple[Stmt, ...], tuple[Stmt, ...], tuple[Stmt, ...]]:
    """The body of sums with the sums in a register buffer; what starts it, and what adds it to
    where they were."""
    (total,) = {s.buffer for s in walk_stmts(body) if isinstance(s, Reduce)}
    (indices,) = {s.indices for s in walk_stmts(body) if isinstance(s, Reduce)}
    old = kernel.buffer(total)
    own = [bool(symbols(i) & inner) for i in indices]
    shape = tuple(e if mine else 1 for e, mine in zip(old.shape, own, strict=True))
    part = fresh_buffer(kernel, f"{total}.p")
    kernel = kernel.with_buffer(Buffer(part, old.dtype, shape, "register"))

    def at(indices: tuple[Size, ...]) -> tuple[Size, ...]:
        return tuple(i if mine else 0 for i, mine in zip(indices, own, strict=True))

    def start(s: Stmt) -> tuple[Stmt, ...]:
        return (Store(part, at(s.indices), const(0, old.dtype)) if isinstance(s, Reduce) else s,)

    def add(s: Stmt) -> tuple[Stmt, ...]:
        return (replace(s, buffer=part, indices=at(s.indices)) if isinstance(s, Reduce) else s,)

    def end(s: Stmt) -> tuple[Stmt, ...]:
        if isinstance(s, Reduce):
            s = replace(s, value=Load(part, at(s.indices), old.dtype))
        return (s,)

    starts = map_body(rename_loops(body, ".s", taken), start)
    ends = map_body(rename_loops(body, ".e", taken), end)
    return kernel, starts, map_body(body, add), ends


def _find_bits(m: For, k: For, element: Load, word: Load, taken: set[str]) -> Stmt:
    """The loop that finds the word of each row."""
    assert isinstance(k.hi, int)
    row, at = fresh_variable(f"{m.var.name}.z", m.lo, m.hi, taken)
    lane, place = fresh_variable(f"{k.var.name}.z", 0, k.hi, taken)
    x = element.substitute_sizes({m.var: at, k.var: place})
    one = call("shl", const(1, word.dtype), cast(Index(place), word.dtype))
    bit: Expr = select(call("ne", x, 0), one, const(0, word.dtype))
    indices = tuple(substitute(i, {m.var: at}) for i in word.indices)
    find = For(lane, 0, k.hi, "vector", (Reduce(word.buffer, indices, "add", bit),))
    start = Store(word.buffer, indices, const(0, word.dtype))
    return For(row, m.lo, m.hi, "for", (start, find))
