"""What several bundles and plain pictures are worth at every uplink, for one device and one deadline. Pure.

A way of being answered takes, on an idle link of r bytes a second,

    device + coding + bytes / r + round trip + server

seconds, with the mean bytes of its pictures. It is in time from the uplink on at which that is the deadline. At each uplink
a contender is worth its best result that is in time; one that only sends, and cannot in time, is worth nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MARGIN = 0.005
"""Whoever leads at a lower uplink leads on until another is better by so much: less is chance with a few hundred pictures."""


@dataclass(frozen=True)
class Way:
    """One way of being answered, and how well it did."""

    name: str
    size_bytes: float
    """Mean bytes that are sent; 0 where the device answers alone."""
    result: float
    """0 to 1: accuracy, average precision, overlap or agreement, alike for all that are compared."""
    device_s: float
    """Seconds on the device, coding included."""
    server_s: float

    def least_Bps(self, deadline_s: float, rtt_s: float) -> float:
        """The uplink from which on it is in time; infinite where it never is."""
        left_s = deadline_s - self.device_s
        if not self.size_bytes:
            return 0.0 if left_s >= 0 else math.inf
        left_s -= rtt_s + self.server_s
        return self.size_bytes / left_s if left_s > 0 else math.inf


@dataclass(frozen=True)
class Contender:
    """A bundle, or pictures in one format, with all its ways."""

    name: str
    ways: tuple[Way, ...]

    @property
    def frontier(self) -> tuple[Way, ...]:
        """The ways that no other beats in both bytes and result, by bytes."""
        best, kept = -1.0, []
        for way in sorted(self.ways, key=lambda way: (way.size_bytes, -way.result)):
            if way.result > best:
                best = way.result
                kept.append(way)
        return tuple(kept)


@dataclass(frozen=True)
class Stretch:
    """The uplinks from `from_Bps` to `to_Bps` in which one contender is best, and by which way."""

    from_Bps: float
    to_Bps: float
    contender: str
    way: Way


def stretches(contenders: Sequence[Contender], deadline_s: float, rtt_s: float) -> list[Stretch]:
    """Every uplink from nothing to infinity, by who is best there and how; nobody below the first, if it needs a link."""
    ways = [(c, way, way.least_Bps(deadline_s, rtt_s)) for c in contenders for way in c.ways]
    edges = sorted({least for _, _, least in ways if least < math.inf})
    found: list[Stretch] = []
    for start, end in zip(edges, [*edges[1:], math.inf][: len(edges)], strict=True):
        leading = found[-1].contender if found else None
        in_time = [(c.name, way) for c, way, least in ways if least <= start]
        name, way = max(in_time, key=lambda each: (each[1].result, -each[1].size_bytes))
        held = max((w.result for n, w in in_time if n == leading), default=-1.0)
        if leading is not None and way.result < held + MARGIN:
            name, way = leading, max((w for n, w in in_time if n == leading), key=lambda w: (w.result, -w.size_bytes))
        if found and (found[-1].contender, found[-1].way) == (name, way):
            found[-1] = Stretch(found[-1].from_Bps, end, name, way)
        else:
            found.append(Stretch(start, end, name, way))
    return found


def led(found: Iterable[Stretch]) -> list[Stretch]:
    """The same with one stretch where a contender leads by one way after the other: the last of them stands for all."""
    merged: list[Stretch] = []
    for each in found:
        if merged and merged[-1].contender == each.contender:
            merged[-1] = Stretch(merged[-1].from_Bps, each.to_Bps, each.contender, each.way)
        else:
            merged.append(each)
    return merged
