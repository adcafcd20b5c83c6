"""How long a stage of the head takes now: the warm-up's profile times a contention factor learnt from what really ran.

Heat, governors and co-located work show up in the device's own latencies first (ApproxDet's observation). Pure: no clock.
"""

from __future__ import annotations

from collections.abc import Sequence

LEARNING_RATE = 0.2
"""The weight of the newest run: the last five carry two thirds of what is believed."""
CLIP = 3.0
"""One run counts as at most this many times slower or faster than expected: a hiccup is not a trend."""
MARGIN_DEVIATIONS = 2.0
"""Mean deviations that a cautious time lies above the mean; 1.6 standard deviations, were it a normal distribution."""


class StageTimes:
    """Expected and cautious times of every stage at every width.

    `profile_s[stage][width]` in seconds, widths ascending as in the catalogue, measured on an idle device. Raises
    ValueError if one is not above zero.
    """

    def __init__(self, profile_s: Sequence[Sequence[float]], picture_s: float = 0.0) -> None:
        """`picture_s`: what coding a picture that is sent takes, on the same device."""
        if any(not t > 0 for row in profile_s for t in row):
            raise ValueError(
                f"stage profile: every time must be above zero, got {profile_s}; measure the warm-up again"
            )
        self._profile_s = tuple(tuple(row) for row in profile_s)
        self._picture_s, self._factor = picture_s, 1.0
        self._deviation = 0.05

    @property
    def contention(self) -> float:
        """How many times slower than its profile the device runs now."""
        return self._factor

    def expected_s(self, stage: int, width: int) -> float:
        """Mean time of `stage` at the width of this index."""
        return self._profile_s[stage][width] * self._factor

    def cautious_s(self, stage: int, width: int) -> float:
        """A time that `stage` seldom exceeds: two mean deviations above the mean."""
        return self._profile_s[stage][width] * (self._factor + MARGIN_DEVIATIONS * self._deviation)

    def ahead_s(self, stage: int, width: int, until: int | None = None) -> float:
        """The same from the beginning of `stage` to that of stage `until`, or to the end of the head."""
        slowdown = self._factor + MARGIN_DEVIATIONS * self._deviation
        return sum([row[width] * slowdown for row in self._profile_s[stage:until]])

    def coding_s(self) -> float:
        """A time that coding a picture seldom exceeds."""
        return self._picture_s * (self._factor + MARGIN_DEVIATIONS * self._deviation)

    def observe(self, stage: int, width: int, compute_s: float) -> None:
        """Learn from one run."""
        ratio = compute_s / self._profile_s[stage][width]
        ratio = min(max(ratio, self._factor / CLIP), self._factor * CLIP)
        self._deviation += LEARNING_RATE * (abs(ratio - self._factor) - self._deviation)
        self._factor += LEARNING_RATE * (ratio - self._factor)
