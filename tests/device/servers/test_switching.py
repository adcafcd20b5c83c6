"""One device, two servers, virtual time: what becomes of frames when one of them is lost, drains, or says nothing.

Lab protocols: both servers are sound, something happens to the one that is used, and every frame is looked at.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.device.catalogue import Catalogue
from isthmus.device.scheduler import POLICIES
from isthmus.device.servers.servers import Servers
from isthmus.device.session import Session
from isthmus.device.stage_times import StageTimes
from isthmus.edge_server import streams
from isthmus.edge_server.admission import Limits
from isthmus.edge_server.batcher import Batcher
from isthmus.edge_server.tail_times import TailTimes
from isthmus.emulation.link import ShapedLink
from isthmus.emulation.synthetic import constant, steps
from isthmus.emulation.traces import Trace
from isthmus.emulation.virtual.nodes import DeviceNode, ServerNode, Way
from isthmus.emulation.virtual.timeline import Timeline
from isthmus.proto import messages
from isthmus.proto.codec import CODEC_VERSION, CodecConfig
from isthmus.proto.machine import run_virtual
from isthmus.proto.temporal.delta import upto
from isthmus.proto.vocabulary import Answer, AnswerSource, Frame, LinkState, Reason
from moving import clip, temporal
from pair import HASH, TAIL_S, Head, Tail, catalogue, coding

STAGES_S = ((0.004, 0.010), (0.003, 0.008))
FAST = constant(up_mbps=20, down_mbps=20, rtt_ms=10)


class Lab(Timeline):
    """One device at two servers, "0" and "1". Its frames begin at 0.5 s."""

    def __init__(
        self,
        trace: Trace = FAST,
        *,
        own_links: bool = False,
        servers: int = 2,
        deadline_s: float = 0.15,
        fps: float = 30.0,
        policy: str = "always-offload",
        seed: int = 0,
        known: Catalogue | None = None,
        config: CodecConfig | None = None,
        features: Callable[[int], np.ndarray] | None = None,
        hashes: tuple[bytes, ...] = (),
        limits: Limits | None = None,
    ) -> None:
        super().__init__()
        self.limits = limits or Limits()
        self.config = config or coding()[0]
        self.tails = [Tail() for _ in range(servers)]
        self.hashes = hashes or (HASH,) * servers
        self.servers = [ServerNode(self, self.core(index), tail) for index, tail in enumerate(self.tails)]
        known, names = known or catalogue(), [str(index) for index in range(servers)]
        self.head = Head(STAGES_S, lambda _: 0.6, config=config, features=features)
        shared = ShapedLink(trace, "up"), ShapedLink(trace, "down")

        def links() -> tuple[ShapedLink, ShapedLink]:
            return (ShapedLink(trace, "up"), ShapedLink(trace, "down")) if own_links else shared

        self.device = DeviceNode(
            self,
            Session(
                known, POLICIES[policy](known), StageTimes(STAGES_S), servers=Servers(names, chance=random.Random(seed))
            ),
            self.head,
            {name: Way(server, *links()) for name, server in zip(names, self.servers, strict=True)},
            lambda frame, answer, *_: self.answers.append((frame, answer)),
            hello=messages.Hello("pair", HASH, CODEC_VERSION, "device"),
        )
        self.answers: list[tuple[Frame, Answer]] = []
        self._deadline_s, self._period_s = deadline_s, 1 / fps
        self.captured = 0
        self.at(0.0, self.device.connect)
        self.at(0.5, self._capture, 0)

    def core(self, index: int) -> streams.Streams:
        times = TailTimes({b: TAIL_S * (0.8 + 0.2 * b) for b in range(1, 9)}, max_batch=8)
        batcher: Batcher[streams.Ready] = Batcher(times, max_batch=8, stream_credits=8)
        served = streams.Served("pair", self.hashes[index], self.config)
        return streams.Streams(served, batcher, server_id=f"edge-{index}", limits=self.limits)

    @property
    def used(self) -> int:
        """The number of the server that gets the frames."""
        return int(self.device.core.servers.used.name)

    def run(self, seconds: float) -> Lab:
        until_s = self.now + seconds
        run_virtual(self, until_s=until_s)
        self.now = until_s
        return self

    def kill(self, index: int) -> None:
        """Its process ends, and its machine says so."""
        self.servers[index].die(self.now)
        self.device.hang_up(str(index), self.now)

    def freeze(self, index: int) -> None:
        """Its machine stands still; nobody is told."""
        self.servers[index].die(self.now)

    def restart(self, index: int) -> None:
        """It begins anew, in good health."""
        self.servers[index].revive(self.now)
        self.servers[index].restart(self.now, self.core(index))

    def between(self, start_s: float, end_s: float) -> list[Answer]:
        """Answers to the frames captured then."""
        return [a for f, a in self.answers if start_s <= f.captured_s < end_s]

    def check(self) -> None:
        """Every frame has one answer, in time; all are still open that have none."""
        ids = Counter(f.id for f, _ in self.answers)
        assert max(ids.values()) == 1
        missing = set(range(self.captured)) - set(ids)
        assert missing <= set(self.device._frames)
        assert all(a.on_time for _, a in self.answers)

    def _capture(self, now: float, frame_id: int) -> None:
        self.at(now + self._period_s, self._capture, frame_id + 1)
        self.captured += 1
        self.device.take(now, Frame(frame_id, now, now + self._deadline_s))


def fallen_back(answers: list[Answer]) -> int:
    return sum(a.source is not AnswerSource.SERVER for a in answers)


@pytest.mark.parametrize("seed", range(4))
def test_killed_with_a_standby_no_frame_falls_back(seed: int) -> None:
    lab = Lab(seed=seed).run(5 + seed * 0.008)
    first = lab.used
    lab.kill(first)
    lab.run(5)
    lab.check()
    assert fallen_back(lab.between(3, 9.5)) == 0
    after = lab.between(lab.now - 4.9, lab.now - 0.5)
    assert {a.server for a in after} == {str(1 - first)}


@pytest.mark.parametrize("seed", range(4))
def test_frozen_with_a_standby_at_most_one_frame_falls_back(seed: int) -> None:
    """Nobody is told: the frames that are away are given to the standby when it can just still answer them."""
    lab = Lab(seed=seed).run(5 + seed * 0.008)
    first = lab.used
    lab.freeze(first)
    lab.run(8)
    lab.check()
    assert fallen_back(lab.between(3, 12)) <= 1
    assert {a.server for a in lab.between(5.2, 12)} - {None} == {str(1 - first)}
    assert lab.device.core.servers._known[str(first)].state is LinkState.DOWN, "given up after its silence"


@pytest.mark.parametrize(("fps", "deadline_s"), [(30.0, 0.15), (2.0, 0.6)])
@pytest.mark.parametrize("seed", range(2))
def test_a_tail_that_hangs_is_left_although_its_server_acknowledges(seed: int, fps: float, deadline_s: float) -> None:
    """40: the standby answers what the other has taken, one frame falls back at most; after two, all go to the standby."""
    lab = Lab(own_links=True, fps=fps, deadline_s=deadline_s, seed=seed).run(4.0)
    hung = lab.used
    lab.servers[hung].hangs = True
    lab.run(4.0)
    assert lab.used == 1 - hung
    assert fallen_back(lab.between(4.0 - 2 * deadline_s, 7.0)) <= 1
    given = len(lab.tails[hung].given)
    lab.servers[hung].hangs = False
    lab.run(1.0)
    assert len(lab.tails[hung].given) == given, "left alone"
    lab.run(8.0)
    assert fallen_back(lab.between(7.0, 16.0)) == 0
    assert all(server.shunned_until_s is None for server in lab.device.core.servers._up)
    lab.check()


def test_both_tails_hang_and_no_frame_is_sent_twice_for_long() -> None:
    """Neither is to blame more than the other: every frame is answered on the device, and the uplink carries little more."""
    lab = Lab(own_links=True).run(4.0)
    for server in lab.servers:
        server.hangs = True
    before = len(lab.tails[0].given) + len(lab.tails[1].given)
    lab.run(1.0)
    assert len(lab.tails[0].given) + len(lab.tails[1].given) <= before + 31
    assert fallen_back(lab.between(4.05, 4.8)) == len(lab.between(4.05, 4.8))
    lab.check()


def test_drained_with_a_standby_no_frame_falls_back_and_it_is_used_again_when_it_is_back() -> None:
    lab = Lab().run(5)
    first = lab.used
    lab.servers[first].drain(lab.now, 5.0)
    lab.run(2)
    assert lab.used == 1 - first
    lab.servers[first].restart(lab.now, lab.core(first))
    lab.run(13)
    lab.servers[1 - first].drain(lab.now, 5.0)
    lab.run(5)
    lab.check()
    assert fallen_back(lab.between(1, 24)) == 0
    assert {a.server for a in lab.between(20.2, 24)} == {str(first)}


def test_both_gone_answers_on_the_device_and_back_when_one_is() -> None:
    lab = Lab().run(5)
    lab.kill(0)
    lab.kill(1)
    lab.run(5)
    assert fallen_back(lab.between(5, 9)) == len(lab.between(5, 9))
    assert {a.reason for a in lab.between(5.2, 9)} == {Reason.DISCONNECTED}
    lab.servers[1].revive(lab.now)
    lab.run(10)
    lab.check()
    assert fallen_back(lab.between(16, 19)) == 0


@pytest.mark.parametrize("deadline_s", [0.15, 0.4])
def test_an_outage_of_the_one_uplink_is_no_server_s_fault(deadline_s: float) -> None:
    """Both are silent: at most one frame is sent twice, and nobody is suspected."""
    lab = Lab(steps([(5, 20, 20, 10), (1.5, 0, 0, 10), (3600, 20, 20, 10)]), deadline_s=deadline_s).run(5)
    first, sent = lab.used, len(lab.head.sent)
    lab.run(1.5)
    twice = Counter(lab.head.sent[sent:])
    assert sum(count - 1 for count in twice.values()) <= 2, "two layers of one frame"
    lab.run(5)
    lab.check()
    assert lab.used == first
    assert fallen_back(lab.between(8, 11)) == 0


@pytest.mark.parametrize("how", ["kill", "freeze", "drain"])
def test_after_a_switch_the_first_frame_is_whole_and_nothing_is_built_on_a_wrong_reference(how: str) -> None:
    """What one server holds of a stream, another does not, nor what was sent to both."""
    frames, codec = clip(400, seed=4), temporal()
    lab = Lab(known=replace(catalogue(), delta_steps=2), config=codec, features=lambda i: frames[i % 400]).run(5)
    deltas, first = len(lab.head.deltas), lab.used
    assert deltas > 50
    sent = {frame_id for frame_id, *_ in lab.head.sent}
    lab.servers[first].drain(lab.now, 5.0) if how == "drain" else getattr(lab, how)(first)
    lab.run(6)
    lab.check()
    later = [frame_id for frame_id, *_ in lab.head.sent if frame_id not in sent]
    assert fallen_back(lab.between(1, 10.5)) <= 1
    assert all(a.reason is not Reason.INVALID for _, a in lab.answers)
    assert len(lab.head.deltas) > deltas + 50, "and then deltas again"
    switched = next(frame_id for frame_id in later if frame_id in lab.tails[1 - first].given)
    assert (switched, 0, 1) in lab.head.sent, "whole frames have a second layer"
    for tail in lab.tails:
        for frame_id, (features, layers) in tail.given.items():
            if frame_id not in lab.tails[0].given.keys() & lab.tails[1].given.keys():
                believed = upto(lab.head.believed[frame_id], layers)
                np.testing.assert_array_equal(features, believed.symbols * np.float32((0.5, 1.0)[believed.step]))


def test_a_server_with_another_bundle_is_not_used_and_the_right_one_is() -> None:
    lab = Lab(hashes=(b"\x02" * 32, HASH)).run(20)
    lab.check()
    assert lab.used == 1
    assert fallen_back(lab.between(1, 19)) == 0
    assert {a.server for a in lab.between(1, 19)} == {"1"}


def test_credits_and_links_are_each_server_s_own() -> None:
    lab = Lab().run(5)
    one, other = (lab.device.core.servers._known[name] for name in ("0", "1"))
    assert one.link is not other.link
    assert one.link.round_trip_s == pytest.approx(0.010, abs=0.002)
    assert other.link.round_trip_s == pytest.approx(0.010, abs=0.002), "heartbeats show it"


def herd(devices: int, seed: int) -> Iterator[tuple[int, int, list[int]]]:
    """A crowd at two servers, one of which dies at 10 s and is back at 20; (hellos so far, devices up, streams of each) at
    every second from 1 to 30.
    """
    world = Timeline()
    nodes = [ServerNode(world, Lab(limits=Limits(streams=devices)).core(index), Tail()) for index in range(2)]
    known, hellos = catalogue(), [0]
    crowd = []

    class Counted(DeviceNode):
        def dial(self, name: str, now: float) -> None:
            hellos[0] += 1
            super().dial(name, now)

    for number in range(devices):
        up, down = ShapedLink(FAST, "up"), ShapedLink(FAST, "down")
        servers = Servers(("0", "1"), chance=random.Random(f"{seed}/{number}"))
        device = Counted(
            world,
            Session(known, POLICIES["local-only"](known), StageTimes(STAGES_S), servers=servers),
            Head(STAGES_S, lambda _: 0.6),
            {str(index): Way(node, up, down) for index, node in enumerate(nodes)},
            lambda *_: None,
            hello=messages.Hello("pair", HASH, CODEC_VERSION, f"device-{number}"),
        )
        crowd.append(device)
        world.at(number * 1e-4, device.connect)

    def die(now: float) -> None:
        nodes[0].die(now)
        for device in crowd:
            device.hang_up("0", now)

    world.at(10.0, die)
    world.at(20.0, nodes[0].revive)
    for second in range(1, 31):
        run_virtual(world, until_s=float(second))
        up_now = sum(device.core.state is LinkState.UP for device in crowd)
        yield hellos[0], up_now, [node.core.count for node in nodes]


def test_two_hundred_devices_lose_one_of_two_servers_and_nobody_storms() -> None:
    hellos, up, streams_of = zip(*herd(200, seed=1), strict=True)
    assert streams_of[4] == [200, 200]
    assert set(up) == {200}, "nobody is ever without a server"
    a_second = [b - a for a, b in itertools.pairwise(hellos)]
    assert max(a_second) <= 200, "nobody tries twice in a second"
    assert max(a_second[13:]) <= 120, "and then not together"
    assert streams_of[29] == [200, 200], "all stand by again within ten seconds"


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["kill", "freeze", "drain", "hang", "restart", "nothing"]),
        st.integers(0, 2),
        st.floats(0.01, 2.0),
    ),
    max_size=12,
)


@settings(max_examples=12, deadline=None)
@given(EVENTS, st.integers(0, 20), st.sampled_from(["always-offload", "expected-utility"]), st.booleans())
def test_whatever_happens_to_servers_every_frame_is_answered_once_and_in_time(
    events: list[tuple[str, int, float]], seed: int, policy: str, own: bool
) -> None:
    lab = Lab(servers=3, seed=seed, policy=policy, own_links=own, fps=10).run(1)
    for what, index, wait_s in events:
        node = lab.servers[index]
        match what:
            case "kill":
                lab.kill(index)
            case "freeze":
                lab.freeze(index)
            case "drain" if node.alive:
                node.drain(lab.now, 1.0)
            case "hang":
                node.hangs = True
            case "restart":
                lab.restart(index)
        lab.run(wait_s)
    for index in range(len(lab.servers)):
        lab.restart(index)
    lab.run(11)
    lab.check()
    last = lab.between(lab.now - 3, lab.now - 0.5)
    assert lab.device.core.state is LinkState.UP
    assert any(a.source is AnswerSource.SERVER for a in last)
