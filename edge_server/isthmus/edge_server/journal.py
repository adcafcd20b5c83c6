"""Who came, who was refused, who left and why: one line each, in the log that is shown by default.

What a peer can cause as often as it likes fills no disk: of each kind a few lines a second are written, and how many
were not is said in the next.
"""

from __future__ import annotations

import logging

from isthmus.edge_server.admission import Meter

log = logging.getLogger(__name__)

LINES_PER_S = 2.0
BURST_LINES = 20
"""Lines of a kind that are written at once before the rate holds."""


class Journal:
    """The server's log of its visitors. Takes the time, reads no clock."""

    def __init__(self) -> None:
        self._meters: dict[str, Meter] = {}
        self._unwritten: dict[str, int] = {}

    def write(self, kind: str, line: str, *, now: float) -> None:
        """Write a line of this kind, or count it as not written."""
        meter = self._meters.setdefault(kind, Meter(BURST_LINES / LINES_PER_S - 1 / LINES_PER_S))
        if meter.wait_s(now) > 0:
            self._unwritten[kind] = self._unwritten.get(kind, 0) + 1
            return
        meter.spend(1 / LINES_PER_S, now=now)
        more = self._unwritten.pop(kind, 0)
        log.info("%s%s", line, f" ({more} more like it were not written)" if more else "")
