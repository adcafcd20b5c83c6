"""Rival: the published controller of Slimmable Encoders (Assine et al. 2023), as their logs show it.

Before the head, take the most accurate mode with table time + bytes / bandwidth + decoder within the deadline; if there
is none, the quickest. The table's time is the idle device's, not what the encoder takes today, and no round trip, queue,
uncertainty or confidence enters: on their logs this rule gives the mode that they chose for 82 to 100 % of the frames.
Every frame is sent. Their system has no early exits; here a frame that misses is answered from the last one.
"""

from __future__ import annotations

from isthmus.device.catalogue import Catalogue, Known
from isthmus.device.link_estimator import Outlook
from isthmus.device.scheduler import GO_ON, STOP, Decision, Offload, Situation
from isthmus.emulation.policies.estimates import carried_bytes, head_s
from isthmus.proto.vocabulary import StageResult


class Slimmable:
    """Mode by table, then everything is sent."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._modes = [(w, known) for w, width in enumerate(catalogue.offloads) for row in width for known in row]
        self._mode = self._modes[0][1]

    def width(self, situation: Situation) -> int:
        """The width of the chosen mode; without a link the last choice stands."""
        if situation.outlook is not None:
            totals = self._totals_s(situation, situation.outlook)
            in_time = [mode for total_s, mode in totals if total_s <= situation.budget_s]
            if in_time:
                self._mode = max(in_time, key=lambda mode: mode.accuracy)
            else:
                self._mode = min(totals, key=lambda total: total[0])[1]
        return self._catalogue.width_index(self._mode.point.width)

    def after_exit(self, result: StageResult, situation: Situation) -> Decision:
        """Go on to the end of the head, then send what the mode says."""
        assert self._mode.point.step is not None
        if result.stage < self._catalogue.sent_after(self._mode.point.step):
            return GO_ON
        if situation.outlook is None or result.layer_bytes is None:
            return STOP
        return Offload(self._mode.point.step, self._mode.point.layers)

    def _totals_s(self, situation: Situation, outlook: Outlook) -> list[tuple[float, Known]]:
        """Every mode with what it would take."""
        times = situation.times
        tables_s = [
            head_s(self._catalogue, situation, w) / times.contention for w in range(len(self._catalogue.widths))
        ]
        return [
            (tables_s[w] + outlook.service_s(carried_bytes(mode)) + outlook.server_s, mode) for w, mode in self._modes
        ]
