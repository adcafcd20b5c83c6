"""A source whose newest picture is also kept for a viewer."""

from __future__ import annotations

import logging
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from isthmus.device.capture.sources.source import Picture, Source
from isthmus.proto.errors import SourceError
from isthmus.proto.files import write_whole

log = logging.getLogger(__name__)

PREVIEW_PX = 128
"""Longest side of the picture that is kept for a viewer, who shows it in cells of a terminal."""


class Previewed(Source):
    """A source whose newest picture is also kept, small, in a file for whoever looks on."""

    def __init__(self, source: Source, path: Path) -> None:
        self._source, self._path = source, path
        self._kept = self._told = False
        self.name, self.fps, self.live, self.patience_s = source.name, source.fps, source.live, source.patience_s
        self.bursts, self.reconnects = source.bursts, source.reconnects

    def read(self) -> Picture | None:
        """The source's next picture. Raises SourceError, also when the file cannot be written from the start."""
        picture = self._source.read()
        if picture is not None and picture.pixels is not None and picture.pixels.dtype == np.uint8:
            self._keep(picture.pixels)
        return picture

    def again(self) -> Previewed:
        """The source opened anew, and kept as before."""
        return Previewed(self._source.again(), self._path)

    def wake(self) -> None:
        """Wake the source."""
        self._source.wake()

    def close(self) -> None:
        """Close the source; the last picture stays."""
        self._source.close()

    def _keep(self, pixels: NDArray[np.uint8]) -> None:
        shrink = min(1.0, PREVIEW_PX / max(pixels.shape[:2]))
        small = cv2.resize(pixels, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
        try:
            write_whole(
                self._path, cv2.imencode(".png", small[:, :, ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()
            )
            self._kept = True
        except OSError as error:
            why = f"{self._path}: {error.strerror}; name another place for the preview"
            if not self._kept:
                raise SourceError(why) from error
            if not self._told:
                log.warning("%s; it stands still until then", why)
            self._told = True  # a viewer's picture is no reason to end
