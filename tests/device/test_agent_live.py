"""The agent from Python: its answers as they come, ended by the caller, errors where the answers are read."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from numpy.typing import NDArray

from isthmus.device.agent import Agent
from isthmus.device.config import AgentConfig
from isthmus.edge_server.config import ServerConfig
from isthmus.models.scenes import Drive
from isthmus.proto import config
from isthmus.proto.errors import ConfigError, SourceError

EXAMPLES = Path(__file__).parents[2] / "examples"
FAST = AgentConfig(deadline_s=2.0, fps=100)


@pytest.fixture(scope="module")
def agent() -> Agent:
    return Agent.open(FAST)


def test_every_picture_that_is_given_is_answered(agent: Agent) -> None:
    drive = Drive(3)
    rows = list(agent.answers(drive.frame(i).image for i in range(5)))
    assert sorted(row.frame_id for row in rows) == list(range(5))
    assert all(row.answer is not None for row in rows)
    assert {row.picture for row in rows} == {f"picture {i}" for i in range(5)}


def test_leaving_the_loop_ends_the_agent_and_it_can_be_asked_again(agent: Agent) -> None:
    for _ in range(2):
        assert len(list(islice(agent.answers("generated:1"), 3))) == 3
    assert "agent" not in {thread.name for thread in threading.enumerate()}


def test_what_goes_wrong_is_raised_where_the_answers_are_read(agent: Agent) -> None:
    def unplugged() -> Iterator[NDArray[Any]]:
        yield Drive(3).frame(0).image
        raise SourceError("camera 0: gone")

    given = agent.answers(unplugged())
    assert next(given).frame_id == 0
    with pytest.raises(SourceError, match="camera 0: gone"):
        next(given)
    with pytest.raises(SourceError, match="nowhere: no such file"):
        next(agent.answers("nowhere"))


def test_the_configuration_is_checked_at_the_door(tmp_path: Path) -> None:
    (tmp_path / "agent.toml").write_text("deadlin_s = 1.0")
    with pytest.raises(ConfigError, match="unknown key 'deadlin_s'"):
        Agent.open(tmp_path / "agent.toml")


def test_the_examples_are_right() -> None:
    assert config.load(ServerConfig, EXAMPLES / "server.toml", {}, prefix="ISTHMUS_SERVER").insecure
    done = subprocess.run(
        [sys.executable, EXAMPLES / "answers.py", EXAMPLES / "agent.toml", "5"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 5
