"""`isthmus service` into a folder that stands for a machine: what is written, what stays, what is refused."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import pytest

from isthmus.cli.services import installation, units
from isthmus.cli.services.installation import Done
from isthmus.cli.services.units import Role
from isthmus.edge_server import security
from isthmus.proto.errors import ConfigError, SecurityError

PROGRAM = "/opt/isthmus/bin/isthmus"


def install(
    root: Path,
    role: Role = "agent",
    *,
    given: Path | None = None,
    certs: Path | None = None,
    insecure: bool = False,
    replace: bool = False,
) -> Done:
    folder = None if certs is None else str(certs)
    return installation.install(
        role, root, program=PROGRAM, given=given, certs=folder, insecure=insecure, replace=replace
    )


def text_of(root: Path, role: Role = "agent") -> str:
    return (root / units.UNITS / units.name(role)).read_text()


def test_an_agent_alone_needs_no_certificates_and_keeps_its_answers(tmp_path: Path) -> None:
    done = install(tmp_path)
    assert done.advice == []
    assert 'record = "answers.jsonl"' in (tmp_path / "etc/isthmus/agent.toml").read_text()
    assert "--certs" not in text_of(tmp_path)
    assert stat.S_IMODE((tmp_path / "etc/isthmus/agent.toml").stat().st_mode) == 0o600


def test_the_same_again_changes_nothing(tmp_path: Path) -> None:
    install(tmp_path)
    assert install(tmp_path).written == []


@pytest.mark.parametrize("role", ["agent", "server"])
def test_a_key_is_roots_alone_and_its_place_leads_to_where_systemd_shows_it(role: Role, tmp_path: Path) -> None:
    security.init(tmp_path / "keys", ["edge.local"])
    root, half = tmp_path / "root", units.HALVES[role]
    install(root, role, certs=tmp_path / "keys")
    key = root / units.KEYS / f"{half}.key"
    assert (stat.S_IMODE(key.stat().st_mode), stat.S_IMODE(key.parent.stat().st_mode)) == (0o600, 0o700)
    assert str((root / units.certs_folder(role) / f"{half}.key").readlink()) == units.credential(role)
    assert f"--certs /etc/isthmus/{half}" in text_of(root, role)


def test_another_certificate_is_not_overwritten(tmp_path: Path) -> None:
    for name in ("one", "two"):
        security.init(tmp_path / name, ["edge.local"])
    install(tmp_path / "root", "server", certs=tmp_path / "one")
    with pytest.raises(SecurityError, match=r"server\.pem: another certificate is there"):
        install(tmp_path / "root", "server", certs=tmp_path / "two")


def test_a_server_without_certificates_must_be_asked_for(tmp_path: Path) -> None:
    with pytest.raises(SecurityError, match="neither certificates nor plaintext"):
        install(tmp_path, "server")
    assert not list(tmp_path.iterdir())
    install(tmp_path, "server", insecure=True)
    assert "insecure = true" in (tmp_path / "etc/isthmus/server.toml").read_text()


def test_an_agent_that_talks_to_a_server_needs_them_too(tmp_path: Path) -> None:
    given = tmp_path / "mine.toml"
    given.write_text('server = "edge:50551"\nrecord = "a.jsonl"\n')
    with pytest.raises(SecurityError, match="neither certificates nor plaintext"):
        install(tmp_path / "root", given=given)


def test_a_configuration_that_is_there_stays_and_a_wrong_one_is_named_before_anything_is_written(
    tmp_path: Path,
) -> None:
    root, given = tmp_path / "root", tmp_path / "mine.toml"
    install(root)
    there = root / "etc/isthmus/agent.toml"
    there.write_text('bundle = "cifar10"\nrecord = "a.jsonl"\n')
    given.write_text('bundle = "signs"\n')
    done = install(root, given=given)
    assert "cifar10" in there.read_text()
    assert "was not copied" in done.advice[0]
    given.write_text("bundel = 'signs'\n")
    with pytest.raises(ConfigError, match="unknown key 'bundel'"):
        install(tmp_path / "other", given=given)
    assert not (tmp_path / "other").exists()


def test_answers_that_go_nowhere_are_warned_of(tmp_path: Path) -> None:
    given = tmp_path / "mine.toml"
    given.write_text('source = "generated:1"\n')
    assert "answers go nowhere" in install(tmp_path / "root", given=given).advice[0]


def test_what_a_service_cannot_see_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = tmp_path / "mine.toml"
    given.write_text('bundle = "/home/pi/mine"\n')
    with pytest.raises(ConfigError, match="a service does not see it"):
        install(tmp_path / "root", given=given)
    monkeypatch.setattr(sys, "executable", "/home/pi/.venv/bin/python")
    monkeypatch.setattr(Path, "exists", lambda _: True)
    with pytest.raises(ConfigError, match="install into /opt"):
        installation.program()


def test_an_edited_unit_is_not_overwritten_and_kept_when_it_is_asked_for(tmp_path: Path) -> None:
    install(tmp_path)
    unit = tmp_path / units.UNITS / units.name("agent")
    unit.write_text(text_of(tmp_path).replace("WatchdogSec=30", "WatchdogSec=300"))
    with pytest.raises(ConfigError, match="was edited"):
        install(tmp_path)
    with pytest.raises(ConfigError, match="was edited"):
        installation.uninstall("agent", tmp_path, replace=False)
    install(tmp_path, replace=True)
    assert "WatchdogSec=300" in unit.with_suffix(".service.edited").read_text()
    assert units.is_as_written(unit.read_text())


def test_a_unit_of_an_older_version_is_replaced_without_a_word(tmp_path: Path) -> None:
    install(tmp_path)
    newer = installation.install(
        "agent", tmp_path, program="/opt/other/bin/isthmus", given=None, certs=None, insecure=False, replace=False
    )
    assert [path.name for path in newer.written] == ["isthmus-agent.service"]


def test_uninstalling_leaves_what_is_the_users_and_refuses_an_enabled_unit(tmp_path: Path) -> None:
    install(tmp_path)
    wants = tmp_path / units.UNITS / "multi-user.target.wants"
    wants.mkdir()
    (wants / units.name("agent")).symlink_to("../isthmus-agent.service")
    with pytest.raises(ConfigError, match=r"systemctl disable --now isthmus-agent\.service first"):
        installation.uninstall("agent", tmp_path, replace=False)
    (wants / units.name("agent")).unlink()
    done = installation.uninstall("agent", tmp_path, replace=False)
    assert [path.name for path in done.left] == ["agent.toml"]
    assert not (tmp_path / units.UNITS / units.name("agent")).exists()
    with pytest.raises(ConfigError, match="there is no such unit"):
        installation.uninstall("agent", tmp_path, replace=False)
