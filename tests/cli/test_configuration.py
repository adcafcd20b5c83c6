"""`isthmus config`: a file that is right or wrong, where a value comes from, the schema."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from isthmus.cli.main import application
from isthmus.device.config import AgentConfig
from isthmus.proto.errors import ConfigError


def invoke(*words: str) -> str:
    arguments = ["config", *words]
    done = CliRunner().invoke(application(arguments), arguments)
    if isinstance(done.exception, ConfigError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "agent.toml"
    path.write_text('deadline_s = "250ms"\nrecord_total_bytes = "2GB"\n')
    return path


def test_a_right_file_is_said_to_be(file: Path) -> None:
    assert invoke("check", "agent", str(file)) == f"{file}: 2 values of agent, all right\n"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("deadlin_s = 1\n", r"agent\.toml: unknown key 'deadlin_s'"),
        ('deadline_s = "5 apples"\n', r"agent\.toml: 'apples' is no unit of a duration"),
        ("deadline_s = 90\n", r"agent\.toml: deadline_s = 90"),
    ],
)
def test_a_wrong_file_is_named(file: Path, text: str, why: str) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError, match=why):
        invoke("check", "agent", str(file))


def test_every_value_says_where_it_comes_from(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISTHMUS_AGENT_DEADLINE_S", "80ms")
    found = json.loads(invoke("show", "agent", "--config", str(file), "--format", "json"))
    assert set(found) == set(AgentConfig.__struct_fields__)
    assert found["deadline_s"] == {"value": 0.08, "from": "ISTHMUS_AGENT_DEADLINE_S"}
    assert found["record_total_bytes"] == {"value": 2_000_000_000, "from": str(file)}
    assert found["bundle"] == {"value": "signs", "from": "default"}
    assert f"record_total_bytes  2000000000                {file}" in invoke("show", "agent", "--config", str(file))


@pytest.mark.parametrize("role", ["agent", "server"])
def test_the_schema_names_every_key_and_lets_quantities_be_text(role: str) -> None:
    schema = json.loads(invoke("schema", role))
    shown = json.loads(invoke("show", role, "--format", "json"))
    assert set(schema["properties"]) == set(shown)
    assert schema["additionalProperties"] is False
    key = {"agent": "deadline_s", "server": "grace_s"}[role]
    assert {"type": "string", "examples": ["100ms"]} in schema["properties"][key]["anyOf"]
