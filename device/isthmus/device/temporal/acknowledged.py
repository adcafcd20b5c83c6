"""Which frame of a stream the next one may be coded against: the newest that the server has answered. Pure.

A result says that the server holds its frame, and how many layers it used. The server forgets its oldest frames: one that
is followed by as many as it holds is out of reach, whether they arrived or not. So a reference that is handed out is one
that the server has, unless it has lost what it said it has; it then says so, and the next frames are whole ones.
"""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from isthmus.proto.temporal.reconstruction import HELD
from isthmus.proto.vocabulary import Reference, StageResult

GAIN = 0.2
"""Weight of a new frame in what frames have lately saved."""


class _Sent(Struct, frozen=True):
    """A frame of features that was sent."""

    number: int
    layers: int
    delta: bool


class Acknowledged:
    """What the server of one stream holds, as far as the device knows."""

    def __init__(self) -> None:
        self._held, self._count = 0, 0
        self._sent: dict[int, _Sent] = {}
        self._newest: Reference | None = None
        self.share = 1.0
        """What frames have lately taken of the bytes that they would have taken whole."""

    def on_connected(self, references: int) -> None:
        """A new stream: its server holds nothing yet, and will hold so many frames."""
        self.on_disconnected()
        self._held = min(references, HELD)

    def on_disconnected(self) -> None:
        """The stream is gone, and with it all that its server held."""
        self._held, self._newest, self.share = 0, None, 1.0
        self._sent.clear()

    def on_sent(self, frame_id: int, layers: int, *, delta: bool) -> None:
        """So many layers of a frame's features are on their way, whole or as a delta."""
        self._count += 1
        self._sent[frame_id] = _Sent(self._count, layers, delta)
        if len(self._sent) > HELD:
            del self._sent[next(iter(self._sent))]

    def on_result(self, frame_id: int, layers_used: int) -> None:
        """The server has answered a frame from so many of its layers, so it holds these."""
        sent = self._sent.get(frame_id)
        if sent is None or not 1 <= layers_used <= sent.layers:
            return
        newest = None if self._newest is None else self._sent.get(self._newest.frame_id)
        if newest is None or sent.number > newest.number:
            self._newest = Reference(frame_id, layers_used)

    def on_refused(self, frame_id: int) -> None:
        """The server could not decode a frame; where that was a delta, what it holds is not what we believe."""
        sent = self._sent.get(frame_id)
        if sent is not None and sent.delta:
            self._newest = None

    def forget(self, frame_id: int) -> None:
        """A frame was sent elsewhere too, and coded anew: what this server holds of it is not what we hold."""
        self._sent.pop(frame_id, None)

    @property
    def newest(self) -> Reference | None:
        """What the next frame may be coded against; None: nothing."""
        return self._newest if self.holds(self._newest) else None

    def holds(self, reference: Reference | None) -> bool:
        """Whether the server still has this, as long as it gets no more than one further frame."""
        sent = None if reference is None else self._sent.get(reference.frame_id)
        return sent is not None and self._newest is not None and self._count - sent.number < self._held

    def priced(self, result: StageResult) -> StageResult:
        """A stage's result with the bytes that its frame really takes: each prefix whole or as a delta, whichever is less."""
        if result.layer_bytes is None:
            return result
        if not result.delta_bytes or not self.holds(result.reference):
            return whole(result)
        deltas = len(result.delta_bytes)
        steps = [_cheaper(*row) for row in zip(result.layer_bytes, result.delta_bytes, strict=False)]
        now = sum(map(sum, steps)) / max(1, sum(map(sum, result.layer_bytes[:deltas])))
        self.share += GAIN * (now - self.share)
        return replace(result, layer_bytes=(*steps, *result.layer_bytes[deltas:]))


def whole(result: StageResult) -> StageResult:
    """A stage's result for a server that holds nothing to code its frame against."""
    return replace(result, reference=None, delta_bytes=()) if result.reference is not None else result


def _cheaper(whole: tuple[int, ...], deltas: tuple[int, ...]) -> tuple[int, ...]:
    """By layer, what it adds to the lesser of: all layers up to it, or the one delta that stands for them."""
    sizes, sent, least = [], 0, 0
    for size, delta in zip(whole, deltas, strict=True):
        sent += size
        before, least = least, min(sent, delta)
        sizes.append(least - before)
    return tuple(sizes)
