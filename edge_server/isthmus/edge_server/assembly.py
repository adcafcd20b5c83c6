"""Frames whose layers are still arriving. Pure: no clock, no IO.

A frame is handed over when its last layer is there, or when waiting longer would miss its deadline. A damaged layer
costs that layer: behind a good base the frame goes on without it, and without a base there is no frame.
"""

from __future__ import annotations

from collections import defaultdict, deque

from msgspec import Struct

from isthmus.proto import codec
from isthmus.proto.messages import Layer
from isthmus.proto.temporal.reconstruction import Reconstruction

REMEMBERED = 64
"""Finished frames that are remembered of each stream, newest last: eight credits of frames with up to eight layers."""


class Accepted(Struct, frozen=True):
    """A layer arrived whole."""

    stream: int
    frame_id: int
    layer: int


class Damaged(Struct, frozen=True):
    """A layer is lost; with layer 0 the frame is."""

    stream: int
    frame_id: int
    layer: int
    why: str


class Assembled(Struct, frozen=True):
    """A frame to compute from the layers that are here, base first. Times are the server's."""

    stream: int
    frame_id: int
    due_s: float
    first_s: float
    payloads: tuple[bytes, ...]
    reference: Reconstruction | None = None
    """What the one payload is coded against."""


class Partial(Struct):
    """A frame that waits for more layers until `start_by_s`."""

    first_s: float
    due_s: float
    start_by_s: float
    payloads: list[bytes] = []
    reference: Reconstruction | None = None


class Assembly:
    """The partial frames of all streams."""

    def __init__(self, layers: int) -> None:
        """A frame of `layers` is whole."""
        self._layers = layers
        self._open: dict[tuple[int, int], Partial] = {}
        self._closed: defaultdict[int, deque[int]] = defaultdict(lambda: deque(maxlen=REMEMBERED))
        self._actions: list[Accepted | Damaged | Assembled] = []

    @property
    def due_at(self) -> float | None:
        """When the first partial frame must start with the layers that it has."""
        return min((partial.start_by_s for partial in self._open.values()), default=None) if self._open else None

    @property
    def idle(self) -> bool:
        """No frame waits for layers."""
        return not self._open

    def actions(self) -> list[Accepted | Damaged | Assembled]:
        """What happened, in order; each is handed out once."""
        actions, self._actions = self._actions, []
        return actions

    def knows(self, stream: int, frame_id: int) -> bool:
        """Whether this layer would belong to a frame seen before."""
        return (stream, frame_id) in self._open or frame_id in self._closed.get(stream, ())

    def count(self, stream: int) -> int:
        """Partial frames of one stream."""
        return sum(owner == stream for owner, _ in self._open)

    def on_layer(
        self,
        stream: int,
        layer: Layer,
        *,
        due_s: float,
        lead_s: float,
        now: float,
        reference: Reconstruction | None = None,
    ) -> None:
        """A layer arrived; by what it says its frame is due at `due_s`, and must start `lead_s` before.

        `reference` is what is held of the frame that it is coded against.
        """
        key = stream, layer.frame_id
        partial = self._open.get(key)
        if partial is None and self.knows(*key):
            self._actions.append(Accepted(stream, layer.frame_id, layer.layer))
            return
        if why := fault(layer, reference, expected=len(partial.payloads) if partial else 0):
            self._actions.append(Damaged(stream, layer.frame_id, layer.layer, why))
            self._go_on_without(key)
            return
        self._actions.append(Accepted(stream, layer.frame_id, layer.layer))
        if partial is None:
            partial = self._open[key] = Partial(now, due_s, due_s - lead_s, reference=reference)
        partial.due_s = min(partial.due_s, due_s)  # the layer that was on its way for the shortest time is right
        partial.start_by_s = partial.due_s - lead_s
        partial.payloads.append(layer.payload)
        if layer.last or reference is not None or len(partial.payloads) == self._layers:
            self._hand_over(key)

    def step(self, now: float) -> None:
        """Start the most urgent frame whose time has come."""
        key = min(self._open, key=lambda key: self._open[key].start_by_s, default=None)
        if key is not None and self._open[key].start_by_s <= now:
            self._hand_over(key)

    def close(self, stream: int, frame_id: int) -> None:
        """No answer is wanted, or none will be given: ignore what else arrives of this frame."""
        self._open.pop((stream, frame_id), None)
        self._closed[stream].append(frame_id)

    def forget(self, stream: int) -> None:
        """The stream is gone."""
        for key in [key for key in self._open if key[0] == stream]:
            del self._open[key]
        self._closed.pop(stream, None)

    def _go_on_without(self, key: tuple[int, int]) -> None:
        if key in self._open:
            self._hand_over(key)
        else:
            self.close(*key)

    def _hand_over(self, key: tuple[int, int]) -> None:
        partial = self._open[key]
        self._actions.append(
            Assembled(*key, partial.due_s, partial.first_s, tuple(partial.payloads), partial.reference)
        )
        self.close(*key)


def fault(layer: Layer, reference: Reconstruction | None, *, expected: int) -> str | None:
    """What is wrong with a layer when `expected` is the next one; None when nothing is.

    The checksum of one that is coded against another frame begins with that frame's seal, so that it fits no other.
    """
    if layer.tail != 0:
        return f"tail {layer.tail}: this bundle has one tail, 0"
    if layer.layer != expected or (layer.reference is not None and expected):
        return f"layer {layer.layer}: expected layer {expected}"
    if layer.reference is not None and reference is None:
        return f"layer {layer.layer}: coded against frame {layer.reference}, which this server does not hold"
    if (crc := codec.checksum(layer.payload, reference.seal if reference else 0)) != layer.crc:
        return f"layer {layer.layer}: checksum {crc:08x} of {len(layer.payload)} bytes, the layer says {layer.crc:08x}"
    return None
