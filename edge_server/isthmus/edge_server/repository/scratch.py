"""Folders that are there only as long as the process that made them; what a killed process left is swept up by the next."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


class Scratch:
    """A folder below `parent` whose name begins with `prefix`; `close` deletes it with all that is in it.

    It is locked: the system lets go of the lock however the process ends, and what cleans folders for temporary files by
    their age (systemd-tmpfiles) passes over one that is locked.
    """

    def __init__(self, parent: Path, prefix: str) -> None:
        """Raises OSError where it cannot be made."""
        while True:
            self.path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
            self._lock = os.open(self.path, os.O_RDONLY)
            with contextlib.suppress(OSError):
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if self.path.exists():
                    return
            os.close(self._lock)  # it was swept up between the making and the locking

    def close(self) -> None:
        """Delete it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def sweep(parent: Path, prefix: str) -> None:
    """Delete the folders of processes that are no more."""
    for path in parent.glob(f"{prefix}*"):
        with contextlib.suppress(OSError), _locked(path):  # another user's, in use, or gone
            shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(lock)
