"""`isthmus frigate` refuses what cannot be, by name and with the way out, before it listens."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

import detectors
from isthmus.cli.main import application
from isthmus.device.frigate.config import FrigateConfig
from isthmus.proto.errors import ConfigError, DataError, IsthmusError


def refused(*arguments: str) -> BaseException | None:
    return CliRunner().invoke(application(["frigate"]), ["frigate", *arguments]).exception


@pytest.mark.parametrize(
    ("arguments", "kind", "why"),
    [
        ((), ConfigError, "bundle: none named; give the folder of a detector's"),
        (("--bundle", "signs"), ConfigError, "signs: its answers are classification, Frigate asks for boxes"),
        (("--bundle", "signs", "--channels", "yuv"), ConfigError, "--channels: 'yuv' is not one of rgb, bgr"),
        (("--bundle", "signs", "--listen", "tcp://127.0.0.1:99999"), ConfigError, "a port up to 65535"),
        (("--bundle", "signs", "--listen", "5555"), ConfigError, "expected ipc://PATH or tcp://HOST:PORT"),
    ],
)
def test_what_cannot_be_is_refused_by_name(arguments: tuple[str, ...], kind: type[IsthmusError], why: str) -> None:
    error = refused(*arguments)
    assert isinstance(error, kind)
    assert why in str(error)


def test_an_address_in_use_is_said_before_anything_is_answered(tmp_path: Path) -> None:
    eyes = detectors.bundle(tmp_path)
    error = refused("--bundle", str(eyes), "--listen", f"ipc://{tmp_path}/nowhere/socket")
    assert isinstance(error, IsthmusError)
    assert error.exit_code == 7
    assert "give --listen another" in str(error)


def test_labels_are_written_as_frigate_reads_them_and_over_nothing(tmp_path: Path) -> None:
    done = CliRunner().invoke(
        application(["frigate"]), ["frigate", "--bundle", "signs", "--labelmap", str(tmp_path / "labels.txt")]
    )
    assert done.exit_code == 0, done.output
    assert (tmp_path / "labels.txt").read_text().splitlines()[:2] == ["0 nothing", "1 stop"]
    assert isinstance(refused("--bundle", "signs", "--labelmap", str(tmp_path / "labels.txt")), DataError)


def test_its_agent_has_nothing_that_frigate_does_not_ask_for() -> None:
    agent = FrigateConfig(bundle="street", server="edge:1", insecure=True, threads=2).agent()
    assert (agent.bundle, agent.server, agent.threads, agent.deadline_s, agent.gate) == (
        "street",
        "edge:1",
        2,
        0.17,
        None,
    )
