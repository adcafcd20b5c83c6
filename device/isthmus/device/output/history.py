"""The record of an agent that is started again and again: one file that goes on, rotated by size and age, bounded in all.

Every run has its header, written with its first answer. `run.000001.jsonl` and so on are what was full or old, oldest
first; `run.jsonl` is what is written now.
"""

from __future__ import annotations

import errno
import logging
import os
import re
from dataclasses import dataclass
from datetime import datetime
from io import FileIO
from pathlib import Path

import msgspec

from isthmus.proto.errors import DataError
from isthmus.proto.fates import RunEnd
from isthmus.proto.record import HEADER_BEGINS, FrameRecord, Recorder, RunHeader

log = logging.getLogger(__name__)

HEADER_BYTES = 64 * 1024
"""More than any header takes."""
TAIL_BYTES = 1 << 20
"""More than any line takes: a mask is up to 80 kB in base 64."""
PASSING = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ENOMEM}
"""Errors that may be over soon: a full disk. A place where nothing can be written is an error of whoever named it."""


@dataclass(frozen=True)
class Limits:
    """How large and how old a file may become, and how large all of them together."""

    file_bytes: int
    age_s: float
    total_bytes: int


class History:
    """Appends a run to `path`, behind those that are there. Nothing is overwritten, whatever it is."""

    def __init__(self, path: Path, header: RunHeader, limits: Limits) -> None:
        """Raises DataError when nothing can be written there; a disk that is full now may have room later."""
        self.name, self._path, self._header, self._limits = str(path), path, header, limits
        self._recorder: Recorder | None = None
        self._began_s: float | None = None
        """When the first answer that this run wrote into the file was captured."""
        try:
            self._prepare()
        except OSError as error:
            if error.errno not in PASSING:
                raise DataError(f"{path}: {error.strerror}; name another place for the record") from error

    def write(self, row: FrameRecord) -> None:
        """Append one record, in a new file where the old one is full or old enough. Raises DataError; try again later."""
        try:
            if self._recorder is not None and self._is_over(row.captured_s):
                self._rotate()
        except OSError as error:
            raise DataError(f"{self._path}: {error.strerror}") from error
        if self._recorder is None:
            self._recorder, self._began_s = Recorder(self._path, self._header), row.captured_s
        self._recorder.write(row)

    def end(self, end: RunEnd) -> None:
        """Append how the run ended, where it has begun. Raises DataError."""
        if self._recorder is not None:
            self._recorder.end(end)

    def close(self) -> None:
        """Close the file."""
        if self._recorder is not None:
            self._recorder.close()

    def _prepare(self) -> None:
        """See to it that there is something to go on with. What is no record of ours is moved out of the way, whole."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if self._path.is_file():
            if _begun_s(self._path, self._header) > self._limits.age_s or not _mended(self._path):
                self._rotate()
        elif not self._path.exists():
            FileIO(self._path, "a").close()
        elif self._path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))

    def _is_over(self, now: float) -> bool:
        """Whether the file is full or old. A device or pipe never is."""
        assert self._recorder is not None
        old = self._began_s is not None and now - self._began_s > self._limits.age_s
        return (old or self._recorder.size_bytes > self._limits.file_bytes) and self._path.is_file()

    def _rotate(self) -> None:
        """Move what is there out of the way, and make room for what comes."""
        self.close()
        self._recorder = None
        if self._path.is_file():
            self._path.rename(self._numbered(max(self._former(), default=0) + 1))
        self._make_room()

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.stem}.{number:06}{self._path.suffix}")

    def _former(self) -> dict[int, Path]:
        """The files that are over, by their numbers, oldest first."""
        pattern = re.compile(rf"{re.escape(self._path.stem)}\.(\d{{6,}}){re.escape(self._path.suffix)}")
        folder = self._path.parent
        found = [(match, path) for path in folder.glob("*") if (match := pattern.fullmatch(path.name))]
        return dict(sorted((int(match[1]), path) for match, path in found))

    def _make_room(self) -> None:
        former = list(self._former().values())
        sizes = [path.stat().st_size for path in former]
        while former and sum(sizes) + self._limits.file_bytes > self._limits.total_bytes:
            former.pop(0).unlink()
            sizes.pop(0)


def _begun_s(path: Path, header: RunHeader) -> float:
    """How long before the run of `header` the first run at `path` was started, by the wall clock; 0 where none tells."""
    try:
        with path.open("rb") as file:
            first = msgspec.json.decode(file.readline(HEADER_BYTES), type=RunHeader)
        began = datetime.fromisoformat(first.started)
        return (datetime.fromisoformat(header.started) - began).total_seconds()
    except (OSError, msgspec.DecodeError, ValueError, TypeError):
        return 0.0


def _mended(path: Path) -> bool:
    """Whether a file can be gone on with: it is empty, or a record; a line that was cut off at its end is taken back."""
    with path.open("rb+") as file:
        if not file.read(1):
            return True
        file.seek(0)
        if file.read(len(HEADER_BEGINS)) != HEADER_BEGINS:
            return False
        end = file.seek(0, os.SEEK_END)
        start = max(0, end - TAIL_BYTES)
        file.seek(start)
        tail = file.read()
        whole = start + tail.rfind(b"\n") + 1
        if whole <= start:
            return False
        if whole < end:
            log.warning("%s: its last line was cut off, and is left out", path)
            file.truncate(whole)
        return True
