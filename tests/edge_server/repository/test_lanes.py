"""Several bundles on one server, in virtual time: whom a hello leads where, and how the lanes share workers and memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace as changed

from isthmus.edge_server.admission import HELLO_S, Close, Ending, Limits
from isthmus.edge_server.batcher import Batcher
from isthmus.edge_server.repository.fair_share import OVERDUE_S
from isthmus.edge_server.repository.lanes import RETIRED_S
from isthmus.edge_server.streams import SWEEP_S, Compute, Drop, Fetch, Reply, Served, Streams
from isthmus.edge_server.tail_times import TailTimes
from isthmus.proto import messages as m
from isthmus.proto.machine import earliest

TAIL_S = 0.010
BUDGET_S = 0.2


class House:
    """`Streams` with an engine for each bundle; the tail of bundle n takes `tail_s[n]` whatever the batch."""

    def __init__(self, served: Served, engine: Any, *, limits: Limits | None = None, bundles: int = 2) -> None:
        self.limits = limits or Limits()
        self.streams = Streams(server_id="edge", limits=self.limits)
        self.bundles = [replace(served, name=f"b{n}", sha256=bytes([n]) * 32) for n in range(bundles)]
        self.tail_s = {served.sha256: TAIL_S for served in self.bundles}
        self.engine, self.now = engine, 0.0
        self.said: dict[int, list[m.ServerMessage]] = {}
        self.closed: dict[int, tuple[Ending, str]] = {}
        self.running: list[tuple[float, Compute, float]] = []
        self.ran: list[tuple[float, int]] = []
        """When a batch began, and of which bundle."""
        self.fetched: list[int] = []
        self.dropped: list[int] = []

    def load(self, *numbers: int) -> None:
        for n in numbers:
            self.streams.offer(self.bundles[n])
            times = TailTimes({1: self.tail_s[self.bundles[n].sha256]}, max_batch=8)
            inside = self.limits.stream_credits
            self.streams.add(self.bundles[n], Batcher(times, max_batch=1, stream_credits=inside), now=self.now)
        self.collect()

    def device(self, hello: m.Hello, bundle: int) -> int:
        stream = self.streams.open(now=self.now)
        self.said[stream] = []
        served = self.bundles[bundle]
        self.hear(stream, changed(hello, bundle_name=served.name, bundle_sha256=served.sha256))
        return stream

    def hear(self, stream: int, *messages: m.DeviceMessage) -> None:
        for message in messages:
            self.streams.on_message(stream, message, now=self.now)
        self.collect()

    def gone(self, stream: int) -> None:
        self.streams.on_gone(stream)
        self.collect()

    def collect(self) -> None:
        while actions := self.streams.actions():
            for action in actions:
                match action:
                    case Reply(stream, message):
                        self.said[stream].append(message)
                    case Close(stream, ending, why):
                        self.closed[stream] = ending, why
                        self.streams.on_gone(stream)
                    case Compute(_, sha256):
                        tail_s = self.tail_s[sha256]
                        self.running.append((self.now + tail_s, action, tail_s))
                        self.ran.append((self.now, sha256[0]))
                    case Fetch(sha256):
                        self.fetched.append(sha256[0])
                    case Drop(sha256):
                        self.dropped.append(sha256[0])

    def run_until(self, until_s: float, meanwhile: Callable[[float], None] = lambda _: None) -> None:
        while (due := earliest(self.streams.due_at, *(ends for ends, _, _ in self.running))) is not None:
            if due > until_s:
                break
            self.now = max(self.now, due)
            done = next((entry for entry in self.running if entry[0] <= self.now), None)
            if done is not None:
                self.running.remove(done)
                features = np.stack([item.payload.features for item in done[1].batch.items])
                self.streams.on_computed(done[1].batch, self.engine.run(features), done[2], now=self.now)
            else:
                self.streams.step(self.now)
            self.collect()
            meanwhile(self.now)
        self.now = until_s

    def kinds(self, stream: int) -> list[str]:
        return [type(message).__name__ for message in self.said[stream]]

    def results(self, stream: int) -> int:
        return self.kinds(stream).count("Result")


def test_a_hello_leads_to_its_bundle(served: Served, engine: Any, hello: m.Hello, frame: Any) -> None:
    house = House(served, engine)
    house.load(0, 1)
    devices = [house.device(hello, n) for n in (0, 1)]
    for stream in devices:
        house.hear(stream, *frame(7))
    house.run_until(1.0)
    assert [house.results(stream) for stream in devices] == [1, 1]
    assert sorted(bundle for _, bundle in house.ran) == [0, 1]


def test_a_hello_for_none_of_them_is_told_what_there_is(served: Served, engine: Any, hello: m.Hello) -> None:
    house = House(served, engine, bundles=9)
    assert house.closed == {}
    stranger = house.device(hello, 8)
    assert house.closed[stranger][1].endswith("this server serves none; give both halves the same bundle")
    house.load(*range(8))
    stranger = house.device(hello, 8)
    ending, why = house.closed[stranger]
    assert ending is Ending.MISMATCH
    assert why.startswith("hello: bundle b8 080808080808…, this server serves b0 000000000000…, b1 010101010101…, ")
    assert why.endswith("b5 050505050505… and 2 more; give both halves the same bundle")


def test_places_are_the_servers_and_not_a_bundles(served: Served, engine: Any, hello: m.Hello) -> None:
    house = House(served, engine, limits=Limits(streams=2))
    house.load(0, 1)
    first, second, third = (house.device(hello, n) for n in (0, 1, 1))
    assert house.kinds(first) == house.kinds(second) == ["Welcome"]
    assert house.closed[third] == (Ending.CROWDED, "edge: 2 streams are open, max_streams = 2")


def test_the_newest_stream_of_a_certificate_wins_across_bundles(served: Served, engine: Any, hello: m.Hello) -> None:
    house = House(served, engine)
    house.load(0, 1)
    named = changed(hello, client_id="cam7")
    streams = []
    for n in (0, 1):
        stream = house.streams.open(now=0.0, address="10.0.0.1", certificate="cam7")
        house.said[stream] = []
        house.hear(stream, changed(named, bundle_sha256=house.bundles[n].sha256))
        streams.append(stream)
    assert house.closed[streams[0]][0] is Ending.REPLACED
    assert house.kinds(streams[1]) == ["Welcome"]


def test_a_greedy_bundle_starves_no_other(served: Served, engine: Any, hello: m.Hello, frame: Any) -> None:
    """One asks for three times what there is; the other, for a fifth of it, is answered every time."""
    house = House(served, engine, limits=Limits(workers=1, stream_credits=8))
    house.tail_s[house.bundles[0].sha256] = 0.04
    house.load(0, 1)
    greedy = [house.device(hello, 0) for _ in range(8)]
    modest, sent = house.device(hello, 1), 0
    for tick in range(400):
        house.run_until(tick * 0.01)
        for stream in greedy[tick % 2 :: 2]:
            house.hear(stream, *frame(tick, budget_s=BUDGET_S))
        if tick % 5 == 0:
            house.hear(modest, *frame(tick, budget_s=BUDGET_S))
            sent += 1
    house.run_until(5.0)
    assert house.results(modest) == sent
    busy_s = sum(house.tail_s[house.bundles[0].sha256] for _, bundle in house.ran if bundle == 0)
    assert busy_s > 0.7 * 4.0, "what the modest one leaves is the greedy one's"


def test_what_the_others_take_is_told_to_devices_and_counted_at_the_door(
    served: Served, engine: Any, hello: m.Hello, frame: Any
) -> None:
    house = House(served, engine, limits=Limits(workers=1))
    house.tail_s[house.bundles[0].sha256] = 0.1
    house.load(0, 1)
    slow, quick = house.device(hello, 0), house.device(hello, 1)
    house.hear(slow, *frame(1))
    house.run_until(0.001)
    house.hear(quick, m.Heartbeat(1), *frame(1, budget_s=0.05))
    heartbeat = house.said[quick][1]
    assert isinstance(heartbeat, m.ServerHeartbeat)
    assert heartbeat.load.wait_s == pytest.approx(0.1, abs=0.01)
    assert house.kinds(quick)[-1] == "Busy", "it would only be late"
    house.hear(quick, *frame(2, budget_s=0.2))
    house.run_until(1.0)
    assert house.results(quick) == 1


def test_a_lane_that_is_alone_again_counts_so(served: Served, engine: Any, hello: m.Hello, frame: Any) -> None:
    house = House(served, engine, limits=Limits(workers=1))
    house.tail_s[house.bundles[0].sha256] = 0.1
    house.load(0, 1)
    slow, quick = house.device(hello, 0), house.device(hello, 1)
    for stream in (slow, quick):
        house.hear(stream, *frame(1))
    house.run_until(0.5)
    house.gone(slow)
    house.streams.withdraw(house.bundles[0].sha256)
    for now in (1.0, 1.0 + RETIRED_S):
        house.streams.tidy(now)
    house.now = 2.0 + RETIRED_S
    house.hear(quick, *frame(2), *frame(3), m.Heartbeat(1))
    heartbeat = house.said[quick][-1]
    assert isinstance(heartbeat, m.ServerHeartbeat)
    assert heartbeat.load.wait_s == pytest.approx(2 * TAIL_S)


def test_a_tail_that_hangs_holds_the_others_up_for_a_moment(
    served: Served, engine: Any, hello: m.Hello, frame: Any
) -> None:
    house = House(served, engine, limits=Limits(workers=1))
    house.load(0, 1)
    house.tail_s[house.bundles[0].sha256] = 100.0
    hanging, well = house.device(hello, 0), house.device(hello, 1)
    house.hear(hanging, *frame(1))
    house.run_until(0.001)
    house.hear(well, *frame(1))
    house.run_until(5.0)
    assert house.results(well) == 1
    assert next(at for at, bundle in house.ran if bundle == 1) == pytest.approx(OVERDUE_S, abs=0.01)


def test_a_tail_is_loaded_when_a_device_asks_for_it(served: Served, engine: Any, hello: m.Hello) -> None:
    house = House(served, engine)
    house.streams.offer(house.bundles[0])
    first, second = house.device(hello, 0), house.device(hello, 0)
    assert house.fetched == [0], "once for all who wait"
    assert house.said[first] == []
    house.load(0)
    assert house.kinds(first) == house.kinds(second) == ["Welcome"]


def test_a_tail_that_cannot_be_loaded_sends_those_away_who_wait(served: Served, engine: Any, hello: m.Hello) -> None:
    house = House(served, engine)
    house.load(1)
    house.streams.offer(house.bundles[0])
    waiting, other = house.device(hello, 0), house.device(hello, 1)
    house.streams.on_not_loaded(house.bundles[0].sha256, "bundle b0: its tail is damaged")
    house.collect()
    assert house.closed == {waiting: (Ending.UNLOADED, "hello: bundle b0: its tail is damaged")}
    house.device(hello, 0)
    assert house.fetched == [0, 0], "the next one asks again"
    assert house.kinds(other) == ["Welcome"]


def test_a_device_waits_for_a_tail_as_long_as_for_a_welcome(served: Served, engine: Any, hello: m.Hello) -> None:
    house = House(served, engine)
    house.streams.offer(house.bundles[0])
    stream = house.device(hello, 0)
    house.run_until(HELLO_S + SWEEP_S)
    ending, why = house.closed[stream]
    assert ending is Ending.UNLOADED
    assert why == "hello: bundle b0 is still being loaded; try again"
    house.load(0)
    assert house.kinds(house.device(hello, 0)) == ["Welcome"]


def test_who_waits_for_a_tail_may_not_speak_before_it_is_there(
    served: Served, engine: Any, hello: m.Hello, frame: Any
) -> None:
    house = House(served, engine)
    house.streams.offer(house.bundles[0])
    hasty, twice = house.device(hello, 0), house.device(hello, 0)
    house.hear(hasty, *frame(1))
    house.hear(twice, changed(hello, bundle_sha256=house.bundles[0].sha256))
    assert house.closed[hasty] == (Ending.MALFORMED, "layer: expected a hello first")
    assert house.closed[twice] == (Ending.MALFORMED, "hello: expected one hello only")
    house.load(0)
    assert house.said[hasty] == house.said[twice] == []


def test_the_least_used_tail_leaves_for_another(served: Served, engine: Any, hello: m.Hello) -> None:
    house = House(served, engine, limits=Limits(tails=2), bundles=3)
    house.load(0, 1)
    house.gone(house.device(hello, 1))
    house.gone(house.device(hello, 0))
    house.streams.offer(house.bundles[2])
    house.device(hello, 2)
    assert (house.dropped, house.fetched) == ([1], [2])
    house.load(2)
    assert [lane.served.name for lane in house.streams.lanes] == ["b0", "b2"]


def test_a_tail_that_is_used_does_not_leave(served: Served, engine: Any, hello: m.Hello) -> None:
    house = House(served, engine, limits=Limits(tails=1))
    house.load(0)
    device = house.device(hello, 0)
    house.streams.offer(house.bundles[1])
    refused = house.device(hello, 1)
    assert house.closed[refused] == (Ending.CROWDED, "edge: 1 tails are in use, max_tails = 1")
    house.gone(device)
    house.device(hello, 1)
    assert (house.dropped, house.fetched) == ([0], [1])


def test_a_bundle_that_is_withdrawn_is_served_until_its_devices_are_gone(
    served: Served, engine: Any, hello: m.Hello, frame: Any
) -> None:
    house = House(served, engine)
    house.load(0, 1)
    device = house.device(hello, 0)
    house.streams.withdraw(house.bundles[0].sha256)
    house.streams.tidy(house.now)
    house.hear(device, *frame(1))
    house.run_until(1.0)
    assert house.results(device) == 1
    house.gone(device)
    house.streams.tidy(2.0)
    back = house.device(hello, 0)  # it had only lost its connection
    assert house.kinds(back) == ["Welcome"]
    house.gone(back)
    for now in (3.0, 3.0 + RETIRED_S - 0.1):
        house.streams.tidy(now)
    assert house.dropped == []
    house.streams.tidy(3.0 + RETIRED_S)
    house.collect()
    assert house.dropped == [0]
    assert house.closed[house.device(hello, 0)][0] is Ending.MISMATCH


def test_a_drain_waits_for_the_frames_of_all_bundles(served: Served, engine: Any, hello: m.Hello, frame: Any) -> None:
    house = House(served, engine)
    house.load(0, 1)
    devices = [house.device(hello, n) for n in (0, 1)]
    for stream in devices:
        house.hear(stream, *frame(1))
    house.streams.drain(5.0, now=house.now)
    house.collect()
    house.run_until(4.0)
    assert [house.results(stream) for stream in devices] == [1, 1]
    assert {house.closed[stream][0] for stream in devices} == {Ending.DRAINED}
