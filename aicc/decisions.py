"""What compiling weighed: the decisions that passes took by comparing estimated times.

A pass says `note(Decision(...))`; whoever compiles reads what was noted meanwhile:

    with collect() as found: ...
    lines = summary(found)
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

log = logging.getLogger("aicc")

NAMED = 3
"""ONNX nodes that a line of a summary names."""


@dataclass(frozen=True)
class Decision:
    """Something that could be done, and whether it was.

    kind: of decision, as "fusion". what: the thing in words. seconds, otherwise: the estimated
    times with and without it; infinite where there is no way to do it well. at: names of ONNX
    nodes.
    """

    kind: str
    what: str
    taken: bool
    seconds: float
    otherwise: float
    at: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self._line()} ({', '.join(self.at)})"

    def _line(self, count: str = "") -> str:
        word = "taken" if self.taken else "refused"
        times = f"{1e6 * self.seconds:.1f} us, else {1e6 * self.otherwise:.1f} us"
        if self.seconds == float("inf"):
            times = "no schedule fits it"
        return f"{self.kind} {word}{count}: {self.what}: {times}"


_found: ContextVar[list[Decision] | None] = ContextVar("decisions", default=None)


def note(decision: Decision) -> None:
    """Tells of a decision."""
    log.debug("%s", decision)
    found = _found.get()
    if found is not None:
        found.append(decision)


@contextmanager
def collect() -> Iterator[list[Decision]]:
    """A list that fills with what is noted meanwhile."""
    found: list[Decision] = []
    token = _found.set(found)
    try:
        yield found
    finally:
        _found.reset(token)


def summary(decisions: Sequence[Decision]) -> tuple[str, ...]:
    """A line for each decision; those that are equal but for the nodes share one. What makes the
    largest difference comes first."""
    equal: dict[str, list[Decision]] = {}
    for d in decisions:
        equal.setdefault(d._line(), []).append(d)

    def weight(group: list[Decision]) -> float:
        d = group[0]
        return len(group) * abs(d.seconds - d.otherwise) if d.seconds < float("inf") else 0.0

    lines: list[str] = []
    for group in sorted(equal.values(), key=weight, reverse=True):
        names = list(dict.fromkeys(n for d in group for n in d.at[:1]))
        more = ", .." if len(names) > NAMED else ""
        count = f" {len(group)} times" if len(group) > 1 else ""
        lines.append(f"{group[0]._line(count)} ({', '.join(names[:NAMED])}{more})")
    return tuple(lines)
