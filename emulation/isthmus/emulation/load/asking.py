"""A device that asks a server for every frame, as its share of a load. Pure: no clock, no IO, no unseeded randomness.

It has no head and answers nothing itself: what it counts is how many of its frames the server answers within the deadline.
Told `Busy`, it asks for nothing for as long as it was asked to, as Isthmus's own devices do; those frames count as asked.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from isthmus.device.guard import SessionConfig
from isthmus.models.bundle import Bundle
from isthmus.proto.codec import CODEC_VERSION, Codec, checksum
from isthmus.proto.errors import ConfigError
from isthmus.proto.messages import Busy, DeviceMessage, Heartbeat, Hello, Layer, Result, ServerMessage
from isthmus.proto.vocabulary import ServerTimings

WAY_S = 0.005
"""What a device takes off its budget for the way to the server and back, in a network without a bottleneck."""
JITTER = 0.2
"""Frames come up to so much of a period early or late: no two cameras have one clock."""


@dataclass(frozen=True)
class OnWire:
    """One frame of a bundle as it crosses: any device may send it, over and over."""

    hello: Hello
    payloads: tuple[bytes, ...]
    crcs: tuple[int, ...]

    @classmethod
    def of(cls, bundle: Bundle) -> OnWire:
        """Random features at the finest step. Raises ConfigError for a bundle that sends pictures only."""
        codec = bundle.codec
        if not codec.steps:
            raise ConfigError(f"{bundle.manifest.name}: sends pictures only; capacity is measured with features")
        features = np.random.default_rng(0).laplace(0, 1, (codec.height, codec.width, codec.channels))
        payloads = tuple(Codec(codec).encode(features.astype(np.float32), 0))
        hello = Hello(bundle.manifest.name, bundle.sha256, CODEC_VERSION, "load")
        return cls(hello, payloads, tuple(map(checksum, payloads)))

    def layers(self, frame_id: int, budget_s: float) -> list[DeviceMessage]:
        """The messages of one frame."""
        last = len(self.payloads) - 1
        pairs = enumerate(zip(self.payloads, self.crcs, strict=True))
        return [Layer(frame_id, i, i == last, budget_s, payload, crc) for i, (payload, crc) in pairs]


@dataclass(frozen=True)
class Asking:
    """What every device of a load does."""

    fps: float
    deadline_s: float


class Asker:
    """One device: `step` when it is due gives what to send, `hear` takes what the server says."""

    def __init__(
        self, number: int, frame: OnWire, asking: Asking, *, begin_s: float, counts_s: float, seed: int
    ) -> None:
        """Frames that are captured from `counts_s` on count."""
        self._frame, self._asking, self._counts_s = frame, asking, counts_s
        self._random = random.Random(f"{seed}/{number}")
        self._due_s = begin_s + self._random.random() / asking.fps
        self._beat_s = begin_s + self._random.random() * SessionConfig.heartbeat_s
        self._quiet_until_s, self._next, self._beats = -math.inf, 0, 0
        self._away_s: dict[int, float] = {}
        self.asked = self.in_time = 0
        self.took_s: list[float] = []
        """From capture to answer, of every answer that counts."""
        self.timings: list[ServerTimings] = []
        """What the server says of each."""

    @property
    def due_at(self) -> float:
        """When to call `step`."""
        return min(self._due_s, self._beat_s)

    def step(self, now: float) -> list[DeviceMessage]:
        """What is sent at `now`; the frames that came due meanwhile and could not be sent are asked for in vain."""
        said: list[DeviceMessage] = []
        if self._beat_s <= now:
            self._beat_s, self._beats = now + SessionConfig.heartbeat_s, self._beats + 1
            said.append(Heartbeat(self._beats))
        while self._due_s <= now:
            captured_s = self._due_s
            self._due_s += self._random.uniform(1 - JITTER, 1 + JITTER) / self._asking.fps
            self.asked += captured_s >= self._counts_s
            if captured_s < self._quiet_until_s or self._due_s <= now:
                continue
            self._next += 1
            self._away_s[self._next] = captured_s
            said += self._frame.layers(self._next, captured_s + self._asking.deadline_s - WAY_S - now)
        return said

    def hear(self, message: ServerMessage, now: float) -> None:
        """The server said something."""
        match message:
            case Result(frame_id, timings=timings):
                captured_s = self._away_s.pop(frame_id, -math.inf)
                if captured_s >= self._counts_s:
                    self.in_time += now <= captured_s + self._asking.deadline_s
                    self.took_s.append(now - captured_s)
                    self.timings.append(timings)
            case Busy(frame_id, retry_s):
                self._away_s.pop(frame_id, None)
                self._quiet_until_s = now + min(retry_s, SessionConfig.busy_s)
            case _:
                pass


@dataclass(frozen=True)
class Answered:
    """What became of a load."""

    asked: int
    in_time: int
    took_s: tuple[float, ...]
    """From capture to answer, of all that were answered."""
    timings: tuple[ServerTimings, ...] = ()
    """What the server says of each of these."""

    @classmethod
    def of(cls, askers: Sequence[Asker]) -> Answered:
        """All devices together."""
        took_s = tuple(took_s for asker in askers for took_s in asker.took_s)
        timings = tuple(each for asker in askers for each in asker.timings)
        return cls(sum(a.asked for a in askers), sum(a.in_time for a in askers), took_s, timings)

    @property
    def share(self) -> float:
        """The frames that were answered in time, of all that were captured."""
        return self.in_time / max(1, self.asked)
