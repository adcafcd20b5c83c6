"""MJPEG, or JPEG pictures one after the other, out of a pipe: standard input, or a child's standard output."""

from __future__ import annotations

import os
import select
import stat
from collections import deque

from isthmus.device.capture.sources.files import decoded
from isthmus.device.capture.sources.jpegs import JpegSplitter
from isthmus.device.capture.sources.source import Picture, Source
from isthmus.proto.errors import SourceError

AT_ONCE = 1 << 16
LOOK_EVERY_S = 0.2
"""How soon a pipe that gives nothing is let go of at the end."""


class Jpegs:
    """Whole JPEG pictures out of an open file."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._splitter = descriptor, JpegSplitter()
        self._whole: deque[bytes] = deque()
        self._woken = False
        self.count = 0

    def next(self) -> bytes | None:
        """The next picture; None when the pipe was closed, or after `wake`. Raises OSError."""
        while not self._whole:
            ready: list[int] = []
            while not ready and not self._woken:
                ready = select.select([self._descriptor], [], [], LOOK_EVERY_S)[0]
            content = os.read(self._descriptor, AT_ONCE) if ready else b""
            if not content:
                return None
            self._whole += self._splitter.feed(content)
        self.count += 1
        return self._whole.popleft()

    @property
    def empty(self) -> bool:
        """Whether nothing that was written here was a picture."""
        return self.count == 0 and self._splitter.passed_over > 0

    def wake(self) -> None:
        """Have `next` come back soon."""
        self._woken = True


class StandardInput(Source):
    """What another program writes: a camera's, and then only its newest picture counts, or a file, which is read through."""

    name = "standard input"
    patience_s = float("inf")

    def __init__(self, descriptor: int = 0) -> None:
        try:
            kind = os.fstat(descriptor).st_mode
        except OSError as error:
            raise SourceError(f"{self.name}: {error.strerror}; it is closed") from error
        if os.isatty(descriptor):
            raise SourceError(
                f"{self.name}: is a terminal; pipe pictures in: `rpicam-vid -t 0 --codec mjpeg -o - | isthmus agent --source -`"
            )
        self.live = not stat.S_ISREG(kind)
        self._jpegs = Jpegs(descriptor)

    def read(self) -> Picture | None:
        """The next picture; SourceError when what was written is no JPEG at all."""
        content = self._jpegs.next()
        if content is None:
            if self._jpegs.empty:
                raise SourceError(f"{self.name}: not one JPEG picture in it; MJPEG, or JPEG after JPEG, is expected")
            return None
        return decoded(content, f"picture {self._jpegs.count}", f"{self.name}: picture {self._jpegs.count}")

    def wake(self) -> None:
        """Wait for nothing more."""
        self._jpegs.wake()

    def close(self) -> None:
        """Leave it open: it is not ours to close."""
