"""Tables in plain text and in Markdown."""

from __future__ import annotations

from collections.abc import Sequence


class Table:
    """Prints rows one at a time, as they are measured, in columns of fixed width.

    `columns` are pairs of a heading and a width; a negative width aligns to the left.
    """

    def __init__(self, columns: Sequence[tuple[str, int]]) -> None:
        self._widths = [width for _, width in columns]
        self._headings = [heading for heading, _ in columns]
        self.rows: list[list[str]] = []
        self._print(self._headings)
        print("-" * (sum(abs(w) + 2 for w in self._widths) - 2), flush=True)

    def row(self, *cells: object) -> None:
        """Prints one row; None leaves its cell empty."""
        texts = ["" if cell is None else str(cell) for cell in cells]
        self.rows.append(texts)
        self._print(texts)

    def _print(self, texts: Sequence[str]) -> None:
        padded = (t.ljust(-w) if w < 0 else t.rjust(w) for t, w in zip(texts, self._widths))
        print("  ".join(padded).rstrip(), flush=True)

    def markdown(self) -> str:
        """All rows so far."""
        rule = ["---" if width < 0 else "---:" for width in self._widths]
        lines = [self._headings, rule, *self.rows]
        return "\n".join("| " + " | ".join(c.replace("|", "\\|") for c in x) + " |" for x in lines)


def milliseconds(seconds: float) -> str:
    """Three or four significant digits: 0.0123 -> '12.30'."""
    value = seconds * 1e3
    return f"{value:.3f}" if value < 10 else f"{value:.2f}" if value < 100 else f"{value:.1f}"


def megabytes(count: float | None) -> str | None:
    """MB of 2^20 bytes."""
    return None if count is None else f"{count / 2**20:.0f}"


def times(ratio: float | None) -> str | None:
    """How many times as fast: 1.234 -> '1.23x'."""
    return None if ratio is None else f"{ratio:.2f}x"
