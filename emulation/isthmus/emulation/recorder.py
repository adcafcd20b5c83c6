"""A trace from measurements on a real link: what a heavy flow got through, and what a light ping took. Pure: no clock, no IO.

The heavy flow keeps the link busy with a short queue, and rests now and then (`HeavyFlow`), so that the pings beside it
show the link's delay and not the queue's; over a rest the last rate holds. Times are seconds on one clock, the recorder's.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from isthmus.emulation.traces import Floats, Trace

STEP_S = 0.1
"""The time from row to row of the trace."""
_FILL = 2.0
"""Under way at most: so many times what the link carries in its least round trip."""
_LEAST_BYTES = 3_000
"""Two packets may always be under way, or an estimate that fell to nothing would stay there."""
_PERIOD_S, _REST_S = 10.0, 0.4
_RATE_WINDOW_S, _BEST_RATE_WINDOW_S = 0.25, 3.0
"""Goodput is measured over the first and is the best within the second, so that a rest does not lower it."""
_ROUND_TRIP_WINDOW_S, _DELAY_WINDOW_S = 2.5 * _PERIOD_S, 1.1 * _PERIOD_S
"""At least two rests lie within the first, one within the second: the queue was empty then."""


class HeavyFlow:
    """How much more may be sent on a flow whose receiver acknowledges totals.

    The window is `_FILL` times goodput times least round trip (the bandwidth-delay product, as in BBR: Cardwell et al.,
    ACM Queue 14, 2016): enough that the link never idles, little enough that its queue stays short. It rests for the last
    0.4 s of every 10, or it would take its own queue for the link's delay. `now` is 0 when the flow begins.
    """

    def __init__(self) -> None:
        self._sent = 0
        self._acked = 0
        self._marks: deque[tuple[int, float]] = deque()
        self._acks: deque[tuple[float, int]] = deque([(0.0, 0)])
        self._least_round_trip_s = _Best(_ROUND_TRIP_WINDOW_S)
        self._rate_Bps = _Best(_BEST_RATE_WINDOW_S)

    def room_bytes(self, now: float) -> int:
        """What may be sent now."""
        return 0 if self.rests_s(now) else max(0, self._window_bytes() - (self._sent - self._acked))

    @staticmethod
    def rests_s(now: float) -> float:
        """How much longer it rests; 0 when it does not."""
        left_s = _PERIOD_S - now % _PERIOD_S
        return left_s if left_s <= _REST_S else 0.0

    def on_sent(self, size_bytes: int, now: float) -> None:
        """So much was handed to the network."""
        self._sent += size_bytes
        self._marks.append((self._sent, now))

    def on_ack(self, total_bytes: int, now: float) -> None:
        """The receiver has so much in all."""
        self._acked = total_bytes
        while self._marks and self._marks[0][0] <= total_bytes:
            self._least_round_trip_s.add(self._marks.popleft()[1] - now, now)
        self._acks.append((now, total_bytes))
        while self._acks[0][0] < now - _RATE_WINDOW_S and len(self._acks) > 2:
            self._acks.popleft()
        (begin_s, before), (end_s, after) = self._acks[0], self._acks[-1]
        self._rate_Bps.add((after - before) / max(end_s - begin_s, _RATE_WINDOW_S / 10), now)

    def _window_bytes(self) -> int:
        return max(_LEAST_BYTES, int(_FILL * self._rate_Bps.value * -self._least_round_trip_s.value))


class _Best:
    """The greatest of what was added in the last so many seconds; 0 before anything was."""

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._kept: deque[tuple[float, float]] = deque()

    @property
    def value(self) -> float:
        return self._kept[0][1] if self._kept else 0.0

    def add(self, value: float, now: float) -> None:
        while self._kept and self._kept[-1][1] <= value:
            self._kept.pop()
        self._kept.append((now, value))
        while self._kept[0][0] < now - self._window_s:
            self._kept.popleft()


class Recording:
    """Collects what came through each way, and the pings' round trips."""

    def __init__(self) -> None:
        self._totals: dict[str, list[tuple[float, int]]] = {"up": [], "down": []}
        self._round_trips: list[tuple[float, float]] = []

    def on_total(self, direction: str, total_bytes: int, now: float) -> None:
        """Note that so much of this direction's flow has come through by `now`."""
        self._totals[direction].append((now, total_bytes))

    def on_round_trip(self, took_s: float, now: float) -> None:
        """A ping came back."""
        self._round_trips.append((now, took_s))

    def trace(self, name: str, length_s: float) -> Trace:
        """Goodput in steps of 100 ms; as delay, the least ping of the last 11 s; a direction without a flow is unknown."""
        steps = max(1, round(length_s / STEP_S))
        time_s: Floats = np.arange(steps, dtype=np.float64) * STEP_S
        up, down = (self._rates(self._totals[direction], steps) for direction in ("up", "down"))
        return Trace(name, time_s, up, down, self._delays(time_s), np.full(steps, np.nan))

    @staticmethod
    def _rates(totals: list[tuple[float, int]], steps: int) -> Floats:
        """What came is counted in the step in which it came: after an outage it comes at once."""
        if not totals:
            return np.full(steps, np.nan)
        when, total = np.array(totals, dtype=np.float64).T
        edges_s: Floats = np.arange(steps + 1, dtype=np.float64) * STEP_S
        came: Floats = np.diff(total, prepend=0.0)
        rates: Floats = np.asarray(np.histogram(when, edges_s, weights=came)[0] / STEP_S, dtype=np.float64)
        phase = (edges_s[:-1] - when[0]) % _PERIOD_S  # a rest is as late here as the flow's first bytes were
        rested = (phase > _PERIOD_S - _REST_S - STEP_S) & (edges_s[:-1] > when[0])
        kept = np.maximum.accumulate(np.where(rested, 0, np.arange(steps)))
        return rates[kept]

    def _delays(self, time_s: Floats) -> Floats:
        if not self._round_trips:
            return np.full(len(time_s), np.nan)
        when, took = np.array(self._round_trips).T
        delays = np.full(len(time_s), np.nan)
        for i, end_s in enumerate(time_s + STEP_S):
            recent = took[(when > end_s - _DELAY_WINDOW_S) & (when <= end_s)]
            if len(recent):
                delays[i] = recent.min()
        return delays
