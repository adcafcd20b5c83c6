"""How many bytes a link can have carried by a time, and by when it has carried so many. Pure arithmetic on tables.

`RateCapacity` is the integral of a rate trace; `PacketCapacity` the staircase of Mahimahi's departures. Both are asked
the same two questions, each answered by one binary search, never by ticking.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from isthmus.emulation.traces import PACKET_BYTES, AnyTrace, Direction, Trace
from isthmus.proto.errors import DataError


class Capacity(Protocol):
    """A link's carrying power from time 0 on, in seconds of the trace."""

    def carried(self, time_s: float) -> float:
        """Bytes that can have left by `time_s`, counted from 0."""

    def when(self, total_bytes: float) -> float:
        """The earliest time by which `total_bytes` can have left; infinity when they never can."""

    def outage_after(self, time_s: float) -> float | None:
        """When the first outage (rate 0) at or after `time_s` begins; None when there is none."""

    def corners(self, begin_s: float, end_s: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Times from `begin_s` or before to `end_s` or after, and what `carried` is there; between them it is linear."""


def of(trace: AnyTrace, direction: Direction, *, loop: bool = True) -> Capacity:
    """The capacity of one direction of `trace`; raises DataError when the trace does not know it."""
    if not isinstance(trace, Trace):
        return PacketCapacity(trace.departures_ms(direction).tolist())
    rates = trace.rate_Bps(direction).tolist()
    if loop and not any(rates):
        raise DataError(f"{trace.name}: the {direction} rate is 0 throughout; nothing would ever arrive")
    return RateCapacity(trace.time_s.tolist(), rates, trace.length_s, loop=loop)


class RateCapacity:
    """The integral of a rate that holds from each time to the next. Not looped, the last rate holds for ever."""

    def __init__(self, time_s: Sequence[float], rate_Bps: Sequence[float], length_s: float, *, loop: bool = True):
        self._time_s = list(time_s)
        self._rate_Bps = list(rate_Bps)
        lengths = np.diff(np.append(time_s, length_s))
        self._bytes: list[float] = [0.0, *np.cumsum(np.array(rate_Bps) * lengths).tolist()]
        self._length_s = length_s
        self._loop = loop
        self._outages = [t for i, t in enumerate(self._time_s) if rate_Bps[i] == 0 and (i == 0 or rate_Bps[i - 1] > 0)]

    def carried(self, time_s: float) -> float:
        """See `Capacity`."""
        cycles, within = divmod(time_s, self._length_s) if self._loop else (0.0, time_s)
        row = bisect_right(self._time_s, within) - 1
        return cycles * self._bytes[-1] + self._bytes[row] + (within - self._time_s[row]) * self._rate_Bps[row]

    def when(self, total_bytes: float) -> float:
        """See `Capacity`."""
        if total_bytes <= 0:
            return 0.0
        cycle_bytes = self._bytes[-1]
        cycles = math.ceil(total_bytes / cycle_bytes) - 1 if self._loop else 0
        within = total_bytes - cycles * cycle_bytes
        row = min(bisect_left(self._bytes, within), len(self._rate_Bps)) - 1  # the row in which they become complete
        if self._rate_Bps[row] == 0:
            return math.inf  # only past the end of a trace that does not loop
        return cycles * self._length_s + self._time_s[row] + (within - self._bytes[row]) / self._rate_Bps[row]

    def outage_after(self, time_s: float) -> float | None:
        """See `Capacity`. An outage that has already begun at `time_s` began at `time_s`."""
        if not self._outages:
            return None
        cycles, within = divmod(time_s, self._length_s) if self._loop else (0.0, time_s)
        if self._rate_Bps[bisect_right(self._time_s, within) - 1] == 0:
            return time_s
        after = bisect_left(self._outages, within)
        if after < len(self._outages):
            return cycles * self._length_s + self._outages[after]
        return (cycles + 1) * self._length_s + self._outages[0] if self._loop else None

    def corners(self, begin_s: float, end_s: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """See `Capacity`."""
        times, bytes_ = np.array(self._time_s), np.array(self._bytes[:-1])
        if not self._loop:
            last_s = max(end_s, self._length_s)
            return np.append(times, last_s), np.append(bytes_, self.carried(last_s))
        cycles = np.arange(math.floor(begin_s / self._length_s), math.floor(end_s / self._length_s) + 1)
        last_s = (cycles[-1] + 1) * self._length_s
        return (
            np.append((times + cycles[:, None] * self._length_s).ravel(), last_s),
            np.append((bytes_ + cycles[:, None] * self._bytes[-1]).ravel(), (cycles[-1] + 1) * self._bytes[-1]),
        )


class PacketCapacity:
    """Mahimahi's staircase: each departure carries up to 1500 bytes, and what nobody uses is gone. Loops always.

    A packet that arrives in the millisecond of a departure has missed it, and packets smaller than a departure share
    it, as in mahimahi's `link_queue.cc`.
    """

    def __init__(self, departures_ms: Sequence[int]):
        self._departures_ms = list(departures_ms)
        self._length_ms = self._departures_ms[-1]

    def carried(self, time_s: float) -> float:
        """See `Capacity`."""
        cycles, within = divmod(math.floor(time_s * 1e3 + 1e-6), self._length_ms)  # 1 ns of grace for float sums
        gone = cycles * len(self._departures_ms) + bisect_right(self._departures_ms, within)
        return float(gone * PACKET_BYTES)

    def when(self, total_bytes: float) -> float:
        """See `Capacity`."""
        if total_bytes <= 0:
            return 0.0
        cycles, entry = divmod(math.ceil(total_bytes / PACKET_BYTES) - 1, len(self._departures_ms))
        return (cycles * self._length_ms + self._departures_ms[entry]) / 1e3

    def outage_after(self, time_s: float) -> float | None:
        """See `Capacity`: a list of departures has gaps, but says of none that the link was down."""
        return None

    def corners(self, begin_s: float, end_s: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """See `Capacity`; each step is a nanosecond wide."""
        cycles = np.arange(math.floor(begin_s * 1e3 / self._length_ms), math.floor(end_s * 1e3 / self._length_ms) + 1)
        at_s = (np.array(self._departures_ms) + cycles[:, None] * self._length_ms).ravel() / 1e3
        gone = np.arange(1, len(at_s) + 1) + cycles[0] * len(self._departures_ms)
        last = np.append(at_s[1:] > at_s[:-1], True)  # of those that leave together
        at_s, gone = at_s[last], gone[last]
        before = np.append(cycles[0] * len(self._departures_ms), gone[:-1])
        return (
            np.stack([at_s - 1e-9, at_s], axis=1).ravel(),
            np.stack([before, gone], axis=1).ravel().astype(np.float64) * PACKET_BYTES,
        )
