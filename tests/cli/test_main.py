"""The face: what is imported for which command, what help shows, that every key of a configuration is a flag."""

from __future__ import annotations

import json
import logging
import math
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer
from typer.testing import CliRunner

from isthmus.cli import agent, serve
from isthmus.cli.examples import EXAMPLES
from isthmus.cli.main import COMMANDS, JsonLines, application, everywhere_first
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


def test_the_version_is_told_without_a_command() -> None:
    assert re.fullmatch(r"isthmus \d+\.\d+\.\d+\n", invoke("--version"))


@pytest.mark.parametrize(
    ("arguments", "sorted_"),
    [
        (["agent", "-v"], ["-v", "agent"]),
        (["agent", "--log-format", "json", "--fps", "5"], ["--log-format", "json", "agent", "--fps", "5"]),
        (["serve", "--log-format=json", "--verbose"], ["--log-format=json", "--verbose", "serve"]),
        (["shape", "--", "make", "-v"], ["shape", "--", "make", "-v"]),
        (["agent", "--log-format"], ["--log-format", "agent"]),
        ([], []),
    ],
)
def test_what_belongs_to_all_commands_may_stand_anywhere(arguments: list[str], sorted_: list[str]) -> None:
    assert everywhere_first(arguments) == sorted_


def test_a_log_line_is_json_where_that_is_asked_for() -> None:
    record = logging.LogRecord("isthmus.device", logging.WARNING, "", 0, "lost %s\nagain", ("edge",), None)
    line = JsonLines().format(record)
    assert "\n" not in line
    found = json.loads(line)
    assert (found["level"], found["logger"], found["message"]) == ("warning", "isthmus.device", "lost edge\nagain")


@pytest.mark.parametrize("line", [line for lines in EXAMPLES.values() for line in lines])
def test_an_example_is_a_command_line_that_is_understood(line: str) -> None:
    """Every word of it is a command or a flag that is there."""
    words = shlex.split(line.partition(" > ")[0])[1:]
    command = typer.main.get_command(application(words))
    while words and words[0] in (found := getattr(command, "commands", {})):
        command = found[words.pop(0)]
    known = {name for parameter in command.params for name in parameter.opts}
    ends = words.index("--") if "--" in words else len(words)
    assert {word for word in words[:ends] if word.startswith("--")} <= known


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_has_examples_and_says_where_more_is_written(name: str) -> None:
    shown = invoke(name, "-h")
    assert EXAMPLES[name][0][:40] in shown
    page = re.search(r"More: (\S+\.md)", shown)
    assert page is not None
    assert (Path(__file__).parents[2] / page[1]).is_file()


def flags(command: Callable[..., Any]) -> set[str]:
    """As the command line takes them."""
    app = typer.Typer()
    app.command()(command)
    return {name for parameter in typer.main.get_command(app).params for name in parameter.opts}


@pytest.mark.parametrize(("command", "config"), [(agent.agent, AgentConfig), (serve.serve, ServerConfig)])
def test_every_key_is_a_flag(command: Callable[..., Any], config: type[msgspec.Struct]) -> None:
    assert {flag(key) for key in config.__struct_fields__} <= flags(command)


HEAVY = (
    "isthmus.emulation isthmus.edge_server matplotlib onnxruntime torch isthmus.models.glyphs grpc importlib.metadata"
)


@pytest.mark.parametrize(
    ("loaded", "not_loaded"),
    [
        ("application(['agent']); import isthmus.device.run", HEAVY),
        (
            "application(['serve']); import isthmus.edge_server.server",
            "isthmus.device cv2 ai_edge_litert tflite_runtime",
        ),
    ],
    ids=["an agent that answers alone", "a server of features"],
)
def test_a_half_loads_nothing_that_it_does_not_need(loaded: str, not_loaded: str) -> None:
    """A small board has 100 MB for it, and no matplotlib."""
    probe = (
        f"import sys; from isthmus.cli.main import application; {loaded}; print(set(sys.argv[1:]) & set(sys.modules))"
    )
    command = [sys.executable, "-c", probe, *not_loaded.split()]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def leaves(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every command that does something, by the words that name it."""
    for name, below in getattr(command, "commands", {}).items():
        yield from leaves(below, (*words, name))
    if not hasattr(command, "commands") or command.invoke_without_command:
        yield " ".join(words), command


VERBS = dict(leaves(typer.main.get_command(application([]))))
WITHOUT_FORMAT = {
    "shape": "what its command says",
    "config schema": "always JSON",
    "service show": "a unit file",
    "models pair": "there, a picture's format",
    **{
        f"models {verb}": "writes a bundle, of which `models info --format json` tells"
        for verb in (
            "distill",
            "ablate",
            "prune",
            "deltas",
            "clips",
            "quantize",
            "train",
            "export",
            "recount",
            "inputs",
        )
    },
}
"""Commands that have no --format, and what they say instead."""


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_has_the_options_and_the_help_of_all(verb: str) -> None:
    options = {name: parameter for parameter in VERBS[verb].params for name in parameter.opts}
    assert ("--format" in options) is (verb not in WITHOUT_FORMAT) or verb == "models pair"
    if verb not in WITHOUT_FORMAT:
        assert tuple(options["--format"].type.choices) == ("text", "json")
    silent = {name for name, parameter in options.items() if not getattr(parameter, "help", "")}
    assert not silent, "options without a word of help"
    defaults = [parameter.default for parameter in VERBS[verb].params if isinstance(parameter.default, float)]
    assert all(map(math.isfinite, defaults)), "nobody types nan or inf"
    shown = VERBS[verb].epilog
    assert f"`isthmus {verb}" in shown
    assert "`-h`, `-v`, `--log-format json`" in shown
    page = re.search(r"More: `(\S+\.md)`", shown)
    assert page is not None
    assert (Path(__file__).parents[2] / page[1]).is_file()
