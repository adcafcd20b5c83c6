"""The clips that come with Isthmus: three of the drone detection data set's (Svanström et al. 2021, CC0), with their boxes.

They are test clips: no shipped network was trained on them, nor on any of their places.
"""

from __future__ import annotations

from pathlib import Path

from isthmus.device.capture.sources.source import Picture, Source
from isthmus.device.capture.sources.video import Video

FOLDER = Path(__file__).parents[1] / "footage"


def shipped() -> tuple[Path, ...]:
    """The videos, by name; beside each NAME.mp4 lies NAME.boxes.csv."""
    return tuple(sorted(FOLDER.glob("*.mp4")))


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
        paths = shipped()
        self._next += 1
        return Video(paths[(self._next - 1) % len(paths)])
