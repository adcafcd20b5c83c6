"""Cameras that the kernel knows, by number or by path, and GStreamer's pipelines."""

from __future__ import annotations

from pathlib import Path

import cv2

from isthmus.device.capture.sources.address import public
from isthmus.device.capture.sources.opencv import Capture
from isthmus.device.capture.sources.source import ANYTHING, Picture, Wish
from isthmus.proto.errors import SourceError

VGA = (640, 480)
"""Above this, cameras on USB 2 give few pictures a second unless they compress them."""


class Plugged(Capture):
    """A camera at this machine, which can be unplugged."""

    def read(self) -> Picture:
        """The newest picture; SourceError when the camera was unplugged."""
        picture = self._next(self.name)
        if picture is None:
            raise SourceError(f"{self.name}: gave no picture after {self._count} frames; unplugged?")
        return picture


class Camera(Plugged):
    """A camera by its number, which may be another camera's after it was plugged in again: when it goes away, it is gone."""

    live = True

    def __init__(self, index: int, wish: Wish = ANYTHING) -> None:
        self._index, self._wish = index, wish
        super().__init__(
            f"camera {index}", index, "cannot be opened; is it plugged in, free, and may this user read it?"
        )
        _ask(self._capture, wish)

    def again(self) -> Camera:
        """The camera opened anew."""
        return Camera(self._index, self._wish)


class Device(Plugged):
    """A camera by its path: `/dev/video0`, or by its name below `/dev/v4l/by-id`, where it comes back under the same one."""

    live = reconnects = True

    def __init__(self, path: Path, wish: Wish = ANYTHING) -> None:
        self._path, self._wish = path, wish
        if not path.exists():
            others = ", ".join(map(str, sorted(path.parent.glob("video*" if path.name.startswith("video") else "*"))))
            raise SourceError(f"{path}: no such camera here; there {f'are {others}' if others else 'is none'}")
        name = str(path)
        why = "cannot be opened as a camera; is it free, and may this user read it (group 'video')?"
        super().__init__(name, str(path.resolve()), why, backend=cv2.CAP_V4L2)
        _ask(self._capture, wish)

    def again(self) -> Device:
        """The camera under the same path."""
        return Device(self._path, self._wish)


class Pipeline(Capture):
    """A pipeline of GStreamer, which ends in an `appsink`."""

    live = reconnects = True
    patience_s = 15.0

    def __init__(self, pipeline: str) -> None:
        self._pipeline = pipeline
        name = f"gst:{public(pipeline)}"
        if not cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
            raise SourceError(
                f"{name}: this OpenCV ({cv2.__version__}) has no GStreamer in it; on a Jetson take the system's own, "
                "elsewhere build one with it, or read the camera by its path or address"
            )
        super().__init__(
            name, pipeline, "does not run; try it with gst-launch-1.0, with `! appsink` at its end here",
            backend=cv2.CAP_GSTREAMER,
        )  # fmt: skip

    def read(self) -> Picture:
        """The newest picture; SourceError when the pipeline stopped."""
        picture = self._next("picture")
        if picture is None:
            raise SourceError(f"{self.name}: stopped after {self._count} pictures")
        return picture

    def again(self) -> Pipeline:
        """The pipeline, run anew."""
        return Pipeline(self._pipeline)


def _ask(capture: cv2.VideoCapture, wish: Wish) -> None:
    """Ask a camera for a size and a rate; it gives what is nearest to them."""
    if wish.size is not None:
        if wish.size > VGA:
            capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))
        capture.set(cv2.CAP_PROP_FRAME_WIDTH, wish.size[0])
        capture.set(cv2.CAP_PROP_FRAME_HEIGHT, wish.size[1])
    if wish.fps is not None:
        capture.set(cv2.CAP_PROP_FPS, wish.fps)
