"""A shaper between two TUN devices: every IP packet goes through the sans-IO link, which may lose it. Linux.

One loop around `select`, whose timeout is good to microseconds where asyncio's is rounded up to a millisecond. A
packet is written when `ShapedLink` says that it arrives; how late that was is recorded and never added to the schedule.
The link's bytes are those of IP packets, headers included, as in Mahimahi.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections import deque
from dataclasses import dataclass

from isthmus.emulation.link import LinkOptions, ShapedLink
from isthmus.emulation.realtime.child import STOP_FD, Announce
from isthmus.emulation.realtime.lag import Lags, LagSummary
from isthmus.emulation.traces import AnyTrace

_AT_ONCE = 64
"""Packets read from one side before the other has its turn."""
_LARGEST_PACKET = 65_536


class _Way:
    """One direction, from the packets of one descriptor to another's."""

    def __init__(self, link: ShapedLink, source: int, sink: int, lags: Lags) -> None:
        self.source = source
        self._link, self._sink, self._lags = link, sink, lags
        self._flying: deque[tuple[float, bytes]] = deque()

    @property
    def due_at(self) -> float | None:
        """When the next packet arrives."""
        return self._flying[0][0] if self._flying else None

    def take(self, now: float) -> None:
        """Read what has come."""
        with contextlib.suppress(BlockingIOError):
            for _ in range(_AT_ONCE):
                packet = os.read(self.source, _LARGEST_PACKET)
                arrives_s = self._link.send(len(packet), now)
                if arrives_s is not None:
                    self._flying.append((arrives_s, packet))

    def deliver(self, now: float) -> None:
        """Write what is due."""
        while self._flying and self._flying[0][0] <= now:
            due_s, packet = self._flying.popleft()
            self._lags.add(now - due_s)
            with contextlib.suppress(OSError):  # a full device loses a packet, as a real one does
                os.write(self._sink, packet)


@dataclass(frozen=True)
class TunShaper:
    """The job: shape between the packets of `near` (the device's side) and `far`."""

    near: int
    far: int
    trace: AnyTrace
    options: LinkOptions

    def run(self, ready: Announce) -> LagSummary:
        """See `child.ChildJob`; ready when the trace begins, which it announces as `began_s` on CLOCK_MONOTONIC."""
        lags = Lags()
        up, down = (ShapedLink(self.trace, direction, self.options) for direction in ("up", "down"))
        ways = {self.near: _Way(up, self.near, self.far, lags), self.far: _Way(down, self.far, self.near, lags)}
        began_s = time.monotonic()
        ready({"began_s": began_s})
        while True:
            due_s = min((way.due_at for way in ways.values() if way.due_at is not None), default=None)
            wait_s = None if due_s is None else max(0.0, began_s + due_s - time.monotonic())
            readable, _, _ = select.select([STOP_FD, *ways], [], [], wait_s)
            now = time.monotonic() - began_s
            for source in readable:
                if source == STOP_FD:
                    return lags.summary()
                ways[source].take(now)
            for way in ways.values():
                way.deliver(now)
