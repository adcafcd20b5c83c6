"""`isthmus doctor`: what is well on this machine is called well, what is not is named with its way out."""

from __future__ import annotations

import json
import re
import shutil
import socket
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from isthmus.cli import doctor
from isthmus.cli.doctor import Finding
from isthmus.cli.main import application
from isthmus.device import sensors
from isthmus.device.sensors import Reading
from isthmus.models import bundle
from isthmus.proto.compat import tomllib

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]


@pytest.fixture
def cool(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is not held back, whatever the one under the tests is."""
    monkeypatch.setattr(sensors, "read", lambda: Reading(41.0, throttling=()))


@pytest.fixture
def sound(cool: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but the machine's own findings: the bundles are looked at elsewhere."""
    monkeypatch.setattr(doctor, "_bundles", lambda: [])


def invoke(*options: str) -> tuple[int, str]:
    arguments = ["doctor", *options]
    done = CliRunner().invoke(application(arguments), arguments, env={"COLUMNS": "400"})
    return done.exit_code, done.output


def named(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.what: finding for finding in findings}


@pytest.mark.usefixtures("cool")
def test_on_a_sound_machine_everything_is_well_and_the_bundles_were_run() -> None:
    code, output = invoke("--format", "json")
    found = {finding["what"]: finding for finding in json.loads(output[output.index("[") :])}
    assert code == 0, [finding for finding in found.values() if not finding["well"]]
    assert {"python", "namespace", "machine", "grpcio", "bundle cifar10", "bundle signs"} <= set(found)
    assert re.fullmatch(r"verified; head [\d.]+ ms at width 0.25, [\d.]+ ms at 1.0", found["bundle signs"]["detail"])
    assert found["machine"]["detail"] == "41 °C, not throttled"


def test_every_package_that_a_part_needs_is_looked_at() -> None:
    def wanted(dependencies: list[str]) -> set[str]:
        return {re.split(r"[<>=]", text)[0] for text in dependencies if ";" not in text and "[" not in text}

    assert set(doctor.PARTS["device"]) == wanted(PROJECT["dependencies"])
    for extra in ("server", "emulation"):
        assert set(doctor.PARTS[extra]) == wanted(PROJECT["optional-dependencies"][extra])


def without(package: str) -> Callable[[str], str]:
    def version(name: str) -> str:
        if name == package:
            raise metadata.PackageNotFoundError(name)
        return "1.0"

    return version


def test_a_package_of_the_device_must_be_there_and_one_of_an_extra_need_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "version", without("zstandard"))
    lacking = named(doctor._packages())["zstandard"]
    assert (lacking.well, lacking.detail, lacking.way_out) == (False, "not installed", "pip install -e '.'")
    monkeypatch.setattr(metadata, "version", without("onnxruntime"))
    lacking = named(doctor._packages())["onnxruntime"]
    assert lacking.well
    assert lacking.detail == "not installed; the 'server' extra brings it: pip install -e '.[server]'"


@pytest.mark.parametrize(
    ("version", "well"), [((3, 9, 18), False), ((3, 10, 0), True), ((3, 13, 9), True), ((3, 14, 0), False)]
)
def test_a_python_that_is_too_old_or_too_new(
    version: tuple[int, int, int], well: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "sys", SimpleNamespace(version_info=version))
    (finding,) = doctor._python()
    assert (finding.well, finding.detail) == (well, ".".join(map(str, version)))


def test_a_file_that_hides_the_other_portions_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor._namespace() == [Finding("namespace", True, "whole", doctor._namespace()[0].way_out)]
    monkeypatch.setattr(doctor, "import_module", lambda _: SimpleNamespace(__file__="/away/isthmus/__init__.py"))
    (finding,) = doctor._namespace()
    assert (finding.well, finding.detail) == (False, "/away/isthmus/__init__.py")


def test_a_damaged_bundle_is_named_and_the_others_are_looked_at_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("broken", "signs"):
        shutil.copytree(bundle.ZOO / "signs", tmp_path / name)
    with (tmp_path / "broken/head.tflite").open("ab") as head:
        head.write(b"!")
    monkeypatch.setattr(bundle, "ZOO", tmp_path)
    broken, whole = doctor._bundles()
    assert (broken.what, broken.well, whole.what, whole.well) == ("bundle broken", False, "bundle signs", True)
    assert "head.tflite" in broken.detail


def test_a_zoo_without_bundles_is_not_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "ZOO", tmp_path)
    (finding,) = doctor._bundles()
    assert (finding.well, finding.detail) == (False, "none in the zoo")


def test_a_machine_that_is_held_back_is_not_well_and_one_that_shows_nothing_is_passed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sensors, "read", lambda: Reading(84.0, throttling=("throttled",)))
    (finding,) = doctor._sensors()
    assert (finding.well, finding.detail) == (False, "84 °C, throttled")
    monkeypatch.setattr(sensors, "read", Reading)
    assert doctor._sensors() == []


def test_a_server_is_looked_at_where_one_is_named() -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        there = f"127.0.0.1:{listening.getsockname()[1]}"
        (refusing,) = doctor._server(there)
        listening.listen()
        (accepting,) = doctor._server(there)
    assert (refusing.what, refusing.well, accepting.well) == (f"server {there}", False, True)
    assert not doctor._server("nowhere")[0].well


@pytest.mark.usefixtures("sound")
def test_what_is_not_well_is_shown_with_its_way_out_and_ends_with_1() -> None:
    assert invoke()[0] == 0
    code, output = invoke("--server", "127.0.0.1:x")
    assert code == 1
    *_, failed, way_out = output.rstrip().splitlines()
    assert failed.startswith("FAIL server 127.0.0.1:x: ")
    assert way_out.strip() == "is `isthmus serve` running there, and --listen right?"
    assert "ok   python: " in output
