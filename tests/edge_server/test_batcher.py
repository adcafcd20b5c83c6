"""The batcher in virtual time, in front of an engine that takes exactly t(b) unless told otherwise."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.edge_server.batcher import Batcher, Item, Refusal, Reject, RunBatch
from isthmus.edge_server.tail_times import TailTimes
from isthmus.proto.machine import earliest
from isthmus.proto.messages import Hint

LINEAR = {b: 0.010 * b for b in range(1, 9)}
"""Batching gains nothing."""
FLAT = {b: 0.010 + 0.001 * (b - 1) for b in range(1, 9)}
"""Batching gains a lot."""


class World:
    """A batcher with its engine; `log` holds what it did, with the time."""

    def __init__(self, times: dict[int, float], *, max_batch: int = 8, stream_credits: int = 100) -> None:
        self.batcher: Batcher[None] = Batcher(
            TailTimes(times, max_batch=max_batch), max_batch=max_batch, stream_credits=stream_credits
        )
        self.times, self.now = dict(times), 0.0
        self.done_at: float | None = None
        self.running: RunBatch[None] | None = None
        self.log: list[tuple[float, RunBatch[None] | Reject[None]]] = []

    def submit(self, stream: int, frame_id: int, *, due_s: float) -> None:
        self.batcher.submit(Item(stream, frame_id, due_s, self.now, None), now=self.now)
        self.collect()

    def collect(self) -> None:
        for action in self.batcher.actions():
            self.log.append((self.now, action))
            if isinstance(action, RunBatch):
                assert self.running is None, "one batch at a time"
                self.running, self.done_at = action, self.now + self.times[len(action.items)]

    def run_until(self, until_s: float) -> None:
        while (due := earliest(self.done_at, self.batcher.due_at)) is not None and due <= until_s:
            self.now = max(self.now, due)
            if due == self.done_at and self.running is not None:
                batch, self.running, self.done_at = self.running, None, None
                self.batcher.on_done(batch, self.times[len(batch.items)], now=self.now)
            else:
                self.batcher.step(self.now)
            self.collect()
        self.now = until_s

    @property
    def batches(self) -> list[list[int]]:
        return [[i.frame_id for i in a.items] for _, a in self.log if isinstance(a, RunBatch)]

    def rejected(self, why: Refusal) -> list[int]:
        return [a.item.frame_id for _, a in self.log if isinstance(a, Reject) and a.why is why]


def test_the_earliest_deadline_runs_first() -> None:
    world = World(LINEAR, max_batch=1)
    for frame_id, due_s in enumerate((0.5, 0.2, 0.4, 0.3)):
        world.submit(1, frame_id, due_s=due_s)
    world.run_until(1.0)
    assert world.batches == [[1], [3], [2], [0]]


def test_the_longest_prefix_that_meets_the_earliest_deadline() -> None:
    world = World(FLAT)
    world.submit(1, 0, due_s=0.0125)  # a batch of three would end at 0.012, of four at 0.013
    for frame_id in range(1, 6):
        world.submit(1, frame_id, due_s=1.0)
    world.run_until(1.0)
    assert world.batches == [[0, 1, 2], [3, 4, 5]]


def test_late_is_said_before_anything_is_computed() -> None:
    world = World(LINEAR, max_batch=1)
    world.submit(1, 0, due_s=1.0)
    world.run_until(0.0)
    world.submit(1, 1, due_s=0.025)
    world.submit(1, 2, due_s=0.5)
    world.times[1] = 0.018  # this once the engine takes longer than it ever did
    assert world.running is not None
    world.done_at = 0.018
    world.run_until(1.0)
    assert world.rejected(Refusal.LATE) == [1]
    assert world.batches == [[0], [2]]
    assert [at for at, action in world.log if isinstance(action, Reject)] == [0.018]


def test_a_frame_that_no_idle_server_could_answer_is_late_at_the_door() -> None:
    world = World(LINEAR)
    world.submit(1, 0, due_s=0.009)
    assert world.rejected(Refusal.LATE) == [0]


def test_what_does_not_fit_behind_the_queue_is_told_when_to_come_back() -> None:
    world = World(LINEAR, max_batch=1)
    for frame_id in range(5):
        world.submit(1, frame_id, due_s=0.051)
    world.submit(2, 5, due_s=0.052)
    world.submit(2, 6, due_s=0.0585)
    refusals = [action for _, action in world.log if isinstance(action, Reject)]
    assert [(r.item.frame_id, r.why, r.hint) for r in refusals] == [
        (5, Refusal.BUSY, Hint.NARROWER),
        (6, Refusal.BUSY, Hint.NARROWER),
    ]
    assert [r.retry_s for r in refusals] == pytest.approx([0.008, 0.0015])
    world.run_until(0.0081)  # the same budget again, after the time that it was told
    world.submit(2, 7, due_s=world.now + 0.052)
    world.run_until(1.0)
    assert [frame for batch in world.batches for frame in batch] == [0, 1, 2, 3, 4, 7]


def test_a_newcomer_must_not_cost_an_admitted_frame_its_deadline() -> None:
    world = World(LINEAR, max_batch=1)
    world.submit(1, 0, due_s=0.011)
    world.submit(1, 1, due_s=0.0201)
    world.submit(2, 2, due_s=0.015)
    assert world.rejected(Refusal.BUSY) == [2]
    world.run_until(1.0)
    assert world.batches == [[0], [1]]


def test_far_behind_an_earlier_exit_is_the_hint() -> None:
    world = World(LINEAR, max_batch=1)
    for frame_id in range(10):
        world.submit(1, frame_id, due_s=0.105)
    world.submit(2, 10, due_s=0.106)
    world.submit(2, 11, due_s=0.02)
    hints = [action.hint for _, action in world.log if isinstance(action, Reject)]
    assert hints == [Hint.NARROWER, Hint.NARROWER]
    for frame_id in range(12, 14):
        world.submit(2, frame_id, due_s=0.09)
    world.batcher.times.observe(1, 0.02, now=0.0)
    world.batcher.times.observe(1, 0.02, now=0.0)
    world.submit(2, 14, due_s=0.106)
    assert [action.hint for _, action in world.log if isinstance(action, Reject)][-1] is Hint.EARLIER_EXIT


def test_credits_are_kept_per_stream_and_come_back() -> None:
    world = World(LINEAR, max_batch=1, stream_credits=2)
    for frame_id in range(3):
        world.submit(1, frame_id, due_s=1.0)
    world.submit(2, 3, due_s=1.0)
    assert world.rejected(Refusal.BUSY) == [2]
    world.run_until(0.5)
    world.submit(1, 4, due_s=1.0)
    world.run_until(1.0)
    assert world.rejected(Refusal.BUSY) == [2]
    assert sorted(frame for batch in world.batches for frame in batch) == [0, 1, 3, 4]


def test_streams_take_turns_among_equal_deadlines() -> None:
    world = World(LINEAR, max_batch=1)
    for frame_id in range(4):
        world.submit(1, frame_id, due_s=1.0)
    world.submit(2, 10, due_s=1.0)
    world.submit(2, 11, due_s=1.0)
    world.submit(3, 20, due_s=1.0)
    world.run_until(1.0)
    assert [batch[0] for batch in world.batches] == [0, 10, 20, 1, 11, 2, 3]


def test_behind_a_busy_engine_company_comes_by_itself() -> None:
    world = World(FLAT)
    for frame_id in range(12):
        world.submit(frame_id, frame_id, due_s=1.0)
        world.run_until(0.0021 * (frame_id + 1))
    world.run_until(1.0)
    assert world.batches == [[0], [1, 2, 3, 4], [5, 6, 7, 8, 9, 10], [11]]


def busy_then_idle() -> World:
    """At 0.1 s, after frames 1 ms apart, the engine has been idle for a while."""
    world = World(FLAT)
    for frame_id in range(2):
        world.submit(frame_id, frame_id, due_s=0.05)
        world.run_until(0.001 * (frame_id + 1))
    for frame_id in range(60):  # late at the door, but they keep the expectation of company up
        world.run_until(0.04 + 0.001 * frame_id)
        world.submit(9, 100 + frame_id, due_s=0.0)
    world.run_until(0.1)
    world.log.clear()
    return world


def test_company_that_comes_in_time_shares_the_batch() -> None:
    world = busy_then_idle()
    world.submit(3, 2, due_s=1.0)
    world.run_until(0.101)
    world.submit(4, 3, due_s=1.0)
    world.run_until(1.0)
    assert world.batches == [[2, 3]]


@pytest.mark.parametrize(
    ("due_s", "expected_s"),
    [
        (1.0, 0.106),  # 0.85 * 2 * 10 ms - 11 ms
        (0.1135, 0.1025),  # a batch of two must still end in time
    ],
)
def test_the_wait_is_bounded_by_its_gain_and_by_the_deadline(due_s: float, expected_s: float) -> None:
    world = busy_then_idle()
    world.submit(1, 2, due_s=due_s)
    world.run_until(1.0)
    assert [at for at, _ in world.log] == pytest.approx([expected_s])


def test_a_lone_stream_never_waits() -> None:
    world = World(FLAT)
    for frame_id in range(5):
        world.run_until(0.1 * frame_id)
        world.submit(1, frame_id, due_s=world.now + 0.1)
    world.run_until(1.0)
    assert [at for at, _ in world.log] == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])


def test_without_a_gain_nobody_waits() -> None:
    world = World(LINEAR)
    for frame_id in range(3):
        world.submit(frame_id, frame_id, due_s=1.0)
        world.run_until(0.001 * (frame_id + 1))
    assert world.batches == [[0]]


def test_a_cancelled_frame_is_not_computed() -> None:
    world = World(LINEAR, max_batch=1)
    for frame_id in range(3):
        world.submit(1, frame_id, due_s=1.0)
    world.batcher.cancel(1, 1)
    world.batcher.cancel(1, 7)
    world.run_until(1.0)
    assert world.batches == [[0], [2]]
    assert world.batcher.inside(1) == 0


def test_a_gone_stream_takes_its_frames_with_it_even_those_that_run() -> None:
    world = World(LINEAR, max_batch=1)
    world.submit(1, 0, due_s=1.0)
    world.submit(1, 1, due_s=1.0)
    world.run_until(0.0)
    world.batcher.forget(1)
    world.submit(2, 2, due_s=1.0)
    world.run_until(1.0)
    assert world.batches == [[0], [2]]
    assert world.batcher.idle
    assert world.batcher.inside(1) == 0


def test_the_load_is_what_a_newcomer_would_meet() -> None:
    world = World(FLAT, max_batch=2)
    world.submit(1, 0, due_s=1.0)
    world.run_until(0.0)
    for frame_id in range(1, 4):
        world.submit(1, frame_id, due_s=1.0)
    world.now = 0.004
    load = world.batcher.load(0.004)
    assert load.queue == 3
    assert load.wait_s == pytest.approx(0.006 + 0.011)  # the rest of what runs, and a batch of two
    assert load.tail_s == pytest.approx(0.011)


Step = tuple[float, int, float, bool]


@settings(max_examples=300)
@given(
    st.lists(st.tuples(st.floats(0, 0.02), st.integers(0, 3), st.floats(0, 0.2), st.booleans()), max_size=40),
    st.sampled_from([LINEAR, FLAT]),
    st.integers(1, 8),
    st.integers(1, 6),
)
def test_every_frame_ends_in_exactly_one_outcome(
    steps: list[Step], times: dict[int, float], max_batch: int, stream_credits: int
) -> None:
    world = World(times, max_batch=max_batch, stream_credits=stream_credits)
    cancelled: set[int] = set()
    for frame_id, (gap_s, stream, budget_s, cancel) in enumerate(steps):
        world.run_until(world.now + gap_s)
        world.submit(stream, frame_id, due_s=world.now + budget_s)
        if cancel:
            before = world.batcher.waiting
            world.batcher.cancel(stream, frame_id)
            if world.batcher.waiting < before:
                cancelled.add(frame_id)
    world.run_until(world.now + 10)
    ran = [frame for batch in world.batches for frame in batch]
    refused = world.rejected(Refusal.LATE) + world.rejected(Refusal.BUSY)
    assert sorted([*ran, *refused, *cancelled]) == list(range(len(steps)))
    assert world.batcher.idle
    assert all(world.batcher.inside(stream) == 0 for stream in range(4))


@given(st.lists(st.tuples(st.floats(0, 0.01), st.integers(0, 3), st.floats(0.01, 0.2)), max_size=40), st.integers(1, 8))
def test_what_runs_on_an_engine_as_fast_as_promised_is_in_time(
    steps: list[tuple[float, int, float]], max_batch: int
) -> None:
    world = World(FLAT, max_batch=max_batch)
    for frame_id, (gap_s, stream, budget_s) in enumerate(steps):
        world.run_until(world.now + gap_s)
        world.submit(stream, frame_id, due_s=world.now + budget_s)
    world.run_until(world.now + 10)
    for at, action in world.log:
        if isinstance(action, RunBatch):
            assert at + FLAT[len(action.items)] <= min(item.due_s for item in action.items) + 1e-9


def test_what_other_tails_take_is_reckoned_with() -> None:
    """Half the time goes by from batch to batch, and for now the engine is another's."""
    world = World(LINEAR, max_batch=1)
    world.batcher.share(0.050, 2.0)
    assert world.batcher.load(0.0).wait_s == pytest.approx(0.050)
    world.submit(1, 1, due_s=0.055)
    assert world.rejected(Refusal.BUSY) == [1]
    world.submit(1, 2, due_s=1.0)
    assert world.batcher.load(0.0).wait_s == pytest.approx(0.050 + 2 * 0.010)
    world.batcher.share(0.0, 2.0)
    world.batcher.step(0.0)
    world.collect()
    assert world.batches == [[2]]
    assert world.batcher.load(0.0).wait_s == pytest.approx(0.010 + 0.010), "its own batch, then the other's"
    world.batcher.share(0.0, 1.0)
    assert world.batcher.load(0.0).wait_s == pytest.approx(0.010)
