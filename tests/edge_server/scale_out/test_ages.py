"""Streams that are of age, in virtual time: alone, and in a server with frames under way."""

from __future__ import annotations

import itertools
import math
from typing import Any

from isthmus.edge_server.admission import Close, Ending, Limits
from isthmus.edge_server.batcher import Batcher
from isthmus.edge_server.scale_out.ages import LINGER_S, SPREAD, Ages
from isthmus.edge_server.streams import Compute, Reply, Served, Streams
from isthmus.edge_server.tail_times import TailTimes
from isthmus.proto import messages as m
from isthmus.proto.messages import Hello

AGE_S = 100.0


def test_never_is_never() -> None:
    ages = Ages()
    ages.enter(1, now=0.0)
    assert ages.due_at is None
    assert ages.grown(math.inf) == []


def test_streams_that_came_together_go_one_by_one() -> None:
    ages = Ages(AGE_S, grace_s=5.0)
    for stream in range(1, 41):
        ages.enter(stream, now=0.0)
    told_s: dict[int, float] = {}
    while ages.due_at is not None:
        now = ages.due_at
        told_s |= dict.fromkeys(ages.grown(now), now)
        for stream in ages.closing(lambda _: 0, now):
            ages.leave(stream)
    assert set(told_s) == set(range(1, 41))
    times = sorted(told_s.values())
    assert times[0] >= (1 - SPREAD) * AGE_S
    assert times[-1] <= (1 + SPREAD) * AGE_S
    assert max(b - a for a, b in itertools.pairwise(times)) < 3 * 2 * SPREAD * AGE_S / 40


def test_one_that_has_frames_inside_stays_until_they_are_answered_or_the_grace_is_over() -> None:
    ages = Ages(AGE_S, grace_s=5.0)
    ages.enter(1, now=0.0)
    assert ages.due_at is not None
    told_s = ages.due_at
    assert ages.grown(told_s) == [1]
    assert ages.closing(lambda _: 0, told_s) == [], "what is on its way still comes"
    assert ages.due_at == told_s + LINGER_S
    assert ages.grown(ages.due_at) == [], "it is told once"
    assert ages.closing(lambda _: 1, told_s + LINGER_S) == []
    assert ages.due_at == told_s + 5.0
    assert ages.closing(lambda _: 0, told_s + 1.0) == [1]
    assert ages.closing(lambda _: 1, told_s + 5.0) == [1]


class Server:
    """`Streams` whose engine is the test."""

    def __init__(self, served: Served, age_s: float) -> None:
        batcher: Batcher[Any] = Batcher(TailTimes({1: 0.01, 8: 0.01}, max_batch=8))
        self.streams = Streams(served, batcher, server_id="edge", limits=Limits(), ages=Ages(age_s, grace_s=5.0))
        self.said: list[Any] = []

    def until(self, until_s: float) -> None:
        while (due := self.streams.due_at) is not None and due <= until_s:
            self.streams.step(due)
            self.collect()

    def collect(self) -> None:
        for action in self.streams.actions():
            self.said.append(action.message if isinstance(action, Reply) else action)


def test_a_stream_of_age_is_told_to_go_and_loses_nothing(served: Served, hello: Hello, frame: Any) -> None:
    server = Server(served, AGE_S)
    stream = server.streams.open(now=0.0)
    server.streams.on_message(stream, hello, now=0.0)
    for second in range(1, 200):  # or it would be closed for its silence
        server.until(float(second))
        if any(isinstance(said, m.Drain) for said in server.said):
            break
        server.streams.on_message(stream, m.Heartbeat(second), now=float(second))
    now = float(second)
    server.said.clear()
    for layer in frame(1):  # it was sent before the drain was heard
        server.streams.on_message(stream, layer, now=now)
    server.until(now + 2.0)
    (batch,) = (said.batch for said in server.said if isinstance(said, Compute))
    assert not any(isinstance(said, Close | m.Busy) for said in server.said)
    server.streams.on_computed(batch, [(0.0, 1.0)], 0.01, now=now + 2.0)
    server.collect()
    *_, result, close = server.said
    assert isinstance(result, m.Result)
    assert isinstance(close, Close)
    assert close.ending is Ending.AGED
    assert not server.streams.count - 1, "it counts until it is gone, and nothing else is there"
