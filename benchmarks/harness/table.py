"""Tables in plain text."""

from __future__ import annotations

from collections.abc import Sequence


class Table:
    """Prints rows one at a time, as they are measured, in columns of fixed width.

    `columns` are pairs of a heading and a width; a negative width aligns to the left.
    """

    def __init__(self, columns: Sequence[tuple[str, int]]) -> None:
        self._widths = [width for _, width in columns]
        self.row(*(heading for heading, _ in columns))
        print("-" * (sum(abs(w) + 2 for w in self._widths) - 2), flush=True)

    def row(self, *cells: object) -> None:
        """Prints one row; None leaves its cell empty."""
        texts = ("" if cell is None else str(cell) for cell in cells)
        padded = (t.ljust(-w) if w < 0 else t.rjust(w) for t, w in zip(texts, self._widths))
        print("  ".join(padded).rstrip(), flush=True)


def milliseconds(seconds: float) -> str:
    """Three or four significant digits: 0.0123 -> '12.30'."""
    value = seconds * 1e3
    return f"{value:.3f}" if value < 10 else f"{value:.2f}" if value < 100 else f"{value:.1f}"
