"""The clips that come with Isthmus."""

from __future__ import annotations

from isthmus.device.capture.sources.source import Picture, Source
from isthmus.device.capture.sources.video import Video
from isthmus.models import shipped_clips


class Clips(Source):
    """The shipped clips one after the other, at their own pace, over and over; pictures say which frame of which they are."""

    def __init__(self, first: int = 0) -> None:
        """Begins with clip number `first`, counted round."""
        self.name, self._next = f"clips:{first}", first
        self._video = self._opened()
        self.fps = self._video.fps

    def read(self) -> Picture:
        """The next frame of the clip, or the first of the next one. Raises SourceError when one cannot be read."""
        if (picture := self._video.read()) is None:
            self._video.close()
            self._video = self._opened()
            picture = self._video.read()
        assert picture is not None  # a video gives a frame or raises
        return picture

    def close(self) -> None:
        """Let go of the file."""
        self._video.close()

    def _opened(self) -> Video:
        paths = shipped_clips.paths()
        self._next += 1
        return Video(paths[(self._next - 1) % len(paths)])
