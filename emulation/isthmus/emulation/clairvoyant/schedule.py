"""The plan of greatest expected value for frames that share one head, one uplink and one downlink, in order. Pure.

Each frame may be dealt with in several courses, of which each takes the head for a while and, if it asks the server, so many
bytes of the uplink, then the server's time, then so many of the downlink; it counts its value if it is over when it is due.
Frames are dealt with in the order in which they come, as a session does. For head and uplink no other order does better:
of two neighbours in the wrong order the one that is due first may go first, and the pair ends no later.

What is past bears on what follows through three numbers only: when the head is free, and the positions (`jobs`) of uplink
and downlink. Waiting never helps, since what is done earlier leaves no less to those after it. So, frame by frame, of all
plans so far only those are kept that no other one beats in value at no greater cost in any of the three (Bellman 1957): the
plan that is worth most at the end is among them. A position below what an idle link has by the time of the next frame is no
better than that, which keeps them few. `MOST` of them are exact; beyond that costs are rounded down, in the plan's favour.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isthmus.emulation.timetable import Timetable

Floats = NDArray[np.float64]
MOST = 1500
"""So many plans are compared each with each: a few milliseconds a frame."""
CELLS = 512
"""Beyond that, costs are rounded down to such a share of their range, and to twice as much until they are few enough."""
BLOCK = 256
"""Rows that are compared at a time."""
GRACE_S = 1e-9
SAME = 1e-9


@dataclass(frozen=True)
class Course:
    """One way of dealing with a frame."""

    head_s: float
    """What the head takes for it."""
    value: float
    """What it is worth if it is over in time."""
    up_bytes: float = 0.0
    """What must cross, framing included; 0 is an answer from an exit."""
    acks_bytes: float = 0.0
    """What the server acknowledges before its answer; the last message of it cannot leave before all has arrived."""
    answer_bytes: float = 0.0
    """The server's answer."""
    coding_s: float = 0.0
    """From the end of the head until it can be sent."""


@dataclass(frozen=True)
class PlannedFrame:
    """A frame with everything that can become of it. Frames come in the order of their captures and due times."""

    captured_s: float
    due_s: float
    courses: tuple[Course, ...]
    tail_s: float = 0.0
    """The least time on the server."""


@dataclass(frozen=True)
class Schedule:
    """What `best` found."""

    value: float
    chosen: tuple[int | None, ...]
    """The course of each frame; None where it is given up."""


@dataclass(frozen=True)
class _Plans:
    """Plans so far, one a row."""

    free_s: Floats
    up: Floats
    down: Floats
    value: Floats

    def __getitem__(self, which: NDArray[np.intp]) -> _Plans:
        return _Plans(self.free_s[which], self.up[which], self.down[which], self.value[which])


@dataclass(frozen=True)
class _Ahead:
    """The least that any frame from the next one on takes: each may be the first that asks the server."""

    captured_s: float
    head_s: float
    up_bytes: float
    early_bytes: float
    """The most that a course acknowledges before its last layer has arrived."""


def best(frames: Sequence[PlannedFrame], up: Timetable, down: Timetable, *, one_head: bool = True) -> Schedule:
    """The plan of greatest value. Without `one_head` each frame has a head of its own, as those of several devices have."""
    plans = _Plans(np.zeros(1), np.zeros(1), np.zeros(1), np.zeros(1))
    steps: list[tuple[NDArray[np.intp], NDArray[np.intp]]] = []
    for frame, ahead in zip(frames, _ahead(frames), strict=True):
        parts, parents, courses = [plans], [np.arange(len(plans.value))], [np.full(len(plans.value), -1)]
        for c, course in enumerate(frame.courses):
            rows, after = _followed(plans, frame, course, up, down)
            parts.append(after)
            parents.append(rows)
            courses.append(np.full(len(rows), c))
        every = _Plans(
            np.concatenate([p.free_s for p in parts]),
            np.concatenate([p.up for p in parts]),
            np.concatenate([p.down for p in parts]),
            np.concatenate([p.value for p in parts]),
        )
        every = _floored(every, ahead, up, down, one_head)
        kept, plans = _undominated(every)
        steps.append((np.concatenate(parents)[kept], np.concatenate(courses)[kept]))
    return _traced(plans, steps)


def _followed(
    plans: _Plans, frame: PlannedFrame, course: Course, up: Timetable, down: Timetable
) -> tuple[NDArray[np.intp], _Plans]:
    """The plans that this course of the frame can follow in time, as rows, and what they then are."""
    free_s = np.maximum(plans.free_s, frame.captured_s) + course.head_s
    if not course.up_bytes:
        rows = np.flatnonzero(free_s <= frame.due_s + GRACE_S)
        return rows, _Plans(free_s[rows], plans.up[rows], plans.down[rows], plans.value[rows] + course.value)
    rows = np.flatnonzero(free_s + course.coding_s + frame.tail_s <= frame.due_s + GRACE_S)
    free_s = free_s[rows]
    sent = np.maximum(up.carried(free_s + course.coding_s), plans.up[rows]) + course.up_bytes
    arrived_s = up.arrival(up.when(sent))
    last_ack = _last_ack(course)
    acked = np.maximum(down.carried(arrived_s), plans.down[rows] + course.acks_bytes - last_ack) + last_ack
    answered = np.maximum(down.carried(arrived_s + frame.tail_s), acked) + course.answer_bytes
    in_time = np.flatnonzero(down.arrival(down.when(answered)) <= frame.due_s + GRACE_S)
    rows, value = rows[in_time], plans.value[rows[in_time]] + course.value
    return rows, _Plans(free_s[in_time], sent[in_time], answered[in_time], value)


def _ahead(frames: Sequence[PlannedFrame]) -> list[_Ahead | None]:
    """What lies ahead of each frame; None of the last."""
    found: list[_Ahead | None] = [None]
    least: tuple[float, float, float] | None = None
    for frame in reversed(frames[1:]):
        sending = [course for course in frame.courses if course.up_bytes]
        own = [(course.head_s, course.up_bytes, _last_ack(course) - course.acks_bytes) for course in sending]
        if every := [*own, *([least] if least else [])]:
            least = min(x[0] for x in every), min(x[1] for x in every), min(x[2] for x in every)
        head_s, up_bytes, minus_early = least or (0.0, 0.0, 0.0)
        found.append(_Ahead(frame.captured_s, head_s, up_bytes, -minus_early))
    return found[::-1]


def _floored(plans: _Plans, ahead: _Ahead | None, up: Timetable, down: Timetable, one_head: bool) -> _Plans:
    """The same plans, their costs no less than what whoever comes next finds at best: an idle head, idle links."""
    if ahead is None:
        none = np.zeros(len(plans.value))
        return _Plans(none, none, none, plans.value)
    free_s = np.maximum(plans.free_s, ahead.captured_s) if one_head else np.zeros(len(plans.value))
    sent = np.maximum(plans.up, up.carried(np.maximum(free_s, ahead.captured_s) + ahead.head_s))
    arrived_s = up.arrival(up.when(sent + ahead.up_bytes))
    # Acknowledgements before the last are out by then, and not behind what the downlink has carried since.
    return _Plans(free_s, sent, np.maximum(plans.down, down.carried(arrived_s) - ahead.early_bytes), plans.value)


def _last_ack(course: Course) -> float:
    """The bytes of the last acknowledgement: messages of one size, framing alone."""
    return course.answer_bytes if course.acks_bytes else 0.0


def _undominated(plans: _Plans) -> tuple[NDArray[np.intp], _Plans]:
    """The rows that no other row beats, of equals the first, and what they are."""
    costs = np.stack([plans.free_s, plans.up, plans.down], axis=1)
    rows = _swept(costs, plans.value, np.arange(len(costs)))
    cells = CELLS
    while len(rows) > MOST:
        costs = _rounded(costs, rows, cells)
        rows = _swept(costs, plans.value, rows)
        cells //= 2
    return rows, _Plans(costs[rows, 0], costs[rows, 1], costs[rows, 2], plans.value[rows])


def _swept(costs: Floats, value: Floats, rows: NDArray[np.intp]) -> NDArray[np.intp]:
    """Those of `rows` whose costs (N, 3) and value (N,) no other of them beats."""
    varying = [k for k in range(costs.shape[1]) if np.ptp(costs[rows, k]) > SAME]
    if not varying:
        first = int(np.argmax(value[rows]))
        return rows[first : first + 1]
    order: NDArray[np.intp] = np.lexsort((-value[rows], *(costs[rows, k] for k in reversed(varying))))
    rows = rows[order]
    cost, worth = costs[rows][:, varying], value[rows]
    if (np.diff(cost, axis=0) >= -SAME).all():  # what costs more of one costs more of all
        most = np.maximum.accumulate(worth)
        ahead: NDArray[np.bool_] = np.append(True, worth[1:] > most[:-1] + SAME)
        return rows[ahead]
    kept = np.zeros(0, np.intp)
    for begin in range(0, len(rows), BLOCK):
        block = np.arange(begin, min(begin + BLOCK, len(rows)))
        block = block[~_beaten(cost[block], worth[block], cost[kept], worth[kept]).any(axis=1)]
        within = _beaten(cost[block], worth[block], cost[block], worth[block])
        kept = np.append(kept, block[~np.tril(within, -1).any(axis=1)])  # sorted: only earlier rows can beat a row
    return rows[kept]


def _beaten(cost: Floats, worth: Floats, by_cost: Floats, by_worth: Floats) -> NDArray[np.bool_]:
    """(N, M) whether each row costs no less and is worth no more than each of the others."""
    beaten = worth[:, None] <= by_worth[None, :] + SAME
    for k in range(cost.shape[1]):
        beaten &= by_cost[None, :, k] <= cost[:, None, k] + SAME
    return beaten


def _rounded(costs: Floats, rows: NDArray[np.intp], cells: int) -> Floats:
    """Costs (N, 3) rounded down to so many cells of the range that they have in `rows`."""
    least = costs[rows].min(axis=0)
    width = np.maximum(np.ptp(costs[rows], axis=0) / cells, SAME)
    return np.asarray(least + np.floor((costs - least) / width) * width, np.float64)


def _traced(plans: _Plans, steps: Sequence[tuple[NDArray[np.intp], NDArray[np.intp]]]) -> Schedule:
    """Backwards from the plan that is worth most."""
    row = int(np.argmax(plans.value))
    chosen: list[int | None] = []
    for parents, courses in reversed(steps):
        chosen.append(int(courses[row]) if courses[row] >= 0 else None)
        row = int(parents[row])
    return Schedule(float(plans.value.max()), tuple(reversed(chosen)))
