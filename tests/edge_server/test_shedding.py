"""A loop that has more to read than it can, in virtual time: every message and every reply costs the loop something."""

from __future__ import annotations

import heapq
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.edge_server.admission import Limits
from isthmus.edge_server.batcher import Batcher
from isthmus.edge_server.shedding import INTERVAL_S, LAG_S, LEAST_SHARE, LoopLag, SendingTime, Shedder
from isthmus.edge_server.streams import Compute, Reply, Served, Streams
from isthmus.edge_server.tail_times import TailTimes
from isthmus.proto import messages as m

READ_S, SAY_S, SERVE_S = 0.0002, 0.0001, 0.002
"""What the loop spends on a message, a reply, a frame that is answered: about what a busy two-core machine does."""
TAIL_S = 0.001
BUDGET_S, DEVICES = 0.15, 50


def test_a_loop_at_rest_sees_what_comes_as_it_comes() -> None:
    lag = LoopLag()
    assert lag.came_s(7.0) == 7.0


def test_a_busy_loop_believes_that_a_message_came_when_it_could_not_look() -> None:
    lag = LoopLag()
    for now in (1.0, 1.1, 1.3, 1.4):
        lag.look(now)
    assert lag.came_s(1.45) == 1.1
    lag.rest()
    assert lag.came_s(1.5) == 1.5


def test_a_loop_that_keeps_up_takes_every_frame() -> None:
    shedder = Shedder()
    for step in range(1000):
        shedder.note(LAG_S * (step % 5), now=step * INTERVAL_S / 10)  # a hiccup is no overload
        assert shedder.takes()


def test_the_share_falls_while_the_loop_is_behind_and_comes_back() -> None:
    shedder = Shedder()
    for step in range(200):
        shedder.note(2 * LAG_S, now=step * INTERVAL_S)
    assert shedder.share == LEAST_SHARE
    for step in range(200, 400):
        shedder.note(0.0, now=step * INTERVAL_S)
    assert not shedder.shedding


def test_what_the_engine_alone_refuses_is_no_reason_to_shed() -> None:
    """A full queue in front of an idle loop: the batcher knows best whom to refuse."""
    shedder = Shedder()
    for stretch in (1.1, 4.0):
        assert not shedder.shedding
        for step in range(100):
            shedder.takes()
            shedder.refused()
            shedder.on_batch(stretch)
            shedder.note(0.0, now=stretch * 100 + step * INTERVAL_S / 10)
    assert shedder.shedding, "the tail itself lacks processor time"


@given(st.floats(LEAST_SHARE, 1.0), st.integers(100, 2000))
def test_shed_frames_are_spread_evenly(share: float, frames: int) -> None:
    shedder = Shedder()
    shedder.share = share
    taken = sum(shedder.takes() for _ in range(frames))
    assert taken == pytest.approx(share * frames, abs=1.001)


def test_sending_times_are_known_by_what_is_seldom_exceeded() -> None:
    sending, rng = SendingTime(), random.Random(0)
    for step in range(2000):
        sending.note(rng.uniform(0.0, 0.010), now=step * 0.01)
    assert 0.0065 < sending.usual_s(20.0) < 0.0105


def test_a_stall_that_is_over_makes_no_frame_hopeless_for_ever() -> None:
    """Answers that took half a second left no frame enough time, and so no answer to show that it was over."""
    sending = SendingTime()
    sending.note(2.0, now=0.0)
    assert sending.usual_s(0.5) > 0.15
    assert sending.usual_s(2.0) == 0.0


class BusyLoop:
    """`Streams` behind a loop with one processor; the tail costs it nothing beyond SERVE_S.

    Devices that are told `Busy` send nothing for as long as they are asked to, unless they are deaf.
    """

    def __init__(self, served: Served, frame: Any, hello: m.Hello, *, deaf: bool = True) -> None:
        times = TailTimes({1: TAIL_S, 8: TAIL_S}, max_batch=8)
        batcher: Batcher[Any] = Batcher(times, max_batch=8)
        self.streams = Streams(served, batcher, server_id="edge", limits=Limits(DEVICES))
        self._frame, self.now, self.in_time, self.answered, self.told = frame, 0.0, 0, 0, 0
        self._sent_s: dict[tuple[int, int], float] = {}
        self._frame_id, self._tail_ended_s = 0, 0.0
        self._deaf, self._quiet_until_s = deaf, dict.fromkeys(range(1, DEVICES + 1), 0.0)
        self.numbers = [self.streams.open(now=0.0) for _ in range(DEVICES)]
        for stream in self.numbers:
            self.streams.on_message(stream, hello, now=0.0)
        self.streams.actions()

    def run(self, rate: float, seconds: float) -> float:
        """Answers in time a second, of `rate` frames a second."""
        rng, until_s, before = random.Random(rate), self.now + seconds, self.in_time
        coming = [(self.now + rng.random() * DEVICES / rate, stream) for stream in self.numbers]
        heapq.heapify(coming)
        while coming[0][0] < until_s:
            came_s, stream = heapq.heappop(coming)
            heapq.heappush(coming, (came_s + rng.uniform(0.8, 1.2) * DEVICES / rate, stream))
            if came_s < self._quiet_until_s[stream]:
                continue
            self._frame_id += 1
            self._sent_s[stream, self._frame_id] = came_s
            self._wait_until(max(self.now, came_s))
            for layer in self._frame(self._frame_id, budget_s=BUDGET_S):
                self.now += READ_S
                self.streams.on_message(stream, layer, now=self.now, came_s=came_s)
                self._perform()
                self._wait_until(self.now)
        return (self.in_time - before) / seconds

    def _wait_until(self, until_s: float) -> None:
        while (due := self.streams.due_at) is not None and due <= until_s:
            self.now = max(self.now, due)
            self.streams.step(self.now)
            self._perform()
        self.now = max(self.now, until_s)

    def _perform(self) -> None:
        while asked := self.streams.actions():
            for action in asked:
                match action:
                    case Compute(batch):
                        self._tail_ended_s = self.now + TAIL_S
                        self.now += SERVE_S * len(batch.items)
                        self.streams.on_computed(batch, [(1.0,)] * len(batch.items), TAIL_S, now=self.now)
                    case Reply(stream, message):
                        self._say(stream, message)

    def _say(self, stream: int, message: m.ServerMessage) -> None:
        self.now += SAY_S
        self.told += isinstance(message, m.Busy | m.Late)
        if isinstance(message, m.Busy) and not self._deaf:
            self._quiet_until_s[stream] = self.now + message.retry_s
        if isinstance(message, m.Result):
            self.streams.sending.note(self.now - self._tail_ended_s, now=self.now)
            self.answered += 1
            self.in_time += self.now <= self._sent_s[stream, message.frame_id] + BUDGET_S


CAPACITY = 1 / (2 * READ_S + 3 * SAY_S + SERVE_S)
"""Frames a second: two layers read, two acknowledged, one answered."""


def test_the_loop_serves_what_it_can_however_many_ask(served: Served, frame: Any, hello: m.Hello) -> None:
    loop = BusyLoop(served, frame, hello)
    found = {load: loop.run(load * CAPACITY, 6.0) / CAPACITY for load in (0.8, 1.5, 3.0, 6.0, 0.5)}
    assert found[0.8] == pytest.approx(0.8, abs=0.08)
    # Every layer is read; what reading leaves is 0.91, 0.65 and 0.13 of capacity. First come, first served gives nothing.
    assert found[1.5] > 0.75
    assert found[3.0] > 0.5
    assert found[6.0] > 0.04
    found[0.5] = loop.run(0.5 * CAPACITY, 3.0) / CAPACITY
    assert found[0.5] == pytest.approx(0.5, abs=0.08), "the load is gone, and nobody is turned away"


def test_devices_that_listen_leave_the_loop_what_it_can_serve(served: Served, frame: Any, hello: m.Hello) -> None:
    """They are asked to wait until little that is read is read for nothing."""
    loop = BusyLoop(served, frame, hello, deaf=False)
    for load in (1.0, 1.5, 2.0, 3.0, 6.0):
        loop.run(load * CAPACITY, 6.0)
        assert loop.run(load * CAPACITY, 6.0) > 0.75 * CAPACITY, load


def test_what_is_answered_under_load_is_answered_in_time(served: Served, frame: Any, hello: m.Hello) -> None:
    loop = BusyLoop(served, frame, hello)
    loop.run(3 * CAPACITY, 3.0)
    answered, in_time = loop.answered, loop.in_time
    loop.run(3 * CAPACITY, 6.0)
    assert loop.in_time - in_time > 0.95 * (loop.answered - answered)


def test_not_every_shed_frame_is_told_of(served: Served, frame: Any, hello: m.Hello) -> None:
    """What is said costs as much as what is heard; a device that goes on sending has been told."""
    loop = BusyLoop(served, frame, hello)
    loop.run(6 * CAPACITY, 3.0)
    before = loop.told
    loop.run(6 * CAPACITY, 3.0)
    assert loop.told - before < 0.25 * 6 * CAPACITY * 3.0
