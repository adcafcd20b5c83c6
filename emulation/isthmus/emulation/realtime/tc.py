"""The kernel's own shapers, set to a new rate every 100 ms: `tbf` for the rate, `netem` for delay and loss. Linux.

tbf goes dead on a trace that changes fast unless three things are done (an error of 60 to 98 % without, 0.5 % with):
packets are not merged on the sender (GSO: a merged one may be larger than the bucket of a lower rate); a dummy packet
wakes it after a rise from an outage's floor (it sleeps by the old rate); and since each change fills its bucket, the
bucket is small and its refill is taken off the rate.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import time
from collections.abc import Iterator
from dataclasses import dataclass

from isthmus.emulation.link import LinkOptions, Outage, ShapedLink
from isthmus.emulation.realtime.child import STOP_FD, Announce
from isthmus.emulation.realtime.lag import Lags, LagSummary
from isthmus.emulation.realtime.namespaces import LINK
from isthmus.emulation.traces import AnyTrace, Direction
from isthmus.proto.errors import IsthmusError

STEP_S = 0.1
"""Faster changes cost more accuracy than they bring."""
FLOOR_BPS = 1000.0
"""What an outage that holds is for the kernel, which knows no rate of 0."""
_LONGEST_S = 10.0
"""Conditions that stay the same are set again after this time."""
_SLOW_BPS = 125_000.0
"""Below it, a bucket is many milliseconds: its refill is not taken off, and a rise from it needs waking."""
_BURST_S, _LEAST_BURST_BYTES = 1e-3, 1600
"""What a bucket holds leaves at once: 1 ms of the rate, but a whole frame, or nothing would ever leave."""
_FRAME_BYTES, _PACKET_BYTES = 1514, 1500
"""The largest Ethernet frame, which the kernel counts, and the IP packet in it, which traces count."""


@dataclass(frozen=True)
class LinkConditions:
    """One direction of a link from now on."""

    rate_Bps: float
    """The rate of whole IP packets."""
    delay_s: float = 0.0
    loss: float = 0.0

    def like(self, other: LinkConditions) -> bool:
        """Whether the difference is not worth a call of the kernel."""
        same = (self.delay_s, self.loss) == (other.delay_s, other.loss)
        return same and math.isclose(self.rate_Bps, other.rate_Bps, rel_tol=1e-3)


class Qdisc:
    """One direction's queueing discipline as lines for `tc -batch`. Pure."""

    def __init__(self, *, queue_bytes: float, netem: bool, outage: Outage = "hold") -> None:
        self._queue_bytes = max(2 * _FRAME_BYTES, queue_bytes)
        self._netem = netem
        self._drops = outage == "drop"
        self._rate_Bps = math.inf

    def apply(self, conditions: LinkConditions, hold_s: float) -> tuple[list[str], bool]:
        """The lines that bring it to `conditions`, for so long, and whether it must then be woken by a packet."""
        rate_Bps = max(FLOOR_BPS, conditions.rate_Bps)
        wake = self._rate_Bps < _SLOW_BPS and rate_Bps > self._rate_Bps
        lines = []
        if self._netem:
            loss = 1.0 if self._drops and conditions.rate_Bps == 0 else conditions.loss
            lines.append(
                f"qdisc replace dev {LINK} root handle 1: netem delay {round(conditions.delay_s * 1e6)}us "
                f"loss {loss:.4%} limit 100000"
            )
        lines.append(f"qdisc replace dev {LINK} {'parent 1:1 handle 10:' if self._netem else 'root handle 1:'} ")
        lines[-1] += self._tbf(rate_Bps, hold_s)
        self._rate_Bps = rate_Bps
        return lines, wake

    def _tbf(self, rate_Bps: float, hold_s: float) -> str:
        burst_bytes = max(_LEAST_BURST_BYTES, rate_Bps * _BURST_S)
        if rate_Bps >= _SLOW_BPS:
            rate_Bps -= burst_bytes / hold_s
        frames_Bps = rate_Bps * _FRAME_BYTES / _PACKET_BYTES  # it counts Ethernet headers too
        return f"tbf rate {round(8 * frames_Bps)}bit burst {round(burst_bytes)} limit {round(self._queue_bytes)}"


def schedule(
    trace: AnyTrace, direction: Direction, options: LinkOptions
) -> Iterator[tuple[float, LinkConditions, float]]:
    """Endless rows: when (s from the start) conditions begin, the conditions, and how long they hold (at most 10 s)."""
    link = ShapedLink(trace, direction, options)

    def at(step: int) -> LinkConditions:
        at_s = step * STEP_S
        rate_Bps = (link.carried(at_s + STEP_S) - link.carried(at_s)) / STEP_S
        return LinkConditions(rate_Bps, link.delay_s(at_s), link.loss(at_s))

    begin, now = 0, at(0)
    while True:
        end = begin + 1
        while (following := at(end)).like(now) and (end - begin) * STEP_S < _LONGEST_S:
            end += 1
        yield begin * STEP_S, now, (end - begin) * STEP_S
        begin, now = end, following


@dataclass(frozen=True)
class Controls:
    """Descriptors of one side: what a `tc -batch` there reads and says, and a UDP socket connected to the other side's."""

    orders: int
    said: int
    kick: int


@dataclass(frozen=True)
class TcShaper:
    """The job: play `trace` on a link between two sides."""

    near: Controls
    far: Controls
    trace: AnyTrace
    options: LinkOptions
    netem: bool

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What the job's process must be given."""
        return tuple(number for side in (self.near, self.far) for number in (side.orders, side.said, side.kick))

    def run(self, ready: Announce) -> LagSummary:
        """See `child.ChildJob`; ready when the trace begins, which it announces as `began_s` on CLOCK_MONOTONIC."""
        lags = Lags()
        ways = [_Way(self, "up", self.near), _Way(self, "down", self.far)]
        began_s = time.monotonic()
        for way in ways:
            way.step()
        ready({"began_s": began_s})
        while True:
            way = min(ways, key=lambda way: way.due_s)
            stop, _, _ = select.select([STOP_FD], [], [], max(0.0, began_s + way.due_s - time.monotonic()))
            if stop:
                return lags.summary()
            lags.add(time.monotonic() - began_s - way.due_s)
            way.step()


class _Way:
    """One direction of a TcShaper at work."""

    def __init__(self, job: TcShaper, direction: Direction, controls: Controls) -> None:
        options = job.options
        self._schedule = schedule(job.trace, direction, options)
        self._qdisc = Qdisc(queue_bytes=options.queue_bytes, netem=job.netem, outage=options.outage)
        self._controls = controls
        self.due_s = 0.0

    def step(self) -> None:
        """Bring the kernel to what is due now."""
        at_s, conditions, hold_s = next(self._schedule)
        lines, wake = self._qdisc.apply(conditions, hold_s)
        self._order(lines)
        if wake:
            with contextlib.suppress(OSError):
                os.write(self._controls.kick, b"\0")
        self.due_s = at_s + hold_s

    def _order(self, lines: list[str]) -> None:
        """Returns when they have taken effect, for a packet that wakes the link must not come before its new rate.

        `tc` shows a line for each discipline when it gets to the last order; that it has ended shows too.
        """
        os.write(self._controls.orders, "".join(f"{line}\n" for line in [*lines, f"qdisc show dev {LINK}"]).encode())
        shown = 0
        while shown < len(lines):
            said = os.read(self._controls.said, 65_536)
            if not said:
                raise IsthmusError("tc: ended while it was shaping; its own message stands above")
            shown += said.count(b"\n")
