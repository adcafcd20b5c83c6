"""Folders that are there only as long as the process that made them; what a killed process left is swept up by the next."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

LOCK = ".lock"
"""Held by the process whose folder it is: the system lets go of it, however the process ends."""


class Scratch:
    """A folder below `parent` whose name begins with `prefix`; `close` deletes it with all that is in it."""

    def __init__(self, parent: Path, prefix: str) -> None:
        """Raises OSError where it cannot be made."""
        self.path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        self._lock = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def close(self) -> None:
        """Delete it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def sweep(parent: Path, prefix: str) -> None:
    """Delete the folders of processes that are no more."""
    for path in parent.glob(f"{prefix}*"):
        with contextlib.suppress(OSError):  # another user's, or gone
            lock = os.open(path / LOCK, os.O_RDWR)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)
