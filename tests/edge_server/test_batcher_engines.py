"""The batcher in front of several engines at once: replicas of a tail that run elsewhere."""

from __future__ import annotations

import heapq

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.edge_server.batcher import Batcher, Item, Refusal, Reject, RunBatch
from isthmus.edge_server.tail_times import TailTimes
from isthmus.proto.machine import earliest

EACH_S = 0.020
ALONE = {1: EACH_S}
"""A tail that takes one frame at a time."""
FLAT = {b: 0.010 + 0.001 * (b - 1) for b in range(1, 9)}


class World:
    """A batcher and its engines, each of which takes exactly t(b)."""

    def __init__(self, times: dict[int, float], engines: int) -> None:
        most = max(times)
        self.batcher: Batcher[None] = Batcher(
            TailTimes(times, max_batch=most), max_batch=most, stream_credits=1000, engines=engines
        )
        self.times, self.now, self.most_at_once = times, 0.0, 0
        self.running: list[tuple[float, int, RunBatch[None]]] = []
        self.ended: list[tuple[float, int]] = []
        self.rejected: list[Reject[None]] = []

    def submit(self, frame_id: int, due_s: float) -> None:
        self.batcher.submit(Item(1, frame_id, due_s, self.now, None), now=self.now)
        self.collect()

    def collect(self) -> None:
        for action in self.batcher.actions():
            if isinstance(action, Reject):
                self.rejected.append(action)
                continue
            heapq.heappush(self.running, (self.now + self.times[len(action.items)], action.items[0].frame_id, action))
            self.most_at_once = max(self.most_at_once, len(self.running))

    def run_until(self, until_s: float) -> None:
        while (due := earliest(self.running[0][0] if self.running else None, self.batcher.due_at)) is not None:
            if due > until_s:
                break
            self.now = max(self.now, due)
            if self.running and due == self.running[0][0]:
                _, _, batch = heapq.heappop(self.running)
                self.ended += [(self.now, item.frame_id) for item in batch.items]
                self.batcher.on_done(batch, self.times[len(batch.items)], now=self.now)
            else:
                self.batcher.step(self.now)
            self.collect()
        self.now = until_s


def in_time(engines: int, rate: float, *, seconds: float = 10.0) -> int:
    """How many of `rate` frames a second, each with a budget of 150 ms, are answered."""
    world = World(ALONE, engines)
    for number in range(int(rate * seconds)):
        world.run_until(number / rate)
        world.submit(number, world.now + 0.15)
    world.run_until(seconds + 1.0)
    return len(world.ended)


def test_twice_the_engines_are_twice_the_goodput() -> None:
    rate = 3 * 4 / EACH_S
    one, two, four = (in_time(engines, rate) for engines in (1, 2, 4))
    assert one == pytest.approx(10 / EACH_S, rel=0.02)
    assert (two / one, four / two) == pytest.approx((2.0, 2.0), rel=0.02)


def test_as_many_batches_as_engines_and_no_more() -> None:
    world = World(ALONE, 3)
    for number in range(7):
        world.submit(number, 1.0)
    world.run_until(1.0)
    assert world.most_at_once == 3
    assert [at for at, _ in world.ended] == pytest.approx([EACH_S] * 3 + [2 * EACH_S] * 3 + [3 * EACH_S])


def test_the_load_is_what_a_newcomer_meets() -> None:
    world = World(ALONE, 2)
    assert world.batcher.load(0.0).wait_s == 0.0
    for number, wait_s in enumerate((0.0, EACH_S, EACH_S, 2 * EACH_S)):
        world.submit(number, 1.0)
        world.run_until(0.0)
        assert world.batcher.load(0.0).wait_s == pytest.approx(wait_s)


def test_a_frame_is_let_in_that_only_a_second_engine_can_do_in_time() -> None:
    for engines, refused in ((1, 1), (2, 0)):
        world = World(ALONE, engines)
        world.submit(0, 0.025)
        world.submit(1, 0.030)
        assert [r.why for r in world.rejected] == [Refusal.BUSY] * refused


def test_an_engine_that_is_lost_and_one_that_comes() -> None:
    world = World(ALONE, 2)
    for number in range(8):
        world.submit(number, 1.0)
    world.run_until(0.001)
    world.batcher.resize(1, now=world.now)
    world.run_until(2 * EACH_S + 0.001)
    assert len(world.ended) == 3, "both that ran, then one at a time"
    world.batcher.resize(4, now=world.now)
    world.run_until(1.0)
    assert world.most_at_once == 4
    assert len(world.ended) == 8


@settings(max_examples=60, deadline=None)
@given(
    engines=st.integers(1, 4),
    asked=st.lists(st.tuples(st.floats(0.0, 0.02), st.floats(0.005, 0.2)), min_size=1, max_size=60),
)
def test_whatever_is_let_in_ends_once_and_in_time(engines: int, asked: list[tuple[float, float]]) -> None:
    world, due = World(FLAT, engines), {}
    for number, (gap_s, budget_s) in enumerate(asked):
        world.run_until(world.now + gap_s)
        due[number] = world.now + budget_s
        world.submit(number, due[number])
    world.run_until(world.now + 10.0)
    assert sorted([*(frame for _, frame in world.ended), *(r.item.frame_id for r in world.rejected)]) == sorted(due)
    assert all(at <= due[frame] + 1e-9 for at, frame in world.ended)
    assert world.most_at_once <= engines
    assert world.batcher.idle
