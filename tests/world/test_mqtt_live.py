"""A device of Home Assistant's, over a real mosquitto: whoever is started again, and in whatever order, the card is right."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest

import detectors
from injections.lab import Agent, Lab, until
from injections.machine import UnavailableError
from world.home_assistant import HomeAssistant

RIGHT_S = 5.0
"""Everything is as it should be so long after the last of the three is up."""
RED = {"Link": "down", "Picture": "picture", "red": "ON"}


class Broker:
    """A mosquitto on a port of its own that keeps nothing on disk."""

    def __init__(self, folder: Path) -> None:
        places = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin"))
        if (found := shutil.which("mosquitto", path=places)) is None:
            raise UnavailableError("mosquitto: not installed")
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            self.port = taken.getsockname()[1]
        self._command = [found, "-c", str(folder / "mosquitto.conf")]
        (folder / "mosquitto.conf").write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\npersistence false\n"
        )
        self.start()

    def start(self) -> None:
        """Start it, and wait until it listens."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(self._listens, "mosquitto listens")

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self) -> None:
        """End it as a power cut does."""
        self._process.kill()
        self._process.wait()


@pytest.fixture(scope="module")
def eyes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return detectors.bundle(tmp_path_factory.mktemp("eyes"))


@pytest.fixture
def red(tmp_path: Path) -> Path:
    """Many pictures of one red thing; what is red in a picture is at the same place in all."""
    pixels = detectors.lit([(0, 1, 2)])
    return pictures(tmp_path / "red", [pixels] * 900)


def pictures(folder: Path, those: list[detectors.Pixels]) -> Path:
    folder.mkdir()
    written: dict[int, Path] = {}
    for number, pixels in enumerate(those):
        path = folder / f"{number:04}.png"
        if id(pixels) in written:
            path.hardlink_to(written[id(pixels)])
        else:
            cv2.imwrite(str(path), pixels[..., ::-1])
            written[id(pixels)] = path
    return folder


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    made = Broker(tmp_path)
    yield made
    made.kill()


def started(lab: Lab, eyes: Path, source: Path, broker: Broker) -> Agent:
    url = f"mqtt://127.0.0.1:{broker.port}"
    agent = lab.agent(None, "--mqtt", url, bundle=str(eyes), source=str(source), fps=10, client_id="street cam")
    agent.until(lambda: agent.lines, "its first answer")
    return agent


def until_shown(home: HomeAssistant, expected: dict[str, str], limit_s: float = RIGHT_S) -> None:
    with contextlib.suppress(AssertionError):
        until(lambda: home.shown() == expected, "the card is right", limit_s=limit_s)
    assert home.shown() == expected
    assert not home.duplicates


def test_the_card_is_right_whoever_is_started_again_and_in_whatever_order(
    lab: Lab, eyes: Path, red: Path, broker: Broker
) -> None:
    agent, home = started(lab, eyes, red, broker), HomeAssistant(broker.port)
    until_shown(home, RED)
    for order in itertools.permutations(("broker", "agent", "home")):
        broker.kill()
        agent.kill()
        home.close()
        for who in order:
            if who == "broker":
                broker.start()
            elif who == "agent":
                agent = started(lab, eyes, red, broker)
            else:
                home = HomeAssistant(broker.port)
        until_shown(home, RED)
        assert all(len(entity.states) <= 1 for name, entity in home.entities.items() if "picture" not in name), order
    agent.kill()
    until_shown(home, dict.fromkeys(RED, "unavailable"))
    home.close()


def test_while_the_broker_is_away_every_frame_is_answered_and_afterwards_the_card_is_right(
    lab: Lab, eyes: Path, red: Path, broker: Broker
) -> None:
    agent, home = started(lab, eyes, red, broker), HomeAssistant(broker.port)
    until_shown(home, RED)
    broker.kill()
    agent.more(25)
    broker.start()
    until_shown(home, RED)
    agent.more(5)
    assert agent.end() == 0, agent.last_words
    assert [row["frame_id"] for row in agent.rows] == list(range(len(agent.rows)))
    assert {row["source"] for row in agent.rows} == {"exit"}
    until_shown(home, dict.fromkeys(RED, "unavailable"))
    home.close()


def test_two_agents_of_one_name_are_told_of_each_other_and_once(
    lab: Lab, eyes: Path, red: Path, broker: Broker
) -> None:
    agents = [started(lab, eyes, red, broker) for _ in range(2)]
    why = "does another agent call itself street_cam? give each its own --client-id"
    until(lambda: any(why in agent.log for agent in agents), "it is told", limit_s=30.0)
    for agent in agents:
        agent.more(20)
        assert agent.log.count(why) <= 1


def test_what_comes_and_goes_is_on_and_off_and_an_earlier_run_s_classes_are_not_left_on(
    lab: Lab, eyes: Path, tmp_path: Path, broker: Broker, red: Path
) -> None:
    both, only_red = detectors.lit([(0, 1, 2), (1, 3, 0)]), detectors.lit([(0, 1, 2)])
    home = HomeAssistant(broker.port)
    agent = started(lab, eyes, pictures(tmp_path / "both", [both] * 30 + [only_red] * 300), broker)
    until_shown(home, RED | {"blue": "ON"})
    until_shown(home, RED | {"blue": "OFF"}, limit_s=20.0)
    (attributes,) = (json.loads(e.attributes or b"{}") for e in home.entities.values() if e.config["name"] == "Link")
    assert attributes["answered_by"] == "exit"
    agent.kill()
    again = started(lab, eyes, pictures(tmp_path / "again", [both] * 600), broker)
    until_shown(home, RED | {"blue": "ON"})
    again.kill()
    started(lab, eyes, red, broker)
    until_shown(home, RED | {"blue": "OFF"})
    home.close()
