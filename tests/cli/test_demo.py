"""How the demo ends: with its report whenever there are answers, and with the agent's error where it is one."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from typer.testing import CliRunner

from isthmus.cli import demo, report
from isthmus.cli.main import application
from runs import made_run, saved


@pytest.mark.parametrize(("agent", "ours"), [(0, 0), (130, 0), (-signal.SIGTERM, 0), (6, 6)])
def test_an_agent_that_we_ended_ourselves_is_no_error(
    agent: int, ours: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After Ctrl-C the agent may already be closing when it is asked to end: it then dies of the asking."""

    def run(_: demo.DemoPlan, folder: Path, **__: object) -> tuple[int, float, str]:
        saved(made_run("mine", 5, of=10), folder / report.RECORDS)
        (folder / demo.AGENT_LOG).write_text("error: camera 0: has gone away\n")
        return agent, 0.0, "relay: on time"

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "_run", run)
    monkeypatch.setattr(demo, "_complete", lambda _, folder, *__: (folder / "index.html", None))
    done = CliRunner().invoke(application(["demo"]), ["demo", "--duration", "1s"])
    assert done.exit_code == ours
    assert ("camera 0: has gone away" in done.stderr) is (ours != 0)
