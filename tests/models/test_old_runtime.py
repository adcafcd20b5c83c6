"""The device's half where `ai-edge-litert` is absent: what is imported, and what is said of what cannot be done."""

from __future__ import annotations

import subprocess
import sys

import pytest

PRELUDE = """
import sys, types
from ai_edge_litert.interpreter import Interpreter
for name in [n for n in sys.modules if n.partition(".")[0] in ("ai_edge_litert", "flatbuffers")]:
    del sys.modules[name]
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("ai_edge_litert", "flatbuffers"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
old = types.ModuleType("tflite_runtime"), types.ModuleType("tflite_runtime.interpreter")
old[1].Interpreter = Interpreter
sys.modules.update({module.__name__: module for module in old})
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    """A process in which the successor is not installed, and the predecessor is what the successor was."""
    return subprocess.run([sys.executable, "-c", PRELUDE + code], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("module", ["isthmus.device.run", "isthmus.cli.demo", "isthmus.emulation.simulate"])
def test_what_runs_bundles_asks_for_nothing_more(module: str) -> None:
    done = run(f"import {module}")
    assert done.returncode == 0, done.stderr


def test_an_executor_runs_on_the_predecessor() -> None:
    code = """
from isthmus.device.executor import Executor, measure_stages
from isthmus.models import bundle
found = bundle.load("signs")
print(len(measure_stages(Executor(found), found)))
"""
    done = run(code)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0


def test_what_cannot_be_done_is_said_in_one_line() -> None:
    code = 'sys.argv = ["isthmus", "models", "split", "model.tflite"]\nfrom isthmus.cli.main import main\nmain()'
    done = run(code)
    assert done.returncode == 13
    assert done.stderr.startswith(
        "error: flatbuffers: not installed; tflite-runtime runs bundles, but reads and cuts no"
    )
