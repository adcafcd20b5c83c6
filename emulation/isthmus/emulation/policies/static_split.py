"""Rival: one operating point for every frame, whatever the link does; what an engineer picks offline and deploys.

The point is the cheapest in bytes whose accuracy is within half a point of the best, at the widest width that fits the first
frame's budget and period.
"""

from __future__ import annotations

from isthmus.device.catalogue import Catalogue, Known
from isthmus.device.scheduler import GO_ON, STOP, Decision, Offload, Situation
from isthmus.emulation.policies.estimates import carried_bytes, head_s
from isthmus.proto.vocabulary import StageResult

TOLERANCE = 0.005
"""Accuracy that is given away for fewer bytes: of 0 to 0.04 the best on the tuning settings (`benchmarks/policies.py`)."""


class StaticSplit:
    """The same width, step and layers throughout."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._width: int | None = None

    def width(self, situation: Situation) -> int:
        """Chosen once."""
        if self._width is None:
            limit_s = min(situation.budget_s, situation.period_s or situation.budget_s)
            widths = range(len(self._catalogue.widths))
            self._width = max((w for w in widths if head_s(self._catalogue, situation, w) <= limit_s), default=0)
        return self._width

    def after_exit(self, result: StageResult, situation: Situation) -> Decision:
        """Go on to the end of the head, then send the one point."""
        offload = _offload(_cheapest(self._catalogue, self._catalogue.width_index(result.width)))
        if result.stage < self._catalogue.sent_after(offload.step):
            return GO_ON
        return STOP if situation.outlook is None or result.layer_bytes is None else offload


def _cheapest(catalogue: Catalogue, width: int) -> Known:
    points = [known for row in catalogue.offloads[width] for known in row]
    best = max(known.accuracy for known in points)
    return min((k for k in points if k.accuracy >= best - TOLERANCE), key=carried_bytes)


def _offload(known: Known) -> Offload:
    assert known.point.step is not None
    return Offload(known.point.step, known.point.layers)
