"""`isthmus bench serve` and `emulate --capacity`: a real server and a virtual one, and what cannot be asked."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from isthmus.cli.main import application
from isthmus.edge_server.admission import Limits
from isthmus.edge_server.engines import Frame
from isthmus.edge_server.server import bind
from isthmus.edge_server.service import EdgeService
from isthmus.edge_server.streams import Served
from isthmus.emulation.load import live
from isthmus.models import bundle as bundles
from isthmus.proto.errors import ConfigError, IsthmusError
from isthmus.proto.tasks.task import Packed

EACH_S = 0.1
"""So slow that only it decides: five devices at two frames a second are all it can do."""


class Slow:
    def run(self, frames: Sequence[Frame]) -> list[Packed | None]:
        time.sleep(EACH_S * len(frames))
        return [(0.0, 1.0)] * len(frames)


def invoke(*command: str) -> Result:
    return CliRunner().invoke(application(command), command, env={"COLUMNS": "200"})


@pytest.fixture
def address() -> Iterator[str]:
    """A server whose tail is slow, on a loop of its own."""
    up, told, loop = threading.Event(), list[str](), asyncio.new_event_loop()

    async def serve() -> None:
        bundle = bundles.load("signs", half="tail")
        served = Served(bundle.manifest.name, bundle.sha256, bundle.codec)
        service = EdgeService(served, Slow(), limits=Limits(streams=100), max_batch=1)
        server, _, place = bind(service, "127.0.0.1:0", None)
        await server.start()
        told.append(place)
        up.set()
        await ended.wait()
        await server.stop(None)
        service.close()

    ended = asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), daemon=True)
    thread.start()
    assert up.wait(30.0)
    yield told[0]
    loop.call_soon_threadsafe(ended.set)
    thread.join(30.0)
    loop.close()


def test_a_server_s_capacity_is_found(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "SETTLING_S", 0.5)
    monkeypatch.setattr(live, "LAG", 10.0)  # a busy machine is no matter here
    command = (
        "bench",
        "serve",
        "--server",
        address,
        "--fps",
        "2",
        "--deadline",
        "2s",
        "--rounds",
        "1",
        "--count",
        "2s",
    )
    done = invoke(*command, "--format", "json")
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout.splitlines()[-1])
    assert facts["devices_least"] <= facts["devices"] <= facts["devices_most"]
    assert 1 <= facts["devices"] <= 12, "no more than it can do, and what waits within the deadline"
    assert facts["p50_s"] >= EACH_S


PROFILE = """
schema = 1
name = "slow"
title = "a tail of 20 ms a call"
kind = "server"
rates = [
    { source = "test", confidence = "estimate", call_s = 0.02, flop_s = 0.0, left_out_median = 0.0, left_out_worst = 0.0 },
]
[sources]
test = "made up"
[observed]
loop_s = { source = "test", confidence = "estimate", value = 0.001 }
"""


def test_the_emulator_says_it_too(tmp_path: Path) -> None:
    (tmp_path / "slow.toml").write_text(PROFILE)
    options = ("--bundle", "signs", "--fps", "5", "--deadline", "150ms", "--set", f"server={tmp_path / 'slow.toml'}")
    done = invoke("emulate", "--capacity", *options, "--set", "max_batch=1", "--format", "json")
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    assert 9 <= facts["devices"] <= 11, "fifty frames a second, and a ninth more that may be late"
    assert facts["frames_per_s"] == facts["devices"] * 5
    assert facts["loop_s"] == 0.001


@pytest.mark.parametrize(
    "flags", [("--fps", "0"), ("--deadline", "1ms"), ("--count", "1h"), ("--rounds", "0"), ("--bundle", "nothing")]
)
def test_what_cannot_be_asked_is_refused(flags: tuple[str, str]) -> None:
    done = invoke("bench", "serve", "--server", "127.0.0.1:1", *flags)
    assert isinstance(done.exception, IsthmusError)


def test_a_server_that_is_not_there_is_named() -> None:
    done = invoke("bench", "serve", "--server", "127.0.0.1:1", "--rounds", "1")
    assert isinstance(done.exception, IsthmusError)
    assert not isinstance(done.exception, ConfigError)
    assert "127.0.0.1:1" in str(done.exception)
