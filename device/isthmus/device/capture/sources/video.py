"""A video file."""

from __future__ import annotations

from pathlib import Path

import cv2

from isthmus.device.capture.sources.opencv import Capture
from isthmus.device.capture.sources.source import Picture
from isthmus.proto.errors import SourceError


class Video(Capture):
    """A video file, at its own pace."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), str(path), "not a video that OpenCV can read")
        self.path = path
        self._hung_on: int | None = None

    def read(self) -> Picture | None:
        """The next picture; None at the end of the file. Raises SourceError when there was not one whole frame in it."""
        if self._hung_on is not None:
            number, self._hung_on = self._hung_on, None
            return Picture(f"{self.path.name} #{number}", None, why=f"{self.path}: hung on frame {number}")
        picture = self._next(self.path.name)
        if picture is None and not self._count:
            raise SourceError(f"{self.path}: not one whole frame in it; was the recording cut off?")
        return picture

    def again(self) -> Video:
        """The file opened anew, behind the frame that it hung on."""
        video = Video(self.path)
        video._count = video._hung_on = self._count + 1
        video._capture.set(cv2.CAP_PROP_POS_FRAMES, video._count)
        return video
