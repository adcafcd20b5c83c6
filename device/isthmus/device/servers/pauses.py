"""How long a device leaves a server alone that it lost or could not reach. Pure: chance is an argument.

A pause doubles from one attempt to the next, and each is longer or shorter at random by up to a half, so that the devices of
a server that comes back do not all come at once.
"""

from __future__ import annotations

import random

FIRST_S, LONGEST_S = 0.1, 1.0
"""First and longest pause between two attempts, for a device without any server."""
UNHURRIED_S = (1.0, 5.0)
"""The same for one that another server serves: nothing waits for this one but the next loss."""
STEADY_S = 0.5
"""After a stream that lasted so long the next attempt is a first one; sooner, a server that hangs up at once is not pressed."""
SHUN_S = (5.0, 60.0)
"""First and longest pause for one that takes frames and answers none: a tail that hangs is given up by its server after 5 s."""


class Pauses:
    """The pauses between attempts at one server."""

    def __init__(self, chance: random.Random) -> None:
        self._chance, self._pause_s, self._shun_s = chance, FIRST_S, SHUN_S[0]

    def next_s(self, lasted_s: float | None, *, served: bool) -> float:
        """Seconds until the next attempt, after a stream of `lasted_s`; None: it never came about. `served` by another."""
        if lasted_s is not None and lasted_s >= STEADY_S:
            self._pause_s = FIRST_S
        first_s, longest_s = UNHURRIED_S if served else (FIRST_S, LONGEST_S)
        pause_s = min(max(self._pause_s, first_s), longest_s)
        self._pause_s = min(2 * pause_s, longest_s)
        return pause_s * self._chance.uniform(0.5, 1.5)

    def soon_s(self) -> float:
        """Seconds until an attempt that cannot wait, since no other server is left; those after it are short again."""
        self._pause_s = FIRST_S
        return FIRST_S * self._chance.random()

    def shun_s(self) -> float:
        """Seconds for which a server that answers nothing gets nothing."""
        shun_s, self._shun_s = self._shun_s, min(2 * self._shun_s, SHUN_S[1])
        return shun_s * self._chance.uniform(0.5, 1.5)

    def answers(self) -> None:
        """It answers: the next such pause is a first one."""
        self._shun_s = SHUN_S[0]
