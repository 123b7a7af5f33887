"""The limits of a machine that profiles compare with: multiply-adds and bytes of one core."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Limits:
    """peak: of multiply-adds, in 1e9 operations per second, by dtype. bandwidth: of reading,
    (bytes that are read again and again, 1e9 bytes per second), from the smallest footprint on.
    All of one core, as measured on this machine."""

    peak: Mapping[str, float]
    bandwidth: tuple[tuple[int, float], ...]

    def rate(self, footprint: float) -> float:
        """1e9 bytes per second for data of so many bytes: of the smallest footprint measured that
        is as large, or the largest."""
        for size, rate in self.bandwidth:
            if footprint <= size:
                return rate
        return self.bandwidth[-1][1]

    def seconds(
        self, instructions: float, dtype: str, parts: Sequence[tuple[float, float]], cores: int
    ) -> tuple[float, float]:
        """Least seconds of computing and of moving data, on `cores` cores.

        instructions: of vector units, per element; a multiply-add is one. parts: (bytes, footprint
        that they are read from).
        """
        peak = self.peak.get(dtype) or self.peak["f32"]
        compute = 2 * instructions / (peak * 1e9)
        moving = sum(n / (self.rate(footprint) * 1e9) for n, footprint in parts if n)
        return compute / cores, moving / cores

    def as_dict(self) -> dict[str, Any]:
        """Plain data that `from_dict` reads."""
        return {"peak": dict(self.peak), "bandwidth": [list(b) for b in self.bandwidth]}

    @staticmethod
    def from_dict(data: Any) -> Limits:
        """The limits that `as_dict` gave. Raises ValueError for anything else."""
        try:
            peak = {str(k): float(v) for k, v in data["peak"].items()}
            steps = tuple((int(n), float(rate)) for n, rate in data["bandwidth"])
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"no limits of a machine: {error!r}") from None
        sound = "f32" in peak and steps and min(*peak.values(), *(r for _, r in steps)) > 0
        if not sound or list(steps) != sorted(steps):
            raise ValueError("no limits of a machine: rates are positive, footprints ascend")
        return Limits(peak, steps)
