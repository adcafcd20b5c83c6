"""Where frames come from: a camera, a video file, a folder of pictures, or the generated scenes.

`read` blocks (it runs in a thread of its own) and gives the next picture, or None at the end. A picture that cannot be
read is given too, without pixels and with the reason: it is answered for, never skipped in silence.
"""

from __future__ import annotations

import logging
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from isthmus.models.pictures import SUFFIXES, is_picture
from isthmus.proto.errors import SourceError
from isthmus.proto.files import write_whole

log = logging.getLogger(__name__)

PREVIEW_PX = 128
"""Longest side of the picture that is kept for a viewer, who shows it in cells of a terminal."""
PATIENCE_S = 5.0
"""A read that takes longer hangs: no camera exposes for so long, and no picture takes so long to decode."""
MOST_BYTES = 1 << 28
"""A picture file of more is not read: a small board has no room for it."""
BAD_IN_A_ROW = 100
"""A camera or video that gives nothing but bad pictures, one at once after the other, has failed."""


@dataclass(frozen=True)
class Picture:
    """One picture: `pixels` (H, W, 3) RGB, or None with the reason `why`; `label` is the true class where it is known."""

    name: str
    pixels: NDArray[Any] | None
    label: int | None = None
    why: str = ""


class Source(Protocol):
    """Something that frames come from."""

    name: str
    """What it is called in a log."""
    fps: float | None = None
    """The source's own pace; None when it has none."""
    live: bool = False
    """A live source sets the pace by itself; others are paced by their reader."""
    patience_s: float = PATIENCE_S
    """How long `read` may take before it counts as hanging; infinite where nothing can be done about it."""

    def read(self) -> Picture | None:
        """The next picture; None at the end. Raises SourceError when the source has gone away."""

    def again(self) -> Source:
        """The source opened anew, for when `read` hangs: it goes on behind the picture that it hangs on, if it can.

        Raises SourceError when it cannot be opened now.
        """
        return self

    def close(self) -> None:
        """Let go of the device or file."""


class _Capture(Source):
    """What OpenCV reads frame by frame."""

    def __init__(self, name: str, opens: int | str, why_not: str) -> None:
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # what it says is said below
        self.name, self._opens = name, opens
        self._capture = cv2.VideoCapture(opens)
        if not self._capture.isOpened():
            raise SourceError(f"{name}: {why_not}")
        self.fps = float(self._capture.get(cv2.CAP_PROP_FPS)) or None
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
            pixels, why = None, _in_short(error)
        self._bad = 0 if pixels is not None else self._bad + 1
        if self._bad > BAD_IN_A_ROW:
            raise SourceError(f"{self.name}: {self._bad} bad pictures in a row, the last one: {why}")
        return Picture(f"{name} #{self._count}", pixels, why=why and f"{self.name}: {why}")


def _in_short(error: cv2.error) -> str:
    """OpenCV's reason, without its place in the source code."""
    return f"OpenCV refuses it ({' '.join(str(error).rpartition('error: ')[2].split())})"


class Camera(_Capture):
    """A camera by its index."""

    live = True

    def __init__(self, index: int) -> None:
        self._index = index
        super().__init__(
            f"camera {index}", index, "cannot be opened; is it plugged in, free, and may this user read it?"
        )

    def read(self) -> Picture:
        """The newest picture; SourceError when the camera was unplugged."""
        picture = self._next(self.name)
        if picture is None:
            raise SourceError(f"{self.name}: gave no picture after {self._count} frames; unplugged?")
        return picture

    def again(self) -> Camera:
        """The camera opened anew."""
        return Camera(self._index)


class Video(_Capture):
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


class Folder(Source):
    """The pictures of a folder in the order of their names; a sub-folder named like a label gives the true class."""

    def __init__(self, path: Path, labels: tuple[str, ...] = ()) -> None:
        self.name = str(path)
        self._labels = {name: i for i, name in enumerate(labels)}
        self._paths = sorted(p for p in path.rglob("*") if is_picture(p.relative_to(path)))
        if not self._paths:
            kinds = ", ".join(sorted(SUFFIXES))
            raise SourceError(f"{path}: no pictures in this folder (looked for {kinds})")
        self._next = 0
        self._hung_on: Path | None = None

    def read(self) -> Picture | None:
        """The next picture; one that cannot be read comes without pixels."""
        if self._hung_on is not None:
            path, self._hung_on = self._hung_on, None
            return self._without(path, f"gave nothing for {self.patience_s:g} s")
        if self._next == len(self._paths):
            return None
        path = self._paths[self._next]
        self._next += 1
        try:
            facts = path.stat()
            if not stat.S_ISREG(facts.st_mode):
                return self._without(path, "not a file")  # reading a pipe would wait for whoever writes to it
            if facts.st_size > MOST_BYTES:
                return self._without(path, f"{facts.st_size} bytes, a picture has {MOST_BYTES} at most")
            pixels = cv2.imdecode(np.frombuffer(path.read_bytes() or b"\0", np.uint8), cv2.IMREAD_COLOR)
        except OSError as error:
            return self._without(path, error.strerror or str(error))
        except cv2.error as error:
            return self._without(path, _in_short(error))
        if pixels is None:
            return self._without(path, "not a picture that OpenCV can read")
        return Picture(path.name, cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), self._labels.get(path.parent.name))

    def again(self) -> Folder:
        """The folder, behind the picture that it hung on, which is answered for."""
        self._hung_on = self._paths[self._next - 1]
        return self

    def close(self) -> None:
        """Nothing is held open."""

    def _without(self, path: Path, why: str) -> Picture:
        return Picture(path.name, None, self._labels.get(path.parent.name), why=f"{path}: {why}")


class Generated(Source):
    """The rendered scenes of the `signs` bundle, as seen from a moving camera; the truth is known."""

    def __init__(self, seed: int, fps: float = 15.0) -> None:
        from isthmus.models.scenes import Drive  # 10 MB of pictures that no other source needs

        self.name, self.fps = f"generated:{seed}", fps
        self._drive = Drive(seed, fps)
        self._next = 0

    def read(self) -> Picture:
        """The next frame of an endless drive."""
        scene = self._drive.frame(self._next)
        self._next += 1
        return Picture(f"scene #{self._next}", scene.image, scene.label)

    def close(self) -> None:
        """Nothing is held open."""


class Previewed(Source):
    """A source whose newest picture is also kept, small, in a file for whoever looks on."""

    def __init__(self, source: Source, path: Path) -> None:
        self._source, self._path = source, path
        self._kept = self._told = False
        self.name, self.fps, self.live, self.patience_s = source.name, source.fps, source.live, source.patience_s

    def read(self) -> Picture | None:
        """The source's next picture. Raises SourceError, also when the file cannot be written from the start."""
        picture = self._source.read()
        if picture is not None and picture.pixels is not None and picture.pixels.dtype == np.uint8:
            self._keep(picture.pixels)
        return picture

    def again(self) -> Previewed:
        """The source opened anew, and kept as before."""
        return Previewed(self._source.again(), self._path)

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
    raise SourceError(_unopened(spec))


def _unopened(spec: str) -> str:
    """What is said of a name that is no source, with the way out; a password in an address is not repeated."""
    if "://" in spec:
        address = re.sub(r"//[^/@]*@", "//", spec)
        return (
            f"{address}: streams are not read; let ffmpeg make a camera of it: "
            f"`ffmpeg -i {address} -f v4l2 /dev/video9` (v4l2loopback), and take camera:9"
        )
    if number := re.fullmatch(r"/dev/video(\d+)", spec):
        return f"{spec}: no such camera here; where there is one it is camera:{number[1]}"
    return f"{spec}: no such file or folder; a source is a folder, a video, camera:N or generated:SEED"
