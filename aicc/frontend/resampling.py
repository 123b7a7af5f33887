"""Factors of a resampling that a model computes from sizes: `new / old`, as exporters wrote a
resampling to a size before Resize took sizes.

A run's factors tell no shape, but where each is 1, or a quotient by the size that it multiplies,
the result has the size that was divided. That is what the program meant that was exported. The
product of a size and a rounded quotient is below that for some sizes, never for one that the size
divides and never for twice the size less one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aicc.dtypes import is_float
from aicc.frontend.float_sizes import FloatSizes
from aicc.graph_ir.types import TensorType
from aicc.symbolic import Size

FACTORS = {"Resize": 2, "Upsample": 1}
"""Operators that resample, and which operand is their factors."""
_KEEPS = ("Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze")
"""Operators whose result has the elements of their first operand, in their order."""
_MODES = {"bilinear": "linear"}


def by_sizes(
    floats: FloatSizes, op: str, values: Mapping[str, Any], inputs: Sequence[str]
) -> tuple[dict[str, Any], list[str]] | None:
    """The attributes and the operands of a Resize to sizes that does what the node does, whose
    operator is `op`; None where its factors are constant or tell no sizes."""
    at = FACTORS[op]
    if len(inputs) <= at or not inputs[at] or floats.constant(inputs[at]) is not None:
        return None
    x, factors = (floats.scope.type_of(inputs[i]) for i in (0, at))
    if x is None or factors is None or factors.shape != (x.rank,) or values.get("axes"):
        return None
    parts = _parts(floats, inputs[0], x, inputs[at], 0)
    if not parts:
        return None
    sizes = parts[0] if len(parts) == 1 else floats.emit("Concat", parts, {"axis": 0})
    if op == "Upsample":
        mode = values.get("mode", "nearest")
        mode = mode.decode() if isinstance(mode, bytes) else mode
        values = {
            "mode": _MODES.get(mode, mode),
            "coordinate_transformation_mode": "asymmetric",
            "nearest_mode": "floor",
        }
    region = inputs[1] if op == "Resize" else ""
    return dict(values), [inputs[0], region, "", sizes]


def _parts(floats: FloatSizes, x: str, t: TensorType, factors: str, first: int) -> list[str]:
    """Vectors of integers that are, one after the other, the sizes that the value `factors` makes
    of the axes from `first` on of `x`, which is of type `t`; none where that is not known."""
    data = floats.constant(factors)
    kind = floats.scope.type_of(factors)
    if kind is None or not is_float(kind.dtype) or not isinstance(kind.count, int):
        return []
    axes = range(first, first + kind.count)
    if data is not None:
        if not (data == 1).all() or axes.stop > t.rank:
            return []
        ends = [floats.vector([n]) for n in (axes.start, axes.stop)]
        return [floats.emit("Slice", [floats.emit("Shape", [x], {}), *ends], {})]
    node = floats.producer(factors)
    if node is None:
        return []
    if node.op == "Concat":
        found = []
        for part in node.inputs:
            here = _parts(floats, x, t, part, first)
            size = floats.scope.type_of(part)
            if not here or size is None or not isinstance(size.count, int):
                return []
            found += here
            first += size.count
        return found
    if node.op in _KEEPS:
        return _parts(floats, x, t, node.inputs[0], first)
    if node.op != "Div":
        return []
    new, old = (floats.truncated(i) for i in node.inputs)
    if new is None or old is None or _value(floats, old) != t.shape[axes.start : axes.stop]:
        return []
    if len(_value(floats, new)) != len(axes):
        return []
    return [floats.emit("Reshape", [new, floats.vector([-1])], {})]


def _value(floats: FloatSizes, name: str) -> tuple[Size, ...]:
    t = floats.scope.type_of(name)
    return () if t is None or t.value is None else tuple(t.value)
