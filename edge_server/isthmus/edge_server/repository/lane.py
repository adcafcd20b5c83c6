"""One bundle's frames on a server: from layers to batches, and from the tail's answers to replies. Pure: no clock, no IO.

`streams` decides who has a stream and hands each frame to the lane of the stream's bundle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from isthmus.edge_server.assembly import Accepted, Assembled, Assembly, Damaged
from isthmus.edge_server.batcher import Batcher, Item, Refusal, Reject, RunBatch
from isthmus.edge_server.shedding import Shedder
from isthmus.proto import messages as m
from isthmus.proto.codec import CodecConfig
from isthmus.proto.errors import CodecError
from isthmus.proto.frame_codec import Crossed, FrameCodec
from isthmus.proto.printable import printable
from isthmus.proto.tasks.task import Packed
from isthmus.proto.temporal.reconstruction import HELD, Reconstruction, References
from isthmus.proto.vocabulary import Load, ServerTimings

MARGIN_S = 0.002
"""A frame whose layers are still coming starts so much before its last moment: the host wakes up a little late."""


class Decoder(Protocol):
    """Payloads to features."""

    @property
    def max_layer_bytes(self) -> int:
        """The largest payload of any layer."""

    def crossed(self, payloads: Sequence[bytes], reference: Reconstruction | None = None) -> Crossed:
        """What crossed, from the layers that are here, base first, or the delta of `reference`. Raises CodecError."""


@dataclass(frozen=True)
class Served:
    """What a server must know of its bundle."""

    name: str
    sha256: bytes
    codec: CodecConfig
    version: str = ""
    """Its folder's name below the bundle's, in a repository; empty where there is none."""


def described(served: Served) -> str:
    """A bundle as the log calls it."""
    version = f" {printable(served.version)}" if served.version else ""
    return f"{printable(served.name)}{version} ({served.sha256.hex()[:12]}…)"


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
    """Run the tail of this bundle on this batch, then call `on_computed`."""

    batch: RunBatch[Ready]
    sha256: bytes


class Lane:
    """The frames of the streams that have one bundle."""

    def __init__(
        self, served: Served, batcher: Batcher[Ready], *, shedder: Shedder, codec: Decoder | None = None
    ) -> None:
        """`shedder` is the server's; `codec` stands in for that of what is served, or is it, made beforehand."""
        self.served, self.batcher = served, batcher
        self.used = 0
        """The number of its last use, ascending over the lanes of a server."""
        self.unused_since_s: float | None = None
        """Since when nobody has it, where it is offered no more."""
        self._codec: Decoder = codec or FrameCodec(served.codec)
        self.max_layer_bytes = self._codec.max_layer_bytes
        """The largest payload of any layer; reckoned once, since it is asked for with each of them."""
        self.assembly, self._shedder = Assembly(served.codec.layers), shedder
        self._streams: set[int] = set()
        self._references: dict[int, References] = {}
        """What is held of each stream's newest frames, where any may be coded against another."""
        self._running: list[tuple[RunBatch[Ready], float]] = []
        """The batches that the tail computes, and when each began."""
        self._actions: list[Reply | Compute] = []

    @property
    def idle(self) -> bool:
        """No frame is in it."""
        return self.batcher.idle and self.assembly.idle

    @property
    def streams(self) -> int:
        """Streams that have its bundle."""
        return len(self._streams)

    def runs(self, batch: RunBatch[Ready]) -> bool:
        """Whether its tail computes this batch."""
        return any(batch is running for running, _ in self._running)

    def actions(self) -> list[Reply | Compute]:
        """What to do, in order; each action is handed out once."""
        actions, self._actions = self._actions, []
        return actions

    def enter(self, stream: int) -> int:
        """A stream says that it has this bundle; of how many frames what crossed is held for it."""
        self._streams.add(stream)
        self.unused_since_s = None
        if self.served.codec.deltas is None:
            return 0
        self._references[stream] = References()
        return HELD

    def leave(self, stream: int) -> None:
        """The stream is gone, and its frames with it."""
        self._streams.discard(stream)
        self.assembly.forget(stream)
        self._references.pop(stream, None)
        self.batcher.forget(stream)

    def knows(self, stream: int, frame_id: int) -> bool:
        """Whether a layer of this frame has come before."""
        return self.assembly.knows(stream, frame_id)

    def inside(self, stream: int) -> int:
        """Frames of this stream that come, wait or run."""
        return self.assembly.count(stream) + self.batcher.inside(stream)

    def refuse(self, stream: int, frame_id: int) -> None:
        """No more is wanted of this frame."""
        self.assembly.close(stream, frame_id)

    def cancel(self, stream: int, frame_id: int) -> None:
        """The device wants no answer to this frame any more."""
        self.assembly.close(stream, frame_id)
        self.batcher.cancel(stream, frame_id)

    def on_layer(self, stream: int, layer: m.Layer, *, due_s: float, load: Load, now: float) -> None:
        """A layer that is welcome; its frame is due at `due_s`, and `load` is what the lane was when it came."""
        held = self._references.get(stream)
        reference = None if held is None or layer.reference is None else held.of(layer.reference)
        lead_s = load.wait_s + load.tail_s + MARGIN_S
        self.assembly.on_layer(stream, layer, due_s=due_s, lead_s=lead_s, now=now, reference=reference)
        self._collect(load, now)

    def ask(self, guest: int, features: NDArray[Any], *, due_s: float, now: float) -> None:
        """A frame that came whole, and without a stream; `guest` stands for one, until it leaves."""
        self._streams.add(guest)
        self.batcher.submit(Item(guest, 0, due_s, now, Ready(0.0, features)), now=now)
        self._dispatch(now)

    def on_computed(
        self, batch: RunBatch[Ready], answers: Sequence[Packed | None] | None, tail_s: float, *, now: float
    ) -> None:
        """The tail's answers to a batch, packed by the bundle's task; None when it failed, or for one that is NaN."""
        started_s = next(began_s for running, began_s in self._running if running is batch)
        self._running = [entry for entry in self._running if entry[0] is not batch]
        self.batcher.on_done(batch, None if answers is None else tail_s, now=now)
        load = self.batcher.load(now)
        for index, item in enumerate(batch.items):
            answer = None if answers is None else answers[index]
            if answer is None:
                why = "tail: failed on this batch" if answers is None else "tail: its answer is not a number"
                self._reply(item.stream, m.Invalid(item.frame_id, 0, why, load))
                continue
            timings = ServerTimings(
                receive_s=item.payload.receive_s,
                queue_s=started_s - item.arrival_s,
                tail_s=tail_s,
                send_s=max(0.0, now - started_s - tail_s),
            )
            self._reply(item.stream, m.Result(item.frame_id, item.payload.layers_used, answer, timings, load))

    def step_assembly(self, now: float) -> None:
        """Start the frame that cannot wait for more layers."""
        self.assembly.step(now)
        self._collect(self.batcher.load(now), now)

    def step_batcher(self, now: float) -> int:
        """It is this lane's turn; of how many frames the batch is that begins, 0 for none."""
        before = len(self._running)
        self.batcher.step(now)
        self._dispatch(now)
        return len(self._running[-1][0].items) if len(self._running) > before else 0

    def _collect(self, load: Load, now: float) -> None:
        for action in self.assembly.actions():
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
        if self.batcher.submit(item, now=now) and not self._decode(frame, ready, now):
            self.batcher.cancel(frame.stream, frame.frame_id)
        self._dispatch(now)

    def _decode(self, frame: Assembled, ready: Ready, now: float) -> bool:
        """Fill in the features from as many layers as can be decoded; False when not even the base can."""
        for count in range(len(frame.payloads), 0, -1):
            try:
                crossed = self._codec.crossed(frame.payloads[:count], frame.reference)
            except CodecError as error:
                self._reply(frame.stream, m.Invalid(frame.frame_id, count - 1, str(error), self.batcher.load(now)))
            else:
                ready.features, ready.layers_used = crossed.features, crossed.layers
                if crossed.reconstruction is not None and (held := self._references.get(frame.stream)) is not None:
                    held.keep(frame.frame_id, crossed.reconstruction)
                return True
        return False

    def _dispatch(self, now: float) -> None:
        for action in self.batcher.actions():
            match action:
                case RunBatch():
                    self._running.append((action, now))
                    self._actions.append(Compute(action, self.served.sha256))
                case Reject(item, Refusal.LATE):
                    self._shedder.refused()
                    self._reply(item.stream, m.Late(item.frame_id, self.batcher.load(now)))
                case Reject(item, Refusal.BUSY, retry_s, hint):
                    self._shedder.refused()
                    self._reply(item.stream, m.Busy(item.frame_id, retry_s, hint, self.batcher.load(now)))

    def _reply(self, stream: int, message: m.ServerMessage) -> None:
        if stream in self._streams:
            self._actions.append(Reply(stream, message))
