"""The agent from Python: its answers as they come, ended by the caller, errors where the answers are read."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from isthmus.device.agent import Agent
from isthmus.device.config import AgentConfig
from isthmus.edge_server.config import ServerConfig
from isthmus.models.scenes import Drive
from isthmus.proto import config
from isthmus.proto.errors import ConfigError, IsthmusError, SourceError
from isthmus.proto.vocabulary import AnswerSource, Reason

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


def test_a_picture_is_answered_by_its_deadline_and_by_whoever_asks(agent: Agent) -> None:
    drive = Drive(3)
    with agent:
        first = agent.answer(drive.frame(0).image)
        assert (first.frame_id, first.answer is not None) == (0, True)
        asked = [agent.ask(drive.frame(i).image) for i in range(1, 6)]
        assert [future.result().frame_id for future in asked] == [1, 2, 3, 4, 5]
        hurried = agent.answer(drive.frame(6).image, deadline_s=1e-4)
        assert (hurried.source, hurried.on_time) == (AnswerSource.NONE, False)
        assert agent.answer(np.zeros((3, 4), np.uint8)).reason == Reason.INVALID
    assert agent.answer(drive.frame(7).image).frame_id == 0, "it may be asked again"
    agent.close()
    assert "agent" not in {thread.name for thread in threading.enumerate()}


def test_a_function_is_handed_every_answer(agent: Agent) -> None:
    drive, given = Drive(3), list[int]()
    agent.run(lambda answer: given.append(answer.frame_id), (drive.frame(i).image for i in range(4)))
    assert sorted(given) == [0, 1, 2, 3]


def test_answers_come_on_an_event_loop_that_has_other_things_to_do(agent: Agent) -> None:
    async def watch() -> tuple[list[int], int]:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.001)
                ticks += 1

        other, given = asyncio.create_task(tick()), list[int]()
        async for answer in agent.answers("generated:1"):
            given.append(answer.frame_id)
            if len(given) == 5:
                break
        other.cancel()
        return given, ticks

    given, ticks = asyncio.run(watch())
    assert len(given) == 5
    assert ticks > 0
    agent.close()
    assert "agent" not in {thread.name for thread in threading.enumerate()}


def test_an_agent_does_one_thing_at_a_time_and_what_ends_it_is_raised_to_whoever_waits(agent: Agent) -> None:
    answers = agent.answers("generated:1")
    next(answers)
    with pytest.raises(IsthmusError, match="is at work already"):
        agent.answer(Drive(3).frame(0).image)
    agent.close()
    with Agent.open(AgentConfig(server="127.0.0.1:1", insecure=True, bundle="signs", deadline_s=1.0)) as other:
        assert other.answer(Drive(3).frame(0).image).source == "exit"


@pytest.mark.parametrize(
    ("example", "arguments", "said"),
    [
        ("counter.py", ["generated:3", "60"], r"^[a-z ]+\d*: \d+$"),
        ("doorbell.py", ["generated:3", "end of limits", "60"], r"^ding dong: end of limits, \d+% sure"),
        ("robot.py", ["12"], r"^12 steps, \d+ late, \d+ without an answer$"),
    ],
)
def test_every_example_runs(example: str, arguments: list[str], said: str) -> None:
    done = subprocess.run([sys.executable, EXAMPLES / example, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert re.search(said, done.stdout, re.MULTILINE), done.stdout


def test_the_examples_are_right() -> None:
    assert config.load(ServerConfig, EXAMPLES / "server.toml", {}, prefix="ISTHMUS_SERVER").insecure
    done = subprocess.run(
        [sys.executable, EXAMPLES / "answers.py", EXAMPLES / "agent.toml", "5"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 5
