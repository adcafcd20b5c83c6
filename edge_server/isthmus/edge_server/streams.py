"""All streams of one server, their frames and their batcher, as one machine. Pure: no clock, no IO.

Messages go in; what to reply, to compute and to close comes out. `server` performs it over gRPC; an emulator may too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from isthmus.edge_server.admission import Admission, Close, Ending, Limits, Peer, misfit
from isthmus.edge_server.assembly import Accepted, Assembled, Assembly, Damaged
from isthmus.edge_server.batcher import Batcher, Item, Refusal, Reject, RunBatch
from isthmus.edge_server.scale_out.ages import Ages
from isthmus.edge_server.shedding import SendingTime, Shedder
from isthmus.proto import messages as m
from isthmus.proto.codec import CodecConfig
from isthmus.proto.errors import CodecError
from isthmus.proto.frame_codec import Decoder, FrameCodec
from isthmus.proto.machine import earliest
from isthmus.proto.tasks.task import Packed
from isthmus.proto.temporal.reconstruction import HELD, Reconstruction, References
from isthmus.proto.vocabulary import Load, ServerTimings

SWEEP_S = 1.0
"""How often silent streams are looked for: a tenth of the silence itself."""
MARGIN_S = 0.002
"""A frame whose layers are still coming starts so much before its last moment: the host wakes up a little late."""


@dataclass(frozen=True)
class Served:
    """What a server must know of its bundle."""

    name: str
    sha256: bytes
    codec: CodecConfig


NOT_YET: NDArray[Any] = np.empty(0, np.float32)


class Ready(Struct):
    """A frame that took `receive_s` to arrive: what crossed, decoded once it is admitted, which is features (H, W, C)
    float32 or a picture (H, W, 3) uint8.
    """

    receive_s: float
    features: NDArray[Any] = NOT_YET
    layers_used: int = 0


class Reply(Struct, frozen=True):
    """Send this on the stream."""

    stream: int
    message: m.ServerMessage


class Compute(Struct, frozen=True):
    """Run the tail on this batch, then call `on_computed`."""

    batch: RunBatch[Ready]


class Streams:
    """One server's state. Numbers its streams from 1 and never uses a number again."""

    def __init__(
        self,
        served: Served,
        batcher: Batcher[Ready],
        *,
        server_id: str,
        limits: Limits,
        codec: Decoder | None = None,
        ages: Ages | None = None,
    ) -> None:
        """`codec` stands in for that of what is served, where the payloads are of another kind (the emulator's)."""
        self.served, self.server_id = served, server_id
        self._batcher, self._assembly = batcher, Assembly(served.codec.layers)
        self._codec: Decoder = codec or FrameCodec(served.codec)
        self._limits, self._admission = limits, Admission(limits, server_id=server_id)
        self._references: dict[int, References] = {}
        """What is held of each stream's newest frames, where any may be coded against another."""
        self.shedder, self.sending = Shedder(), SendingTime()
        self._ages = ages or Ages()
        self._opened = 0
        self._sweep_at: float | None = None
        self._draining = False
        self._drain_until: float | None = None
        self._actions: list[Reply | Compute | Close] = []

    @property
    def due_at(self) -> float | None:
        """The earliest of all timers."""
        return earliest(
            self._batcher.due_at, self._assembly.due_at, self._sweep_at, self._drain_until, self._ages.due_at
        )

    @property
    def _peers(self) -> dict[int, Peer]:
        return self._admission.peers

    @property
    def count(self) -> int:
        """Streams that are open, and those that are closed but not yet gone."""
        return self._admission.count

    @property
    def waiting(self) -> int:
        """Frames in the queue."""
        return self._batcher.waiting

    def resize(self, engines: int, *, now: float) -> None:
        """From now on so many batches run at once."""
        self._batcher.resize(engines, now=now)

    def usual_s(self, batch: int) -> float:
        """How long the tail usually takes for a batch of this size."""
        return self._batcher.times.p95_s(batch)

    def load(self, now: float) -> Load:
        """How busy this server is."""
        return self._batcher.load(now)

    def actions(self) -> list[Reply | Compute | Close]:
        """What to do, in order; each action is handed out once."""
        actions, self._actions = self._actions, []
        return actions

    def open(self, *, now: float, address: str = "", certificate: str | None = None) -> int:
        """A device connected from `address`, with a certificate of this name; the number of its stream.

        One that is not taken on is closed at once, and counts like any other until `on_gone`.
        """
        self._opened += 1
        stream = self._opened
        if self._draining:
            self._end(self._admission.refuse(stream, Ending.DRAINED, f"{self.server_id}: stopping; try again later"))
        else:
            self._end(self._admission.enter(stream, address, certificate, now=now))
            if self._sweep_at is None:
                self._sweep_at = now + SWEEP_S
        return stream

    def on_gone(self, stream: int) -> None:
        """Nothing is left of the stream, whoever ended it."""
        self._drop(stream)
        self._admission.on_gone(stream)
        self._settle()

    def revoke(self, names: Iterable[str]) -> None:
        """Turn away whoever has a certificate of one of these names, and no others."""
        self._end(self._admission.revoke(names))

    def pause_s(self, stream: int, now: float) -> float:
        """How long to read nothing more of a stream that sends faster than it may."""
        peer = self._peers.get(stream)
        return 0.0 if peer is None else peer.account.reading_wait_s(now)

    def on_unread(self, stream: int, why: str) -> None:
        """The device does not read what it is told."""
        self._close(stream, Ending.UNREAD, why)
        self._settle()

    def on_malformed(self, stream: int, why: str) -> None:
        """A message that is none of ours; costs this stream only."""
        self._close(stream, Ending.MALFORMED, why)
        self._settle()

    def on_message(self, stream: int, message: m.DeviceMessage, *, now: float, came_s: float | None = None) -> None:
        """A device said something; it came at `came_s` and has waited since. None: it came now."""
        peer = self._peers.get(stream)
        if peer is None:
            return  # closed a moment ago
        peer.heard_s = now
        peer.account.on_message(message, now)
        if isinstance(message, m.Hello) != (peer.client_id is None):
            expected = "a hello first" if peer.client_id is None else "one hello only"
            self._close(stream, Ending.MALFORMED, f"{type(message).__name__.lower()}: expected {expected}")
            return
        match message:
            case m.Hello():
                self._on_hello(stream, message, now)
            case m.Layer():
                self._on_layer(stream, peer, message, now if came_s is None else came_s, now)
            case m.Cancel(frame_id):
                self._assembly.close(stream, frame_id)
                self._batcher.cancel(stream, frame_id)
            case m.Heartbeat(sequence):
                self._reply(stream, m.ServerHeartbeat(sequence, self._batcher.load(now)))
        self._settle()

    def on_computed(
        self, batch: RunBatch[Ready], answers: Sequence[Packed | None] | None, tail_s: float, *, now: float
    ) -> None:
        """The tail's answers to a batch, packed by the bundle's task; None when it failed, or for one that is NaN."""
        self._batcher.on_done(batch, None if answers is None else tail_s, now=now)
        load = self._batcher.load(now)
        for index, item in enumerate(batch.items):
            answer = None if answers is None else answers[index]
            if answer is None:
                why = "tail: failed on this batch" if answers is None else "tail: its answer is not a number"
                self._reply(item.stream, m.Invalid(item.frame_id, 0, why, load))
                continue
            timings = ServerTimings(
                receive_s=item.payload.receive_s,
                queue_s=batch.started_s - item.arrival_s,
                tail_s=tail_s,
                send_s=max(0.0, now - batch.started_s - tail_s),
            )
            self._reply(item.stream, m.Result(item.frame_id, item.payload.layers_used, answer, timings, load))
        self._settle()

    def drain(self, grace_s: float, *, now: float) -> None:
        """Take on nothing new; answer what is in flight, then close every stream, after `grace_s` at the latest."""
        self._draining, self._drain_until = True, now + grace_s
        for stream in self._peers:
            self._reply(stream, m.Drain(grace_s, self._batcher.load(now)))
        self._settle()

    def step(self, now: float) -> None:
        """Do the one thing that is due."""
        due = self.due_at
        if due is None:
            return
        if due == self._assembly.due_at:
            self._assembly.step(now)
            self._collect(self._batcher.load(now), now)
        elif due == self._batcher.due_at:
            self._batcher.step(now)
            self._dispatch(now)
        elif due == self._sweep_at:
            self._sweep(now)
        elif due == self._ages.due_at:
            for stream in self._ages.grown(now):
                self._reply(stream, m.Drain(self._ages.grace_s, self._batcher.load(now)))
            self._see_off(now)
        else:
            self._finish("the grace is over")
        self._settle()

    def _on_hello(self, stream: int, hello: m.Hello, now: float) -> None:
        if (why := misfit(hello, self.served.name, self.served.sha256)) is not None:
            self._close(stream, Ending.MISMATCH, f"hello: {why}")
            return
        self._end(self._admission.welcome(stream, hello.client_id))
        credit, size, references = self._limits.stream_credits, self._codec.max_layer_bytes, 0
        if self.served.codec.deltas is not None and stream in self._peers:
            self._references[stream], references = References(), HELD
        if stream in self._peers:
            self._ages.enter(stream, now=now)
        self._reply(stream, m.Welcome(self.server_id, credit, size, self._batcher.load(now), references))

    def _on_layer(self, stream: int, peer: Peer, layer: m.Layer, came_s: float, now: float) -> None:
        if layer.frame_id == peer.shed:
            return
        if len(layer.payload) > self._codec.max_layer_bytes:
            why = f"layer of {len(layer.payload)} bytes, at most {self._codec.max_layer_bytes} are welcome"
            self._close(stream, Ending.OVERSIZED, why)
            return
        self.shedder.note(now - came_s, now=now)
        due_s = came_s - self.sending.usual_s(now) + layer.budget_s
        begins = not self._assembly.knows(stream, layer.frame_id)
        if begins and self._shed(stream, peer, layer.frame_id, due_s, now):
            return
        load = self._batcher.load(now)
        if begins and (retry_s := self._no_room_s(stream, peer, now)) is not None:
            self._assembly.close(stream, layer.frame_id)
            self._reply(stream, m.Busy(layer.frame_id, retry_s, load=load))
            return
        if layer.layer == 0:
            peer.account.on_frame(now)
        lead_s, reference = load.wait_s + load.tail_s + MARGIN_S, self._reference(stream, layer)
        self._assembly.on_layer(stream, layer, due_s=due_s, lead_s=lead_s, now=now, reference=reference)
        self._collect(load, now)

    def _reference(self, stream: int, layer: m.Layer) -> Reconstruction | None:
        """What is held of the frame that a layer is coded against."""
        held = self._references.get(stream)
        return None if held is None or layer.reference is None else held.of(layer.reference)

    def _shed(self, stream: int, peer: Peer, frame_id: int, due_s: float, now: float) -> bool:
        """Whether a frame is turned away by its first layer, unread and unacknowledged, since the loop is behind."""
        if self.shedder.takes() and not (self.shedder.shedding and self._batcher.hopeless(due_s, now=now)):
            return False
        peer.shed = frame_id
        if now >= peer.told_until_s:
            retry_s = self.shedder.retry_s()
            peer.told_until_s = now + retry_s
            self._reply(stream, m.Busy(frame_id, retry_s, load=self._batcher.load(now)))
        return True

    def _no_room_s(self, stream: int, peer: Peer, now: float) -> float | None:
        """When to try again, if a new frame of this stream is not welcome."""
        if self._draining:
            return max(0.0, self._drain_until - now) if self._drain_until is not None else 0.0
        if self._inside(stream) >= self._limits.stream_credits:
            load = self._batcher.load(now)
            return load.wait_s + load.tail_s
        return peer.account.frame_wait_s(now) or None

    def _collect(self, load: Load, now: float) -> None:
        for action in self._assembly.actions():
            match action:
                case Accepted():
                    self._reply(action.stream, m.Ack(action.frame_id, action.layer, load))
                case Damaged():
                    self._reply(action.stream, m.Invalid(action.frame_id, action.layer, action.why, load))
                case Assembled():
                    self._submit(action, now)

    def _submit(self, frame: Assembled, now: float) -> None:
        ready = Ready(now - frame.first_s)
        item = Item(frame.stream, frame.frame_id, frame.due_s, now, ready)
        if self._batcher.submit(item, now=now) and not self._decode(frame, ready, now):
            self._batcher.cancel(frame.stream, frame.frame_id)
        self._dispatch(now)

    def _decode(self, frame: Assembled, ready: Ready, now: float) -> bool:
        """Fill in the features from as many layers as can be decoded; False when not even the base can."""
        for count in range(len(frame.payloads), 0, -1):
            try:
                crossed = self._codec.crossed(frame.payloads[:count], frame.reference)
            except CodecError as error:
                why, load = str(error), self._batcher.load(now)
                self._reply(frame.stream, m.Invalid(frame.frame_id, count - 1, why, load))
            else:
                ready.features, ready.layers_used = crossed.features, crossed.layers
                if crossed.reconstruction is not None and (held := self._references.get(frame.stream)) is not None:
                    held.keep(frame.frame_id, crossed.reconstruction)
                return True
        return False

    def _dispatch(self, now: float) -> None:
        for action in self._batcher.actions():
            match action:
                case RunBatch():
                    self._actions.append(Compute(action))
                case Reject(item, Refusal.LATE):
                    self.shedder.refused()
                    self._reply(item.stream, m.Late(item.frame_id, self._batcher.load(now)))
                case Reject(item, Refusal.BUSY, retry_s, hint):
                    self.shedder.refused()
                    self._reply(item.stream, m.Busy(item.frame_id, retry_s, hint, self._batcher.load(now)))

    def _sweep(self, now: float) -> None:
        self._end(self._admission.silent(now))
        self._sweep_at = now + SWEEP_S if self._peers else None

    def _see_off(self, now: float = -math.inf) -> None:
        """Close the streams of age of which nothing is inside any more, or whose grace is over."""
        for stream in self._ages.closing(self._inside, now):
            self._close(stream, Ending.AGED, f"{self.server_id}: open for long; connect again")

    def _inside(self, stream: int) -> int:
        return self._assembly.count(stream) + self._batcher.inside(stream)

    def _settle(self) -> None:
        """A draining server whose frames are all answered has nothing to stay for, nor has a stream of age."""
        self._see_off()
        if self._draining and self._batcher.idle and self._assembly.idle:
            self._finish("all frames in flight are answered")

    def _finish(self, why: str) -> None:
        for stream in list(self._peers):
            self._close(stream, Ending.DRAINED, f"{self.server_id}: stopping; {why}")
        self._drain_until = None

    def _reply(self, stream: int, message: m.ServerMessage) -> None:
        if stream in self._peers:
            self._actions.append(Reply(stream, message))

    def _close(self, stream: int, ending: Ending, why: str) -> None:
        if stream in self._peers:
            self._end([Close(stream, ending, why)])

    def _end(self, closes: Iterable[Close]) -> None:
        """Close these streams; what is in flight of them is dropped."""
        for close in closes:
            self._actions.append(close)
            self._admission.on_close(close.stream)
            self._drop(close.stream)

    def _drop(self, stream: int) -> None:
        self._assembly.forget(stream)
        self._references.pop(stream, None)
        self._ages.leave(stream)
        self._batcher.forget(stream)
