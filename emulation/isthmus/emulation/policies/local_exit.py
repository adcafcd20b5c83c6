"""Rival: always stop at one early exit, at the widest width that reaches it in time. Nothing is ever sent."""

from __future__ import annotations

from isthmus.device.catalogue import Catalogue
from isthmus.device.scheduler import GO_ON, STOP, Decision, Situation
from isthmus.proto.vocabulary import StageResult


class LocalExit:
    """Answers from exit `index`; the shipped local-only is the same at the last exit."""

    def __init__(self, catalogue: Catalogue, index: int) -> None:
        self._widths, self._index = len(catalogue.widths), index

    def width(self, situation: Situation) -> int:
        """The widest width at which the exit is reached in time, and before the next frame comes."""
        limit_s = min(situation.budget_s, situation.period_s or situation.budget_s)
        for w in range(self._widths - 1, 0, -1):
            if sum(situation.times.cautious_s(s, w) for s in range(self._index + 1)) <= limit_s:
                return w
        return 0

    def after_exit(self, result: StageResult, situation: Situation) -> Decision:
        """Go on to the exit, and stop there."""
        return GO_ON if result.stage < self._index else STOP
