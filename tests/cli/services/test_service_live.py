"""A stand-in for systemd: it starts what an installed unit says, and hears ready, signs of life, and the end."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from isthmus.cli.services import installation, units
from isthmus.cli.services.units import Role
from isthmus.edge_server import security

PATIENCE_S = 60.0


class StandIn:
    """One service, started from its unit below `root` as systemd would."""

    def __init__(self, root: Path, role: Role) -> None:
        self.unit = (root / units.UNITS / units.name(role)).read_text()
        state, credentials = root / "var/lib" / self._one("StateDirectory"), root / "run/credentials"
        for folder in (state, credentials):
            folder.mkdir(parents=True, exist_ok=True)
        for name, source in re.findall(r"^LoadCredential=([^:]+):(/.*)$", self.unit, re.MULTILINE):
            shutil.copy(root / source[1:], credentials / name)
        key = root / units.certs_folder(role) / f"{units.HALVES[role]}.key"
        if key.is_symlink():  # here as there it leads to this unit's credentials
            key.unlink()
            key.symlink_to(credentials / key.name)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(root / "notify"))
        self._socket.settimeout(PATIENCE_S)
        command = self._one("ExecStart").replace("${CREDENTIALS_DIRECTORY}", str(credentials))
        words = shlex.split(command.replace(" /etc/", f" {root}/etc/"))
        output = subprocess.DEVNULL if self._setting("StandardOutput") == ["null"] else subprocess.PIPE
        environ = {
            **os.environ,
            "NOTIFY_SOCKET": str(root / "notify"),
            "WATCHDOG_USEC": "600000",  # where the unit has 30 s
            "CREDENTIALS_DIRECTORY": str(credentials),
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "isthmus.cli", *words[1:]],
            cwd=state, env=environ, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.PIPE,
        )  # fmt: skip

    def _setting(self, key: str) -> list[str]:
        return re.findall(rf"^{key}=(.*)$", self.unit, re.MULTILINE)

    def _one(self, key: str) -> str:
        (value,) = self._setting(key)
        return value

    def hear(self, what: str) -> str:
        """Wait until it says `what`."""
        while True:
            said = self._socket.recv(4096).decode()
            if said.startswith(what):
                return said

    def falls_silent(self, *, within_s: float) -> bool:
        """Whether nothing comes for so long, behind what was on its way."""
        self._socket.settimeout(within_s)
        try:
            for _ in range(100):
                self._socket.recv(4096)
        except TimeoutError:
            return True
        return False

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        self._socket.close()


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    security.init(tmp_path / "keys", ["127.0.0.1"])
    return tmp_path


def started(role: Role, root: Path, configuration: str) -> StandIn:
    given = root.parent / f"{role}.toml"
    given.write_text(configuration)
    installation.install(
        role, root, program="/opt/isthmus/bin/isthmus", given=given, certs=str(root.parent / "keys"), insecure=False,
        replace=False,
    )  # fmt: skip
    return StandIn(root, role)


def test_a_server_is_ready_alive_and_drains(machine: Path) -> None:
    it = started("server", machine / "root", 'listen = "127.0.0.1:0"\n')
    try:
        assert "STATUS=serving signs" in it.hear("READY=1")
        for _ in range(3):
            it.hear("WATCHDOG=1")
        it.process.send_signal(signal.SIGTERM)
        it.hear("STOPPING=1")
        assert it.process.wait(PATIENCE_S) == 0
    finally:
        it.close()


def test_an_agent_is_ready_alive_and_its_answers_are_in_its_record(machine: Path) -> None:
    configuration = 'source = "generated:1"\nfps = 20\nrecord = "answers.jsonl"\nserver = "127.0.0.1:1"\n'
    it = started("agent", machine / "root", configuration)
    try:
        assert "STATUS=answering with signs" in it.hear("READY=1")
        answers, ends_s = machine / "root/var/lib/isthmus/answers.jsonl", time.monotonic() + PATIENCE_S
        while answers.read_text().count("\n") < 3 and time.monotonic() < ends_s:
            it.hear("WATCHDOG=1")
        it.process.send_signal(signal.SIGTERM)
        it.hear("STOPPING=1")
        assert it.process.wait(PATIENCE_S) == 0
    finally:
        it.close()
    assert answers.read_text().count("\n") > 3  # and how the run ended


def test_an_agent_that_hangs_gives_no_sign_of_life(machine: Path) -> None:
    it = started(
        "agent", machine / "root", 'source = "generated:1"\nrecord = "answers.jsonl"\nserver = "127.0.0.1:1"\n'
    )
    try:
        it.hear("READY=1")
        it.hear("WATCHDOG=1")
        it.process.send_signal(signal.SIGSTOP)
        it._socket.settimeout(2.0)  # more than ten signs
        assert it.falls_silent(within_s=2.0)  # ten signs
    finally:
        it.close()


def test_an_agent_without_its_camera_ends_with_a_code_that_it_is_started_again_after(machine: Path) -> None:
    it = started(
        "agent", machine / "root", 'source = "/dev/video-none"\nrecord = "answers.jsonl"\nserver = "127.0.0.1:1"\n'
    )
    try:
        assert it.process.wait(PATIENCE_S) == 6
        assert "6" not in it._one("RestartPreventExitStatus").split()
    finally:
        it.close()
