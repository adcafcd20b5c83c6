"""What an agent counts of its answers, and what it shows of link, stages and machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from isthmus.device.monitoring.insight import Insight
from isthmus.device.monitoring.metrics import AgentMetrics
from isthmus.device.scheduler import POLICIES
from isthmus.device.sensors import Reading
from isthmus.device.session import Session
from isthmus.device.stage_times import StageTimes
from isthmus.proto.messages import Welcome
from isthmus.proto.record import FrameRecord
from isthmus.proto.vocabulary import AnswerSource, Load, Reason
from pair import catalogue

WARM = Reading(temperature_C=61.5, clock_share=0.5, throttling=("frequency capped",), power_W=4.5)


def samples(metrics: AgentMetrics) -> Mapping[tuple[str, ...], float]:
    """By name and the values of labels, labels in the order of their names."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(metrics.page()[0].decode())
        for sample in family.samples
    }


def row(source: AnswerSource, reason: Reason, *, on_time: bool = True, **more: Any) -> FrameRecord:
    times = {"captured_s": 0.0, "deadline_s": 0.1, "answered_s": 0.05, "latency_s": 0.05}
    return FrameRecord(
        frame_id=1,
        confidence=0.9,
        source=source,
        reason=reason,
        on_time=on_time,
        **{**times, **more},
    )


def test_answers_and_fates_are_counted() -> None:
    metrics = AgentMetrics({"bundle": "signs", "client_id": 'po"rch\n'}, sensors=Reading)
    away: dict[str, Any] = {
        "head_s": 0.01,
        "network_s": 0.02,
        "server_queue_s": 0.001,
        "server_tail_s": 0.004,
        "bytes_up": 700,
    }
    metrics.add(row(AnswerSource.SERVER, Reason.RETURNED, **away))
    metrics.add(row(AnswerSource.SERVER, Reason.RETURNED, on_time=False, **away))
    metrics.add(row(AnswerSource.EXIT, Reason.CONFIDENT, skipped_stale=3, skipped_rate=2))
    metrics.add(row(AnswerSource.NONE, Reason.OVERLOADED))
    found = samples(metrics)
    assert found["isthmus_agent_info", "signs", 'po"rch\n'] == 1
    assert found["isthmus_agent_pictures_total", "answered", "returned"] == 2
    assert found["isthmus_agent_pictures_total", "skipped", "stale"] == 3
    assert found["isthmus_agent_pictures_total", "skipped", "rate"] == 2
    assert found["isthmus_agent_pictures_total", "refused", "overloaded"] == 1
    assert found["isthmus_agent_answers_total", "yes", "returned", "server"] == 1
    assert found["isthmus_agent_answers_total", "no", "returned", "server"] == 1
    assert found["isthmus_agent_answers_total", "no", "overloaded", "none"] == 1, "no answer is never in time"
    assert found["isthmus_agent_bytes_up_total",] == 1400
    assert found["isthmus_agent_latency_seconds_count",] == 4
    assert found["isthmus_agent_part_seconds_count", "network"] == 2
    assert found["isthmus_agent_part_seconds_sum", "head"] == pytest.approx(0.02)
    assert ("isthmus_agent_part_seconds_count", "encode") not in found, "nothing was encoded"
    assert found["process_resident_memory_bytes",] > 1e6


def test_the_machine_is_shown_as_far_as_it_shows_itself() -> None:
    readings = [Reading()]
    metrics = AgentMetrics({"bundle": "signs"}, sensors=lambda: readings[-1])
    bare = samples(metrics)
    assert not [name for name in bare if "temperature" in name[0] or "throttled" in name[0] or "power" in name[0]]
    readings.append(WARM)
    found = samples(metrics)
    assert found["isthmus_agent_temperature_celsius",] == 61.5
    assert found["isthmus_agent_clock_ratio",] == 0.5
    assert found["isthmus_agent_power_watts",] == 4.5
    assert found["isthmus_agent_throttled", "frequency capped"] == 1
    assert found["isthmus_agent_throttled", "under-voltage"] == 0
    readings.append(replace(WARM, temperature_C=None))
    assert ("isthmus_agent_temperature_celsius",) not in samples(metrics), (
        "a sensor that went away is not shown as it was"
    )


def test_link_and_stages_as_the_session_believes_them() -> None:
    known = catalogue()
    times = StageTimes(((0.004, 0.010), (0.003, 0.008)))
    session = Session(known, POLICIES["expected-utility"](known), times)
    metrics = AgentMetrics({"bundle": "signs"}, sensors=Reading)
    metrics.dropped = lambda: {"page": 2}
    assert not [name for name in samples(metrics) if name[0] == "isthmus_agent_link_up"]
    metrics.insight = Insight(session, times, known)
    found = samples(metrics)
    assert found["isthmus_agent_link_up",] == 0
    assert ("isthmus_agent_round_trip_seconds",) not in found, "what is not known is not shown"
    assert found["isthmus_agent_sink_dropped_total", "page"] == 2
    session.on_connected(Welcome("edge", 8, 1 << 20, Load()), now=0.0)
    times.observe(0, 0, 3 * times.expected_s(0, 0))
    found = samples(metrics)
    assert found["isthmus_agent_link_up",] == 1
    assert found["isthmus_agent_uplink_bytes_per_second",] == pytest.approx(session.link.goodput_Bps)
    assert found["isthmus_agent_contention_ratio",] == pytest.approx(times.contention)
    stages = {key[1:]: value for key, value in found.items() if key[0] == "isthmus_agent_stage_seconds"}
    assert stages["1", f"{known.widths[0]:g}"] == pytest.approx(times.expected_s(0, 0))
    assert len(stages) == known.stages * len(known.widths)
