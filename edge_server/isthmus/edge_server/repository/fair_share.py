"""Whose batch runs next, where several tails share the workers. Pure: no clock, no IO, no randomness.

The tail that has had the least of the workers' time goes first; one that was idle does not save up what it did not use
(start-time fair queueing, Goyal, Vin and Cheng 1996). Between two tails that always have work, the time that they get
differs by at most one batch. A batch that takes far longer than usual does not keep its worker for ever: a tail that hangs
costs the others a moment, not the seconds until its thread is given up.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

OVERDUE_TIMES, OVERDUE_S = 4.0, 0.25
"""A batch that takes longer than so many times the usual, and than this, runs on without a worker: a hiccup of the machine
is shorter, and devices wait no longer for an answer."""


class _Held(NamedTuple):
    tail: bytes
    ends_s: float
    """When its batch should end."""
    lets_go_s: float
    """When its worker is given to others at the latest."""


class FairShare:
    """The workers of one server. A tail is known by its bundle's hash."""

    def __init__(self, workers: int) -> None:
        """So many batches run at a time."""
        self.workers = workers
        self._held: list[_Held] = []
        self._attained_s: dict[bytes, float] = {}
        self._turns: dict[bytes, int] = {}
        """The number of each one's last turn: equals take turns."""
        self._turn, self._floor_s = 0, 0.0
        """What the tail had attained whose turn came last: nobody who waits has less, but for what was not used."""

    @property
    def opens_at(self) -> float:
        """When there is a worker for another batch, whether those that run end or not; minus infinity: now."""
        if len(self._held) < self.workers:
            return -math.inf
        return sorted((held.lets_go_s for held in self._held), reverse=True)[self.workers - 1]

    def free_s(self, now: float) -> float:
        """When a worker is expected to be free."""
        ends = sorted((held.ends_s for held in self._held if held.lets_go_s > now), reverse=True)
        return now if len(ends) < self.workers else max(now, ends[self.workers - 1])

    def first(self, waiting: Iterable[bytes]) -> bytes:
        """Who of these goes next; among equals, whose turn was longest ago."""
        return min(waiting, key=lambda tail: (self._tag_s(tail), self._turns.get(tail, 0)))

    def begin(self, tail: bytes, usual_s: float, *, now: float) -> None:
        """A batch begins that usually takes so long."""
        self._turn += 1
        self._turns[tail] = self._turn
        self._floor_s = self._attained_s[tail] = self._tag_s(tail)
        self._held.append(_Held(tail, now + usual_s, now + max(OVERDUE_S, OVERDUE_TIMES * usual_s)))

    def end(self, tail: bytes, took_s: float) -> None:
        """It ended, after so long on its worker."""
        held = next((held for held in self._held if held.tail == tail), None)
        if held is not None:
            self._held.remove(held)
            self._attained_s[tail] += took_s

    def forget(self, tail: bytes) -> None:
        """The tail is gone."""
        self._held = [held for held in self._held if held.tail != tail]
        self._attained_s.pop(tail, None)
        self._turns.pop(tail, None)

    def _tag_s(self, tail: bytes) -> float:
        return max(self._attained_s.get(tail, 0.0), self._floor_s)
