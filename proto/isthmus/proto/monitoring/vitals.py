"""Whether a half is alive and ready, and if not, why. Pure: time is an argument.

Alive is whose event loop still runs; whoever is not should be started again. Ready is who would answer a frame now.
"""

from __future__ import annotations

STILL_S = 10.0
"""An event loop that has not run for so long is stuck: nothing that is done on it takes a tenth of that."""


class Vitals:
    """One half's. It begins alive, and not ready: it still starts."""

    def __init__(self) -> None:
        self._beat_s: float | None = None
        self._why: str | None = "starting"

    def beat(self, now: float) -> None:
        """The event loop runs; to be told every second or so, from the first time on."""
        self._beat_s = now

    def ready(self) -> None:
        """It would answer."""
        self._why = None

    def not_ready(self, why: str) -> None:
        """It would not answer, or not for long."""
        self._why = why

    def why_dead(self, now: float) -> str | None:
        """What is wrong with it; None while it is alive."""
        if self._beat_s is None or now - self._beat_s < STILL_S:
            return None
        return f"the event loop has not run for {now - self._beat_s:.0f} s"

    def why_not_ready(self, now: float) -> str | None:
        """Why it would not answer now; None while it would."""
        return self.why_dead(now) or self._why
