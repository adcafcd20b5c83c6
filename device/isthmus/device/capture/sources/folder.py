"""A folder of pictures, as it is when the agent begins."""

from __future__ import annotations

from pathlib import Path

from isthmus.device.capture.sources.files import read_file, without
from isthmus.device.capture.sources.source import Picture, Source
from isthmus.models.pictures import SUFFIXES, is_picture
from isthmus.proto.errors import SourceError


class Folder(Source):
    """The pictures of a folder in the order of their names; a sub-folder named like a label gives the true class."""

    def __init__(self, path: Path, labels: tuple[str, ...] = ()) -> None:
        self.name = str(path)
        self._labels = {name: i for i, name in enumerate(labels)}
        self._paths = sorted(p for p in path.rglob("*") if is_picture(p.relative_to(path)))
        if not self._paths:
            kinds = ", ".join(sorted(SUFFIXES))
            raise SourceError(f"{path}: no pictures in this folder (looked for {kinds})")
        self._next = 0
        self._hung_on: Path | None = None

    def read(self) -> Picture | None:
        """The next picture; one that cannot be read comes without pixels."""
        if self._hung_on is not None:
            path, self._hung_on = self._hung_on, None
            return without(path, f"gave nothing for {self.patience_s:g} s", self._labels.get(path.parent.name))
        if self._next == len(self._paths):
            return None
        path = self._paths[self._next]
        self._next += 1
        return read_file(path, self._labels.get(path.parent.name))

    def again(self) -> Folder:
        """The folder, behind the picture that it hung on, which is answered for."""
        self._hung_on = self._paths[self._next - 1]
        return self

    def close(self) -> None:
        """Nothing is held open."""
