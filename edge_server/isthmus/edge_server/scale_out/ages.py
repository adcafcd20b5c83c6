"""Streams that have been open for long are asked to come again, so that a balancer can put them elsewhere. Pure: no clock.

A stream lasts as long as its device, and a balancer decides once for each: after a restart of one server all of them are on
the others, and would stay there. One that is of age is told `Drain`. It is closed once nothing of it is left inside, and not
before a while, since frames may be on their way that were sent before that was heard.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from isthmus.edge_server.shedding import GOLDEN
from isthmus.proto.machine import earliest

SPREAD = 0.2
"""Ages differ by so much, up and down: streams that came together must not all go together."""
LINGER_S = 0.5
"""Longer than a frame is on its way up any link that is worth using; the device answers by itself meanwhile."""


class Ages:
    """When each stream is of age, and which of those that are may be closed."""

    def __init__(self, most_s: float = math.inf, *, grace_s: float = 0.0) -> None:
        """`most_s` is the age at which a stream goes, give or take a fifth, infinity for never; frames that are inside then
        have `grace_s`.
        """
        self._most_s, self.grace_s = most_s, grace_s
        self._of_age_s: dict[int, float] = {}
        self._lingers_s: dict[int, float] = {}
        """Those that were told, and until when each stays at least."""
        self._ends_s: dict[int, float] = {}
        """Those that have lingered, and until when each stays at most."""
        self.due_at: float | None = None
        """When to ask again who is of age, or is to be closed."""

    def enter(self, stream: int, *, now: float) -> None:
        """A stream was welcomed."""
        if self._most_s < math.inf:
            self._of_age_s[stream] = now + self._most_s * (1 - SPREAD + 2 * SPREAD * (GOLDEN * stream % 1))
            self._plan()

    def leave(self, stream: int) -> None:
        """A stream has ended."""
        if self._most_s < math.inf:
            for known in (self._of_age_s, self._lingers_s, self._ends_s):
                known.pop(stream, None)
            self._plan()

    def grown(self, now: float) -> list[int]:
        """The streams that are of age now, to be told so; each is named once."""
        grown = [stream for stream, at_s in self._of_age_s.items() if at_s <= now]
        for stream in grown:
            del self._of_age_s[stream]
            self._lingers_s[stream] = now + LINGER_S
        for stream in [stream for stream, until_s in self._lingers_s.items() if until_s <= now]:
            self._ends_s[stream] = self._lingers_s.pop(stream) - LINGER_S + max(LINGER_S, self.grace_s)
        self._plan()
        return grown

    def closing(self, inside: Callable[[int], int], now: float) -> list[int]:
        """The streams to close now: none of their frames is `inside` any more, or the grace is over."""
        return [stream for stream, end_s in self._ends_s.items() if end_s <= now or inside(stream) == 0]

    def _plan(self) -> None:
        self.due_at = earliest(*self._of_age_s.values(), *self._lingers_s.values(), *self._ends_s.values())
