"""One stream as the gRPC face keeps it: what is to be written to whom, and what the journal says of it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import grpc

from isthmus.edge_server import connections
from isthmus.edge_server.admission import Close, Ending
from isthmus.edge_server.metrics import BundleMetrics, Metrics
from isthmus.edge_server.streams import Reply, Served
from isthmus.edge_server.tracing.followed import Followed
from isthmus.proto.messages import Layer, ServerMessage
from isthmus.proto.monitoring.labels import OTHER
from isthmus.proto.printable import printable

STATUS = {
    Ending.MISMATCH: grpc.StatusCode.FAILED_PRECONDITION,
    Ending.MALFORMED: grpc.StatusCode.INVALID_ARGUMENT,
    Ending.OVERSIZED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Ending.CROWDED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Ending.SILENT: grpc.StatusCode.DEADLINE_EXCEEDED,
    Ending.UNREAD: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Ending.REPLACED: grpc.StatusCode.ABORTED,
    Ending.REVOKED: grpc.StatusCode.PERMISSION_DENIED,
    Ending.UNLOADED: grpc.StatusCode.UNAVAILABLE,
    Ending.DRAINED: grpc.StatusCode.UNAVAILABLE,
    Ending.AGED: grpc.StatusCode.UNAVAILABLE,
}
"""What gRPC calls each way in which a stream is closed."""


@dataclass
class Outbox:
    """Where one stream's replies wait, the task that writes them, and whom to."""

    stream: int
    peer: str
    writer: asyncio.Task[None] | None
    opened_s: float
    replies: asyncio.Queue[Reply | Close | None] = field(default_factory=asyncio.Queue)
    writing_since_s: float | None = None
    client_id: str | None = None
    """None until it has said hello."""
    welcome: bool = False
    counted: BundleMetrics | None = None
    """Where it is counted, from its welcome on: who is turned away uses up no names."""
    followed: Followed | None = None
    """What makes spans of its frames, from then on; None where nobody asked for them."""
    closed: Close | None = None
    """Why we closed it; None where we did not."""

    def on_welcome(self, metrics: Metrics, served: Served) -> None:
        """The device is taken on, with this bundle."""
        self.welcome, self.counted = True, metrics.bundle(served.name, served.sha256)
        self.counted.on_welcome(self.label)
        if metrics.tracer is not None:
            self.followed = Followed(metrics.tracer, self.label, served.name)

    def on_layer(self, layer: Layer) -> None:
        """A layer came: it is counted, and followed where that is asked for."""
        if self.counted is not None:
            self.counted.on_layer(layer, self.label)
        if self.followed is not None:
            self.followed.on_layer(layer)

    def on_reply(self, message: ServerMessage) -> None:
        """The device is told something."""
        if self.counted is not None:
            self.counted.on_reply(message, self.label)
        if self.followed is not None:
            self.followed.on_reply(message)

    @property
    def label(self) -> str:
        """The stream's device as metrics call it."""
        return self.client_id or OTHER

    @property
    def who(self) -> str:
        """The stream as the journal calls it."""
        name = "" if self.client_id is None else f"'{printable(self.client_id)}' "
        return f"stream {self.stream}: {name}at {connections.name_of(self.peer)}"

    @property
    def farewell(self) -> str:
        """How it ended."""
        if self.closed is None:
            return "hung up" if self.welcome else "hung up before it was welcome"
        return f"{'closed' if self.welcome else 'refused'}: {self.closed.ending.value}: {self.closed.why}"
