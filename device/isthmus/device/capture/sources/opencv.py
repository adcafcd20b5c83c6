"""What OpenCV reads frame by frame: the base of cameras, videos and streams."""

from __future__ import annotations

import os

import cv2

from isthmus.device.capture.sources.source import Picture, Source
from isthmus.proto.errors import SourceError

BAD_IN_A_ROW = 100
"""A camera or video that gives nothing but bad pictures, one at once after the other, has failed."""
MOST_FPS = 1000.0
"""A stream that does not know its rate claims its clock's: 90,000 a second."""

_silence = cv2.setLogLevel if hasattr(cv2, "setLogLevel") else cv2.utils.logging.setLogLevel
"""OpenCV 4 has the one name, 5 the other."""


class Capture(Source):
    """What OpenCV reads frame by frame."""

    def __init__(
        self, name: str, opens: int | str, why_not: str, *, backend: int | None = None, settings: tuple[int, ...] = ()
    ) -> None:
        """`settings` are pairs of OpenCV's properties and their values, told while it opens."""
        os.environ.setdefault(
            "OPENCV_FFMPEG_LOGLEVEL", "-8"
        )  # what it says, an address with its password, is said below
        _silence(0)
        self.name = name
        self._capture = cv2.VideoCapture(opens) if backend is None else cv2.VideoCapture(opens, backend, settings)
        if not self._capture.isOpened():
            raise SourceError(f"{name}: {why_not}")
        self.fps = _plausible(self._capture.get(cv2.CAP_PROP_FPS))
        self._count = self._bad = 0

    def close(self) -> None:
        """Let go of the camera or file."""
        self._capture.release()

    def _next(self, name: str) -> Picture | None:
        """The next frame, called `name` and its number; None when there is none. One that is no picture costs itself."""
        try:
            ok, frame = self._capture.read()
            if not ok:
                return None
            self._count += 1
            pixels, why = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), ""
        except cv2.error as error:
            pixels, why = None, in_short(error)
        self._bad = 0 if pixels is not None else self._bad + 1
        if self._bad > BAD_IN_A_ROW:
            raise SourceError(f"{self.name}: {self._bad} bad pictures in a row, the last one: {why}")
        return Picture(f"{name} #{self._count}", pixels, why=why and f"{self.name}: {why}")


def in_short(error: cv2.error) -> str:
    """OpenCV's reason, without its place in the source code."""
    return f"OpenCV refuses it ({' '.join(str(error).rpartition('error: ')[2].split())})"


def _plausible(fps: float) -> float | None:
    return fps if 0 < fps <= MOST_FPS else None
