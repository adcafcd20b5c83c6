"""How long work reports its progress: lines of text, and counts that tell when it will be over."""

from __future__ import annotations

from collections.abc import Callable

Report = Callable[[str], None]
"""Takes one line of text each time there is something to say; an indented line is a detail of the one before it."""
Tick = Callable[[str, int, int], None]
"""Takes what is counted, how many are done, and of how many."""
EVERY_S = 5.0
"""Work of a few seconds says nothing; of minutes, a line as often as one begins to wonder."""


def unheard(what: str, done: int, of: int) -> None:
    """A tick that nobody listens to."""


class Countdown:
    """Reports now and then how far counted work is, and about how long the rest will take."""

    def __init__(self, report: Report, clock: Callable[[], float]) -> None:
        """`clock` gives seconds, of any beginning."""
        self._report, self._clock = report, clock
        self._what, self._began_s, self._said_s = "", 0.0, 0.0

    def __call__(self, what: str, done: int, of: int) -> None:
        """So many of so many are done. A new `what`, or one that begins again, is counted from here."""
        now = self._clock()
        if what != self._what or done == 0:
            self._what, self._began_s, self._said_s = what, now, now
        if done == 0 or done >= of or now - self._said_s < EVERY_S:
            return
        left_s = (now - self._began_s) / done * (of - done)
        self._report(f"{what}: {done} of {of}, about {left_s:.0f} s left")
        self._said_s = now
