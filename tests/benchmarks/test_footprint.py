"""What both halves hold and take to their first answer, beside a bare interpreter that has loaded what they run on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks/footprint.py"


@pytest.mark.skipif(sys.platform != "linux", reason="read from /proc")
def test_both_halves_stay_small_beside_what_they_run_on(tmp_path: Path) -> None:
    """Memory is the same on any machine; of the time, what it takes of a processor, which work beside it hardly changes."""
    out = tmp_path / "footprint.json"
    names = ["bare", "agent", "bare server", "server"]
    command = [sys.executable, str(BENCHMARK), "--rounds", "1", "--programs", *names, "--out", str(out)]
    subprocess.run(command, check=True, capture_output=True)
    ratios = json.loads(out.read_text())["ratio_to_bare"]
    assert ratios["agent"]["peak_MB"] < 1.5
    assert ratios["server"]["peak_MB"] < 2.1
    assert ratios["agent"]["first_processor_s"] < 5
