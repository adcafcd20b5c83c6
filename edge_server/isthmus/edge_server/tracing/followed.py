"""One stream's frames, followed from their first layer to their reply, for the traces that their devices have begun.

It reads the clock. Nothing crosses for it: `proto.monitoring.spans` derives what both halves call a frame's trace.
"""

from __future__ import annotations

import time
from typing import Protocol

from msgspec import Struct

from isthmus.proto import messages as m
from isthmus.proto.monitoring.spans import Attribute, FrameTrace, Span

MOST_OPEN = 64
"""Frames of a stream that are remembered without a reply: a device has 8 in flight, and tells of some no more."""
SERVE = "serve"
OUTCOMES = {m.Result: "result", m.Late: "late", m.Busy: "busy", m.Invalid: "invalid"}


class Tracer(Protocol):
    """Where spans go."""

    def keeps(self, trace: FrameTrace) -> bool:
        """Whether spans of this frame are wanted."""

    def add(self, trace: FrameTrace, spans: list[Span]) -> None:
        """Hand them over, in no time."""


class _Open(Struct):
    """A frame that has no reply yet."""

    trace: FrameTrace
    came_s: float
    budget_s: float
    size_bytes: int = 0
    layers: int = 0


class Followed:
    """The frames of one stream."""

    def __init__(self, tracer: Tracer, client_id: str, bundle: str) -> None:
        self._tracer, self._client_id, self._bundle = tracer, client_id, bundle
        self._open: dict[int, _Open] = {}

    def on_layer(self, layer: m.Layer) -> None:
        """A layer came."""
        if layer.layer == 0:
            trace = FrameTrace.of_sent(self._client_id, layer.frame_id, layer.crc)
            if not self._tracer.keeps(trace):
                return
            self._open[layer.frame_id] = _Open(trace, time.monotonic(), layer.budget_s)
            if len(self._open) > MOST_OPEN:
                del self._open[next(iter(self._open))]
        if (frame := self._open.get(layer.frame_id)) is not None:
            frame.size_bytes += len(layer.payload)
            frame.layers += 1

    def on_reply(self, message: m.ServerMessage) -> None:
        """The device was told something."""
        if not isinstance(message, m.Result | m.Late | m.Busy | m.Invalid):
            return
        if isinstance(message, m.Invalid) and message.layer > 0:
            return  # its base is still good for an answer
        if (frame := self._open.pop(message.frame_id, None)) is not None:
            self._tracer.add(frame.trace, self._spans(frame, message, time.monotonic()))

    def _spans(self, frame: _Open, message: m.Result | m.Late | m.Busy | m.Invalid, now: float) -> list[Span]:
        attributes: dict[str, Attribute] = {
            "isthmus.outcome": OUTCOMES[type(message)],
            "isthmus.bundle": self._bundle,
            "isthmus.client_id": self._client_id,
            "isthmus.frame_id": message.frame_id,
            "isthmus.budget_s": frame.budget_s,
            "isthmus.bytes": frame.size_bytes,
            "isthmus.layers": frame.layers,
        }
        if not isinstance(message, m.Result):
            return [Span(SERVE, frame.came_s, now, attributes)]
        timings = message.timings
        began_s = min(frame.came_s, now - timings.receive_s - timings.queue_s - timings.tail_s)  # the loop may lag
        received_s = began_s + timings.receive_s
        started_s = received_s + timings.queue_s
        return [
            Span(SERVE, began_s, now, attributes),
            Span("receive", began_s, received_s, parent=SERVE),
            Span("queue", received_s, started_s, parent=SERVE),
            Span("tail", started_s, started_s + timings.tail_s, parent=SERVE),
        ]
