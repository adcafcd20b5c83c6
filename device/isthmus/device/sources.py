"""Where frames come from: a camera, a video file, a folder of pictures, or the generated scenes.

`read` blocks (it runs in a thread of its own) and gives the next picture, or None at the end. A picture that cannot be
read is given too, without pixels and with the reason: it is answered for, never skipped in silence.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from isthmus.models.pictures import SUFFIXES, is_picture
from isthmus.proto.errors import SourceError

PREVIEW_PX = 128
"""Longest side of the picture that is kept for a viewer."""


@dataclass(frozen=True)
class Picture:
    """One picture: `pixels` (H, W, 3) RGB, or None with the reason `why`; `label` is the true class where it is known."""

    name: str
    pixels: NDArray[Any] | None
    label: int | None = None
    why: str = ""


class Source(Protocol):
    """Something that frames come from."""

    fps: float | None
    """The source's own pace; None when it has none."""
    live: bool
    """A live source sets the pace by itself; others are paced by their reader."""

    def read(self) -> Picture | None:
        """The next picture; None at the end. Raises SourceError when the source has gone away."""

    def close(self) -> None:
        """Let go of the device or file."""


class Camera:
    """A camera by its index."""

    live = True

    def __init__(self, index: int) -> None:
        self.name = f"camera {index}"
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # what it says is said below
        self._capture = cv2.VideoCapture(index)
        if not self._capture.isOpened():
            raise SourceError(f"{self.name}: cannot be opened; is it plugged in, free, and may this user read it?")
        self.fps = float(self._capture.get(cv2.CAP_PROP_FPS)) or None
        self._count = 0

    def read(self) -> Picture:
        """The newest picture; SourceError when the camera was unplugged."""
        ok, frame = self._capture.read()
        if not ok:
            raise SourceError(f"{self.name}: gave no picture after {self._count} frames; unplugged?")
        self._count += 1
        return Picture(f"{self.name} #{self._count}", cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))

    def close(self) -> None:
        """Let go of the camera."""
        self._capture.release()


class Video:
    """A video file, at its own pace."""

    live = False

    def __init__(self, path: Path) -> None:
        self._capture = cv2.VideoCapture(str(path))
        if not self._capture.isOpened():
            raise SourceError(f"{path}: not a video that OpenCV can read")
        self.path = path
        self.fps = float(self._capture.get(cv2.CAP_PROP_FPS)) or None
        self._count = 0

    def read(self) -> Picture | None:
        """The next picture; None at the end of the file."""
        ok, frame = self._capture.read()
        if not ok:
            return None
        self._count += 1
        return Picture(f"{self.path.name} #{self._count}", cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))

    def close(self) -> None:
        """Close the file."""
        self._capture.release()


class Folder:
    """The pictures of a folder in the order of their names; a sub-folder named like a label gives the true class."""

    live = False
    fps: float | None = None

    def __init__(self, path: Path, labels: tuple[str, ...] = ()) -> None:
        self._labels = {name: i for i, name in enumerate(labels)}
        self._paths = sorted(p for p in path.rglob("*") if is_picture(p.relative_to(path)))
        if not self._paths:
            kinds = ", ".join(sorted(SUFFIXES))
            raise SourceError(f"{path}: no pictures in this folder (looked for {kinds})")
        self._next = 0

    def read(self) -> Picture | None:
        """The next picture; one that cannot be read comes without pixels."""
        if self._next == len(self._paths):
            return None
        path = self._paths[self._next]
        self._next += 1
        label = self._labels.get(path.parent.name)
        try:
            raw = path.read_bytes()
        except OSError as error:
            return Picture(path.name, None, label, why=f"{path}: {error.strerror}")
        pixels = cv2.imdecode(np.frombuffer(raw or b"\0", np.uint8), cv2.IMREAD_COLOR)
        if pixels is None:
            return Picture(path.name, None, label, why=f"{path}: not a picture that OpenCV can read")
        return Picture(path.name, cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), label)

    def close(self) -> None:
        """Nothing is held open."""


class Generated:
    """The rendered scenes of the `signs` bundle, as seen from a moving camera; the truth is known."""

    live = False

    def __init__(self, seed: int, fps: float = 15.0) -> None:
        from isthmus.models.scenes import Drive  # 10 MB of pictures that no other source needs

        self.fps: float | None = fps
        self._drive = Drive(seed, fps)
        self._next = 0

    def read(self) -> Picture:
        """The next frame of an endless drive."""
        scene = self._drive.frame(self._next)
        self._next += 1
        return Picture(f"scene #{self._next}", scene.image, scene.label)

    def close(self) -> None:
        """Nothing is held open."""


class Previewed:
    """A source whose newest picture is also kept, small, in a file for whoever looks on."""

    def __init__(self, source: Source, path: Path) -> None:
        self._source, self._path = source, path
        self.fps, self.live = source.fps, source.live

    def read(self) -> Picture | None:
        """The source's next picture. Raises SourceError, also when the file cannot be written."""
        picture = self._source.read()
        if picture is not None and picture.pixels is not None and picture.pixels.dtype == np.uint8:
            self._keep(picture.pixels)
        return picture

    def close(self) -> None:
        """Close the source; the last picture stays."""
        self._source.close()

    def _keep(self, pixels: NDArray[np.uint8]) -> None:
        shrink = min(1.0, PREVIEW_PX / max(pixels.shape[:2]))
        small = cv2.resize(pixels, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
        partial = self._path.with_suffix(".partial")
        try:
            partial.write_bytes(cv2.imencode(".png", small[:, :, ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes())
            partial.replace(self._path)  # whole, whenever it is looked at
        except OSError as error:
            raise SourceError(f"{self._path}: {error.strerror}; name another place for the preview") from error


def _camera(argument: str, _: tuple[str, ...]) -> Source:
    return Camera(_number("camera", argument or "0"))


def _generated(argument: str, _: tuple[str, ...]) -> Source:
    return Generated(_number("generated", argument or "0"))


def _number(kind: str, text: str) -> int:
    if not text.isdecimal():
        raise SourceError(f"{kind}:{text}: expected a whole number after the colon")
    return int(text)


KINDS: dict[str, Callable[[str, tuple[str, ...]], Source]] = {"camera": _camera, "generated": _generated}


def open_source(spec: str, labels: tuple[str, ...] = ()) -> Source:
    """A source by its name: `camera:0`, `generated:7`, a folder, or a video file. SourceError tells what was tried."""
    kind, _, argument = spec.partition(":")
    if kind in KINDS:
        return KINDS[kind](argument, labels)
    path = Path(spec)
    if path.is_dir():
        return Folder(path, labels)
    if path.is_file():
        return Video(path)
    raise SourceError(f"{spec}: no such file or folder; a source is a folder, a video, camera:N or generated:SEED")
