"""What goes in: checks of a run's arrays against the model's inputs, and the sizes they bring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from aicc.dtypes import to_numpy
from aicc.errors import ExecutionError, InputError
from aicc.runtime.program import Program
from aicc.symbolic import Size, Sym, evaluate

Array = np.ndarray[Any, Any]

# Flags of arrays, as NumPy numbers them.
READABLE = 0x1 | 0x100
"""In C order, aligned: native code reads such an array as it is."""
_OWNED = 0x4
_WRITEABLE = READABLE | 0x400


@dataclass(frozen=True)
class Port:
    """An input or output of a model. dtype: of its arrays; shape: numbers or symbolic sizes."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[Size, ...]

    def __str__(self) -> str:
        return f"{self.name}: {describe(self.dtype, self.shape)}"


def describe(dtype: Any, shape: Sequence[Size]) -> str:
    """`float32[n, 3]`."""
    return f"{dtype}[{', '.join(map(str, shape))}]"


def input_ports(program: Program) -> tuple[Port, ...]:
    """The program's inputs in order."""
    found = (program.table[name] for name in program.inputs)
    return tuple(Port(b.name, to_numpy(b.dtype), b.shape) for b in found)


def output_ports(program: Program) -> tuple[Port, ...]:
    """The program's outputs in order."""
    found = ((name, program.table[b]) for name, b in program.outputs)
    return tuple(Port(name, to_numpy(b.dtype), b.shape) for name, b in found)


class Binder:
    """Reads sizes from the shapes of a program's inputs and checks all the others."""

    def __init__(self, program: Program, ports: Sequence[Port]) -> None:
        self._ports = ports
        self._place: dict[str, tuple[int, int, Sym]] = {}
        for s in program.sizes:
            if s.buffer in program.inputs and s.axis is not None:
                self._place[s.sym.name] = (program.inputs.index(s.buffer), s.axis, s.sym)

    def bind(self, shapes: Sequence[tuple[int, ...]]) -> dict[str, int]:
        """The value of each size. Raises InputError for a rank or size that does not fit."""
        for port, shape in zip(self._ports, shapes, strict=True):
            if len(shape) != len(port.shape):
                raise InputError(
                    f"input {port.name!r} has rank {len(shape)} ({list(shape)}), expected rank "
                    f"{len(port.shape)} ({describe(port.dtype, port.shape)})"
                )
        values = {}
        for name, (n, axis, s) in self._place.items():
            value = values[name] = shapes[n][axis]
            if (s.lo is not None and value < s.lo) or (s.hi is not None and value > s.hi):
                bounds = f"{'' if s.lo is None else s.lo}..{'' if s.hi is None else s.hi}"
                raise InputError(
                    f"input {self._ports[n].name!r}: size {value} along axis {axis} "
                    f"({name}) is outside {bounds}"
                )
        for port, shape in zip(self._ports, shapes):
            for axis, (d, got) in enumerate(zip(port.shape, shape)):
                if evaluate(d, values) != got:
                    self._wrong_size(port, axis, d, got, shape, values)
        return values

    def _wrong_size(
        self,
        port: Port,
        axis: int,
        d: Size,
        got: int,
        shape: tuple[int, ...],
        values: Mapping[str, int],
    ) -> NoReturn:
        message = (
            f"input {port.name!r} has shape {list(shape)}, expected "
            f"{describe(port.dtype, port.shape)}: size {got} along axis {axis}"
        )
        if isinstance(d, int):
            raise InputError(f"{message} instead of {d}")
        known = []
        for s in sorted(symbol.name for symbol in _symbols(d)):
            n, where, _ = self._place[s]
            known.append(f"{s} is {values[s]} by axis {where} of input {self._ports[n].name!r}")
        raise InputError(f"{message} instead of {d} = {evaluate(d, values)} ({', '.join(known)})")


class Closed(Binder):
    """Stands in the place of a closed model's binder."""

    def bind(self, shapes: Sequence[tuple[int, ...]]) -> dict[str, int]:
        raise ExecutionError("the model is closed")


def _symbols(d: Size) -> frozenset[Sym]:
    from aicc.symbolic import symbols

    return symbols(d)


def collect(ports: Sequence[Port], feed: Mapping[str, Any]) -> list[Any]:
    """The feed's arrays in the order of the inputs. Raises InputError for wrong names."""
    if not isinstance(feed, Mapping):
        raise InputError(f"a feed maps input names to arrays; this is a {type(feed).__name__}")
    names = [p.name for p in ports]
    missing = [n for n in names if n not in feed]
    extra = [str(n) for n in feed if n not in names]
    if missing or extra:
        parts = []
        if missing:
            parts.append(f"missing inputs: {', '.join(missing)}")
        if extra:
            parts.append(f"unknown inputs: {', '.join(extra)}")
        raise InputError(f"{'; '.join(parts)}; the model's inputs are {', '.join(map(str, ports))}")
    return [feed[n] for n in names]


def accept(port: Port, value: Any) -> Array:
    """`value` as an array that native code can read in place: C order, aligned, the machine's byte
    order; copied where it is not. Raises InputError for what is no array of the port's dtype."""
    if not isinstance(value, np.ndarray):
        raise InputError(
            f"input {port.name!r} must be a numpy array of {describe(port.dtype, port.shape)}, "
            f"not a {type(value).__name__}"
        )
    if port.dtype.kind == "O" and value.dtype.kind in "USTO":
        return np.ascontiguousarray(value, dtype=object).reshape(value.shape)
    if value.dtype.newbyteorder("=") != port.dtype:
        raise InputError(
            f"input {port.name!r} has dtype {value.dtype}, expected "
            f"{describe(port.dtype, port.shape)}"
        )
    ready = np.require(value, dtype=port.dtype, requirements=["C", "A"])
    return np.asarray(ready).reshape(value.shape)


def given_outputs(
    ports: Sequence[Port], out: Mapping[str, Array] | Sequence[Array | None]
) -> dict[int, Array]:
    """Arrays for outputs by position. out: by name, or one for each port in order, None where a new
    one is wanted. Raises InputError for other names, another number, or what is neither."""
    if isinstance(out, Mapping):
        place = {p.name: n for n, p in enumerate(ports)}
        unknown = [str(n) for n in out if n not in place]
        if unknown:
            known = ", ".join(map(str, ports))
            raise InputError(f"no outputs: {', '.join(unknown)}; the model's outputs are {known}")
        return {place[name]: a for name, a in out.items()}
    if not isinstance(out, list | tuple):
        raise InputError(
            f"arrays for outputs are a mapping by name or a list, not a {type(out).__name__}"
        )
    if len(out) != len(ports):
        raise InputError(
            f"{len(out)} arrays for {len(ports)} outputs: {', '.join(map(str, ports))}"
        )
    return {n: a for n, a in enumerate(out) if a is not None}


def plain_outputs(
    ports: Sequence[Port],
    results: Sequence[tuple[tuple[int, ...], np.dtype[Any]]],
    out: Mapping[str, Array] | Sequence[Array | None],
    inputs: Sequence[Array],
) -> list[Array] | None:
    """The arrays for all outputs in order, where a glance tells that they are what `check_outputs`
    asks for; None where it takes more than that.

    Arrays whose memory is their own share none.
    """
    if type(out) is dict:
        found = [out.get(p.name) for p in ports]
    elif type(out) is list or type(out) is tuple:
        found = list(out)
    else:
        return None
    if not len(found) == len(out) == len(results):
        return None
    for a, (shape, dtype) in zip(found, results):
        if type(a) is not np.ndarray or a.dtype is not dtype or a.shape != shape:
            return None
        if ~a.flags.num & (_WRITEABLE | _OWNED):
            return None
    for a in inputs:
        if ~a.flags.num & _OWNED:
            return None
    apart = len({*map(id, found), *map(id, inputs)}) == len(found) + len(inputs)
    return found if apart else None  # type: ignore[return-value]


def check_outputs(
    ports: Sequence[Port],
    shapes: Mapping[int, tuple[int, ...]],
    given: Mapping[int, Array],
    inputs: Sequence[Array],
) -> None:
    """Raises InputError where an array given for an output cannot be written to as it is."""
    for n, array in given.items():
        port = ports[n]
        what = f"the array for output {port.name!r}"
        if not isinstance(array, np.ndarray):
            raise InputError(f"{what} must be a numpy array, not a {type(array).__name__}")
        shape = shapes.get(n, array.shape)
        if array.dtype != port.dtype or array.shape != shape:
            raise InputError(
                f"{what} is {describe(array.dtype, array.shape)}, expected "
                f"{describe(port.dtype, shape)}"
            )
        if not (array.flags.c_contiguous and array.flags.aligned and array.flags.writeable):
            raise InputError(f"{what} must be writeable, aligned and in C order")
        others = [*inputs, *(a for m, a in given.items() if m < n)]
        if any(np.may_share_memory(array, other) for other in others):
            raise InputError(f"{what} shares memory with an input or another output")
