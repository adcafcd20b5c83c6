"""A server under load in virtual time: real `Streams` and `Batcher`, a tail of a profile's times, and a loop that has a cost.

The loop does one thing after the other: it reads a message, or takes a batch's answers, in the order in which they came. What
it decides is carried out when it has done that; a batch then goes to the tail's thread and its answers come back.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from dataclasses import dataclass, field

import numpy as np

from isthmus.edge_server.admission import Close, Limits
from isthmus.edge_server.batcher import Batcher
from isthmus.edge_server.streams import Compute, Ready, Reply, Served, Streams
from isthmus.edge_server.tail_times import TailTimes
from isthmus.emulation.load.asking import Answered, Asker, Asking, OnWire
from isthmus.models.bundle import Bundle
from isthmus.proto.codec import CodecConfig
from isthmus.proto.frame_codec import Crossed
from isthmus.proto.machine import earliest
from isthmus.proto.messages import DeviceMessage, Layer
from isthmus.proto.temporal.reconstruction import Reconstruction

SETTLING_S, COUNTED_S = 2.0, 6.0
"""A server that sheds finds its share within two seconds; what comes then counts."""

QUANTILES = (0.1, 0.5, 0.9, 0.99)
"""Of a distribution these are known; between them it is taken to be even, and nothing lies beyond."""


@dataclass(frozen=True)
class VirtualServer:
    """What is known of a server: its tail's times, and what one frame costs the loop that carries all streams."""

    tail_s: tuple[float, ...]
    """Seconds of a batch of 1, 2, 3 …"""
    loop_s: float = 0.0
    """Processor seconds of one frame outside the tail: to receive, decode, batch and answer it."""
    hop_s: float = 0.0
    """From the loop to the tail's thread and back."""
    stretch: tuple[float, ...] = ()
    """How many times longer than `tail_s` a batch takes, at the QUANTILES; empty: it takes that."""
    engines: int = 1
    credits: int = 8

    def tail_takes_s(self, size: int, chance: random.Random) -> float:
        """How long a batch of so many takes, by `chance`."""
        if not self.stretch:
            return self.tail_s[size - 1]
        return self.tail_s[size - 1] * float(np.interp(chance.random(), QUANTILES, self.stretch))


def answered(server: VirtualServer, bundle: Bundle, asking: Asking, devices: int, *, seed: int) -> Answered:
    """What becomes of so many devices' frames."""
    world = _World(server, bundle, asking, devices, seed)
    world.run(SETTLING_S + COUNTED_S)
    return Answered.of(world.askers)


@dataclass
class _World:
    server: VirtualServer
    bundle: Bundle
    asking: Asking
    devices: int
    seed: int
    now: float = 0.0
    running: list[tuple[float, int, _Batch]] = field(default_factory=list)

    def __post_init__(self) -> None:
        codec, times_s = self.bundle.codec, self.server.tail_s
        size = len(times_s)
        times = TailTimes(dict(enumerate(times_s, start=1)), max_batch=size)
        batcher: Batcher[Ready] = Batcher(
            times, max_batch=size, stream_credits=self.server.credits, engines=self.server.engines
        )
        served = Served(self.bundle.manifest.name, self.bundle.sha256, codec)
        limits = Limits(self.devices, self.server.credits, workers=self.server.engines)
        self.streams = Streams(served, batcher, server_id="edge", limits=limits, codec=_AnyPayload(codec))
        frame = OnWire.of(self.bundle)
        self.step_s = self.server.loop_s / (len(frame.payloads) + 1)
        """The loop's share for each message of a frame, and for its answer."""
        self.chance = random.Random(f"{self.seed}/tail")
        numbers = [self.streams.open(now=0.0) for _ in range(self.devices)]
        self.askers = [Asker(n, frame, self.asking, begin_s=0.0, counts_s=SETTLING_S, seed=self.seed) for n in numbers]
        for stream in numbers:
            self.streams.on_message(stream, frame.hello, now=0.0)
        self.free_s = 0.0
        self.perform()
        self.coming = [(asker.due_at, stream) for stream, asker in zip(numbers, self.askers, strict=True)]
        heapq.heapify(self.coming)
        self.inbox: deque[tuple[float, int, DeviceMessage | _Batch]] = deque()

    def run(self, until_s: float) -> None:
        """Do what is due, in order, until the frames of that time are answered."""
        while (due := self.due()) <= until_s + self.asking.deadline_s:
            self.now = max(self.now, due)
            if self.running and self.running[0][0] <= self.now:
                came_s, number, done = heapq.heappop(self.running)
                self.inbox.append((came_s, number, done))
            elif self.inbox and max(self.free_s, self.inbox[0][0]) <= self.now:
                self.take(*self.inbox.popleft())
            elif self.coming[0][0] <= self.now:
                _, stream = heapq.heappop(self.coming)
                asker = self.askers[stream - 1]
                if self.now < until_s:
                    self.inbox.extend((self.now, stream, message) for message in asker.step(self.now))
                    heapq.heappush(self.coming, (asker.due_at, stream))
                else:
                    heapq.heappush(self.coming, (float("inf"), stream))
            else:
                self.streams.step(self.now)
            self.perform()

    def take(self, came_s: float, stream: int, what: DeviceMessage | _Batch) -> None:
        """The loop turns to the next thing that came."""
        if isinstance(what, _Batch):
            items = what.asked.batch.items
            self.free_s = self.now + self.step_s * len(items)
            self.streams.on_computed(what.asked.batch, [(0.0, 1.0)] * len(items), what.tail_s, now=self.now)
            return
        if isinstance(what, Layer):
            self.free_s = self.now + self.step_s
        self.streams.on_message(stream, what, now=self.now, came_s=came_s)

    def due(self) -> float:
        """When something is due next."""
        heard = max(self.free_s, self.inbox[0][0]) if self.inbox else None
        done = self.running[0][0] if self.running else None
        due = earliest(self.coming[0][0], self.streams.due_at, heard, done)
        return float("inf") if due is None else due

    def perform(self) -> None:
        """Carry out what the server decided, when its loop has done what it does; its answers arrive at once then."""
        then_s = max(self.now, self.free_s)
        for action in self.streams.actions():
            match action:
                case Compute():
                    first, size = action.batch.items[0], len(action.batch.items)
                    tail_s = self.server.tail_takes_s(size, self.chance)
                    entry = first.stream * 1_000_000 + first.frame_id, _Batch(action, tail_s)
                    heapq.heappush(self.running, (then_s + self.server.hop_s + tail_s, *entry))
                case Reply(stream, message):
                    self.askers[stream - 1].hear(message, then_s)
                case Close(stream):
                    self.streams.on_gone(stream)


@dataclass(frozen=True)
class _Batch:
    """What the tail was asked, and how long it takes for that."""

    asked: Compute
    tail_s: float


class _AnyPayload:
    """Payloads as long as real ones; what is in them does not matter."""

    def __init__(self, codec: CodecConfig) -> None:
        self.max_layer_bytes = codec.max_layer_bytes

    def crossed(self, payloads: object, reference: Reconstruction | None = None) -> Crossed:
        return Crossed(np.zeros(1, np.float32), 1)
