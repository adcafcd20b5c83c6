"""Rival: the picture itself is sent for every frame, as JPEG or WebP, at the best quality that the rate allows.

The head runs first, so that a frame that misses is answered from the last exit; in a bundle that sends pictures itself, as
much of it as comes before them. A step of this contestant's catalogue is a picture quality, finest first; if none is
predicted to be in time, the smallest goes all the same.
"""

from __future__ import annotations

from isthmus.device.catalogue import Catalogue
from isthmus.device.scheduler import GO_ON, Decision, LocalOnly, Offload, Situation
from isthmus.emulation.policies.estimates import back_s
from isthmus.proto.vocabulary import StageResult


class InputOffload(LocalOnly):
    """Widths as local-only, then always the picture."""

    def __init__(self, catalogue: Catalogue) -> None:
        super().__init__(catalogue)
        self._first = catalogue.feature_steps or 0
        self._ready = catalogue.sent_after(self._first)

    def after_exit(self, result: StageResult, situation: Situation) -> Decision:
        """Go on until the picture is there, then send it."""
        if result.stage < self._ready:
            return GO_ON
        outlook = situation.outlook
        if outlook is None or result.layer_bytes is None:
            return super().after_exit(result, situation)
        left_s = situation.budget_s - situation.times.coding_s()
        for step, (size_bytes,) in enumerate(result.layer_bytes[self._first :], start=self._first):
            if back_s(outlook, size_bytes) <= left_s:
                return Offload(step, 1)
        return Offload(len(result.layer_bytes) - 1, 1)
