"""A `.tflite` of unknown origin is opened and run once in a process of its own: what kills LiteRT kills only that process.

What LiteRT refuses in words, it says again where the file is really opened. What comes with Isthmus needs no trial.
"""

from __future__ import annotations

import contextlib
import hashlib
import signal
import subprocess
import sys
from pathlib import Path

from isthmus.models.bundle import ZOO
from isthmus.models.litert import Interpreter, warm_up
from isthmus.proto.errors import ModelError

LIMIT_S = 45.0
"""Far more than one pass of any network that could serve; a file that takes longer is refused."""

_deaths: dict[str, str] = {}
"""By sha256 of what was tried: what LiteRT did, empty when well."""


def check(path: Path) -> None:
    """Raises ModelError when opening the file in `path` ends the process that does, or never ends. Tried once a run."""
    if path.resolve().is_relative_to(ZOO):
        return
    try:
        key = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}") from error
    if key not in _deaths:
        _deaths[key] = _death(path)
    if _deaths[key]:
        raise ModelError(f"{path}: LiteRT {_deaths[key]}; the file is damaged, convert or fetch it again")


def _death(path: Path) -> str:
    command = [sys.executable, "-m", "isthmus.models.trial", str(path)]
    quiet = subprocess.DEVNULL
    try:
        code = subprocess.run(command, stdin=quiet, stdout=quiet, stderr=quiet, timeout=LIMIT_S, check=False).returncode
    except subprocess.TimeoutExpired:
        return f"does not come to an end with it in {LIMIT_S:.0f} s"
    if code >= 0:
        return ""
    return f"dies of it (signal {-code}, {signal.Signals(-code).name})"


def _open(path: str) -> None:
    """Every signature once, on zeros; the whole graph where it has none."""
    interpreter = Interpreter(path, num_threads=1)
    keys = interpreter.get_signature_list()
    for key in keys:
        warm_up(interpreter.get_signature_runner(key), 1)
    if not keys:
        interpreter.allocate_tensors()
        interpreter.invoke()


if __name__ == "__main__":
    with contextlib.suppress(Exception):
        _open(sys.argv[1])
