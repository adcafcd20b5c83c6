"""Streams out of the network, as FFmpeg reads them: RTSP, and over HTTP MJPEG, HLS and what else it knows."""

from __future__ import annotations

from urllib.parse import urlsplit

import cv2

from isthmus.device.capture.sources.address import public
from isthmus.device.capture.sources.opencv import Capture
from isthmus.device.capture.sources.source import Picture
from isthmus.proto.errors import SourceError

SCHEMES = ("rtsp", "rtsps", "http", "https", "rtmp", "srt", "udp")
SILENCE_S = 5.0
"""A stream that says nothing for so long, while it is opened or read, is given up; the next attempt is another connection."""


class Stream(Capture):
    """One stream by its address, `rtsp://user:password@camera/path` say; it is read again when it comes back.

    What knows its length, a video on a web server, is no live stream: it is read at its own pace, to its end.
    """

    patience_s = 3 * SILENCE_S

    def __init__(self, address: str) -> None:
        self._address = address
        name = public(address)
        millis = int(1000 * SILENCE_S)
        settings = (
            *(cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, millis, cv2.CAP_PROP_READ_TIMEOUT_MSEC, millis),
            *(cv2.CAP_PROP_N_THREADS, 1),  # several decode a picture each, and give it so many pictures late
        )
        super().__init__(
            name, address, "cannot be opened; is it there, and are path, user and password right?",
            backend=cv2.CAP_FFMPEG, settings=settings,
        )  # fmt: skip
        self.live = self.reconnects = self._capture.get(cv2.CAP_PROP_FRAME_COUNT) <= 0
        self.bursts = urlsplit(address).path.endswith(".m3u8")
        self._called = urlsplit(name).hostname or name

    def read(self) -> Picture | None:
        """The next picture; SourceError when a live stream ended or fell silent."""
        picture = self._next(self._called)
        if picture is None and self.live:
            raise SourceError(f"{self.name}: ended or fell silent after {self._count} pictures")
        return picture

    def again(self) -> Stream:
        """The stream, connected to anew."""
        return Stream(self._address)
