"""The port of a running agent: what it counts, when it is ready, and what a slow reader costs."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from isthmus.device.capture.sources import Picture, Source
from isthmus.device.config import AgentConfig
from isthmus.device.monitoring import monitor as monitoring
from isthmus.device.monitoring.monitor import Monitor
from isthmus.device.output.configured import sinks_of
from isthmus.device.run import Opened, answer_all, open_device
from isthmus.models.scenes import Drive
from isthmus.proto.errors import BindError, ConfigError
from isthmus.proto.record import FrameRecord
from isthmus.proto.vocabulary import AnswerSource

PIXELS = Drive(3).frame(0).image
FPS = 20.0


class Gated(Source):
    """Pictures for ever; while the gate is shut, none."""

    name = "gated"
    fps = FPS
    live = False

    def __init__(self, count: int) -> None:
        self.gate, self._left = threading.Event(), iter(range(count))
        self.gate.set()

    def read(self) -> Picture | None:
        self.gate.wait(30)
        return None if (i := next(self._left, None)) is None else Picture(f"#{i}", PIXELS)

    def close(self) -> None:
        """Nothing is held open."""


def device(**changes: Any) -> Opened:
    return open_device(AgentConfig(deadline_s=2.0, metrics="127.0.0.1:0", **changes))


def monitor_of(opened: Opened) -> Monitor:
    (monitor,) = sinks_of(opened.config, opened.bundle.manifest, FPS)
    assert isinstance(monitor, Monitor)
    return monitor


async def asked(monitor: Monitor, path: str) -> str:
    def ask() -> str:
        try:
            return str(urllib.request.urlopen(f"http://127.0.0.1:{monitor.port}{path}", timeout=20).read().decode())
        except urllib.error.HTTPError as error:
            return str(error.read().decode())

    return await asyncio.to_thread(ask)


async def told(monitor: Monitor, what: str) -> None:
    while not (await asked(monitor, "/readyz")).startswith(what):
        await asyncio.sleep(0.05)


@contextlib.contextmanager
def slow_readers(port: int, count: int) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            reader = stack.enter_context(socket.socket())
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            reader.connect(("127.0.0.1", port))
            reader.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        yield


def test_ready_while_it_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitoring, "SILENT_S", 0.5)
    monkeypatch.setattr(monitoring, "BEAT_S", 0.05)
    opened, source = device(), Gated(10_000)
    monitor, rows = monitor_of(opened), list[FrameRecord]()

    async def check() -> None:
        source.gate.clear()
        answering = asyncio.ensure_future(answer_all(opened, source, rows.append, sinks=[monitor]))
        while monitor.port is None:
            await asyncio.sleep(0.05)
        await told(monitor, "nothing answered yet")
        source.gate.set()
        await told(monitor, "ok")
        source.gate.clear()
        await told(monitor, "no answer for")
        assert await asked(monitor, "/healthz") == "ok\n"
        source.gate.set()
        await told(monitor, "ok")
        page = await asked(monitor, "/metrics")
        assert 'isthmus_agent_info{bundle="signs",client_id="device"' in page
        assert "isthmus_agent_link_up 0.0" in page
        assert 'isthmus_agent_stage_seconds{stage="1",width="0.25"}' in page
        assert (await asked(monitor, "/state.json")).startswith("here are")
        answering.cancel()
        await asyncio.gather(answering, return_exceptions=True)

    asyncio.run(asyncio.wait_for(check(), 60))


def test_every_answer_is_counted_and_slow_readers_cost_none() -> None:
    """Eight that never read and one that reads all the time; frames are answered all the same, each one once."""
    opened, rows = device(), list[FrameRecord]()
    monitor = monitor_of(opened)

    async def check() -> None:
        answering = asyncio.ensure_future(answer_all(opened, Gated(60), rows.append, sinks=[monitor]))
        while monitor.port is None:
            await asyncio.sleep(0.02)
        with slow_readers(monitor.port, 8):
            while not answering.done():
                with contextlib.suppress(OSError):
                    await asked(monitor, "/metrics")
            await answering

    asyncio.run(asyncio.wait_for(check(), 60))
    assert len(rows) == 60
    assert {row.source for row in rows} <= {AnswerSource.EXIT, AnswerSource.NONE}
    count = monitor.metrics.registry.get_sample_value("isthmus_agent_latency_seconds_count")
    assert count == 60, "the last one too"


def test_a_port_that_is_taken_ends_the_agent_before_its_first_frame() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        opened = open_device(AgentConfig(metrics=where))
        with pytest.raises(BindError, match=f"{where}: metrics: .*in use; choose another --metrics"):
            asyncio.run(answer_all(opened, Gated(5), lambda _: None, sinks=[monitor_of(opened)]))


def test_without_the_library_it_says_which_extra_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = open_device(AgentConfig()).bundle.manifest
    monkeypatch.setitem(sys.modules, "isthmus.device.monitoring.metrics", None)
    with pytest.raises(ConfigError, match="metrics: prometheus-client is not installed; the 'metrics' extra"):
        sinks_of(AgentConfig(metrics="9465"), manifest, FPS)
    assert [sink.name for sink in sinks_of(AgentConfig(page="127.0.0.1:0"), manifest, FPS)] == ["page"]
    with pytest.raises(ValueError, match="metrics = 'x', expected HOST:PORT"):
        AgentConfig(metrics="x")
