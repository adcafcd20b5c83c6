"""Real processes with certificates: made by the commands, used by both halves, one device per name."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ISTHMUS = [sys.executable, "-m", "isthmus.cli"]
PATIENCE_S = 120.0


def finished(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*ISTHMUS, *arguments], capture_output=True, text=True, timeout=PATIENCE_S)


@contextlib.contextmanager
def serving(certs: Path, log: Path) -> Iterator[str]:
    command = [*ISTHMUS, "serve", "--certs", str(certs), "--listen", "127.0.0.1:0"]
    with log.open("w") as file, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=file, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, log.read_text()
            yield next(word.rstrip(",") for word in line.split() if ":" in word)
        finally:
            process.terminate()


def agent(address: str, certs: Path, *more: str) -> subprocess.CompletedProcess[str]:
    fixed = ["--source", "generated:3", "--deadline", "2s", "--fps", "10", "--policy", "always-offload"]
    return finished("agent", "--server", address, "--certs", str(certs), *fixed, *more)


@pytest.fixture
def certs(tmp_path: Path) -> Path:
    folder = tmp_path / "certs"
    for arguments in (["init", str(folder)], ["add-device", "cam7", "--certs", str(folder)]):
        done = finished("certs", *arguments)
        assert done.returncode == 0, done.stderr
    return folder


def test_what_the_commands_make_is_what_the_halves_take(certs: Path, tmp_path: Path) -> None:
    """The first device by its default name, from the folder of all; another from its own, by its own."""
    log = tmp_path / "log"
    with serving(certs / "server", log) as address:
        for folder, more in ((certs, []), (certs / "devices" / "cam7", ["--client-id", "cam7"])):
            done = agent(address, folder, "--frames", "60", *more)
            assert done.returncode == 0, done.stderr
            assert "server" in {json.loads(line)["source"] for line in done.stdout.splitlines()}
        wrong = agent(address, certs / "devices" / "cam7", "--frames", "1000")
        assert wrong.returncode == 8
        assert "client id 'device', but the certificate is for 'cam7'" in wrong.stderr.replace("\n", " ")
    said = log.read_text()
    assert "'device' at 127.0.0.1:" in said
    assert "'cam7' at 127.0.0.1:" in said
    assert "refused: mismatch: hello: client id 'device', but the certificate is for 'cam7'" in said
    assert "Traceback" not in said
