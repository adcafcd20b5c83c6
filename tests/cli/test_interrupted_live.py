"""Ctrl-C in the middle: what was done until then is told and valid."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

from isthmus.proto import record

PATIENCE_S = 60.0
STUCK = """
import pathlib, time
class Stuck:
    def __init__(self, catalogue): pass
    def width(self, situation):
        pathlib.Path("stuck").touch()
        time.sleep(600)
    def after_exit(self, result, situation): return None
"""


def test_an_emulation_that_is_interrupted_tells_the_policies_that_were_played(tmp_path: Path) -> None:
    (tmp_path / "waiting.py").write_text(STUCK)
    command = [
        sys.executable, "-m", "isthmus.cli", "emulate", "--bundle", "signs", "--policy", "local-only,waiting:Stuck",
        "--duration", "5s", "--workers", "1", "--out", "runs", "--format", "json",
    ]  # fmt: skip
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        ends_s = time.monotonic() + PATIENCE_S
        while not (tmp_path / "stuck").exists() and time.monotonic() < ends_s and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        output, said = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
    assert process.returncode == 130, said
    assert "interrupted: 1 of 2 policies are played; their records are in runs" in said
    assert list(json.loads(output)["policies"]) == ["local-only"]
    header, answers = record.read(tmp_path / "runs/local-only.jsonl")
    assert (header.policy, len(answers) > 0) == ("local-only", True)
