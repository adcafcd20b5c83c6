"""Configuration: file, environment, flags, in this order; whatever is wrong is named by where it was written."""

from __future__ import annotations

from pathlib import Path

import pytest

from isthmus.device.config import AgentConfig
from isthmus.proto import config
from isthmus.proto.errors import ConfigError


def load(path: Path | None = None, **flags: object) -> AgentConfig:
    return config.load(AgentConfig, path, flags, prefix="ISTHMUS_AGENT")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "agent.toml"
    path.write_text('deadline_s = 0.3\nfps = 5\nclient_id = "gate"\n')
    return path


def test_flags_win_over_environment_over_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISTHMUS_AGENT_FPS", "7.5")
    monkeypatch.setenv("ISTHMUS_AGENT_DEADLINE_S", "0.2")
    monkeypatch.setenv("ISTHMUS_AGENT_INSECURE", "true")
    found = load(file, deadline_s=0.1, bundle=None)
    assert (found.deadline_s, found.fps, found.client_id, found.insecure) == (0.1, 7.5, "gate", True)
    assert found.bundle == AgentConfig().bundle


def test_an_unknown_key_is_refused_by_file_and_name(file: Path) -> None:
    file.write_text("deadlin_s = 0.1\n")
    with pytest.raises(ConfigError, match=r"agent\.toml: unknown key 'deadlin_s'; known: bundle, source"):
        load(file)


def test_an_unknown_variable_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISTHMUS_AGENT_DEADLIN_S", "0.1")
    with pytest.raises(ConfigError, match="ISTHMUS_AGENT_DEADLIN_S: unknown key 'deadlin_s'"):
        load()


@pytest.mark.parametrize("value", ["none", "-1", "90"])
def test_a_value_that_makes_no_sense_begins_with_where_it_stands(
    file: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    with pytest.raises(ConfigError, match=r"^--deadline: "):
        load(deadline_s=value)
    monkeypatch.setenv("ISTHMUS_AGENT_DEADLINE_S", value)
    with pytest.raises(ConfigError, match=r"^ISTHMUS_AGENT_DEADLINE_S: "):
        load()
    monkeypatch.delenv("ISTHMUS_AGENT_DEADLINE_S")
    file.write_text(f"deadline_s = {value!r}\n")
    with pytest.raises(ConfigError, match=r"agent\.toml: "):
        load(file)


def test_plaintext_beside_certificates_is_refused() -> None:
    with pytest.raises(ConfigError, match="insecure contradicts certs"):
        load(certs="here", insecure=True)


def test_a_file_that_is_not_there_or_no_toml_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: No such file"):
        load(tmp_path / "none.toml")
    (tmp_path / "x.toml").write_text("deadline_s 0.1")
    with pytest.raises(ConfigError, match=r"x\.toml: not valid TOML"):
        load(tmp_path / "x.toml")
