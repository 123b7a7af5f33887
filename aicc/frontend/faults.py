"""What is wrong with a model, collected while it is imported, so that all of it is told at once."""

from __future__ import annotations

from dataclasses import dataclass, field

from aicc.errors import ModelError, OperatorError, UnsupportedError

_NODES_LISTED = 10
_TYPES_LISTED = 4


@dataclass
class Unknown:
    """An operator that aicc does not have: what it was applied to, where, and why not."""

    reason: str
    types: dict[str, None] = field(default_factory=dict)
    nodes: dict[str, None] = field(default_factory=dict)


@dataclass
class Faults:
    """operators: unknown ones by (operator, opset). values: refused inputs and outputs.

    errors: nodes whose operands or attributes do not fit, in order.
    """

    operators: dict[tuple[str, str], Unknown] = field(default_factory=dict)
    values: list[ModelError] = field(default_factory=list)
    errors: list[OperatorError] = field(default_factory=list)

    def unknown(self, op: str, opset: str, reason: str, types: str, node: str) -> None:
        entry = self.operators.setdefault((op, opset), Unknown(reason))
        entry.types[types] = None
        entry.nodes[node] = None

    def error(self, error: OperatorError) -> None:
        if str(error) not in map(str, self.errors):
            self.errors.append(error)

    def raise_any(self) -> None:
        """Raises what was found: what aicc does not have before what does not fit."""
        lines = [_describe(op, opset, u) for (op, opset), u in self.operators.items()]
        lines += [str(e) for e in self.values if isinstance(e, UnsupportedError)]
        if lines:
            many = f"{len(lines)} things that aicc does not have" if len(lines) > 1 else lines[0]
            listed = "".join(f"\n  {line}" for line in lines) if len(lines) > 1 else ""
            raise UnsupportedError(f"the model needs {many}{':' if listed else ''}{listed}")
        faults: list[ModelError] = [*self.values, *self.errors]
        if len(faults) == 1:
            raise faults[0]
        if self.values:
            raise ModelError("\n".join(map(str, faults)))
        if self.errors:
            first = self.errors[0]
            combined = OperatorError("\n".join(map(str, self.errors)), op=first.op)
            combined.node = first.node
            raise combined from first


def _describe(op: str, opset: str, u: Unknown) -> str:
    nodes = list(u.nodes)
    listed = ", ".join(map(repr, nodes[:_NODES_LISTED]))
    more = f" and {len(nodes) - _NODES_LISTED} more" if len(nodes) > _NODES_LISTED else ""
    types = "; ".join(sorted(u.types, key=lambda t: "?" in t)[:_TYPES_LISTED])
    where = f"node{'s' if len(nodes) > 1 else ''} {listed}{more}"
    return f"operator {op} ({opset}): {u.reason}; on {types}: {where}"
