"""What is known of a value: element type, shape, and the contents where they are small integers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from aicc.dtypes import INTEGERS, nbytes
from aicc.symbolic import Size, product


@dataclass(frozen=True)
class TensorType:
    """`dtype[shape]`. `value` holds the row-major elements of a small integer or bool tensor whose
    contents are known at compile time, as numbers or symbolic sizes: shape arithmetic."""

    dtype: str
    shape: tuple[Size, ...]
    value: tuple[Size, ...] | None = None

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def count(self) -> Size:
        """Number of elements."""
        return product(self.shape)

    @property
    def nbytes(self) -> Size:
        return self.count * nbytes(self.dtype)

    def without_value(self) -> TensorType:
        return self if self.value is None else replace(self, value=None)

    def __str__(self) -> str:
        text = f"{self.dtype}[{', '.join(str(d) for d in self.shape)}]"
        return text if self.value is None else f"{text} = ({', '.join(map(str, self.value))})"


VALUE_LIMIT = 1024
"""Tensors of at most this many elements have their contents tracked."""


def trackable(dtype: str, shape: Sequence[Size]) -> bool:
    """True where a tensor of this type is small enough, and of a type, to have its value known."""
    count = 1
    for d in shape:
        if not isinstance(d, int):
            return False
        count *= d
    return (dtype in INTEGERS or dtype == "bool") and count <= VALUE_LIMIT
