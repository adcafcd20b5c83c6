"""Where every answer is written, one line each: standard output and the record.

One that cannot be written is reported once, and the other goes on. Whatever may lose answers rather than wait is a sink.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Protocol

import msgspec

from isthmus.proto.errors import DataError
from isthmus.proto.fates import RunEnd
from isthmus.proto.files import Lines
from isthmus.proto.record import FrameRecord

log = logging.getLogger(__name__)


class Writer(Protocol):
    """Something that answers are written to."""

    name: str

    def write(self, row: FrameRecord) -> None:
        """Write one answer. Raises OSError or DataError when it cannot be written now."""

    def end(self, end: RunEnd) -> None:
        """Note how the run ended. Raises OSError or DataError."""

    def close(self) -> None:
        """Let go of what is written to."""


class StandardOutput:
    """One line of JSON for every answer."""

    name = "standard output"

    def __init__(self, descriptor: int) -> None:
        self._lines, self._encoder = Lines(descriptor), msgspec.json.Encoder()

    def write(self, row: FrameRecord) -> None:
        """Write one line at once, past Python's own buffers. Raises OSError."""
        self._lines.write(self._encoder.encode(row) + b"\n")

    def end(self, end: RunEnd) -> None:
        """Every line is an answer: nothing more."""

    def close(self) -> None:
        """Leave it open: it is not ours to close."""


class Writers:
    """Several writers that are told as one."""

    def __init__(self, writers: Sequence[Writer]) -> None:
        self._writers = writers
        self._lost: Counter[str] = Counter()
        """Answers that were not written, by writer."""

    def write(self, row: FrameRecord) -> None:
        """Write an answer wherever it can be written. Raises DataError when that is nowhere.

        BrokenPipeError passes through: whoever read standard output has had enough.
        """
        failed: dict[str, str] = {}
        for writer in self._writers:
            try:
                writer.write(row)
            except BrokenPipeError:
                raise
            except DataError as error:
                failed[writer.name] = str(error)
            except OSError as error:
                failed[writer.name] = f"{writer.name}: {error.strerror}"
        if len(failed) == len(self._writers):
            raise DataError("; ".join(failed.values()))
        for name, why in failed.items():
            if name not in self._lost:
                log.warning("%s; answers go on elsewhere, and are tried here again", why)
            self._lost[name] += 1

    def end(self, end: RunEnd) -> None:
        """Note how the run ended, wherever that can be noted."""
        for writer in self._writers:
            try:
                writer.end(end)
            except (DataError, OSError) as error:
                log.warning("%s: the run's end is not in it: %s", writer.name, error)

    def check(self) -> None:
        """Raises DataError when an answer was not written somewhere."""
        if self._lost:
            missing = ", ".join(f"{count} in {name}" for name, count in self._lost.items())
            raise DataError(f"answers: some could not be written, see the log; missing are {missing}")

    def close(self) -> None:
        """Close every writer."""
        for writer in self._writers:
            writer.close()
