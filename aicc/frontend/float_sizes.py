"""Sizes that an exporter computes in floating point: `ceil((n - k) / s + 1)` and the like.

Types trace integers only. Where a model turns floating-point numbers back to integers, and they
come from sizes by sums, products with and quotients by constants, and roundings, the same is
computed with integers: exact, as the program meant that was exported.

In single precision that is what the model computes while the numbers stay below 2**20. Products
and sums of fractions whose divisor is a power of two are exact then. Where another divisor was
rounded, only whole numbers are added: a number that is not whole is as far from one as its divisor
tells, and rounding is nearer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from aicc.dtypes import is_float
from aicc.frontend.scope import Scope
from aicc.graph_ir.graph import Node
from aicc.graph_ir.types import trackable
from aicc.symbolic import proves_le

LIMIT = 12
"""Bits of what sizes are divided by, at most."""
FEW = 4
"""Bits of what sizes are multiplied by, at most, where it is no power of two."""
MOST = 100
"""Values that are looked at for one."""
_MOVES = ("Concat", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Unsqueeze")
"""Operators whose first operand's (Concat: all operands') elements are what they give."""
_JOINS = ("Add", "Sub", "Max", "Min")
_EXACT = ("f32", "f64")
Emit = Callable[[str, Sequence[str], Mapping[str, Any]], str]


@dataclass(frozen=True)
class Ratio:
    """The numbers of an integer value over one number."""

    over: str
    under: int


class FloatSizes:
    """Finds the integers behind floating-point values of a graph.

    emit: adds an operator to the graph, with these operands and attributes, and gives its result.
    """

    def __init__(self, scope: Scope, emit: Emit) -> None:
        self.scope, self.emit = scope, emit
        self.ratios: dict[str, Ratio | None] = {}
        self.steps = 0

    def truncated(self, name: str) -> str | None:
        """An integer value that is the floating-point value `name` cut to whole numbers; None
        where that is no size. Nothing is added to the graph for None but what nothing reads."""
        t = self.scope.type_of(name)
        if t is None or t.dtype not in _EXACT or not trackable("i64", t.shape):
            return None
        found = self._ratio(name)
        return None if found is None else self._floor(found, 0)

    def _producer(self, name: str) -> Node | None:
        """The node that computes a value; None for one that the graph is given, or too far back."""
        self.steps += 1
        if self.steps > MOST:
            return None
        return next((n for n in reversed(self.scope.graph.nodes) if name in n.outputs), None)

    def _constant(self, name: str) -> np.ndarray[Any, Any] | None:
        found = self.scope.graph.constants.get(name)
        if found is None and self.scope.outer is not None:
            return self.scope.outer.constants.get(name)
        return found

    def _whole(self, name: str) -> str | None:
        """An integer value equal to the floating-point value `name`."""
        data = self._constant(name)
        if data is not None:
            finite = data.size and np.isfinite(data).all() and np.abs(data).max() < 1 << 22
            whole = bool(finite) and bool(np.equal(data, np.floor(data)).all())
            return self.scope.add_constant("whole", data.astype(np.int64)) if whole else None
        node = self._producer(name)
        if node is None or self.scope.graph.types[name].dtype not in _EXACT:
            return None
        if node.op == "Cast":
            t = self.scope.type_of(node.inputs[0])
            if t is None or t.value is None:  # values are traced of integers only
                return self._whole(node.inputs[0]) if t is not None and is_float(t.dtype) else None
            return self.emit("Cast", [node.inputs[0]], {"to": "i64"})
        if node.op in ("Floor", "Ceil"):
            found = self._ratio(node.inputs[0])
            up = node.op == "Ceil"
            return None if found is None else self._floor(found, found.under - 1 if up else 0)
        if node.op in _MOVES:
            count = len(node.inputs) if node.op == "Concat" else 1
            moved = [self._whole(i) for i in node.inputs[:count]]
            if any(m is None for m in moved):
                return None
            operands = [m for m in moved if m is not None]
            return self.emit(node.op, [*operands, *node.inputs[count:]], dict(node.attrs))
        if node.op not in (*_JOINS, "Mul", "Div", "Clip"):
            return None
        found = self._ratio(name)
        return found.over if found is not None and found.under == 1 else None

    def _ratio(self, name: str) -> Ratio | None:
        """The floating-point value `name` as a ratio."""
        if name not in self.ratios:
            self.ratios[name] = None
            self.ratios[name] = self._ratio_of(name)
        return self.ratios[name]

    def _ratio_of(self, name: str) -> Ratio | None:
        node = None if self._constant(name) is not None else self._producer(name)
        if node is not None and node.op == "Clip":
            ratio = self._ratio(node.inputs[0])
            for op, end in zip(("Max", "Min"), node.inputs[1:]):
                ratio = self._joined(op, ratio, self._ratio(end)) if end else ratio
            return ratio
        number = self._number_of(name)
        if number is not None and not number.denominator >> LIMIT:
            shape = self._shape(name)
            over = self.scope.add_constant("number", np.full(shape, number.numerator, np.int64))
            return Ratio(over, number.denominator)
        if node is None or node.op not in (*_JOINS, "Mul", "Div"):
            whole = self._whole(name)
            return None if whole is None else Ratio(whole, 1)
        if len(node.inputs) != 2:
            return None
        a, b = node.inputs
        if node.op in ("Mul", "Div"):
            if node.op == "Mul" and self._number_of(a) is not None:
                a, b = b, a
            factor, ratio = self._number_of(b), self._ratio(a)
            if factor is None or factor <= 0 or ratio is None:
                return None
            if len(self._shape(b)) > len(self._shape(ratio.over)):
                return None  # the constant tells the rank of the result
            return self._scaled(ratio, factor if node.op == "Mul" else 1 / factor)
        return self._joined(node.op, self._ratio(a), self._ratio(b))

    def _joined(self, op: str, x: Ratio | None, y: Ratio | None) -> Ratio | None:
        """Two ratios added, subtracted or compared."""
        if x is None or y is None:
            return None
        under = math.lcm(x.under, y.under)
        if under >> LIMIT or not (_is_power(under) or 1 in (x.under, y.under)):
            return None
        operands = [self._times(r.over, under // r.under) for r in (x, y)]
        return Ratio(self.emit(op, operands, {}), under)

    def _number_of(self, name: str) -> Fraction | None:
        """A constant of one number, whatever its shape."""
        data = self._constant(name)
        if data is None or data.size != 1 or not np.isfinite(data).all():
            return None
        return Fraction(float(data.item()))

    def _scaled(self, ratio: Ratio, factor: Fraction) -> Ratio | None:
        """The ratio times a number that few bits tell."""
        up, down = factor.numerator, factor.denominator
        if not _is_power(ratio.under) or not (_is_power(up) or (_is_power(down) and not up >> FEW)):
            return None
        factor /= ratio.under
        up, down = factor.numerator, factor.denominator
        return None if max(up, down) >> LIMIT else Ratio(self._times(ratio.over, up), down)

    def _times(self, name: str, factor: int) -> str:
        if factor == 1:
            return name
        return self.emit("Mul", [name, self._number(factor)], {})

    def _floor(self, ratio: Ratio, more: int) -> str | None:
        """The ratio rounded down, `more` added to what is divided. None where that may be
        negative: integers are divided toward 0."""
        if ratio.under == 1:
            return ratio.over
        over = ratio.over
        if more:
            over = self.emit("Add", [over, self._number(more)], {})
        t = self.scope.type_of(over)
        if t is None or t.value is None or not all(proves_le(0, v) for v in t.value):
            return None
        return self.emit("Div", [over, self._number(ratio.under)], {})

    def _shape(self, name: str) -> tuple[int, ...]:
        t = self.scope.type_of(name)
        assert t is not None
        return tuple(d for d in t.shape if isinstance(d, int))

    def _number(self, n: int) -> str:
        return self.scope.add_constant("number", np.array(n, np.int64))


def _is_power(n: int) -> bool:
    """True for a power of two."""
    return not n & (n - 1)
