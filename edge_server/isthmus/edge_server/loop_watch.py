"""Watches the running event loop for `LoopLag`: when its rounds begin, and whether the machine held it up.

A round that handled a message is followed by one that waits for nothing, so that its beginning is seen; a tick that is
late tells of a stall in between. A server to which nobody speaks is not woken.
"""

from __future__ import annotations

import asyncio
import time

from isthmus.edge_server.shedding import LoopLag

TICK_S = 0.01
"""A stall that is shorter goes unnoticed; a hundred ticks a second cost 0.2 % of a core."""
NOBODY = -1
"""A count of messages that none is like: the round that is asked for with it is always watched."""


class LoopWatch:
    """One loop's. To be asked once for each message, when it is handled."""

    def __init__(self) -> None:
        self._lag = LoopLag()
        self._watching = self._ticking = False
        self._heard = 0

    def came_s(self) -> float:
        """When the message that is handled now came, as far as that can be known."""
        now = time.monotonic()
        self._heard += 1
        self._watch(NOBODY)
        if not self._ticking:
            self._tick(now)
        return self._lag.came_s(now)

    def _watch(self, heard: int) -> None:
        """See when the next round begins; it is the last if nobody has spoken since `heard`."""
        if not self._watching:
            self._watching = True
            asyncio.get_running_loop().call_soon(self._round, heard)

    def _round(self, heard: int) -> None:
        self._watching = False
        if heard == self._heard:
            self._lag.rest()
        else:
            self._lag.look(time.monotonic())
            self._watch(self._heard)

    def _tick(self, now: float) -> None:
        self._ticking = True
        asyncio.get_running_loop().call_later(TICK_S, self._on_tick, now + TICK_S, self._heard)

    def _on_tick(self, due_s: float, heard: int) -> None:
        now, self._ticking = time.monotonic(), False
        if now > due_s + TICK_S:
            self._lag.look(due_s)
            self._watch(NOBODY)
        if heard != self._heard:
            self._tick(now)
