"""What an agent counts, and what it shows of its machine and its link, for Prometheus. Takes no time, reads no clock.

Answers are counted as they come; machine and link are looked at when the page is read, from another thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from isthmus.device.monitoring.insight import Insight
from isthmus.device.sensors import THROTTLING_BITS, Reading
from isthmus.proto.record import FrameRecord
from isthmus.proto.vocabulary import FATES, AnswerSource, Fate

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0)
"""Bucket edges: from a millisecond, which a small stage takes, to a slow model's deadline."""


class AgentMetrics:
    """One agent's, in a registry of their own."""

    def __init__(self, info: Mapping[str, str], *, sensors: Callable[[], Reading]) -> None:
        """`info` are labels of what runs; `sensors` is asked whenever the page is read."""
        registry = self.registry = CollectorRegistry()
        self.insight: Insight | None = None
        """Set once there is a session to look into."""
        self.dropped: Callable[[], Mapping[str, int]] = dict
        """How many answers each sink was not shown."""

        def counter(name: str, what: str, *labels: str) -> Counter:
            return Counter(name, what, labels, registry=registry)

        def histogram(name: str, what: str, *labels: str) -> Histogram:
            return Histogram(name, what, labels, buckets=SECONDS, registry=registry)

        Gauge("isthmus_agent_info", "What runs", tuple(info), registry=registry).labels(*info.values()).set(1)
        self._pictures = counter(
            "isthmus_agent_pictures_total", "Pictures captured, by what became of them", "fate", "reason"
        )
        self._answers = counter(
            "isthmus_agent_answers_total",
            "Answers, by who gave them, why, and whether in time",
            "source",
            "reason",
            "on_time",
        )
        self._bytes_up = counter("isthmus_agent_bytes_up_total", "Payload sent")
        self._latency = histogram("isthmus_agent_latency_seconds", "From capture to answer")
        self._parts = histogram("isthmus_agent_part_seconds", "The parts of an answer's latency", "part")
        ProcessCollector(registry=registry)
        registry.register(_Looked(self, sensors))

    def add(self, row: FrameRecord) -> None:
        """Count one answer, and what was skipped before it."""
        on_time = row.on_time and row.source is not AnswerSource.NONE
        self._pictures.labels(FATES[row.source].value, row.reason.value).inc()
        self._answers.labels(row.source.value, row.reason.value, "yes" if on_time else "no").inc()
        for reason, skipped in (("stale", row.skipped_stale), ("rate", row.skipped_rate)):
            if skipped:
                self._pictures.labels(Fate.SKIPPED.value, reason).inc(skipped)
        self._bytes_up.inc(row.bytes_up)
        self._latency.observe(row.latency_s)
        for part, took_s in parts_s(row).items():
            self._parts.labels(part).observe(took_s)

    def page(self) -> tuple[bytes, str]:
        """All of it as Prometheus reads it, and its content type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST


def parts_s(row: FrameRecord) -> dict[str, float]:
    """Where an answer's time went, by name; without the parts that it never came to."""
    parts = {"wait": row.wait_s, "head": row.head_s, "encode": row.encode_s, "network": row.network_s}
    parts["queue"], parts["tail"] = row.server_queue_s, row.server_tail_s
    return {part: took_s for part, took_s in parts.items() if took_s > 0}


class _Looked(Collector):
    """What is looked at when the page is read."""

    def __init__(self, metrics: AgentMetrics, sensors: Callable[[], Reading]) -> None:
        self._metrics, self._sensors = metrics, sensors

    def collect(self) -> Iterator[Metric]:
        """Drops, link and stages, machine."""
        dropped = CounterMetricFamily(
            "isthmus_agent_sink_dropped_total", "Answers that a sink was not shown", labels=("sink",)
        )
        for name, count in self._metrics.dropped().items():
            dropped.add_metric((name,), count)
        yield dropped
        if self._metrics.insight is not None:
            yield from _of_session(self._metrics.insight)
        yield from _of_machine(self._sensors())


def _of_session(insight: Insight) -> Iterator[Metric]:
    yield from _gauge("isthmus_agent_link_up", "Whether there is a server", float(insight.link_up))
    if insight.link_up:
        link = insight.session.link
        yield from _gauge(
            "isthmus_agent_uplink_bytes_per_second", "What the uplink is believed to carry", link.goodput_Bps
        )
        yield from _gauge("isthmus_agent_round_trip_seconds", "The least lately", link.round_trip_s)
    what = "How many times slower than when it was started the device runs"
    yield from _gauge("isthmus_agent_contention_ratio", what, insight.times.contention)
    stages = GaugeMetricFamily(
        "isthmus_agent_stage_seconds", "What a stage of the head is believed to take", labels=("stage", "width")
    )
    for stage, width, took_s in insight.stages_s():
        stages.add_metric((str(stage), f"{width:g}"), took_s)
    yield stages


def _of_machine(reading: Reading) -> Iterator[Metric]:
    yield from _gauge("isthmus_agent_temperature_celsius", "The hottest zone", reading.temperature_C)
    yield from _gauge(
        "isthmus_agent_clock_ratio", "Present clock of the slowest core over its highest", reading.clock_share
    )
    yield from _gauge("isthmus_agent_power_watts", "The board, or what of it is measured", reading.power_W)
    if reading.throttling is not None:
        held = GaugeMetricFamily("isthmus_agent_throttled", "What the cores are held back for now", labels=("reason",))
        for reason in THROTTLING_BITS:
            held.add_metric((reason,), float(reason in reading.throttling))
        yield held


def _gauge(name: str, what: str, value: float | None) -> Iterator[Metric]:
    """A gauge; nothing where nothing is known."""
    if value is not None:
        yield GaugeMetricFamily(name, what, value=value)
