"""Which classes are in view, from answers that flicker: one that is not seen for a while has gone. Pure: time is an argument."""

from __future__ import annotations

from typing import NamedTuple

from isthmus.device.neural_filter import NOTHING
from isthmus.proto.record import FrameRecord
from isthmus.proto.vocabulary import AnswerSource

HOLD_S = 2.0
"""A class that was not seen for so long has gone: longer than a detector blinks, shorter than somebody waits for a lamp."""
SURE = 0.5
"""An answer that is less sure is no sighting; a detector's boxes have their own bound, in the bundle."""


class Change(NamedTuple):
    """A class came into view, or has gone."""

    label: int
    began: bool
    at_s: float
    """When, on the clock of the answers."""


def seen(row: FrameRecord) -> set[int]:
    """The classes that an answer says are in its picture."""
    if row.source in (AnswerSource.NONE, AnswerSource.FILTER) or row.label is None:
        return set()
    if row.boxes is not None:
        return {box.label for box in row.boxes}
    if row.mask is not None:
        return {label for label in row.mask.covered if label}
    return {row.label} if row.confidence >= SURE and row.answer not in (None, *NOTHING) else set()


class Presence:
    """The classes that are in view now."""

    def __init__(self) -> None:
        self._last_s: dict[int, float] = {}

    @property
    def labels(self) -> frozenset[int]:
        """Those in view."""
        return frozenset(self._last_s)

    @property
    def due_at(self) -> float | None:
        """When a class may have gone unless it is seen again."""
        return min(self._last_s.values()) + HOLD_S if self._last_s else None

    def answered(self, row: FrameRecord) -> list[Change]:
        """What an answer changes; one that is no answer changes nothing, since nobody looked."""
        if row.source is AnswerSource.NONE:
            return []
        found = seen(row)
        came = [Change(label, True, row.answered_s) for label in sorted(found - self._last_s.keys())]
        self._last_s.update(dict.fromkeys(found, row.answered_s))
        return came

    def step(self, now: float) -> list[Change]:
        """The classes that have gone by `now`."""
        gone = sorted(label for label, last_s in self._last_s.items() if last_s + HOLD_S <= now)
        for label in gone:
            del self._last_s[label]
        return [Change(label, False, now) for label in gone]
