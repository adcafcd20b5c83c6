"""Both halves with traces: one trace a frame, whose spans they make without a word to each other."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from isthmus.device.capture.reader import opened
from isthmus.device.config import AgentConfig
from isthmus.device.output.configured import sinks_of
from isthmus.device.output.traces import Traces
from isthmus.device.run import answer_all, open_device
from isthmus.edge_server.engines import Tail
from isthmus.edge_server.metrics import Metrics
from isthmus.edge_server.service import EdgeService
from isthmus.edge_server.streams import Served
from isthmus.models import bundle as bundles
from isthmus.proto.errors import ConfigError
from isthmus.proto.monitoring.tracer import Tracer
from isthmus.proto.record import FrameRecord
from live_server import live, running

FRAMES, CLIENT = 30, "porch"
ISTHMUS = [sys.executable, "-m", "isthmus.cli"]
Kept = dict[int, dict[str, ReadableSpan]]


def tracer(half: str, share: float = 1.0) -> tuple[Tracer, InMemorySpanExporter]:
    kept = InMemorySpanExporter()
    return Tracer(SimpleSpanProcessor(kept), share, half=half, instance=half), kept


def by_trace(exporter: InMemorySpanExporter) -> Kept:
    traces: Kept = {}
    for span in exporter.get_finished_spans():
        spans = traces.setdefault(span.context.trace_id, {})
        assert span.name not in spans
        spans[span.name] = span
    return traces


async def pair(share: float = 1.0) -> tuple[list[FrameRecord], Kept, Kept]:
    """A device and its server, both traced: the answers, and each half's spans by trace and name."""
    bundle = bundles.load("signs")
    metrics = Metrics()
    metrics.tracer, of_server = tracer("server", share)
    of_device, kept = tracer("agent", share)
    service = EdgeService(Served("signs", bundle.sha256, bundle.codec), Tail(bundle, 1), metrics=metrics)
    rows: list[FrameRecord] = []
    async with running(service) as (address, _):
        config = AgentConfig(
            source="generated:7", server=address, insecure=True, deadline_s=2.0, fps=10.0, frames=FRAMES,
            policy="always-offload", client_id=CLIENT,
        )  # fmt: skip
        device = open_device(config)
        source = opened(config.source, device.bundle.manifest.labels)
        await answer_all(device, source, rows.append, sinks=[Traces(of_device, CLIENT)])
    return rows, by_trace(kept), by_trace(of_server)


def time_of(span: ReadableSpan) -> tuple[int, int]:
    assert span.start_time is not None
    assert span.end_time is not None
    return span.start_time, span.end_time


def check(frame_id: int, device: dict[str, ReadableSpan], server: dict[str, ReadableSpan]) -> None:
    """One frame that the server answered: its spans, their parents, and that they lie in each other in time."""
    frame, serve = device["frame"], server["serve"]
    assert device.keys() == {"frame", "head", "encode", "network"}
    assert server.keys() == {"serve", "receive", "queue", "tail"}
    assert frame.parent is None
    below = {**device, **server}
    for name, span in below.items():
        if name != "frame":
            assert span.parent is not None
            above = serve if name in ("receive", "queue", "tail") else frame
            assert span.parent.span_id == above.context.span_id, name
    slack_ns = 2_000_000  # two offsets to the wall clock were taken, each between two readings
    first, last = time_of(frame)
    for name, span in below.items():
        began, ended = time_of(span)
        assert first - slack_ns <= began <= ended <= last + slack_ns, name
    starts = [time_of(below[name])[0] for name in ("head", "encode", "network")]
    assert starts == sorted(starts)
    starts = [time_of(below[name])[0] for name in ("encode", "receive", "queue", "tail")]
    assert starts[0] - slack_ns <= starts[1] <= starts[2] <= starts[3]
    assert frame.attributes is not None
    assert serve.attributes is not None
    assert frame.attributes["isthmus.frame_id"] == serve.attributes["isthmus.frame_id"] == frame_id
    assert frame.attributes["isthmus.source"] == "server"
    assert frame.attributes["isthmus.reason"] == "returned"
    sent, came = frame.attributes["isthmus.bytes_up"], serve.attributes["isthmus.bytes"]
    assert isinstance(sent, int)
    assert isinstance(came, int)
    assert 0 < came <= sent  # a server that is pressed for time does not wait for a refinement
    assert frame.attributes["isthmus.on_time"] is (last - first <= 2.0e9)


def test_a_frame_that_the_server_answered_is_one_trace_across_both_halves() -> None:
    async def play() -> None:
        rows, device, server = await pair()
        assert len(rows) == FRAMES == len(device)  # one trace for each, however it was answered
        answered = [row.frame_id for row in rows if row.source.value == "server"]
        checked = 0
        for trace_id, spans in device.items():
            attributes = spans["frame"].attributes
            assert attributes is not None
            if attributes["isthmus.source"] == "server":
                frame_id = attributes["isthmus.frame_id"]
                assert isinstance(frame_id, int)
                check(frame_id, spans, server[trace_id])
                checked += 1
        assert checked == len(answered) > 0

    live(play)


def test_of_a_share_both_halves_keep_the_same_frames() -> None:
    async def play() -> None:
        _, device, server = await pair(0.5)
        answered = {trace_id for trace_id, spans in device.items() if "network" in spans}
        assert answered <= server.keys() <= device.keys()
        assert all(trace_id & (1 << 64) - 1 < 1 << 63 for trace_id in device)

    live(play)


def test_a_collector_that_is_away_costs_no_frame_and_is_said_once(tmp_path: Path) -> None:
    arguments = ["agent", "--source", "generated:7", "--fps", "15", "--frames", "45", "--deadline", "1s"]
    done = subprocess.run(
        [*ISTHMUS, *arguments, "--traces", "http://127.0.0.1:9"],
        capture_output=True, text=True, timeout=60, check=True, cwd=tmp_path,
    )  # fmt: skip
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert sorted(row["frame_id"] for row in rows) == list(range(45))
    assert all(row["label"] is not None for row in rows)
    said = [line for line in done.stderr.splitlines() if "traces" in line or "opentelemetry" in line]
    assert len(said) == 1, done.stderr
    assert "traces: http://127.0.0.1:9 takes no spans (" in said[0]


def test_without_traces_nothing_of_open_telemetry_is_loaded() -> None:
    """The agent as it runs is in tests/cli/test_strict.py; here, that the server's half needs none of it either."""
    code = "import sys, isthmus.edge_server.server, isthmus.device.run; print('opentelemetry' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "False"


def test_without_the_extra_it_is_said_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "isthmus.proto.monitoring.tracer", None)
    config = AgentConfig(traces="http://127.0.0.1:4318")
    with pytest.raises(ConfigError, match="the 'otel' extra brings it"):
        sinks_of(config, bundles.load("signs").manifest, 10.0)


def test_event_loops_are_not_held_up_by_the_last_spans() -> None:
    """A sink has two seconds for all it still has; a collector that is away takes longer to be given up."""
    assert asyncio.run(_closing_s()) < 10.0


async def _closing_s() -> float:
    config = AgentConfig(source="generated:7", frames=3, fps=10.0, deadline_s=2.0, traces="http://127.0.0.1:9")
    device = open_device(config)
    source, rows = opened(config.source, device.bundle.manifest.labels), list[FrameRecord]()
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    await answer_all(device, source, rows.append, sinks=sinks_of(config, device.bundle.manifest, 10.0))
    assert len(rows) == 3
    return loop.time() - began_s
