"""What the server counts, under names like Triton's, with units; a page for Prometheus where one is configured."""

from __future__ import annotations

from collections.abc import Callable
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from isthmus.edge_server.config import split_address
from isthmus.proto import messages as m
from isthmus.proto.errors import BindError

SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
BATCHES = (1, 2, 4, 8, 16, 32, 64)
"""Bucket edges: from half a millisecond, which a small tail takes, to a second, which no budget on a screen allows."""


class Metrics:
    """One server's counters, in a registry of their own."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        self._page: WSGIServer | None = None
        self._requests = Counter(
            "isthmus_requests_total", "Frames answered, by outcome", ["outcome"], registry=registry
        )
        for outcome in ("result", "late", "busy", "invalid"):
            self._requests.labels(outcome)  # a rate needs the zero
        self._queue = Histogram(
            "isthmus_queue_duration_seconds", "From assembled to started", buckets=SECONDS, registry=registry
        )
        self._tail = Histogram(
            "isthmus_tail_duration_seconds", "The tail, by batch", buckets=SECONDS, registry=registry
        )
        self._batch = Histogram("isthmus_batch_size", "Frames run together", buckets=BATCHES, registry=registry)
        self._layer_bytes = Counter("isthmus_layer_bytes_total", "Payload received", registry=registry)
        self._layers = Counter("isthmus_layers_total", "Layers received", registry=registry)
        self._invalid_layers = Counter(
            "isthmus_invalid_layers_total", "Layers that could not be decoded", registry=registry
        )
        self._tail_failures = Counter(
            "isthmus_tail_failures_total",
            "Batches that failed or hung, and answers that are not a number",
            ["reason"],
            registry=registry,
        )
        for reason in ("failed", "hung", "nan"):
            self._tail_failures.labels(reason)
        self._closed = Counter(
            "isthmus_streams_closed_total", "Streams closed by the server, by reason", ["reason"], registry=registry
        )
        self._streams = Gauge("isthmus_streams", "Open streams", registry=registry)
        self._pending = Gauge("isthmus_pending_requests", "Frames in the queue", registry=registry)

    def watch(self, *, streams: Callable[[], int], pending: Callable[[], int]) -> None:
        """Ask these whenever the page is read; from another thread, so they must only look."""
        self._streams.set_function(streams)
        self._pending.set_function(pending)

    def watch_repository(
        self, *, offered: Callable[[], int], loaded: Callable[[], int], failed: Callable[[], int]
    ) -> None:
        """Ask these too, where bundles come and go."""
        states = {"offered": offered, "loaded": loaded, "failed": failed}
        gauge = Gauge(
            "isthmus_bundles",
            "Bundles that devices may have, tails that are loaded, folders that hold what cannot be served",
            ["state"],
            registry=self.registry,
        )
        for state, count in states.items():
            gauge.labels(state).set_function(count)

    def on_layer(self, layer: m.Layer) -> None:
        """A layer came in."""
        self._layers.inc()
        self._layer_bytes.inc(len(layer.payload))

    def on_batch(self, size: int, tail_s: float) -> None:
        """A batch was computed."""
        self._batch.observe(size)
        self._tail.observe(tail_s)

    def on_tail_failure(self, reason: str, count: int = 1) -> None:
        """The tail failed: "failed", "hung" or "nan"."""
        self._tail_failures.labels(reason).inc(count)

    def on_reply(self, message: m.ServerMessage) -> None:
        """A device was told something."""
        match message:
            case m.Result(timings=timings):
                self._requests.labels("result").inc()
                self._queue.observe(timings.queue_s)
            case m.Late():
                self._requests.labels("late").inc()
            case m.Busy():
                self._requests.labels("busy").inc()
            case m.Invalid(layer=layer):
                self._invalid_layers.inc()
                if layer == 0:  # without its base the frame is lost
                    self._requests.labels("invalid").inc()

    def on_close(self, reason: str) -> None:
        """The server closed a stream."""
        self._closed.labels(reason).inc()

    def serve(self, address: str) -> int:
        """Open the page at HOST:PORT; returns the port. Raises BindError."""
        host, port = split_address(address)
        try:
            self._page, _ = start_http_server(port, host, registry=self.registry)
        except OSError as error:
            raise BindError(f"{address}: metrics: {error.strerror}; choose another --metrics HOST:PORT") from error
        return int(self._page.server_port)

    def close(self) -> None:
        """Close the page, if it is open."""
        if self._page is not None:
            self._page.shutdown()
            self._page.server_close()
            self._page = None
