"""The systemd units: they start what there is, and do not restart what starting again cannot cure."""

from __future__ import annotations

import configparser
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from isthmus.cli.main import application
from isthmus.proto import errors

UNITS = sorted((Path(__file__).parents[2] / "deploy" / "systemd").glob("*.service"))
HOPELESS = {"ConfigError", "BundleError", "HandshakeError", "SecurityError"}


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_a_unit_starts_a_role_and_knows_its_exit_codes(path: Path) -> None:
    unit = configparser.ConfigParser(strict=True, interpolation=None)
    unit.optionxform = str  # type: ignore[method-assign, assignment]
    unit.read(path)
    _, role, *flags = shlex.split(unit["Service"]["ExecStart"])
    shown = CliRunner().invoke(application([role]), [role, "--help"]).output
    assert all(flag in shown for flag in flags if flag.startswith("--"))
    known = {2: "usage"} | {kind.exit_code: kind.__name__ for kind in errors.IsthmusError.__subclasses__()}
    final = {known[int(code)] for code in unit["Service"]["RestartPreventExitStatus"].split()}
    assert final <= HOPELESS | {"usage"}
    assert {"ConfigError", "BundleError", "SecurityError"} <= final


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_a_unit_can_read_its_key_by_a_group_that_it_tells_to_make(path: Path) -> None:
    """Keys are their owner's only, and a dynamic user owns nothing."""
    text = path.read_text()
    (groups,) = [
        line.partition("=")[2].split() for line in text.splitlines() if line.startswith("SupplementaryGroups=")
    ]
    assert "isthmus" in groups
    assert "#   groupadd --system --force isthmus\n" in text
    assert "#   chgrp -R isthmus /etc/isthmus/certs && chmod -R g=rX,o= /etc/isthmus/certs\n" in text


def test_a_reload_hangs_up_on_the_server() -> None:
    assert "\nExecReload=/bin/kill -HUP $MAINPID\n" in UNITS[1].read_text()


def test_both_roles_have_one() -> None:
    assert [path.stem for path in UNITS] == ["isthmus-agent", "isthmus-server"]
