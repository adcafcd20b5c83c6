"""Rival, SPINN-like (Laskaridis et al. 2020): an exit threshold, and a split chosen by profiled conditions.

An exit that is confident enough ends the frame. Otherwise the split is the throughput rival's, but its conditions are a
slow average of what the link showed, as a run-time profiler keeps it, refreshed once for every frame.
"""

from __future__ import annotations

from isthmus.device.catalogue import Catalogue
from isthmus.device.link_estimator import Outlook
from isthmus.device.scheduler import STOP, Decision, Situation
from isthmus.emulation.policies.estimates import back_s
from isthmus.emulation.policies.throughput_argmax import ThroughputArgmax
from isthmus.proto.vocabulary import StageResult

THRESHOLD = 0.95
"""The least confidence that ends a frame on the device: of 0.6 to 0.99 the best on the tuning settings, with 0.98."""
GAIN = 0.1
"""The weight of one frame's conditions in the profiler's average: a slow one; of 0.05 to 0.5 all are as good."""


class Spinn(ThroughputArgmax):
    """Stop above the threshold; below it, the most accurate point that average conditions allow."""

    def __init__(self, catalogue: Catalogue) -> None:
        super().__init__(catalogue)
        self._fixed_s = self._per_byte_s = 0.0
        self._weight = 1.0  # the first look is taken as it is

    def width(self, situation: Situation) -> int:
        """The width of the most accurate point."""
        if situation.outlook is not None:
            self._profile(situation.outlook)
        return super().width(situation)

    def after_exit(self, result: StageResult, situation: Situation) -> Decision:
        """Stop when sure; else as the conditions say."""
        return STOP if result.confidence >= THRESHOLD else super().after_exit(result, situation)

    def _profile(self, outlook: Outlook) -> None:
        fixed_s = back_s(outlook, 0)
        self._fixed_s += self._weight * (fixed_s - self._fixed_s)
        self._per_byte_s += self._weight * (back_s(outlook, 1) - fixed_s - self._per_byte_s)
        self._weight = GAIN

    def _back_s(self, outlook: Outlook, size_bytes: float) -> float:
        return self._fixed_s + self._per_byte_s * size_bytes
