"""When to try again what has failed: after a pause that doubles, up to a longest. Pure: time is an argument."""

from __future__ import annotations


class BackOff:
    """The pauses between attempts at one thing."""

    def __init__(self, first_s: float = 0.5, longest_s: float = 10.0, steady_s: float = 5.0) -> None:
        """What has worked for `steady_s` and fails is tried again after `first_s`: a camera that gives one picture and
        fails, again and again, is not pressed.
        """
        self._first_s, self._longest_s, self._steady_s = first_s, longest_s, steady_s
        self._pause_s, self._worked_since_s = first_s, float("inf")

    def worked(self, *, now: float) -> None:
        """It works."""
        self._worked_since_s = min(self._worked_since_s, now)

    def failed(self, *, now: float) -> float:
        """It has failed: how long to wait before the next attempt, in seconds."""
        if now - self._worked_since_s >= self._steady_s:
            self._pause_s = self._first_s
        pause_s = self._pause_s
        self._pause_s, self._worked_since_s = min(2 * pause_s, self._longest_s), float("inf")
        return pause_s
