"""Rival: ApproxDet's rule (Xu et al. 2020): the branch, a detector's size and how often it runs, that is most accurate and
fast enough now; a tracker in between. Nothing is ever sent.

A branch's accuracy by its interval is a table counted offline; its latency is the mean over the interval, the detector once
and the tracker otherwise, times the contention that the device's own latencies show. Where none is fast enough, the
quickest. Confidence, age and the queue do not enter.
"""

from __future__ import annotations

from isthmus.device.catalogue import Catalogue
from isthmus.device.scheduler import GO_ON, STOP, Decision, Situation
from isthmus.device.tracking.choice import share_left
from isthmus.emulation.policies.estimates import head_s
from isthmus.models.bundle import Ageing
from isthmus.proto.vocabulary import StageResult

INTERVALS = (1, 2, 4, 8, 20, 50)
"""The sampling intervals of its branches."""


class ApproxDet:
    """Branch by table and contention."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue, self._last = catalogue, catalogue.stages - 1
        self._ageing = catalogue.ageing or Ageing((0.0,), ((1.0,),) * len(catalogue.widths), ())

    def width(self, situation: Situation) -> int | None:
        """The width of the chosen branch; None between its detections."""
        period_s = situation.period_s or situation.budget_s
        branches = [
            (self._accuracy(w, n, period_s), head_s(self._catalogue, situation, w) / n, w, n)
            for w in range(len(self._catalogue.widths))
            for n in INTERVALS
        ]
        fast = [branch for branch in branches if branch[1] <= min(period_s, situation.budget_s)]
        _, _, w, n = max(fast) if fast else min(branches, key=lambda branch: branch[1])
        known_s = situation.detected_s
        return w if known_s is None or known_s >= (n - 0.5) * period_s else None

    def after_exit(self, result: StageResult, situation: Situation) -> Decision:
        """Go on to the last exit, and answer from it."""
        return GO_ON if result.stage < self._last else STOP

    def _accuracy(self, w: int, interval: int, period_s: float) -> float:
        row, fresh = self._ageing.exit[w], self._catalogue.exits[w][self._last].accuracy
        return fresh * sum(share_left(self._ageing, row, k * period_s) for k in range(interval)) / interval
