"""Real processes and a bundle whose frames are coded against others: the server killed, started again, and used again."""

from __future__ import annotations

import itertools
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from injections.lab import HERE, Role, until
from moving import bundle_with_deltas, calm_pictures

FRAMES = 2400
WHOLE_BYTES = 40
"""Less than any whole frame of these pictures takes at the finest step, and more than any delta."""


@pytest.fixture
def start(tmp_path: Path) -> Any:
    """Starts processes that end with the test."""
    roles: list[Role] = []
    number = itertools.count()

    def started(*arguments: str) -> Role:
        roles.append(Role(arguments, tmp_path / f"{next(number)}.log"))
        return roles[-1]

    yield started
    for role in roles:
        role.kill()


def serve(start: Callable[..., Role], bundle: str, listen: str) -> tuple[Role, str]:
    server = start("serve", "--bundle", bundle, "--insecure", "--listen", listen)
    line = server.until(lambda: server.lines and server.lines[0], "its address")
    return server, next(w.rstrip(",") for w in line.split() if w.rstrip(",").rpartition(":")[2].isdecimal())


def test_deltas_to_a_server_that_is_killed_and_comes_back(tmp_path: Path, start: Callable[..., Role]) -> None:
    bundle = str(bundle_with_deltas(tmp_path / "calm").folder)
    calm_pictures(tmp_path / "pictures", FRAMES)
    server, where = serve(start, bundle, f"{HERE}:0")
    agent = start(
        *("agent", "--bundle", bundle, "--source", str(tmp_path / "pictures"), "--insecure", "--server", where),
        *("--deadline", "400ms", "--fps", "15", "--policy", "always-offload"),
    )

    def rows() -> list[dict[str, Any]]:
        return [json.loads(line) for line in agent.lines]

    def answered(since: int) -> list[dict[str, Any]]:
        return [row for row in rows()[since:] if row["source"] == "server"]

    agent.until(lambda: len(answered(0)) >= 30, "thirty answers of the server")
    first = answered(0)
    assert first[0]["bytes_up"] > WHOLE_BYTES
    assert sum(row["bytes_up"] < WHOLE_BYTES for row in first) >= 20
    server.signal(signal.SIGKILL)
    server.wait()
    agent.until(lambda: rows()[-1]["source"] == "exit", "answers of the device alone")
    before = len(rows())
    serve(start, bundle, where)
    until(lambda: len(answered(before)) >= 30, "thirty answers of the server that came back", of=[agent])
    again = answered(before)
    assert again[0]["bytes_up"] > WHOLE_BYTES  # the new stream begins with a whole frame
    assert sum(row["bytes_up"] < WHOLE_BYTES for row in again) >= 20
    assert "invalid" not in {row["reason"] for row in rows()}
    assert "does not hold" not in agent.log
