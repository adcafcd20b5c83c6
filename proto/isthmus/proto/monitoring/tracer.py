"""Hands spans to an OpenTelemetry collector, over OTLP on HTTP, from a thread of its own: no frame waits for it.

Needs the `otel` extra; imported only where traces are asked for. It reads both clocks, to tell the time of day of what is
timed by the monotonic one.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections.abc import Callable, Sequence

from opentelemetry import context as contexts
from opentelemetry import trace as otel
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from isthmus.proto.errors import ConfigError
from isthmus.proto.monitoring.spans import (
    ENVIRONMENT,
    FRAME,
    TRACES_PATH,
    VARIABLE,
    FrameTrace,
    Span,
    endpoint_of,
    host_of,
)
from isthmus.proto.operations.version import version
from isthmus.proto.printable import printable

log = logging.getLogger(__name__)

MOST_WAITING, BATCH, EVERY_S = 2048, 512, 1.0
"""Spans that wait for the collector, of which the oldest go; so many at once; and so often."""
CLOSING_S = 1.5
"""How long the last ones may take; a sink has 2 s for all."""
STEPPED_S = 1.0
"""A wall clock that moved by more, against the monotonic one, was set: a board without a battery starts in the past."""
SERVED = "serve"
"""The one span whose parent is in another process."""
MOST_WORDS = 200
"""Characters of the library's words that are logged."""


def tracer_to(traces: str, share: float, *, half: str, instance: str) -> Tracer:
    """The way to the collector at `traces`, for the "agent" or the "server" called `instance`. Raises ConfigError."""
    try:
        endpoint = endpoint_of(
            traces if traces != ENVIRONMENT else f"{os.environ.get(VARIABLE, '').rstrip('/')}{TRACES_PATH}"
        )
    except ValueError as error:
        why = (
            f"{VARIABLE} is not set to a collector's URL, as http://127.0.0.1:4318" if traces == ENVIRONMENT else error
        )
        raise ConfigError(f"traces: {why}") from error
    exporter = Telling(OTLPSpanExporter(endpoint=endpoint), host_of(endpoint))
    processor = BatchSpanProcessor(
        exporter, max_queue_size=MOST_WAITING, schedule_delay_millis=EVERY_S * 1e3, max_export_batch_size=BATCH
    )
    return Tracer(processor, share, half=half, instance=instance, give_up=exporter.shutdown)


class Tracer:
    """One half's spans, on their way. All but `close` takes no time; to be used by one thread."""

    def __init__(
        self,
        processor: SpanProcessor,
        share: float = 1.0,
        *,
        half: str,
        instance: str,
        give_up: Callable[[], None] = lambda: None,
    ) -> None:
        """`give_up` ends what an exporter still tries when all is over."""
        who = {
            "service.name": f"isthmus-{half}",
            "service.version": version(),
            "service.instance.id": instance,
        }
        self._share, self._ids, self._give_up = share, _Given(), give_up
        self._provider = TracerProvider(
            sampler=ALWAYS_ON, resource=Resource.create(who), shutdown_on_exit=False, id_generator=self._ids
        )
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("isthmus")
        self._offset_s = time.time() - time.monotonic()

    def keeps(self, trace: FrameTrace) -> bool:
        """Whether spans of this frame are wanted."""
        return trace.kept(self._share)

    def add(self, trace: FrameTrace, spans: Sequence[Span]) -> None:
        """Hand the spans of a frame over, a parent before what is below it or not: ids tell."""
        offset_s = time.time() - time.monotonic()
        if abs(offset_s - self._offset_s) > STEPPED_S:
            self._offset_s = offset_s
        for span in spans:
            self._ids.trace_id, self._ids.span_id = trace.trace_id, trace.span_id(span.name)
            begun = self._tracer.start_span(
                span.name,
                context=contexts.Context() if span.parent is None else _below(trace, span),
                kind=otel.SpanKind.SERVER if span.name == SERVED else otel.SpanKind.INTERNAL,
                attributes=dict(span.attributes),
                start_time=self._unix_ns(span.began_s),
            )
            begun.end(self._unix_ns(max(span.began_s, span.ended_s)))

    def close(self) -> None:
        """Hand over what waits, in CLOSING_S at most."""
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(CLOSING_S)
        self._give_up()

    def _unix_ns(self, monotonic_s: float) -> int:
        return round((monotonic_s + self._offset_s) * 1e9)


class Telling(SpanExporter):
    """An exporter that says once that its collector is away, and once that it is back; the library says it every time."""

    def __init__(self, exporter: SpanExporter, host: str) -> None:
        self._exporter, self._host = exporter, host
        self._lost, self._told = 0, False
        library = logging.getLogger("opentelemetry")
        library.propagate = False
        library.handlers = [_Heard(self._tell)]

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Hand a batch over, in the processor's thread."""
        try:
            result = self._exporter.export(spans)
        except Exception as error:  # a certificate that cannot be read, say
            self._tell(printable(f"{type(error).__name__}: {error}")[:MOST_WORDS])
            result = SpanExportResult.FAILURE
        if result is SpanExportResult.SUCCESS:
            if self._told:
                log.warning("traces: %s takes spans; %d were lost", self._host, self._lost)
            self._lost, self._told = 0, False
        else:
            self._lost += len(spans)
        return result

    def shutdown(self) -> None:
        """Let go of the connection."""
        self._exporter.shutdown()

    def _tell(self, why: str) -> None:
        if not self._told:
            self._told = True
            log.warning("traces: %s takes no spans (%s); frames go on without", self._host, why)


class _Given(IdGenerator):
    """Ids that were derived."""

    trace_id = span_id = 1

    def generate_trace_id(self) -> int:
        return self.trace_id

    def generate_span_id(self) -> int:
        return self.span_id


class _Heard(logging.Handler):
    """Passes on what the library says: at once, and not after the 10 s that it tries again for."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__()
        self._tell_on = tell

    def emit(self, record: logging.LogRecord) -> None:
        """Pass it on, in as few words as tell the way out: of a connection that failed, its innermost cause."""
        said = record.getMessage()
        if (cause := re.search(r"Caused by \w+\([\"'](.*)[\"']\)\)", said)) is not None:
            said = cause[1].rpartition("): ")[2]
        said = re.sub(r"(with url: )\S+", r"\1…", said)  # a token may be in its path
        self._tell_on(printable(said)[:MOST_WORDS])


def _below(trace: FrameTrace, span: Span) -> contexts.Context:
    """What makes a span a part of its parent, which may be in the other half."""
    parent = otel.SpanContext(
        trace.trace_id,
        trace.span_id(span.parent or FRAME),
        is_remote=span.name == SERVED,
        trace_flags=otel.TraceFlags(otel.TraceFlags.SAMPLED),
    )
    return otel.set_span_in_context(otel.NonRecordingSpan(parent), contexts.Context())
