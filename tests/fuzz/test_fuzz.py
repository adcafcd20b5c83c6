"""Every parser, searched for what it cannot take: `ISTHMUS_FUZZ_S=600 python -m pytest tests/fuzz` for ten minutes each."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fuzz.targets import TARGETS

DURATION_S = int(os.environ.get("ISTHMUS_FUZZ_S", "20"))
KEPT = os.environ.get("ISTHMUS_FUZZ_FOLDER")
"""Where what was learnt is kept from run to run; none: it is thrown away."""
SHOWN_LINES = 40
CASES = Path(__file__).with_name("cases")


@pytest.mark.parametrize("name", TARGETS)
def test_seeds(name: str) -> None:
    """What the search begins with is taken as it is, and there is some."""
    _replayed(name)


@pytest.mark.parametrize("name", sorted({path.name.partition("-")[0] for path in CASES.iterdir()}))
def test_cases(name: str) -> None:
    """What was found once is taken as it should be."""
    _replayed(name, *sorted(str(path) for path in CASES.glob(f"{name}-*")))


def _replayed(name: str, *cases: str) -> None:
    command = [sys.executable, str(Path(__file__).with_name("replay.py")), name, *cases]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=300)
    assert done.returncode == 0, "\n".join((done.stdout + done.stderr).splitlines()[-SHOWN_LINES:])


@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="atheris: not installed (Linux, Python 3.11 to 3.13)"
)
@pytest.mark.parametrize("name", TARGETS)
def test_search(name: str, tmp_path: Path) -> None:
    """Nothing but what is documented comes out, whatever goes in."""
    folder = Path(KEPT) if KEPT else tmp_path
    command = [sys.executable, str(Path(__file__).with_name("hunt.py")), name, str(DURATION_S), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=DURATION_S + 300)
    found = sorted(folder.glob(f"{name}-*"))
    tail = "\n".join((done.stdout + done.stderr).splitlines()[-SHOWN_LINES:])
    assert done.returncode == 0, f"{[(path.name, path.read_bytes()[:400]) for path in found]}\n{tail}"
    assert "Done " in done.stderr, tail
