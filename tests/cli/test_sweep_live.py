"""A sweep as a real process that is interrupted, killed and started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from isthmus.emulation import sweep
from isthmus.proto import record

SEEDS = 12


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    seeds = ", ".join(map(str, range(1, SEEDS + 1)))
    (tmp_path / "few.toml").write_text(f'policy = "local-only"\nduration_s = 20.0\nseed = [{seeds}]\n')
    return tmp_path / "out"


@pytest.fixture
def started(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A sweep at work that has its first result, in a process group of its own."""
    process = subprocess.Popen(command(folder), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    eventually(lambda: len(results(folder)) > 0 or process.poll() is not None)
    yield process
    if process.poll() is None:
        process.kill()
    process.communicate()


def command(folder: Path) -> list[str]:
    file = folder.parent / "few.toml"
    return [sys.executable, "-m", "isthmus.cli", "sweep", str(file), "--out", str(folder), "--workers", "1"]


def results(folder: Path) -> dict[Path, int]:
    """The results that are there, and when they were written."""
    found = (folder / sweep.RESULTS).glob("[!.]*/*")
    return {path: path.stat().st_mtime_ns for path in found}


def eventually(true: Callable[[], bool], patience_s: float = 120.0) -> None:
    until = time.monotonic() + patience_s
    while not true():
        assert time.monotonic() < until
        time.sleep(0.05)


def children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def lives(pid: int) -> bool:
    """Whether there is such a process, and it has not ended yet."""
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except OSError:
        return False


def finished(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(folder), capture_output=True, text=True, timeout=300)


def test_ctrl_c_leaves_whole_results_and_says_how_to_go_on(folder: Path, started: subprocess.Popen[str]) -> None:
    started.send_signal(signal.SIGINT)
    _, told = started.communicate(timeout=60)
    assert started.returncode == 130
    assert "the same command goes on from there" in told
    assert "Traceback" not in told
    found = results(folder)
    assert 0 < len(found) < SEEDS
    assert all(record.load(path).cut_lines == 0 for path in found)
    assert set(sweep.files(folder)) == set(found)


@pytest.mark.skipif(
    not Path("/proc/self/task").is_dir(), reason="this system has no /proc, where the children of a process are found"
)
def test_killed_it_takes_its_processes_along_and_goes_on_where_it_stopped(
    folder: Path, started: subprocess.Popen[str]
) -> None:
    workers = children(started.pid)
    assert workers
    os.kill(started.pid, signal.SIGKILL)
    started.wait()
    eventually(
        lambda: (
            not any(
                Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes() for pid in workers
            )
        )
    )
    before = results(folder)
    assert 0 < len(before) < SEEDS
    done = finished(folder)
    assert done.returncode == 0, done.stderr
    assert f"{SEEDS} runs in {folder}, {len(before)} of them already played" in done.stderr
    after = results(folder)
    assert len(after) == SEEDS
    assert {path: after[path] for path in before} == before
    assert Path(done.stdout.strip()) == folder / "index.html"
    headers = [record.load(path).header for path in after]
    assert sorted(header.seed or 0 for header in headers) == list(range(1, SEEDS + 1))
