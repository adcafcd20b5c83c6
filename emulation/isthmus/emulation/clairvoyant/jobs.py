"""The most jobs that one machine can finish in time, exactly, by dynamic programming. Pure.

The machine takes one job at a time, none is interrupted, and each job has several ways of being done: a start that is
possible from some position on, and a length. Jobs come in order of release and of deadline alike (agreeable): then some
best schedule does them in that order, since of two neighbours in the wrong order the earlier one may go first without
making the pair end later. What is kept is therefore only, for each count, the least position at which so many are done:

    F[k] = min(F[k], max(F[k - 1], start) + length, if that is not beyond the deadline)

Of those who are free before a job, only the one who has done the most is kept: what is left of F is as short as the
queue that a deadline allows. Positions are what the machine has done or could have done since time 0: seconds for a head,
bytes for a FIFO link, whose start is the bytes that it can have carried by the release. (Lawler and Moore 1969, with
releases.)
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Way:
    """One way of doing a job, in positions."""

    start: float
    """Not before here."""
    length: float


@dataclass(frozen=True)
class Job:
    """A job that counts when it ends at `latest` or before."""

    ways: tuple[Way, ...]
    latest: float


def most_on_time(jobs: Sequence[Job]) -> list[int | None]:
    """The way by which each job is done, None if it is not, such that as many as possible are done in time.

    Every way of a job must start no later than every way of the next, and `latest` must not fall: ValueError if not.
    """
    _check(jobs)
    fewest, least = 0, [0.0]  # least[k]: the least position at which fewest + k jobs are done; it rises with k
    steps: list[tuple[int, list[int]]] = []
    """Each job's fewest, and [k] the way by which it became the last of fewest + k jobs done, -1 if it is not."""
    for job in jobs:
        idle = bisect_right(least, min((way.start for way in job.ways), default=-math.inf)) - 1
        if idle > 0:  # whoever is free before this job may as well have done the most
            fewest, least = fewest + idle, least[idle:]
        after, by = [*least, math.inf], [-1] * (len(least) + 1)
        for w, way in enumerate(job.ways):
            for k, before in enumerate(least, start=1):
                end = max(before, way.start) + way.length
                if end <= job.latest and end < after[k]:
                    after[k], by[k] = end, w
        steps.append((fewest, by))
        least = after if after[-1] < math.inf else after[:-1]
    return _traced(steps, fewest + len(least) - 1)


def _traced(steps: Sequence[tuple[int, list[int]]], count: int) -> list[int | None]:
    """Backwards from the most that were done: who was the last of them, and how."""
    ways: list[int | None] = []
    for fewest, by in reversed(steps):
        way = by[count - fewest] if count - fewest < len(by) else -1
        ways.append(way if way >= 0 else None)
        count -= way >= 0
    return ways[::-1]


def _check(jobs: Sequence[Job]) -> None:
    for i, (job, following) in enumerate(pairwise(jobs)):
        if max((w.start for w in job.ways), default=-math.inf) > min(
            (w.start for w in following.ways), default=math.inf
        ):
            raise ValueError(f"job {i}: can start after job {i + 1}; jobs must be agreeable")
        if job.latest > following.latest:
            raise ValueError(f"job {i}: must be done after job {i + 1}; jobs must be agreeable")
