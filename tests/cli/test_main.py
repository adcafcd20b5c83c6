"""The face: what is imported for which command, what help shows, that every key of a configuration is a flag."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import typer
from typer.testing import CliRunner

from isthmus.cli import agent, serve
from isthmus.cli.main import COMMANDS, application
from isthmus.device.config import AgentConfig
from isthmus.edge_server.config import ServerConfig
from isthmus.proto.config import flag


def invoke(*arguments: str) -> str:
    result = CliRunner().invoke(application(arguments), list(arguments), env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    return result.output


def test_help_lists_every_command() -> None:
    shown = invoke("--help")
    assert all(name in shown for name in COMMANDS)


def test_a_typing_error_is_a_usage_error() -> None:
    assert CliRunner().invoke(application(["agnet"]), ["agnet"]).exit_code == 2


@pytest.mark.parametrize(
    "command", [("doctor",), ("report", "run.jsonl"), ("models", "list"), ("bench", "profiles", "pi4")]
)
def test_a_format_that_is_not_known_is_a_usage_error(command: tuple[str, ...]) -> None:
    arguments = [*command, "--format", "yaml"]
    done = CliRunner().invoke(application(arguments), arguments)
    assert done.exit_code == 2
    assert "'yaml' is not one of 'text', 'json'" in done.output


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_its_help_alone(name: str) -> None:
    assert "Usage" in invoke(name, "--help")


def test_defaults_in_brackets_are_shown() -> None:
    assert "[127.0.0.1:50551]" in invoke("serve", "--help")
    assert "[signs]" in invoke("agent", "--help")


def flags(command: Callable[..., Any]) -> set[str]:
    """As the command line takes them."""
    app = typer.Typer()
    app.command()(command)
    return {name for parameter in typer.main.get_command(app).params for name in parameter.opts}


@pytest.mark.parametrize(("command", "config"), [(agent.agent, AgentConfig), (serve.serve, ServerConfig)])
def test_every_key_is_a_flag(command: Callable[..., Any], config: type[msgspec.Struct]) -> None:
    assert {flag(key) for key in config.__struct_fields__} <= flags(command)


def test_an_agent_loads_nothing_of_server_emulator_or_reports() -> None:
    """A small board has 120 MB for it, and no matplotlib."""
    probe = (
        "import sys; from isthmus.cli.main import application; application(['agent']);"
        "print([m for m in ('isthmus.emulation', 'isthmus.edge_server', 'matplotlib', 'onnxruntime', 'torch',"
        " 'isthmus.models.glyphs') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
