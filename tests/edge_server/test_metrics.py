"""What the server counts, by bundle and device; how many devices have a name there."""

from __future__ import annotations

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from isthmus.edge_server.metrics import Metrics
from isthmus.proto import messages as m
from isthmus.proto.monitoring.labels import MOST_NAMES
from isthmus.proto.vocabulary import ServerTimings


def test_outcomes_are_counted() -> None:
    metrics = Metrics()
    tiny = metrics.bundle("tiny")
    timings = ServerTimings(queue_s=0.003, receive_s=0.001)
    tiny.on_welcome("cam0")
    for message in (
        m.Ack(1, 0),
        m.Result(1, 2, (0.0,), timings),
        m.Result(2, 2, (0.0,), timings),
        m.Late(3),
        m.Busy(4, 0.1),
        m.Invalid(5, 0, "damaged"),
        m.Invalid(1, 1, "damaged: only a layer, not a frame"),
    ):
        tiny.on_reply(message, "cam0")
    tiny.on_layer(m.Layer(1, 0, False, 0.08, b"12345", 0), "cam0")
    tiny.on_layer(m.Layer(1, 1, True, 0.07, b"123", 0), "cam0")
    tiny.on_batch(2, 0.004)
    metrics.on_close("silent")

    def value(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(name, labels)

    outcomes = {
        o: value("isthmus_requests_total", bundle="tiny", device="cam0", outcome=o)
        for o in ("result", "late", "busy", "invalid")
    }
    assert outcomes == {"result": 2, "late": 1, "busy": 1, "invalid": 1}
    assert value("isthmus_invalid_layers_total", bundle="tiny") == 2
    assert value("isthmus_layers_total", bundle="tiny") == 2
    assert value("isthmus_layer_bytes_total", bundle="tiny", device="cam0") == 8
    assert value("isthmus_budget_seconds_sum", bundle="tiny") == pytest.approx(0.08)
    assert value("isthmus_budget_seconds_count", bundle="tiny") == 1
    assert value("isthmus_queue_duration_seconds_sum", bundle="tiny") == pytest.approx(0.006)
    assert value("isthmus_network_duration_seconds_sum", bundle="tiny") == pytest.approx(0.002)
    assert value("isthmus_tail_duration_seconds_sum", bundle="tiny") == pytest.approx(0.004)
    assert value("isthmus_batch_size_sum", bundle="tiny") == 2
    assert value("isthmus_streams_closed_total", reason="silent") == 1


def test_bundles_are_counted_apart_and_versions_of_one_together() -> None:
    metrics = Metrics()
    one, other = metrics.bundle("signs", b"\1"), metrics.bundle("cifar10", b"\2")
    assert metrics.bundle("signs", b"\3") is one
    one.watch(b"\1", devices=lambda: 2, pending=lambda: 1)
    one.watch(b"\3", devices=lambda: 3, pending=lambda: 0)
    other.watch(b"\2", devices=lambda: 7, pending=lambda: 0)

    def value(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(name, labels)

    assert (value("isthmus_devices", bundle="signs"), value("isthmus_devices", bundle="cifar10")) == (5, 7)
    assert value("isthmus_pending_requests", bundle="signs") == 1
    metrics.forget("signs", b"\1")
    assert value("isthmus_devices", bundle="signs") == 3
    assert value("isthmus_bundle_info", bundle="signs", sha256="01") is None
    assert value("isthmus_bundle_info", bundle="signs", sha256="03") == 1


def test_however_many_devices_come_the_page_stays_small() -> None:
    """A label's value may be anything; what it cannot do is to become another line, or a line for each of a million."""
    metrics = Metrics()
    tiny = metrics.bundle("tiny")
    nasty = 'x"} 1\nisthmus_streams{bundle="\\'
    for i in range(5 * MOST_NAMES):
        name = nasty if i == 3 else f"cam{i}"
        tiny.on_welcome(name)
        tiny.on_reply(m.Late(i), name)
    page = generate_latest(metrics.registry).decode()
    families = {family.name: family for family in text_string_to_metric_families(page)}
    late = {s.labels["device"]: s.value for s in families["isthmus_requests"].samples if s.labels["outcome"] == "late"}
    assert len(late) == MOST_NAMES + 1
    assert late["other"] == 4 * MOST_NAMES
    assert sum(late.values()) == 5 * MOST_NAMES
    assert nasty.replace("\n", "\\n") in late
    assert len(families["isthmus_streams"].samples) == 1
    assert families["isthmus_streams"].samples[0].labels == {}
