"""A frame that a session has no answer to yet, and how its answer is made of what came of it. Pure."""

from __future__ import annotations

import enum
import math

from msgspec import Struct

from isthmus.device.capture.gate import Sketch
from isthmus.device.scheduler import Offload
from isthmus.device.servers.server import Server
from isthmus.proto.vocabulary import (
    Answer,
    AnswerSource,
    Frame,
    Guess,
    OperatingPoint,
    Placing,
    Reason,
    ServerTimings,
    Timings,
)

NOWHERE = ServerTimings()
HARDLY = 0.05
"""Where things are tracked, a frame may be sent for those after it alone: one that is so unlikely to be back in time is
answered from its exit once it is sent. To wait for the deadline would gain nothing, and now and then miss it."""


class Phase(enum.Enum):
    """Where an open frame is."""

    WAITING = "waiting"
    RUNNING = "running"
    AWAY = "away"
    TRACKED = "tracked"
    """No detector is to see it: it waits for what is tracked to be moved to it."""


class OpenFrame(Struct):
    """A frame that has no answer yet, or one that the tracker waits for."""

    frame: Frame
    due_s: float
    sketch: Sketch | None = None
    phase: Phase = Phase.WAITING
    width: int = 0
    guess: Guess | None = None
    exit: OperatingPoint | None = None
    """Which early exit `guess` is of."""
    offload: Offload | None = None
    started_s: float | None = None
    head_s: float = 0.0
    encode_s: float = 0.0
    sent_s: float = 0.0
    bytes_up: int = 0
    unsent: int = 0
    """Messages of it that are still to be written."""
    placings: tuple[Placing, ...] = ()
    voted: Guess | None = None
    """What `guess` is together with what was seen before; None without a tracker."""
    server: Server | None = None
    """Where it is away."""
    before: Server | None = None
    """Who had acknowledged it when it was given to `server` too."""
    doubt_s: float = math.inf
    """When to ask whether `server` has it: as late as another could still answer it."""
    referred: Server | None = None
    """Whose reference its last stage was told of."""
    answered_by: str | None = None
    """The server whose result its answer is."""
    let_go_s: float | None = None
    """It is answered, and what still comes back of it serves the tracker until then; None while it has no answer."""

    @property
    def wakes_s(self) -> float:
        """When something must be done about it."""
        if self.let_go_s is not None:
            return self.let_go_s
        return self.doubt_s if self.doubt_s < self.due_s else self.due_s

    @property
    def hardly_back(self) -> bool:
        """Whether all of it is sent, hardly to be back in time, and its exit's answer is still to be given."""
        promised = None if self.offload is None else self.offload.promised
        answered = self.guess is None or self.let_go_s is not None
        return self.unsent == 0 and not answered and promised is not None and promised < HARDLY

    def on_sent(self, size_bytes: int, encode_s: float) -> None:
        """A message of it was encoded, in so many seconds, and written."""
        self.bytes_up += size_bytes
        self.encode_s += encode_s
        self.unsent -= 1

    def answer(
        self,
        told: Guess | None,
        source: AnswerSource,
        reason: Reason,
        point: OperatingPoint | None,
        server: ServerTimings,
        age_s: float = 0.0,
        *,
        now: float,
    ) -> Answer:
        """The frame's answer at `now`, of what was `told`; `age_s` as in `Answer`."""
        frame = self.frame
        started_s = now if self.started_s is None else self.started_s
        network_s = max(0.0, now - self.sent_s - server.total_s) if source is AnswerSource.SERVER else 0.0
        return Answer(
            frame_id=frame.id,
            label=told.label if told else None,
            confidence=told.confidence if told else 0.0,
            source=source,
            reason=reason,
            point=point,
            answered_s=now,
            latency_s=now - frame.captured_s,
            on_time=now <= frame.deadline_s,
            bytes_up=self.bytes_up,
            timings=Timings(started_s - frame.captured_s, self.head_s, self.encode_s, network_s, server),
            detail=told.detail if told else None,
            age_s=age_s,
            server=self.answered_by if source is AnswerSource.SERVER else None,
            promised=None if self.offload is None else self.offload.promised,
        )
