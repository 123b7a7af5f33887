"""What a pass is, and the loop that runs a list of them: verify, check, dump, stop after, time.

A pass is a frozen dataclass whose fields are its options, with a name, called with an object of a
level (Graph, Module, Program) and returning a new one, of the same level or of the next. What the
loop does between passes it does through a `Level`, a few callables, so that it knows no level:

    check 0, 1   verify what the pass returned
    check 2      also print it, parse the text and compare
    check 3      also evaluate before and after on the same random inputs and compare
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from aicc import config
from aicc.dump import Dump
from aicc.errors import AiccError, IRError

log = logging.getLogger("aicc")

NARROW = {"float16": 2.0**-7, "bfloat16": 2.0**-4}
"""How far results may be from those that are rounded to 16 bits between operators: eight units in
the last place."""

Array = np.ndarray[Any, Any]
Feed = Mapping[str, Array]


class Pass(Protocol):
    """`name` is what dumps and `stop_after` call it; its docstring states before -> after. One
    after which values of 16 bits are rounded less often says so: `rounds_less = True`."""

    @property
    def name(self) -> str: ...

    def __call__(self, before: Any, /) -> Any: ...


@dataclass(frozen=True)
class Level:
    """What the run loop can do with one level's objects; None where a level has no such thing.

    show: its text. data: the arrays that its text leaves out, by name. parse: an object from a
    text, those arrays and what errors call the text. verify: raises IRError. same: whether two
    objects are equal. feed: random inputs for an object, from a seed. evaluate: results for a feed,
    in order.
    """

    name: str
    show: Callable[[Any], str]
    verify: Callable[[Any], None]
    parse: Callable[[str, Mapping[str, Array], str], Any] | None = None
    data: Callable[[Any], Mapping[str, Array]] = lambda made: {}
    same: Callable[[Any, Any], bool] = lambda a, b: bool(a == b)
    feed: Callable[[Any, int], dict[str, Array]] | None = None
    evaluate: Callable[[Any, Feed], Sequence[Array]] | None = None


@dataclass
class Outcome:
    """result: what the last pass returned. times: (pass name, seconds) in order. stopped: whether
    `stop_after` ended the run."""

    result: Any
    times: list[tuple[str, float]] = field(default_factory=list)
    stopped: bool = False


def run_passes(
    start: Any,
    passes: Sequence[Pass],
    levels: Mapping[type, Level],
    *,
    stop_after: str | None = None,
    start_after: str | None = None,
    dump: str | os.PathLike[str] | None = None,
    check: int | None = None,
    on_time: Callable[[str, float], None] | None = None,
) -> Outcome:
    """Runs `passes` in order on `start`.

    levels: the Level of each type of object. stop_after: the name of the pass to end with, as
    "fold" (the first of that name) or "03_fold" (the third pass). start_after: `start` is what that
    pass returned, as a dumped text was; the passes up to it are left out. dump: a folder for what
    `aicc.dump` writes after each pass. check: 0 to 3; by default AICC_CHECK. on_time: told the name
    and the seconds of each pass as it ends.

    Raises AiccError for a name that is no pass, and IRError, naming the pass, where a check fails.
    """
    check = config.get("AICC_CHECK") if check is None else check
    first = 0 if start_after is None else find_pass(passes, start_after) + 1
    last = len(passes) - 1 if stop_after is None else find_pass(passes, stop_after)
    if last < first - 1:
        raise AiccError(f"pass {stop_after!r} does not come after {start_after!r}")
    outcome = Outcome(start, stopped=stop_after is not None)
    level = levels[type(start)]
    files = None if dump is None else Dump(dump, first)
    if files is not None:
        name = passes[first - 1].name if first else level.name.lower()
        files.write(first, name, level.show(start), level.data(start))
    _inspect(f"the {level.name} that passes start from", level, start, check)
    checker = _Meaning(levels, start) if check >= 3 else None
    del start  # its weights go with the pass that replaces them
    for number, p in enumerate(passes[first : last + 1], start=first + 1):
        began = time.perf_counter()
        outcome.result = p(outcome.result)
        seconds = time.perf_counter() - began
        outcome.times.append((p.name, seconds))
        log.debug("%s: %.1f ms", p.name, 1e3 * seconds)
        if on_time is not None:
            on_time(p.name, seconds)
        level = levels[type(outcome.result)]
        if files is not None:
            files.write(number, p.name, level.show(outcome.result), level.data(outcome.result))
        _inspect(f"pass {p.name!r}", level, outcome.result, check)
        if checker is not None:
            checker.after(p.name, outcome.result, getattr(p, "rounds_less", False))
    return outcome


def find_pass(passes: Sequence[Pass], name: str) -> int:
    """The position of the pass called `name`, as "fold" (the first) or "03_fold". Raises AiccError,
    listing all, where there is none."""
    for number, p in enumerate(passes):
        if name in (p.name, f"{number + 1:02}_{p.name}"):
            return number
    known = ", ".join(f"{n:02}_{p.name}" for n, p in enumerate(passes, start=1))
    raise AiccError(f"there is no pass {name!r}; the passes are {known}")


def _inspect(who: str, level: Level, made: Any, check: int) -> None:
    try:
        level.verify(made)
    except IRError as e:
        raise IRError(f"after {who}: {e}") from e
    if check >= 2 and level.parse is not None:
        text = level.show(made)
        try:
            again = level.parse(text, level.data(made), "")
        except IRError as e:
            raise IRError(f"after {who}: the text cannot be read back: {e}") from e
        if not level.same(made, again):
            raise IRError(
                f"after {who}: the {level.name} read back from its text is another one"
                f"{_difference(text, level.show(again))}"
            )


def _difference(a: str, b: str) -> str:
    for number, (x, y) in enumerate(zip(a.splitlines(), b.splitlines()), start=1):
        if x != y:
            return f"; line {number}:\n  {x}\n  {y}"
    return ""


class _Meaning:
    """Compares what objects compute on one random feed, made from the first that offers one."""

    def __init__(self, levels: Mapping[type, Level], start: Any) -> None:
        self.levels = levels
        self.feed: dict[str, Array] | None = None
        self.expected: Sequence[Array] | None = None
        self.after("the start", start)

    def after(self, who: str, made: Any, rounds_less: bool = False) -> None:
        """rounds_less: operators before this pass round to 16 bits, and those after it do not."""
        level = self.levels[type(made)]
        if level.evaluate is None:
            return
        if self.feed is None:
            if level.feed is None:
                return
            self.feed = level.feed(made, 0)
        got = level.evaluate(made, self.feed)
        if self.expected is not None:
            for number, (e, g) in enumerate(zip(self.expected, got, strict=True)):
                part = NARROW.get(e.dtype.name) if rounds_less else None
                fault = disagreement(e, g) if part is None else disagreement(e, g, part, part)
                if fault:
                    raise IRError(f"pass {who!r} changes output {number}: {fault}")
        self.expected = got


def disagreement(expected: Array, got: Array, rtol: float = 1e-3, atol: float = 1e-4) -> str:
    """In what two results differ by more than rounding, or "".

    Floats may differ by `rtol` of the element plus `atol` of the largest finite expected one.
    """
    if expected.shape != got.shape or expected.dtype != got.dtype:
        return f"{expected.dtype}{list(expected.shape)} became {got.dtype}{list(got.shape)}"
    if expected.dtype.kind in "biuOSU":
        wrong = expected != got
        error = wrong.astype(np.float64)
    else:
        e, g = expected.astype(np.float64), got.astype(np.float64)
        finite = np.abs(e[np.isfinite(e)])
        scale = float(finite.max(initial=0.0))
        with np.errstate(invalid="ignore", over="ignore"):
            error = np.where((e == g) | (np.isnan(e) & np.isnan(g)), 0.0, np.abs(e - g))
            limit = atol * scale + rtol * np.where(np.isfinite(e), np.abs(e), 0.0)
            wrong = ~(error <= limit)
    if not wrong.any():
        return ""
    at = np.unravel_index(int(np.argmax(np.where(wrong, error, -1.0))), wrong.shape)
    where = "[" + ", ".join(str(int(i)) for i in at) + "]"
    return (
        f"{int(wrong.sum())} of {wrong.size} elements; {expected[at]} became {got[at]} at {where}"
    )
