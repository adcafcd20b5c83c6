"""Where every answer is written, one line each: standard output and the record.

One that cannot be written is reported once, and the other goes on. Whatever may lose answers rather than wait is a sink.
"""

from __future__ import annotations

import logging
import os
import select
import stat
import time
from collections import Counter, deque
from collections.abc import Sequence
from typing import Protocol

import msgspec

from isthmus.device.output.words import sentence
from isthmus.proto.errors import DataError
from isthmus.proto.fates import RunEnd
from isthmus.proto.files import Lines
from isthmus.proto.record import FrameRecord

log = logging.getLogger(__name__)

PIPE_BYTES = select.PIPE_BUF
"""What a pipe takes whole without waiting, when it takes anything."""
UNREAD_BYTES = 4 << 20
"""What may wait for a reader: some thousand answers, or fifty with masks."""
CLOSING_S = 2.0
"""How long the end waits for one."""


class Writer(Protocol):
    """Something that answers are written to."""

    name: str

    def write(self, row: FrameRecord) -> None:
        """Write one answer. Raises OSError or DataError when it cannot be written now."""

    def end(self, end: RunEnd) -> None:
        """Note how the run ended. Raises OSError or DataError."""

    def close(self) -> None:
        """Let go of what is written to."""


class UnreadError(DataError):
    """Whoever reads is too slow, or has stopped: `lines` answers were not written for that."""

    def __init__(self, name: str, lines: int) -> None:
        super().__init__(f"{name}: is not read fast enough")
        self.lines = lines


class StandardOutput:
    """One line for every answer, JSON or words. Nobody is waited for who does not read: a slow pipe, a terminal that is held."""

    name = "standard output"

    def __init__(self, descriptor: int, *, text: bool = False) -> None:
        """`text`: as people read it."""
        self._descriptor, self._encoder, self._text = descriptor, msgspec.json.Encoder(), text
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        self._file = Lines(descriptor) if is_file else None

    def write(self, row: FrameRecord) -> None:
        """Write one line, past Python's own buffers: at once, or as soon as there is room for it.

        Raises OSError, and UnreadError where so much waits already that this line is left out.
        """
        line = (sentence(row).encode() if self._text else self._encoder.encode(row)) + b"\n"
        if self._file is not None:
            self._file.write(line)
            return
        self._flush()
        if self._waiting and self._waiting_bytes + len(line) > UNREAD_BYTES:
            raise UnreadError(self.name, 1)
        self._waiting.append(line)
        self._waiting_bytes += len(line)
        self._flush()

    def end(self, end: RunEnd) -> None:
        """Every line is an answer: nothing more. What still waits has a moment to be read. Raises OSError, UnreadError."""
        until_s = time.monotonic() + CLOSING_S
        while self._waiting and (left_s := until_s - time.monotonic()) > 0:
            self._flush(left_s)
        if self._waiting:
            raise UnreadError(self.name, len(self._waiting))

    def close(self) -> None:
        """Leave it open: it is not ours to close."""

    def _flush(self, patience_s: float = 0.0) -> None:
        """Write what there is room for. An error costs the line that it meets."""
        while self._waiting and _has_room(self._descriptor, patience_s):
            line = self._waiting.popleft()
            self._waiting_bytes -= len(line)
            left = line[os.write(self._descriptor, line[:PIPE_BYTES]) :]
            if left:
                self._waiting.appendleft(left)
                self._waiting_bytes += len(left)


def _has_room(descriptor: int, patience_s: float) -> bool:
    """Whether PIPE_BYTES can be written without waiting for a reader; also where it has gone, which the write then says."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(patience_s * 1000))


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
            except UnreadError as error:
                self._lose(writer.name, str(error), error.lines)
            except DataError as error:
                failed[writer.name] = str(error)
            except OSError as error:
                failed[writer.name] = f"{writer.name}: {error.strerror}"
        if len(failed) == len(self._writers):
            raise DataError("; ".join(failed.values()))
        for name, why in failed.items():
            self._lose(name, why, 1)

    def end(self, end: RunEnd) -> None:
        """Note how the run ended, wherever that can be noted."""
        for writer in self._writers:
            try:
                writer.end(end)
            except UnreadError as error:
                self._lose(writer.name, str(error), error.lines)
            except (DataError, OSError) as error:
                log.warning("%s: the run's end is not in it: %s", writer.name, error)

    def check(self) -> None:
        """Raises DataError when an answer was not written somewhere."""
        if self._lost:
            missing = ", ".join(f"{count} in {name}" for name, count in self._lost.items())
            raise DataError(f"answers: some could not be written, see the log; missing are {missing}")

    def _lose(self, name: str, why: str, answers: int) -> None:
        if name not in self._lost:
            log.warning("%s; answers go on, and are tried here again", why)
        self._lost[name] += answers

    def close(self) -> None:
        """Close every writer."""
        for writer in self._writers:
            writer.close()
