"""What a second in flight costs where a server gives few credits. Pure.

A server lets a device have so many frames in flight. Where a round trip takes as long as there is between so many frames, as
over a satellite, credits are what is scarce, not the link: a frame that has little to win takes the credit of one that has
much, and is refused its own. So a frame pays as it does for the link's queue (drift plus penalty, Neely 2010): the share of
the credits that is taken, times the share that would be if every frame were sent.
"""

from __future__ import annotations

PRICE_OF_CREDIT = 0.05
"""Utility that it costs to take the last credit where frames take all of them. Over a satellite half and twice of it are as good;
no setting of the tuning ones has credits that are scarce."""


def crowding(taken: int, given: int, period_s: float | None) -> float:
    """What each second in flight costs, in utility, where `taken` of the credits `given` are; 0 where no period is known."""
    if not taken or not period_s:
        return 0.0
    return PRICE_OF_CREDIT * taken / (given * given * period_s)
