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
        outlook = situation.outlook
        if outlook is None:
            return GO_ON if result.stage < self._last else STOP
        decision: Decision = STOP
        w = self._catalogue.width_index(result.width)
        best = self._catalogue.exits[w][self._last].accuracy
        if result.stage < self._last:
            decision, best = GO_ON, self._later(w, result.stage, situation)
        for known, sent, offload in sendable(self._catalogue, result):
            coding_s = situation.times.coding_s() if self._catalogue.is_picture(offload.step) else 0.0
            if known.accuracy > best and self._back_s(outlook, sent) + coding_s <= situation.budget_s:
                best, decision = known.accuracy, offload
        return decision

    def _later(self, w: int, stage: int, situation: Situation) -> float:
        """The best that can only be had by running on: the last exit, or what is not there to be sent yet."""
        outlook, catalogue = situation.outlook, self._catalogue
        alone = catalogue.exits[w][self._last].accuracy
        ahead_s = sum(situation.times.expected_s(s, w) for s in range(stage + 1, self._last + 1))
        left_s = situation.budget_s - ahead_s
        if outlook is None or left_s < 0:
            return alone
        later = (k for s, row in enumerate(catalogue.offloads[w]) if catalogue.sent_after(s) > stage for k in row)
        return max([alone, *(k.accuracy for k in later if self._back_s(outlook, k.mean_bytes) <= left_s)])

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
