"""Whether the tail works, and what the log says while it does not. Pure: no clock, no IO.

A tail that fails on every batch would fill the log and go on being called healthy: one line a minute is enough, and
whoever asks for the server's health is told.
"""

from __future__ import annotations

FAILURES = 3
"""Batches that fail one after the other, until the tail counts as broken: one bad frame is no reason to say so."""
LOG_S = 60.0
"""One line in so long, with the number of failures since the last."""

HUNG_S, HUNG_TIMES = 5.0, 20.0
"""A batch that takes longer than both this and so many times the usual is not slow, it hangs; no budget is so long."""


class TailHealth:
    """One tail's."""

    def __init__(self) -> None:
        self._failed_in_a_row = self._unsaid = 0
        self._said_s: float | None = None

    @property
    def serving(self) -> bool:
        """Whether some of the last batches succeeded."""
        return self._failed_in_a_row < FAILURES

    def on_success(self) -> None:
        """A batch was computed."""
        self._failed_in_a_row = 0

    def on_failure(self, why: str, *, now: float, whole: bool = True) -> str | None:
        """A batch failed, or not `whole`, only some of its frames; the line to log now, None where one was lately."""
        self._unsaid += 1
        if whole:
            self._failed_in_a_row += 1
        if self._said_s is not None and now < self._said_s + LOG_S:
            return None
        count, self._said_s, self._unsaid = self._unsaid, now, 0
        return f"tail: {why}" if count == 1 else f"tail: {why}; {count} such failures since the last such line"
