"""What the server counts, under names like Triton's, with units; a port for Prometheus and for probes where one is configured.

One `Metrics` for a whole server, and a `BundleMetrics` of it for each bundle that is served.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterable

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from isthmus.edge_server.admission import Ending
from isthmus.edge_server.tracing.followed import Tracer
from isthmus.proto import messages as m
from isthmus.proto.codec import CODEC_VERSION
from isthmus.proto.monitoring.endpoint import Endpoint, Shown
from isthmus.proto.monitoring.labels import OTHER, Names
from isthmus.proto.monitoring.vitals import Vitals
from isthmus.proto.operations.version import version

SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
BATCHES = (1, 2, 4, 8, 16, 32, 64)
"""Bucket edges: from half a millisecond, which a small tail takes, to a second, which no budget on a screen allows."""
OUTCOMES = ("result", "late", "busy", "invalid")
FAILURES = ("failed", "hung", "nan")
INFERENCE = "inference"
"""Whoever asks over the Open Inference Protocol, as a device."""


class Metrics:
    """One server's counters, in a registry of their own, and whether it is alive and ready."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        self.vitals = Vitals()
        self.names = Names()
        """The devices that have a label of their own."""
        self.tracer: Tracer | None = None
        """Where spans of frames go; None: nobody asked for them."""
        self._endpoint: Endpoint | None = None
        self._bundles: dict[str, BundleMetrics] = {}

        def counter(name: str, what: str, *labels: str) -> Counter:
            return Counter(name, what, labels, registry=registry)

        def histogram(name: str, what: str, *labels: str, buckets: Iterable[float] = SECONDS) -> Histogram:
            return Histogram(name, what, labels, buckets=tuple(buckets), registry=registry)

        self.requests = counter(
            "isthmus_requests_total", "Frames answered, by device and outcome", "bundle", "device", "outcome"
        )
        self.layer_bytes = counter("isthmus_layer_bytes_total", "Payload received, by device", "bundle", "device")
        self.layers = counter("isthmus_layers_total", "Layers received", "bundle")
        self.invalid_layers = counter("isthmus_invalid_layers_total", "Layers that could not be decoded", "bundle")
        what = "Batches that failed or hung, and answers that are not a number"
        self.tail_failures = counter("isthmus_tail_failures_total", what, "bundle", "reason")
        self._closed = counter("isthmus_streams_closed_total", "Streams closed by the server, by reason", "reason")
        for ending in Ending:
            self._closed.labels(ending.value)  # a rate needs the zero
        self._streams = Gauge("isthmus_streams", "Open streams, those without a hello too", registry=registry)
        self.network = histogram("isthmus_network_duration_seconds", "From a frame's first layer to its last", "bundle")
        self.budget = histogram(
            "isthmus_budget_seconds", "Time left to answer a frame, when its first layer came", "bundle"
        )
        self.queue = histogram("isthmus_queue_duration_seconds", "From assembled to started", "bundle")
        self.tail = histogram("isthmus_tail_duration_seconds", "The tail, by batch", "bundle")
        self.batch = histogram("isthmus_batch_size", "Frames run together", "bundle", buckets=BATCHES)
        self._bundle_info = Gauge("isthmus_bundle_info", "Bundles served", ("bundle", "sha256"), registry=registry)
        build = Gauge("isthmus_build_info", "What runs", ("version", "codec", "python"), registry=registry)
        build.labels(version(), CODEC_VERSION, platform.python_version()).set(1)
        ready = Gauge("isthmus_ready", "Whether it would answer: what /readyz says", registry=registry)
        ready.set_function(lambda: float(self.vitals.why_not_ready(time.monotonic()) is None))
        ProcessCollector(registry=registry)
        registry.register(_Watched(self._bundles))

    def watch(self, *, streams: Callable[[], int]) -> None:
        """Ask this whenever the page is read; from another thread, so it must only look."""
        self._streams.set_function(streams)

    def watch_repository(
        self, *, offered: Callable[[], int], loaded: Callable[[], int], failed: Callable[[], int]
    ) -> None:
        """Ask these too, where bundles come and go."""
        what = "Bundles that devices may have, tails that are loaded, folders that hold what cannot be served"
        gauge = Gauge("isthmus_bundles", what, ("state",), registry=self.registry)
        for state, count in {"offered": offered, "loaded": loaded, "failed": failed}.items():
            gauge.labels(state).set_function(count)

    def bundle(self, name: str, sha256: bytes = b"") -> BundleMetrics:
        """What is counted of a bundle; of two versions of one name it is counted together."""
        self._bundle_info.labels(name, sha256.hex()).set(1)
        if name not in self._bundles:
            self._bundles[name] = BundleMetrics(self, name)
        return self._bundles[name]

    def forget(self, name: str, sha256: bytes) -> None:
        """A bundle is not served any more; what was counted of it stays."""
        self._bundle_info.remove(name, sha256.hex())
        self._bundles[name].forget(sha256)

    def on_close(self, reason: str) -> None:
        """The server closed a stream."""
        self._closed.labels(reason).inc()

    def serve(self, address: str) -> int:
        """Open the port at HOST:PORT; returns its number. Raises BindError."""
        self._endpoint = Endpoint(address, Shown(self.vitals, self._page))
        return self._endpoint.port

    def close(self) -> None:
        """Close the port, if it is open."""
        if self._endpoint is not None:
            self._endpoint.close()
            self._endpoint = None

    def _page(self) -> tuple[bytes, str]:
        return generate_latest(self.registry), CONTENT_TYPE_LATEST


class BundleMetrics:
    """The same of one bundle."""

    def __init__(self, metrics: Metrics, name: str) -> None:
        self._all, self._name = metrics, name
        self._layers, self._invalid_layers = metrics.layers.labels(name), metrics.invalid_layers.labels(name)
        self._network, self._budget = metrics.network.labels(name), metrics.budget.labels(name)
        self._queue, self._tail, self._batch = (
            family.labels(name) for family in (metrics.queue, metrics.tail, metrics.batch)
        )
        self._failures = {reason: metrics.tail_failures.labels(name, reason) for reason in FAILURES}
        self._watched: dict[bytes, tuple[Callable[[], int], Callable[[], int]]] = {}
        self.on_welcome(OTHER)

    def watch(self, sha256: bytes, *, devices: Callable[[], int], pending: Callable[[], int]) -> None:
        """Ask these of one version whenever the page is read; from another thread, so they must only look."""
        self._watched[sha256] = devices, pending

    def forget(self, sha256: bytes) -> None:
        """A version is not served any more."""
        self._watched.pop(sha256, None)

    def looked(self) -> tuple[int, int]:
        """The devices that have the bundle, and the frames in its queue, over all versions."""
        counts = [(devices(), pending()) for devices, pending in self._watched.copy().values()]
        return sum(devices for devices, _ in counts), sum(pending for _, pending in counts)

    def on_welcome(self, device: str) -> None:
        """A device was taken on."""
        label = self._all.names.label(device)
        for outcome in OUTCOMES:
            self._all.requests.labels(self._name, label, outcome)  # a rate needs the zero

    def on_layer(self, layer: m.Layer, device: str = OTHER) -> None:
        """A layer came in."""
        self._layers.inc()
        self._all.layer_bytes.labels(self._name, self._all.names.label(device)).inc(len(layer.payload))
        if layer.layer == 0:
            self._budget.observe(layer.budget_s)

    def on_batch(self, size: int, tail_s: float) -> None:
        """A batch was computed."""
        self._batch.observe(size)
        self._tail.observe(tail_s)

    def on_tail_failure(self, reason: str, count: int = 1) -> None:
        """The tail failed: "failed", "hung" or "nan"."""
        self._failures[reason].inc(count)

    def on_reply(self, message: m.ServerMessage, device: str = OTHER) -> None:
        """A device was told something."""
        match message:
            case m.Result(timings=timings):
                self._answered(device, "result")
                self._queue.observe(timings.queue_s)
                self._network.observe(timings.receive_s)
            case m.Late():
                self._answered(device, "late")
            case m.Busy():
                self._answered(device, "busy")
            case m.Invalid(layer=layer):
                self._invalid_layers.inc()
                if layer == 0:  # without its base the frame is lost
                    self._answered(device, "invalid")

    def _answered(self, device: str, outcome: str) -> None:
        self._all.requests.labels(self._name, self._all.names.label(device), outcome).inc()


class _Watched(Collector):
    """Gauges of what is asked for when the page is read."""

    def __init__(self, bundles: dict[str, BundleMetrics]) -> None:
        self._bundles = bundles

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Devices and waiting frames, by bundle."""
        devices = GaugeMetricFamily("isthmus_devices", "Devices that have the bundle", labels=("bundle",))
        pending = GaugeMetricFamily("isthmus_pending_requests", "Frames in the queue", labels=("bundle",))
        for name, bundle in self._bundles.copy().items():
            have_it, wait = bundle.looked()
            devices.add_metric((name,), have_it)
            pending.add_metric((name,), wait)
        return devices, pending
