"""`isthmus shape`, as typed: a command run over a link, its exit code, and a link that is late."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from isthmus.cli import processes
from isthmus.cli.main import application
from isthmus.emulation.reports.comparison import Comparison, Digest
from isthmus.emulation.simulate import simulate
from isthmus.emulation.virtual.scenario import Scenario
from isthmus.proto import record
from isthmus.proto.errors import ConfigError, DataError, IsthmusError, LagError

ISTHMUS = [sys.executable, "-m", "isthmus.cli"]


def shape(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*ISTHMUS, "shape", *arguments], capture_output=True, text=True, timeout=60)


def test_the_command_learns_where_the_server_is_and_its_exit_code_is_ours() -> None:
    code = "import os, sys; print(sys.argv[1], os.environ['ISTHMUS_AGENT_SERVER']); sys.exit(3)"
    done = shape("--backend", "relay", "--trace", "lte-drive", "--", sys.executable, "-c", code, "{server}")
    assert done.returncode == 3
    named, variable = done.stdout.split()
    assert named == variable
    assert named.startswith("127.0.0.1:")
    assert "relay: shapes rate and delay; it holds bytes and cannot lose them" in done.stderr
    assert "relay: 0 deliveries" in done.stderr


def test_a_link_over_its_lag_budget_fails() -> None:
    send = "import socket, sys, time; h, p = sys.argv[1].split(':'); s = socket.create_connection((h, int(p)));"
    send += "s.sendall(b'x' * 50_000); time.sleep(0.5)"
    with socket.create_server(("127.0.0.1", 0)) as server:
        there = ("--backend", "relay", "--to", f"127.0.0.1:{server.getsockname()[1]}")
        command = ("--", sys.executable, "-c", send, "{server}")
        late = shape(*there, "--lag-budget", "0ms", *command)
        assert late.returncode == 10
        assert "behind its schedule" in " ".join(late.stderr.split())
        assert shape(*there, "--lag-budget", "5s", *command).returncode == 0


def test_a_run_of_real_processes_stands_in_the_setting_of_the_virtual_one(tmp_path: Path) -> None:
    path = tmp_path / "real.jsonl"
    serve = ("serve", "--bundle", "signs", "--insecure", "--listen", "127.0.0.1:0")
    agent = ("agent", "--bundle", "signs", "--source", "generated:3", "--frames", "20", "--fps", "15", "--insecure")
    recorded = ("--as-device", "pi4", "--deadline", "150ms", "--record", str(path))
    with processes.started(*serve) as server:
        there = processes.address_in(processes.first_line(server, "serve"))
        link = ("--backend", "relay", "--trace", "lte-drive", "--start", "5s", "--to", there, "--lag-budget", "5s")
        done = shape(*link, "--record", str(path), "--", *ISTHMUS, *agent, *recorded)
    assert done.returncode == 0, done.stderr
    virtual = Scenario(trace="lte-drive", start_s=5.0, bundle="signs", profile="pi4", duration_s=1.0)
    both = Comparison([Digest.of(path, record.load(path)), Digest.of(path, simulate(virtual)[0])])
    (setting,) = both.settings
    assert both.kinds == ("emulated", "simulated")
    assert (setting.trace, setting.profile) == ("lte-drive", "pi4")
    real, imagined = both.digests
    assert real.header.trace_start_s == imagined.header.trace_start_s
    assert 0 < real.time_s[0] < 60  # since the trace began
    assert any("relay: " in note and "deliveries" in note for note in real.header.notes)


@pytest.mark.parametrize(
    ("arguments", "kind", "problem"),
    [
        (("--backend", "tc"), ConfigError, "back end 'tc': not one of"),
        (("--outage", "wait"), ConfigError, "--outage: 'wait' is neither hold nor drop"),
        (("--backend", "relay", "--outage", "drop"), ConfigError, "relay: cannot lose what waits in an outage"),
        (("--bursts", "10"), ConfigError, "--bursts: '10' is not GOOD:BAD"),
        (("--bursts", "0:1"), ConfigError, "bursts: "),
        (("--to", "edge"), ConfigError, "HOST:PORT"),
        (("--trace", "nowhere"), DataError, "nowhere: no such file"),
        (("--backend", "relay", "--trace", "one-way.csv"), DataError, "one-way: the down rate is unknown"),
        (("--backend", "relay"), ConfigError, "no-such-program: no such command"),
    ],
)
def test_what_cannot_be_is_refused_by_name(
    arguments: tuple[str, ...], kind: type[IsthmusError], problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one-way.csv").write_text("time_s,up_mbps\n0,5\n")
    typed = ["shape", *arguments, "--", "no-such-program"]
    error = CliRunner().invoke(application(["shape"]), typed).exception
    assert isinstance(error, kind)
    assert problem in str(error)


def calibrate(*arguments: str) -> Result:
    return CliRunner().invoke(application(["emulate"]), ["emulate", "calibrate", *arguments])


def test_calibrate_measures_the_relay() -> None:
    done = calibrate("--backend", "relay", "--length", "1s", "--lag-budget", "2s", "--format", "json")
    assert done.exit_code == 0, done.output
    (relay,) = json.loads(done.stdout)["measured"]
    assert relay["backend"] == "relay"
    assert relay["error"] < 0.5
    assert relay["within_target"] == (relay["error"] <= 0.01)


def test_calibrate_fails_where_it_is_late_and_refuses_what_it_does_not_know() -> None:
    late = calibrate("--backend", "relay", "--length", "1s", "--lag-budget", "0ms")
    assert isinstance(late.exception, LagError)
    assert "relay: " in late.stdout
    assert isinstance(calibrate("--backend", "tc").exception, ConfigError)
