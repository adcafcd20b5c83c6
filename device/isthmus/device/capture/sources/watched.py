"""A directory that is watched: each picture that comes into it, in the order in which they come, once it is whole."""

from __future__ import annotations

import math
import threading
from collections import deque
from pathlib import Path

from isthmus.device.capture.sources.files import read_file
from isthmus.device.capture.sources.source import Picture, Source
from isthmus.models.pictures import is_picture
from isthmus.proto.errors import SourceError

LOOK_EVERY_S = 0.1
"""A picture is whole when it has not changed between two looks; nobody who copies one pauses for so long."""

_Seen = tuple[int, int]


class Watched(Source):
    """Pictures that are written into a folder after the agent began; those that are there already are not taken."""

    patience_s = math.inf
    fps = 1000.0
    """None is kept waiting."""

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise SourceError(f"{path}: no such folder to watch; make it first")
        self.name, self._path = f"watch:{path}", path
        self._woken = threading.Event()
        self._taken = self._look()
        self._growing: dict[Path, _Seen] = {}
        self._whole: deque[Path] = deque()

    def read(self) -> Picture | None:
        """The next picture, waited for; None after `wake`. Raises SourceError when the folder is gone."""
        while not self._whole:
            if self._woken.wait(LOOK_EVERY_S):
                return None
            self._whole += self._new()
        return read_file(self._whole.popleft())

    def wake(self) -> None:
        """Wait for nothing more."""
        self._woken.set()

    def close(self) -> None:
        """Nothing is held open."""

    def _new(self) -> list[Path]:
        """The files that are whole now, oldest first."""
        seen = self._look()
        came = {path: facts for path, facts in seen.items() if self._taken.get(path) != facts}
        whole = [path for path, facts in came.items() if self._growing.get(path) == facts and facts[1]]
        self._growing = came
        self._taken = {path: seen[path] for path in seen if path in self._taken or path in whole}
        return sorted(whole, key=lambda path: (seen[path], path))

    def _look(self) -> dict[Path, _Seen]:
        """The pictures in the folder with their time of change, in ns, and their size."""
        found = {}
        try:
            for path in self._path.iterdir():
                if is_picture(path.name) and not path.name.startswith("."):
                    try:
                        facts = path.stat()
                    except OSError:  # gone again
                        continue
                    found[path] = facts.st_mtime_ns, facts.st_size
        except OSError as error:
            raise SourceError(f"{self.name}: {error.strerror}") from error
        return found
