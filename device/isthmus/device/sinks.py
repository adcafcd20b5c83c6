"""Where answers go: standard output and the record. One that cannot be written is reported once, and the other goes on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

import msgspec

from isthmus.proto.errors import DataError
from isthmus.proto.files import Lines
from isthmus.proto.record import FrameRecord

log = logging.getLogger(__name__)


class Sink(Protocol):
    """Something that answers are written to."""

    name: str

    def write(self, row: FrameRecord) -> None:
        """Write one answer. Raises OSError or DataError when it cannot be written now."""

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

    def close(self) -> None:
        """Leave it open: it is not ours to close."""


class Sinks:
    """Several sinks that are told as one."""

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = sinks
        self._reasons: dict[str, str] = {}
        """Why an answer was not written, by sink: the first time."""
        self._lost = 0

    def write(self, row: FrameRecord) -> None:
        """Write an answer wherever it can be written. Raises DataError when that is nowhere.

        BrokenPipeError passes through: whoever read standard output has had enough.
        """
        written = [self._wrote(sink, row) for sink in self._sinks]
        if not any(written):
            self.check()

    def check(self) -> None:
        """Raises DataError when an answer was not written somewhere."""
        if self._lost:
            raise DataError(f"{'; '.join(self._reasons.values())} ({self._lost} answers are missing there)")

    def close(self) -> None:
        """Close every sink."""
        for sink in self._sinks:
            sink.close()

    def _wrote(self, sink: Sink, row: FrameRecord) -> bool:
        try:
            sink.write(row)
        except BrokenPipeError:
            raise
        except (OSError, DataError) as error:
            reason = str(error) if isinstance(error, DataError) else f"{sink.name}: {error.strerror}"
            if sink.name not in self._reasons:
                log.warning("%s; answers go on elsewhere, and are tried here again", reason)
            self._reasons.setdefault(sink.name, reason)
            self._lost += 1
            return False
        return True
