"""`isthmus top`: what it shows of an agent and of a server, and what it says of addresses where there is neither."""

from __future__ import annotations

import io

import pytest
from prometheus_client import generate_latest
from rich.console import Console, RenderableType
from typer.testing import CliRunner

from isthmus.cli.main import application
from isthmus.cli.top import Watched
from isthmus.cli.top_view import AgentView, ServerView, counted
from isthmus.device.output.page.window import LastMinute, shown
from isthmus.edge_server.metrics import Metrics
from isthmus.proto import messages
from isthmus.proto.errors import DataError
from isthmus.proto.record import FrameRecord
from isthmus.proto.vocabulary import AnswerSource, LinkState, Reason, ServerTimings


def text(what: RenderableType, columns: int = 80) -> str:
    out = io.StringIO()
    Console(file=out, width=columns, force_terminal=False).print(what)
    return out.getvalue()


def state() -> dict[str, object]:
    minute = LastMinute(0.15)
    for i in range(40):
        row = FrameRecord(
            frame_id=i, captured_s=float(i), deadline_s=i + 0.15, confidence=0.9, label=1, source=AnswerSource.EXIT,
            reason=Reason.CONFIDENT, answered_s=i + 0.042, latency_s=0.042, on_time=True, width=0.5, exit=0,
            skipped_stale=2, goodput_Bps=125_000.0,
        )  # fmt: skip
        minute.add(row, LinkState.UP)
    facts = {"bundle": "signs", "source": "rtsp://camera/x", "client_id": "porch", "server": "edge:50551"}
    figures = minute.figures(40.0) | {"dropped": {"page": 0, "mqtt": 7}, "missed": 0}
    return {"facts": facts, "figures": figures, "answer": shown(row, LinkState.UP) | {"label": "stop"}}


@pytest.mark.parametrize("columns", [80, 120])
def test_an_agent(columns: int) -> None:
    lines = text(AgentView("127.0.0.1:8070").shown(state()), columns)
    for told in (
        "porch", "rtsp://camera/x", "stop", "early exit on the device", "42 ms of 150 ms", "up  edge:50551  1 Mbit/s up",
        "100.0%", "p99 42 ms", "120 pictures captured", "answered", "skipped", "width 0.5, exit 1", "mqtt 7",
    ):  # fmt: skip
        assert told in lines
    assert "…" not in lines


def test_an_agent_that_has_answered_nothing_yet() -> None:
    before = LastMinute(0.1).figures(0.0) | {"dropped": {}}
    facts = {"bundle": "signs", "source": "-", "client_id": "porch", "server": None}
    assert "0 pictures captured" in text(AgentView("x").shown({"facts": facts, "figures": before}))


def test_a_server_by_its_own_metrics() -> None:
    metrics = Metrics()
    metrics.watch(streams=lambda: 3)
    metrics.bundle("signs").watch(b"", devices=lambda: 3, pending=lambda: 2)
    view = ServerView("127.0.0.1:9464")
    view.shown(counted(generate_latest(metrics.registry).decode()), 10.0)
    for i in range(20):
        timings = ServerTimings(queue_s=0.002)
        bundle = metrics.bundle("signs" if i % 2 else "cifar10")
        bundle.on_reply(messages.Result(i, 1, b"", timings), f"cam{i % 3}")
        bundle.on_batch(4, 0.012)
    lines = text(view.shown(counted(generate_latest(metrics.registry).decode()), 12.0))
    for told in ("devices  3", "10.0 a second", "2 frames", "12 ms a batch", "2.0 ms a frame", "4.0 frames", "result"):
        assert told in lines, lines


def test_what_a_metrics_page_says_is_read_whatever_else_is_there() -> None:
    page = '# HELP x y\n# TYPE x counter\nx_total{a="b",c="d"} 3.0\ny 1e3\nz NaN\nnonsense\n'
    assert counted(page) == {'x_total{a="b",c="d"}': 3.0, "y": 1000.0, "z": pytest.approx(float("nan"), nan_ok=True)}


@pytest.mark.parametrize("address", ["nowhere", "http://", "ftp://x:1", "host:99999", ""])
def test_what_is_no_address_is_named(address: str) -> None:
    with pytest.raises(DataError, match="expected HOST:PORT"):
        Watched(address)


def test_where_nobody_answers_it_says_so() -> None:
    asked = ["top", "127.0.0.1:9", "--once"]
    error = CliRunner().invoke(application(asked), asked).exception
    assert isinstance(error, DataError)
    assert "127.0.0.1:9: does not answer" in str(error)
