"""Frames coded against others, device and server together: whatever is lost, no frame is built on a wrong reference.

First the two cores with anything done to what passes between them, then whole streams in virtual time.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace as replaced

from isthmus.device.scheduler import AlwaysOffload
from isthmus.device.temporal.acknowledged import Acknowledged
from isthmus.device.temporal.coder import Coder
from isthmus.edge_server.admission import Limits
from isthmus.edge_server.batcher import Batcher
from isthmus.edge_server.streams import Compute, Reply, Served, Streams
from isthmus.edge_server.tail_times import TailTimes
from isthmus.proto import messages as m
from isthmus.proto.codec import CODEC_VERSION, checksum
from isthmus.proto.frame_codec import FrameCodec
from isthmus.proto.messages import Hello, Layer
from isthmus.proto.temporal.delta import upto
from isthmus.proto.temporal.reconstruction import HELD, Reconstruction
from isthmus.proto.vocabulary import Reason, Reference, StageResult
from moving import clip, temporal
from pair import HASH, Pair, catalogue

CLIP = clip(120, seed=3)
CODEC = FrameCodec(temporal())
KNOWN = replace(catalogue(), delta_steps=2)


# The two cores, and anything between them


class Between:
    """A device's coder and a server, with a way up and a way down in which messages wait until something becomes of them."""

    def __init__(self) -> None:
        self.coder, self.acknowledged = Coder(temporal()), Acknowledged()
        self.up: deque[Layer] = deque()
        self.down: deque[m.ServerMessage] = deque()
        self.frames, self.deltas, self.refused, self.now = 0, 0, 0, 0.0
        self.believed: dict[int, Reconstruction] = {}
        self.checked: list[tuple[int, int]] = []
        """Every frame that reached the tail, and its layers."""
        self.restart()

    def restart(self) -> None:
        """Another server, which knows nothing; what is on its way is not lost, but comes to this one."""
        batcher: Batcher[Any] = Batcher(TailTimes({1: 1e-3, 8: 1e-3}, max_batch=8), stream_credits=64)
        served = Served("moving", HASH, temporal())
        self.server = Streams(served, batcher, server_id="edge", limits=Limits(stream_credits=64))
        self.reconnect()

    def reconnect(self) -> None:
        """A new stream; a layer of the old one may still come up in it."""
        self.acknowledged.on_disconnected()
        self.stream = self.server.open(now=self.now)
        self.server.on_message(self.stream, Hello("moving", HASH, CODEC_VERSION, "device"), now=self.now)
        self.down.clear()
        self.work()

    def send(self, step: int, layers: int) -> None:
        """The device sends the next frame."""
        frame, x = self.frames, CLIP[self.frames % len(CLIP)]
        self.frames += 1
        reference = self.acknowledged.newest
        sizes, deltas = self.coder.sizes(x, (), reference)
        result = StageResult(
            frame, 1, 1.0, None, 0.0, sizes, reference=reference if deltas else None, delta_bytes=deltas
        )
        priced = self.acknowledged.priced(result)
        as_delta = priced.as_delta(step, layers) and priced.reference is not None
        self.acknowledged.on_sent(frame, layers, delta=as_delta)
        if as_delta and priced.reference is not None:
            payload, seal = self.coder.delta(frame, x, step, layers, priced.reference)
            self.deltas += 1
            self.up.append(Layer(frame, 0, True, 1.0, payload, checksum(payload, seal), 0, priced.reference.frame_id))
        else:
            payloads = self.coder.whole(frame, x, (), step)[:layers]
            for i, payload in enumerate(payloads):
                self.up.append(Layer(frame, i, i == layers - 1, 1.0, payload, checksum(payload)))
        held = self.coder.held(Reference(frame, 2))
        assert held is not None
        self.believed[frame] = held

    def arrive(self) -> None:
        """The next layer reaches the server, which computes what it can."""
        if self.up:
            self.server.on_message(self.stream, self.up.popleft(), now=self.now)
            self.work()

    def answer(self) -> None:
        """The next message reaches the device."""
        if not self.down:
            return
        match self.down.popleft():
            case m.Welcome(references=references):
                self.acknowledged.on_connected(references)
            case m.Result(frame_id, layers):
                self.acknowledged.on_result(frame_id, layers)
            case m.Invalid(frame_id):
                self.refused += 1
                self.acknowledged.on_refused(frame_id)

    def lose(self) -> None:
        if self.up:
            self.up.popleft()

    def lose_answer(self) -> None:
        if self.down and not isinstance(self.down[0], m.Welcome):
            self.down.popleft()

    def overtake(self) -> None:
        if len(self.up) > 1:
            self.up.append(self.up.popleft())

    def damage(self) -> None:
        if self.up and self.up[0].payload:
            layer = self.up[0]
            payload = bytes((*layer.payload[:-1], layer.payload[-1] ^ 1))
            self.up[0] = Layer(layer.frame_id, layer.layer, layer.last, 1.0, payload, layer.crc, 0, layer.reference)

    def mistake(self) -> None:
        """A layer names another frame than it is coded against."""
        if self.up and self.up[0].reference is not None:
            layer = self.up[0]
            other = max(0, (layer.reference or 0) - 1)
            self.up[0] = Layer(layer.frame_id, 0, True, 1.0, layer.payload, layer.crc, 0, other)

    def work(self) -> None:
        """Let the server do all that it can do, and look at what it computes."""
        self.now += 0.01
        while (due := self.server.due_at) is not None and due <= self.now:
            self.server.step(self.now)
        while actions := self.server.actions():
            for action in actions:
                if isinstance(action, Reply):
                    self.down.append(action.message)
                elif isinstance(action, Compute):
                    for item in action.batch.items:
                        self.check(item.frame_id, item.payload.features, item.payload.layers_used)
                    answers = [(1.0, 0.0)] * len(action.batch.items)
                    self.server.on_computed(action.batch, answers, 1e-3, now=self.now)

    def check(self, frame: int, features: np.ndarray, layers: int) -> None:
        """What the tail is given is what the device believes that it is given."""
        believed = upto(self.believed[frame], layers)
        np.testing.assert_array_equal(features, believed.symbols * np.float32((0.5, 1.0)[believed.step]))
        self.checked.append((frame, layers))


WAYS: dict[str, Callable[[Between], None]] = {
    name: getattr(Between, name)
    for name in ("arrive", "answer", "lose", "lose_answer", "overtake", "damage", "mistake", "reconnect", "restart")
}
CALM = ("arrive",) * 6 + ("answer",) * 8
EVENTS = st.one_of(
    st.tuples(st.just("send"), st.integers(0, 1), st.integers(1, 2)),
    st.sampled_from([*CALM, *WAYS]).map(lambda name: (name, 0, 0)),
)


@settings(max_examples=150, deadline=None)
@given(events=st.lists(EVENTS, max_size=80))
def test_whatever_is_lost_no_frame_is_built_on_a_wrong_reference(events: list[tuple[str, int, int]]) -> None:
    world = Between()
    for name, step, layers in events:
        if name == "send":
            world.send(step, layers)
        else:
            WAYS[name](world)


def calm(world: Between, frames: int, lag: int) -> None:
    """So many frames, each answered `lag` frames later."""
    for _ in range(frames):
        world.send(0, 2)
        if len(world.up) > lag:
            while world.up and world.up[0].frame_id <= world.frames - lag:
                world.arrive()
        while world.down:
            world.answer()


@pytest.mark.parametrize("lag", [1, 3, 8, 15])
def test_a_calm_stream_is_made_of_deltas(lag: int) -> None:
    world = Between()
    calm(world, 60, lag)
    assert world.refused == 0
    assert world.deltas > 60 - 2 * lag - 2


def test_an_answer_that_comes_too_late_leaves_nothing_to_refer_to() -> None:
    """The server holds so many frames; what came before them is not asked for."""
    world = Between()
    calm(world, 60, HELD + 2)
    assert world.refused == world.deltas == 0


def test_a_wrong_reference_costs_its_layer_and_the_next_frame_is_whole() -> None:
    world = Between()
    calm(world, 10, 1)
    before = world.deltas
    world.send(0, 2)
    world.mistake()
    world.arrive()
    while world.down:
        world.answer()
    assert (world.refused, world.deltas) == (1, before + 1)
    world.send(0, 2)
    assert world.deltas == before + 1
    calm(world, 3, 1)
    assert world.deltas > before + 1


# Whole streams


def pair(*rows: tuple[float, float, float, float], **settings_: Any) -> Pair:
    """A device with a clip, at 30 frames a second, whose policy sends everything unless another is given."""
    given: dict[str, Any] = {"policy": AlwaysOffload(KNOWN), "fps": 30.0, "known": KNOWN, "config": temporal()}
    frames = clip(400, seed=4)
    return Pair(*rows, **{**given, "features": lambda i: frames[i % 400], **settings_}).connected()


def check(p: Pair) -> int:
    """Every frame that the tail was given is the one that the device believes it was given; how many there were."""
    for frame, (features, layers) in p.tail.given.items():
        believed = upto(p.head.believed[frame], layers)
        np.testing.assert_array_equal(features, believed.symbols * np.float32((0.5, 1.0)[believed.step]))
    return len(p.tail.given)


def whole(p: Pair) -> list[int]:
    """The frames that were sent whole."""
    return sorted({frame for frame, *_ in p.head.sent} - p.head.deltas.keys())


def test_a_stream_begins_whole_and_goes_on_in_deltas() -> None:
    p = pair((60.0, 8.0, 8.0, 80.0)).run(6)
    assert check(p) > 160
    assert whole(p) == [1, 2, 3]  # the stream came up with frame 1, whose answer was back before frame 4
    assert set(p.head.deltas.values()) <= p.tail.given.keys()
    sizes = [answer.bytes_up for _, answer in p.answers]
    assert np.mean(sizes[10:]) < 0.2 * np.mean(sizes[:3])


def test_a_lost_layer_costs_its_frame_alone() -> None:
    """5 % of all layers never arrive."""
    p, rng, lost = pair((60.0, 8.0, 8.0, 80.0)), random.Random(0), list[int]()
    passed_on = p.device._pass_on

    def lossy(name: str, message: m.DeviceMessage, payload_bytes: int, now: float) -> None:
        if isinstance(message, Layer) and rng.random() < 0.05:
            lost.append(message.frame_id)
        else:
            passed_on(name, message, payload_bytes, now)

    p.device._pass_on = lossy  # type: ignore[method-assign]
    p.run(10)
    assert len(lost) > 8
    assert check(p) >= 285 - len(lost)
    assert not set(lost) & set(p.head.deltas.values()) - p.tail.given.keys()
    assert all(answer.reason is not Reason.INVALID for _, answer in p.answers)
    assert len(whole(p)) < 10


def test_a_new_stream_begins_whole() -> None:
    p = pair().run(3)
    before = len(whole(p))
    p.cut()
    p.server.revive(p.now)
    cut_at = max(frame for frame, *_ in p.head.sent)
    p.run(3)
    check(p)
    again = [frame for frame in whole(p) if frame > cut_at]
    assert len(whole(p)) == before + len(again)
    assert again
    assert again[0] == min(frame for frame, *_ in p.head.sent if frame > cut_at)
    assert all(reference > cut_at for frame, reference in p.head.deltas.items() if frame > cut_at)
    assert all(answer.reason is not Reason.INVALID for _, answer in p.answers)


def test_a_server_that_has_lost_what_it_held_says_so_once() -> None:
    """The device then sends whole frames, until one is answered."""
    p = pair().run(3)
    held = next(iter(p.server.core.lanes))._references
    stream = next(iter(held))
    held[stream]._held.clear()
    before = len(whole(p))
    p.run(3)
    check(p)
    refused = [answer for _, answer in p.answers if answer.reason is Reason.INVALID]
    assert 1 <= len(refused) <= 2
    assert len(whole(p)) > before
    assert max(whole(p)) < max(p.head.deltas)


@pytest.mark.parametrize("older", ["server", "device"])
def test_an_older_half_is_sent_and_sends_whole_frames(older: str) -> None:
    """It speaks the same codec version, and says nothing of references."""
    p = pair(known=replace(KNOWN, delta_steps=0)) if older == "device" else pair()
    if older == "server":
        p = pair()
        heard = p.device.hear

        def hear(name: str, now: float, message: m.ServerMessage | None) -> None:
            heard(name, now, replaced(message, references=0) if isinstance(message, m.Welcome) else message)

        p.device.hear = hear  # type: ignore[method-assign]
        p.device.hang_up("", p.now)
    p.run(4)
    assert check(p) > 80
    assert not p.head.deltas
    assert all(answer.reason is Reason.RETURNED for _, answer in p.answers[20:])


def test_the_full_step_crosses_a_link_of_16_kbit_s_at_10_frames_a_second() -> None:
    """The rule takes the finest step and all layers, since they cost what coarse ones did; without deltas it cannot."""
    link = (120.0, 0.016, 0.016, 60.0)
    frames = clip(400, seed=4)
    settings_: dict[str, Any] = {"policy": "expected-utility", "fps": 10.0, "deadline_s": 0.3}
    p = pair(link, **settings_, features=lambda i: frames[i % 400]).run(40)
    check(p)
    answers = p.between(10, 39)
    full = [a for a in answers if a.point is not None and (a.point.step, a.point.layers) == (0, 2) and a.on_time]
    assert len(full) >= 0.95 * len(answers)
    plain = pair(link, **settings_, known=replace(KNOWN, delta_steps=0)).run(40).between(10, 39)
    assert sum(a.point is not None and (a.point.step, a.point.layers) == (0, 2) for a in plain) < 0.2 * len(plain)


def test_a_moving_camera_is_sent_whole() -> None:
    frames = [clip(1, seed=1000 + i)[0] for i in range(60)]
    p = pair(features=lambda i: frames[i % 60]).run(2)
    check(p)
    for frame, answer in p.answers:
        assert answer.bytes_up <= sum(map(len, CODEC.encode(frames[frame.id % 60], (), 0))) + 2


def test_memory_is_bounded_on_both_sides() -> None:
    p = pair().run(12)
    (lane,) = p.server.core.lanes
    (held,) = lane._references.values()
    assert len(held._held) == HELD
    assert len(p.head.coder._sent._held) == HELD
    p.device.hang_up("", p.now)
    assert not lane._references
