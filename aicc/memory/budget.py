"""Amounts of memory as people write them."""

from __future__ import annotations

import re

from aicc.errors import InputError

UNITS = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "kib": 1 << 10,
    "mib": 1 << 20,
    "gib": 1 << 30,
}
"""Bytes by unit, in lower case."""


def parse_bytes(amount: str | int) -> int:
    """Bytes from a number of them, or from a text such as "2MiB" or "1.5 MB" (10**6 bytes).

    Raises InputError for anything else, and for what is not positive.
    """
    if isinstance(amount, int) and not isinstance(amount, bool):
        number = amount
    else:
        pattern = r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([a-z]*)\s*"
        found = re.fullmatch(pattern, amount, re.IGNORECASE) if isinstance(amount, str) else None
        unit = UNITS.get(found[2].lower()) if found else None
        if found is None or unit is None:
            raise InputError(f"{amount!r} is no amount of memory, such as '2MiB' or 1500000")
        number = int(float(found[1]) * unit)
    if number <= 0:
        raise InputError(f"an amount of memory is positive, not {amount!r}")
    return number


def show_bytes(number: int) -> str:
    """Bytes in the largest binary unit that fits, and exactly: "1.21 MiB (1268736 bytes)"."""
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if number >= size:
            return f"{number / size:.3f} {unit} ({number} bytes)"
    return f"{number} bytes"
