"""Deadline-aware batching in front of one tail. Pure: no clock, no IO, no randomness.

Frames wait in order of their deadlines (EDF). Whenever an engine is free: what can no longer finish is answered late
before anything is computed; then the longest prefix runs that still meets its earliest deadline. Where frames have to be
turned away, the most urgent ones give way if a larger batch without them finishes more frames a second. It waits for
company only while that makes a frame more than 15 % cheaper. At the door it admits what fits without hurting those inside.
A tail that runs on several engines at once (replicas on other machines) has as many batches under way; each is as large as
it would be on one, since larger batches are what makes frames cheap.
"""

from __future__ import annotations

import bisect
import enum
import math
from collections.abc import Callable
from typing import Generic, TypeVar

from msgspec import Struct

from isthmus.edge_server.tail_times import TailTimes
from isthmus.proto.messages import Hint
from isthmus.proto.vocabulary import Load

P = TypeVar("P")

WORTH_WAITING = 0.85
"""Wait for one more frame only while cost per frame, the wait included, stays below this share of today's. A gain of
less than 15 % is within the noise of the times, and costs latency for certain."""
WORTH_GIVING_WAY = 1.1
"""Urgent frames are dropped only for so many times the frames a second: below that the noise of the times decides."""
SCARCE_BATCHES = 4
"""For the time of so many full batches after a frame was turned away, the engine's time counts as scarce. One batch
forgets it between two refusals at 1.2 times capacity (0.89 of it, against 0.95); more than four gain nothing."""
GAP_SMOOTHING = 0.125
"""The weight of the newest gap between two arrivals: TCP's smoothing of round trips (RFC 6298)."""


class Item(Struct, Generic[P], frozen=True):
    """One frame for the tail. `due_s` is its deadline on the server's clock; the payload is the host's own."""

    stream: int
    frame_id: int
    due_s: float
    arrival_s: float
    payload: P


class Refusal(enum.Enum):
    """Why a frame is not computed."""

    LATE = "late"
    """It could not finish in its budget, however idle the server were now."""
    BUSY = "busy"
    """Others are before it, or its stream has used up its credits."""


class RunBatch(Struct, Generic[P], frozen=True):
    """Run these together, then call `on_done`."""

    items: tuple[Item[P], ...]


class _Running(Struct, Generic[P], frozen=True):
    """A batch on its engine, which is expected to take so long and to be free then."""

    batch: RunBatch[P]
    takes_s: float
    free_at: float


class Reject(Struct, Generic[P], frozen=True):
    """Tell the device no; `retry_s` from now a frame with the same budget would be admitted."""

    item: Item[P]
    why: Refusal
    retry_s: float = 0.0
    hint: Hint = Hint.NONE


class Batcher(Generic[P]):
    """One tail's queue and engines. Every item submitted and not cancelled ends in one RunBatch or one Reject."""

    def __init__(self, times: TailTimes, *, max_batch: int = 8, stream_credits: int = 8, engines: int = 1) -> None:
        """`times` must know batches of up to `max_batch`; `stream_credits` frames of one stream may be inside.

        So many `engines` run a batch each, all of them alike.
        """
        self.times = times
        self._engines = engines
        self._max_batch, self._credits = max_batch, stream_credits
        self._queue: list[tuple[float, int, int, Item[P]]] = []  # (due_s, turn, seq, item), sorted
        self._seq = 0
        self._turn = 0
        self._last_turn: dict[int, int] = {}
        self._inside: dict[int, int] = {}
        self._running: list[_Running[P]] = []
        self._others_until_s, self._stretch = 0.0, 1.0
        self._wake_at: float | None = None
        self._waiting_since: float | None = None
        self._last_arrival_s: float | None = None
        self._gap_s: float | None = None
        self._turned_away_s = -math.inf
        self._actions: list[RunBatch[P] | Reject[P]] = []

    @property
    def due_at(self) -> float | None:
        """When the next step is due: at once after a change, or at the end of a wait for company."""
        return None if self._occupied else self._wake_at

    def resize(self, engines: int, *, now: float) -> None:
        """From now on so many engines are there, at least one; a batch that runs on one that is not is left to its end."""
        if engines > self._engines:
            self._wake_at = now
        self._engines = engines

    @property
    def idle(self) -> bool:
        """Nothing waits and nothing runs."""
        return not self._running and not self._queue

    @property
    def waiting(self) -> int:
        """Frames in the queue."""
        return len(self._queue)

    def inside(self, stream: int) -> int:
        """Frames of this stream that wait or run."""
        return self._inside.get(stream, 0)

    def actions(self) -> list[RunBatch[P] | Reject[P]]:
        """What to do, in order; each action is handed out once."""
        actions, self._actions = self._actions, []
        return actions

    def share(self, free_s: float, stretch: float) -> None:
        """Other tails use the engines too: one is free for this one at `free_s`, and `stretch` of its batches' time goes by
        from batch to batch.
        """
        self._others_until_s, self._stretch = free_s, stretch

    def hopeless(self, due_s: float, *, now: float) -> bool:
        """Whether a frame could not finish by `due_s`, however idle the engine were."""
        return now + self.times.p95_s(1) > due_s

    def submit(self, item: Item[P], *, now: float) -> bool:
        """A frame is at the door; whether it was let in."""
        self.times.forget(now=now)
        self._note_arrival(now)
        if self.inside(item.stream) >= self._credits:
            wait_s = self._free(now) - now + self.times.p95_s(1)
            self._actions.append(Reject(item, Refusal.BUSY, wait_s))
            return False
        if self.hopeless(item.due_s, now=now):
            self._actions.append(Reject(item, Refusal.LATE))
            return False
        return self._admit(item, now)

    def cancel(self, stream: int, frame_id: int) -> None:
        """Nobody wants this frame any more; one that runs already is left to finish."""
        self._remove(lambda item: (item.stream, item.frame_id) == (stream, frame_id))

    def forget(self, stream: int) -> None:
        """The stream is gone, and its frames with it."""
        self._remove(lambda item: item.stream == stream)
        self._inside.pop(stream, None)
        self._last_turn.pop(stream, None)

    def on_done(self, batch: RunBatch[P], tail_s: float | None, *, now: float) -> None:
        """An engine finished a batch, which took it `tail_s`, and is free. None: it failed, and says nothing of times."""
        if tail_s is not None:
            self.times.observe(len(batch.items), tail_s, now=now)
        for item in batch.items:
            self._release(item)
        self._running = [running for running in self._running if running.batch is not batch]
        self._wake_at = now

    def step(self, now: float) -> None:
        """Give a free engine its next batch, if there is one worth running now."""
        self._wake_at = None
        if self._occupied:
            return
        self.times.forget(now=now)
        self._drop_late(now)
        self._give_way(now)
        if not self._queue:
            self._waiting_since = None
            return
        size = self._prefix(now)
        self._wake_at = self._wait_until(size, now)
        if self._wake_at is None:
            self._run(size, now)

    def load(self, now: float) -> Load:
        """What a frame that arrived now would meet, if it had to wait for all that is queued."""
        free_s, full, rest = self._turn_of(len(self._queue) + 1, self._free_s(now))
        wait_s = free_s - now + full * self._stretch * self.times.p95_s(self._max_batch)
        return Load(len(self._queue), wait_s, self.times.p95_s(rest + 1))

    def _admit(self, item: Item[P], now: float) -> bool:
        turn = max(self._turn, self._last_turn.get(item.stream, -1) + 1)  # round robin among equal deadlines
        self._seq += 1
        entry = (item.due_s, turn, self._seq, item)
        place = bisect.bisect(self._queue, entry)
        if (shortage_s := self._shortage_s(place, item.due_s, now)) > 0:
            if self._free(now) + self.times.p95_s(1) <= item.due_s:  # else it is the running batch that is in its way
                self._turned_away_s = now
            hint = Hint.NARROWER if shortage_s <= self.times.p95_s(1) else Hint.EARLIER_EXIT
            self._actions.append(Reject(item, Refusal.BUSY, shortage_s, hint))
            return False
        self._queue.insert(place, entry)
        self._last_turn[item.stream] = turn
        self._inside[item.stream] = self.inside(item.stream) + 1
        self._wake_at = now
        return True

    def _shortage_s(self, place: int, due_s: float, now: float) -> float:
        """Seconds that are missing for a newcomer at `place`, or that it would cost one behind it its deadline by."""
        free_s = self._free_s(now)
        if (own_s := self._ends_s(place + 1, free_s) - due_s) > 0:
            return own_s
        for count, (behind_s, *_) in enumerate(self._queue[place:], start=place + 1):
            if self._ends_s(count, free_s) <= behind_s < (delayed_s := self._ends_s(count + 1, free_s)):
                return delayed_s - behind_s
        return 0.0

    def _ends_s(self, count: int, free_s: list[float]) -> float:
        """When the first `count` of the queue are done in full batches: a lower bound, since deadlines may cut them."""
        begin_s, full, rest = self._turn_of(count, free_s)
        return begin_s + (full * self._stretch * self.times.p95_s(self._max_batch) + self.times.p95_s(rest + 1))

    def _turn_of(self, count: int, free_s: list[float]) -> tuple[float, int, int]:
        """When the engine that gets number `count` of the queue is free, the full batches that it runs before, and how many
        are before it in its own batch.

        The engines take turns in the order in which they come free: none of them is at work for longer than a full batch.
        """
        full, rest = divmod(count - 1, self._max_batch)
        return free_s[full % len(free_s)], full // len(free_s), rest

    @property
    def _occupied(self) -> bool:
        return len(self._running) >= self._engines

    def _free(self, now: float) -> float:
        """When the first engine is expected to be free, and it is this tail's turn."""
        return self._free_s(now)[0]

    def _free_s(self, now: float) -> list[float]:
        """The same of every engine, in this order."""
        busy = [max(now, running.free_at) + (self._stretch - 1.0) * running.takes_s for running in self._running]
        idle = [max(now, self._others_until_s)] * (self._engines - len(busy))
        return sorted(busy + idle)[-self._engines :]

    def _drop_late(self, now: float) -> None:
        finish = now + self.times.p95_s(1)
        if late := bisect.bisect_left(self._queue, finish, key=lambda entry: entry[0]):
            self._turned_away_s = now
            self._drop(late)

    def _drop(self, heads: int) -> None:
        """Answer the first of the queue late."""
        for *_, item in self._queue[:heads]:
            self._release(item)
            self._actions.append(Reject(item, Refusal.LATE))
        del self._queue[:heads]

    def _give_way(self, now: float) -> None:
        """Drop as many heads as make the batch behind them finish most frames a second, while the engine is scarce.

        Under load the head is always nearly due, and a batch that is cut to meet it pays the fixed cost of a batch for
        one or two frames. Frames that are turned away at the door for want of time are worth as much as those inside.
        """
        if now > self._turned_away_s + SCARCE_BATCHES * self.times.p95_s(self._max_batch):
            return
        best, heads = 0.0, 0
        for first in range(len(self._queue)):
            size = self._prefix(now, first)
            rate = size / self.times.p95_s(size)
            if rate > best * (WORTH_GIVING_WAY if heads == 0 else 1.0):
                best, heads = rate, first
            if size == min(len(self._queue) - first, self._max_batch):
                break  # nor is a batch behind it larger
        self._drop(heads)

    def _prefix(self, now: float, first: int = 0) -> int:
        """How many run together from `first` in the queue on, so that it is in time."""
        earliest = self._queue[first][0]
        size = min(len(self._queue) - first, self._max_batch)
        while size > 1 and now + self.times.p95_s(size) > earliest:
            size -= 1
        return size

    def _wait_until(self, size: int, now: float) -> float | None:
        """Until when one more frame is worth waiting for; None to run at once.

        With w waited and k frames, (w + t(k + 1)) / (k + 1) must stay below 0.85 t(k) / k, the earliest deadline must
        allow a batch of k + 1, and the next frame must be expected by then: a lone stream never waits.
        """
        if size < len(self._queue) or size == self._max_batch:
            return None
        if self._waiting_since is None:
            self._waiting_since = now
        larger_s = self.times.p95_s(size + 1)
        paying = self._waiting_since + WORTH_WAITING * self.times.p95_s(size) * (size + 1) / size - larger_s
        until = min(paying, self._queue[0][0] - larger_s)
        return until if until > now and self._next_arrival_s(now) <= until else None

    def _run(self, size: int, now: float) -> None:
        chosen = self._queue[:size]
        del self._queue[:size]
        self._turn = max(self._turn, max(turn for _, turn, _, _ in chosen))
        batch, takes_s = RunBatch(tuple(item for *_, item in chosen)), self.times.p95_s(size)
        self._running.append(_Running(batch, takes_s, now + takes_s))
        self._waiting_since = None
        if self._queue and not self._occupied:
            self._wake_at = now
        self._actions.append(batch)

    def _note_arrival(self, now: float) -> None:
        if self._last_arrival_s is not None:
            gap = now - self._last_arrival_s
            self._gap_s = gap if self._gap_s is None else self._gap_s + GAP_SMOOTHING * (gap - self._gap_s)
        self._last_arrival_s = now

    def _next_arrival_s(self, now: float) -> float:
        return now + self._gap_s if self._gap_s is not None else float("inf")

    def _remove(self, gone: Callable[[Item[P]], bool]) -> None:
        for entry in [entry for entry in self._queue if gone(entry[3])]:
            self._queue.remove(entry)
            self._release(entry[3])

    def _release(self, item: Item[P]) -> None:
        left = self.inside(item.stream) - 1
        if left > 0:
            self._inside[item.stream] = left
        else:
            self._inside.pop(item.stream, None)
