"""Rival, Neurosurgeon-like (Kang et al. 2017): the most accurate operating point that the current throughput allows.

Latency is predicted as head + size / throughput + round trip + server, and believed; the whole network on the device is
one of the options. Neither the queue, nor uncertainty, nor the frame's own confidence is looked at.
"""

from __future__ import annotations

from isthmus.device.catalogue import Catalogue
from isthmus.device.link_estimator import Outlook
from isthmus.device.scheduler import GO_ON, STOP, Decision, Situation
from isthmus.emulation.policies.estimates import back_s, carried_bytes, head_s, sendable
from isthmus.proto.vocabulary import StageResult


class ThroughputArgmax:
    """Greatest mean accuracy among what is predicted to be in time."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._last = catalogue.stages - 1

    def width(self, situation: Situation) -> int:
        """The width of the best point, on the device or across; the narrower of equals."""
        return max(range(len(self._catalogue.widths)), key=lambda w: (self._best(w, situation), -w))

    def after_exit(self, result: StageResult, situation: Situation) -> Decision:
        """Go on to the end of the head, then choose whatever is most accurate in time."""
        if result.stage < self._last:
            return GO_ON
        outlook = situation.outlook
        if outlook is None:
            return STOP
        decision: Decision = STOP
        best = self._catalogue.exits[self._catalogue.width_index(result.width)][self._last].accuracy
        for known, sent, offload in sendable(self._catalogue, result):
            if known.accuracy > best and self._back_s(outlook, sent) <= situation.budget_s:
                best, decision = known.accuracy, offload
        return decision

    def _back_s(self, outlook: Outlook, size_bytes: float) -> float:
        return back_s(outlook, size_bytes)

    def _best(self, w: int, situation: Situation) -> float:
        left_s = situation.budget_s - head_s(self._catalogue, situation, w)
        if left_s < 0:
            return -1.0
        alone, outlook = self._catalogue.exits[w][self._last].accuracy, situation.outlook
        if outlook is None:
            return alone
        points = (known for row in self._catalogue.offloads[w] for known in row)
        return max([alone, *(k.accuracy for k in points if self._back_s(outlook, carried_bytes(k)) <= left_s)])
