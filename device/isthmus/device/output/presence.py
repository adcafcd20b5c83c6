"""Which classes are in view, from answers that flicker: one that is not seen for a while has gone. Pure: time is an argument."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from isthmus.device.neural_filter import NOTHING
from isthmus.proto.record import FrameRecord
from isthmus.proto.vocabulary import AnswerSource

HOLD_S = 2.0
"""A class that was not seen for so long has gone: longer than a detector blinks, shorter than somebody waits for a lamp."""
SURE = 0.5
"""A class comes into view when an answer is so sure of it; once there, whatever the answer holds keeps it there."""


class Change(NamedTuple):
    """A class came into view, or has gone."""

    label: int
    began: bool
    at_s: float
    """When, on the clock of the answers."""


def seen(row: FrameRecord) -> dict[int, float]:
    """The classes that an answer says are in its picture, and how sure it is of each, 0 to 1."""
    if row.source in (AnswerSource.NONE, AnswerSource.FILTER) or row.label is None:
        return {}
    if row.boxes is not None:
        return {box.label: box.score for box in reversed(row.boxes)}  # the surest comes first, and stays
    if row.mask is not None:
        return {label: 1.0 for label in row.mask.covered if label}
    return {} if row.answer in (None, *NOTHING) else {row.label: row.confidence}


class Presence:
    """The classes that are in view now."""

    def __init__(self, watched: Collection[int] | None = None) -> None:
        """`watched` are the classes that matter; None: all."""
        self.watched = watched
        self._last_s: dict[int, float] = {}

    def watches(self, label: int) -> bool:
        """Whether a class matters."""
        return self.watched is None or label in self.watched

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
        found = {label: sure for label, sure in seen(row).items() if self.watches(label)}
        came = sorted(label for label, sure in found.items() if sure >= SURE and label not in self._last_s)
        self._last_s.update({label: row.answered_s for label in found if label in self._last_s or label in came})
        return [Change(label, True, row.answered_s) for label in came]

    def step(self, now: float) -> list[Change]:
        """The classes that have gone by `now`."""
        gone = sorted(label for label, last_s in self._last_s.items() if last_s + HOLD_S <= now)
        for label in gone:
            del self._last_s[label]
        return [Change(label, False, now) for label in gone]
