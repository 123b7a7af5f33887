"""Broadcasting by the numpy rule, for sizes that may be symbols, and loads from its operands."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from aicc.ops.registry import OpContext
from aicc.symbolic import FloorDiv, Min, Size, hi_of, lo_of, maximum, minimum, proves_le, proves_lt
from aicc.tensor_ir.builder import KernelBuilder, Tensor
from aicc.tensor_ir.ir import Expr, Index, call

Shape = tuple[Size, ...]


def never_equal(a: Size, b: Size) -> bool:
    """True where `a != b` for every value of the symbols."""
    return proves_lt(a, b) or proves_lt(b, a)


def never_one(a: Size) -> bool:
    """True where `a != 1` for every value of the symbols."""
    lo, hi = lo_of(a), hi_of(a)
    return (lo is not None and lo > 1) or (hi is not None and hi < 1)


def broadcast_size(a: Size, b: Size) -> Size | None:
    """The common size of two axes; None where they can never agree.

    Where symbols leave open which of the two is 1, it is the one that is never less: the other one
    is equal then or 1, or a run ends where it is 0 beside a 1, as of images that windows do not
    fit. Where that is not known, it is their maximum, or 0 if one is 0.
    """
    if a == b or b == 1:
        return a
    if a == 1:
        return b
    for known, other in ((a, b), (b, a)):
        if never_one(known):
            return None if never_equal(known, other) and never_one(other) else known
    for short, full in ((a, b), (b, a)):
        if _is_clipped(short, full) or _is_least(short, full):
            return full
    return maximum(a, b) * minimum(1, minimum(a, b))


def _is_clipped(short: Size, full: Size) -> bool:
    """True for min(full, k) with k > 1: it is 1 only if `full` is, as a slice of at most k is."""
    if isinstance(short, int) or short.const or len(short.terms) != 1:
        return False
    monomial, factor = short.terms[0]
    if factor != 1 or len(monomial) != 1 or not isinstance(monomial[0], Min):
        return False
    parts = [monomial[0].a, monomial[0].b]
    return full in parts and any(never_one(p) for p in parts if p != full)


def _is_least(short: Size, full: Size) -> bool:
    """True for quotients by the same number of which the first is never more than the other one:
    what strided convolutions and poolings make of the same data, (n + 1)//2 and n//2."""
    (a, by), (b, other) = _quotient(short), _quotient(full)
    return by == other > 1 and proves_le(a, b)


def _quotient(size: Size) -> tuple[Size, int]:
    """A size as dividend and divisor: (n//p + q)//r is (n + q*p)//(p*r)."""
    dividend, divisor = size, 1
    while not isinstance(dividend, int) and len(dividend.terms) == 1:
        monomial, factor = dividend.terms[0]
        atom = monomial[0]
        if factor != 1 or len(monomial) != 1 or not isinstance(atom, FloorDiv):
            break
        if not isinstance(atom.den, int):
            break
        dividend, divisor = atom.num + dividend.const * atom.den, divisor * atom.den
    return dividend, divisor


def broadcast_shape(ctx: OpContext, *shapes: Sequence[Size]) -> Shape:
    """The common shape. Raises OperatorError where there is none."""
    rank = max((len(s) for s in shapes), default=0)
    result: list[Size] = []
    for axis in range(rank):
        common: Size = 1
        for s in shapes:
            own = axis - (rank - len(s))
            if own >= 0:
                merged = broadcast_size(common, s[own])
                if merged is None:
                    ctx.fail(f"shapes {', '.join(map(show, shapes))} cannot be broadcast together")
                common = merged
        result.append(common)
    return tuple(result)


def show(shape: Sequence[Size]) -> str:
    """A shape for a message."""
    return f"[{', '.join(map(str, shape))}]"


def reader(
    ctx: OpContext, b: KernelBuilder, t: Tensor, shape: Sequence[Size]
) -> Callable[[Sequence[Size]], Expr]:
    """How to load the element of `t` that belongs to an index of the broadcast `shape`.

    Where a size is 1 or the full one depending on symbols, min(i, size - 1) is right for both, and
    the kernel checks that it is one of the two.
    """
    extents = shape[len(shape) - t.rank :]
    for size, full in zip(t.shape, extents, strict=True):
        if t.literal is None and size != 1 and size != full:
            fits = call("or", call("eq", Index(size), full), call("eq", Index(size), 1))
            b.check(fits, f"{ctx.node}: size {size} cannot be broadcast to {full}")

    def own(i: Size, size: Size, full: Size) -> Size:
        if size == 1:
            return 0
        return i if size == full else minimum(i, size - 1)

    def load(index: Sequence[Size]) -> Expr:
        tail = index[len(index) - t.rank :]
        return t[tuple(own(*a) for a in zip(tail, t.shape, extents, strict=True))]

    return load
