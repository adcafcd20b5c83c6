"""The most frames that anybody can answer right and in time, who knows the network and every answer beforehand.

What is bounded is a count: frames whose answer is right and there when it is due. A frame is right in several ways: from
an exit, once the head has got so far, or from the server, once the whole head has run at some width, so many bytes have
left the FIFO uplink, and the tail and the delays have taken their least. Three bounds hold for every policy:

- the link's, where each frame has a head of its own: frames that an exit gets right are free, the others are jobs of the
  uplink, as many of which as possible are done exactly (`most_on_time`);
- the downlink's, in the same way: whatever is sent is acknowledged and answered, and that crosses too;
- the head's, where the network is free: every frame is a job of one head, by the quickest way to be right about it.

The least one is the bound. It is left out what can only cost: heartbeats, the hello, losses, jitter, full queues, other
devices, waiting for a batch, a lost server, and of whatever slows head or tail all that does not last a frame's whole life.
Where a wide head takes so long that a later frame could be sent earlier, its bytes may leave a little sooner than they
could. Then the chosen plan is played once, one head, in order: if that reaches the bound, the bound is exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from isthmus.emulation.clairvoyant.jobs import Job, Way, most_on_time
from isthmus.proto.vocabulary import OperatingPoint

ANSWERED_BYTES = 60.0
"""What comes back for a frame at least: the framing of an acknowledgement and of an answer."""
GRACE_S = 1e-9
"""Sums of floats may be off by so much; it is given to the clairvoyant."""


@dataclass(frozen=True)
class RightWay:
    """One way to be right about a frame."""

    point: OperatingPoint
    head_s: float
    """What the head takes for it."""
    size_bytes: float = 0.0
    """What must cross, framing included; 0 is an answer from an exit."""
    coding_s: float = 0.0
    """What coding it takes, after the head and beside the next frame's."""


@dataclass(frozen=True)
class Foreseen:
    """One frame and everything that will be of it. Frames come in the order of their captures and due times."""

    captured_s: float
    due_s: float
    ways: tuple[RightWay, ...]
    tail_s: float = 0.0
    """The least time on the server."""
    delays_s: float = 0.0
    """The least delay there and back, without the queue."""
    down_delay_s: float = 0.0
    """That part of it which is the way back."""
    down_s: float = 0.0
    """What its own acknowledgement and answer keep the downlink at least, before the answer arrives."""


@dataclass(frozen=True)
class Bound:
    """What `solve` found."""

    count: int
    """No policy answers more frames right and in time."""
    plan: tuple[RightWay | None, ...]
    """The way by which each frame counts; None where it does not."""


Carried = Callable[[float], float]


def solve(frames: Sequence[Foreseen], carried: Carried, down: Carried | None = None) -> Bound:
    """The bound for `frames` that share one uplink, which can have carried `carried(t)` bytes by time t, and a downlink.

    Frames of several devices that share them are given together, sorted; only one device's share a head, so that the
    head's bound is then left out by the caller (`links_bound`).
    """
    return min(links_bound(frames, carried, down), head_bound(frames), key=lambda bound: bound.count)


def links_bound(frames: Sequence[Foreseen], carried: Carried, down: Carried | None = None) -> Bound:
    """The lesser of what the two directions leave, with a head for every frame. Without `down` it is infinitely fast."""
    bounds = [link_bound(frames, carried)] + ([] if down is None else [down_bound(frames, down)])
    return min(bounds, key=lambda bound: bound.count)


def link_bound(frames: Sequence[Foreseen], carried: Carried) -> Bound:
    """The bound of the uplink, with a head for every frame."""
    plan: list[RightWay | None] = [_from_exit(frame) for frame in frames]
    offloads = [[way for way in frame.ways if way.size_bytes] for frame in frames]
    sending = [i for i, ways in enumerate(offloads) if ways and plan[i] is None]
    jobs: list[Job] = []
    latest = 0.0
    for i, ready_s in zip(sending, _ready(frames, offloads, sending), strict=True):
        lasts_s = frames[i].tail_s + frames[i].delays_s + frames[i].down_s
        latest = max(latest, carried(frames[i].due_s - lasts_s + GRACE_S))
        ways = zip(ready_s, offloads[i], strict=True)
        jobs.append(Job(tuple(Way(carried(t), way.size_bytes) for t, way in ways), latest))
    for i, chosen in zip(sending, most_on_time(jobs), strict=True):
        plan[i] = None if chosen is None else offloads[i][chosen]
    return Bound(sum(way is not None for way in plan), tuple(plan))


def down_bound(frames: Sequence[Foreseen], carried: Carried) -> Bound:
    """The bound of the downlink: an acknowledgement and an answer for each frame, the uplink infinitely fast."""
    plan: list[RightWay | None] = [_from_exit(frame) for frame in frames]
    quickest = [min((w for w in f.ways if w.size_bytes), key=lambda way: way.head_s, default=None) for f in frames]
    offloads = [[way] if way else [] for way in quickest]
    sending = [i for i, ways in enumerate(offloads) if ways and plan[i] is None]
    jobs: list[Job] = []
    latest = 0.0
    for i, (ready_s,) in zip(sending, _ready(frames, offloads, sending), strict=True):
        latest = max(latest, carried(frames[i].due_s - frames[i].down_delay_s + GRACE_S))
        jobs.append(Job((Way(carried(ready_s), ANSWERED_BYTES),), latest))
    for i, chosen in zip(sending, most_on_time(jobs), strict=True):
        plan[i] = None if chosen is None else offloads[i][0]
    return Bound(sum(way is not None for way in plan), tuple(plan))


def head_bound(frames: Sequence[Foreseen]) -> Bound:
    """The bound with a free network."""
    quickest = [min(frame.ways, key=lambda way: way.head_s, default=None) for frame in frames]
    jobs = [
        Job((Way(frame.captured_s, way.head_s),) if way else (), frame.due_s + GRACE_S)
        for frame, way in zip(frames, quickest, strict=True)
    ]
    done = most_on_time(jobs)
    plan = tuple(way if chosen is not None else None for way, chosen in zip(quickest, done, strict=True))
    return Bound(sum(way is not None for way in plan), plan)


def _from_exit(frame: Foreseen) -> RightWay | None:
    """The quickest exit that is right in time."""
    exits = (way for way in frame.ways if not way.size_bytes and way.head_s <= frame.due_s - frame.captured_s + GRACE_S)
    return min(exits, key=lambda way: way.head_s, default=None)


def _ready(
    frames: Sequence[Foreseen], offloads: Sequence[Sequence[RightWay]], sending: Sequence[int]
) -> list[list[float]]:
    """When each way of each frame could be sent; at the latest with the first of the later ones, so jobs stay agreeable."""
    ready: list[list[float]] = []
    ceiling_s = math.inf
    for i in reversed(sending):
        ready.append([min(frames[i].captured_s + way.head_s + way.coding_s, ceiling_s) for way in offloads[i]])
        ceiling_s = min(ready[-1])
    return ready[::-1]


@dataclass(frozen=True)
class Played:
    """A frame of the plan as it went."""

    began_s: float
    sent_s: float
    answered_s: float


def play(
    frames: Sequence[Foreseen],
    plan: Sequence[RightWay | None],
    back_s: Callable[[Foreseen, RightWay, float], float | None],
) -> list[Played | None]:
    """The plan on one head, in order; None for what is not in it or does not make it in time.

    `back_s(frame, way, sent_s)` sends over the real links and says when the answer is back, None for never.
    """
    free_s = sent_s = 0.0
    played: list[Played | None] = []
    for frame, way in zip(frames, plan, strict=True):
        began_s = max(free_s, frame.captured_s)
        if way is None or began_s + way.head_s > frame.due_s + GRACE_S:
            played.append(None)
            continue
        free_s = began_s + way.head_s
        sent_s = max(sent_s, free_s + way.coding_s)  # what is coded later leaves later
        answered_s = back_s(frame, way, sent_s) if way.size_bytes else free_s
        in_time = answered_s is not None and answered_s <= frame.due_s + GRACE_S
        played.append(Played(began_s, sent_s, answered_s) if in_time and answered_s is not None else None)
    return played
