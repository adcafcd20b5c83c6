"""The systemd units: they start what there is, do not restart what starting again cannot cure, and give little away."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from isthmus.cli.main import application
from isthmus.cli.services import units
from isthmus.cli.services.units import Role
from isthmus.proto import errors

ROLES: tuple[Role, ...] = ("agent", "server")
HOPELESS = {"ConfigError", "BundleError", "HandshakeError", "SecurityError"}
PROGRAM = "/opt/isthmus/bin/isthmus"


def setting(role: Role, key: str) -> str:
    (value,) = re.findall(rf"^{key}=(.*)$", units.unit(role, PROGRAM, certs=True), re.MULTILINE)
    return str(value)


@pytest.mark.parametrize("role", ROLES)
def test_a_unit_starts_a_role_and_knows_its_exit_codes(role: Role) -> None:
    program, verb, *flags = shlex.split(setting(role, "ExecStart"))
    shown = CliRunner().invoke(application([verb]), [verb, "--help"], env={"COLUMNS": "200"}).output
    assert program == PROGRAM
    assert all(flag in shown for flag in flags if flag.startswith("--"))
    known = {2: "usage"} | {kind.exit_code: kind.__name__ for kind in errors.IsthmusError.__subclasses__()}
    final = {known[int(code)] for code in setting(role, "RestartPreventExitStatus").split()}
    assert final <= HOPELESS | {"usage"}
    assert {"ConfigError", "BundleError", "SecurityError"} <= final


@pytest.mark.parametrize("role", ROLES)
def test_nothing_is_given_up_after_some_starts_and_the_watchdog_is_one(role: Role) -> None:
    assert setting(role, "StartLimitIntervalSec") == "0"
    assert setting(role, "Type") == "notify"
    assert int(setting(role, "WatchdogSec")) >= 10


def test_answers_do_not_go_into_the_journal() -> None:
    assert setting("agent", "StandardOutput") == "null"


def test_a_reload_hangs_up_on_the_server() -> None:
    assert setting("server", "ExecReload") == "/bin/kill -HUP $MAINPID"


@pytest.mark.parametrize("role", ROLES)
def test_a_key_is_loaded_where_there_are_certificates(role: Role) -> None:
    text = {certs: units.unit(role, PROGRAM, certs=certs) for certs in (True, False)}
    assert (".key" in text[True], ".key" in text[False]) == (True, False)
    assert all(f"LoadCredential={role}.toml:/etc/isthmus/{role}.toml" in one for one in text.values())
    assert "@" not in re.sub(r"SystemCallFilter=.*", "", text[True])


@pytest.mark.parametrize("role", ROLES)
def test_an_edit_shows(role: Role) -> None:
    text = units.unit(role, PROGRAM, certs=True)
    assert units.is_as_written(text)
    assert not units.is_as_written(text.replace("WatchdogSec=30", "WatchdogSec=300"))
    assert not units.is_as_written(text.partition("\n")[2])


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
@pytest.mark.parametrize("role", ROLES)
def test_systemd_finds_nothing_wrong_and_calls_it_tight(role: Role, tmp_path: Path) -> None:
    path = tmp_path / units.name(role)
    path.write_text(units.unit(role, shutil.which("true") or "/bin/true", certs=True))
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=30", "--no-pager", str(path)]
    judged = subprocess.run(command, capture_output=True, text=True, check=False)
    assert judged.returncode == 0, judged.stdout[-2000:] + judged.stderr
    wrong = subprocess.run(["systemd-analyze", "verify", str(path)], capture_output=True, text=True, check=False)
    assert not [line for line in wrong.stderr.splitlines() if path.name in line]
