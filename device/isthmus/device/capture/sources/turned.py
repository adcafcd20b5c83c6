"""A source whose pictures are turned: a camera that hangs upside down, or on its side."""

from __future__ import annotations

from dataclasses import replace

import cv2

from isthmus.device.capture.sources.source import Picture, Source

TURNS = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}
"""Degrees clockwise."""


class Turned(Source):
    """A source whose pictures are turned by 90, 180 or 270 degrees, clockwise."""

    def __init__(self, source: Source, degrees: int) -> None:
        self._source, self._degrees = source, degrees
        self.name, self.fps, self.live, self.patience_s = source.name, source.fps, source.live, source.patience_s
        self.bursts, self.reconnects = source.bursts, source.reconnects

    def read(self) -> Picture | None:
        """The source's next picture, turned."""
        picture = self._source.read()
        if picture is None or picture.pixels is None:
            return picture
        return replace(picture, pixels=cv2.rotate(picture.pixels, TURNS[self._degrees]))

    def again(self) -> Turned:
        """The source opened anew, and turned as before."""
        return Turned(self._source.again(), self._degrees)

    def wake(self) -> None:
        """Wake the source."""
        self._source.wake()

    def close(self) -> None:
        """Close the source."""
        self._source.close()
