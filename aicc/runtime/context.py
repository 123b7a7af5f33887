"""The context: the table of 64-bit words through which Python and the native program meet.

word 0    the step that failed, written by native code
word 1    the pool of threads, or 0
word 2    address of the block of constants
word 3    address of the arena, where offsets are known at compile time
word 4    address of Python's list of input arrays, word 5 that of the list of output arrays, for a
          program that reads the arrays' addresses itself
word 6    where a list holds the address of its items, word 7 where an array holds that of its data:
          bytes from the beginning of the Python object
then      the address of each input, output, host array, and arena buffer placed at run time;
          the value of each size; the bytes of each copy whose size is a symbol
"""

from __future__ import annotations

import ctypes
import functools
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from aicc.runtime.program import Copy, Program

FAILED, POOL, CONSTANTS, ARENA, INPUTS, OUTPUTS, ITEMS, DATA, FIRST = range(9)


@dataclass(frozen=True)
class Slots:
    """Positions of words. addresses: by buffer; sizes: by symbol; copies: by step."""

    addresses: dict[str, int]
    sizes: dict[str, int]
    copies: dict[int, int]
    length: int


def slots(program: Program) -> Slots:
    """Where each word of a program's context lies. Inputs come first, then outputs, in order."""
    n = FIRST
    addresses: dict[str, int] = {}
    outputs = sorted((b for b in program.buffers if b.space == "output"), key=lambda b: b.at or 0)
    others = [
        b for b in program.buffers if b.space == "host" or (b.space == "arena" and b.at is None)
    ]
    for name in (*program.inputs, *(b.name for b in outputs), *(b.name for b in others)):
        addresses[name] = n
        n += 1
    sizes = {}
    for source in program.sizes:
        sizes[source.sym.name] = n
        n += 1
    copies = {}
    for step, s in enumerate(program.steps):
        if isinstance(s, Copy) and not isinstance(program.table[s.source].nbytes, int):
            copies[step] = n
            n += 1
    return Slots(addresses, sizes, copies, n)


def address(array: np.ndarray[Any, Any]) -> int:
    """Of an array's first element."""
    places = object_places()
    if places is None:
        return int(array.ctypes.data)
    return ctypes.c_size_t.from_address(id(array) + places[1]).value


@functools.cache
def object_places() -> tuple[int, int] | None:
    """Where a list holds the address of its items, and an array that of its data, in bytes from
    `id(object)`: CPython's `PyListObject` has it behind its length, NumPy's `PyArrayObject` behind
    the head of every Python object. Native code reads them in no time, and `__array_interface__`
    takes a microsecond. None where objects are not laid out like that.
    """
    if sys.implementation.name != "cpython":
        return None
    word = ctypes.sizeof(ctypes.c_void_p)
    place, items = object.__basicsize__, object.__basicsize__ + word
    listed = [object(), object()]
    length = ctypes.c_ssize_t.from_address(id(listed) + place).value
    if list.__basicsize__ != items + 2 * word or length != len(listed):
        return None
    first = ctypes.c_size_t.from_address(id(listed) + items).value
    if list((ctypes.c_size_t * 2).from_address(first)) != [id(x) for x in listed]:
        return None
    whole = np.arange(24.0).reshape(4, 6)
    for a in (whole, whole[1:, 2:], whole.T, np.zeros(1, np.int8), np.empty((0, 3))):
        if ctypes.c_size_t.from_address(id(a) + place).value != a.ctypes.data:
            return None
    return items, place
