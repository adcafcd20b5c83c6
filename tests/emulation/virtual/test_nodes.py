"""Devices and servers of the virtual world: they connect, part and carry out what their cores ask, as live ones do."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

import pytest

from isthmus.device.scheduler import POLICIES
from isthmus.device.servers.pauses import FIRST_S, LONGEST_S, STEADY_S
from isthmus.device.servers.servers import Servers
from isthmus.device.session import Session
from isthmus.device.stage_times import StageTimes
from isthmus.device.transport import WELCOME_TIMEOUT_S
from isthmus.edge_server import streams
from isthmus.edge_server.admission import Limits
from isthmus.edge_server.batcher import Batcher
from isthmus.edge_server.tail_times import TailTimes
from isthmus.emulation.link import ShapedLink
from isthmus.emulation.synthetic import constant
from isthmus.emulation.virtual.nodes import DeviceNode, ServerNode, Way, _Alarm
from isthmus.emulation.virtual.timeline import Timeline
from isthmus.proto.codec import CODEC_VERSION
from isthmus.proto.machine import run_virtual
from isthmus.proto.messages import Hello
from isthmus.proto.vocabulary import Answer, AnswerSource, FilterResult, Frame, Guess, LinkState, Reason
from pair import HASH, LABEL_LOCAL, LABEL_SERVER, TAIL_S, Head, Tail, catalogue, coding

ROUND_TRIP_S = 0.040
ALONE = constant(up_mbps=80, down_mbps=80, rtt_ms=1000 * ROUND_TRIP_S)
STAGES_S = ((0.004, 0.010), (0.003, 0.008))
"""[stage][width]: a wide head takes 18 ms."""
Heard = tuple[Frame, Answer, Guess | None, int]


def server(timeline: Timeline, name: str = "edge", **limits: int) -> ServerNode:
    """A server of `pair`'s bundle whose tail takes 5 ms."""
    times = TailTimes(dict.fromkeys(range(1, 9), TAIL_S), max_batch=8)
    batcher: Batcher[streams.Ready] = Batcher(times, max_batch=8, stream_credits=8)
    served = streams.Served("pair", HASH, coding()[0])
    core = streams.Streams(served, batcher, server_id=name, limits=Limits(**limits))
    return ServerNode(timeline, core, Tail())


class Watched(DeviceNode):
    """A device that notes when it tries to connect, and what it answered. Its servers go by "0", "1", …"""

    def __init__(
        self,
        timeline: Timeline,
        *servers: ServerNode,
        name: str = "device",
        policy: str = "always-offload",
        seed: int = 0,
        filter_frame: Callable[[int], FilterResult] | None = None,
    ) -> None:
        self.attempts_s: list[float] = []
        self.answers: list[Heard] = []
        trace, known = ALONE, catalogue()
        chance = random.Random(f"{seed}/{name}")
        session = Session(
            known,
            POLICIES[policy](known),
            StageTimes(STAGES_S),
            servers=Servers(map(str, range(len(servers))), chance=chance),
            filtered=filter_frame is not None,
        )
        up, down = ShapedLink(trace, "up"), ShapedLink(trace, "down")
        super().__init__(
            timeline,
            session,
            Head(STAGES_S, lambda _: 0.6),
            {str(number): Way(server, up, down) for number, server in enumerate(servers)},
            lambda *heard: self.answers.append(heard),
            hello=Hello("pair", HASH, CODEC_VERSION, name),
            filter_frame=filter_frame,
        )

    def dial(self, name: str, now: float) -> None:
        self.attempts_s.append(now)
        super().dial(name, now)

    def is_up(self) -> bool:
        return self.core.state is LinkState.UP

    @property
    def sources(self) -> list[AnswerSource]:
        return [answer.source for _, answer, _, _ in self.answers]


def run(timeline: Timeline, until_s: float) -> None:
    run_virtual(timeline, until_s=until_s)


def frame(frame_id: int, at_s: float, deadline_s: float = 0.150) -> Frame:
    return Frame(frame_id, at_s, at_s + deadline_s)


# Connecting


def test_a_device_is_welcomed_after_one_round_trip() -> None:
    timeline = Timeline()
    edge = server(timeline)
    device = Watched(timeline, edge)
    device.connect(0.0)
    run(timeline, ROUND_TRIP_S - 0.001)
    assert (edge.core.count, device.is_up()) == (1, False)
    run(timeline, ROUND_TRIP_S + 0.001)
    assert device.is_up()


def test_two_servers_are_turned_to_at_once_and_the_one_that_answers_is_used() -> None:
    timeline = Timeline()
    dead, alive = server(timeline, "dead"), server(timeline, "alive")
    dead.die(0.0)
    device = Watched(timeline, dead, alive)
    device.connect(0.0)
    run(timeline, WELCOME_TIMEOUT_S)
    assert (dead.core.count, alive.core.count) == (0, 1)
    assert device.is_up()


def pauses_s(**changes: Any) -> list[float]:
    """Between one attempt given up and the next, with a server that never answers."""
    timeline = Timeline()
    dead = server(timeline)
    dead.die(0.0)
    device = Watched(timeline, dead, **changes)
    device.connect(0.0)
    run(timeline, 60.0)
    attempts = device.attempts_s
    return [b - a - WELCOME_TIMEOUT_S for a, b in itertools.pairwise(attempts)]


def test_pauses_double_to_the_longest_and_vary_by_half() -> None:
    found, expected_s = pauses_s(), FIRST_S
    assert len(found) > 10
    for pause_s in found:
        assert 0.5 * expected_s <= pause_s <= 1.5 * expected_s
        expected_s = min(2 * expected_s, LONGEST_S)


def test_pauses_are_the_seed_s_and_each_device_has_its_own() -> None:
    assert pauses_s() == pauses_s()
    assert pauses_s() != pauses_s(seed=1)
    assert pauses_s() != pauses_s(name="other")


@pytest.mark.parametrize(("lasts_s", "short"), [(STEADY_S + 0.1, True), (ROUND_TRIP_S + 0.1, False)])
def test_only_a_stream_that_lasted_makes_the_next_pause_short_again(lasts_s: float, short: bool) -> None:
    """A server that hangs up soon after its welcome is not pressed."""
    timeline = Timeline()
    edge = server(timeline)
    edge.die(0.0)
    device = Watched(timeline, edge)
    device.connect(0.0)
    timeline.at(20.0, edge.revive)
    while not device.is_up():
        timeline.step(timeline.due_at or 0.0)
    ended_s = device.attempts_s[-1] + lasts_s
    run(timeline, ended_s)
    device.hang_up("0", ended_s)
    run(timeline, ended_s + 2.0)
    pause_s = next(at_s for at_s in device.attempts_s if at_s > ended_s) - ended_s
    assert (pause_s <= 1.5 * FIRST_S) is short
    assert short or pause_s >= 0.5 * LONGEST_S


def test_a_server_that_is_full_ends_the_stream_and_takes_the_next_when_there_is_room() -> None:
    timeline = Timeline()
    edge = server(timeline, streams=1)
    first, second = Watched(timeline, edge, name="first"), Watched(timeline, edge, name="second")
    first.connect(0.0)
    second.connect(0.001)
    run(timeline, 5.0)
    assert (first.is_up(), second.is_up()) == (True, False)
    assert len(second.attempts_s) > 3, "it hears so, and need not wait for the welcome's time to pass"
    first._ways = {"0": Way(server(timeline), ShapedLink(ALONE, "up"), ShapedLink(ALONE, "down"))}  # it stays away
    first.hang_up("0", 5.0)
    run(timeline, 7.0)
    assert second.is_up()
    assert edge.core.count == 1


def test_without_servers_nothing_is_tried_and_every_frame_is_answered_alone() -> None:
    timeline = Timeline()
    device = Watched(timeline)
    device.connect(0.0)
    assert timeline.due_at is None
    device.take(0.0, frame(0, 0.0))
    run(timeline, 1.0)
    assert device.sources == [AnswerSource.EXIT]
    assert device.answers[0][1].reason is Reason.DISCONNECTED


# Parting


def connected(timeline: Timeline, edge: ServerNode, **changes: Any) -> Watched:
    device = Watched(timeline, edge, **changes)
    device.connect(0.0)
    run(timeline, 1.0)
    return device


def test_hanging_up_answers_what_is_away_at_once_and_both_sides_know() -> None:
    timeline = Timeline()
    edge = server(timeline)
    device = connected(timeline, edge)
    device.take(1.0, frame(0, 1.0))
    run(timeline, 1.020)  # the head took 18 ms; the layers are on their way
    assert device.answers == []
    device.hang_up("0", 1.020)
    ((_, answer, _, layers),) = device.answers
    assert (answer.source, answer.reason, answer.answered_s) == (AnswerSource.EXIT, Reason.DISCONNECTED, 1.020)
    assert layers == 2
    assert edge.core.count == 0


def test_nothing_of_an_ended_stream_is_heard_on_the_next_one() -> None:
    """The device hangs up with a result on its way down; that frame has its answer, and gets no second one."""
    timeline = Timeline()
    edge = server(timeline)
    device = connected(timeline, edge)
    device.take(1.0, frame(0, 1.0))
    run(timeline, 1.050)  # 18 ms of head, 20 ms up, 5 ms of tail
    assert edge.core.waiting == 0
    device.hang_up("0", 1.050)
    run(timeline, 3.0)
    assert device.is_up()
    assert device.sources == [AnswerSource.EXIT]


def test_hanging_up_twice_is_hanging_up_once() -> None:
    timeline = Timeline()
    device = connected(timeline, server(timeline))
    device.hang_up("0", 1.0)
    device.hang_up("0", 1.0)
    run(timeline, 3.0)
    assert len(device.attempts_s) == 2


def test_a_server_that_dies_is_found_out_by_its_silence_and_found_again() -> None:
    timeline = Timeline()
    edge = server(timeline)
    device = connected(timeline, edge)
    edge.die(1.0)
    assert edge.core.count == 0
    device.take(1.0, frame(0, 1.0))
    run(timeline, 1.2)
    assert device.answers[0][1].reason is Reason.DEADLINE
    assert device.is_up(), "nobody has told it"
    run(timeline, 6.0)
    assert not device.is_up()
    edge.revive(6.0)
    run(timeline, 12.0)
    assert device.is_up()
    device.take(12.0, frame(1, 12.0))
    run(timeline, 12.2)
    assert device.sources == [AnswerSource.EXIT, AnswerSource.SERVER]


def test_a_dead_server_s_tail_gives_nothing_back() -> None:
    """It dies with a batch on its tail."""
    timeline = Timeline()
    edge = server(timeline)
    device = connected(timeline, edge)
    device.take(1.0, frame(0, 1.0))
    timeline.at(1.040, edge.die)  # 18 ms of head, 20 ms up
    run(timeline, 1.3)
    assert device.sources == [AnswerSource.EXIT]


# Carrying out


def test_whoever_hears_answers_gets_the_frame_the_exit_s_word_and_the_layers_sent() -> None:
    timeline = Timeline()
    device = connected(timeline, server(timeline))
    seen = frame(7, 1.0)
    device.take(1.0, seen)
    run(timeline, 1.2)
    ((about, answer, local, layers),) = device.answers
    assert about == seen
    assert (answer.label, local, layers) == (LABEL_SERVER, Guess(LABEL_LOCAL, 0.6), 2)
    assert answer.latency_s == pytest.approx(0.018 + ROUND_TRIP_S + TAIL_S, abs=0.002)


def test_what_stays_on_the_device_sends_nothing() -> None:
    timeline = Timeline()
    device = connected(timeline, server(timeline), policy="local-only")
    device.take(1.0, frame(0, 1.0))
    run(timeline, 1.2)
    ((_, answer, local, layers),) = device.answers
    assert (answer.label, answer.bytes_up, layers) == (LABEL_LOCAL, 0, 0)
    assert local == Guess(LABEL_LOCAL, 0.6)


def test_an_answered_frame_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    timeline = Timeline()
    device = connected(timeline, server(timeline))
    forgotten: list[int] = []
    monkeypatch.setattr(device.executor, "forget", forgotten.append)
    for n in range(5):
        timeline.at(1.0 + n / 10, device.take, frame(n, 1.0 + n / 10))
    run(timeline, 3.0)
    assert forgotten == list(range(5))
    assert not device._frames
    assert not device._layers


def test_a_filter_is_asked_first_and_takes_its_time() -> None:
    def dismiss_even(frame_id: int) -> FilterResult:
        return FilterResult(frame_id, frame_id % 2 == 0, None, 0.006)

    timeline = Timeline()
    device = connected(timeline, server(timeline), policy="local-only", filter_frame=dismiss_even)
    for n in range(2):
        timeline.at(1.0 + n, device.take, frame(n, 1.0 + n))
    run(timeline, 3.0)
    assert device.sources == [AnswerSource.FILTER, AnswerSource.EXIT]
    assert [answer.latency_s for _, answer, _, _ in device.answers] == pytest.approx([0.006, 0.006 + 0.018])


def test_heartbeats_cross_and_come_back() -> None:
    timeline = Timeline()
    device = connected(timeline, server(timeline))
    run(timeline, 5.0)
    assert device.core.link.round_trip_s == pytest.approx(ROUND_TRIP_S, abs=0.001)


# The alarm


class Sleeper:
    """A core that wants to be woken at whatever time the test says."""

    def __init__(self) -> None:
        self.due_at: float | None = None
        self.woken_s: list[float] = []

    def step(self, now: float) -> None:
        self.woken_s.append(now)
        self.due_at = None


def alarm() -> tuple[Timeline, Sleeper, _Alarm, list[float]]:
    timeline, core = Timeline(), Sleeper()
    after: list[float] = []
    return timeline, core, _Alarm(timeline, core, after.append), after


def test_an_alarm_rings_once_at_the_earliest_time_asked_for() -> None:
    timeline, core, bell, after = alarm()
    for core.due_at in (5.0, 2.0, 2.0):
        bell.set()
    run(timeline, 10.0)
    assert core.woken_s == after == [2.0]


def test_an_alarm_follows_a_wake_up_that_was_put_off() -> None:
    timeline, core, bell, after = alarm()
    core.due_at = 5.0
    bell.set()
    core.due_at = 7.0
    run(timeline, 10.0)
    assert core.woken_s == after == [7.0]


def test_an_alarm_that_is_no_longer_wanted_is_not_heard() -> None:
    timeline, core, bell, after = alarm()
    core.due_at = 5.0
    bell.set()
    core.due_at = None
    run(timeline, 10.0)
    assert core.woken_s == after == []
