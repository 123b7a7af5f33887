"""What recipes ask of the machine. `aicc.target.Target` offers it; nothing is imported, for
code generation builds on the tensor IR and not the other way round."""

from __future__ import annotations

from typing import Protocol


class Machine(Protocol):
    """Vector registers, cache sizes in bytes, and bytes per cycle from the last cache."""

    @property
    def vector_registers(self) -> int: ...

    @property
    def has_fma(self) -> bool: ...

    @property
    def l1d(self) -> int: ...

    @property
    def l2(self) -> int: ...

    @property
    def l3(self) -> int: ...

    @property
    def l3_rate(self) -> int: ...

    def lanes(self, dtype: str) -> int:
        """Elements of a dtype in one vector register."""
        ...
