"""Two processes of tests: what is marked `alone` has the machine, or its name, to itself; a test that hangs ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

CONFTEST = """
from side_by_side import pytest_collection_modifyitems, pytest_configure_node, pytest_runtest_protocol
"""
TESTS = """
import json, os, time
from pathlib import Path
import pytest

def spell(name):
    began = time.monotonic()
    time.sleep(0.02)
    with Path("spells").open("a") as file:
        file.write(json.dumps([name, os.getpid(), began, time.monotonic()]) + "\\n")

@pytest.mark.alone
@pytest.mark.parametrize("n", range(4))
def test_alone(n):
    spell("alone")

@pytest.mark.alone("ray")
@pytest.mark.parametrize("n", range(10))
def test_ray(n):
    spell("ray")

@pytest.mark.parametrize("n", range(30))
def test_other(n):
    spell("other")

@pytest.mark.timeout(0.3)
def test_hangs():
    time.sleep(600)
"""


def test_nothing_runs_beside_what_is_alone_and_what_hangs_holds_nothing_up(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = alone\n")
    (tmp_path / "test_spells.py").write_text(TESTS)
    plugins = ["-p", "xdist", "-p", "pytest_timeout", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", "-q", *plugins, "-n", "2", "--dist", "worksteal", str(tmp_path)]
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    variables = os.environ | {"PYTHONPATH": path, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=200)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 failed, 44 passed" in done.stdout
    assert "Timeout (>0.3s)" in done.stdout
    spells = [json.loads(line) for line in (tmp_path / "spells").read_text().splitlines()]
    assert len(spells) == 44
    assert len({process for _, process, *_ in spells}) == 2
    for name, process, start_s, end_s in spells:
        beside = {
            other
            for other, where, began_s, ended_s in spells
            if where != process and began_s < end_s and start_s < ended_s
        }
        assert not beside or name != "alone"
        assert name not in beside or name != "ray"
