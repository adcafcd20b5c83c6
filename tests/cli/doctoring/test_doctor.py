"""`isthmus doctor`: what is well on this machine is called well, what is not is named with its way out."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from isthmus.cli.doctoring import clock, doctor, head, machine, processor, storage
from isthmus.cli.doctoring.finding import Finding
from isthmus.cli.main import application
from isthmus.device.sensors import Reading


@pytest.fixture
def sound(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that nothing is wrong with, whatever the one under the tests is; only its heads are real."""
    monkeypatch.setattr(machine, "facts", lambda: machine.Facts(Reading(41.0, throttling=())))
    monkeypatch.setattr(processor, "facts", lambda: processor.Facts("aarch64", 64, frozenset(), {}))
    monkeypatch.setattr(storage, "facts", lambda _: storage.Facts(()))
    monkeypatch.setattr(clock, "facts", lambda: clock.Facts(1.8e9, 1.7e9, True, True))


@pytest.fixture
def headless(sound: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same, and no head is run."""
    monkeypatch.setattr(doctor, "_heads", lambda *_: [])


def invoke(*options: str, **env: str) -> tuple[int, str]:
    arguments = ["doctor", *options]
    done = CliRunner().invoke(application(arguments), arguments, env={"COLUMNS": "400", **env})
    return done.exit_code, done.output


def found_in(output: str) -> dict[str, dict[str, str]]:
    return {one["what"]: one for one in json.loads(output[output.index("[") :])}


@pytest.mark.usefixtures("sound")
def test_on_a_sound_machine_everything_is_well_and_the_bundles_were_run() -> None:
    code, output = invoke("--format", "json")
    found = found_in(output)
    assert code == 0, [one for one in found.values() if one["level"] == "failure"]
    assert {"python", "namespace", "machine", "grpcio", "bundle cifar10", "bundle signs", "delegate"} <= set(found)
    assert re.fullmatch(r"verified; head [\d.]+ ms at width 0.25, [\d.]+ ms at 1.0", found["bundle signs"]["detail"])
    assert found["machine"]["detail"] == "41 °C, not throttled"
    assert found["bundle signs"].keys() == {"what", "level", "detail", "way_out"}


@pytest.mark.usefixtures("headless")
def test_what_is_not_well_is_shown_with_its_way_out_and_ends_with_1() -> None:
    assert invoke()[0] == 0
    code, output = invoke("--server", "127.0.0.1:1")
    assert code == 1
    *_, failed, way_out = output.rstrip().splitlines()
    assert failed.startswith("FAIL server 127.0.0.1:1: ")
    assert way_out.strip() == "is `isthmus serve` running there, and --listen right?"
    assert "ok   python: " in output


@pytest.mark.usefixtures("headless")
def test_a_warning_alone_ends_with_0(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "facts", lambda: clock.Facts(1.8e9, 1.7e9, False, False))
    code, output = invoke()
    assert code == 0
    assert "warn clock: " in output


@pytest.mark.usefixtures("headless")
def test_what_compiled_packages_are_needed_for_is_not_looked_at_where_one_of_them_kills(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    killed = processor.Facts("aarch64", 64, frozenset(), {}, ("cv2", 4))
    monkeypatch.setattr(processor, "facts", lambda: killed)
    monkeypatch.setattr(doctor, "_server", lambda _: pytest.fail("looked at"))
    code, output = invoke("--server", "127.0.0.1:1", "--format", "json")
    found = found_in(output)
    assert code == 1
    assert "wants instructions that this processor lacks (SIGILL)" in found["import cv2"]["detail"]
    assert found["heads, server"]["detail"] == "not looked at: cv2 cannot be loaded"


@pytest.mark.usefixtures("headless")
def test_an_agents_own_configuration_is_what_is_looked_at(tmp_path: Path) -> None:
    config = tmp_path / "agent.toml"
    config.write_text(f'source = "{tmp_path / "gone.mp4"}"\ncerts = "{tmp_path}"\n')
    code, output = invoke("--config", str(config))
    assert code == 1
    assert f"FAIL certificates {tmp_path}: ca.pem: No such file or directory" in output
    assert "gone.mp4: no such file or folder" in output


@pytest.mark.usefixtures("headless")
def test_one_group_that_cannot_be_looked_at_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    code, output = invoke("--bundle", "nowhere", "--server", "127.0.0.1:1", "--source", "generated:1")
    assert code == 1
    assert "FAIL server: " in output
    assert "ok   source generated" in output


def test_a_listening_address_that_is_none_is_refused_by_name() -> None:
    arguments = ["doctor", "--listen", "nowhere"]
    done = subprocess.run(
        [sys.executable, "-m", "isthmus.cli", *arguments], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr.strip()) == (3, "error: --listen: 'nowhere', expected HOST:PORT")


def test_nothing_compiled_is_loaded_before_another_process_has_tried() -> None:
    """An illegal instruction in one of them would end the doctor before it said a word."""
    compiled = "{'numpy', 'cv2', 'grpc', 'ai_edge_litert'}"
    code = f"import sys, isthmus.cli.doctoring.doctor; print(*sorted({compiled} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.usefixtures("headless")
def test_details_are_shown_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "findings", lambda _: [Finding("clock", "ok", "[red]not markup[/]")])
    assert "ok   clock: [red]not markup[/]" in invoke()[1]


def test_every_shipped_bundle_is_run() -> None:
    assert {"cifar10", "signs", "skywatch"} <= set(head.shipped())
