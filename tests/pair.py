"""A device and a server in virtual time: the real session, link estimator, codec and batcher over the real sans-IO link.

Only the networks are stood in for: stages and tails take a fixed time, exits are as confident as a script says.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from functools import cache
from itertools import count

import numpy as np

from isthmus.device import actions
from isthmus.device.catalogue import Catalogue, Known
from isthmus.device.compute import StageTimes
from isthmus.device.scheduler import POLICIES, Policy
from isthmus.device.session import Session
from isthmus.edge_server import streams
from isthmus.edge_server.batcher import Batcher
from isthmus.edge_server.tail_times import TailTimes
from isthmus.emulation.link import ShapedLink
from isthmus.emulation.synthetic import steps
from isthmus.emulation.traces import Trace
from isthmus.proto import messages
from isthmus.proto.codec import CODEC_VERSION, Codec, CodecConfig, checksum, fit
from isthmus.proto.machine import earliest
from isthmus.proto.plan import Answer, Frame, Guess, OperatingPoint, StageResult

WIDTHS = (0.5, 1.0)
CLASSES = 4
LABEL_LOCAL, LABEL_SERVER = 0, 1
TAIL_S = 0.005
OVERHEAD_BYTES = 30
"""What framing adds to a message."""
HASH = b"\x01" * 32


@cache
def coding() -> tuple[CodecConfig, np.ndarray]:
    """A fitted configuration and features to send: about 0.4 kB."""
    x = np.random.default_rng(0).laplace(0, 0.7, (40, 8, 8, 12)).astype(np.float32)
    return fit(x, (0.0,) * 12, (0.5, 1.0)), x[0]


def catalogue(exit_accuracy: float = 0.7, tail_accuracy: float = 0.95) -> Catalogue:
    """Two widths, two stages, two steps, two layers; confidence tells nothing but itself."""
    edges = (0.5, 0.9)
    last = (0.4, exit_accuracy, 0.97)

    def exit_at(width: float, index: int) -> Known:
        return Known(OperatingPoint(width, index), exit_accuracy - 0.1 * (1 - index), 1.0, (last, last))

    def offload(width: float, step: int, layers: int) -> Known:
        accuracy = tail_accuracy - 0.05 * (layers == 1) - 0.02 * step - 0.02 * (width < 1)
        size = {(0, 1): 150.0, (0, 2): 330.0, (1, 1): 80.0, (1, 2): 240.0}[step, layers]
        return Known(OperatingPoint(width, None, step, layers), accuracy, 1.0, ((accuracy,) * 3,) * 2, size)

    return Catalogue(
        widths=WIDTHS,
        confidence_edges=edges,
        stage_flops=((1, 4), (1, 4)),
        exits=tuple(tuple(exit_at(w, i) for i in range(2)) for w in WIDTHS),
        offloads=tuple(tuple(tuple(offload(w, s, n) for n in (1, 2)) for s in (0, 1)) for w in WIDTHS),
    )


class Pair:
    """One device, one server, one link; `run` moves time on. `stages_s[stage][width]` is what stages really take."""

    def __init__(
        self,
        *rows: tuple[float, float, float, float],
        policy: str | Policy = "expected-utility",
        confidence: Callable[[int], float] = lambda _: 0.6,
        fps: float = 15.0,
        deadline_s: float = 0.15,
        stages_s: tuple[tuple[float, float], ...] = ((0.004, 0.010), (0.003, 0.008)),
        stream_credits: int = 8,
    ) -> None:
        """`rows` of (seconds, up Mbit/s, down Mbit/s, round trip ms) shape the link."""
        known = catalogue()
        chosen = POLICIES[policy](known) if isinstance(policy, str) else policy
        self.session = Session(known, chosen, StageTimes(stages_s))
        config, self._features = coding()
        self._codec = Codec(config)
        self._sizes = self._codec.predict(self._features)
        served = streams.Served("pair", HASH, config)
        times = TailTimes({b: TAIL_S * (0.8 + 0.2 * b) for b in range(1, 9)}, max_batch=8)
        self._batcher: Batcher[streams.Ready] = Batcher(times, max_batch=8, stream_credits=stream_credits)
        self.server = streams.Streams(
            served, self._batcher, server_id="edge", limits=streams.Limits(stream_credits=stream_credits)
        )
        trace: Trace = steps(rows or ((3600.0, 8.0, 8.0, 20.0),))
        self._up, self._down = ShapedLink(trace, "up"), ShapedLink(trace, "down")
        self._confidence, self._deadline_s, self._stages_s = confidence, deadline_s, stages_s
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._order = count()
        self._stream: int | None = None
        self.now = 0.0
        self.answers: list[tuple[Frame, Answer]] = []
        self.forgotten: list[int] = []
        self.sent: list[actions.Send] = []
        self._frames: dict[int, Frame] = {}
        self._next_frame, self._period_s = 0, 1 / fps
        self._at(0.05, self._capture)

    def connected(self) -> Pair:
        """Itself, with a stream on its way."""
        self.connect()
        return self

    def connect(self) -> None:
        """Open a stream; the hello is on its way."""
        self._stream = self.server.open(now=self.now)
        self._to_server(messages.Hello("pair", HASH, CODEC_VERSION, "device"), 0.0)

    def cut(self) -> None:
        """The stream dies on both sides."""
        if self._stream is not None:
            self.server.on_gone(self._stream)
        self._stream = None
        self.session.on_disconnected(now=self.now)
        self._perform()

    def do(self, what: Callable[[], None]) -> None:
        """Something from outside happens now."""
        what()
        self._perform()

    def run(self, seconds: float) -> Pair:
        """Let so much time pass, one due event at a time, in due order."""
        until = self.now + seconds
        while (due := self._due) is not None and due <= until:
            self.now = max(self.now, due)
            if self._events and self._events[0][0] <= due:
                heapq.heappop(self._events)[2](self.now)
            elif self.session.due_at == due:
                self.session.step(self.now)
            else:
                self.server.step(self.now)
            self._perform()
        self.now = until
        return self

    def between(self, start_s: float, end_s: float) -> list[Answer]:
        """Answers to the frames captured then."""
        return [a for f, a in self.answers if start_s <= f.captured_s < end_s]

    @property
    def _due(self) -> float | None:
        first = self._events[0][0] if self._events else None
        return earliest(first, self.session.due_at, self.server.due_at)

    def _at(self, when: float, what: Callable[[float], None]) -> None:
        if when != float("inf"):
            heapq.heappush(self._events, (when, next(self._order), what))

    def _capture(self, now: float) -> None:
        frame = Frame(self._next_frame, now, now + self._deadline_s)
        self._frames[frame.id] = frame
        self._next_frame += 1
        self.session.on_frame(frame, now=now)
        self._at(now + self._period_s, self._capture)

    def _perform(self) -> None:
        while asked := self.session.actions():
            for action in asked:
                self._device_does(action)
        while replies := self.server.actions():
            for reply in replies:
                self._server_does(reply)

    def _device_does(self, action: actions.Action) -> None:
        match action:
            case actions.RunStage(frame_id, stage, width):
                took_s = self._stages_s[stage][WIDTHS.index(width)]
                self._at(self.now + took_s, lambda t: self._stage_done(frame_id, stage, width, took_s, t))
            case actions.Send():
                self.sent.append(action)
                payload = self._codec.encode(self._features, action.step)[action.layer]
                self._to_server(
                    messages.Layer(
                        action.frame_id, action.layer, action.last, action.budget_s, payload, checksum(payload)
                    ),
                    len(payload),
                )
                self.session.on_sent(action.frame_id, action.layer, len(payload), now=self.now)
            case actions.Beat(sequence):
                self._to_server(messages.Heartbeat(sequence), 0)
            case actions.Emit(answer):
                self.answers.append((self._frames[answer.frame_id], answer))
            case actions.Forget(frame_id):
                self.forgotten.append(frame_id)
            case actions.Reconnect():
                self.cut()
                self.connect()

    def _stage_done(self, frame_id: int, stage: int, width: float, took_s: float, now: float) -> None:
        told = Guess(LABEL_LOCAL, self._confidence(frame_id))
        sizes = self._sizes if stage == 1 else None
        self.session.on_stage(StageResult(frame_id, stage, width, told, took_s, sizes), now=now)

    def _server_does(self, action: streams.Reply | streams.Compute | streams.Close) -> None:
        match action:
            case streams.Reply(stream, message):
                self._to_device(stream, message)
            case streams.Compute(batch):
                outputs = np.tile(np.eye(CLASSES, dtype=np.float32)[LABEL_SERVER] * 6, (len(batch.items), 1))
                self._at(self.now + TAIL_S, lambda t: self.server.on_computed(batch, outputs, TAIL_S, now=t))
            case streams.Close(stream):
                if stream == self._stream:
                    self._at(self.now, lambda _: self.cut())

    def _to_server(self, message: messages.DeviceMessage, payload_bytes: float) -> None:
        stream = self._stream
        arrives = self._up.send(int(payload_bytes) + OVERHEAD_BYTES, self.now)
        if stream is not None and arrives is not None:
            self._at(arrives, lambda t: self.server.on_message(stream, message, now=t))

    def _to_device(self, stream: int, message: messages.ServerMessage) -> None:
        arrives = self._down.send(OVERHEAD_BYTES, self.now)
        if arrives is not None:
            self._at(arrives, lambda t: self._hear(stream, message, t))

    def _hear(self, stream: int, message: messages.ServerMessage, now: float) -> None:
        if stream != self._stream:
            return  # of a stream that is gone
        if isinstance(message, messages.Welcome):
            self.session.on_connected(message, now=now)
        else:
            self.session.on_message(message, now=now)
