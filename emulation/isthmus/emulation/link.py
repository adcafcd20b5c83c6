"""One direction of an emulated link: a FIFO that drains at the trace's rate, then a delay. Sans-IO.

The one rule: bytes leave in order, each when the trace's integral says so. `position` counts in the bytes that the
trace can have carried, so that a transfer's end is one look-up: `when(max(carried(now), position) + size)`.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from isthmus.emulation import capacity
from isthmus.emulation.timetable import Timetable
from isthmus.emulation.traces import PACKET_BYTES, AnyTrace, Direction, Floats, Trace
from isthmus.proto.errors import ConfigError

Outage = Literal["hold", "drop"]
_WINDOW_S = 0.5
"""The time that a rate is averaged over: long enough that a list of packets shows one."""


@dataclass(frozen=True)
class Bursts:
    """Loss in bursts: the link is in a good state for `good_s` in the mean, then in a bad one for `bad_s`, and so on.

    Gilbert's and Elliott's two-state model (Bell System Technical Journal 39, 1960, and 42, 1963) in continuous time, so
    that the bursts do not depend on what is sent. `loss_bad` is a packet's chance to be lost in the bad state; in the
    good one it is the trace's.
    """

    good_s: float
    bad_s: float
    loss_bad: float = 1.0

    def __post_init__(self) -> None:
        if not (self.good_s > 0 and self.bad_s > 0 and 0 <= self.loss_bad <= 1):
            raise ConfigError(f"bursts: {self}: both times must be above 0, and loss_bad from 0 to 1")


@dataclass(frozen=True)
class LinkOptions:
    """What a trace does not say. The same for both directions."""

    start_s: float = 0.0
    """Where in the trace the link begins."""
    loop: bool = True
    queue_bytes: float = float("inf")
    """A message that would make the queue longer than this is dropped."""
    outage: Outage = "hold"
    """What an outage (rate 0) does to messages: they wait for its end, or those in and before the queue are lost."""
    jitter_s: float = 0.0
    """Standard deviation of a half-normal delay on top of the trace's."""
    bursts: Bursts | None = None
    """Loss in bursts, on top of the trace's."""
    lossless: bool = False
    """Ignore all loss."""
    seed: int = 0


class ShapedLink:
    """One direction of `trace`. Times are seconds on the caller's clock, which reads 0 when the link begins.

    A `now` earlier than one already given is taken as that one. Raises DataError when the trace does not know the rate.
    """

    def __init__(
        self,
        trace: AnyTrace,
        direction: Direction,
        options: LinkOptions = LinkOptions(),
        tables: LinkTables | None = None,
    ):
        """`tables` are those of this trace and direction, where many links share them."""
        tables = tables or LinkTables.of(trace, direction, loop=options.loop)
        self._capacity, self._delay, self._loss = tables.capacity, tables.delay, tables.loss
        self._options = options
        self._random = random.Random(f"{options.seed}/{direction}")
        self._burst = _BurstPath(options, direction) if options.bursts and not options.lossless else None
        self._lossless = options.lossless or (self._burst is None and not options.jitter_s and self._loss.is_zero)
        self._now = options.start_s  # on the trace's own clock, as are all private times
        self._position = self._capacity.carried(options.start_s)
        self._delivered = 0.0
        self.dropped = 0
        """Messages that the full queue or an outage cost."""
        self.lost = 0
        """Messages of which random loss cost a packet."""

    def send(self, size_bytes: int, now: float) -> float | None:
        """When the last byte of a message sent at `now` arrives (infinity: never); None when it is lost."""
        options, start = self._options, self._advance(now)
        ahead = max(start, self._position)
        if ahead - start + size_bytes > options.queue_bytes or (
            options.outage == "drop" and self._cut_off(ahead + size_bytes)
        ):
            self.dropped += 1
            return None
        self._position = ahead + size_bytes
        departed = max(self._now, self._capacity.when(self._position))
        if departed == math.inf:
            return math.inf
        if not self._lossless and self._loses(departed, size_bytes):
            self.lost += 1
            return None
        arrival = departed + self._delay.at(departed) / 2
        if options.jitter_s:
            arrival += abs(self._random.gauss(0.0, options.jitter_s))
        self._delivered = max(self._delivered, arrival)  # first in, first out: a shorter delay does not overtake
        return self._delivered - options.start_s

    def backlog_bytes(self, now: float) -> float:
        """Bytes that have been sent and have not yet left the queue at `now`."""
        return max(0.0, self._position - self._capacity.carried(max(self._now, now + self._options.start_s)))

    def drained_at(self, left_bytes: float, now: float) -> float:
        """When the backlog will be down to `left_bytes`, if nothing more is sent; not before `now`."""
        self._advance(now)
        return max(self._now, self._capacity.when(self._position - left_bytes)) - self._options.start_s

    def rate_Bps(self, now: float) -> float:
        """Bytes/s around `now`, averaged over half a second."""
        middle = now + self._options.start_s
        begin = max(0.0, middle - _WINDOW_S / 2)
        return (self._capacity.carried(begin + _WINDOW_S) - self._capacity.carried(begin)) / _WINDOW_S

    def delay_s(self, now: float) -> float:
        """The one-way delay at `now`, without queue and jitter."""
        return self._delay.at(now + self._options.start_s) / 2

    def carried(self, now: float) -> float:
        """Bytes that the link can have carried by `now`, whatever was sent: the position of a message sent to it idle."""
        return self._capacity.carried(now + self._options.start_s)

    def timetable(self, until_s: float) -> Timetable:
        """What the link can carry, and how long it takes, from its beginning to `until_s` or later."""
        start_s = self._options.start_s
        times, bytes_ = self._capacity.corners(start_s, start_s + until_s)
        from_s, delays_s = self._delay.steps(start_s, start_s + until_s)
        return Timetable(times - start_s, bytes_, from_s - start_s, delays_s / 2)

    def when(self, position: float) -> float:
        """The earliest time by which the link can have carried so much, in positions as `carried` counts them."""
        return self._capacity.when(position) - self._options.start_s

    def least_delay_s(self, begin_s: float, end_s: float) -> float:
        """The least one-way delay between two times, without queue and jitter."""
        return self._delay.least(begin_s + self._options.start_s, end_s + self._options.start_s) / 2

    def loss(self, now: float) -> float:
        """A packet's chance to be lost at `now`; asked, like everything here, for times that do not decrease."""
        return 0.0 if self._options.lossless else self._loss_at(now + self._options.start_s)

    def _advance(self, now: float) -> float:
        self._now = max(self._now, now + self._options.start_s)
        return self._capacity.carried(self._now)

    def _cut_off(self, end: float) -> bool:
        """Whether an outage loses the message that ends at this position; it has used the link up to the outage then."""
        outage = self._capacity.outage_after(self._now)
        if outage is None or self._capacity.carried(outage) >= end:
            return False
        self._position = max(self._position, self._capacity.carried(outage))
        return True

    def _loss_at(self, departed: float) -> float:
        loss = self._loss.at(departed)
        if self._burst is not None and self._burst.bad_at(departed):
            loss = max(loss, self._burst.loss_bad)
        return loss

    def _loses(self, departed: float, size_bytes: int) -> bool:
        """Whether one of a message's packets is lost."""
        packets = math.ceil(size_bytes / PACKET_BYTES)
        return self._random.random() >= (1.0 - self._loss_at(departed)) ** packets


class _BurstPath:
    """When the link is in its bad state; asked for times that do not decrease."""

    def __init__(self, options: LinkOptions, direction: Direction) -> None:
        assert options.bursts is not None
        self.loss_bad = options.bursts.loss_bad
        self._mean_s = {False: options.bursts.good_s, True: options.bursts.bad_s}
        self._random = random.Random(f"{options.seed}/{direction}/bursts")
        self._bad = False
        self._until_s = options.start_s + self._random.expovariate(1 / self._mean_s[False])

    def bad_at(self, time_s: float) -> bool:
        while time_s >= self._until_s:
            self._bad = not self._bad
            self._until_s += self._random.expovariate(1 / self._mean_s[self._bad])
        return self._bad


class _Column:
    """A column of a trace that is looked up by time; unknown values hold the last known one, or else 0."""

    def __init__(self, time_s: Sequence[float], values: Sequence[float], length_s: float | None):
        self._time_s = time_s
        self._values = values
        self._length_s = length_s

    @classmethod
    def of(cls, trace: AnyTrace, values: Floats | Sequence[float], loop: bool) -> _Column:
        held = _held(np.asarray(values, dtype=np.float64)).tolist()
        if len(set(held)) == 1:
            return cls([0.0], held[:1], None)
        assert isinstance(trace, Trace)
        return cls(trace.time_s.tolist(), held, trace.length_s if loop else None)

    @property
    def is_zero(self) -> bool:
        return not any(self._values)

    def at(self, time_s: float) -> float:
        if len(self._values) == 1:
            return self._values[0]
        within = time_s % self._length_s if self._length_s else time_s
        return self._values[max(0, bisect_right(self._time_s, within) - 1)]

    def steps(self, begin_s: float, end_s: float) -> tuple[Floats, Floats]:
        """The times from `begin_s` or before to `end_s` at which the value changes, and what it is from then on."""
        times, values = np.array(self._time_s, np.float64), np.array(self._values, np.float64)
        if not self._length_s:
            return times[: len(values)], values
        cycles = np.arange(math.floor(begin_s / self._length_s), math.floor(end_s / self._length_s) + 1)
        return (times + cycles[:, None] * self._length_s).ravel(), np.tile(values, len(cycles))

    def least(self, begin_s: float, end_s: float) -> float:
        cycle_s = self._length_s or math.inf
        if end_s - begin_s >= cycle_s:
            return min(self._values)
        first, last = (max(0, bisect_right(self._time_s, t % cycle_s) - 1) for t in (begin_s, end_s))
        if begin_s // cycle_s == end_s // cycle_s:
            return min(self._values[first : last + 1])
        return min(*self._values[first:], *self._values[: last + 1])


@dataclass(frozen=True)
class LinkTables:
    """One direction of a trace, laid out for look-up; nothing in it changes, so any number of links may share it."""

    capacity: capacity.Capacity
    delay: _Column
    """The round trip."""
    loss: _Column

    @classmethod
    def of(cls, trace: AnyTrace, direction: Direction, *, loop: bool = True) -> LinkTables:
        """Lay out a direction. Raises DataError when the trace does not know its rate."""
        rtt_s, loss = (trace.rtt_s, trace.loss) if isinstance(trace, Trace) else ([trace.rtt_s], [0.0])
        carrying = capacity.of(trace, direction, loop=loop)
        return cls(carrying, _Column.of(trace, rtt_s, loop), _Column.of(trace, loss, loop))


def _held(values: Floats) -> Floats:
    known = np.flatnonzero(~np.isnan(values))
    if not len(known):
        return np.zeros_like(values)
    last = np.maximum(np.searchsorted(known, np.arange(len(values)), side="right") - 1, 0)
    return values[known[last]]
