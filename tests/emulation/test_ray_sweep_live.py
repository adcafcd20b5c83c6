"""A sweep on a real Ray of this machine: the same results as in processes, gone on with where it stopped."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from isthmus.emulation import sweep
from isthmus.proto import record
from isthmus.proto.errors import ConfigError

pytestmark = [
    pytest.mark.alone("ray"),
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed"),
]


def swept(file: Path, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "isthmus.cli", "sweep", str(file), "--out", str(out), "--workers", "1", *more]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def records(folder: Path) -> dict[str, tuple[object, ...]]:
    """Every result's header, but for the command that made it, and its records, as they are on disk."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sweep.files(folder):
        run = record.load(path)
        header = msgspec.structs.replace(run.header, command=None)
        found[f"{path.parent.name}/{path.name}"] = (header, [msgspec.json.encode(each) for each in run.records])
    return found


def test_on_ray_a_sweep_gives_the_same_to_the_last_digit_and_goes_on(tmp_path: Path) -> None:
    file, here, there = tmp_path / "few.toml", tmp_path / "here", tmp_path / "there"
    text = 'policy = ["local-only", "expected-utility"]\nduration_s = 5.0\nsessions = 2\nseed = '
    file.write_text(text + "[1]\n")
    first = swept(file, there)
    assert first.returncode == 0, first.stderr
    before = {path: path.stat().st_mtime_ns for path in sweep.files(there)}
    file.write_text(text + "[1, 2]\n")
    alone, on_ray = swept(file, here), swept(file, there, "--on", "ray")
    assert alone.returncode == 0, alone.stderr
    assert on_ray.returncode == 0, on_ray.stderr
    assert "4 runs" in on_ray.stderr
    assert "2 of them already played" in on_ray.stderr
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert records(there) == records(here)
    assert len(records(here)) == 8


def test_a_cluster_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "one.toml").write_text('policy = "local-only"\nduration_s = 5.0\n')
    done = swept(tmp_path / "one.toml", tmp_path / "out", "--on", "auto")
    assert done.returncode == ConfigError.exit_code, done.stderr
    assert "error: ray: no cluster at auto" in done.stderr
    assert "`ray start --head` makes one" in done.stderr
