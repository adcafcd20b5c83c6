"""A frame's trace: derived alike by both halves, another for every frame, and kept by share."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.trace.sampling import Decision, TraceIdRatioBased

from isthmus.proto.monitoring.spans import FRAME, FrameTrace, check_collector, endpoint_of, host_of


def test_ids_are_what_they_were() -> None:
    """Halves of two versions find one trace only while this stays."""
    trace = FrameTrace.of_sent("porch", 7, 0xDEADBEEF)
    assert f"{trace.trace_id:032x}" == "f456094b23c87570b0be2af74ad6015d"
    assert f"{trace.span_id(FRAME):016x}" == "5b4ed165e8d56a74"


def test_another_device_frame_picture_or_moment_is_another_trace() -> None:
    traces = [
        FrameTrace.of_sent("porch", 7, 1),
        FrameTrace.of_sent("gate", 7, 1),
        FrameTrace.of_sent("porch", 8, 1),
        FrameTrace.of_sent("porch", 7, 2),
        FrameTrace.of_kept("porch", 7, 1.0),
        FrameTrace.of_kept("porch", 7, 2.0),
    ]
    assert len({trace.trace_id for trace in traces}) == len(traces)
    assert len({trace.span_id(name) for trace in traces for name in (FRAME, "head")}) == 2 * len(traces)


def test_a_share_keeps_about_so_many_and_the_same_as_open_telemetry_would() -> None:
    traces = [FrameTrace.of_sent("porch", frame_id, 1) for frame_id in range(2000)]
    kept = [trace.frame_id for trace in traces if trace.kept(0.1)]
    assert 140 < len(kept) < 260
    sampler = TraceIdRatioBased(0.1)
    decided = [sampler.should_sample(None, trace.trace_id, FRAME).decision for trace in traces]
    assert kept == [i for i, decision in enumerate(decided) if decision is Decision.RECORD_AND_SAMPLE]
    assert all(trace.kept(1.0) for trace in traces)


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
        ("http://127.0.0.1:4318/", "http://127.0.0.1:4318/v1/traces"),
        ("https://me:secret@collector/otlp/v1/traces", "https://me:secret@collector/otlp/v1/traces"),
    ],
)
def test_a_collector_s_path_is_otlp_s_where_none_is_named(url: str, endpoint: str) -> None:
    assert endpoint_of(url) == endpoint
    assert "secret" not in host_of(endpoint)


@pytest.mark.parametrize(
    "url", ["collector:4318", "grpc://collector:4317", "http://", "http://a:b", "http://[", "stdout"]
)
def test_what_is_no_collector_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"traces is no collector's URL: expected http://HOST\[:PORT\]"):
        check_collector(url, 1.0)


@pytest.mark.parametrize("share", [0.0, -1.0, 1.1, float("nan")])
def test_what_is_no_share_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="traces_share = "):
        check_collector("http://collector", share)


def test_a_share_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="traces_share goes with traces"):
        check_collector(None, 0.5)
    check_collector(None, 1.0)
