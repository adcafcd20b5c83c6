"""What nobody can have meant is refused by name, in every command: an option twice, an empty value."""

from __future__ import annotations

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from isthmus.cli.main import application


def refused(command: str) -> str:
    arguments = [word.replace("''", "") for word in command.split()]
    done = CliRunner().invoke(application(arguments), arguments, env={"COLUMNS": "200"})
    assert done.exit_code == 2, done.output
    return " ".join(done.output.replace("│", " ").split())


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("agent --deadline 1s --deadline 2s", "--deadline: given 2 times; say it once"),
        ("agent --server= --frames 1", "--server: is empty"),
        ("serve --listen ''", "--listen: is empty"),
        ("models split model.tflite --uplink-mbps 1 --uplink-mbps 2", "--uplink-mbps: given 2 times"),
        ("models split model.tflite --smaller ''", "--smaller: is empty"),
        ("emulate --seed 1 --seed 2", "--seed: given 2 times"),
        ("certs init folder --host ''", "--host: is empty"),
        ("sweep ''", "file: is empty"),
        ("traces make constant ''", "is empty"),
    ],
)
def test_it_is_refused_by_name(command: str, why: str) -> None:
    assert why in refused(command)


def test_what_may_be_repeated_may_be() -> None:
    arguments = ["certs", "init", "folder", "--host", "a", "--host", "b", "--help"]
    assert CliRunner().invoke(application(arguments), arguments).exit_code == 0


def imported(*arguments: str) -> set[str]:
    code = f"""
import sys
from isthmus.cli.main import application
try:
    application({list(arguments)})({list(arguments)})
except SystemExit as end:
    assert not end.code, end.code
print(*{{name.partition('.')[0] for name in sys.modules}})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


HEAVY = {
    "torch",
    "matplotlib",
    "onnxruntime",
    "sklearn",
    "scipy",
    "faster_coco_eval",
    "prometheus_client",
    "zmq",
    "paho",
    "opentelemetry",
}
COMPILED = {"numpy", "cv2", "grpc", "ai_edge_litert"}


@pytest.mark.parametrize("command", ["emulate", "models", "top", "relay"])
def test_a_help_loads_nothing_heavy(command: str) -> None:
    assert not imported(command, "--help") & HEAVY


@pytest.mark.parametrize("command", ["agent --help", "serve --help", "doctor --help"])
def test_what_is_typed_on_a_small_board_loads_nothing_compiled(command: str) -> None:
    assert not imported(*command.split()) & COMPILED


def test_an_agent_loads_nothing_of_the_server_the_emulator_or_training() -> None:
    loaded = imported("agent", "--frames", "1", "--source", "generated:1")
    assert not loaded & (HEAVY | {"cryptography", "isthmus.emulation"})
