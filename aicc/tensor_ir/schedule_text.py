"""The text form of schedules: `parse_steps(print_steps(steps)) == tuple(steps)`.

    split(i, 6, peel); reorder(i.o, k, i.i); vectorize(j.i); pack(w, "1/16 0 1%16")

A step is its name and its fields in order; fields at the end that have their default are left out.
Names and words stand as they are, any other text in quotes, a tuple in brackets, but for the only
field of a step, whose items follow each other. Steps are separated by `;` or the end of a line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import MISSING, fields
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, get_args, get_origin, get_type_hints

import aicc.tensor_ir
from aicc.tensor_ir.schedule import Step
from aicc.text import Reader, quote

_SPACES = ("newline", "indent", "dedent")
_WORD = re.compile(r"[A-Za-z_]\w*(\.\w+)*", re.ASCII)


@cache
def _load() -> None:
    """Imports every module of steps, once."""
    for module in iter_modules(aicc.tensor_ir.__path__):
        if module.name.startswith("schedule_"):
            import_module(f"aicc.tensor_ir.{module.name}")


def step_types() -> dict[str, type[Step]]:
    """Every kind of step by its name, those that are defined elsewhere included."""
    _load()
    found: dict[str, type[Step]] = {}
    todo = list(Step.__subclasses__())
    while todo:
        kind = todo.pop()
        todo.extend(kind.__subclasses__())
        if kind.name:
            found[kind.name] = kind
    return found


def _field_types(kind: type[Step]) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {f.name: hints[f.name] for f in fields(kind)}  # type: ignore[arg-type]


def print_step(step: Step) -> str:
    """One step, as in `split(i, 6, peel)`."""
    values = [getattr(step, f.name) for f in fields(step)]  # type: ignore[arg-type]
    if len(values) == 1 and isinstance(values[0], tuple):
        values = list(values[0])
    else:
        for f in reversed(fields(step)):  # type: ignore[arg-type]
            if f.default is MISSING or values[-1] != f.default:
                break
            values.pop()
    return f"{step.name}({', '.join(map(_print, values))})"


def _print(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_print, value))}]"
    if isinstance(value, str):
        word = _WORD.fullmatch(value) and value not in ("true", "false")
        return value if word else quote(value)
    return "true" if value is True else "false" if value is False else str(value)


def print_steps(steps: Iterable[Step]) -> str:
    """Steps on one line, separated by `; `."""
    return "; ".join(map(print_step, steps))


def parse_steps(text: str) -> tuple[Step, ...]:
    """The steps that a text describes. Raises IRError with the place of a fault."""
    reader = Reader(text)
    steps: list[Step] = []
    while not reader.at_kind("end"):
        if reader.token.kind in _SPACES or reader.at(";"):
            reader.take()
            continue
        steps.append(_step(reader))
        if not (reader.at(";") or reader.token.kind in (*_SPACES, "end")):
            reader.fail(f"expected ';' or the end of the line, found {reader.token}")
    return tuple(steps)


def _step(r: Reader) -> Step:
    at = r.token
    name = r.name("a step")
    kind = step_types().get(name)
    if kind is None:
        raise r.error(f"no step is called {name!r}", at)
    types = _field_types(kind)
    given = r.listed(lambda: (r.token, _argument(r)), "(", ")")
    only = next(iter(types.values())) if len(types) == 1 else None
    if get_origin(only) is tuple:
        item = get_args(only)[0]
        for token, value in given:
            if not _fits(value, item):
                raise r.error(f"{name} takes items of type {item.__name__}", token)
        return kind(tuple(value for _, value in given))  # type: ignore[call-arg]
    if len(given) > len(types):
        raise r.error(f"{name} takes at most {len(types)} arguments", given[len(types)][0])
    for (token, value), (field, expected) in zip(given, types.items()):
        if not _fits(value, expected):
            raise r.error(
                f"{field} of {name} is no {getattr(expected, '__name__', expected)}", token
            )
    try:
        return kind(*(value for _, value in given))
    except TypeError as fault:
        raise r.error(f"{name}: {fault}", at) from None


def _argument(r: Reader) -> Any:
    if r.at("["):
        return tuple(r.listed(lambda: _argument(r)))
    if r.at("true", "false"):
        return r.take().text == "true"
    if r.at_kind("string"):
        return r.string()
    if r.at_kind("name"):
        return r.take().text
    return r.integer()


def _fits(value: Any, expected: Any) -> bool:
    if get_origin(expected) is tuple:
        item = get_args(expected)[0]
        return isinstance(value, tuple) and all(_fits(v, item) for v in value)
    if expected is int and isinstance(value, bool):
        return False
    return not isinstance(expected, type) or isinstance(value, expected)
