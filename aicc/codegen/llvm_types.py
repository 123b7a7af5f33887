"""Element types of the tensor IR as LLVM types, in registers and in memory."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

from aicc.dtypes import is_float, to_numpy

_REGISTER = {
    "f64": "double",
    "f32": "float",
    "f16": "half",
    "bf16": "bfloat",
    "i64": "i64",
    "u64": "i64",
    "i32": "i32",
    "u32": "i32",
    "i16": "i16",
    "u16": "i16",
    "i8": "i8",
    "u8": "i8",
    "bool": "i1",
}


def llvm_type(dtype: str, lanes: int = 0) -> str:
    """The type of a value in registers: a scalar for 0 lanes, else a vector."""
    t = _REGISTER[dtype]
    return f"<{lanes} x {t}>" if lanes else t


def memory_type(dtype: str, lanes: int = 0) -> str:
    """The type of a value in memory: a bool is a byte."""
    t = "i8" if dtype == "bool" else _REGISTER[dtype]
    return f"<{lanes} x {t}>" if lanes else t


def suffix(dtype: str, lanes: int = 0) -> str:
    """The type's mangling in names of intrinsics: v16f32, i64."""
    t = {"f64": "f64", "f32": "f32", "f16": "f16", "bf16": "bf16"}.get(dtype, _REGISTER[dtype])
    return f"v{lanes}{t}" if lanes else t


def literal(value: int | float, dtype: str) -> str:
    """A scalar constant in LLVM's text, exact."""
    if not is_float(dtype):
        if dtype == "bool":
            return "true" if value else "false"
        return str(int(value))
    with np.errstate(over="ignore"):
        rounded = to_numpy(dtype).type(value)
    if dtype == "f16":
        return f"0xH{np.asarray(rounded).view(np.uint16):04X}"
    if dtype == "bf16":
        return f"0xR{np.asarray(rounded).view(np.uint16):04X}"
    return "0x" + struct.pack(">d", float(rounded)).hex().upper()


def flags(lanes: Sequence[bool]) -> str:
    """A constant vector of truth values."""
    return "<" + ", ".join(f"i1 {'true' if x else 'false'}" for x in lanes) + ">"


def known_flags(text: str) -> tuple[bool, ...] | None:
    """The truth values of a constant vector as `flags` and `splat` write it; None for others."""
    if not text.startswith("<i1 "):
        return None
    return tuple(word.strip() == "i1 true" for word in text[1:-1].split(","))


def runs(lanes: Sequence[bool]) -> list[tuple[int, int]]:
    """The ranges of consecutive lanes (first, behind the last) that are true."""
    found: list[tuple[int, int]] = []
    for n, x in enumerate(lanes):
        if x and found and found[-1][1] == n:
            found[-1] = (found[-1][0], n + 1)
        elif x:
            found.append((n, n + 1))
    return found


def splat(value: str, dtype: str, lanes: int) -> str:
    """A vector constant of equal elements."""
    return "<" + ", ".join([f"{_REGISTER[dtype]} {value}"] * lanes) + ">"
