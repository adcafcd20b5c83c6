"""The two kinds of inhabitants of a world: a device around a real `Session`, a server around real `Streams`.

Each does in virtual time what `device.agent` with its transport, or `edge_server.server`, does live: an event is passed
to the core, then the core's actions are performed, then its next wake-up is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from isthmus.device import actions
from isthmus.device.capture.gate import Sketch
from isthmus.device.session import Session
from isthmus.device.tracking.tracks import Place
from isthmus.device.transport import WELCOME_TIMEOUT_S
from isthmus.edge_server import streams
from isthmus.edge_server.admission import Close
from isthmus.edge_server.batcher import RunBatch
from isthmus.edge_server.streams import Ready, Streams
from isthmus.edge_server.tail_health import HUNG_S
from isthmus.emulation.link import ShapedLink
from isthmus.emulation.virtual.connection import Pipe
from isthmus.emulation.virtual.timeline import INFINITY, Timeline
from isthmus.proto import messages
from isthmus.proto.codec import checksum
from isthmus.proto.tasks.task import Packed
from isthmus.proto.vocabulary import Answer, FilterResult, Frame, Guess, Reference, StageResult


class VirtualHead(Protocol):
    """A head in virtual time."""

    def run(self, frame_id: int, stage: int, width: float) -> StageResult:
        """What a stage gives, after its `compute_s`."""

    def refer(self, frame_id: int, reference: Reference) -> None:
        """Say what a frame may be coded against, before its last stage runs."""

    def coding_s(self, step: int) -> float:
        """What must be coded before a frame can leave takes so long."""

    def encode(self, frame_id: int, step: int, layer: int) -> bytes:
        """The payload of one layer of a frame."""

    def follow(self, frame_ids: Sequence[int], places: Sequence[Place]) -> tuple[tuple[Place | None, ...], float]:
        """Where places in the first frame are in the last one, and how long it takes to find out."""

    def delta(self, frame_id: int, step: int, layers: int, reference: Reference) -> tuple[bytes, int]:
        """The one payload that stands for so many layers of a frame, coded against another; and that one's seal."""

    def forget(self, frame_id: int) -> None:
        """Nothing more will be asked of this frame."""


class VirtualTail(Protocol):
    """A tail in virtual time."""

    def run(self, batch: RunBatch[Ready]) -> tuple[Sequence[Packed], float]:
        """The answers to a batch and how long they take."""


class Core(Protocol):
    """A machine that a node lives around."""

    @property
    def due_at(self) -> float | None:
        """See `Machine`."""

    def step(self, now: float) -> None:
        """See `Machine`."""


OnAnswer = Callable[[Frame, Answer, Guess | None, int], None]
"""Who is given every answer, with its frame, what the device's last early exit said, and how many layers were sent."""


class _Alarm:
    """Keeps one wake-up of a core on the timeline; one that is no longer wanted goes off unheard."""

    def __init__(self, timeline: Timeline, core: Core, awake: Callable[[float], None]) -> None:
        self._timeline, self._core, self._awake = timeline, core, awake
        self._set_s = INFINITY

    def set(self) -> None:
        """Ask for the core's next wake-up, unless an earlier one is asked for already."""
        due_s = self._core.due_at
        if due_s is not None and due_s < self._set_s:
            self._set_s = due_s
            self._timeline.at(due_s, self._ring)

    def _ring(self, now: float) -> None:
        if now != self._set_s:
            return
        self._set_s = INFINITY
        due_s = self._core.due_at
        if due_s is not None and due_s <= now:
            self._core.step(now)
            self._awake(now)
        else:
            self.set()


class ServerNode:
    """One edge server. A dead one hears nothing, and whoever was connected finds that out by its silence."""

    def __init__(self, timeline: Timeline, core: Streams, engine: VirtualTail) -> None:
        self.core, self.engine, self.alive, self.hangs = core, engine, True, False
        """`hangs`: what its tail computes never comes out of it, until the server gives it up."""
        self._timeline, self._alarm = timeline, _Alarm(timeline, core, self.perform)
        self._pipes: dict[int, Pipe] = {}

    def hear(self, now: float, stream: int, message: messages.DeviceMessage) -> None:
        """A message arrived."""
        if self.alive:
            self.core.on_message(stream, message, now=now)
            self.perform(now)

    def open(self, now: float, down: Pipe) -> int | None:
        """A connection came in, to be answered through `down`: the number of its stream; None from a dead server."""
        if not self.alive:
            return None
        stream = self.core.open(now=now)
        self._pipes[stream] = down
        return stream

    def gone(self, now: float, stream: int) -> None:
        """A connection ended."""
        if self._pipes.pop(stream, None) is not None:
            self.core.on_gone(stream)
            self.perform(now)

    def die(self, now: float) -> None:
        """Lose power, and every stream with it."""
        self.alive = False
        for stream in list(self._pipes):
            self.gone(now, stream)

    def drain(self, now: float, grace_s: float) -> None:
        """Say goodbye to every device, answer what is in flight, and end."""
        self.core.drain(grace_s, now=now)
        self.perform(now)

    def restart(self, now: float, core: Streams) -> None:
        """Begin anew with a fresh core, without the streams that the old one still had."""
        for stream in list(self._pipes):
            self._pipes.pop(stream).send(None, 0, now)
        self.core = core
        self._alarm = _Alarm(self._timeline, core, self.perform)

    def revive(self, now: float) -> None:
        """Take on devices again."""
        self.alive, self.hangs = True, False

    def perform(self, now: float) -> None:
        """Carry out what the core asks."""
        for action in self.core.actions():
            match action:
                case streams.Reply():
                    self._pipes[action.stream].send(action.message, 0, now)
                case streams.Compute():
                    answers, tail_s = self.engine.run(action.batch)
                    self._timeline.at(now + tail_s, self._computed, self.core, action.batch, answers, tail_s)
                case Close():
                    if (down := self._pipes.pop(action.stream, None)) is not None:
                        down.send(None, 0, now)
                    self.core.on_gone(action.stream)
        self._alarm.set()

    def _computed(
        self, now: float, core: Streams, batch: RunBatch[Ready], answers: Sequence[Packed] | None, tail_s: float
    ) -> None:
        if self.hangs and answers is not None:
            self._timeline.at(now + max(0.0, HUNG_S - tail_s), self._computed, core, batch, None, HUNG_S)
        elif core is self.core:  # what was computed before a restart is lost with it
            core.on_computed(batch, answers, tail_s, now=now)
            self.perform(now)


@dataclass(frozen=True)
class Way:
    """A server, and the links of one device to and from it; those of several servers may be the same ones."""

    server: ServerNode
    up: ShapedLink
    down: ShapedLink


class _Stream:
    """A device's connection to one server, as its transport sees it."""

    def __init__(self, device: DeviceNode, name: str, way: Way, timeline: Timeline) -> None:
        self._server = way.server
        self.up = Pipe(timeline, way.up, self._at_server)
        self.down = Pipe(timeline, way.down, partial(device.hear, name))
        self._number: int | None = None
        self._core = way.server.core
        self.welcomed = False

    def close(self, now: float) -> None:
        """Hang up: both sides know at once."""
        self.up.open = self.down.open = False
        if self._number is not None and self._server.core is self._core:
            self._server.gone(now, self._number)

    def _at_server(self, now: float, message: messages.DeviceMessage) -> None:
        if isinstance(message, messages.Hello):
            self._core, self._number = self._server.core, self._server.open(now, self.down)
        if self._number is not None and self._server.core is self._core:
            self._server.hear(now, self._number, message)


class DeviceNode:
    """One device: a session, a head, and a transport to each server that the session knows."""

    def __init__(
        self,
        timeline: Timeline,
        core: Session,
        executor: VirtualHead,
        ways: Mapping[str, Way],
        on_answer: OnAnswer,
        *,
        hello: messages.Hello,
        filter_frame: Callable[[int], FilterResult] | None = None,
    ) -> None:
        """`ways` are those to the session's servers, by the names that it knows them by.

        `filter_frame` is the neural filter, for a session that has one.
        """
        self.core, self.executor, self._filter = core, executor, filter_frame
        self._timeline, self._alarm = timeline, _Alarm(timeline, core, self.perform)
        self._ways, self._on_answer, self._hello = ways, on_answer, hello
        self._streams: dict[str, _Stream] = {}
        self._frames: dict[int, Frame] = {}
        self._layers: dict[int, int] = {}

    def connect(self, now: float) -> None:
        """Begin to turn to servers."""
        self.core.connect(now=now)
        self.perform(now)

    def take(self, now: float, frame: Frame, sketch: Sketch | None = None) -> None:
        """A frame was captured."""
        self._frames[frame.id] = frame
        self.core.on_frame(frame, now=now, sketch=sketch)
        self.perform(now)

    def dial(self, name: str, now: float) -> None:
        """Say hello to a server."""
        stream = self._streams[name] = _Stream(self, name, self._ways[name], self._timeline)
        stream.up.send(self._hello, 0, now)
        self._timeline.at(now + WELCOME_TIMEOUT_S, self._unwelcome, name, stream)

    def hear(self, name: str, now: float, message: messages.ServerMessage | None) -> None:
        """A message arrived from a server; None is the end of its stream."""
        if message is None:
            self.hang_up(name, now)
            return
        if isinstance(message, messages.Welcome):
            self._streams[name].welcomed = True
            self.core.on_connected(message, now=now, server=name)
        else:
            self.core.on_message(message, now=now, server=name)
        self.perform(now)

    def hang_up(self, name: str, now: float) -> None:
        """End the stream to a server, if there is one."""
        if (stream := self._streams.pop(name, None)) is not None:
            stream.close(now)
            self.core.on_disconnected(now=now, server=name)
            self.perform(now)

    def perform(self, now: float) -> None:
        """Carry out what the session asks, until it asks nothing more."""
        while asked := self.core.actions():
            for action in asked:
                self._perform_one(action, now)
        self._alarm.set()

    def _perform_one(self, action: actions.Action, now: float) -> None:
        match action:
            case actions.RunStage():
                if action.reference is not None:
                    self.executor.refer(action.frame_id, action.reference)
                result = self.executor.run(action.frame_id, action.stage, action.width)
                self._timeline.at(now + result.compute_s, self._stage_done, result)
            case actions.Send():
                self._send(action, now)
            case actions.Emit():
                frame_id = action.answer.frame_id
                layers = self._layers.pop(frame_id, 0)
                self._on_answer(self._frames[frame_id], action.answer, action.local, layers)
            case actions.Forget():
                self.executor.forget(action.frame_id)
                del self._frames[action.frame_id]
            case actions.Beat():
                self._pass_on(action.server, messages.Heartbeat(action.sequence), 0, now)
            case actions.RunFilter():
                assert self._filter is not None  # or the session would not ask
                filtered = self._filter(action.frame_id)
                self._timeline.at(now + filtered.compute_s, self._on_filter, filtered)
            case actions.Follow():
                places, flow_s = self.executor.follow(action.frame_ids, action.places)
                self._timeline.at(now + flow_s, self._followed, places)
            case actions.Dial():
                self.dial(action.server, now)
            case actions.HangUp():
                self.hang_up(action.server, now)

    def _on_filter(self, now: float, result: FilterResult) -> None:
        self.core.on_filter(result, now=now)
        self.perform(now)

    def _followed(self, now: float, places: tuple[Place | None, ...]) -> None:
        self.core.on_followed(places, now=now)
        self.perform(now)

    def _stage_done(self, now: float, result: StageResult) -> None:
        self.core.on_stage(result, now=now)
        self.perform(now)

    def _send(self, action: actions.Send, now: float) -> None:
        if (coding_s := self.executor.coding_s(action.step)) > 0:
            self._timeline.at(now + coding_s, self._hand_over, action, coding_s)
        else:
            self._hand_over(now, action, 0.0)

    def _hand_over(self, now: float, action: actions.Send, encode_s: float) -> None:
        if action.frame_id not in self._frames:
            return  # it was answered meanwhile
        reference = action.reference
        if reference is None:
            payload, seal = self.executor.encode(action.frame_id, action.step, action.layer), 0
        else:
            payload, seal = self.executor.delta(action.frame_id, action.step, action.layers, reference)
        size = len(payload)
        layer = messages.Layer(
            frame_id=action.frame_id,
            layer=action.layer,
            last=action.last,
            budget_s=action.budget_s - encode_s,
            payload=payload,
            crc=checksum(payload, seal),
            reference=None if reference is None else reference.frame_id,
        )
        self._pass_on(action.server, layer, size, now)
        self._layers[action.frame_id] = action.layer + 1 if reference is None else action.layers
        self.core.on_sent(action.frame_id, action.layer, size, now=now, encode_s=encode_s, server=action.server)

    def _pass_on(self, name: str, message: messages.DeviceMessage, payload_bytes: int, now: float) -> None:
        if (stream := self._streams.get(name)) is not None:
            stream.up.send(message, payload_bytes, now)

    def _unwelcome(self, now: float, name: str, stream: _Stream) -> None:
        if stream is self._streams.get(name) and not stream.welcomed:
            self.hang_up(name, now)
