"""The record of an agent that is started again and again: a file for each run, rotated by size and age, bounded in all.

`run.jsonl` is the run that goes on; `run.000001.jsonl` and so on are what came before, oldest first, each with its header.
"""

from __future__ import annotations

import errno
import logging
import re
from dataclasses import dataclass
from pathlib import Path

from isthmus.proto.errors import DataError
from isthmus.proto.record import FrameRecord, Recorder, RunHeader

log = logging.getLogger(__name__)

MOST_FILES = 1000
"""Former files that are kept at most: an agent that fails a frame after its start, every second, makes one each time."""
HEADER_BYTES = 64 * 1024
"""The most that is read of a file to tell whether an answer follows its header."""
PASSING = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ENOMEM}
"""Errors that may be over soon: a full disk. A place where nothing can be written is an error of whoever named it."""


@dataclass(frozen=True)
class Limits:
    """How large and how old a file may become, and how large all of them together."""

    file_bytes: int
    age_s: float
    total_bytes: int


class History:
    """Writes one run after another to `path`. What is there is kept under another name, never overwritten."""

    def __init__(self, path: Path, header: RunHeader, limits: Limits) -> None:
        """Raises DataError when nothing can be written there; a disk that is full now may have room later."""
        self.name, self._path, self._header, self._limits = str(path), path, header, limits
        self._recorder: Recorder | None = None
        self._began_s: float | None = None
        try:
            self._begin()
        except DataError as error:
            if not isinstance(error.__cause__, OSError) or error.__cause__.errno not in PASSING:
                raise
            log.warning("%s", error)

    def write(self, row: FrameRecord) -> None:
        """Append one record, in a new file where the old one is full or old enough. Raises DataError; try again later."""
        if self._recorder is None or self._full(row):
            self._begin()
        assert self._recorder is not None
        self._recorder.write(row)
        if self._began_s is None:
            self._began_s = row.captured_s

    def close(self) -> None:
        """Close the file."""
        if self._recorder is not None:
            self._recorder.close()

    def _full(self, row: FrameRecord) -> bool:
        assert self._recorder is not None
        old = self._began_s is not None and row.captured_s - self._began_s > self._limits.age_s
        return old or self._recorder.size_bytes > self._limits.file_bytes

    def _begin(self) -> None:
        """Move what is there out of the way, make room, and start a file with the run's header."""
        self.close()
        self._recorder = self._began_s = None
        if self._path.exists() and not self._path.is_file():  # a device or pipe: neither moved nor bounded
            self._recorder = Recorder(self._path, self._header)
            return
        try:
            if _holds_answers(self._path):
                self._path.rename(self._numbered(max(self._former(), default=0) + 1))
            self._make_room()
        except OSError as error:
            raise DataError(f"{self._path}: {error.strerror}; name another place for the record") from error
        self._recorder = Recorder(self._path, self._header)

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.stem}.{number:06}{self._path.suffix}")

    def _former(self) -> dict[int, Path]:
        """What came before, by its number, oldest first."""
        pattern = re.compile(rf"{re.escape(self._path.stem)}\.(\d{{6,}}){re.escape(self._path.suffix)}")
        folder = self._path.parent
        found = [(match, path) for path in folder.glob("*") if (match := pattern.fullmatch(path.name))]
        return dict(sorted((int(match[1]), path) for match, path in found))

    def _make_room(self) -> None:
        former = list(self._former().values())
        sizes = [path.stat().st_size for path in former]
        for path, size in zip(former, sizes, strict=True):
            if sum(sizes) + self._limits.file_bytes <= self._limits.total_bytes and len(sizes) <= MOST_FILES:
                break
            path.unlink()
            sizes.remove(size)


def _holds_answers(path: Path) -> bool:
    """Whether there is more than a header: a run that ended before its first answer is not worth a file."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        start = file.read(HEADER_BYTES)
    header, _, answers = start.partition(b"\n")
    return bool(answers) or (not header.startswith(b'{"schema"') and bool(start))
