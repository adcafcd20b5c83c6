"""A sink that makes a video of what was answered: every picture with its answer drawn on it, at the pace of the pictures."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from isthmus.device.output.shown import with_answer
from isthmus.device.output.sinks import AnsweredPicture, Inbox, Sink
from isthmus.proto.errors import DataError

MOST_STILL_S = 10.0
"""Where no picture came for longer, the video goes on after so long."""


class Film:
    """A video file in the making: pictures of any size go in, each shown until the next was captured."""

    def __init__(self, path: Path, fps: float) -> None:
        self._path, self._fps = path, fps
        self._writer: Any = None
        self._size = (0, 0)
        self._began_s = 0.0
        self._written = 0

    def add(self, pixels: NDArray[np.uint8], at_s: float) -> None:
        """Show (H, W, 3) RGB from `at_s` on. Raises DataError where nothing can be written."""
        if self._writer is None:
            self._begin(pixels, at_s)
        due = round((at_s - self._began_s) * self._fps) + 1
        if due - self._written > MOST_STILL_S * self._fps:
            self._began_s = at_s - (self._written + MOST_STILL_S * self._fps) / self._fps
            due = self._written + round(MOST_STILL_S * self._fps)
        frame = _fitted(pixels, self._size)[..., ::-1]
        while self._written < due:
            self._writer.write(frame)
            self._written += 1

    def close(self) -> None:
        """End the file: until then it cannot be played."""
        if self._writer is not None:
            self._writer.release()

    def _begin(self, pixels: NDArray[np.uint8], at_s: float) -> None:
        height, width = (side + side % 2 for side in pixels.shape[:2])  # players want even sides
        self._size, self._began_s = (width, height), at_s
        fourcc = cv2.VideoWriter.fourcc(*"mp4v")
        self._writer = cv2.VideoWriter(str(self._path), fourcc, self._fps, self._size)
        if not self._writer.isOpened():
            raise DataError(f"{self._path}: OpenCV cannot write a video there; name another place, ending in .mp4")


def _fitted(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """A picture brought into a frame of (width, height): its shape kept, black around it."""
    height, width = pixels.shape[:2]
    times = min(size[0] / width, size[1] / height)
    if times < 1:
        pixels = np.asarray(cv2.resize(pixels, None, fx=times, fy=times, interpolation=cv2.INTER_AREA), np.uint8)
    frame = np.zeros((size[1], size[0], 3), np.uint8)
    frame[: pixels.shape[0], : pixels.shape[1]] = pixels[: size[1], : size[0]]
    return frame


class Overlay(Sink):
    """Writes one video, `path`, from the first answer to the last."""

    capacity, pictures = 16, True

    def __init__(self, path: Path, fps: float, labels: tuple[str, ...]) -> None:
        self.name, self._path, self._labels = f"overlay {path}", path, labels
        self._film = Film(path, fps)

    async def open(self) -> None:
        """Raises DataError where there is something already (it is not ours to overwrite), or no video can be."""
        if self._path.suffix.lower() != ".mp4":
            raise DataError(f"{self._path}: name a file that ends in .mp4 for the overlay")
        if self._path.exists():
            raise DataError(f"{self._path}: is there already; name another file for the overlay")
        if not self._path.parent.is_dir():
            raise DataError(f"{self._path}: there is no folder {self._path.parent}; make it, or name another file")

    async def run(self, inbox: Inbox) -> None:
        """Draw and write in a thread, one picture after the other."""
        try:
            async for answered in inbox:
                await asyncio.to_thread(self._take, answered)
        finally:
            await asyncio.to_thread(self._film.close)

    def _take(self, answered: AnsweredPicture) -> None:
        if (pixels := with_answer(answered, self._labels)) is not None:
            self._film.add(pixels, answered.row.captured_s)
