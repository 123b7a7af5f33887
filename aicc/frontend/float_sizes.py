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

from aicc.dtypes import from_numpy, is_float
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

    def producer(self, name: str) -> Node | None:
        """The node that computes a value; None for one that the graph is given, or too far back."""
        self.steps += 1
        if self.steps > MOST:
            return None
        return self.scope.makers.get(name)

    def constant(self, name: str) -> np.ndarray[Any, Any] | None:
        """The numbers of a constant of the graph or around it; None for another value."""
        found = self.scope.graph.constants.get(name)
        if found is None and self.scope.outer is not None:
            return self.scope.outer.constants.get(name)
        return found

    def _ratio(self, name: str) -> Ratio | None:
        """The floating-point value `name` as a ratio."""
        if name not in self.ratios:
            self.ratios[name] = None
            self.ratios[name] = self._ratio_of(name)
        return self.ratios[name]

    def _ratio_of(self, name: str) -> Ratio | None:
        data = self.constant(name)
        if data is not None:
            return self._of_numbers(data)
        node = self.producer(name)
        if node is None or self.scope.graph.types[name].dtype not in _EXACT:
            return None
        if node.op == "Cast":
            t = self.scope.type_of(node.inputs[0])
            if t is None or t.value is None:  # values are traced of integers only
                return self._ratio(node.inputs[0]) if t is not None and is_float(t.dtype) else None
            return Ratio(self.emit("Cast", [node.inputs[0]], {"to": "i64"}), 1)
        if node.op in ("Floor", "Ceil"):
            found = self._ratio(node.inputs[0])
            more = 0 if found is None or node.op == "Floor" else found.under - 1
            whole = None if found is None else self._floor(found, more)
            return None if whole is None else Ratio(whole, 1)
        if node.op == "Clip":
            found = self._ratio(node.inputs[0])
            for op, end in zip(("Max", "Min"), node.inputs[1:]):
                found = self._joined(op, found, self._ratio(end)) if end else found
            return found
        if node.op in _MOVES:
            return self._moved(node)
        if len(node.inputs) != 2 or node.op not in (*_JOINS, "Mul", "Div"):
            return None
        a, b = node.inputs
        if node.op in _JOINS:
            return self._joined(node.op, self._ratio(a), self._ratio(b))
        if node.op == "Mul" and self._number_of(a) is not None:
            a, b = b, a
        factor, found = self._number_of(b), self._ratio(a)
        if factor is None or factor <= 0 or found is None:
            return None
        if len(self._shape(b)) > len(self._shape(found.over)):
            return None  # the constant tells the rank of the result
        return self._scaled(found, factor if node.op == "Mul" else 1 / factor)

    def _of_numbers(self, data: np.ndarray[Any, Any]) -> Ratio | None:
        if not data.size or not is_float(from_numpy(data.dtype)) or not np.isfinite(data).all():
            return None
        under = Fraction(float(data.item())).denominator if data.size == 1 else 1
        over = data.astype(np.float64) * under
        if under >> LIMIT or np.abs(over).max() >= 1 << 32 or (over != np.floor(over)).any():
            return None
        return Ratio(self.scope.add_constant("number", over.astype(np.int64)), under)

    def _moved(self, node: Node) -> Ratio | None:
        """What an operator gives that moves elements."""
        count = len(node.inputs) if node.op == "Concat" else 1
        found = [self._ratio(i) for i in node.inputs[:count]]
        ratios = [r for r in found if r is not None]
        under = math.lcm(*(r.under for r in ratios))
        if len(ratios) < count or under >> LIMIT:
            return None
        operands = [self._times(r.over, under // r.under) for r in ratios]
        operands += node.inputs[count:]
        return Ratio(self.emit(node.op, operands, dict(node.attrs)), under)

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
        data = self.constant(name)
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

    def vector(self, numbers: Sequence[int]) -> str:
        """A constant of integers."""
        return self.scope.add_constant("numbers", np.array(numbers, np.int64))

    def _number(self, n: int) -> str:
        return self.scope.add_constant("number", np.array(n, np.int64))


def _is_power(n: int) -> bool:
    """True for a power of two."""
    return not n & (n - 1)
