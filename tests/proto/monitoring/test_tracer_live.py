"""The way to the collector: ids, parents and times as they were given, and a collector that is away."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from isthmus.proto.errors import ConfigError
from isthmus.proto.monitoring import tracer as tracing
from isthmus.proto.monitoring.spans import FRAME, FrameTrace, Span
from isthmus.proto.monitoring.tracer import Telling, Tracer, tracer_to

TRACE = FrameTrace.of_sent("porch", 7, 1)


@pytest.fixture(autouse=True)
def library() -> Iterator[logging.Logger]:
    """The library's logger, as it was, afterwards."""
    logger = logging.getLogger("opentelemetry")
    handlers, propagate = logger.handlers, logger.propagate
    yield logger
    logger.handlers, logger.propagate = handlers, propagate


def test_spans_come_out_as_they_were_given() -> None:
    kept = InMemorySpanExporter()
    tracer = Tracer(SimpleSpanProcessor(kept), half="agent", instance="porch")
    now, unix_s = time.monotonic(), time.time()
    tracer.add(TRACE, [Span("head", now + 1, now + 2), Span(FRAME, now, now + 3, {"isthmus.step": 4}, parent=None)])
    head, frame = kept.get_finished_spans()
    assert (head.context.trace_id, frame.context.trace_id) == (TRACE.trace_id, TRACE.trace_id)
    assert frame.parent is None
    assert head.parent is not None
    assert head.parent.span_id == frame.context.span_id == TRACE.span_id(FRAME)
    assert frame.attributes == {"isthmus.step": 4}
    assert frame.resource.attributes["service.name"] == "isthmus-agent"
    assert frame.start_time is not None
    assert frame.end_time is not None
    assert frame.start_time / 1e9 == pytest.approx(unix_s, abs=0.5)
    assert frame.end_time - frame.start_time == pytest.approx(3e9, abs=1e4)  # a double holds the time of day to 0.2 us
    tracer.close()


def test_a_wall_clock_that_was_set_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A board without a battery starts in the past, and learns the time when it has a network."""
    kept = InMemorySpanExporter()
    tracer, now, real = Tracer(SimpleSpanProcessor(kept), half="agent", instance="a"), time.monotonic(), time.time
    monkeypatch.setattr(time, "time", lambda: real() + 3600.0)
    tracer.add(TRACE, [Span(FRAME, now, now, parent=None)])
    (span,) = kept.get_finished_spans()
    assert span.start_time is not None
    assert span.start_time / 1e9 == pytest.approx(real() + 3600.0, abs=60.0)


def test_a_collector_that_is_away_is_said_once_and_holds_nobody_up(caplog: pytest.LogCaptureFixture) -> None:
    tracer = tracer_to("http://me:secret@127.0.0.1:9/hidden", 1.0, half="agent", instance="porch")
    began_s = time.monotonic()
    for frame_id in range(3 * tracing.MOST_WAITING):
        tracer.add(FrameTrace.of_sent("porch", frame_id, 1), [Span(FRAME, began_s, began_s, parent=None)])
    while not caplog.records:
        assert time.monotonic() < began_s + 30
        time.sleep(0.05)
    closed_s = time.monotonic()
    tracer.close()
    assert time.monotonic() < closed_s + tracing.CLOSING_S + 5.0
    while any("BatchSpan" in thread.name or "Otel" in thread.name for thread in threading.enumerate()):
        assert time.monotonic() < closed_s + 30, "it is still tried"
        time.sleep(0.05)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("traces: http://127.0.0.1:9 takes no spans (")
    assert "frames go on without" in line
    assert "secret" not in line
    assert "hidden" not in line


class Wavering(SpanExporter):
    """An exporter that does what it is told to, one word a batch."""

    def __init__(self, *words: str) -> None:
        self._words = list(words)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        word = self._words.pop(0)
        if word == "raises":
            raise OSError("ca.pem: no such file")
        if word == "fails":
            logging.getLogger("opentelemetry.exporter").error("code: 401, reason: Unauthorized")
        return SpanExportResult.SUCCESS if word == "takes" else SpanExportResult.FAILURE


@pytest.mark.parametrize(("word", "why"), [("raises", "OSError: ca.pem"), ("fails", "401, reason: Unauthorized")])
def test_a_collector_that_comes_back_is_said_once_too(word: str, why: str, caplog: pytest.LogCaptureFixture) -> None:
    telling = Telling(Wavering("takes", word, word, "takes", "takes"), "http://collector")
    for _ in range(5):
        telling.export([ReadableSpan("frame"), ReadableSpan("head")])
    away, back = (record.getMessage() for record in caplog.records)
    assert why in away
    assert back == "traces: http://collector takes spans; 4 were lost"


def test_the_variable_counts_only_where_traces_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    with pytest.raises(ConfigError, match="traces: OTEL_EXPORTER_OTLP_ENDPOINT is not set to a collector"):
        tracer_to("env", 1.0, half="agent", instance="porch")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318")
    with pytest.raises(ConfigError, match="not set to a collector"):
        tracer_to("env", 1.0, half="agent", instance="porch")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    tracer_to("env", 1.0, half="agent", instance="porch").close()
