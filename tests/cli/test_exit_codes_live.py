"""Every kind of error ends a command with its documented code and one line; so do signals, and a server of another bundle."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from isthmus.cli import main
from isthmus.cli.doctoring import doctor
from isthmus.proto import errors

ISTHMUS = [sys.executable, "-m", "isthmus.cli"]
PAGE = Path(__file__).parents[2] / "docs" / "exit-codes.md"
KINDS = {name: int(code) for code, name in re.findall(r"^\| (\d+) \| (\w+Error) \|", PAGE.read_text(), re.MULTILINE)}


@pytest.mark.parametrize("name", KINDS)
def test_an_error_of_each_kind_ends_a_command_with_its_code(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing() -> None:
        raise getattr(errors, name)("layer 0: damaged; send it again")

    monkeypatch.setattr(doctor, "doctor", failing)
    monkeypatch.setattr(sys, "argv", ["isthmus", "doctor"])
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == KINDS[name]
    assert capsys.readouterr().err == "error: layer 0: damaged; send it again\n"


def test_a_server_of_another_bundle_ends_the_agent_with_8() -> None:
    serve = [*ISTHMUS, "serve", "--bundle", "signs", "--insecure", "--listen", "127.0.0.1:0"]
    with subprocess.Popen(serve, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        found = re.search(r"127\.0\.0\.1:\d+", server.stdout.readline())
        assert found is not None
        agent = [*ISTHMUS, "agent", "--bundle", "cifar10", "--insecure", "--server", found[0], "--fps", "5"]
        done = subprocess.run(agent, capture_output=True, text=True, timeout=60)
        server.terminate()
    assert done.returncode == 8, done.stderr
    assert "signs" in done.stderr
    assert "cifar10" in done.stderr
    assert server.returncode == 0  # it drained


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_signal_ends_an_agent_with_its_code(number: signal.Signals, code: int, tmp_path: Path) -> None:
    run = [*ISTHMUS, "agent", "--fps", "5", "--record", str(tmp_path / "run.jsonl")]
    with subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as agent:
        assert agent.stdout is not None
        agent.stdout.readline()
        agent.send_signal(number)
        _, said = agent.communicate(timeout=60)
    assert agent.returncode == code
    assert "Traceback" not in said
    assert all(
        line.startswith("{") and line.endswith("}") for line in (tmp_path / "run.jsonl").read_text().splitlines()
    )


def test_a_command_that_a_signal_ends_gives_its_code_and_128() -> None:
    shape = [*ISTHMUS, "shape", "--backend", "relay", "--to", "127.0.0.1:9", "--", "sh", "-c", "kill -KILL $$"]
    assert subprocess.run(shape, capture_output=True, timeout=60).returncode == 128 + signal.SIGKILL
