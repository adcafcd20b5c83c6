"""Rival: the picture itself is sent for every frame, as JPEG or WebP, at the best quality that the rate allows.

The head runs first, so that a frame that misses is answered from the last exit. A step of this contestant's catalogue is
a picture quality, finest first; if none is predicted to be in time, the smallest goes all the same.
"""

from __future__ import annotations

from isthmus.device.scheduler import GO_ON, STOP, Decision, LocalOnly, Offload, Situation
from isthmus.emulation.policies.estimates import back_s
from isthmus.proto.vocabulary import StageResult


class InputOffload(LocalOnly):
    """Widths as local-only, then always the picture."""

    def after_exit(self, result: StageResult, situation: Situation) -> Decision:
        """Go on to the end of the head, then send the picture."""
        if super().after_exit(result, situation) == GO_ON:
            return GO_ON
        outlook = situation.outlook
        if outlook is None or result.layer_bytes is None:
            return STOP
        for quality, (size_bytes,) in enumerate(result.layer_bytes):
            if back_s(outlook, size_bytes) <= situation.budget_s:
                return Offload(quality, 1)
        return Offload(len(result.layer_bytes) - 1, 1)
