"""One stream between a device and a server over two shaped links: in order, and with what is lost sent again.

A link that loses a message stands for a network under TCP: the receiver waits for it, and the sender's timer, doubled
each time, sends it again. That is TCP's delay after loss; its congestion control is not modelled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from isthmus.emulation.link import ShapedLink
from isthmus.emulation.virtual.timeline import Timeline

FRAMING_BYTES = 30
"""What protobuf, gRPC and HTTP/2 add to a message's payload."""
RETRANSMIT_S = 0.2
"""The shortest retransmission timer (Linux's TCP_RTO_MIN); otherwise it is two round trips."""

Deliver = Callable[[float, Any], None]


class Pipe:
    """One direction. `deliver(now, message)` is called once for each message, in the order of `send`."""

    def __init__(self, timeline: Timeline, link: ShapedLink, deliver: Deliver) -> None:
        self._timeline, self._link, self._deliver = timeline, link, deliver
        self._sent = 0
        self._next = 1
        self._early: dict[int, Any] = {}
        self.open = True
        """Set to False to forget whatever is under way."""

    def send(self, message: Any, payload_bytes: int, now: float) -> None:
        """Write a message whose payload has this size."""
        self._sent += 1
        self._carry(now, self._sent, message, payload_bytes + FRAMING_BYTES, 1)

    def _carry(self, now: float, number: int, message: Any, size_bytes: int, attempt: int) -> None:
        if not self.open:
            return
        arrives_s = self._link.send(size_bytes, now)
        if arrives_s is not None:
            self._timeline.at(arrives_s, self._arrive, number, message)
            return
        timer_s = max(RETRANSMIT_S, 4 * self._link.delay_s(now)) * 2 ** (attempt - 1)
        self._timeline.at(now + timer_s, self._carry, number, message, size_bytes, attempt + 1)

    def _arrive(self, now: float, number: int, message: Any) -> None:
        if number != self._next:
            self._early[number] = message
            return
        while self.open:
            self._next += 1
            self._deliver(now, message)
            if self._next not in self._early:
                return
            message = self._early.pop(self._next)
