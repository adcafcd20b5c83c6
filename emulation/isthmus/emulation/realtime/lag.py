"""How far behind its schedule an emulated link delivers. Late is not later: lag is recorded, never added to the schedule."""

from __future__ import annotations

from array import array
from dataclasses import dataclass

import numpy as np

from isthmus.proto.errors import LagError


@dataclass(frozen=True)
class LagSummary:
    """How late deliveries were, in seconds."""

    deliveries: int
    p50_s: float
    p99_s: float
    max_s: float

    def check(self, budget_s: float, *, who: str) -> None:
        """Raises LagError when the 99th percentile is over `budget_s`."""
        if self.p99_s > budget_s:
            raise LagError(
                f"{who}: {self.p99_s * 1e3:.1f} ms behind its schedule (99th percentile), over the budget of "
                f"{budget_s * 1e3:.1f} ms; the machine is too busy, or the scenario too large, for real time"
            )

    def __str__(self) -> str:
        return (
            f"{self.deliveries} deliveries, behind their schedule by {self.p50_s * 1e3:.1f} ms at the median, "
            f"{self.p99_s * 1e3:.1f} ms at the 99th percentile"
        )


class Lags:
    """Collects how late each delivery was."""

    def __init__(self) -> None:
        self._lags = array("d")

    def add(self, lag_s: float) -> None:
        """One delivery; a timer that fired early was in time."""
        self._lags.append(max(0.0, lag_s))

    def summary(self) -> LagSummary:
        """The lag of every delivery until now."""
        if not self._lags:
            return LagSummary(0, 0.0, 0.0, 0.0)
        p50, p99 = np.quantile(self._lags, [0.5, 0.99])
        return LagSummary(len(self._lags), float(p50), float(p99), max(self._lags))
