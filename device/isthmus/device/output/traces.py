"""A sink that makes spans of every answer: the frame from capture to answer, and below it where the time went.

What the server adds to the same trace is in `edge_server.tracing`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from isthmus.device.output.sinks import AnsweredPicture, Inbox, Sink
from isthmus.proto.monitoring.spans import FRAME, Attribute, FrameTrace, Span
from isthmus.proto.record import FrameRecord

if TYPE_CHECKING:
    from isthmus.proto.monitoring.tracer import Tracer

SHOWN = (
    "frame_id",
    "width",
    "exit",
    "step",
    "layers",
    "bytes_up",
    "on_time",
    "server",
    "promised",
    "label",
    "confidence",
)
"""Of a record, what its frame's span has as attributes, as far as it is known."""


class Traces(Sink):
    """Makes them, and gives them to whoever hands them over."""

    name, capacity, pictures = "traces", 64, False

    def __init__(self, tracer: Tracer, client_id: str) -> None:
        self._tracer, self._client_id = tracer, client_id

    async def run(self, inbox: Inbox) -> None:
        """Make spans of what is answered, until the inbox ends."""
        try:
            async for answered in inbox:
                trace = trace_of(self._client_id, answered)
                if self._tracer.keeps(trace):
                    self._tracer.add(trace, spans_of(answered.row))
        finally:
            await asyncio.to_thread(self._tracer.close)


def trace_of(client_id: str, answered: AnsweredPicture) -> FrameTrace:
    """The trace of a frame: the one that the server finds as well, where it was sent."""
    row = answered.row
    if answered.sent_crc is not None:
        return FrameTrace.of_sent(client_id, row.frame_id, answered.sent_crc)
    return FrameTrace.of_kept(client_id, row.frame_id, row.captured_unix_s or row.captured_s)


def spans_of(row: FrameRecord) -> list[Span]:
    """A frame's spans: its own, and those of head, encoding and network as far as it had them."""
    known = {f"isthmus.{name}": value for name in SHOWN if (value := getattr(row, name)) is not None}
    attributes: dict[str, Attribute] = {
        "isthmus.source": row.source.value,
        "isthmus.reason": row.reason.value,
        "isthmus.deadline_s": row.deadline_s - row.captured_s,
        **known,
    }
    spans = [Span(FRAME, row.captured_s, row.answered_s, attributes, parent=None)]
    head_s = row.captured_s + row.wait_s
    away_s = row.network_s + row.server_receive_s + row.server_queue_s + row.server_tail_s + row.server_send_s
    sent_s = row.answered_s - away_s if row.network_s else head_s + row.head_s
    if row.head_s:
        spans.append(Span("head", head_s, head_s + row.head_s))
    if row.encode_s:
        spans.append(Span("encode", sent_s, sent_s + row.encode_s))
    if row.network_s:
        both_ways: dict[str, Attribute] = {"isthmus.network_s": row.network_s}
        spans.append(Span("network", min(sent_s + row.encode_s, row.answered_s), row.answered_s, both_ways))
    return spans
