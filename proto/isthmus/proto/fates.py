"""What became of every picture that was captured: answered, repeated, tracked, dismissed, skipped or refused, and why. Pure."""

from __future__ import annotations

from collections import Counter

from msgspec import Struct

from isthmus.proto.vocabulary import FATES, NONE_SKIPPED, AnswerSource, Fate, Reason, Skipped

END_BEGINS = b'{"ended":'
"""By this the end of a run is told from a record."""


class RunEnd(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a run of a device ended, the last line of its record: every picture that came was answered for, or skipped."""

    ended: str
    """ISO 8601, given by the caller."""
    captured: int
    """All pictures that came, whatever became of them."""
    skipped_stale: int
    skipped_rate: int
    """All that were skipped, also those after the last answer."""


class Tally:
    """Counts fates, each with its one reason."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[Fate, str]] = Counter()

    def add(self, source: AnswerSource, reason: Reason, skipped: Skipped = NONE_SKIPPED) -> None:
        """Count one answer, and what was skipped before it."""
        self.counts[FATES[source], reason.value] += 1
        self.skip(skipped)

    def skip(self, skipped: Skipped) -> None:
        """Count pictures that were let go."""
        for reason, count in (("stale", skipped.stale), ("rate", skipped.rate)):
            if count:
                self.counts[Fate.SKIPPED, reason] += count

    @property
    def captured(self) -> int:
        """All of them."""
        return sum(self.counts.values())

    @property
    def by_fate(self) -> dict[str, int]:
        """How many met each fate; those that nobody met are left out."""
        return {fate.value: count for fate in Fate if (count := self._of(fate))}

    @property
    def by_reason(self) -> dict[str, dict[str, int]]:
        """The same, by reason within each fate, most frequent first."""
        return {
            fate.value: {reason: count for (kind, reason), count in self.counts.most_common() if kind is fate}
            for fate in Fate
            if self._of(fate)
        }

    def _of(self, fate: Fate) -> int:
        return sum(count for (kind, _), count in self.counts.items() if kind is fate)
