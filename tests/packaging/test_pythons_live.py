"""The wheel in a clean environment of every Python that is supported: `make test-pythons`, which names them.

It installs what the wheel asks for and runs every kind of verb in an empty folder: a minute or more for each.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMED = os.environ.get("ISTHMUS_PYTHONS", "").split()

pytestmark = pytest.mark.skipif(not NAMED, reason="make test-pythons names the Pythons")


def run(*command: str | Path, cwd: Path, code: int = 0) -> str:
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "ISTHMUS_", "VIRTUAL"))
    }
    done = subprocess.run([*map(str, command)], cwd=cwd, env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == code, f"{command}: {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The one that ISTHMUS_WHEEL names, as a release has it; else of this checkout."""
    if given := os.environ.get("ISTHMUS_WHEEL"):
        return Path(given).resolve()
    out = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", out, cwd=ROOT)
    (path,) = out.glob("*.whl")
    return path


@pytest.fixture(scope="module", params=NAMED)
def environment(
    request: pytest.FixtureRequest, wheel: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """The folder of programs of a clean environment with the wheel and its extras."""
    python = shutil.which(request.param)
    if python is None or subprocess.run([python, "--version"], capture_output=True, check=False).returncode:
        pytest.skip(f"{request.param}: no such Python here")
    folder = tmp_path_factory.mktemp("environment")
    run(python, "-m", "venv", folder / "venv", cwd=folder)
    programs = folder / "venv/bin"
    quietly = ("--quiet", "--disable-pip-version-check")
    run(programs / "python", "-m", "pip", "install", *quietly, f"{wheel}[server,emulation,mqtt,frigate]", cwd=folder)
    yield programs
    shutil.rmtree(folder)


def test_everything_runs_from_the_wheel_alone(environment: Path, tmp_path: Path) -> None:
    isthmus = environment / "isthmus"
    findings = json.loads(run(isthmus, "doctor", "--format", "json", cwd=tmp_path))
    levels = {finding["what"]: finding["level"] for finding in findings}
    assert {"bundle signs", "bundle cifar10", "bundle skywatch", "delegate"} <= set(levels)
    answers = run(
        isthmus, "agent", "--frames", "5", "--fps", "20", "--source", "clips:1", "--bundle", "skywatch", cwd=tmp_path
    )
    assert answers.count("\n") == 5
    assert '"scenario"' in run(isthmus, "emulate", "--duration", "20s", "--format", "json", cwd=tmp_path)
    run(isthmus, "certs", "init", "keys", cwd=tmp_path)
    run(isthmus, "service", "install", "agent", "--root", "root", "--program", isthmus, cwd=tmp_path)
    demo = run(isthmus, "demo", "--duration", "6s", cwd=tmp_path)
    assert demo.strip()
    examples = environment.parent / "share/isthmus/examples"
    run(isthmus, "config", "check", "agent", examples / "agent.toml", cwd=tmp_path)
    assert run(isthmus, "--version", cwd=tmp_path).startswith("isthmus ")
