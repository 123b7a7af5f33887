"""How Resize samples an axis: its scale, source coordinates, and taps with weights."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from aicc.ops.registry import OpContext
from aicc.ops.sizes import axes_in
from aicc.ops.windows import text
from aicc.symbolic import Dim, Size, ceildiv, maximum, minimum, proves_le, substitute, sym, symbols
from aicc.tensor_ir.builder import KernelBuilder, Tensor
from aicc.tensor_ir.ir import Expr, as_expr, as_index, call, cast, const, select

COORDINATES = (
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
    "tf_half_pixel_for_nn",
    "tf_crop_and_resize",
)
ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil", "simple")
"""`simple` is Resize-10: up when it shrinks, down when it grows."""
POLICIES = ("stretch", "not_larger", "not_smaller")


@dataclass(frozen=True)
class Scale:
    """How an axis of `size` elements becomes one of `result`: their ratio as ONNX has it in f32,
    None where it depends on symbols, and whether it is one that f32 arithmetic keeps exact."""

    axis: int
    size: Size
    result: Size
    factor: float | None

    @property
    def ratio(self) -> Fraction | None:
        """The factor where coordinates by exact fractions are those by f32 arithmetic."""
        if self.factor is None:
            return None
        f = Fraction(self.factor)
        return f if 0 < f.numerator <= 64 and f.denominator <= 64 else None

    @property
    def same(self) -> bool:
        return self.size == self.result and self.factor == 1.0


def scaled(size: Size, factor: float) -> Size:
    """floor(size * factor) in f32 arithmetic; for a symbolic size with the simplest fraction that
    `factor` is the nearest f32 of."""
    if isinstance(size, int):
        return int(np.floor(np.float32(size) * np.float32(factor)))
    f = Fraction(factor)
    simple = f.limit_denominator(4096)
    if np.float32(float(simple)) == np.float32(factor):
        f = simple
    return size * f.numerator // f.denominator


def quotient(result: Size, size: Size) -> float | None:
    """result / size as f32; None where it depends on symbols."""
    if isinstance(result, int) and isinstance(size, int):
        return float(np.float32(result) / np.float32(size)) if size else 1.0
    whole = result // size
    if isinstance(whole, int) and size * whole == result:
        return float(whole)
    part = size // result
    return float(np.float32(1) / part) if isinstance(part, int) and part * result == size else None


def scales_of(ctx: OpContext, shape: Sequence[Size], factors: Any, sizes: Any) -> list[Scale]:
    """The scale of every resized axis, from `factors` (numbers) or `sizes`; one of them is None."""
    axes = tuple(ctx.attrs.get("axes", ()) or ())
    named = axes_in(ctx, axes, len(shape)) if axes else tuple(range(len(shape)))
    order = [a % len(shape) for a in axes] if axes else list(named)
    given = factors if factors is not None else sizes
    if given is None or (factors is not None and sizes is not None):
        ctx.fail("exactly one of scales and sizes must be given, and known at compile time")
    if len(given) != len(order):
        ctx.fail(f"{len(given)} scales or sizes for {len(order)} axes")
    found: list[Scale] = []
    if factors is not None:
        for a, f in zip(order, factors):
            if not f > 0:
                ctx.fail(f"scale {f} must be positive")
            found.append(Scale(a, shape[a], scaled(shape[a], float(f)), float(np.float32(f))))
        return found
    policy = text(ctx.attrs.get("keep_aspect_ratio_policy", "stretch"))
    if policy not in POLICIES:
        ctx.fail(f"unknown keep_aspect_ratio_policy {policy!r}")
    if policy == "stretch":
        return [Scale(a, shape[a], m, quotient(m, shape[a])) for a, m in zip(order, sizes)]
    ratios = [quotient(m, shape[a]) for a, m in zip(order, sizes)]
    if any(r is None for r in ratios):
        ctx.fail(f"keep_aspect_ratio_policy {policy!r} needs sizes that are numbers")
    numbers = [r for r in ratios if r is not None]
    factor = min(numbers) if policy == "not_larger" else max(numbers)
    for a in order:
        n = shape[a]
        result = scaled(n, factor) if isinstance(n, Dim) else int(np.floor(n * factor + 0.5))
        found.append(Scale(a, n, result, factor))
    return found


LAST = 2**31 - 128
"""The last position that is an i32 and an f32: f32 arithmetic finds none near the end of an axis
that is longer."""
PERIOD = 8
"""Results of an axis after which weights repeat, at most, for them to be worth no table."""


class Sampler:
    """Where the elements of one resized axis come from: coordinates, and taps with weights.

    Positions are index arithmetic where that is exact. Positions along the last axis and weights
    that do not repeat soon are tables, computed once for the axis.
    """

    def __init__(self, ctx: OpContext, b: KernelBuilder, s: Scale, roi: tuple[Expr, Expr] | None):
        self.s, self.b, self.roi = s, b, roi
        self.mode = text(ctx.attrs["coordinate_transformation_mode"])
        self.rounding = text(ctx.attrs["nearest_mode"])
        self.cubic_a = float(ctx.attrs["cubic_coeff_a"])
        self.exclude_outside = bool(ctx.attrs["exclude_outside"])
        self._last = s.axis == ctx.input(0).rank - 1
        self._tables: dict[str, Tensor] = {}
        self._weights: Callable[[Size], list[Expr]] = lambda o: []

    @property
    def growth(self) -> float:
        """How many results an element of the axis has; 1 where that depends on symbols, which
        mostly are kept or grow."""
        return 1.0 if self.s.factor is None else self.s.factor

    # coordinates

    def exact(self, o: Size) -> tuple[Size, int] | None:
        """The coordinate of result `o` as a fraction, where f32 arithmetic gives the same."""
        s, ratio = self.s, self.s.ratio
        if self.mode == "align_corners":
            if isinstance(s.result, int) and isinstance(s.size, int):
                return (o * (s.size - 1), s.result - 1) if s.result > 1 else (0, 1)
            return None
        if ratio is None:
            return None
        p, q = ratio.numerator, ratio.denominator
        if self.mode == "asymmetric":
            return o * q, p
        if self.mode == "tf_half_pixel_for_nn":
            return (o * 2 + 1) * q, 2 * p
        symmetric = self.mode == "half_pixel_symmetric" and s.result * q == s.size * p
        torch = self.mode == "pytorch_half_pixel" and proves_le(2, s.result)
        if self.mode == "half_pixel" or symmetric or torch:
            return (o * 2 + 1) * q - p, 2 * p
        return None

    def coordinate(self, o: Size) -> Expr:
        """The coordinate of result `o` in f32 arithmetic."""
        s = self.s
        x, n, m = (cast(as_expr(v, "i64"), "f32") for v in (o, s.size, s.result))
        factor = m / n if s.factor is None else const(s.factor, "f32")
        one = call("le", m, 1.0)
        half = (x + 0.5) / factor - 0.5
        if self.mode == "asymmetric":
            return x / factor
        if self.mode == "half_pixel":
            return half
        if self.mode == "tf_half_pixel_for_nn":
            return (x + 0.5) / factor
        if self.mode == "pytorch_half_pixel":
            return select(one, const(0, "f32"), half)
        if self.mode == "half_pixel_symmetric":
            return half + n * 0.5 * (1.0 - m / (factor * n))
        if self.mode == "align_corners":
            return select(one, const(0, "f32"), x * (n - 1.0) / (m - 1.0))
        assert self.roi is not None
        start, end = self.roi
        inner = start * (n - 1.0) + x * (end - start) * (n - 1.0) / (m - 1.0)
        return select(one, (start + end) * (n - 1.0) * 0.5, inner)

    def outside(self, o: Size) -> Expr | None:
        """True where the coordinate is outside the data and takes the extrapolation value."""
        if self.mode != "tf_crop_and_resize":
            return None
        x = self.coordinate(o)
        last = cast(as_expr(self.s.size - 1, "i64"), "f32")
        return call("or", call("lt", x, 0.0), call("gt", x, last))

    # taps

    def clamp(self, index: Size, o: Size) -> Size:
        """`index`, which grows with `o`, kept inside the data where it may leave them."""
        last = self.s.size - 1
        (var,) = symbols(o) or (None,)
        if var is None:
            return minimum(maximum(index, 0), last)
        least, most = (substitute(index, {var: v}) for v in (0, self.s.result - 1))
        if not proves_le(0, least):
            index = maximum(index, 0)
        return index if proves_le(most, last) else minimum(index, last)

    def _table(self, name: str, value: Callable[[Size], Expr]) -> None:
        """`value`, of a result's index, computed once for the axis."""
        name = f"{name}{self.s.axis}"
        self._tables[name] = self.b.compute((self.s.result,), value, name=name)

    def _entry(self, name: str, o: Size) -> Expr:
        return self._tables[f"{name}{self.s.axis}"][o]

    def _index(self, value: Expr) -> Expr:
        """A float coordinate as a position inside the data."""
        last = cast(as_expr(minimum(self.s.size - 1, LAST), "i64"), "f32")
        return cast(call("max", call("min", value, last), 0.0), "i32")

    def _load(self, name: str, o: Size) -> Size:
        hi = self.s.size - 1 if isinstance(self.s.size, int) else None
        return as_index(self._entry(name, o), 0, hi)

    @property
    def _repeats(self) -> bool:
        """True where positions and weights are cheap: the coordinate's fraction has few values."""
        if self.s.size == 1:
            return True
        exact = self.exact(sym("o", 0))
        if exact is None:
            return False
        num, den = exact
        factor = num.terms[0][1] if isinstance(num, Dim) and num.terms else 0
        return den // math.gcd(factor, den) <= PERIOD

    def prepare(self, taps: int) -> None:
        """Computes tables. taps: 1 for nearest, 2 for linear, 4 for cubic."""
        self.taps = 1 if self.s.size == 1 else taps
        self._tabled = not self._repeats and (self._last or self.exact(sym("o", 0)) is None)
        if self._tabled:
            for k in range(self.taps):
                self._table(f"tap{k}_", functools.partial(self._position, k))
        if self.taps == 1:
            return
        if self._repeats:
            self._weights = self._weigh
            return
        for k in range(taps):
            self._table(f"weight{k}_", functools.partial(self._weight, k))
        self._weights = lambda o: [self._entry(f"weight{k}_", o) for k in range(taps)]

    def _weigh(self, o: Size) -> list[Expr]:
        """The weights of the taps of result `o`."""
        exact = self.exact(o)
        if exact is None:
            base = call("floor", self.coordinate(o))
            fraction = self.coordinate(o) - base
        else:
            num, den = exact
            fraction = cast(as_expr(num % den, "i64"), "f32") * (1.0 / den)
            base = cast(as_expr(num // den, "i64"), "f32")
        weights = self._linear(fraction) if self.taps == 2 else self._cubic(fraction)
        if self.taps == 4 and self.exclude_outside:
            last = cast(as_expr(self.s.size - 1, "i64"), "f32")
            zero = const(0, "f32")
            kept = []
            for k, w in enumerate(weights):
                at = base + float(k - 1)
                gone = call("or", call("lt", at, 0.0), call("gt", at, last))
                kept.append(select(gone, zero, w))
            total = kept[0] + kept[1] + kept[2] + kept[3]
            weights = [w / total for w in kept]
        return weights

    def _weight(self, k: int, o: Size) -> Expr:
        return self._weigh(o)[k]

    def _position(self, k: int, o: Size) -> Expr:
        """The position of tap `k`, for a table."""
        exact = self.exact(o)
        if exact is not None:
            narrow = "i32" if proves_le(self.s.size, 2**31) else "i64"
            return cast(as_expr(self._exactly(exact, k, o), "i64"), narrow)
        if self.taps == 1:
            return self._index(self._rounded(self.coordinate(o)))
        first = 0 if self.taps == 2 else -1
        return self._index(call("floor", self.coordinate(o)) + float(first + k))

    def _exactly(self, exact: tuple[Size, int], k: int, o: Size) -> Size:
        if self.taps == 1:
            return self.clamp(self._rounded_exactly(*exact), o)
        num, den = exact
        return self.clamp(num // den + (k if self.taps == 2 else k - 1), o)

    def positions(self, o: Size) -> list[Size]:
        """The source positions of result `o`."""
        if self.s.size == 1:
            return [0]
        exact = self.exact(o)
        if self._tabled or exact is None:
            return [self._load(f"tap{k}_", o) for k in range(self.taps)]
        return [self._exactly(exact, k, o) for k in range(self.taps)]

    def weights(self, o: Size) -> list[Expr]:
        """The weights of the source positions of result `o`; none for a single one."""
        return self._weights(o)

    def _rounded(self, x: Expr) -> Expr:
        if self.rounding == "simple" and self.s.factor is None:
            shrinks = call("lt", *(as_expr(v, "i64") for v in (self.s.result, self.s.size)))
            return select(shrinks, call("ceil", x), call("floor", x))
        rounding = self._rounding()
        if rounding == "round_prefer_floor":
            return call("ceil", x - 0.5)
        if rounding == "round_prefer_ceil":
            return call("floor", x + 0.5)
        return call(rounding, x)

    def _rounded_exactly(self, num: Size, den: int) -> Size:
        rounding = self._rounding()
        if rounding == "round_prefer_floor":
            return ceildiv(num * 2 - den, 2 * den)
        if rounding == "round_prefer_ceil":
            return (num * 2 + den) // (2 * den)
        return num // den if rounding == "floor" else ceildiv(num, den)

    def _rounding(self) -> str:
        if self.rounding != "simple":
            return self.rounding
        return "ceil" if self.s.factor is not None and self.s.factor < 1 else "floor"

    @staticmethod
    def _linear(r: Expr) -> list[Expr]:
        return [1.0 - r, r]

    def _cubic(self, r: Expr) -> list[Expr]:
        return cubic_weights(r, self.cubic_a)


def cubic_weights(r: Expr, a: float) -> list[Expr]:
    """Of the four elements around a position `r` behind the second one: Keys, Cubic convolution
    interpolation (1981)."""

    def near(t: Expr) -> Expr:
        return (t * (a + 2) - (a + 3)) * t * t + 1.0

    def far(t: Expr) -> Expr:
        return ((t * a - 5 * a) * t + 8 * a) * t - 4 * a

    return [far(r + 1.0), near(r), near(1.0 - r), far(2.0 - r)]
